"""Label maps of DICOM series -> DICOM-SEG objects, with a code for every segment and references to the slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

import segmed
from segmed.config.label_codes import ABNORMAL, Code, SegmentCode, code_of
from segmed.data.inputs import Input
from segmed.errors import ConfigError, SegmenterError, VolumeError
from segmed.files import atomic_path
from segmed.labels import LabelSet
from segmed.volumes import Source, strip_suffix
from segmed.volumes.dicom import slices_of
from segmed.volumes.dicom_frames import Frame, is_dicom_file
from segmed.volumes.itk import LPS_TO_RAS

OWN_SCHEME = "99SEGMED"  # of labels whose names say nothing to anybody else
SERIES_NUMBER = 900  # behind those of the scanner
LONGEST = {"value": 16, "meaning": 64}
SAME_PLACE_MM = 0.01
# what DICOM asks of every object, even if it is empty, and anonymisers take out
MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
                "StudyTime", "ReferringPhysicianName")  # fmt: skip


def with_seg_names(inputs: Sequence[Input]) -> tuple[Input, ...]:
    """The inputs, whose outputs are called `NAME_seg.dcm`.

    Raises:
        SegmenterError: one is no DICOM.
    """
    for item in inputs:
        path = item.paths[0]
        if not (path.is_dir() or is_dicom_file(path)):
            raise SegmenterError(
                f"{path} is no DICOM series, and a DICOM-SEG refers to the slices it was drawn on: leave out --format"
            )
    names = [strip_suffix(item.output).removesuffix(".dcm") for item in inputs]
    return tuple(
        replace(item, output=item.output.with_name(f"{name}_seg.dcm")) for item, name in zip(inputs, names, strict=True)
    )


class DicomSegWriter:
    """Writes label maps as DICOM-SEG.

    Args:
        labels: of the label maps; a label is a segment, in the same order.
        codes: label -> code, of a config; names that segmed knows need none.

    Attributes:
        unknown: labels without a code, for which one of segmed's own stands.

    Raises:
        ConfigError: highdicom is not installed.
    """

    def __init__(self, labels: LabelSet, codes: Mapping[str, str]) -> None:
        self.labels = labels
        known = {name: code_of(name, codes) for name in labels.names}
        self.unknown = tuple(name for name, code in known.items() if code is None)
        self.codes = [known[name] or _own_code(name) for name in labels.names]
        _highdicom()

    def __call__(self, path: Path, values: MetaTensor, item: Input) -> None:
        """Write one label map.

        Args:
            path: of the object.
            values: (1, X, Y, Z), as in the files of the data set, on the grid of the input.
            item: whose first image is the source.
        """
        source = next(iter(item.case.images.values()))
        indices = self.labels.encode(values.as_tensor().numpy(force=True)[0], where=str(source.path))
        write_dicom_seg(path, indices, values.affine.numpy(), source, self.labels.names, self.codes)


def write_dicom_seg(
    path: Path,
    indices: np.ndarray,
    affine: np.ndarray,
    source: Source,
    names: Sequence[str],
    codes: Sequence[SegmentCode],
) -> None:
    """Write a DICOM-SEG, completely or not at all.

    Every slice of the source has a frame for every segment, empty ones too, so that readers get the whole grid.

    Args:
        path: of the object.
        indices: (X, Y, Z): 0 background, n: the n-th segment.
        affine: (4, 4), RAS mm, of the source.
        source: the series, from which patient, study and places are taken.
        names: of the segments.
        codes: what they show.

    Raises:
        VolumeError: the source is gone, does not say in what frame of reference it lies, or has another grid.
    """
    hd = _highdicom()
    frames = _frames(source)
    _check_grid(indices, affine, frames, source.path)
    images = _source_images(frames)
    if not images[0].get("FrameOfReferenceUID"):
        raise VolumeError(f"{source.path} names no frame of reference: a DICOM-SEG of it would lie nowhere")
    object_of = hd.seg.Segmentation(
        source_images=images,
        pixel_array=_pixels(hd, indices, affine, frames, images[0].FrameOfReferenceUID),
        segmentation_type="BINARY",
        segment_descriptions=_segments(hd, names, codes),
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="segmed",
        manufacturer_model_name="segmed",
        software_versions=segmed.__version__,
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description="Automatic segmentation, not reviewed",
        series_description="Segmentation by segmed",
        omit_empty_frames=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        object_of.save_as(temporary)


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise ConfigError('DICOM-SEG needs highdicom: pip install "segmed-mri[dicom]"') from error
    return highdicom


def _own_code(name: str) -> SegmentCode:
    """A code that only segmed gives, for a label whose name no scheme is known to have."""
    words = "_".join(name.split())
    return SegmentCode(Code(OWN_SCHEME, words[: LONGEST["value"]], name[: LONGEST["meaning"]]), Code.of(ABNORMAL))


# ---------------------------------------------------------------- the source


def _frames(source: Source) -> list[Frame]:
    if not source.path.exists():
        raise VolumeError(f"the source {source.path} is gone: a DICOM-SEG refers to it, so put it back")
    return slices_of(source.path, source.component, source.series)


def _check_grid(indices: np.ndarray, affine: np.ndarray, frames: Sequence[Frame], where: Path) -> None:
    """See that voxel (0, 0, z) lies where slice z of the source does."""
    shape = (*frames[0].size, len(frames))
    if indices.shape != shape:
        raise VolumeError(f"label map {indices.shape} does not fit {where}, whose slices make {shape}: resample it")
    corners = (LPS_TO_RAS @ affine @ np.array([[0, 0, z, 1.0] for z in range(len(frames))]).T)[:3].T
    places = np.array([np.zeros(3) if frame.position is None else frame.position for frame in frames])
    step = float(np.linalg.norm(affine[:3, 2]))
    if np.abs(corners - places).max() > max(SAME_PLACE_MM, 0.1 * step):
        raise VolumeError(f"label map lies elsewhere than the slices of {where}: resample it")


def _source_images(frames: Sequence[Frame]) -> list[Any]:
    """The objects of the slices without their pixels, in the order of the slices; a multi-frame file once."""
    import pydicom

    images = []
    for file in dict.fromkeys(frame.file for frame in frames):
        try:
            image = pydicom.dcmread(file, stop_before_pixels=True)
        except FileNotFoundError as error:
            raise VolumeError(f"the source {file} is gone: a DICOM-SEG refers to it, so put it back") from error
        for tag in MAY_BE_EMPTY:
            if tag not in image:
                setattr(image, tag, "")
        if frames[0].frames == 1 and not image.get("SliceThickness"):
            image.SliceThickness = frames[0].thickness_mm
        images.append(image)
    return images


def _pixels(hd: Any, indices: np.ndarray, affine: np.ndarray, frames: Sequence[Frame], reference: str) -> Any:
    """Label indices (frames, rows, columns) in the order of the source's frames."""
    stack = np.ascontiguousarray(indices.transpose(2, 1, 0).astype(np.uint8))
    if frames[0].frames == 1:
        return stack
    if len(frames) == frames[0].frames:
        ordered = np.empty_like(stack)
        ordered[[frame.index for frame in frames]] = stack
        return ordered
    to_lps = (LPS_TO_RAS @ affine)[:, [2, 1, 0, 3]]  # one time point of several in the file
    return hd.Volume(stack, to_lps, coordinate_system="PATIENT", frame_of_reference_uid=reference)


# ---------------------------------------------------------------- segments


def _segments(hd: Any, names: Sequence[str], codes: Sequence[SegmentCode]) -> list[Any]:
    family = hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence")
    algorithm = hd.AlgorithmIdentificationSequence(name="segmed", family=family, version=segmed.__version__)
    segments = []
    for number, (name, code) in enumerate(zip(names, codes, strict=True), 1):
        segment = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[: LONGEST["meaning"]],
            segmented_property_category=_concept(hd, code.category),
            segmented_property_type=_concept(hd, code.type),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            anatomic_regions=[_concept(hd, code.region)] if code.region else None,
        )
        if code.modifier is not None:
            kind = segment.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(hd, code.modifier)]
        segments.append(segment)
    return segments


def _concept(hd: Any, code: Code) -> Any:
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)

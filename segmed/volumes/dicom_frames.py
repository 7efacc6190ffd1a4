"""DICOM files -> their frames: position, number format, patient and series; no pixel is decoded."""

from __future__ import annotations

import logging
import math
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from segmed.errors import VolumeError

logging.getLogger("pydicom").setLevel(logging.ERROR)  # it warns of what the errors below say in one line
HEADER_ERRORS = (
    InvalidDicomError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
BITS_ALLOCATED = (8, 12, 16, 32)
GREY = ("MONOCHROME1", "MONOCHROME2")
# SimpleITK hides what lies in sequences, where enhanced objects keep the place and the slope of every frame
PLACE, ORIENTATION, MEASURES = "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"
VALUES, CONTENT, BEAT = "PixelValueTransformationSequence", "FrameContentSequence", "CardiacSynchronizationSequence"


@dataclass(frozen=True)
class Frame:
    """One slice as it is stored.

    Attributes:
        file: that holds it.
        index: number within the file, from 0.
        frames: number of frames of the file.
        size: columns and rows.
        position: LPS mm, of the centre of the first pixel; None: the file does not say.
        directions: cosines of the rows and of the columns, LPS.
        spacing_mm: between columns and between rows.
        thickness_mm: thickness of a single slice.
        bits: allocated and stored.
        signed: whether stored numbers may be negative.
        samples: numbers a pixel: 1 grey, 3 colours.
        photometric: what the numbers mean, e.g. `MONOCHROME2`.
        scaling: slope and intercept from stored numbers to values.
        order: what sorts the frames of one place: time, trigger time, dimensions, number.
        trigger_ms: after the R wave; None: the file does not say.
        series: UID.
        instance: UID of the object that the file holds.
        owner: name of a tag -> its value, of the tags that identify patient, study and frame of reference.
    """

    file: Path
    index: int
    frames: int
    size: tuple[int, int]
    position: np.ndarray | None
    directions: np.ndarray
    spacing_mm: tuple[float, float]
    thickness_mm: float
    bits: tuple[int, int]
    signed: bool
    samples: int
    photometric: str
    scaling: tuple[float, float]
    order: tuple[Any, ...]
    trigger_ms: float | None
    series: str
    instance: str
    owner: dict[str, str]


@dataclass(frozen=True)
class Series:
    """One acquisition, of which a file holds a slice or all.

    Attributes:
        uid: by which slices belong together; None: the file holds no image.
        number: in the study.
        description: of the scanner or of its user.
    """

    uid: str | None
    number: int
    description: str

    @property
    def title(self) -> str:
        """Number and description, as a file may be called: `003_LGE_SAX`."""
        words = re.sub(r"[^A-Za-z0-9]+", "_", self.description).strip("_")
        return f"{self.number:03d}_{words}" if words else f"{self.number:03d}"


def series_of(path: Path) -> Series:
    """The series that a file belongs to."""
    tags = ["SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"]
    with _named(path):
        data = pydicom.dcmread(path, specific_tags=tags, stop_before_pixels=True)
        uid = str(data.get("SeriesInstanceUID", "")) if _is_image(data) else None
        return Series(uid, int(data.get("SeriesNumber") or 0), str(data.get("SeriesDescription") or ""))


def is_dicom_file(path: Path) -> bool:
    """Whether a file opens with the DICOM preamble."""
    # slices are published as a.dcm, as IM0001, as MR.0001.img and as 1.2.840.113: nothing else is opened to look
    if (
        path.name.startswith(".")
        or path.name == "DICOMDIR"
        or not re.fullmatch(r"|\.\d+|\.dcm|\.ima|\.img|\.dicom", path.suffix.lower())
        or not path.is_file()
    ):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def frames_of(path: Path) -> list[Frame]:
    """The frames of a file; none where it holds a report, a PDF or another object that is no image.

    Raises:
        VolumeError: damaged, no pixels, numbers or colours that are not understood.
    """
    with _named(path):
        data = pydicom.dcmread(path, stop_before_pixels=True)
        if not _is_image(data):
            return []
        count = int(data.get("NumberOfFrames") or 1)
        if count < 1:
            raise VolumeError(f"{path} holds {count} frames: it is empty or damaged")
        _check_pixels(data, path)
        groups = data.get("PerFrameFunctionalGroupsSequence") or [None] * count
        if len(groups) != count:
            raise VolumeError(f"{path} describes {len(groups)} of its {count} frames: export the series again")
        shared = (data.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        return [_frame(path, data, index, count, [group, shared]) for index, group in enumerate(groups)]


def is_native(path: Path) -> bool:
    """Whether pydicom decodes the pixels by itself: uncompressed, or run lengths."""
    with _named(path):
        syntax = UID(pydicom.dcmread(path, specific_tags=["Rows"], stop_before_pixels=True).file_meta.TransferSyntaxUID)
        return not syntax.is_encapsulated or syntax == pydicom.uid.RLELossless


def stored_numbers(path: Path) -> np.ndarray:
    """Stored numbers (frames, rows, columns) of a file of which `is_native` is true, not scaled."""
    with _named(path):
        numbers = pydicom.dcmread(path).pixel_array
        return numbers if numbers.ndim == 3 else numbers[None]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn pydicom's errors into one line that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except VolumeError:
        raise
    except HEADER_ERRORS as error:
        raise VolumeError(
            f"{path} is truncated, damaged or no image: copy it again, or take it out of the series"
        ) from error


def _is_image(data: Dataset) -> bool:
    """Whether a file is of an image class, or of an unknown one; reports, PDFs and segmentations are not."""
    kind = UID(str(data.get("SOPClassUID", "")))
    return "Image Storage" in kind.name or kind.name == str(kind)


def _check_pixels(data: Dataset, path: Path) -> None:
    samples, allocated, stored = (int(data.get(tag) or 0) for tag in ("SamplesPerPixel", "BitsAllocated", "BitsStored"))
    photometric = str(data.get("PhotometricInterpretation") or "")
    if min(int(data.get("Rows") or 0), int(data.get("Columns") or 0), samples) < 1:
        raise VolumeError(
            f"{path} has no pixels ({data.get('Columns')} columns, {data.get('Rows')} rows, {samples} samples a "
            "pixel): it is damaged or no image"
        )
    if allocated not in BITS_ALLOCATED or not 1 <= stored <= allocated:
        raise VolumeError(f"{path} stores {stored} of {allocated} bits a sample: export the series again")
    if (samples, photometric) != (3, "RGB") and not (samples == 1 and photometric in GREY):
        raise VolumeError(
            f"{path} holds colours or grey as '{photometric}', {samples} samples a pixel: convert it to grey or to RGB"
        )


def _frame(path: Path, data: Dataset, index: int, count: int, groups: list[Dataset | None]) -> Frame:
    """A frame of a file; its own tags count before those shared by all frames, and these before the file's."""

    def value(sequence: str, tag: str) -> Any:
        for group in groups:
            items = group.get(sequence) if group is not None else None
            if items and items[0].get(tag) not in (None, ""):
                return items[0].get(tag)
        return data.get(tag)

    position = value(PLACE, "ImagePositionPatient")
    directions = value(ORIENTATION, "ImageOrientationPatient")
    if position is None and (count > 1 or directions is not None):
        what = f"{count} frames lie" if count > 1 else "slice lies"
        raise VolumeError(f"{path} does not say where its {what}: convert the series to NIfTI with its scanner's tool")
    spacing = value(MEASURES, "PixelSpacing") or (1.0, 1.0)
    thickness = value(MEASURES, "SpacingBetweenSlices") or value(MEASURES, "SliceThickness") or 1.0
    scaling = (_number(value(VALUES, "RescaleSlope"), 1.0), _number(value(VALUES, "RescaleIntercept"), 0.0))
    if not np.isfinite(scaling).all() or scaling[0] == 0:
        raise VolumeError(f"{path} scales its values by {scaling[0]:g} and {scaling[1]:g}: export the series again")
    place = None if position is None else np.array(position, float)
    axes = np.array(directions or (1, 0, 0, 0, 1, 0), float)
    if (place is not None and (place.shape != (3,) or not np.isfinite(place).all())) or not _are_directions(axes):
        raise VolumeError(f"{path} does not say where its slice lies (position {position}): leave it out of the series")
    dimensions = value(CONTENT, "DimensionIndexValues")
    trigger = value(BEAT, "NominalCardiacTriggerDelayTime")
    trigger = data.get("TriggerTime") if trigger in (None, "") else trigger
    order = (
        _number(value(CONTENT, "TemporalPositionIndex") or data.get("TemporalPositionIdentifier"), 0.0),
        _number(trigger, 0.0),
        tuple(int(number) for number in dimensions)
        if isinstance(dimensions, list | pydicom.multival.MultiValue)
        else (),
        _number(data.get("InstanceNumber"), 0.0),
        index,
    )
    return Frame(
        file=path,
        index=index,
        frames=count,
        size=(int(data.Columns), int(data.Rows)),
        position=place,
        directions=axes,
        spacing_mm=(float(spacing[1]), float(spacing[0])),
        thickness_mm=abs(_number(thickness, 1.0)),
        bits=(int(data.BitsAllocated), int(data.BitsStored)),
        signed=bool(int(data.get("PixelRepresentation") or 0)),
        samples=int(data.SamplesPerPixel),
        photometric=str(data.PhotometricInterpretation),
        scaling=scaling,
        order=order,
        trigger_ms=None if trigger in (None, "") else float(trigger),
        series=str(data.get("SeriesInstanceUID", "")),
        instance=str(data.get("SOPInstanceUID", "")),
        owner={
            tag: str(data.get(tag) or "").strip() for tag in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
        },
    )


def _number(value: Any, missing: float) -> float:
    return missing if value in (None, "") else float(value)


def _are_directions(axes: np.ndarray) -> bool:
    """Two vectors of length one; that they are orthogonal is checked with the whole affine."""
    if axes.shape != (6,) or not np.isfinite(axes).all():
        return False
    return all(math.isclose(float(np.linalg.norm(axis)), 1.0, abs_tol=1e-2) for axis in (axes[:3], axes[3:]))

"""Tiny DICOM series, as scanners and as careless exports write them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
STUDY, SERIES, FRAME = "1.2.826.0.1.3680043.2.1125.8", "1.2.826.0.1.3680043.2.1125.9", "1.2.826.0.1.3680043.2.1125.7"
Change = Callable[[Dataset, int], None]


def _lps(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Affine, spacing and the cosines of rows and columns."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return lps, spacing, (lps[:3, :2] / spacing[:2]).T.ravel().round(9).tolist()


def _object(kind: str, instance: str, pixels: np.ndarray) -> Dataset:
    """An image object of grey pixels ([frames,] rows, columns)."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = kind
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(instance)
    data.PatientID, data.Modality = "somebody", "MR"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = STUDY, SERIES, FRAME
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    return data


def write_slices(
    folder: Path, volume: np.ndarray, affine: np.ndarray, *, change: Change | None = None, first: int = 0
) -> Path:
    """A file a slice; volume (X, Y, Z) of the type that is stored, affine RAS mm.

    Args:
        change: called with each object and the number of its slice before it is written.
        first: number of the first file, for a second stack in one folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps, spacing, cosines = _lps(affine)
    for z in range(volume.shape[2]):
        number = first + z
        data = _object(MR, f"{SERIES}.{number + 1}", np.ascontiguousarray(volume[:, :, z].T))
        data.InstanceNumber = number + 1
        data.ImagePositionPatient = (lps[:3, 3] + z * lps[:3, 2]).round(6).tolist()
        data.ImageOrientationPatient = cosines
        data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        if change:
            change(data, z)
        # names in an order that is not that of the slices
        pydicom.dcmwrite(folder / f"IM{(number * 7919) % 1009:04d}.dcm", data, enforce_file_format=True)
    return folder


def write_frames(
    path: Path,
    volumes: Sequence[np.ndarray],
    affine: np.ndarray,
    *,
    order: Sequence[tuple[int, int]],
    slopes: Sequence[float] | None = None,
    change: Change | None = None,
) -> Path:
    """One enhanced object; a frame for each (time, slice) of `order`, stored numbers as given in the volumes."""
    lps, spacing, cosines = _lps(affine)
    pixels = np.stack([volumes[time][:, :, z].T for time, z in order])
    data = _object(ENHANCED_MR, f"{SERIES}.1", pixels)
    data.NumberOfFrames, data.InstanceNumber = len(order), 1
    measures, plane = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing[1], spacing[0]], spacing[2]
    plane.ImageOrientationPatient = cosines
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    data.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number, (time, z) in enumerate(order):
        group, content, place = Dataset(), Dataset(), Dataset()
        content.TemporalPositionIndex, content.InStackPositionNumber = time + 1, z + 1
        place.ImagePositionPatient = (lps[:3, 3] + z * lps[:3, 2]).round(6).tolist()
        group.FrameContentSequence, group.PlanePositionSequence = [content], [place]
        if slopes:
            values = Dataset()
            values.RescaleSlope, values.RescaleIntercept, values.RescaleType = str(slopes[number]), "-3", "US"
            group.PixelValueTransformationSequence = [values]
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    if change:
        change(data, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path

"""NRRD and MetaImage files and folders of DICOM slices, through SimpleITK."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from segmed.geometry import GeometryError, Header, VolumeError

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
POSITION_TAG, ORIENTATION_TAG, INSTANCE_TAG = "0020|0032", "0020|0037", "0020|0013"
DIRECTION_TOLERANCE = 1e-3
GAP_TOLERANCE = 0.05  # of the distance between slices: positions in headers are rounded

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK prints to stderr what the errors below say in one line


def read_header(path: Path) -> Header:
    """Shape, affine, components and type of a file or of a DICOM folder."""
    if path.is_dir():
        return _series(path)[1]
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    size = reader.GetSize()
    components = reader.GetNumberOfComponents() * (size[3] if len(size) > 3 else 1)
    affine = _affine(reader.GetDirection(), reader.GetSpacing(), reader.GetOrigin())
    header = Header(_shape(size, path), affine, components, _dtype(reader.GetPixelID(), path))
    if path.suffix.lower() in (".mha", ".mhd"):
        _check_metaimage(path, math.prod(header.shape) * components * np.dtype(header.dtype).itemsize)
    return header


def read(path: Path, component: int | None, dtype: np.dtype | None) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, X, Y, Z), in the order of the file in memory, and affine; no dtype: as stored."""
    if path.is_dir():
        return _read_series(path, component, dtype)
    header = read_header(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    return _components_first(image, component, dtype), header.affine


def write(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write voxels (C, X, Y, Z) as `.nrrd`, `.mha` or `.mhd`; affine in RAS+ mm."""
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    if len(voxels) == 1:
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels[0].transpose(2, 1, 0)))
    else:
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(3, 2, 1, 0)), isVector=True)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=not path.name.lower().endswith(".mhd"))
    except RuntimeError as error:
        raise OSError(f"{path} can't be written: {_reason(error)}") from error


def is_dicom_file(path: Path) -> bool:
    """Whether a file opens with the DICOM preamble."""
    # slices are published as a.dcm, as IM0001 and as 1.2.840.113: nothing else is opened to look
    if (
        path.name.startswith(".")
        or path.name == "DICOMDIR"
        or not re.fullmatch(r"|\.\d+|\.dcm|\.ima|\.dicom", path.suffix.lower())
    ):
        return False
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _check_metaimage(path: Path, bytes_of_voxels: int) -> None:
    """What ITK mends in silence (a negative spacing) or tells on stderr (missing voxels), from the header's text."""
    with open(path, "rb") as file:
        text = file.read(1 << 16)
    fields = {
        key.decode("ascii", "replace"): value.strip().decode("ascii", "replace")
        for key, value in re.findall(rb"^(\w+)[ \t]*=([^\r\n]*)", text, re.MULTILINE)
    }
    spacing = fields.get("ElementSpacing", "").split()
    if any(value.startswith("-") for value in spacing):
        raise GeometryError(f"{path}: spacing ({', '.join(spacing)}) mm is not positive: repair the header")
    if fields.get("CompressedData", "false").lower() == "true":
        size = fields.get("CompressedDataSize", "")
        bytes_of_voxels = int(size) if size.isdigit() else 0
    local = re.search(rb"^ElementDataFile[ \t]*=[ \t]*LOCAL\s*?\n", text, re.MULTILINE | re.IGNORECASE)
    stored = fields.get("ElementDataFile", "")
    if stored.upper().startswith("LIST") or "%" in stored:  # many files of voxels: ITK looks for them
        return
    voxels = path if local else path.parent / stored
    if not voxels.exists():
        raise VolumeError(f"{path} names a file of voxels that is not there ({voxels.name}): copy it too")
    there = voxels.stat().st_size - (local.end() if local else 0)
    if voxels.is_file() and there < bytes_of_voxels:
        raise VolumeError(f"{path} is truncated: {there} of {bytes_of_voxels} bytes of voxels are there: copy it again")


def _components_first(image: sitk.Image, component: int | None, dtype: np.dtype | None) -> np.ndarray:
    array = sitk.GetArrayViewFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
        if image.GetDimension() == 4:  # (C, T, Z, Y, X): times of each channel in turn
            array = array.reshape(-1, *array.shape[2:])
    elif image.GetDimension() < 4:
        array = array[None]
    if image.GetDimension() == 2:
        array = array[:, None]
    if component is not None:
        array = array[component : component + 1]
    return np.array(array, dtype=dtype).transpose(0, 3, 2, 1)


def _affine(direction: tuple[float, ...], spacing: tuple[float, ...], origin: tuple[float, ...]) -> np.ndarray:
    dims = len(spacing)
    lps = np.eye(4)
    used = min(dims, 3)
    directions = np.array(direction).reshape(dims, dims)[:used, :used]
    lps[:used, :used] = directions * np.array(spacing[:used])
    lps[:used, 3] = origin[:used]
    return LPS_TO_RAS @ lps


def _shape(size: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    if min(size) < 1 or not 2 <= len(size) <= 4:
        raise VolumeError(f"{path} has no voxels or too many axes (size {size}): give a 2D, 3D or 4D volume")
    return (size[0], size[1], size[2] if len(size) > 2 else 1)


def _dtype(pixel_id: int, path: Path) -> str:
    name = sitk.GetPixelIDValueAsString(pixel_id).lower()
    if "complex" in name or "label" in name:
        raise VolumeError(f"{path} holds voxels of type '{name}': give real numbers")
    if "float" in name:
        return "float64" if "64" in name else "float32"
    sign = "u" if "unsigned" in name else ""
    return f"{sign}int{re.sub(r'[^0-9]', '', name)}"


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line.partition("ERROR:")[2] or line for line in lines if "ERROR" in line]
    text = re.sub(r"\(0x[0-9a-f]+\)", "", (told or lines or ["unknown reason"])[-1])
    return text.strip(" :.") or "unknown reason"


def _unreadable(path: Path, error: Exception) -> VolumeError:
    reason = _reason(error).replace(str(path), path.name)
    if "spacing" in str(error).lower():
        return GeometryError(f"{path}: spacing is not positive ({reason}): repair the header")
    return VolumeError(f"{path} is truncated, damaged or not a medical volume ({reason}): copy it again")


# ---------------------------------------------------------------- DICOM


def _read_series(folder: Path, component: int | None, dtype: np.dtype | None) -> tuple[np.ndarray, np.ndarray]:
    stacks, header = _series(folder)
    chosen = stacks if component is None else stacks[component : component + 1]
    volumes = []
    for files in chosen:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files)
        try:
            image = reader.Execute() if len(files) > 1 else sitk.ReadImage(files[0])
        except RuntimeError as error:
            raise _unreadable(folder, error) from error
        volumes.append(_components_first(image, None, dtype)[0])
    return np.stack(volumes), header.affine


def _series(folder: Path) -> tuple[list[list[str]], Header]:
    """Files of each time point, slices in order, and the geometry of their positions."""
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise VolumeError(f"{folder} holds no DICOM series: give a folder of DICOM slices or a volume file")
    if len(series) > 1:
        raise VolumeError(f"{folder} holds {len(series)} DICOM series: put each into a folder of its own")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    # a damaged slice is in no series: at an end of the stack nobody would miss it
    lost = sorted(path for path in folder.iterdir() if is_dicom_file(path) and str(path) not in files)
    if lost:
        raise VolumeError(f"{lost[0]} is truncated, damaged or no image: copy it again, or take it out of the series")
    first = read_header(Path(files[0]))
    if len(files) == 1:
        return [list(files)], first
    if first.components > 1:
        raise VolumeError(f"{folder} holds colour or multi-frame slices: convert the series to NIfTI first")
    slices = [_slice(name) for name in files]
    if max(float(np.abs(one.directions - slices[0].directions).max()) for one in slices) > DIRECTION_TOLERANCE:
        raise GeometryError(f"{folder}: slices point in different directions: take out localisers and other planes")
    normal = np.cross(slices[0].directions[:3], slices[0].directions[3:])
    along = np.array([one.position @ normal for one in slices]).round(3)
    order = np.lexsort((np.array([one.number for one in slices]), along))
    places = len(np.unique(along))
    times, rest = divmod(len(files), places)
    by_place = order[: places * times].reshape(places, times)
    if rest or (along[by_place] != along[by_place[:, :1]]).any():
        raise GeometryError(f"{folder}: {len(files)} slices at {places} places: some are missing or stored twice")
    affine = _stacked_affine(first, np.array([slices[index].position for index in by_place[:, 0]]), folder)
    stacks = [[files[index] for index in by_place[:, time]] for time in range(times)]
    return stacks, Header((first.shape[0], first.shape[1], places), affine, times, first.dtype)


@dataclass(frozen=True)
class _Slice:
    """Where one slice lies (LPS mm), the cosines of its rows and columns, and its number."""

    position: np.ndarray
    directions: np.ndarray
    number: int


def _slice(name: str) -> _Slice:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
        position, directions = (
            np.array([float(value) for value in reader.GetMetaData(tag).split("\\")])
            for tag in (POSITION_TAG, ORIENTATION_TAG)
        )
        number = int(reader.GetMetaData(INSTANCE_TAG)) if reader.HasMetaDataKey(INSTANCE_TAG) else 0
    except (RuntimeError, ValueError) as error:
        raise VolumeError(f"{name} does not say where its slice lies: leave it out of the series") from error
    if position.shape != (3,) or directions.shape != (6,):
        raise VolumeError(f"{name} does not say where its slice lies: leave it out of the series")
    return _Slice(position, directions, number)


def _stacked_affine(first: Header, positions: np.ndarray, folder: Path) -> np.ndarray:
    """Affine of slices at these positions (N, 3), LPS mm."""
    affine = LPS_TO_RAS @ first.affine
    affine[:3, 3] = positions[0]
    if len(positions) > 1:
        gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        if gaps.max() - gaps.min() > GAP_TOLERANCE * np.median(gaps):
            raise GeometryError(
                f"{folder}: slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart: one is missing or out of place"
            )
        affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    return LPS_TO_RAS @ affine

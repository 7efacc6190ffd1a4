"""NRRD and MetaImage files, through SimpleITK."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from segmed.errors import GeometryError, VolumeError
from segmed.geometry import Header
from segmed.volumes.room import check_room

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
PACKED = 1032  # bytes from one byte, at most, where voxels are compressed
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK prints to stderr what the errors below say in one line


def read_header(path: Path) -> Header:
    """Shape, affine, components and type of a file."""
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
    if path.suffix.lower() == ".nrrd":
        _check_nrrd(path, math.prod(header.shape) * components * np.dtype(header.dtype).itemsize)
    return header


def read(path: Path, component: int | None, dtype: np.dtype | None) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, X, Y, Z), in the order of the file in memory, and affine; no dtype: as stored."""
    header = read_header(path)
    check_room(path, math.prod(header.shape) * header.components, np.dtype(header.dtype).itemsize)
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


def _check_metaimage(path: Path, bytes_of_voxels: int) -> None:
    """Check the header for what ITK repairs silently (a negative spacing) or only prints (missing voxels)."""
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


def _check_nrrd(path: Path, bytes_of_voxels: int) -> None:
    """Refuse a header with more voxels than the file can hold, before memory is allocated."""
    with open(path, "rb") as file:
        text = file.read(1 << 16).split(b"\n\n")[0].split(b"\r\n\r\n")[0].lower()
    on_disk = path.stat().st_size
    encoding = re.search(rb"^encoding:\s*(raw|gz|gzip)\s*$", text, re.MULTILINE)
    if encoding is None or re.search(rb"^data ?file:", text, re.MULTILINE):  # text, or a file of its own
        return
    if bytes_of_voxels > on_disk * (1 if encoding[1] == b"raw" else PACKED):
        raise VolumeError(f"{path} is truncated: {on_disk} bytes can't hold {bytes_of_voxels}: copy it again")


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
    errors = [line.partition("ERROR:")[2] or line for line in lines if "ERROR" in line]
    text = re.sub(r"\(0x[0-9a-f]+\)", "", (errors or lines or ["unknown reason"])[-1])
    return text.strip(" :.") or "unknown reason"


def _unreadable(path: Path, error: Exception) -> VolumeError:
    reason = _reason(error).replace(str(path), path.name)
    if "spacing" in str(error).lower():
        return GeometryError(f"{path}: spacing is not positive ({reason}): repair the header")
    return VolumeError(f"{path} is truncated, damaged or not a medical volume ({reason}): copy it again")

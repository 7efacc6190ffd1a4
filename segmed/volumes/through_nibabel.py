"""Files that nibabel reads: pairs of .hdr and .img (NIfTI, Analyze) and FreeSurfer's .mgz and .mgh."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from segmed.errors import GeometryError, VolumeError
from segmed.geometry import Header
from segmed.volumes.room import check_room

SUFFIXES = (".mgz", ".mgh", ".img", ".hdr")
ERRORS = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    zlib.error,
)
LARGEST_RATIO = 1032  # deflate packs no tighter


def partner(path: Path) -> Path | None:
    """The other file of a pair, whether it is there or not; None for a file that has none."""
    other = {".img": ".hdr", ".hdr": ".img", ".IMG": ".HDR", ".HDR": ".IMG"}.get(path.suffix)
    return None if other is None else path.with_suffix(other)


def read_header(path: Path) -> Header:
    """Shape, affine, components and type of a file."""
    return _described(_opened(path), path)


def read(path: Path, component: int | None, dtype: np.dtype | None) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, X, Y, Z) and affine; no dtype: as stored, float64 if scaled."""
    image = _opened(path)
    header = _described(image, path)
    count = math.prod(header.shape) * header.components
    _check_length(image, count, path)
    check_room(path, count, np.dtype(header.dtype).itemsize)
    try:
        stored = np.asanyarray(image.dataobj)
    except ERRORS as error:
        raise VolumeError(f"{path} is truncated or damaged: copy it again") from error
    voxels = np.moveaxis(stored.reshape(*header.shape, header.components, order="F"), 3, 0)
    chosen = voxels if component is None else voxels[component : component + 1]
    return chosen.astype(dtype or chosen.dtype.newbyteorder("=")), header.affine


def remarks(path: Path) -> tuple[str, ...]:
    """A warning for the old Analyze format, which does not define left and right."""
    image = _opened(path)
    if isinstance(image, nib.Nifti1Pair) or not isinstance(image, nib.AnalyzeImage):
        return ()
    return ("it is in the Analyze format, which does not say where left and right are: the usual order is taken",)


def _opened(path: Path) -> Any:
    other = partner(path)
    if other is not None and not other.exists():
        raise VolumeError(f"{path} is half of a pair, {other.name} is not there: copy it too, or convert to .nii.gz")
    try:
        return nib.load(path)
    except ERRORS as error:
        raise VolumeError(f"{path} is truncated, damaged or not a volume that nibabel knows: copy it again") from error


def _described(image: Any, path: Path) -> Header:
    lengths = [int(n) for n in image.shape]
    if not lengths or min(lengths) < 1:
        raise VolumeError(f"{path} has no voxels (dimensions {lengths}): it is empty or damaged")
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise VolumeError(f"{path} holds voxels of type {dtype}: give real numbers, one a voxel and component")
    affine = np.asarray(image.affine, np.float64)
    zooms = [float(step) for step in image.header.get_zooms()[:3]]
    if not (np.isfinite(zooms).all() and min(zooms) > 0):
        raise GeometryError(f"{path}: spacing {tuple(zooms)} mm is not positive: repair the header")
    padded = (*lengths, 1, 1)
    return Header((padded[0], padded[1], padded[2]), affine, math.prod(lengths[3:]), dtype.newbyteorder("=").name)


def _check_length(image: Any, count: int, path: Path) -> None:
    """Refuse a header with more voxels than its file can hold, before memory is allocated for them."""
    files = [holder.filename for holder in image.file_map.values() if holder.filename]
    on_disk = max((Path(name).stat().st_size for name in files if Path(name).exists()), default=0)
    size = count * image.get_data_dtype().itemsize
    if size > on_disk * LARGEST_RATIO:
        raise VolumeError(f"{path} is truncated: {on_disk} bytes can't hold {size}: copy it again")

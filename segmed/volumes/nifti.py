"""NIfTI files, plain or gzipped, decoded by ISA-L and scaled as their header says."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib

from segmed.errors import VolumeError
from segmed.geometry import Header
from segmed.volumes.nifti_affine import contradictions, placed
from segmed.volumes.room import check_room

LOG = logging.getLogger(__name__)
SUFFIXES = (".nii.gz", ".nii")
UNIT_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # of header field xyzt_units: metre, millimetre, micrometre
ALIGNED, LAST_FORM_CODE = 2, 5  # of sform and qform; an unknown code still says that there is a form
UNIT_MS = {8: 1000.0, 16: 1.0, 24: 0.001}  # of the same field: second, millisecond, microsecond
TIME_UNITS = (0, 8, 16, 24, 32, 40, 48)  # that the standard knows
DECODING_ERRORS = (OSError, EOFError, ValueError, cast(type[Exception], isal_zlib.error))
LARGEST_RATIO = 1032  # deflate packs no tighter: a header that promises more voxels than this is wrong


def read_header(path: Path) -> Header:
    """Shape, affine, components and type of a file, of which only the first bytes are decoded."""
    with _open(path) as file:
        header = _header(file, path)
    return _described(header, path)


def read(path: Path, component: int | None, dtype: np.dtype | None) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, X, Y, Z), in the order of the file in memory, and affine; no dtype: as stored, float64 if scaled."""
    with _open(path) as file:
        header = _header(file, path)
        described = _described(header, path)
        count = math.prod(described.shape) * described.components
        _check_size(header, count, path)
        check_room(path, count, header.get_data_dtype().itemsize)
        stored = _voxels(file, header, count, path)
    shape = (*described.shape, described.components)
    stored = stored.reshape(shape, order="F")
    chosen = stored if component is None else stored[..., component : component + 1]
    slope, inter = _scaling(header, path)
    if slope is None:
        voxels = chosen.astype(dtype or stored.dtype.newbyteorder("="), copy=False)
    else:
        # float32 holds whole numbers up to 2**24 only: larger ones are scaled in float64
        wide = np.float32 if dtype == np.float32 and stored.dtype.itemsize <= 2 else np.float64
        voxels = np.multiply(chosen, wide(slope), dtype=wide)
        voxels = np.add(voxels, wide(inter), out=voxels).astype(dtype or wide, copy=False)
    return np.moveaxis(voxels, 3, 0), described.affine


def is_nifti(path: Path) -> bool:
    """Whether it is a NIfTI file, by its name."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def read_slices(path: Path, component: int) -> Iterator[np.ndarray]:
    """The slices (X, Y) of one component, scaled, in the order of the file: one is in memory at a time."""
    with _open(path) as file:
        header = _header(file, path)
        described = _described(header, path)
        _check_size(header, math.prod(described.shape) * described.components, path)
        (width, height, depth), dtype = described.shape, header.get_data_dtype()
        slope, inter = _scaling(header, path)
        size = width * height * dtype.itemsize
        for number in range(depth):
            try:
                file.seek(int(header["vox_offset"]) + (component * depth + number) * size)
                stored = file.read(size)
            except DECODING_ERRORS as error:
                raise VolumeError(f"{path} is truncated or damaged: copy it again") from error
            if len(stored) < size:
                raise VolumeError(f"{path} is truncated in slice {number + 1} of {depth}: copy it again")
            plane = np.frombuffer(stored, dtype).reshape((width, height), order="F")
            yield plane if slope is None else plane * np.float32(slope) + np.float32(inter)


def step_ms(path: Path) -> float | None:
    """Time between two components of a 4D file; None where its header names no unit of time, or no time."""
    with _open(path) as file:
        header = _header(file, path)
    unit, step = UNIT_MS.get(int(header["xyzt_units"]) & 56), float(header["pixdim"][4])
    return None if unit is None or not math.isfinite(step) or step <= 0 else unit * step


def write(
    path: Path, voxels: np.ndarray, affine: np.ndarray, *, like: Path | None = None, step_ms: float | None = None
) -> None:
    """Write voxels (C, X, Y, Z); `like` is a NIfTI file whose header is kept where it still holds.

    Args:
        path: `.nii` or `.nii.gz`.
        voxels: of the type that is stored.
        affine: (4, 4), RAS+ mm. Where it is that of `like`, the sform and qform of `like` stay as they are.
        like: file whose description, codes and times are kept.
        step_ms: between components that are time points; None: as in `like`.
    """
    data = voxels[0] if len(voxels) == 1 else np.moveaxis(voxels, 0, 3)
    header = None
    if like is not None:
        with _open(like) as file:
            header = _header(file, like)
        units = int(header["xyzt_units"])
        if UNIT_MM.get(units & 7, 1.0) != 1.0:
            header.set_sform(None, 0)
            header.set_qform(None, 0)
        placed(header, like)  # repairs the header, so that its faults are not copied
        for code in ("qform_code", "sform_code"):
            if not 0 <= int(header[code]) <= LAST_FORM_CODE:
                header[code] = ALIGNED if int(header[code]) > 0 else 0
        header["magic"] = header.single_magic
        header["xyzt_units"] = 2 + (units & 56 if units & 56 in TIME_UNITS else 0)
        header["cal_min"] = header["cal_max"] = 0  # a display window of the image's intensities
        header["scl_slope"], header["scl_inter"] = np.nan, np.nan
        header["intent_code"] = 0
        header.set_data_offset(0)  # that of the voxels alone: extensions of the image stay with it
    large = max(data.shape) > np.iinfo(np.int16).max
    image_class = nib.Nifti2Image if large or isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = image_class(data, affine, header=header, dtype=data.dtype)
    if like is None:
        image.header.set_xyzt_units("mm")
    if step_ms is not None and len(voxels) > 1:
        image.header.set_xyzt_units("mm", "msec")
        image.header["pixdim"][4] = step_ms
    content = image.to_bytes()
    path.write_bytes(
        igzip.compress(content, compresslevel=2, mtime=0) if path.name.lower().endswith(".gz") else content
    )


def _open(path: Path) -> BinaryIO:
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, igzip.open(path, "rb") if gzipped else open(path, "rb"))


def _header(file: BinaryIO, path: Path) -> nib.Nifti1Header:
    """The header as it is stored: nibabel's repairs would hide a wrong spacing."""
    try:
        start = file.read(540)
    except DECODING_ERRORS as error:
        raise VolumeError(f"{path} is truncated or damaged: copy it again") from error
    for header_class, size in ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540)):
        if len(start) >= size and size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
            header = header_class.from_fileobj(io.BytesIO(start), check=False)
            if header["magic"].item()[:3] == header_class.single_magic[:3]:
                return header
    raise VolumeError(f"{path} is not a NIfTI file (no NIfTI header found): give a medical volume")


def _described(header: nib.Nifti1Header, path: Path) -> Header:
    count = int(header["dim"][0])
    lengths = [int(n) for n in header["dim"][1 : count + 1]] if 1 <= count <= 7 else []
    if len(lengths) < 2 or min(lengths) < 1:
        raise VolumeError(f"{path} has no voxels (dimensions {lengths}): it is empty or damaged")
    try:
        dtype = header.get_data_dtype()
    except (ValueError, KeyError, nib.spatialimages.HeaderDataError) as error:
        number = int(header["datatype"])
        raise VolumeError(
            f"{path} has a damaged header (its data type {number} is unknown): write the file anew"
        ) from error
    if dtype.kind not in "iuf":
        raise VolumeError(f"{path} holds voxels of type {dtype}: give real numbers, one a voxel and component")
    affine, choice = placed(header, path)
    if choice:
        _warn_once(f"{path}: {choice}")
    affine[:3] *= UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    padded = (*lengths, 1)
    shape = (padded[0], padded[1], padded[2])
    return Header(shape, affine, math.prod(lengths[3:]), dtype.newbyteorder("=").name)


@lru_cache(maxsize=10_000)
def _warn_once(line: str) -> None:
    """Warn once, though a file is opened several times."""
    LOG.warning("%s", line)


def remarks(path: Path) -> tuple[str, ...]:
    """Contradictions and gaps of a header about the position or the spacing of its voxels.

    Raises:
        VolumeError: the header can't be read.
    """
    with _open(path) as file:
        header = _header(file, path)
    _, choice = placed(header.copy(), path)
    return tuple(line for line in (choice, *contradictions(header)) if line)


def _check_size(header: nib.Nifti1Header, count: int, path: Path) -> None:
    """Check the offset and the number of bytes of the voxels against the file's size."""
    offset, smallest = float(header["vox_offset"]), int(header["sizeof_hdr"]) + 4
    if not offset >= smallest or offset != round(offset):
        raise VolumeError(
            f"{path} has a damaged header (its voxels begin at byte {offset:g}, before its end at {smallest}): "
            "write the file anew"
        )
    size, on_disk = count * header.get_data_dtype().itemsize, path.stat().st_size
    if offset + size > on_disk * LARGEST_RATIO:
        raise VolumeError(f"{path} is truncated: {on_disk} bytes can't hold {size}: copy it again")


def _voxels(file: BinaryIO, header: nib.Nifti1Header, count: int, path: Path) -> np.ndarray:
    """The stored numbers, flat."""
    dtype = header.get_data_dtype()
    offset, size = int(header["vox_offset"]), count * dtype.itemsize
    try:
        buffer = np.empty(size, np.uint8)
        file.seek(offset)
        filled = 0
        while filled < size:
            got = cast(Any, file).readinto(buffer[filled:])
            if not got:
                raise VolumeError(f"{path} is truncated: {filled} of {size} bytes of voxels are there: copy it again")
            filled += got
        beyond = file.read(1)  # at the end a gzipped file checks its sum
    except MemoryError as error:
        raise VolumeError(f"{path} needs {size / 2**30:.1f} GiB of memory: crop it or use a larger machine") from error
    except DECODING_ERRORS as error:
        if isinstance(error, VolumeError):
            raise
        raise VolumeError(f"{path} is truncated or damaged: copy it again") from error
    if beyond:
        raise VolumeError(
            f"{path} holds more bytes than the {size} of its header's {count} voxels: the header is damaged, write "
            "the file anew"
        )
    return cast(np.ndarray, buffer.view(dtype))


def _scaling(header: nib.Nifti1Header, path: Path) -> tuple[float | None, float]:
    try:
        slope, inter = header.get_slope_inter()
    except nib.spatialimages.HeaderDataError as error:
        raise VolumeError(f"{path} has a damaged header ({error}): write the file anew") from error
    if slope is None or (slope == 1 and not inter):
        return None, 0.0
    return float(slope), float(inter or 0.0)

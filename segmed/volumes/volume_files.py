"""Files <-> volumes: NIfTI, NRRD, MetaImage, MGH, DICOM series and 2D images, checked as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.errors import VolumeError
from segmed.files import atomic_path, check_target
from segmed.geometry import (
    Header,
    as_affine,
    check_affine,
)
from segmed.volumes import dicom, itk, nifti, through_nibabel, through_pillow

VOLUME_SUFFIXES = (*nifti.SUFFIXES, *itk.SUFFIXES, *through_nibabel.SUFFIXES, *through_pillow.SUFFIXES)
WHOLE = 1e-3  # a value this close to a whole number is that label: tools round floats
NUMPY_TYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.uint8: np.uint8,
    torch.int16: np.int16,
    torch.int32: np.int32,
    torch.int64: np.int64,
}


@dataclass(frozen=True)
class Source:
    """Where the voxels of one image are.

    Attributes:
        path: a file, or a folder of DICOM slices.
        component: index of a channel or time point of a 4D file; None: all of it.
        colours: of a picture red, green and blue are components; else it is grey.
        series: UID of one of several DICOM series in a folder; None: the folder holds one.
        nan: `zero`: voxels that are not a number become 0, as outside the brain; else they are an error.
    """

    path: Path
    component: int | None = None
    colours: bool = False
    nan: Literal["error", "zero"] = "error"
    series: str | None = None


def strip_suffix(path: Path | str) -> str:
    """Name without folder and without the suffix of a volume: `a.b.nii.gz` -> `a.b`."""
    name = Path(path).name
    suffix = _suffix(name)
    return name[: len(name) - len(suffix)] if suffix else name


def is_volume_file(path: Path | str) -> bool:
    """Whether the name is that of a volume or an image; hidden files such as `._a.nii.gz` don't count.

    Of a pair the `.img` counts if its `.hdr` lies beside it; other `.img` files may be DICOM slices, for example.
    """
    path = Path(path)
    suffix = _suffix(path.name)
    if suffix in (".img", ".hdr"):
        other = through_nibabel.partner(path)
        return suffix == ".img" and not path.name.startswith(".") and other is not None and other.is_file()
    return bool(suffix) and not path.name.startswith(".")


def is_picture(path: Path | str) -> bool:
    """Whether the name is that of a 2D image, which has neither a spacing in mm nor an orientation."""
    return Path(path).name.lower().endswith(through_pillow.SUFFIXES)


def is_dicom_folder(path: Path | str) -> bool:
    """Whether a folder itself holds DICOM slices."""
    path = Path(path)
    return path.is_dir() and any(dicom.is_dicom_file(entry) for entry in path.iterdir())


def _suffix(name: str) -> str:
    lower = name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if lower.endswith(suffix)), "")


# ---------------------------------------------------------------- reading


def read_header(source: Source | Path | str) -> Header:
    """Shape, affine, components and type, without the voxels.

    Raises:
        VolumeError: missing, unreadable, not a volume; spacing that is not positive, axes that are not orthogonal.
    """
    source = _as_source(source)
    path = source.path
    with _named_errors(path):
        if is_picture(path):
            header = through_pillow.read_header(path, colours=source.colours)
        elif path.is_dir() or dicom.is_dicom_file(path):
            header = dicom.read_header(path, source.series)
        elif _suffix(path.name) in itk.SUFFIXES:
            header = itk.read_header(path)
        elif _suffix(path.name) in through_nibabel.SUFFIXES:
            header = through_nibabel.read_header(path)
        else:
            header = nifti.read_header(path)
    check_affine(header.affine, path)
    return header


def header_remarks(source: Source) -> tuple[str, ...]:
    """Contradictions in a file about the position or the spacing of its voxels, and what is lost when it is read.

    Raises:
        VolumeError: the file can't be read.
    """
    path = source.path
    with _named_errors(path):
        if is_picture(path):
            return through_pillow.remarks(path, colours=source.colours)
        if _suffix(path.name) in nifti.SUFFIXES:
            return nifti.remarks(path)
        if _suffix(path.name) in through_nibabel.SUFFIXES and not dicom.is_dicom_file(path):
            return through_nibabel.remarks(path)
    return ()


def read_volume(source: Source | Path | str, *, dtype: torch.dtype = torch.float32) -> MetaTensor:
    """Voxels on the grid they are stored on.

        >>> volume = segmed.read_volume("data/phantom/phantom_000/phantom_000_LGE.nii.gz")
        >>> volume.affine.shape
        torch.Size([4, 4])

    Args:
        source: a file, a DICOM folder, or a component of one.
        dtype: of the result.

    Returns:
        (C, X, Y, Z), C > 1 where a file has several components and none is chosen; affine float64 in RAS+ mm;
        `meta["path"]` is the path as text. The strides are those of the file: X is mostly the fastest axis. Colour
        images become grey unless the source says otherwise, 2D images have one slice and an identity affine.

    Raises:
        VolumeError: missing, truncated, not a volume, NaN or infinite voxels, no such component;
            spacing that is not positive, axes that are not orthogonal.
    """
    source = _as_source(source)
    if dtype not in NUMPY_TYPES:
        raise ValueError(f"volumes can't be read as {dtype}: choose one of {', '.join(map(str, NUMPY_TYPES))}")
    voxels, affine = _voxels(source, np.dtype(NUMPY_TYPES[dtype]))
    data = torch.from_numpy(voxels)
    if data.is_floating_point():
        if source.nan == "zero":
            data = torch.nan_to_num(data, nan=0.0, posinf=float("inf"), neginf=float("-inf"))
        _check_finite(data, source.path, "repair or leave out this file, or set data.nan to zero (outside the brain)")
    return MetaTensor(data, affine=torch.from_numpy(affine), meta={"path": str(source.path)})


def read_label_volume(source: Source | Path | str) -> MetaTensor:
    """A label map with the values of the file: (1, X, Y, Z) int32; floats within 1e-3 of a whole number are that one.

    Raises:
        VolumeError: as `read_volume`; also values that are not whole numbers, several components, a lossy format.
    """
    source = _as_source(source)
    if is_picture(source.path):
        with _named_errors(source.path):
            values, affine = through_pillow.read_labels(source.path)
    else:
        values, affine = _voxels(source, None)
    if len(values) > 1:
        raise VolumeError(f"{source.path} {_several_maps(values)}")
    if values.dtype.kind == "f":
        _check_finite(torch.from_numpy(values), source.path, "repair or leave out this file")
    with np.errstate(invalid="ignore"):
        whole = (np.rint(values) if values.dtype.kind == "f" else values).astype(np.int32)
    safe = np.can_cast(values.dtype, np.int32)
    if not safe and (odd := np.abs(whole - values.astype(np.float64)) > WHOLE).any():
        raise VolumeError(
            f"{source.path}: {int(odd.sum())} voxels are not whole numbers of 32 bits (e.g. {values[odd][0]:g}): "
            "give a label map that was not interpolated"
        )
    return MetaTensor(torch.from_numpy(whole), affine=torch.from_numpy(affine), meta={"path": str(source.path)})


def read_mask(source: Source | Path | str) -> MetaTensor:
    """Where a file is not 0: (1, X, Y, Z) bool; a picture, where a viewer shows it other than black.

    Raises:
        VolumeError: as `read_label_volume`; colours are no fault.
    """
    source = _as_source(source)
    if not is_picture(source.path):
        label_map = read_label_volume(source)
        return MetaTensor(label_map.as_tensor() != 0, affine=label_map.affine, meta={"path": str(source.path)})
    with _named_errors(source.path):
        values, affine = through_pillow.read_mask(source.path)
    return MetaTensor(torch.from_numpy(values), affine=torch.from_numpy(affine), meta={"path": str(source.path)})


def _several_maps(values: np.ndarray) -> str:
    """The fault of (C, X, Y, Z) values that should be one label map, and what to do."""
    fault = f"has {len(values)} components: a label map has one"
    if not np.isin(values, (0, 1)).all():
        return f"{fault}; choose a component"
    if ((values > 0).sum(axis=0) <= 1).all():
        return f"{fault}; these are one-hot: save their argmax over the last axis, one value a label"
    return (
        f"{fault}; these overlap: save one map that gives every part a value of its own, and name the wholes in "
        "data.regions"
    )


def _as_source(source: Source | Path | str) -> Source:
    return source if isinstance(source, Source) else Source(Path(source))


def _voxels(source: Source, dtype: np.dtype | None) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, X, Y, Z), of the stored type without `dtype`, and a checked affine."""
    path, component = source.path, source.component
    if component is not None:
        _check_component(component, read_header(source).components, path)
    with _named_errors(path):
        if is_picture(path):
            voxels, affine = through_pillow.read(path, dtype, colours=source.colours)
            voxels = voxels if component is None else voxels[component : component + 1]
        elif path.is_dir() or dicom.is_dicom_file(path):
            voxels, affine = dicom.read(path, component, dtype, source.series)
        elif _suffix(path.name) in itk.SUFFIXES:
            voxels, affine = itk.read(path, component, dtype)
        elif _suffix(path.name) in through_nibabel.SUFFIXES:
            voxels, affine = through_nibabel.read(path, component, dtype)
        else:
            voxels, affine = nifti.read(path, component, dtype)
    return voxels, check_affine(affine, path)


def _check_component(component: int, components: int, path: Path) -> None:
    if not 0 <= component < components:
        raise VolumeError(f"{path} has no component {component}: it has {components}, counted from 0")


def _check_finite(data: torch.Tensor, path: Path, remedy: str) -> None:
    if torch.isfinite(data.sum()):  # a sum is forty times faster than a look at every voxel
        return
    wrong = int((~torch.isfinite(data)).sum())
    if wrong:
        raise VolumeError(f"{path}: {wrong} of {data.numel()} voxels are NaN or infinite: {remedy}")


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors about a file into one line that names it."""
    if not path.exists():
        raise VolumeError(f"{path} does not exist: check the path")
    if not (path.is_file() or path.is_dir()):
        raise VolumeError(f"{path} is a pipe, a socket or a device: give a file")
    try:
        yield
    except OSError as error:
        raise VolumeError(f"{path} can't be read ({error.strerror or error}): check the file") from error


# ---------------------------------------------------------------- writing


def write_volume(
    path: Path | str, volume: MetaTensor, *, like: Path | None = None, step_ms: float | None = None
) -> None:
    """Write a volume in the format of the path's suffix, completely or not at all.

    Whole numbers are stored in the smallest type that holds them, others as float32.

    Args:
        path: `.nii.gz`, `.nii`, `.nrrd`, `.mha`, `.mhd`, or `.png` for one slice.
        volume: (C, X, Y, Z).
        like: a file whose header (codes, description, times) is kept, where both are NIfTI.
        step_ms: between components that are time points; NIfTI keeps it.

    Raises:
        VolumeError: unknown suffix, or voxels that the format can't hold.
        OSError: no space, no permission.
    """
    path = Path(path)
    suffix = _suffix(path.name)
    voxels, affine = _storable(volume.as_tensor()), as_affine(volume.affine)
    if voxels.ndim != 4:
        raise VolumeError(f"{path.name}: a volume has the shape (C, X, Y, Z), this one {tuple(voxels.shape)}")
    if suffix == ".mhd":
        _write_mhd(path, voxels, affine)
        return
    with atomic_path(path) as temporary:
        if suffix in nifti.SUFFIXES:
            same_format = like is not None and _suffix(like.name) in nifti.SUFFIXES
            nifti.write(temporary, voxels, affine, like=like if same_format else None, step_ms=step_ms)
        elif suffix in (".nrrd", ".mha"):
            itk.write(temporary, voxels, affine)
        elif suffix in (".png", ".tif", ".tiff", ".bmp"):
            through_pillow.write(temporary, voxels)
        else:
            raise VolumeError(f"{path.name}: volumes can't be written as '{path.suffix}': use .nii.gz, .nrrd or .mha")


def _storable(data: torch.Tensor) -> np.ndarray:
    voxels = data.detach().cpu()
    if voxels.is_floating_point():
        return voxels.float().numpy()
    numbers = voxels.numpy()
    lowest, highest = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.int64):
        if np.iinfo(dtype).min <= lowest and highest <= np.iinfo(dtype).max:
            return numbers.astype(dtype)
    raise VolumeError(f"values from {lowest} to {highest} fit no type of whole numbers")


def _write_mhd(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """The header names its file of voxels, so the pair is written under its own name in a temporary folder."""
    raw = path.with_suffix(".raw")
    check_target(raw)
    with atomic_path(path) as temporary:
        folder = temporary.with_suffix("")
        folder.mkdir()
        try:
            itk.write(folder / path.name, voxels, affine)
            (folder / raw.name).replace(raw)
            (folder / path.name).replace(temporary)
        finally:
            for rest in folder.iterdir():
                rest.unlink()
            folder.rmdir()

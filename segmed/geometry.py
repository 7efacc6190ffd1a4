"""Grids in the world: affines, their checks and differences, canonical axes, and resampling from grid to grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from segmed.errors import GeometryError

SHEAR_TOLERANCE = 1e-3  # cosine between two axes; headers in float32 or with four digits stay below
SNAP_VOXELS = 1e-4  # a position this close to a voxel's centre is that centre: float noise never blurs
SAME_GRID_VOXELS = 0.1  # grids whose voxels are further apart differ
CHUNK_VOXELS = 2_000_000  # positions computed at once in an oblique resampling: bounds its memory

Mode = Literal["linear", "nearest", "cubic"]


@dataclass(frozen=True)
class Header:
    """What a file says about its volume, without the voxels.

    Attributes:
        shape: voxels along X, Y, Z.
        affine: (4, 4) float64, voxel indices to RAS+ millimetres.
        components: channels or time points.
        dtype: name of the stored type, e.g. `int16`.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    components: int
    dtype: str

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return spacing_mm(self.affine)

    @property
    def orientation(self) -> str:
        return orientation(self.affine)


def as_affine(affine: Any) -> np.ndarray:
    """(4, 4) float64 from an array or a tensor."""
    if isinstance(affine, torch.Tensor):
        affine = affine.detach().cpu().numpy()
    return np.asarray(affine, dtype=np.float64)


def spacing_mm(affine: Any) -> tuple[float, float, float]:
    """Distances of neighbouring voxels along X, Y, Z in millimetres."""
    lengths = np.linalg.norm(as_affine(affine)[:3, :3], axis=0)
    return (float(lengths[0]), float(lengths[1]), float(lengths[2]))


def orientation(affine: Any) -> str:
    """The anatomical directions closest to the axes, e.g. `LAS`."""
    return "".join(nib.aff2axcodes(as_affine(affine)))


def check_affine(affine: Any, where: object) -> np.ndarray:
    """The affine as an array, if its axes are orthogonal and its spacing positive.

    Raises:
        VolumeError: not finite; a spacing that is not positive; axes that are not orthogonal.
    """
    matrix = as_affine(affine)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise GeometryError(f"{where}: the affine has values that are not finite: repair the header")
    spacing = spacing_mm(matrix)
    if min(spacing) < 1e-6:
        raise GeometryError(f"{where}: spacing {_numbers(spacing)} mm is not positive: repair the header")
    directions = matrix[:3, :3] / np.array(spacing)
    largest = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if largest > SHEAR_TOLERANCE:
        angle_deg = float(np.degrees(np.arcsin(min(largest, 1.0))))
        raise GeometryError(
            f"{where}: the axes are not orthogonal (off by {angle_deg:.2g} degrees): resample to a regular grid first"
        )
    return matrix


def grid_difference(
    a: tuple[Sequence[int], Any], b: tuple[Sequence[int], Any], *, tolerance_mm: float | None = None
) -> str | None:
    """How two grids differ, in one line; None where they are the same.

    Args:
        a, b: (shape, affine) each.
        tolerance_mm: largest distance of corresponding voxels that still counts as the same place; None: less than
            a tenth of a voxel along each axis, for headers are rounded.
    """
    shape_a, shape_b = tuple(int(n) for n in a[0][-3:]), tuple(int(n) for n in b[0][-3:])
    if shape_a != shape_b:
        return f"shape {shape_a} against {shape_b}"
    affine_a, affine_b = as_affine(a[1]), as_affine(b[1])
    corners = np.array([(*corner, 1.0) for corner in product(*((0, n - 1) for n in shape_a))])
    apart = (corners @ (affine_a - affine_b).T)[:, :3]
    apart_mm = float(np.linalg.norm(apart, axis=1).max())
    if tolerance_mm is None:
        finest = np.minimum(spacing_mm(affine_a), spacing_mm(affine_b))
        axes = affine_a[:3, :3] / np.array(spacing_mm(affine_a))
        same = (np.abs(apart @ axes) < SAME_GRID_VOXELS * finest).all()
    else:
        same = apart_mm <= tolerance_mm
    if same:
        return None
    details = []
    if orientation(affine_a) != orientation(affine_b):
        details.append(f"orientation {orientation(affine_a)} against {orientation(affine_b)}")
    if not np.allclose(spacing_mm(affine_a), spacing_mm(affine_b), rtol=1e-4):
        details.append(f"spacing {_numbers(spacing_mm(affine_a))} against {_numbers(spacing_mm(affine_b))} mm")
    if not details and not np.allclose(affine_a[:3, 3], affine_b[:3, 3], atol=1e-2):
        details.append(f"origin {_numbers(affine_a[:3, 3])} against {_numbers(affine_b[:3, 3])} mm")
    return f"voxels lie up to {apart_mm:.3g} mm apart ({', '.join(details) or 'rotated'})"


def _numbers(values: Any) -> str:
    return "(" + ", ".join(f"{float(v):.6g}" for v in values) + ")"


def with_data(volume: MetaTensor, data: torch.Tensor, affine: np.ndarray) -> MetaTensor:
    """New voxels on a new grid, the volume's other metadata kept."""
    meta = {key: value for key, value in volume.meta.items() if key != "affine"}
    return MetaTensor(data, affine=torch.from_numpy(as_affine(affine)), meta=meta)


def to_canonical(volume: MetaTensor) -> MetaTensor:
    """Permute and flip the axes (nothing is interpolated) so that they point closest to right, anterior, superior.

    Args:
        volume: (C, X, Y, Z).

    Returns:
        The volume itself where its axes are canonical, else a new one.
    """
    affine = as_affine(volume.affine)
    axes = nib.io_orientation(affine)
    order = [int(axis) for axis in np.argsort(axes[:, 0])]
    flipped = [axis + 1 for axis in range(3) if axes[axis, 1] < 0]
    if order == [0, 1, 2] and not flipped:
        return volume
    data = volume.as_tensor().permute(0, *(axis + 1 for axis in order))
    if flipped:
        data = data.flip([order.index(axis - 1) + 1 for axis in flipped])
    return with_data(volume, data, affine @ nib.orientations.inv_ornt_aff(axes, volume.shape[1:]))


def reversed_axes(affine: Any) -> tuple[bool, bool, bool]:
    """Whether the voxels along the canonical X, Y and Z lie in the opposite order in a volume of this affine."""
    axes = nib.io_orientation(as_affine(affine))
    x, y, z = (bool(axes[axis, 1] < 0) for axis in np.argsort(axes[:, 0]))
    return x, y, z


# ---------------------------------------------------------------- resampling


def resample_onto(volume: MetaTensor, *, affine: Any, shape: Sequence[int], mode: Mode = "linear") -> MetaTensor:
    """The volume on another grid; voxels outside take the value of the nearest border voxel.

    Grids whose axes are parallel are interpolated axis by axis, in double-precision positions; others in one
    three-dimensional interpolation. Nothing is smoothed before a reduction.

    Args:
        volume: (C, X, Y, Z), on any grid.
        affine: (4, 4), of the new grid, RAS+ mm.
        shape: (X, Y, Z) of the new grid.
        mode: `nearest` keeps the type of the voxels; `linear` and `cubic` give float32 (float64 from float64).
    """
    if mode not in ("linear", "nearest", "cubic"):
        raise ValueError(f"resampling mode '{mode}' is unknown: use linear, nearest or cubic")
    target, size = as_affine(affine), tuple(int(n) for n in shape)
    data = volume.as_tensor()
    if mode != "nearest" and data.dtype != torch.float64:
        data = data.float()
    to_source = np.linalg.inv(as_affine(volume.affine)) @ target
    if mode == "cubic":
        data = _cubic(data, to_source, size)
    else:
        driven_by = parallel_axes(to_source, size)
        data = (
            _oblique(data, to_source, size, mode)
            if driven_by is None
            else _by_axis(data, to_source, size, driven_by, mode)
        )
    return with_data(volume, data, target)


def parallel_axes(to_source: np.ndarray, size: tuple[int, ...]) -> list[int] | None:
    """For each source axis the one target axis that moves along it; None where the grids are oblique."""
    travel = np.abs(to_source[:3, :3]) * (np.maximum(np.array(size), 2) - 1)
    strongest = np.abs(to_source[:3, :3]).argmax(axis=1)
    rest = travel.sum(axis=1) - travel[np.arange(3), strongest]
    if len(set(strongest.tolist())) < 3 or rest.max() > SNAP_VOXELS:
        return None
    return [int(axis) for axis in strongest]


def _by_axis(
    data: torch.Tensor, to_source: np.ndarray, size: tuple[int, ...], driven_by: list[int], mode: str
) -> torch.Tensor:
    """Interpolate along one axis after the other, those that shrink first, then bring the axes in order."""
    for axis in sorted(range(3), key=lambda axis: (size[driven_by[axis]] / data.shape[axis + 1], -axis)):
        step, start = to_source[axis, driven_by[axis]], to_source[axis, 3]
        positions = np.clip(start + step * np.arange(size[driven_by[axis]]), 0, data.shape[axis + 1] - 1)
        data = _along(data, axis + 1, _snapped(positions), mode)
    return data.permute(0, *(driven_by.index(axis) + 1 for axis in range(3)))


def _snapped(positions: np.ndarray) -> np.ndarray:
    centres = np.round(positions)
    return np.where(np.abs(positions - centres) < SNAP_VOXELS, centres, positions)


def _along(data: torch.Tensor, dim: int, positions: np.ndarray, mode: str) -> torch.Tensor:
    """Values at fractional positions along one dimension."""
    length = data.shape[dim]
    if len(positions) == length and np.array_equal(positions, np.arange(length)):
        return data
    if mode == "nearest":
        positions = np.floor(positions + 0.5).clip(0, length - 1)
    below = np.floor(positions).astype(np.int64)
    weights = torch.from_numpy(positions - below).to(data)
    low = _take(data, dim, below)
    if mode == "nearest" or not weights.any():
        return low
    shape = [1] * data.ndim
    shape[dim] = -1
    return low.lerp_(_take(data, dim, np.minimum(below + 1, length - 1)), weights.reshape(shape))


def _take(data: torch.Tensor, dim: int, indices: np.ndarray) -> torch.Tensor:
    """`index_select`, which along the last dimension takes ten times as long as NumPy on a CPU."""
    if data.device.type != "cpu" or data.dtype == torch.bfloat16:
        return data.index_select(dim, torch.from_numpy(indices).to(data.device))
    array = data.numpy()
    in_memory = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    taken = np.take(array.transpose(in_memory), indices, axis=in_memory.index(dim))
    return torch.from_numpy(taken.transpose(np.argsort(in_memory)))


def _oblique(data: torch.Tensor, to_source: np.ndarray, size: tuple[int, ...], mode: str) -> torch.Tensor:
    """Interpolate on a grid whose axes are not parallel to the source's, slab by slab."""
    result = data.new_empty((data.shape[0], *size))
    lengths = torch.tensor(data.shape[1:], dtype=torch.float64, device=data.device)
    matrix = torch.from_numpy(to_source).to(data.device)
    slab = max(1, CHUNK_VOXELS // max(1, size[1] * size[2]))
    for start in range(0, size[0], slab):
        ranges = (range(start, min(start + slab, size[0])), range(size[1]), range(size[2]))
        axes = [torch.tensor(r, dtype=torch.float64, device=data.device) for r in ranges]
        x, y, z = (a.reshape([-1 if i == j else 1 for j in range(3)]) for i, a in enumerate(axes))
        at = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] * z + matrix[i, 3] for i in range(3)]
        if mode == "nearest":
            near = [torch.floor(p + 0.5).clamp_(0, n - 1).long() for p, n in zip(at, data.shape[1:], strict=True)]
            values = data[:, near[0], near[1], near[2]]
        else:
            grid = torch.stack([2 * p / max(n - 1, 1) - 1 for p, n in zip(at, lengths.tolist(), strict=True)][::-1], -1)
            values = torch.nn.functional.grid_sample(
                data[None], grid[None].to(data.dtype), mode="bilinear", padding_mode="border", align_corners=True
            )[0]
        result[:, start : start + slab] = values
    return result


def _cubic(data: torch.Tensor, to_source: np.ndarray, size: tuple[int, ...]) -> torch.Tensor:
    """Cubic B-spline interpolation."""
    channels = [
        ndimage.affine_transform(
            channel, to_source[:3, :3], offset=to_source[:3, 3], output_shape=size, order=3, mode="nearest"
        )
        for channel in data.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(channels)).to(data)

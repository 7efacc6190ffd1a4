"""Two masks -> the distances between their surfaces, computed once for every metric that needs them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

NEAR_OFFSETS = 600  # neighbours looked up directly before a tree is built: covers about five voxels around
DENSE_FRACTION = 1 / 30  # with more far voxels than this in the box, transforming all of it is faster than a tree


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around what is not zero; of an empty array, a box of no voxels.

    Args:
        mask: (X, Y, Z) or of any other dimension, bool or integer.
    """
    box = [slice(0, size) for size in mask.shape]
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hit = np.flatnonzero(mask[tuple(box)].any(axis=others))
        if hit.size == 0:
            return tuple(slice(0, 0) for _ in mask.shape)
        box[axis] = slice(int(hit[0]), int(hit[-1]) + 1)
    return tuple(box)


def surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask with a face on its outside; what lies beyond the array is outside.

    Args:
        mask: (X, Y, Z) bool.

    Returns:
        (X, Y, Z) bool. Equal to the mask without its binary erosion by a cross.
    """
    inside = mask.copy()
    for axis in range(mask.ndim):
        here, there = np.moveaxis(inside, axis, 0), np.moveaxis(mask, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
        here[0] = False
        here[-1] = False
    return mask & ~inside


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance in mm from every surface voxel of one mask to the nearest surface voxel of the other.

    Exact. Most surfaces that are compared lie within a few voxels of each other, so the nearest neighbours are
    looked up in the order of their distance; only the voxels that are farther away are asked of a KD-tree, or, where
    these are very many (a speckled prediction), of a distance transform of the box around both.

    The surface of a single slice is its outline: an axis along which the image has one voxel is left out.

    Args:
        prediction, reference: (X, Y, Z) bool, neither of them empty.
        spacing_mm: size of a voxel along X, Y and Z.

    Returns:
        from prediction to reference, from reference to prediction; float64, in the order of the voxels.

    Raises:
        ValueError: a mask is empty.
    """
    prediction, reference, spacing_mm = _cropped(prediction, reference, spacing_mm)
    surfaces = [surface(mask) for mask in (prediction, reference)]
    to_reference, to_prediction = _both_ways(surfaces[0], surfaces[1], spacing_mm)
    return to_reference, to_prediction


def element_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Distance in mm from every surface element of one mask to the nearest of the other, and the element's area.

    An element lies between 2 × 2 × 2 voxels that are not all inside or all outside; its area, in mm², is that of the
    surface which marching cubes put there. So a surface counts by its area, whatever the shape of the voxels. In a
    single slice elements lie between 2 × 2 pixels and have lengths in mm.

    Args:
        prediction, reference: (X, Y, Z) bool, neither of them empty.
        spacing_mm: size of a voxel along X, Y and Z.

    Returns:
        distances and areas of the prediction's elements, and those of the reference's; float64.

    Raises:
        ValueError: a mask is empty.

    Source: Nikolov et al. 2018, arXiv 1809.04430, with the tables of their surface-distance, as in MONAI.
    """
    prediction, reference, spacing_mm = _cropped(prediction, reference, spacing_mm)
    table = _areas(tuple(spacing_mm))
    codes = [_codes(mask) for mask in (prediction, reference)]
    elements = [(code != 0) & (code != len(table) - 1) for code in codes]
    to_reference, to_prediction = _both_ways(elements[0], elements[1], spacing_mm)
    own, other = (table[code[there]] for code, there in zip(codes, elements, strict=True))
    return (to_reference, own), (to_prediction, other)


def _cropped(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """The box around both masks, without axes along which the image has one voxel, and the spacing of what is left."""
    flat = [axis for axis, size in enumerate(prediction.shape) if size == 1][: prediction.ndim - 1]
    prediction, reference = np.squeeze(prediction, tuple(flat)), np.squeeze(reference, tuple(flat))
    box = bounding_box(prediction | reference)
    left = [float(step) for axis, step in enumerate(spacing_mm) if axis not in flat]
    return np.ascontiguousarray(prediction[box]), np.ascontiguousarray(reference[box]), left


def _both_ways(one: np.ndarray, other: np.ndarray, spacing_mm: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Distances of what one array marks to what the other marks, and back."""
    offsets, lengths_mm = _near_offsets(tuple(spacing_mm))
    margin = [(reach, reach) for reach in np.abs(offsets).max(axis=0).tolist()]
    marks = [np.pad(marked, margin) for marked in (one, other)]
    steps = offsets @ (np.asarray(marks[0].strides) // marks[0].itemsize)
    places = [np.flatnonzero(marked) for marked in marks]
    if min(place.size for place in places) == 0:
        raise ValueError("an empty mask has no surface: decide before what a missed structure counts")
    to_other = _nearest_mm(places[0], places[1], marks[1], steps, lengths_mm, spacing_mm)
    to_one = _nearest_mm(places[1], places[0], marks[0], steps, lengths_mm, spacing_mm)
    return to_other, to_one


def _codes(mask: np.ndarray) -> np.ndarray:
    """(X + 1, Y + 1, Z + 1) uint8: which of the 2 × 2 × 2 voxels around each corner are inside, as bits."""
    codes = np.pad(mask.astype(np.uint8), 1)
    for axis in reversed(range(mask.ndim)):  # the last axis gives the lowest bit
        lines = np.moveaxis(codes, axis, 0)
        codes = np.moveaxis((lines[:-1] << 2 ** (mask.ndim - 1 - axis)) | lines[1:], 0, axis)
    return codes


@lru_cache(maxsize=64)
def _areas(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """(256,) area in mm² by code; (16,) length in mm in a plane, and (4,) counts on a line."""
    if len(spacing_mm) == 1:
        return np.array([0.0, 1.0, 1.0, 0.0])
    from monai.metrics.utils import get_code_to_measure_table  # takes seconds to import

    return get_code_to_measure_table(spacing_mm)[0].numpy().astype(np.float64)


@lru_cache(maxsize=64)
def _near_offsets(spacing_mm: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The voxel offsets around the origin, nearest first, with no nearer one left out, and their lengths in mm."""
    reach = 6
    axes = np.meshgrid(*[np.arange(-reach, reach + 1)] * len(spacing_mm), indexing="ij")
    offsets = np.stack(axes, axis=-1).reshape(-1, len(spacing_mm))
    lengths_mm = np.sqrt(np.square(offsets * np.asarray(spacing_mm)).sum(axis=1))
    order = np.argsort(lengths_mm, kind="stable")
    order = order[lengths_mm[order] < (reach + 1) * min(spacing_mm)][:NEAR_OFFSETS]
    return offsets[order], lengths_mm[order]


def _nearest_mm(
    places: np.ndarray,
    targets: np.ndarray,
    target_surface: np.ndarray,
    steps: np.ndarray,
    lengths_mm: np.ndarray,
    spacing_mm: Sequence[float],
) -> np.ndarray:
    """Distances of the voxels at flat positions `places` to those at `targets`, which `target_surface` marks."""
    marked = target_surface.reshape(-1)
    distances_mm = np.empty(places.size)
    open_ = np.arange(places.size)
    left = places
    for step, length_mm in zip(steps, lengths_mm, strict=True):
        hit = marked[left + step]
        if hit.any():
            distances_mm[open_[hit]] = length_mm
            open_, left = open_[~hit], left[~hit]
        if left.size == 0:
            return distances_mm
    if left.size > DENSE_FRACTION * target_surface.size:
        distances_mm[open_] = distance_transform_edt(~target_surface, sampling=spacing_mm).reshape(-1)[left]
        return distances_mm
    tree = cKDTree(_points_mm(targets, target_surface.shape, spacing_mm), leafsize=64, balanced_tree=False)
    distances_mm[open_] = tree.query(_points_mm(left, target_surface.shape, spacing_mm))[0]
    return distances_mm


def _points_mm(places: np.ndarray, shape: tuple[int, ...], spacing_mm: Sequence[float]) -> np.ndarray:
    return np.stack(np.unravel_index(places, shape), axis=1) * np.asarray(spacing_mm, dtype=np.float64)

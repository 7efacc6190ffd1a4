"""Where the long axis of the left ventricle runs, and the grid of slices across it."""

from __future__ import annotations

import numpy as np

from segmed.cardiac.heart import HeartLabels, HeartPosition
from segmed.cardiac.rings import Cut, cut, rings
from segmed.errors import CardiacError
from segmed.geometry import as_affine

STACK_MM = 4.0  # slices at least this thick,
STACK_RATIO = 2.5  # and by so much thicker than a pixel is wide, are a stack: never interpolated across
AROUND_MM = 12.0  # kept around the wall: where the RV meets it
SEARCH_MM = 2.0  # size of the voxels in which the long axis is sought
STEADY_DEG = 0.3  # turns of the long axis smaller than this end the search
TURNS = 12

Grid = tuple[np.ndarray, tuple[int, int, int]]  # affine (4, 4) and shape


def is_stack(heart: HeartLabels) -> bool:
    """Whether the slices are too thick to be cut anew in another direction."""
    return max(heart.spacing_mm) >= max(STACK_MM, STACK_RATIO * min(heart.spacing_mm))


def cropped(heart: HeartLabels) -> HeartLabels:
    """The heart around its wall, in place in the world."""
    margins = [int(np.ceil(AROUND_MM / spacing)) for spacing in heart.spacing_mm]
    box = []
    for axis in range(3):
        hit = np.flatnonzero(heart.wall.any(axis=tuple(other for other in range(3) if other != axis)))
        beyond = 0 if axis == heart.slice_axis and is_stack(heart) else margins[axis]
        box.append(slice(max(int(hit[0]) - beyond, 0), int(hit[-1]) + 1 + beyond))
    affine = as_affine(heart.affine).copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    parts = [None if mask is None else mask[tuple(box)] for mask in (heart.pool, heart.rv)]
    return HeartLabels(heart.wall[tuple(box)], affine, parts[0], parts[1])


def sliced(heart: HeartLabels, position: HeartPosition) -> tuple[Cut, bool]:
    """Cut a heart into short-axis slices, in either order, and tell whether they are the stored ones.

    Args:
        heart: as labelled.
        position: its `long_axis` is used.

    Raises:
        CardiacError: no direction in which the wall makes rings.
    """
    near = cropped(heart)
    stored = is_stack(heart) if position.long_axis == "auto" else position.long_axis == "slices"
    if stored:
        order = [axis for axis in range(3) if axis != near.slice_axis] + [near.slice_axis]
        shape = tuple(near.wall.shape[axis] for axis in order)
        return _without_empty_ends(cut(near, near.affine[:, [*order, 3]], (shape[0], shape[1], shape[2]))), True
    axis = _find_axis(near)
    return _without_empty_ends(cut(near, *_grid_across(near, axis, min(near.spacing_mm), max(near.spacing_mm)))), False


def _without_empty_ends(heart: Cut) -> Cut:
    hit = np.flatnonzero(heart.wall.any(axis=(0, 1)))
    kept = slice(int(hit[0]), int(hit[-1]) + 1)
    affine = heart.affine.copy()
    affine[:3, 3] += affine[:3, 2] * kept.start
    rv = None if heart.rv is None else heart.rv[..., kept]
    return Cut(heart.wall[..., kept], heart.pool[..., kept], rv, affine)


def _find_axis(heart: HeartLabels) -> np.ndarray:
    """Direction of the long axis, a unit vector in RAS, in either sense.

    Of the principal axes of the cavity (of the wall, where that is not labelled) the one is taken across which most
    of the wall lies in full rings: a short and wide ventricle is wider than it is long. It is then turned until it
    runs through the centres of the cavity in those rings.
    """
    inside = heart.pool if heart.pool is not None and heart.pool.any() else heart.wall
    points = _points_mm(heart, inside)
    if len(points) < 8:
        raise CardiacError(f"{len(points)} voxels of the LV are too few to find its long axis: check the label map")
    _, starts = np.linalg.eigh(np.cov(points.T))
    turned = [_turn_into_centres(heart, starts[:, number]) for number in range(3)]
    share, axis = max(turned, key=lambda pair: pair[0])
    if share < 0.3:
        raise CardiacError(
            f"the LV wall makes full rings in no direction (at best {100 * share:.0f} % of it lies in one): "
            "segments need a wall that goes round; check the label map"
        )
    return axis


def _turn_into_centres(heart: HeartLabels, axis: np.ndarray) -> tuple[float, np.ndarray]:
    """Share of the wall in full rings, and the axis turned through the centres of the cavity."""
    step_mm = max(SEARCH_MM, min(heart.spacing_mm))
    best = (0.0, axis)
    for _ in range(TURNS):
        slices = cut(heart, *_grid_across(heart, axis, step_mm, step_mm))
        slice_rings = rings(slices)
        share = sum(ring.wall_mm2 for ring in slice_rings if ring.is_full) / sum(ring.wall_mm2 for ring in slice_rings)
        best = max(best, (share, axis), key=lambda pair: pair[0])
        centres = np.array([(*ring.centre, z) for z, ring in enumerate(slice_rings) if ring.is_full and ring.centre])
        if len(centres) < 3:
            return best
        slope = np.polyfit(centres[:, 2], centres[:, :2], 1)[0]
        turned = slices.affine[:3, :3] @ np.array([*slope, 1.0])
        turned /= np.linalg.norm(turned)
        angle_deg = np.degrees(np.arccos(np.clip(abs(turned @ axis), 0, 1)))
        axis = turned
        if angle_deg < STEADY_DEG:
            return share, axis
    return best


def _points_mm(heart: HeartLabels, mask: np.ndarray) -> np.ndarray:
    affine = as_affine(heart.affine)
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def _grid_across(heart: HeartLabels, axis: np.ndarray, pixel_mm: float, slice_mm: float) -> Grid:
    """A right-handed grid of slices across an axis that holds the wall and what is close to it."""
    first = np.eye(3)[np.abs(axis).argmin()]
    first = first - (first @ axis) * axis
    first /= np.linalg.norm(first)
    frame = np.stack([first, np.cross(axis, first), axis], axis=1)
    steps = np.array([pixel_mm, pixel_mm, slice_mm])
    along = _points_mm(heart, heart.wall) @ frame
    margin = np.array([AROUND_MM, AROUND_MM, slice_mm])
    low, high = along.min(axis=0) - margin, along.max(axis=0) + margin
    affine = np.eye(4)
    affine[:3, :3] = frame * steps
    affine[:3, 3] = frame @ low
    rows, columns, slices = (int(n) for n in np.ceil((high - low) / steps) + 1)
    return affine, (rows, columns, slices)

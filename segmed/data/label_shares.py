"""Label map -> label map on another grid, by the share of each label in a voxel, so that each keeps its volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import sparse

from segmed.geometry import SNAP_VOXELS, as_affine, parallel_axes, resample_onto, with_data
from segmed.metrics.surfaces import bounding_box

NEAR = 0.25  # a label may win or lose a voxel for its volume's sake where its share lies this near to the best other
TIE = 0.04  # leads this near to each other are equal: where sizes are odd, halves are not quite halves
SKIPPED = 1e-9  # weights below are rounding


def resample_labels(labels: MetaTensor, *, affine: Any, shape: Sequence[int]) -> MetaTensor:
    """A label map on another grid; values are never mixed, no label shifts, and each keeps its volume.

    Along an axis that gets coarser, a label's share of a new voxel is the part that old voxels of the label cover.
    Along an axis that gets finer, shares are interpolated linearly. The largest share wins; but a label gets as many
    voxels as its shares add up to, so where two shares are nearly equal the label that lacks volume takes the voxel.
    Of voxels where they are equal, as on a flat face that halves voxels, some are taken, spread evenly and
    symmetrically, so the label does not shift. Where the grids are oblique to each other, the nearest voxel counts.

    Args:
        labels: (1, X, Y, Z), whole numbers.
        affine: (4, 4), of the new grid, RAS+ mm.
        shape: (X, Y, Z) of the new grid.
    """
    size = tuple(int(n) for n in shape)
    to_source = np.linalg.inv(as_affine(labels.affine)) @ as_affine(affine)
    driven_by = parallel_axes(to_source, size)
    values = labels.as_tensor()[0].numpy()
    present, counts = np.unique(values, return_counts=True)
    if driven_by is None or len(present) == 1:
        return resample_onto(labels, affine=affine, shape=size, mode="nearest")
    lines = [(to_source[axis, 3], to_source[axis, driven_by[axis]], size[driven_by[axis]]) for axis in range(3)]
    weights = [_weights(*line, values.shape[axis]) for axis, line in enumerate(lines)]
    commonest = present[counts.argmax()]  # often the background: its share is what the others leave
    parts = [_share(values, value, weights) for value in present if value != commonest]
    given = _give(parts, commonest, tuple(count for _, _, count in lines))
    inverse = [driven_by.index(axis) for axis in range(3)]
    return with_data(labels, torch.from_numpy(given.transpose(inverse).copy())[None], as_affine(affine))


@dataclass(frozen=True)
class _Share:
    """One label: its value, the box of the new grid that it reaches, and its share of each voxel there."""

    value: Any
    box: tuple[slice, ...]
    share: np.ndarray


def _share(values: np.ndarray, value: Any, weights: Sequence[sparse.csr_array]) -> _Share:
    mask = values == value
    old = bounding_box(mask)
    reached = [lines[:, side.start : side.stop] for lines, side in zip(weights, old, strict=True)]
    touched = [np.flatnonzero(np.diff(lines.indptr)) for lines in reached]
    new = tuple(slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0) for rows in touched)
    steps = enumerate(lines[side] for lines, side in zip(reached, new, strict=True))
    return _Share(value, new, reduce(_along, steps, mask[old].astype(np.float32)))


def _along(values: np.ndarray, step: tuple[int, sparse.csr_array]) -> np.ndarray:
    axis, weights = step
    lines = np.moveaxis(values, axis, 0)
    mixed = weights @ lines.reshape(len(lines), -1)
    return np.moveaxis(mixed.reshape(-1, *lines.shape[1:]), 0, axis)


def _weights(start: float, step: float, count: int, length: int) -> sparse.csr_array:
    """(count, length) weights of the old voxels of a line for new voxels at start + step * i; rows sum to 1.

    A new voxel outside the old line takes the value at its end.
    """
    places = start + step * np.arange(count)
    places = np.where(np.abs(places - np.round(places)) < SNAP_VOXELS, np.round(places), places)
    width = abs(step)
    reach = int(np.ceil(width / 2)) + 1
    near = np.floor(places)[:, None] + np.arange(-reach, reach + 2)
    apart = np.abs(near - places[:, None])
    coarser = width > 1 + SNAP_VOXELS
    shares = np.clip((width + 1) / 2 - apart, 0, 1) / width if coarser else np.clip(1 - apart, 0, None)
    used = shares > SKIPPED
    rows = np.broadcast_to(np.arange(count)[:, None], near.shape)[used]
    columns = np.clip(near, 0, length - 1).astype(np.int64)[used]
    return sparse.csr_array((shares[used].astype(np.float32), (rows, columns)), shape=(count, length))


def _give(parts: Sequence[_Share], commonest: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The value of each voxel of the new grid."""
    best, second = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    for part in parts:
        best[part.box] -= part.share
    given = np.full(shape, commonest)
    follower = given.copy()
    for part in parts:
        first, next_, winner, runner = (array[part.box] for array in (best, second, given, follower))
        wins, follows = part.share > first, (part.share <= first) & (part.share > next_)
        runner[...] = np.where(wins, winner, np.where(follows, part.value, runner))
        next_[...] = np.where(wins, first, np.where(follows, part.share, next_))
        winner[wins], first[wins] = part.value, part.share[wins]
    largest = given.copy()
    for part in parts:
        own = largest[part.box] == part.value
        lead = part.share - np.where(own, second[part.box], best[part.box])
        kept = _kept(lead, part.share)
        now = given[part.box]
        now[own & ~kept] = follower[part.box][own & ~kept]
        now[kept & ~own] = part.value
    return given


def _kept(lead: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The voxels that a label gets: as many as its shares add up to, those with the largest lead first."""
    sure, open_ = lead >= NEAR, np.abs(lead) < NEAR
    order = np.round(lead[open_] / TIE) + _turns(np.nonzero(open_), lead.shape) / 4
    levels, counts = np.unique(-order, return_counts=True)
    numbers = np.count_nonzero(sure) + np.concatenate([[0], np.cumsum(counts)])
    taken = int(np.abs(numbers - share.sum(dtype=np.float64)).argmin())
    if taken:
        sure[open_] = -order <= levels[taken - 1]
    return sure


def _turns(places: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """Numbers from 0 to below 2, spread evenly over each plane of a box, the same from either end of each axis.

    Those from 1 on are the fields of one colour of a chessboard.
    """
    x, y, z = (np.abs(2 * place - (n - 1)) // 2 for place, n in zip(places, shape, strict=True))
    eighth = (x + 3 * y + 5 * z) % 8
    return eighth % 2 + eighth / 8

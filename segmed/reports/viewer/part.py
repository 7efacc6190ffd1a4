"""The part of a volume that a page has room for: cut to what is labelled, then made coarser along the finest axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.geometry import spacing_mm
from segmed.reports.drawing.one_slice import is_labelled
from segmed.reports.viewer.layers import Layers
from segmed.volumes.slice_stack import SliceStack

AROUND = 0.25  # of the size of what is labelled is shown around it


@dataclass(frozen=True)
class Part:
    """Blocks of voxels, in the axes of the file.

    Attributes:
        start, stop: of the voxels that are shown, along X, Y and Z.
        step: voxels of a block, which is shown as one.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...] = (1, 1, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Blocks along X, Y and Z."""
        sides = zip(self.start, self.stop, self.step, strict=True)
        return tuple(math.ceil((stop - start) / step) for start, stop, step in sides)

    @property
    def voxel_to_file(self) -> np.ndarray:
        """(4, 4): index of a block -> the middle of its voxels in the file."""
        matrix = np.diag([*map(float, self.step), 1.0])
        matrix[:3, 3] = [start + (step - 1) / 2 for start, step in zip(self.start, self.step, strict=True)]
        return matrix

    def middles(self, axis: int) -> np.ndarray:
        """The voxel of each block along an axis that stands for it where nothing may be averaged."""
        first = self.start[axis] + self.step[axis] // 2
        return np.minimum(first + self.step[axis] * np.arange(self.shape[axis]), self.stop[axis] - 1)


def choose_part(layers: Layers, most_voxels: int) -> Part:
    """The whole volume where it is small enough, else the part around the labels, else every few voxels as one.

    Args:
        layers: of the case.
        most_voxels: of one layer.
    """
    shape = layers.first.shape
    part = Part((0, 0, 0), shape)
    if math.prod(shape) <= most_voxels:
        return part
    spacing = spacing_mm(layers.first.affine)
    if (box := _labelled_box(layers.label_maps)) is not None:
        margin_mm = AROUND * max((stop - start) * size for (start, stop), size in zip(box, spacing, strict=True))
        margins = [max(2, round(margin_mm / size)) for size in spacing]
        part = Part(
            tuple(max(0, start - margin) for (start, _), margin in zip(box, margins, strict=True)),
            tuple(min(n, stop + margin) for (_, stop), margin, n in zip(box, margins, shape, strict=True)),
        )
    while math.prod(part.shape) > most_voxels:
        sizes_mm = [math.inf if n == 1 else size * step for n, size, step in zip(
            part.shape, spacing, part.step, strict=True)]  # fmt: skip
        finest = int(np.argmin(sizes_mm))
        part = Part(part.start, part.stop, tuple(step + (axis == finest) for axis, step in enumerate(part.step)))
    return part


def _labelled_box(label_maps: Sequence[SliceStack]) -> list[tuple[int, int]] | None:
    """First and one past the last labelled voxel along X, Y and Z; None where there is none."""
    hits: list[np.ndarray] | None = None
    for stack in label_maps:
        hits = hits or [np.zeros(n, bool) for n in stack.shape]
        for number, plane in enumerate(stack.slices()):
            mask = is_labelled(plane)
            hits[0] |= mask.any(axis=1)
            hits[1] |= mask.any(axis=0)
            hits[2][number] |= bool(mask.any())
    if hits is None or not hits[0].any():
        return None
    edges = [np.flatnonzero(hit) for hit in hits]
    return [(int(edge[0]), int(edge[-1]) + 1) for edge in edges]


# ---------------------------------------------------------------- reading it


def averaged(stack: SliceStack, part: Part) -> np.ndarray:
    """The mean of every block, float32; what is not a number counts as 0."""
    result = np.zeros(part.shape, np.float32)
    counts = np.zeros(part.shape[2], np.float32)
    (x, y), step = part.shape[:2], part.step
    for number, plane in _wanted(stack, part):
        block = (number - part.start[2]) // step[2]
        cut = np.nan_to_num(plane[part.start[0] : part.stop[0], part.start[1] : part.stop[1]].astype(np.float32))
        if step[:2] != (1, 1):
            along_x = np.add.reduceat(cut, step[0] * np.arange(x), axis=0)
            cut = np.add.reduceat(along_x, step[1] * np.arange(y), axis=1)
        result[..., block] += cut
        counts[block] += 1
    wide = np.minimum(step[0], part.stop[0] - part.start[0] - step[0] * np.arange(x))
    high = np.minimum(step[1], part.stop[1] - part.start[1] - step[1] * np.arange(y))
    result /= wide[:, None, None] * high[None, :, None] * counts
    return result


def picked(stack: SliceStack, part: Part) -> np.ndarray:
    """The middle voxel of every block, uint8: label indices can't be averaged."""
    result = np.zeros(part.shape, np.uint8)
    columns = np.ix_(part.middles(0), part.middles(1))
    wanted = {int(number): block for block, number in enumerate(part.middles(2))}
    for number, plane in _wanted(stack, part):
        if number in wanted:
            result[..., wanted[number]] = plane[columns]
    return result


def _wanted(stack: SliceStack, part: Part) -> Iterator[tuple[int, np.ndarray]]:
    """The slices of a part with their numbers in the file."""
    for number, plane in enumerate(stack.slices()):
        if number >= part.stop[2]:
            return
        if number >= part.start[2]:
            yield number, plane

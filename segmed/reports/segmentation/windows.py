"""The windows of a sliding window over the volume that they cover, and how much each counts where they overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from segmed.reports.drawing.curves import COLOURS
from segmed.reports.drawing.panels import (
    TILE_INCHES,
    add_scale,
    add_title,
    bare,
    plain,
    plane_of,
    show_plane,
    size_text,
    tallness,
)
from segmed.reports.drawing.slices import HEAT, INK, PREDICTION_COLOUR, REFERENCE_COLOUR

Box = tuple[slice, ...]


def blending_figure(
    image: np.ndarray, starts: Sequence[Sequence[int]], weights: np.ndarray, *, title: str = ""
) -> Figure:
    """How windows cover a volume, the weights of one of them, and the share that it has in the blended result.

    Args:
        image: (X, Y, Z), preprocessed, along no axis smaller than the window.
        starts: first voxels of the windows, of `segmenters.sliding.window_starts`.
        weights: (window), of `segmenters.sliding.blending_weights`.
        title: above the figure.

    Raises:
        ValueError: no window, or one that reaches out of the image.
    """
    boxes = _boxes(starts, weights.shape, image.shape)
    total = np.zeros(image.shape)
    for box in boxes:
        total[box] += weights
    chosen = min(boxes, key=lambda box: math.dist(_middle(box), [n // 2 for n in image.shape]))
    alone, share = np.full(image.shape, np.nan), np.full(image.shape, np.nan)
    alone[chosen], share[chosen] = weights, weights / total[chosen]
    number = _middle(chosen)[2]
    tile = 1.7 * TILE_INCHES
    figure = Figure(figsize=(tile * 3 + 3.2, tile * tallness(image) + 0.5), layout="constrained")
    covered, centre, right, lines = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.2])
    for axes in (covered, centre, right):
        show_plane(axes, plane_of(image, number))
        bare(axes)
    for box in boxes:
        if box[2].start <= number < box[2].stop:
            _outline(covered, box, REFERENCE_COLOUR, 0.7)
    _outline(covered, chosen, PREDICTION_COLOUR, 1.8)
    covered.set_title(f"{len(boxes)} windows of {size_text(weights.shape)}", fontsize=8, color=INK)
    for axes, values, text in ((centre, alone, "weight of one window"), (right, share, "its share of the result")):
        show_plane(axes, plane_of(values, number), window=(0.0, 1.0), colours=HEAT)
        axes.set_title(text, fontsize=8, color=INK)
    add_scale(figure, [centre, right])
    _draw_shares(lines, boxes, weights / weights.max(), total / weights.max(), _middle(chosen))
    add_title(figure, title)
    return figure


def _boxes(starts: Sequence[Sequence[int]], window: Sequence[int], size: Sequence[int]) -> list[Box]:
    boxes = [tuple(slice(int(a), int(a) + n) for a, n in zip(start, window, strict=True)) for start in starts]
    if not boxes:
        raise ValueError("no window to draw: give the first voxel of at least one")
    if any(side.start < 0 or side.stop > n for box in boxes for side, n in zip(box, size, strict=True)):
        raise ValueError(
            f"windows of {size_text(window)} voxels reach out of the image of {size_text(size)}: "
            "pad the image, or take a smaller window"
        )
    return boxes


def _middle(box: Box) -> list[int]:
    return [(side.start + side.stop - 1) // 2 for side in box]


def _outline(axes: Axes, box: Box, colour: str, width: float) -> None:
    corner = (box[0].start - 0.5, box[1].start - 0.5)
    sides = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=width))


def _draw_shares(
    axes: Axes, boxes: Sequence[Box], weights: np.ndarray, total: np.ndarray, middle: Sequence[int]
) -> None:
    """Shares of the windows along the first axis, through `middle`; those that start alike are one line."""
    shares: dict[int, np.ndarray] = {}
    for box in boxes:
        if all(box[axis].start <= middle[axis] < box[axis].stop for axis in (1, 2)):
            line = weights[:, middle[1] - box[1].start, middle[2] - box[2].start]
            column = shares.setdefault(box[0].start, np.zeros(total.shape[0]))
            column[box[0]] += line / total[box[0], middle[1], middle[2]]
    for number, start in enumerate(sorted(shares)):
        colour = COLOURS[number % len(COLOURS)]
        inside = np.arange(start, start + weights.shape[0])
        axes.fill_between(inside, shares[start][inside], color=colour, alpha=0.25, linewidth=0)
        axes.plot(inside, shares[start][inside], color=colour, linewidth=1.2)
    axes.set_xlim(total.shape[0] - 1, 0)  # as in the slices: the patient's right on the left
    axes.set_ylim(0, 1.03)
    axes.set_title("shares along the first axis", fontsize=8, color=INK)
    axes.set_xlabel("voxel", fontsize=8, color=INK)
    plain(axes)

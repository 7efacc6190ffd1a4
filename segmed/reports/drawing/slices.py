"""Slices with reference and prediction: three planes of one case, or rows of slices of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from monai.data import MetaTensor

from segmed.evaluate.case_volumes import CaseVolumes, shown_case
from segmed.files import atomic_path
from segmed.metrics.surfaces import bounding_box
from segmed.reports.drawing.one_slice import (
    HEAT,
    INK,
    add_label_legend,
    draw_slice,
    heat_of,
    is_labelled,
    labelled,
    name_ends,
)

__all__ = [
    "HEAT",
    "INK",
    "PREDICTION_COLOUR",
    "REFERENCE_COLOUR",
    "case_figure",
    "contour_figure",
    "montage",
    "save_figure",
    "volume_figure",
]

REFERENCE_COLOUR = "#56B4E9"  # where labels do not matter; Okabe and Ito 2008
PREDICTION_COLOUR = "#E69F00"

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
PANEL_INCHES = 2.6
NARROW = 0.8  # width by height of a panel whose title needs two lines
MONTAGE_INCHES = 1.6


def save_figure(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write a figure; whole or not there."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, facecolor="white")


# ---------------------------------------------------------------- slices with contours


def contour_figure(
    image: np.ndarray | None,
    reference: np.ndarray | None,
    prediction: np.ndarray | None,
    spacing_mm: Sequence[float],
    title: str = "",
    *,
    overlay: np.ndarray | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """A slice of each plane with reference and prediction, cut to where there is something to see.

    Slices are those with the largest cut through the reference (the prediction, where the reference is empty), drawn
    as radiologists do: the patient's right on the left. A single slice with a spacing of one, as 2D images have, is
    drawn alone, with rows that run downwards.

    Args:
        image: (X, Y, Z) in canonical (RAS) axes; None: contours on black.
        reference, prediction: (X, Y, Z) label indices; None: not drawn.
        spacing_mm: size of a voxel along X, Y and Z; thick slices are drawn as thick as they are.
        title: above the panels.
        overlay: (X, Y, Z), from 0 on, in colour over the image with a scale beside it, such as an uncertainty.
        names: of the labels.

    Raises:
        ValueError: neither image nor label maps.
    """
    return case_figure(CaseVolumes(image, reference, prediction, _three(spacing_mm), overlay), title, names=names)


def case_figure(volumes: CaseVolumes, title: str = "", *, names: Sequence[str] = ()) -> Figure:
    """`contour_figure` of a case; slices are numbered from 1 as in its file, where that is known.

    Raises:
        ValueError: neither image nor label maps.
    """
    _checked(volumes)
    shown = labelled(volumes)
    box = _view(shown, volumes.spacing_mm)
    planes = ["axial"] if shown.shape[2] == 1 else list(PLANES)
    sizes = [_size_mm(box, PLANES[plane], volumes.spacing_mm) for plane in planes]
    ratios = [min(max(width / height, 0.4), 2.5) for width, height in sizes]
    figure = Figure(figsize=(PANEL_INCHES * sum(ratios) + 0.3, PANEL_INCHES + 0.85), layout=_layout())
    grid = figure.subplots(1, len(planes), squeeze=False, width_ratios=ratios)[0]
    for axes, plane, ratio in zip(grid, planes, ratios, strict=True):
        axis, narrow = PLANES[plane], ratio < NARROW
        number = _largest_cut(volumes, axis)
        draw_slice(axes, volumes, axis, number, box, names=names)
        comma = "\n" if narrow else ", "
        told = f"{plane}{comma}slice {volumes.slice_number(axis, number)} of {shown.shape[axis]}"
        axes.set_title(told, fontsize=7 if narrow else 8, color=INK)
        if not volumes.is_picture:
            name_ends(axes, axis)
    if volumes.overlay is not None:
        scale = figure.colorbar(ScalarMappable(heat_of(volumes.overlay), HEAT), ax=list(grid), shrink=0.8, pad=0.01)
        scale.ax.tick_params(labelsize=7, colors=INK, width=0.6)
        scale.ax.spines[:].set_visible(False)
    _head(figure, title, [volumes], names)
    return figure


def volume_figure(
    image: MetaTensor,
    *,
    reference: MetaTensor | None = None,
    prediction: MetaTensor | None = None,
    overlay: MetaTensor | None = None,
    title: str = "",
    names: Sequence[str] = (),
) -> Figure:
    """`case_figure` of volumes as `shown_case` takes them.

    Raises:
        ValueError: volumes of different shapes.
    """
    case = shown_case(image, reference=reference, prediction=prediction, overlay=overlay)
    return case_figure(case, title, names=names)


def montage(
    cases: Sequence[tuple[str, CaseVolumes]], *, title: str = "", columns: int = 6, names: Sequence[str] = ()
) -> Figure:
    """A row of slices a case, from end to end of what is segmented, across the thickest axis.

    Below a slice stands its number, from 1, as in the case's file where that is known.

    Args:
        cases: what stands above the row, and the volumes.
        title: above the figure.
        columns: most slices in a row.
        names: of the labels.

    Raises:
        ValueError: no case.
    """
    if not cases:
        raise ValueError("a montage needs a case: none was given")
    rows = [(text, _checked(volumes)) for text, volumes in cases]
    boxes = [_view(labelled(volumes), volumes.spacing_mm) for _, volumes in rows]
    slices = [_spread(volumes, columns) for _, volumes in rows]
    heights = []
    for (text, volumes), box, (axis, _numbers) in zip(rows, boxes, slices, strict=True):
        width_mm, height_mm = _size_mm(box, axis, volumes.spacing_mm)
        lines = text.count("\n") + 1
        heights.append(MONTAGE_INCHES * min(max(height_mm / width_mm, 0.5), 1.6) + 0.3 + 0.15 * lines)
    most = max(2, *(len(numbers) for _, numbers in slices))
    figure = Figure(figsize=(MONTAGE_INCHES * most + 0.2, sum(heights) + 0.6), layout=_layout())
    subfigures = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for subfigure, (text, volumes), box, (axis, numbers) in zip(subfigures, rows, boxes, slices, strict=True):
        subfigure.suptitle(text, fontsize=8, color=INK, x=0.01, ha="left")
        for column, axes in enumerate(subfigure.subplots(1, most, squeeze=False)[0]):
            if column >= len(numbers):
                axes.set_axis_off()
                continue
            draw_slice(axes, volumes, axis, numbers[column], box, names=names)
            told = volumes.slice_number(axis, numbers[column])
            axes.set_xlabel(f"slice {told}" if column == 0 else str(told), fontsize=7, color=INK, labelpad=2)
            if column == 0 and not volumes.is_picture:
                name_ends(axes, axis)
    _head(figure, title, [volumes for _, volumes in rows], names)
    return figure


def _checked(volumes: CaseVolumes) -> CaseVolumes:
    given = [array for array in (volumes.image, volumes.reference, volumes.prediction) if array is not None]
    if not given:
        raise ValueError("nothing to draw: give an image or a label map")
    given += [] if volumes.overlay is None else [volumes.overlay]
    if any(array.ndim != 3 or array.shape != given[0].shape for array in given):
        shapes = ", ".join(str(array.shape) for array in given)
        raise ValueError(f"a figure needs volumes (X, Y, Z) of one shape, not {shapes}: choose a channel, resample")
    return volumes


def _three(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(step) for step in spacing_mm)
    return x, y, z


def _view(shown: np.ndarray, spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """The part of the volume that is drawn: what is labelled and a fifth of its size around it."""
    box = bounding_box(shown)
    if box[0].stop == 0:
        return tuple(slice(0, size) for size in shown.shape)
    largest_mm = max((side.stop - side.start) * step for side, step in zip(box, spacing_mm, strict=True))
    margins = [max(2, round(0.2 * largest_mm / step)) for step in spacing_mm]
    return tuple(
        slice(max(0, side.start - margin), min(size, side.stop + margin))
        for side, margin, size in zip(box, margins, shown.shape, strict=True)
    )


def _size_mm(box: tuple[slice, ...], axis: int, spacing_mm: Sequence[float]) -> tuple[float, float]:
    width, height = ((box[i].stop - box[i].start) * spacing_mm[i] for i in range(3) if i != axis)
    return width, height


def _largest_cut(volumes: CaseVolumes, axis: int) -> int:
    """The slice with most of the reference, else of the prediction, else the middle."""
    others = tuple(other for other in range(3) if other != axis)
    for labels in (volumes.reference, volumes.prediction):
        if labels is not None and (sizes := np.count_nonzero(is_labelled(labels), axis=others)).any():
            return int(np.argmax(sizes))
    return labelled(volumes).shape[axis] // 2


def stack_axis(shape: Sequence[int], spacing_mm: Sequence[float]) -> int:
    """The axis across which slices are shown: the one of a single slice, else the one of the thickest."""
    return max(range(3), key=lambda i: (shape[i] == 1, round(spacing_mm[i], 3), i))


def _spread(volumes: CaseVolumes, columns: int) -> tuple[int, list[int]]:
    """The axis across which slices are shown, and their numbers."""
    shown = labelled(volumes)
    axis = stack_axis(shown.shape, volumes.spacing_mm)
    box = bounding_box(shown)
    first, last = (box[axis].start, box[axis].stop - 1) if box[0].stop else (0, shown.shape[axis] - 1)
    count = min(columns, last - first + 1)
    middles = first + (np.arange(count) + 0.5) * (last - first + 1) / count - 0.5  # of as many equal parts
    numbers: list[int] = middles.round().astype(int).tolist()
    return axis, sorted(numbers, key=lambda number: volumes.slice_number(axis, number))


def _head(figure: Figure, title: str, cases: Sequence[CaseVolumes], names: Sequence[str]) -> None:
    if title:
        figure.suptitle(title, fontsize=9, color=INK)
    add_label_legend(figure, cases, names)


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.05, wspace=0.01, hspace=0.02)

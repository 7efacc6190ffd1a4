"""Slices with the contours of reference and prediction: three planes of one case, or rows of slices of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from monai.data import MetaTensor

from segmed.evaluate.case_volumes import CaseVolumes, shown_case
from segmed.files import atomic_path
from segmed.labels import IGNORE
from segmed.metrics.surfaces import bounding_box

# Okabe and Ito 2008: apart for every kind of colour vision, and on grey.
REFERENCE_COLOUR = "#56B4E9"
PREDICTION_COLOUR = "#E69F00"
INK = "#333333"
HEAT = "inferno"  # of maps over an image: even in lightness

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
ENDS = {2: ("R", "L", "A", "P"), 1: ("R", "L", "S", "I"), 0: ("A", "P", "S", "I")}  # left, right, top, bottom
PANEL_INCHES = 2.6
MONTAGE_INCHES = 1.6
CROWDED = 8.0  # crossings of a line from which contours are drawn thin


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
) -> Figure:
    """A slice of each plane with the contours of reference and prediction, cut to where there is something to see.

    Slices are those with the largest cut through the reference (the prediction, where the reference is empty), drawn
    as radiologists do: the patient's right on the left. A single slice with a spacing of one, as 2D images have, is
    drawn alone, with rows that run downwards.

    Args:
        image: (X, Y, Z) in canonical (RAS) axes; None: contours on black.
        reference, prediction: (X, Y, Z) label indices; None: not drawn.
        spacing_mm: size of a voxel along X, Y and Z; thick slices are drawn as thick as they are.
        title: above the panels.
        overlay: (X, Y, Z), from 0 on, in colour over the image with a scale beside it, such as an uncertainty.

    Raises:
        ValueError: neither image nor label maps.
    """
    volumes = _checked(CaseVolumes(image, reference, prediction, _three(spacing_mm), overlay))
    shown = _union(volumes)
    box = _view(shown, volumes.spacing_mm)
    planes = ["axial"] if shown.shape[2] == 1 else list(PLANES)
    sizes = [_size_mm(box, PLANES[plane], volumes.spacing_mm) for plane in planes]
    ratios = [min(max(width / height, 0.4), 2.5) for width, height in sizes]
    figure = Figure(figsize=(PANEL_INCHES * sum(ratios) + 0.3, PANEL_INCHES + 0.85), layout=_layout())
    grid = figure.subplots(1, len(planes), squeeze=False, width_ratios=ratios)[0]
    for axes, plane in zip(grid, planes, strict=True):
        axis = PLANES[plane]
        number = _largest_cut(volumes, axis)
        _draw_slice(axes, volumes, axis, number, box)
        axes.set_title(f"{plane}, slice {number + 1} of {shown.shape[axis]}", fontsize=8, color=INK)
        if not _is_picture(volumes):
            _name_ends(axes, axis)
    if overlay is not None:
        scale = figure.colorbar(ScalarMappable(_heat(overlay), HEAT), ax=list(grid), shrink=0.8, pad=0.01)
        scale.ax.tick_params(labelsize=7, colors=INK, width=0.6)
        scale.ax.spines[:].set_visible(False)
    _head(figure, title, volumes)
    return figure


def volume_figure(
    image: MetaTensor,
    *,
    reference: MetaTensor | None = None,
    prediction: MetaTensor | None = None,
    overlay: MetaTensor | None = None,
    title: str = "",
) -> Figure:
    """`contour_figure` of volumes as `shown_case` takes them.

    Raises:
        ValueError: volumes of different shapes.
    """
    case = shown_case(image, reference=reference, prediction=prediction, overlay=overlay)
    return contour_figure(case.image, case.reference, case.prediction, case.spacing_mm, title, overlay=case.overlay)


def montage(cases: Sequence[tuple[str, CaseVolumes]], *, title: str = "", columns: int = 6) -> Figure:
    """A row of slices a case, from end to end of what is segmented, across the thickest axis.

    Args:
        cases: what stands above the row, and the volumes.
        title: above the figure.
        columns: most slices in a row.

    Raises:
        ValueError: no case.
    """
    if not cases:
        raise ValueError("a montage needs a case: none was given")
    rows = [(text, _checked(volumes)) for text, volumes in cases]
    boxes = [_view(_union(volumes), volumes.spacing_mm) for _, volumes in rows]
    slices = [_spread(volumes, columns) for _, volumes in rows]
    heights = []
    for (_, volumes), box, (axis, _numbers) in zip(rows, boxes, slices, strict=True):
        width_mm, height_mm = _size_mm(box, axis, volumes.spacing_mm)
        heights.append(MONTAGE_INCHES * min(max(height_mm / width_mm, 0.5), 1.6) + 0.45)
    most = max(2, *(len(numbers) for _, numbers in slices))
    figure = Figure(figsize=(MONTAGE_INCHES * most + 0.2, sum(heights) + 0.6), layout=_layout())
    subfigures = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for subfigure, (text, volumes), box, (axis, numbers) in zip(subfigures, rows, boxes, slices, strict=True):
        subfigure.suptitle(text, fontsize=8, color=INK, x=0.01, ha="left")
        for column, axes in enumerate(subfigure.subplots(1, most, squeeze=False)[0]):
            if column >= len(numbers):
                axes.set_axis_off()
                continue
            _draw_slice(axes, volumes, axis, numbers[column], box)
            axes.set_xlabel(str(numbers[column] + 1), fontsize=7, color=INK, labelpad=2)
    _head(figure, title, rows[0][1])
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


def _is_picture(volumes: CaseVolumes) -> bool:
    return _union(volumes).shape[2] == 1 and volumes.spacing_mm == (1.0, 1.0, 1.0)


def _union(volumes: CaseVolumes) -> np.ndarray:
    """Where either label map has a label; bool."""
    maps = [labels for labels in (volumes.reference, volumes.prediction) if labels is not None]
    if not maps:
        return np.zeros(volumes.image.shape, bool)  # type: ignore[union-attr]
    return np.logical_or.reduce([_labelled(labels) for labels in maps])


def _labelled(labels: np.ndarray) -> np.ndarray:
    return (labels > 0) & (labels != IGNORE)


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
        if labels is not None and (sizes := np.count_nonzero(_labelled(labels), axis=others)).any():
            return int(np.argmax(sizes))
    return _union(volumes).shape[axis] // 2


def _spread(volumes: CaseVolumes, columns: int) -> tuple[int, list[int]]:
    """The axis across which slices are shown, and their numbers."""
    shown = _union(volumes)
    axis = max(range(3), key=lambda i: (shown.shape[i] == 1, round(volumes.spacing_mm[i], 3), i))
    box = bounding_box(shown)
    first, last = (box[axis].start, box[axis].stop - 1) if box[0].stop else (0, shown.shape[axis] - 1)
    count = min(columns, last - first + 1)
    middles = first + (np.arange(count) + 0.5) * (last - first + 1) / count - 0.5  # of as many equal parts
    return axis, middles.round().astype(int).tolist()


def _draw_slice(axes: Axes, volumes: CaseVolumes, axis: int, number: int, box: tuple[slice, ...]) -> None:
    across, up = (i for i in range(3) if i != axis)
    aspect = volumes.spacing_mm[up] / volumes.spacing_mm[across]

    def plane(volume: np.ndarray) -> np.ndarray:
        return np.take(volume, number, axis=axis).T  # rows: up, columns: across

    if volumes.image is not None:
        view = volumes.image[box]
        low, high = np.percentile(view, (0.5, 99.5))
        axes.imshow(plane(volumes.image), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
    else:
        axes.imshow(np.zeros_like(plane(_union(volumes)), dtype=float), cmap="gray", vmin=0, vmax=1, aspect=aspect)
    if volumes.overlay is not None:
        heat = _heat(volumes.overlay)
        opacity = np.sqrt(heat(plane(volumes.overlay)).data)
        axes.imshow(plane(volumes.overlay), cmap=HEAT, norm=heat, alpha=opacity, aspect=aspect)
    maps = [
        (plane(labels), colour, width)
        for labels, colour, width in (
            (volumes.reference, REFERENCE_COLOUR, 1.6),
            (volumes.prediction, PREDICTION_COLOUR, 1.0),
        )
        if labels is not None
    ]
    scale = 1.0 if max([_folds(labels) for labels, _, _ in maps], default=0) < CROWDED else 0.45
    for labels, colour, width in maps:
        _draw_contours(axes, labels, colour, scale * width)
    left, right = box[across].start - 0.5, box[across].stop - 0.5
    bottom, top = box[up].start - 0.5, box[up].stop - 0.5
    picture = _is_picture(volumes)
    axes.set_xlim((left, right) if picture else (right, left))  # the patient's right, and anterior, on the left
    axes.set_ylim((top, bottom) if picture else (bottom, top))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _folds(labels: np.ndarray) -> float:
    """How often a straight line crosses a contour, about: 2 for one round structure, many for a cortex."""
    crossings = sum(np.count_nonzero(np.diff(labels.astype(np.int16), axis=axis)) for axis in (0, 1))
    extent = bounding_box(_labelled(labels))
    return crossings / max(1, sum(side.stop - side.start for side in extent))


def _heat(overlay: np.ndarray) -> Normalize:
    return Normalize(0, max(float(overlay.max()), 1e-6))


def _draw_contours(axes: Axes, labels: np.ndarray, colour: str, width: float) -> None:
    rows, columns = np.arange(-1, labels.shape[0] + 1), np.arange(-1, labels.shape[1] + 1)
    for label in np.unique(labels[_labelled(labels)]):
        mask = np.pad(labels == label, 1).astype(float)  # a structure at the border has a closed contour
        axes.contour(columns, rows, mask, levels=[0.5], colors=colour, linewidths=width)


def _name_ends(axes: Axes, axis: int) -> None:
    left, right, top, bottom = ENDS[axis]
    outline = [Stroke(linewidth=1.5, foreground="black"), Normal()]
    for text, place, shift in (
        (left, (0, 0.5), (7, 0)),
        (right, (1, 0.5), (-7, 0)),
        (top, (0.5, 1), (0, -7)),
        (bottom, (0.5, 0), (0, 7)),
    ):
        axes.annotate(
            text, place, xycoords="axes fraction", xytext=shift, textcoords="offset points", ha="center", va="center",
            fontsize=7, color="white", path_effects=outline,
        )  # fmt: skip


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.05, wspace=0.01, hspace=0.02)


def _head(figure: Figure, title: str, volumes: CaseVolumes) -> None:
    lines = [
        Line2D([], [], color=colour, linewidth=2, label=name)
        for labels, colour, name in (
            (volumes.reference, REFERENCE_COLOUR, "reference"),
            (volumes.prediction, PREDICTION_COLOUR, "prediction"),
        )
        if labels is not None
    ]
    if title:
        figure.suptitle(title, fontsize=9, color=INK)
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=2, fontsize=8, frameon=False)

"""One slice of a case: grey values, reference as outlines, prediction as areas, a colour a label, sides by letter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from segmed.evaluate.case_volumes import CaseVolumes
from segmed.labels import IGNORE
from segmed.metrics.surfaces import bounding_box
from segmed.reports.drawing.label_colours import label_colours
from segmed.reports.names import beginning

INK = "#333333"
HEAT = "inferno"  # of maps over an image: even in lightness
ENDS = {2: ("R", "L", "A", "P"), 1: ("R", "L", "S", "I"), 0: ("A", "P", "S", "I")}  # left, right, top, bottom
CROWDED = 8.0  # crossings of a line from which contours are drawn thin
OPACITY = 0.45  # of the area of a prediction
GREY = "#777777"
MOST_NAMED = 12  # labels in a legend
MOST_LETTERS = 30  # of a name in a legend: one wider than the figure leaves no room for it
USUAL_LETTERS = 18  # of its other entries
LETTER_INCHES = 0.075  # of eight points
OBLIQUE = 0.4  # share of a direction from which its side is named

Box = tuple[slice, ...]


def labelled(volumes: CaseVolumes) -> np.ndarray:
    """Where either label map has a label; bool."""
    maps = [labels for labels in (volumes.reference, volumes.prediction) if labels is not None]
    if not maps:
        return np.zeros(volumes.shape, bool)
    return np.logical_or.reduce([is_labelled(labels) for labels in maps])


def is_labelled(labels: np.ndarray) -> np.ndarray:
    """Where label indices are a label's: neither background nor IGNORE."""
    return (labels > 0) & (labels != IGNORE)


def draw_slice(
    axes: Axes,
    volumes: CaseVolumes,
    axis: int,
    number: int,
    box: Box,
    *,
    names: Sequence[str] = (),
    window: tuple[float, float] | None = None,
) -> None:
    """Draw a slice as radiologists see it: the patient's right, and in sagittal planes anterior, on the left.

    Args:
        axes: where.
        volumes: the case.
        axis, number: the slice.
        box: the part that is shown, and whose intensities set the greys.
        names: of the labels, for their colours.
        window: intensities that are black and white; None: those of the box.
    """
    across, up = (i for i in range(3) if i != axis)
    aspect = volumes.spacing_mm[up] / volumes.spacing_mm[across]

    def plane(volume: np.ndarray) -> np.ndarray:
        return np.take(volume, number, axis=axis).T  # rows: up, columns: across

    if volumes.image is not None:
        low, high = window or np.percentile(volumes.image[box], (0.5, 99.5))
        axes.imshow(plane(volumes.image), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
    else:
        axes.imshow(np.zeros_like(plane(labelled(volumes)), dtype=float), cmap="gray", vmin=0, vmax=1, aspect=aspect)
    if volumes.overlay is not None:
        heat = heat_of(volumes.overlay)
        opacity = np.sqrt(heat(plane(volumes.overlay)).data)
        axes.imshow(plane(volumes.overlay), cmap=HEAT, norm=heat, alpha=opacity, aspect=aspect)
    _draw_labels(axes, volumes, plane, names, aspect)
    left, right = box[across].start - 0.5, box[across].stop - 0.5
    bottom, top = box[up].start - 0.5, box[up].stop - 0.5
    picture = volumes.is_picture
    axes.set_xlim((left, right) if picture else (right, left))
    axes.set_ylim((top, bottom) if picture else (bottom, top))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _draw_labels(
    axes: Axes, volumes: CaseVolumes, plane: Callable[[np.ndarray], np.ndarray], names: Sequence[str], aspect: float
) -> None:
    reference, prediction = (
        None if labels is None else plane(labels) for labels in (volumes.reference, volumes.prediction)
    )
    colours = colours_of(volumes, names)
    thin = max([_folds(labels) for labels in (reference, prediction) if labels is not None], default=0) >= CROWDED
    width = 0.7 if thin else 1.5
    if prediction is not None and volumes.overlay is None:
        axes.imshow(_areas(prediction, colours), aspect=aspect, interpolation="nearest")
    elif prediction is not None:
        _draw_contours(axes, prediction, colours, 0.7 * width, style="dashed")
    if reference is not None:
        _draw_contours(axes, reference, colours, width)


def colours_of(volumes: CaseVolumes, names: Sequence[str]) -> list[str]:
    """Colours of the labels that a case can show."""
    maps = [labels for labels in (volumes.reference, volumes.prediction) if labels is not None]
    most = max((int(labels[is_labelled(labels)].max(initial=0)) for labels in maps), default=0)
    return label_colours(names, most)


def _areas(labels: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """Label indices (R, C) -> colours (R, C, 4), clear where there is no label."""
    table = np.zeros((256, 4))
    for index, colour in enumerate(colours, start=1):
        table[index] = (*to_rgb(colour), OPACITY)
    return table[labels]


def _folds(labels: np.ndarray) -> float:
    """How often a straight line crosses a contour, about: 2 for one round structure, many for a cortex."""
    crossings = sum(np.count_nonzero(np.diff(labels.astype(np.int16), axis=axis)) for axis in (0, 1))
    extent = bounding_box(is_labelled(labels))
    return crossings / max(1, sum(side.stop - side.start for side in extent))


def heat_of(overlay: np.ndarray) -> Normalize:
    """The scale of an overlay."""
    return Normalize(0, max(float(overlay.max()), 1e-6))


def _draw_contours(
    axes: Axes, labels: np.ndarray, colours: Sequence[str], width: float, *, style: str = "solid"
) -> None:
    rows, columns = np.arange(-1, labels.shape[0] + 1), np.arange(-1, labels.shape[1] + 1)
    for label in np.unique(labels[is_labelled(labels)]):
        mask = np.pad(labels == label, 1).astype(float)  # a structure at the border has a closed contour
        colour = [colours[int(label) - 1]]
        axes.contour(columns, rows, mask, levels=[0.5], colors=colour, linewidths=width, linestyles=style)


def name_ends(axes: Axes, axis: int) -> None:
    """The letters of the patient's sides at the ends of a slice across an axis."""
    name_sides(axes, ENDS[axis])


def name_sides(axes: Axes, ends: tuple[str, str, str, str]) -> None:
    """Letters at the left, right, top and bottom of a slice."""
    left, right, top, bottom = ends
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


def side_letters(direction: np.ndarray) -> str:
    """The side that a direction in RAS mm points to; of an oblique one the two nearest, the nearer first."""
    shares = np.abs(direction) / np.linalg.norm(direction)
    names = [pair[int(step < 0)] for pair, step in zip(("RL", "AP", "SI"), direction, strict=True)]
    return "".join(names[axis] for axis in np.argsort(-shares)[:2] if shares[axis] > OBLIQUE)


def add_label_legend(figure: Figure, cases: Sequence[CaseVolumes], names: Sequence[str] = ()) -> None:
    """Below the panels: labels by colour, where they have names, and how reference and prediction are drawn.

    Args:
        figure: to which it is added.
        cases: what the figure shows.
        names: of the labels.
    """
    maps = [labels for case in cases for labels in (case.reference, case.prediction) if labels is not None]
    shown = sorted({int(label) for labels in maps for label in np.unique(labels[is_labelled(labels)])})
    colours = label_colours(names)
    named = [index for index in shown if index <= len(names)][:MOST_NAMED]
    handles: list[Line2D | Patch] = [
        Patch(color=colours[index - 1], label=beginning(names[index - 1], MOST_LETTERS)) for index in named
    ]
    if any(case.reference is not None for case in cases):
        handles.append(Line2D([], [], color=GREY, linewidth=1.5, label="outline: reference"))
    if any(case.prediction is not None and case.overlay is None for case in cases):
        handles.append(Patch(color=GREY, alpha=OPACITY, label="area: prediction"))
    if any(case.prediction is not None and case.overlay is not None for case in cases):
        handles.append(Line2D([], [], color=GREY, linewidth=1, linestyle="dashed", label="dashed: prediction"))
    if handles:
        longest = max(len(str(handle.get_label())) for handle in handles)
        inches, fewest = (0.5 + LETTER_INCHES * longest, 1) if longest > USUAL_LETTERS else (1.3, 2)
        columns = max(fewest, min(len(handles), int(figure.get_figwidth() / inches)))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)

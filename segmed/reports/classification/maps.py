"""Where a classifier looks: Grad-CAM and occlusion maps beside the images they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from segmed.evaluate.answers import Answers
from segmed.evaluate.explanations import ExplainedImage, Explanation
from segmed.files import remove
from segmed.reports.classification.figures import (
    RIGHT_COLOUR,
    answer_text,
    finish,
    show_image,
    tallness_of,
)
from segmed.reports.drawing.distributions import MISS_COLOUR
from segmed.reports.drawing.panels import bare, show_plane
from segmed.reports.drawing.slices import HEAT, INK, save_figure
from segmed.reports.names import ending

LEAST_DROP = 0.005  # of a probability, from which an occlusion map is drawn
PANEL_INCHES = 1.35


def maps_figure(
    test: Answers, explained: Sequence[ExplainedImage], *, title: str = "", notes: Sequence[str] = ()
) -> Figure | None:
    """Images with their Grad-CAM and occlusion map.

    Of volumes the middle slices of all three planes. Grad-CAM is scaled to its largest value; of occlusion the largest
    drop of the answer's probability stands below the map.

    Args:
        test: the answers.
        explained: some of them, of `explain_images`.
        title, notes: of the figure, see `finish`.

    Returns:
        None where no image is to be shown.
    """
    if not explained:
        return None
    heights = _heights(explained[0].image)
    beside = min(2, len(explained))
    rows = -(-len(explained) // beside)
    row_inches = PANEL_INCHES * sum(heights) + 0.12 * len(heights) + 0.7
    figure = Figure(figsize=(beside * (3 * PANEL_INCHES + 0.3), rows * row_inches + 0.5), layout="constrained")
    parts = figure.subfigures(rows, beside, squeeze=False).ravel()
    for part, one in zip(parts, explained, strict=False):
        right = test.labels[one.index] == test.truth[one.index]
        text = f"{'right' if right else 'wrong'}: {answer_text(test, one.index).replace(chr(10), ', ')}"
        colour = RIGHT_COLOUR if right else MISS_COLOUR
        part.suptitle(f"{text}\n{ending(test.ids[one.index])}", fontsize=6.5, color=colour)
        _draw_case(part, one.image, one.explanation, heights)
    return finish(figure, title, notes)


def write_maps(
    test: Answers, explained: Sequence[ExplainedImage], folder: Path, *, title: str, notes: Sequence[str]
) -> Figure | None:
    """Write maps.png of `maps_figure`.

    Args:
        test, explained, title, notes: as in `maps_figure`.
        folder: exists.

    Raises:
        DiskError: the folder can't be written.
    """
    remove(folder / "maps.png")  # of an earlier test, if this one has none
    figure = maps_figure(test, explained, title=title, notes=notes)
    if figure is not None:
        save_figure(figure, folder / "maps.png")
    return figure


def _heights(image: np.ndarray) -> list[float]:
    """Height over width of each plane that is drawn: one of an image; axial, coronal and sagittal of a volume."""
    if image.ndim == 3:
        return [tallness_of(image)]
    x, y, z = image.shape[1:]
    return [min(max(height / width, 0.4), 2.0) for width, height in ((x, y), (x, z), (y, z))]


def _draw_case(part: SubFigure, image: np.ndarray, explanation: Explanation, heights: Sequence[float]) -> None:
    grid = part.subplots(len(heights), 3, squeeze=False, height_ratios=heights)
    drop = float(explanation.drop.max())
    maps = [None, explanation.attention, explanation.drop if drop >= LEAST_DROP else None]
    titles = ["image", "Grad-CAM" if explanation.attention is not None else "no feature map", "occlusion"]
    for column, (text, values) in enumerate(zip(titles, maps, strict=True)):
        for row, axis in enumerate((2, 1, 0)[: len(heights)]):
            axes = grid[row, column]
            _draw_panel(axes, image, values, axis)
        grid[0, column].set_title(text, fontsize=7, color=INK, pad=2)
    below = f"probability falls by up to {drop:.2f}" if drop >= LEAST_DROP else "probability falls nowhere"
    grid[-1, 2].set_xlabel(below, fontsize=6, color=INK, labelpad=2)
    if explanation.attention is not None and not explanation.attention.any():
        grid[-1, 1].set_xlabel("nowhere for the answer", fontsize=6, color=INK, labelpad=2)


def _draw_panel(axes: Axes, image: np.ndarray, values: np.ndarray | None, axis: int) -> None:
    """An image and a map over it, the more opaque the higher; of volumes the middle slice across an axis."""
    if image.ndim == 3:
        show_image(axes, image)
        if values is not None:
            high = max(float(values.max()), 1e-6)
            shares = np.clip(values / high, 0, 1)
            axes.imshow(shares, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * np.sqrt(shares))
        return
    show_plane(axes, image[0].take(image.shape[1 + axis] // 2, axis=axis))
    if values is not None:
        shares = np.clip(values / max(float(values.max()), 1e-6), 0, 1)
        plane = shares.take(shares.shape[axis] // 2, axis=axis).T
        axes.imshow(plane, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * np.sqrt(plane), origin="lower")
        axes.set_xlim(plane.shape[1] - 0.5, -0.5)
    bare(axes)

"""Slices, contours, scales and legends, drawn alike in the figures of `inside` and `windows`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segmed.labels import IGNORE
from segmed.reports.drawing.one_slice import MOST_LETTERS
from segmed.reports.drawing.slices import INK
from segmed.reports.names import beginning

TILE_INCHES = 1.35
INSIDE = 0.75  # level of a contour between 0 outside and 1 inside: neighbours' lines lie side by side, none is hidden


def plane_of(volume: np.ndarray, number: int) -> np.ndarray:
    """The slice across the last axis of (X, Y, Z); (X, Y) is one."""
    return volume if volume.ndim == 2 else volume[..., number]


def fullest_slice(labels: np.ndarray) -> int:
    """The slice across the last axis with most labelled voxels; the middle one where there is none."""
    counts = labelled(labels).reshape(-1, labels.shape[-1]).sum(axis=0)
    return int(counts.argmax()) if counts.any() else labels.shape[-1] // 2


def labelled(labels: np.ndarray) -> np.ndarray:
    """Where label indices are a label's: neither background nor IGNORE."""
    return (labels > 0) & (labels != IGNORE)


def grey_range(values: np.ndarray) -> tuple[float, float]:
    """Intensities that are drawn black and white."""
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), max(float(high), float(low) + 1e-6)


def tallness(array: np.ndarray) -> float:
    """Height of a slice over its width, within what a figure's row can take."""
    return min(max(array.shape[1] / array.shape[0], 0.5), 2.0)


def size_text(shape: Sequence[int]) -> str:
    """Voxels as text: 48 × 48 × 32."""
    return " × ".join(map(str, shape))


def show_plane(
    axes: Axes, plane: np.ndarray, *, window: tuple[float, float] | None = None, colours: str = "gray"
) -> None:
    """Draw (X, Y) with the first axis to the left and the second upwards: the patient's right on the left."""
    low, high = window or grey_range(plane)
    axes.imshow(plane.T, cmap=colours, vmin=low, vmax=high, origin="lower", interpolation="nearest")
    axes.set_xlim(plane.shape[0] - 0.5, -0.5)


def contours(axes: Axes, plane: np.ndarray, colours: str | Sequence[str], *, width: float = 1.0) -> None:
    """Outline every label of (X, Y), each in its colour; what the border cuts stays open there."""
    columns, rows = np.arange(-1, plane.shape[0] + 1), np.arange(-1, plane.shape[1] + 1)
    limits = axes.get_xlim(), axes.get_ylim()
    for index in np.unique(plane[labelled(plane)]):
        colour = colours if isinstance(colours, str) else colours[(int(index) - 1) % len(colours)]
        mask = np.pad(plane == index, 1, mode="edge").astype(float)
        axes.contour(columns, rows, mask.T, levels=[INSIDE], colors=[colour], linewidths=width)
    axes.set(xlim=limits[0], ylim=limits[1])


def bare(axes: Axes) -> None:
    """Take ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def plain(axes: Axes) -> None:
    """Small ticks, and no frame but the two axes."""
    axes.tick_params(labelsize=7, colors=INK, width=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def add_scale(figure: Figure, line: Sequence[Axes]) -> None:
    """The colours of the last image of a row, to its right."""
    scale = figure.colorbar(line[-1].images[-1], ax=list(line), shrink=0.85, pad=0.01)
    scale.ax.tick_params(labelsize=7, colors=INK, width=0.6)
    scale.ax.spines[:].set_visible(False)


def add_legend(figure: Figure, colours: Mapping[str, str]) -> None:
    """Name -> colour, below the panels."""
    handles = [
        Line2D([], [], color=colour, linewidth=2, label=beginning(name, MOST_LETTERS))
        for name, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)


def add_title(figure: Figure, title: str) -> None:
    """A title, unless it is empty."""
    if title:
        figure.suptitle(title, fontsize=9, color=INK)

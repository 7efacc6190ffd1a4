"""Trials of a search -> figures: which field explains the score, and all trials as lines through their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from segmed.reports.drawing.slices import INK

BAR = "#56B4E9"
QUIET = "#999999"
LONGEST = 22  # letters of a value


def importance_figure(importance: Mapping[str, float]) -> Figure:
    """A bar a field, the most important one on top."""
    names = sorted(importance, key=lambda name: importance[name])
    figure = Figure(figsize=(7.2, 0.7 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [100 * importance[name] for name in names], color=BAR, height=0.6)
    for place, name in enumerate(names):
        axes.text(100 * importance[name] + 1, place, f"{100 * importance[name]:.0f} %", va="center", fontsize=8)
    axes.set_xlim(0, 110)
    axes.set_xlabel("share of the variance of the score, %", fontsize=8, color=INK)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def parallel_figure(
    values: Sequence[Mapping[str, Any]], scores: Sequence[float], *, logarithmic: frozenset[str], best: int
) -> Figure:
    """Parallel coordinates: an axis a field and one of the score, a line a trial, coloured by its score.

    Args:
        values: field -> value, of each trial; all have the same fields.
        scores: of each trial.
        logarithmic: fields whose axis is.
        best: index of the trial that is drawn boldly.
    """
    names = [*values[0], "score"]
    columns = [[*(trial[name] for name in values[0]), score] for trial, score in zip(values, scores, strict=True)]
    figure = Figure(figsize=(max(7.2, 1.5 * len(names)), 3.6), layout="constrained")
    axes = figure.subplots()
    scaled = np.column_stack(
        [
            _axis(axes, place, name, [row[place] for row in columns], logarithmic=name in logarithmic)
            for place, name in enumerate(names)
        ]
    )
    shades = Normalize(min(scores), max(scores) if max(scores) > min(scores) else min(scores) + 1e-6)
    colours = mpl.colormaps["viridis"]
    for index in sorted(range(len(scores)), key=lambda index: (index == best, scores[index])):
        width = 2.6 if index == best else 1.0
        axes.plot(range(len(names)), scaled[index], color=colours(shades(scores[index])), linewidth=width)
    axes.set_xlim(-0.3, len(names) - 0.3)
    axes.set_ylim(-0.12, 1.12)
    axes.axis("off")
    bar = figure.colorbar(ScalarMappable(shades, colours), ax=axes, fraction=0.03, pad=0.02)
    bar.set_label("best score on validation", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7)
    return figure


def _axis(axes: Axes, place: int, name: str, column: Sequence[Any], *, logarithmic: bool) -> np.ndarray:
    """Draw one axis with its ends; where each value lies on it, from 0 to 1."""
    axes.plot((place, place), (0, 1), color=QUIET, linewidth=0.8, zorder=0)
    axes.text(place, 1.07, name, ha="center", va="bottom", fontsize=8, color=INK, clip_on=False)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column):
        words = list(map(str, column))
        kinds = sorted(set(words))
        heights = {word: 0.5 if len(kinds) == 1 else index / (len(kinds) - 1) for index, word in enumerate(kinds)}
        for word, height in heights.items():
            axes.text(place + 0.03, height, word[:LONGEST], fontsize=7, va="center", color=INK)
        return np.array([heights[word] for word in words])
    numbers = np.array(column, float)
    drawn = np.log(numbers) if logarithmic else numbers
    low, high = drawn.min(), drawn.max()
    axes.text(place, -0.04, f"{numbers.min():.3g}", ha="center", va="top", fontsize=7, color=INK)
    if high == low:
        return np.full(len(numbers), 0.5)
    axes.text(place, 1.01, f"{numbers.max():.3g}", ha="center", va="bottom", fontsize=7, color=INK)
    return np.asarray((drawn - low) / (high - low))

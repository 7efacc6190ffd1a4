"""A comparison of methods -> its figure: every case of every method, and what it gains over the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segmed.evaluate.comparison import Comparison
from segmed.metrics.mask_metrics import metric_named
from segmed.reports.drawing.curves import COLOURS
from segmed.reports.drawing.distributions import MISS_COLOUR
from segmed.reports.drawing.slices import INK

REFERENCE_GREY = "#666666"
PALE = ("#F0E442",)  # too faint for lines on white
WIDEST_INCHES = 11.0
LONG_NAME = 7  # letters from which names under an axis are turned
CROWDED = 7  # methods from which boxes stand close
BESIDE = 0.29  # of the points, their mean
ROOM = 0.12  # of the range of the values, above and below


def comparison_figure(comparison: Comparison, *, metric: str = "dice", title: str = "") -> Figure:
    """Box plots of a metric, a column a label, above the paired differences to the reference.

    Above: boxes (median, quartiles, 1.5 times their range) and every case, its points joined by a line from method to
    method. Below: the difference of every case to the reference, or to the method that the family is tested against,
    with the mean and its 95 % interval, and the corrected p-value where it can be below 0.05.

    Args:
        comparison: what is shown.
        metric: one of its metrics.
        title: above the figure.
    """
    own = [m.name for m in comparison.methods if not np.isnan(comparison.values[m.name, metric]).all()]
    names = [comparison.reference, *(name for name in own if name != comparison.reference)]
    shown = [place for place in range(len(comparison.labels)) if _any_known(comparison, metric, place)]
    columns = max(1, min(len(shown), int(WIDEST_INCHES / _width(names))))
    bands = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(columns * _width(names) + 0.5, 4.6 * bands + 0.3), layout="constrained")
    grid = figure.subplots(2 * bands, columns, squeeze=False, height_ratios=[1.35, 1] * bands, sharey="row")
    for place in range(bands * columns):
        upper, lower = (grid[2 * (place // columns) + part][place % columns] for part in (0, 1))
        if place >= len(shown):
            upper.set_axis_off()
            lower.set_axis_off()
            continue
        _draw_values(upper, comparison, names, metric, shown[place])
        _draw_differences(lower, comparison, names, metric, shown[place])
        if place % columns == 0:
            upper.set_ylabel(metric_named(metric).short_title, fontsize=8, color=INK)
            one = {family.against for family in comparison.families} <= {comparison.reference}
            other = comparison.reference if one else "the one of its family"
            lower.set_ylabel(f"{metric_named(metric).short_title} − {other}", fontsize=8, color=INK)
    if title:
        figure.suptitle(title, fontsize=9, color=INK)
    _add_legend(figure, comparison)
    return figure


def _any_known(comparison: Comparison, metric: str, label: int) -> bool:
    """Whether any method has a figure of a label: a wall that is given to all has none."""
    return any(not np.isnan(comparison.values[m.name, metric][:, label]).all() for m in comparison.methods)


def _width(names: Sequence[str]) -> float:
    return max(2.0, (0.62 if len(names) < CROWDED else 0.45) * len(names) + 0.5)


def _colour(number: int) -> str:
    """Grey for the reference; for the others colours that stay distinct with colour-blindness."""
    others = [colour for colour in COLOURS if colour not in PALE]
    return REFERENCE_GREY if number == 0 else others[(number - 1) % len(others)]


def _draw_values(axes: Axes, comparison: Comparison, names: Sequence[str], metric: str, label: int) -> None:
    values = np.stack([comparison.values[name, metric][:, label] for name in names])  # (methods, cases)
    missed = np.stack([comparison.misses[name][:, label] > 0 for name in names])
    places = np.arange(len(names))[:, None] + _jitter(values.shape[1])
    axes.plot(places, values, color="0.55", linewidth=0.4, alpha=min(0.6, 12 / values.shape[1] + 0.1), zorder=1)
    for number in range(len(names)):
        known = values[number][~np.isnan(values[number])]
        if not known.size:
            continue
        line = {"color": _colour(number), "linewidth": 1.0}
        axes.boxplot(
            [known], positions=[number], widths=0.62, showfliers=False, manage_ticks=False, zorder=2,
            medianprops={**line, "linewidth": 2.0}, boxprops=line, whiskerprops=line, capprops=line,
        )  # fmt: skip
        hit = ~missed[number]
        axes.scatter(places[number][hit], values[number][hit], s=7, color=_colour(number), linewidths=0, zorder=3)
        axes.scatter(
            places[number][~hit], values[number][~hit], s=16, color=MISS_COLOUR, marker="x", linewidths=1, zorder=4
        )
    axes.set_title(comparison.labels[label], fontsize=9, color=INK)
    _tidy(axes, len(names))
    axes.set_xticklabels([])


def _draw_differences(axes: Axes, comparison: Comparison, names: Sequence[str], metric: str, label: int) -> None:
    axes.axhline(0, color=REFERENCE_GREY, linewidth=0.9, zorder=1)
    for number, name in enumerate(names[1:], 1):
        figure = comparison.figures[name, comparison.labels[label], metric]
        reference = comparison.values[figure.against or comparison.reference, metric][:, label]
        difference = comparison.values[name, metric][:, label] - reference
        places = number - BESIDE / 3 + _jitter(len(difference))
        axes.scatter(places, difference, s=7, color=_colour(number), alpha=0.45, linewidths=0, zorder=2)
        if figure.difference is None:
            continue
        low, high = figure.difference_ci95 or (figure.difference, figure.difference)
        axes.plot([number + BESIDE] * 2, [low, high], color=INK, linewidth=1.4, solid_capstyle="butt", zorder=4)
        axes.scatter([number + BESIDE], [figure.difference], s=11, color=INK, marker="D", linewidths=0, zorder=5)
        if figure.p_holm is not None:
            p = "< 0.001" if figure.p_holm < 0.001 else f"{figure.p_holm:.3f}"
            axes.annotate(
                p if len(names) >= CROWDED else f"p {p}" if "<" in p else f"p = {p}",
                (number, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=6.5, color=INK,
                fontweight="bold" if figure.p_holm < 0.05 else "normal",
            )  # fmt: skip
    _tidy(axes, len(names))
    axes.set_xticklabels(names, fontsize=7)
    if len(names) > 2 and max(map(len, names)) > LONG_NAME:
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha="right", rotation_mode="anchor")


def _jitter(cases: int) -> np.ndarray:
    """Spreads the points, each case alike in every method."""
    return 0.16 * np.sin(np.arange(cases) * 2.4)


def _tidy(axes: Axes, methods: int) -> None:
    axes.margins(y=ROOM)
    axes.set_xlim(-0.6, methods - 0.4)
    axes.set_xticks(range(methods))
    axes.tick_params(labelsize=7, colors=INK, width=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)


def _add_legend(figure: Figure, comparison: Comparison) -> None:
    handles = [
        Line2D([], [], color="0.55", linewidth=0.8, marker="o", markersize=2.5, label="a case, mean of its runs"),
        Line2D(
            [], [], color=INK, linewidth=1.4, marker="D", markersize=3, label="mean difference, 95 % interval; p: Holm"
        ),
    ]
    if any(counts.any() for counts in comparison.misses.values()):
        handles.append(
            Line2D(
                [], [], color=MISS_COLOUR, marker="x", linestyle="", markersize=5, label="missed or invented by a run"
            )
        )
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3 if figure.get_figwidth() > 6 else 1,
        fontsize=7,
        frameon=False,
    )

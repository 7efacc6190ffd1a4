"""Distributions over cases: box plots of metrics, Bland-Altman plots of volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import nct

from segmed.metrics.mask_metrics import METRICS, metrics_shown
from segmed.metrics.statistics import FEWEST_UNITS
from segmed.reports.drawing.slices import INK

POINT_COLOUR = "#0072B2"  # Okabe and Ito 2008
MISS_COLOUR = "#D55E00"


def box_plots(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Dice, HD95, HD and AVD a label: boxes (median, quartiles, 1.5 times their range), every case, misses crossed.

    The distance of a miss, the diagonal of the image, would flatten everything else: it stands at the top of the axis.

    Args:
        rows: of `evaluate_case`.
        title: above the figure.
    """
    names = list(dict.fromkeys(row["label"] for row in rows))
    panels = [key for key in metrics_shown("main") if any(_is_known(row[key]) for row in rows)]
    width = max(1.8, 0.36 * len(names) + 0.8)
    figure = Figure(figsize=(max(3.2, min(width * len(panels), 14)), 2.9), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        known = [row for row in rows if _is_known(row[key])]
        top = _top(known, key)
        for place, name in enumerate(names):
            own = [row for row in known if row["label"] == name]
            _draw_box(axes, place, [row[key] for row in own], [bool(row["missed"]) for row in own], top)
        axes.set_ylim((-0.02, 1.02) if METRICS[key].miss == "zero" else (-0.02 * top, 1.02 * top))
        axes.set_ylabel(METRICS[key].title, fontsize=8, color=INK)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.6, len(names) - 0.4)
        _plain(axes)
        if max(map(len, names)) > 8:
            axes.tick_params("x", rotation=40, pad=1)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
    if title:
        figure.suptitle(title, fontsize=9, color=INK)
    _name_misses(figure, rows, " (its distance stands at the top)" if len(panels) > 1 else "")
    return figure


def _top(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """The upper end of an axis: a little above the largest figure that is not that of a miss."""
    if METRICS[key].miss == "zero":
        return 1.0
    shown = [row[key] for row in rows if not (row["missed"] and METRICS[key].miss == "diagonal")] or [
        row[key] for row in rows
    ]
    return 1.15 * max(shown) or 1.0


def _draw_box(axes: Axes, place: int, values: Sequence[float], missed: Sequence[bool], top: float) -> None:
    if not values:
        return
    line = {"color": INK, "linewidth": 0.9}
    axes.boxplot(
        [values], positions=[place], widths=0.55, showfliers=False, manage_ticks=False,
        medianprops={**line, "linewidth": 1.6}, boxprops=line, whiskerprops=line, capprops=line,
    )  # fmt: skip
    jitter = 0.18 * np.sin(np.arange(len(values)) * 2.4)  # spreads the points alike every time
    heights = np.minimum(values, top)
    misses = np.asarray(missed, dtype=bool)
    style: dict[str, Any] = {"zorder": 3, "alpha": 0.9, "clip_on": False}
    axes.scatter((place + jitter)[~misses], heights[~misses], s=9, color=POINT_COLOUR, linewidths=0, **style)
    axes.scatter((place + jitter)[misses], heights[misses], s=16, color=MISS_COLOUR, marker="x", linewidths=1, **style)


def bland_altman(
    rows: Sequence[Mapping[str, Any]], *, title: str = "", subjects: Mapping[str, str] | None = None
) -> Figure:
    """Difference of predicted and reference volume over their mean, a panel a label, with bias and limits of agreement.

    Args:
        rows: of `evaluate_case`, with volumes.
        title: above the figure.
        subjects: case -> subject; None: every case is its own. Several rows of a case are one subject.

    Limits stand from 6 subjects on, each in the band of its 95 % confidence interval, which takes subjects to be
    independent and normal; of fewer only the pairs are drawn.

    Source: Bland and Altman 1986: limits are bias ± 1.96 SD; intervals: Carkeet 2015, doi 10.1097/OPX.0000000000000513.
    """
    names = list(dict.fromkeys(row["label"] for row in rows))
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.1 * columns, 2.4 * lines + 0.3), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        own = [row for row in rows if row["label"] == name and _is_known(row["volume_difference_ml"])]
        _draw_agreement(axes, own, len({(subjects or {}).get(row["case"], row["case"]) for row in own}))
        axes.set_title(name, fontsize=8, color=INK)
        _plain(axes)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=9, color=INK)
    _name_misses(figure, rows)
    return figure


def _draw_agreement(axes: Axes, rows: Sequence[Mapping[str, Any]], units: int) -> None:
    mean = np.array([(row["prediction_ml"] + row["reference_ml"]) / 2 for row in rows])
    difference = np.array([row["volume_difference_ml"] for row in rows])
    missed = np.array([bool(row["missed"]) for row in rows], dtype=bool)
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.scatter(mean[~missed], difference[~missed], s=12, color=POINT_COLOUR, zorder=3)
    axes.scatter(mean[missed], difference[missed], s=20, color=MISS_COLOUR, marker="x", linewidths=1, zorder=3)
    axes.set_xlabel("mean of both volumes (ml)", fontsize=7, color=INK)
    axes.set_ylabel("prediction − reference (ml)", fontsize=7, color=INK)
    if units < FEWEST_UNITS:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.2 * (high - low))  # room for the words
        axes.annotate(
            f"no limits from {units} subject{'s' if units != 1 else ''}: 6 are needed", (0.5, 1), ha="center",
            xycoords="axes fraction", va="top", fontsize=6, color=INK,
        )  # fmt: skip
        return
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    for value, style, text in (
        (bias, "-", "bias"),
        (bias + 1.96 * sd, "--", "+1.96 SD"),
        (bias - 1.96 * sd, "--", "−1.96 SD"),
    ):
        axes.axhline(value, color=INK, linestyle=style, linewidth=0.9)
        axes.annotate(
            f"{text}\n{value:+.3g}".replace("-", "−"), (1, value), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", ha="left", va="center", fontsize=6, color=INK,
        )  # fmt: skip
    near, far = limit_interval(units)
    for sign in (1, -1):
        axes.axhspan(bias + sign * near * sd, bias + sign * far * sd, color="0.93", linewidth=0, zorder=0)
    reach = max(1.96 * sd * 1.4, 1.1 * far * sd, float(np.abs(difference - bias).max()) * 1.15, 1e-9)
    axes.set_ylim(bias - reach, bias + reach)


def limit_interval(pairs: int) -> tuple[float, float]:
    """Between how many SD from the bias the 97.5th percentile of a normal difference lies, with 95 % confidence."""
    ends = nct.ppf([0.025, 0.975], pairs - 1, 1.96 * math.sqrt(pairs)) / math.sqrt(pairs)
    return float(ends[0]), float(ends[1])


def _name_misses(figure: Figure, rows: Sequence[Mapping[str, Any]], remark: str = "") -> None:
    """A legend, where there is something to explain."""
    if any(row["missed"] for row in rows):
        text = f"missed or invented{remark}"
        cross = Line2D([], [], color=MISS_COLOUR, marker="x", linestyle="", markersize=5, label=text)
        figure.legend(handles=[cross], loc="outside lower center", fontsize=7, frameon=False)


def _is_known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7, colors=INK, width=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)

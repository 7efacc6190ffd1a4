"""A comparison of classifiers -> its figure: what each gains over the reference, and the ROC curves of all."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segmed.evaluate.classifier_comparison import ClassifierComparison
from segmed.evaluate.decisions import Unit
from segmed.metrics.repeated import COMPARED
from segmed.reports.classification.figures import GREY, LINE_COLOURS, finish
from segmed.reports.classification.text import CALIBRATION_TITLES, OVERALL_TITLES, UNIT_TITLES
from segmed.reports.comparison.figures import REFERENCE_GREY
from segmed.reports.drawing.panels import plain
from segmed.reports.drawing.slices import INK
from segmed.reports.names import beginning

FIGURE_TITLES = OVERALL_TITLES | CALIBRATION_TITLES
LOWER_IS_BETTER = tuple(CALIBRATION_TITLES)
MARKERS: dict[Unit, str] = {"image": "o", "subject": "D"}
WIDTH_INCHES = 11.0
PANEL_INCHES = 3.2
NOTE_INCHES = 0.2
LINE_INCHES = 0.26
COLUMNS = 4  # of ROC panels and their legend
LONGEST_NAME = 18


def classifier_comparison_figure(comparison: ClassifierComparison, *, title: str = "") -> Figure:
    """Differences to the reference above the ROC curves.

    Above: a column a figure; difference of every method with its 95 % interval, by image (dot) and by subject
    (diamond), filled where the corrected p is below 0.05. Below: ROC curves of every run, a colour a method; of two
    classes by image and by subject, of more a panel a class against the rest.

    Args:
        comparison: what is shown.
        title: above the figure.
    """
    colours = colours_of(comparison)
    others = [name for name in colours if name != comparison.reference]
    panels = _panels(comparison)
    rows = math.ceil((len(panels) + 1) / COLUMNS)
    heights = [1.1 + LINE_INCHES * len(others) * len(comparison.units), PANEL_INCHES * rows]
    figure = Figure(
        figsize=(WIDTH_INCHES, sum(heights) + 0.5 + NOTE_INCHES * len(comparison.run_notes)), layout="constrained"
    )
    halves = figure.add_gridspec(2, 1, height_ratios=heights)
    upper, lower = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    grid = upper.subplots(1, len(COMPARED), sharey=True)
    for axes, metric in zip(grid, COMPARED, strict=True):
        _draw_differences(axes, comparison, metric, others, colours)
    below = lower.subplots(rows, min(COLUMNS, len(panels) + 1), squeeze=False).ravel()
    for axes, (unit, name) in zip(below, panels, strict=False):
        _draw_roc(axes, comparison, unit, name, colours)
    for axes in below[len(panels) :]:
        axes.set_axis_off()
    _add_legend(below[len(panels)], comparison, colours)
    return finish(figure, title, comparison.run_notes)


def colours_of(comparison: ClassifierComparison) -> dict[str, str]:
    """Method -> colour, the reference first and grey."""
    others = [method.name for method in comparison.methods if method.name != comparison.reference]
    shown = {name: LINE_COLOURS[place % len(LINE_COLOURS)] for place, name in enumerate(others)}
    return {comparison.reference: REFERENCE_GREY, **shown}


def _panels(comparison: ClassifierComparison) -> list[tuple[Unit, str]]:
    if len(comparison.classes) == 2:
        return [(unit, comparison.classes[1]) for unit in comparison.units]
    return [(comparison.units[-1], name) for name in comparison.classes]


def _draw_differences(
    axes: Axes, comparison: ClassifierComparison, metric: str, others: list[str], colours: dict[str, str]
) -> None:
    axes.axvline(0, color=REFERENCE_GREY, linewidth=0.9)
    units = comparison.units
    for row, name in enumerate(others):
        for place, unit in enumerate(units):
            figure = comparison.figures[name, unit, metric]
            if figure.difference is None:
                continue
            y = row + (place - (len(units) - 1) / 2) * 0.3
            low, high = figure.difference_ci95 or (figure.difference, figure.difference)
            axes.plot([low, high], [y, y], color=colours[name], linewidth=1.4, solid_capstyle="butt")
            filled = figure.p_holm is not None and figure.p_holm < 0.05
            axes.plot(
                [figure.difference], [y], marker=MARKERS[unit], markersize=4.5, linestyle="", color=colours[name],
                markerfacecolor=colours[name] if filled else "white",
            )  # fmt: skip
    axes.set_ylim(len(others) - 0.5, -0.5)
    axes.set_yticks(range(len(others)), [beginning(name, LONGEST_NAME) for name in others])
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=4)
    better = "← better" if metric in LOWER_IS_BETTER else "better →"
    axes.set_title(FIGURE_TITLES[metric], fontsize=9, color=INK)
    axes.set_xlabel(f"− {beginning(comparison.reference, LONGEST_NAME)}   {better}", fontsize=7, color=INK)
    plain(axes)


def _draw_roc(axes: Axes, comparison: ClassifierComparison, unit: Unit, name: str, colours: dict[str, str]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for method, colour in colours.items():
        levels = comparison.levels[method, unit]
        for level in levels:
            curve = level.roc(comparison.classes)[name]
            width = 1.4 if len(levels) == 1 else 0.8
            axes.plot(curve.false_positive_rate, curve.sensitivity, color=colour, linewidth=width)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_title(f"{beginning(name, LONGEST_NAME)}, {UNIT_TITLES[unit]}", fontsize=9, color=INK)
    axes.set_xlabel("1 − specificity", fontsize=8, color=INK)
    axes.set_ylabel("sensitivity", fontsize=8, color=INK)
    plain(axes)


def _add_legend(axes: Axes, comparison: ClassifierComparison, colours: dict[str, str]) -> None:
    """Methods with their AUC, and what the signs above mean."""
    unit = comparison.units[-1]
    handles = []
    for name, colour in colours.items():
        area = comparison.figures[name, unit, "auc"]
        runs = f", {area.runs} runs" if area.runs > 1 else ""
        text = "–" if area.value is None else f"{area.value:.3f}"
        between = "" if area.ci95 is None else f" [{area.ci95[0]:.3f}, {area.ci95[1]:.3f}]"
        label = f" {beginning(name, LONGEST_NAME)}{runs}\n {text}{between}"  # matplotlib hides what begins with a _
        handles.append(Line2D([], [], color=colour, linewidth=1.6, label=label))
    for one in comparison.units:
        text = f"difference {UNIT_TITLES[one]}, 95 % interval"
        sign = Line2D([], [], linestyle="", color=INK, marker=MARKERS[one], markersize=4.5, label=text)
        sign.set_markerfacecolor("white")
        handles.append(sign)
    handles.append(Line2D([], [], linestyle="", color=INK, marker="o", markersize=4.5, label="filled: p (Holm) < 0.05"))
    legend = axes.legend(
        handles=handles, loc="upper left", fontsize=7, frameon=False, labelcolor=INK, borderpad=0,
        title=f"AUC {UNIT_TITLES[unit]}", title_fontsize=7, alignment="left",
    )  # fmt: skip
    legend.get_title().set_color(INK)

"""Pictures of a tested classifier: confusion, ROC and precision-recall curves, reliability, training, errors."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from segmed.evaluate.answers import LEAKING, Answers
from segmed.evaluate.decisions import Level
from segmed.evaluate.explanations import worst_first
from segmed.metrics.calibration import Bin
from segmed.reports.classification.text import CALIBRATION_TITLES, NONE, UNIT_TITLES, cell, number
from segmed.reports.comparison.figures import PALE
from segmed.reports.drawing.curves import COLOURS, draw_curves
from segmed.reports.drawing.distributions import MISS_COLOUR, POINT_COLOUR
from segmed.reports.drawing.panels import bare, grey_range, plain, show_plane
from segmed.reports.drawing.slices import INK
from segmed.reports.names import beginning, ending

LINE_COLOURS = tuple(colour for colour in COLOURS if colour not in PALE)
RIGHT_COLOUR = "#007A56"  # the green of Okabe and Ito, darker: it is read as text
CELL_INCHES = 0.8
PANEL_INCHES = 3.3
TILE_INCHES = 1.7
COLUMNS = 6  # of a gallery
DARK = 0.55  # share from which a cell's text is white
LETTERS_PER_INCH = 13  # of a title
SMALL_LETTERS_PER_INCH = 18  # of the notes
GREY = "#999999"

# Columns of a history that are losses, and those that are shares; a part such as `validation/` may stand before them.
LOSSES = ("loss", "log_loss")
SHARES = ("accuracy", "balanced_accuracy", "auc", "average_precision", "macro_f1")


def finish(figure: Figure, title: str, notes: Sequence[str]) -> Figure:
    """Title and leaks above a figure, other notes below; names are shown as they are, a $ in them is no formula."""
    loud = [note for note in notes if LEAKING in note]
    if above := _wrapped([*loud, *([title] if title else [])], figure, LETTERS_PER_INCH):
        figure.suptitle(above, fontsize=9, color=INK)
    if below := _wrapped([note for note in notes if note not in loud], figure, SMALL_LETTERS_PER_INCH):
        figure.supxlabel(below, fontsize=6.5, color=INK)
    figure.set_layout_engine("constrained", h_pad=0.07)
    for each in figure.findobj(Text):
        each.set_parse_math(False)
    return figure


def _wrapped(lines: Sequence[str], figure: Figure, letters_per_inch: int) -> str:
    width = max(30, int(letters_per_inch * figure.get_figwidth()))
    return "\n".join(line for each in lines for line in textwrap.wrap(each, width))


# ---------------------------------------------------------------- confusion


def confusion_figure(summary: Mapping[str, Any]) -> Figure:
    """Counts and row shares, by image and by subject; rows are the truth, colours the shares.

    Args:
        summary: of `summarise_classification`.
    """
    units, names = summary["units"], [beginning(name, 14) for name in summary["classes"]]
    side = max(1.9, CELL_INCHES * len(names))
    figure = Figure(figsize=(len(units) * (side + 1.2), side + 1.5), layout="constrained")
    for axes, unit in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
        counts = np.array(summary[unit]["confusion"])
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
        axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            text = NONE if np.isnan(share) else f"{100 * share:.0f} %"
            colour = "white" if share > DARK else INK
            axes.text(column, row, f"{count}\n{text}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=8, colors=INK, length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("answer", fontsize=8, color=INK)
        axes.set_ylabel("truth", fontsize=8, color=INK)
        axes.set_title(f"{UNIT_TITLES[unit]}, n = {summary[unit]['cases']}", fontsize=9, color=INK)
    return finish(figure, summary["title"], summary["notes"])


# ---------------------------------------------------------------- curves


def curves_figure(levels: Sequence[Level], summary: Mapping[str, Any]) -> Figure:
    """ROC and precision-recall curves of each class against the rest (of two, of the positive one), a row a level.

    Areas stand beside the names, with 95 % intervals over subjects; a diamond is the threshold of validation.

    Args:
        levels: what the summary counts.
        summary: of `summarise_classification`.
    """
    positive = summary["positive"]
    shown = summary["classes"] if positive is None else [positive]
    legend_inches = 0.17 * (len(shown) + 2) + 0.1
    row_inches = PANEL_INCHES + legend_inches + 0.6
    figure = Figure(figsize=(2 * PANEL_INCHES + 0.8, row_inches * len(levels) + 0.5), layout="constrained")
    grid = figure.subplots(2 * len(levels), 2, squeeze=False, height_ratios=[PANEL_INCHES, legend_inches] * len(levels))
    for row, level in enumerate(levels):
        panels, legends = grid[2 * row], grid[2 * row + 1]
        _name_lines(legends[0], _draw_roc(panels[0], level, summary, shown), "AUC")
        handles = _draw_precision(panels[1], level, summary, shown)
        _name_lines(legends[1], handles, "average precision (dotted: chance)")
    return finish(figure, summary["title"], summary["notes"])


Handles = list[tuple[Line2D, str]]


def _draw_roc(axes: Axes, level: Level, summary: Mapping[str, Any], shown: Sequence[str]) -> Handles:
    entry, handles = summary[level.unit], []
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for place, (name, curve) in enumerate(level.roc(summary["classes"]).items()):
        if name in shown:
            (line,) = axes.plot(curve.false_positive_rate, curve.sensitivity, **_line(place))
            handles.append((line, f"{beginning(name)}  {cell(entry['per_class'][name]['auc'])}"))
    if entry["threshold"] is not None and entry["threshold"]["specificity"]["value"] is not None:
        fall_out = 1 - entry["threshold"]["specificity"]["value"]
        handles += _draw_point(axes, fall_out, entry["threshold"]["sensitivity"]["value"], entry["threshold"])
    _frame(axes, f"ROC {UNIT_TITLES[level.unit]}", ("1 − specificity", "sensitivity"))
    return handles


def _draw_precision(axes: Axes, level: Level, summary: Mapping[str, Any], shown: Sequence[str]) -> Handles:
    entry, handles = summary[level.unit], []
    curves = level.precision_recall(summary["classes"])
    for place, (name, curve) in enumerate(curves.items()):
        if name in shown:
            (line,) = axes.plot(curve.recall, curve.precision, drawstyle="steps-post", **_line(place))
            share = curve.positives / max(1, curve.positives + curve.negatives)
            axes.plot([0, 1], [share, share], **{**_line(place), "linewidth": 0.8, "linestyle": ":"})
            handles.append((line, f"{beginning(name)}  {cell(entry['per_class'][name]['average_precision'])}"))
    if entry["threshold"] is not None:
        precision = entry["threshold"]["positive_predictive_value"]["value"]
        handles += _draw_point(axes, entry["threshold"]["sensitivity"]["value"], precision, entry["threshold"])
    _frame(axes, f"precision and recall {UNIT_TITLES[level.unit]}", ("recall", "precision"))
    return handles


def _draw_point(axes: Axes, x: float | None, y: float | None, entry: Mapping[str, Any]) -> Handles:
    if x is None or y is None:
        return []
    (point,) = axes.plot([x], [y], marker="D", markersize=5, color=INK, linestyle="", zorder=5, clip_on=False)
    origin = "default" if entry["chosen_on"] is None else f"{entry['rule']}, validation"
    return [(point, f"threshold {entry['value']:.3g} ({origin})")]


def _line(place: int) -> dict[str, Any]:
    style = ("-", "--", "-.")[place // len(LINE_COLOURS) % 3]
    return {"color": LINE_COLOURS[place % len(LINE_COLOURS)], "linewidth": 1.4, "linestyle": style}


def _frame(axes: Axes, title: str, labels: tuple[str, str]) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(title, fontsize=9, color=INK)
    axes.set_xlabel(labels[0], fontsize=8, color=INK)
    axes.set_ylabel(labels[1], fontsize=8, color=INK)
    plain(axes)


def _name_lines(axes: Axes, handles: Handles, title: str) -> None:
    """A legend in axes of its own, where no curve runs."""
    axes.set_axis_off()
    names = [f" {name}" if name.startswith("_") else name for _, name in handles]  # matplotlib hides names with a _
    legend = axes.legend(
        [line for line, _ in handles], names, title=title, loc="upper center", borderpad=0,
        fontsize=7, title_fontsize=7, frameon=False, labelcolor=INK,
    )  # fmt: skip
    legend.get_title().set_color(INK)


# ---------------------------------------------------------------- reliability


def reliability_figure(level: Level, summary: Mapping[str, Any]) -> Figure:
    """How often the answer is right over its probability, before and after the temperature, above how many cases.

    Args:
        level: image or subject.
        summary: of `summarise_classification`.
    """
    tables = level.reliability()
    figure = Figure(figsize=(3.2 * len(tables) + 0.4, 4.5), layout="constrained")
    grid = figure.subplots(2, len(tables), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1])
    for (name, table), (upper, lower) in zip(tables.items(), grid.T, strict=True):
        bins = [one for one in table if one.cases]
        _draw_reliability(upper, bins)
        text, when = "as the model gives them", "before"
        if name == "calibrated":
            text, when = f"calibrated, temperature {summary['temperature']['value']:.3g}", "after"
        figures = summary[level.unit]["calibration"][when]
        shown = ", ".join(f"{title} {number(figures[key])}" for key, title in CALIBRATION_TITLES.items())
        upper.set_title(f"{text}\n{shown}", fontsize=7.5, color=INK)
        widths = [one.high - one.low for one in bins]
        lower.bar([one.low for one in bins], [one.cases for one in bins], widths, align="edge", color=GREY, linewidth=0)
        lower.set_xlabel("probability of the answer", fontsize=8, color=INK)
        plain(lower)
    grid[0, 0].set_ylabel("share of right answers", fontsize=8, color=INK)
    grid[1, 0].set_ylabel("images" if level.unit == "image" else "subjects", fontsize=8, color=INK)
    return finish(figure, summary["title"], summary["notes"])


def _draw_reliability(axes: Axes, bins: Sequence[Bin]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    confidence, frequency = [one.confidence for one in bins], [one.frequency for one in bins]
    axes.vlines(confidence, confidence, frequency, color=MISS_COLOUR, linewidth=1.2)  # the errors that ECE averages
    axes.plot(confidence, frequency, color=POINT_COLOUR, linewidth=1, marker="o", markersize=4)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    plain(axes)


# ---------------------------------------------------------------- training


def learning_curves(
    history: Mapping[str, Sequence[tuple[float, float]]], *, title: str = "", notes: Sequence[str] = ()
) -> Figure | None:
    """Losses, and accuracies and areas, over the steps of a classifier's training; None where there is neither.

    Args:
        history: of `read_history`; columns such as loss, log_loss, auc or validation/auc.
        title, notes: of the figure, see `finish`.
    """
    every = ((LOSSES, "loss"), (SHARES, "accuracy, area"))
    candidates = [
        ({name: _spoken(name) for name in history if name.split("/")[-1] in keys}, text) for keys, text in every
    ]
    panels = [(labels, text) for labels, text in candidates if labels]
    if not panels:
        return None
    figure = Figure(figsize=(3.8 * len(panels), 3.0), layout="constrained")
    for axes, (labels, text) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        sparse = max(len(history[name]) for name in labels) < 60
        draw_curves(axes, history, labels, text, marker="o" if sparse else None)
    return finish(figure, title, notes)


def _spoken(name: str) -> str:
    """Name in the legend. Without a part before it only the loss is surely of training, and accuracy may be both."""
    part, _, last = name.rpartition("/")
    part = part or {"loss": "training", "accuracy": ""}.get(last, "validation")
    return f"{part} {last}".replace("/", " ").replace("_", " ").replace("auc", "AUC").strip()


# ---------------------------------------------------------------- images


def gallery_figure(
    test: Answers, load: Callable[[str], np.ndarray], *, most: int, title: str = "", notes: Sequence[str] = ()
) -> Figure | None:
    """Misclassified images with truth, answer and their probabilities, the least probable truth first.

    Args:
        test: classified images.
        load: id -> (C, H, W) or (C, X, Y, Z); of a volume its middle slice is shown.
        most: how many images are shown; 0: no figure.
        title, notes: of the figure, see `finish`.

    Returns:
        None where every answer is right, or none is to be shown.
    """
    wrong = worst_first(test)
    shown = wrong[:most]
    if not shown:
        return None
    columns = max(3, min(COLUMNS, len(shown)))
    rows = -(-len(shown) // columns)
    images = [np.asarray(load(test.ids[index])) for index in shown]
    row_inches = TILE_INCHES * max(map(tallness_of, images)) + 0.5
    figure = Figure(figsize=(TILE_INCHES * columns, row_inches * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for axes, index, image in zip(grid, shown, images, strict=False):
        show_image(axes, image)
        axes.set_title(answer_text(test, index), fontsize=6.5, color=INK, loc="left", pad=2)
        axes.set_xlabel(ending(test.ids[index]), fontsize=5.5, color=INK, labelpad=2)
    count = f"{len(shown)} of {len(wrong)} misclassified images of {len(test.ids)}, the worst first"
    return finish(figure, f"{title}: {count}" if title else count, notes)


def answer_text(test: Answers, index: int) -> str:
    """Truth and answer of an image, each with its probability; a line each."""
    pairs = (("truth", test.truth[index]), ("answer", test.labels[index]))
    return "\n".join(f"{word} {beginning(test.classes[k], 13)} {test.probabilities[index, k]:.3f}" for word, k in pairs)


def tallness_of(image: np.ndarray) -> float:
    """Height over width of what `show_image` draws, within what a row can take."""
    width, height = image.shape[1:3] if image.ndim == 4 else image.shape[:0:-1]
    return min(max(height / width, 0.4), 2.0)


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Draw (C, H, W), rows downwards, in colour where there are three channels, or the middle slice of (C, X, Y, Z)."""
    if image.ndim == 4:
        show_plane(axes, image[0, ..., image.shape[-1] // 2])
    else:
        pixels = image.transpose(1, 2, 0) if image.shape[0] == 3 else image[0]
        low, high = grey_range(pixels)
        axes.imshow(np.clip((pixels - low) / (high - low), 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    bare(axes)

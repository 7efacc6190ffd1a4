"""A summary -> the table of the terminal and that of summary.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segmed.data.subjects import UNKNOWN
from segmed.evaluate.answers import LEAKING
from segmed.labels import MEAN
from segmed.metrics.mask_metrics import OF_CASES, metric_named, metrics_shown
from segmed.metrics.metric import Place
from segmed.metrics.statistics import interval_method
from segmed.reports.names import beginning

LONGEST_NAME = 24
NONE = "–"  # in the place of a figure that does not exist


def table_text(summary: Mapping[str, Any]) -> str:
    """The table of the terminal: Dice, HD95, HD and AVD a label, mean ± SD over its interval, and misses.

    Cases that the run learned from, where there are any beside others, have a table of their own below it.

    Args:
        summary: of `summarise_cases`.

    Returns:
        Lines of at most 108 columns.
    """
    place: Place = "main" if summary["spacing_known"] else "without spacing"
    metrics = [metric for metric in metrics_shown(place) if _any_known(summary, metric)]
    shown = entries(summary)
    width = min(LONGEST_NAME, max(len(name) for name, _ in shown))
    head = [
        f"{'label':<{width}}",
        f"{'cases':>5}",
        f"{'missed':>6}",
        *(metric_named(metric).title for metric in metrics),
    ]
    body: list[list[str]] = []
    for name, figures in shown:
        first = figures["dice"]
        body.append([f"{beginning(name, width):<{width}}", f"{first['n']:>5}", f"{first['missed']:>6}"])
        body[-1] += [mean_sd(figures[metric], metric) for metric in metrics]
        body.append([" " * width, " " * 5, " " * 6, *(interval(figures[metric], metric) for metric in metrics)])
    widths = [max(len(line[column]) for line in [head, *body]) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip() for line in [head, *body]
    ]
    rule = "─" * max(len(line) for line in lines)
    lines = [line for line in lines if line]  # no interval from a single case
    text = "\n".join([lines[0], rule, *lines[1:], rule, *meaning(summary)])
    if "learned" not in summary:
        return text
    return f"{text}\n\n{table_text(summary['learned'])}"


def markdown(summary: Mapping[str, Any]) -> str:
    """summary.md: every metric a label, and what the figures mean.

    Args:
        summary: of `write_evaluation`, with title and notes.
    """
    lines = [f"# {escaped(summary['title'])}", "", f"{_count(summary)}. {' '.join(whole_meaning(summary))}", ""]
    lines += [f"- {escaped(note)}" for note in summary["notes"]] + ([""] if summary["notes"] else [])
    lines += _grid(summary)
    if "learned" in summary:
        learned = summary["learned"]
        lines += ["", f"## {learned['scope']}", "", f"{_count(learned)}. {' '.join(meaning(learned))}", ""]
        lines += _grid(learned)
    return "\n".join([*lines, ""])


def _grid(summary: Mapping[str, Any]) -> list[str]:
    """Every metric a label, lines of a Markdown table."""
    shown = entries(summary)
    lines = ["| metric | " + " | ".join(escaped(name) for name, _ in shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for metric in OF_CASES.values():
        if line := cells(summary, metric.name):
            lines.append(f"| {metric.title} | " + " | ".join(f"{mean} {rest}".strip() for mean, rest in line) + " |")
    missed = " | ".join(str(figures["dice"]["missed"]) for _, figures in shown)
    return [*lines, f"| missed or invented | {missed} |"]


def entries(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and figures of labels, of regions, and of the mean over labels where there are several."""
    given = list(summary["labels"].items())
    averaged = [name for name, _ in given if name not in summary["regions"]] or [name for name, _ in given]
    return [*given, (MEAN, summary["mean"])] if len(averaged) > 1 else given


def cells(summary: Mapping[str, Any], metric: str) -> list[tuple[str, str]]:
    """Mean ± SD, and interval with the number of cases where it is not that of all, of each entry.

    Returns:
        Nothing where no entry has this metric.
    """
    if not _any_known(summary, metric):
        return []
    line = []
    for _, figures in entries(summary):
        figure = figures[metric]
        fewer = f"n = {figure['n']}" if figure["n"] not in (0, figures["dice"]["n"]) else ""
        line.append((mean_sd(figure, metric), f"{interval(figure, metric)} {fewer}".strip()))
    return line


def _any_known(summary: Mapping[str, Any], metric: str) -> bool:
    return any(figures.get(metric, {}).get("n") for _, figures in entries(summary))  # an older summary lacks new ones


def _count(summary: Mapping[str, Any]) -> str:
    cases, subjects = summary["cases"], summary["subjects"]
    text = f"{cases} case{'s' if cases != 1 else ''}"
    return text if subjects == cases else f"{text} of {subjects} subject{'s' if subjects != 1 else ''}"


def meaning(summary: Mapping[str, Any]) -> list[str]:
    """What one must know to read the figures."""
    drawn = "cases" if summary["subjects"] == summary["cases"] else "subjects"
    method = interval_method(summary["subjects"])
    lines = [f"Mean ± SD over {_count(summary)}, [95 % interval of the mean over {drawn}: {method}]."]
    lines = [f"{note}." for note in summary.get("notes", ()) if LEAKING in note] + lines
    lines += [_of_pixels(name, figures) for name, figures in summary.get("pixels", {}).items()]
    if "scope" in summary:
        lines.insert(0, f"{summary['scope']}.")
    if not summary.get("subjects_known", True):
        lines.append(f"{UNKNOWN[0].upper()}{UNKNOWN[1:]}.")
    if any(figures["dice"]["missed"] for _, figures in entries(summary)):
        policy = "the image's diagonal as distance" if summary["missed"] == "diagonal" else "no distance"
        dice = f"A missed or invented structure counts Dice 0 and {policy}."
        lines.append(dice if summary["spacing_known"] else "A missed or invented structure counts Dice 0.")
    if summary["regions"] and entries(summary)[-1][0] == MEAN and len(summary["regions"]) < len(summary["labels"]):
        lines.append(f"The {MEAN} leaves out what overlaps them: {', '.join(summary['regions'])}.")
    if not summary["spacing_known"]:
        lines.append("No distances and volumes: the true spacing of these files is not known (data.spacing_known).")
    return lines


def _of_pixels(name: str, figures: Mapping[str, float | None]) -> str:
    """Figures over the pixels of all cases together."""
    titles = {"dice": "Dice", "auc_roc": "AUC of ROC", "auc_pr": "AUC of precision-recall"}
    values = {title: figures[key] for key, title in titles.items()}
    shown = (f"{title} {NONE if value is None else format(value, '.4f')}" for title, value in values.items())
    return f"{name}, all pixels of all cases together: {', '.join(shown)}."


def whole_meaning(summary: Mapping[str, Any]) -> list[str]:
    """`meaning`, and that of the metrics which the terminal does not show."""
    tolerance = (
        f"Surface Dice is the share of both surfaces' area within {summary['surface_dice_tolerance_mm']:g} mm, ASSD "
        "the mean distance over this area; HD and HD95 are over surface voxels."
    )
    return [*meaning(summary), *([tolerance] if summary["spacing_known"] else [])]


def mean_sd(figure: Mapping[str, Any], metric: str) -> str:
    """Mean ± SD of an entry of `summarise`."""
    if figure["mean"] is None:
        return NONE
    decimals = digits(figure, metric)
    mean = f"{figure['mean']:.{decimals}f}"
    return mean if figure["sd"] is None else f"{mean} ± {figure['sd']:.{decimals}f}"


def interval(figure: Mapping[str, Any], metric: str) -> str:
    """[low, high] of an entry of `summarise`; empty where there is none."""
    if figure["ci95"] is None:
        return ""
    decimals = digits(figure, metric)
    return f"[{figure['ci95'][0]:.{decimals}f}, {figure['ci95'][1]:.{decimals}f}]"


def digits(figure: Mapping[str, Any], metric: str) -> int:
    """Decimals that show three to four figures, the same for mean, SD and interval."""
    return metric_named(metric).decimals(max(abs(figure["mean"]), figure["sd"] or 0))


def escaped(text: str) -> str:
    """A text that Markdown takes as it is."""
    return "".join(f"\\{sign}" if sign in "|*_<>`#[]\\" else sign for sign in str(text)).replace("\n", " ")

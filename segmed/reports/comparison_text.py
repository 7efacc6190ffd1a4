"""A comparison of methods -> comparison.md, comparison.csv and comparison.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segmed.files import atomic_write_text, write_json
from segmed.plain import as_cells
from segmed.reports.comparable import training_text
from segmed.reports.comparison import METRIC_TITLES, Comparison, Figure
from segmed.reports.comparison_figures import comparison_figure
from segmed.reports.figures import save_figure
from segmed.reports.results import Method
from segmed.reports.tables import MEAN, digits, escaped, interval, mean_sd

NONE = "–"
COLUMNS = (
    "label", "kind", "metric", "method", "reference", "mean", "sd", "ci95_low", "ci95_high", "median", "n", "seeds",
    "seed_sd", "missed", "chances", "difference", "difference_low", "difference_high", "p", "p_holm", "family",
    "training_minutes", "inference_seconds",
)  # fmt: skip


def write_comparison(comparison: Comparison, folder: Path, *, title: str, stem: str = "comparison") -> str:
    """Write comparison.csv, comparison.md, comparison.json and comparison.png.

    Args:
        comparison: what is shown.
        folder: made where it does not exist; files of an earlier comparison are replaced.
        title: of the tables and the figure.
        stem: of the files' names.

    Returns:
        The text of comparison.md.

    Raises:
        OSError: the folder can't be written.
    """
    text = comparison_markdown(comparison, title=title)
    atomic_write_text(folder / f"{stem}.md", text)
    atomic_write_text(folder / f"{stem}.csv", comparison_csv(comparison))
    write_json(folder / f"{stem}.json", _as_data(comparison, title))
    figure = comparison_figure(comparison, metric=comparison.metrics[0], title=title)
    save_figure(figure, folder / f"{stem}.png", dpi=200)
    return text


# ---------------------------------------------------------------- Markdown


def comparison_markdown(comparison: Comparison, *, title: str) -> str:
    """The methods and what they cost, then a table a metric; columns are padded, for a terminal.

    Args:
        comparison: what is shown.
        title: above it.
    """
    lines = [f"# {escaped(title)}", "", *meaning(comparison), ""]
    lines += [f"- **Note:** {escaped(note)}" for note in comparison.notes] + ([""] if comparison.notes else [])
    lines += [*_methods_table(comparison), ""]
    for metric in comparison.metrics:
        better = "nearer to 0" if "difference" in metric else "higher" if metric.startswith("dice") else "lower"
        lines += [f"## {METRIC_TITLES[metric]}, {better} is better", "", *_metric_table(comparison, metric), ""]
    return "\n".join(lines)


def meaning(comparison: Comparison) -> list[str]:
    """What one must know to read the figures, a line each."""
    subjects, cases = len(set(comparison.subjects.values())), len(comparison.cases)
    over = f"{cases} test cases" + (f" of {subjects} subjects" if subjects != cases else "")
    tests = sorted(set(comparison.families.values()))
    family = f"{tests[0]} tests" if len(tests) == 1 else "the tests"
    pairs = "cases" if subjects == cases else "subjects (means of their cases)"
    mean = f" and the {MEAN}" if MEAN in comparison.labels else ""
    lines = [
        f"Mean ± SD over {over}, each with its mean over the runs of a method; bootstrap intervals over subjects.",
        f"Differences are paired, method − {escaped(comparison.reference)}; p: Wilcoxon's signed-rank test on {pairs}.",
    ]
    if any(tests):
        lines.append(f"p (Holm) is corrected over {family} of a metric (all methods × all labels{mean}).")
    if any(counts.any() for counts in comparison.misses.values()):
        distance = {"diagonal": " and the image's diagonal as distance", "skip": " and no distance"}
        policy = distance.get(comparison.missed_policy or "", "")
        lines.append(f"A missed or invented structure counts Dice 0{policy}; misses are counted over all runs.")
    regions = [name for name, kind in comparison.kinds.items() if kind == "region"]
    if regions and "label" in comparison.kinds.values() and MEAN in comparison.labels:
        lines.append(f"The {MEAN} leaves out what overlaps them: {escaped(', '.join(regions))}.")
    if "dice" in comparison.metrics and "hd_mm" not in comparison.metrics:
        lines.append("No distances and volumes: they are not known for all methods.")
    return [f"{line}  " for line in lines[:-1]] + lines[-1:]


def _methods_table(comparison: Comparison) -> list[str]:
    """What was compared, and what it cost."""
    head = ["method", "runs", "training (min)", "inference (s a case)", "budget of a run", "training cases"]
    body = []
    for method in comparison.methods:
        budgets = " and ".join(dict.fromkeys(result.budget for result in method.results if result.budget))
        body.append([
            _name(comparison, method.name),
            str(len(method.results)),
            _short(method.training_minutes),
            _short(method.inference_seconds),
            escaped(budgets) or NONE,
            training_text(method) or NONE,
        ])  # fmt: skip
    return padded_table(_without_empty([head, *body], first=2))


def _metric_table(comparison: Comparison, metric: str) -> list[str]:
    head = ["label", "method", "mean ± SD", "95 % interval", "SD of runs", "missed"]
    head += ["difference", "its 95 % interval", "p", "p (Holm)"]
    lines = [head]
    for label in comparison.labels:
        known = [method for method in comparison.methods if comparison.figures[method.name, label, metric].n]
        for number, method in enumerate(known):
            figure = comparison.figures[method.name, label, metric]
            name = escaped(label) if not number else ""
            lines.append([name, _name(comparison, method.name), *_cells(figure, len(comparison.cases))])
    return padded_table(_without_empty(lines, first=4))


def _cells(figure: Figure, cases: int) -> list[str]:
    entry, decimals = vars(figure), digits(vars(figure), figure.metric) if figure.mean is not None else 3
    fewer = f" (n = {figure.n})" if figure.n != cases else ""
    signed = f"+.{decimals}f"
    between = figure.difference_ci95
    return [
        mean_sd(entry, figure.metric) + fewer,
        interval(entry, figure.metric) or NONE,
        NONE if figure.seed_sd is None else f"{figure.seed_sd:.{decimals}f}",
        f"{figure.missed} of {figure.chances}",
        NONE if figure.difference is None else _minus(format(figure.difference, signed)),
        NONE if between is None else _minus(f"[{between[0]:{signed}}, {between[1]:{signed}}]"),
        p_text(figure.p),
        p_text(figure.p_holm),
    ]


def p_text(p: float | None) -> str:
    """Three decimals; never 0."""
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _name(comparison: Comparison, method: str) -> str:
    return f"{escaped(method)} (reference)" if method == comparison.reference else escaped(method)


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _short(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _without_empty(lines: Sequence[Sequence[str]], *, first: int) -> list[list[str]]:
    """Without the columns, from `first` on, of which nothing is known for anybody."""
    columns = [column for column in range(len(lines[0])) if column < first or any(x[column] != NONE for x in lines[1:])]
    return [[line[column] for column in columns] for line in lines]


def padded_table(lines: Sequence[Sequence[str]]) -> list[str]:
    """A padded Markdown table; the first line is its head."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return [rows[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows[1:]]


# ---------------------------------------------------------------- CSV and JSON


def comparison_csv(comparison: Comparison) -> str:
    """A row a label, metric and method, in full precision; an empty cell is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    methods = {method.name: method for method in comparison.methods}
    for figure in comparison.figures.values():
        method = methods[figure.method]
        row = {
            **vars(figure),
            "kind": comparison.kinds[figure.label],
            "reference": comparison.reference,
            "family": comparison.families[figure.metric],
            "training_minutes": method.training_minutes,
            "inference_seconds": method.inference_seconds,
        }
        for name, ends in (("ci95", figure.ci95), ("difference", figure.difference_ci95)):
            row[f"{name}_low"], row[f"{name}_high"] = ends or (None, None)
        writer.writerow(as_cells({column: row[column] for column in COLUMNS}))
    return text.getvalue()


def _as_data(comparison: Comparison, title: str) -> dict[str, Any]:
    return {
        "title": title,
        "reference": comparison.reference,
        "cases": len(comparison.cases),
        "subjects": len(set(comparison.subjects.values())),
        "missed": comparison.missed_policy,
        "labels": dict(comparison.kinds),
        "families": dict(comparison.families),
        "meaning": [line.strip() for line in meaning(comparison)],
        "notes": list(comparison.notes),
        "methods": [_method(method) for method in comparison.methods],
        "figures": [vars(figure) for figure in comparison.figures.values()],
        "values": [
            {"case": case, "subject": comparison.subjects[case], "label": label, "method": method.name}
            | {metric: float(comparison.values[method.name, metric][row, column]) for metric in comparison.metrics}
            | {"missed": int(comparison.misses[method.name][row, column])}
            for method in comparison.methods
            for row, case in enumerate(comparison.cases)
            for column, label in enumerate(comparison.labels)
        ],
    }


def _method(method: Method) -> dict[str, Any]:
    known = ("source", "seed", "budget", "training_minutes", "inference_seconds", "device")
    return {
        "name": method.name,
        "training_minutes": method.training_minutes,
        "inference_seconds": method.inference_seconds,
        "runs": [
            {name: getattr(result, name) for name in known} | {"training_cases": [len(p) for p in result.training]}
            for result in method.results
        ],
    }

"""A comparison of classifiers -> comparison.md, comparison.csv, comparison.json and comparison.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segmed.files import atomic_write_text, write_json
from segmed.metrics.repeated import COMPARED
from segmed.plain import as_cells
from segmed.reports.classification_text import UNIT_TITLES
from segmed.reports.classified import note_lines
from segmed.reports.classifier_comparison import ClassifierComparison, ClassifierFigure, ClassifierMethod
from segmed.reports.classifier_comparison_figures import FIGURE_TITLES, classifier_comparison_figure
from segmed.reports.comparable import training_text
from segmed.reports.comparison_text import NONE, p_text, padded_table
from segmed.reports.decisions import Unit
from segmed.reports.figures import save_figure
from segmed.reports.tables import escaped

COLUMNS = (
    "unit", "metric", "method", "reference", "cases", "subjects", "value", "ci95_low", "ci95_high", "runs", "run_sd",
    "difference", "difference_low", "difference_high", "test", "p", "p_holm", "mcnemar", "mcnemar_holm",
    "majority_share", "training_minutes",
)  # fmt: skip
HEAD = (
    "figure", "method", "value", "95 % interval", "SD of runs", "difference", "its 95 % interval", "p", "p (Holm)",
    "McNemar", "McNemar (Holm)",
)  # fmt: skip


def write_classifier_comparison(comparison: ClassifierComparison, folder: Path, *, title: str) -> str:
    """Write comparison.csv, comparison.md, comparison.json and comparison.png.

    Args:
        comparison: what is shown.
        folder: made where it does not exist; files of an earlier comparison are replaced.
        title: of the tables and the figure.

    Returns:
        The text of comparison.md.

    Raises:
        OSError: the folder can't be written.
    """
    text = classifier_comparison_markdown(comparison, title=title)
    atomic_write_text(folder / "comparison.md", text)
    atomic_write_text(folder / "comparison.csv", classifier_comparison_csv(comparison))
    write_json(folder / "comparison.json", _as_data(comparison, title))
    save_figure(classifier_comparison_figure(comparison, title=title), folder / "comparison.png", dpi=200)
    return text


# ---------------------------------------------------------------- Markdown


def classifier_comparison_markdown(comparison: ClassifierComparison, *, title: str) -> str:
    """The methods and what they cost, then a table by image and one by subject; columns are padded, for a terminal.

    The notes of the runs stand above every table.

    Args:
        comparison: what is shown.
        title: above it.
    """
    of_runs = [f"- **Note:** {escaped(note)}" for note in comparison.run_notes]
    above = [*of_runs, ""] if of_runs else []
    others = [f"- **Note:** {escaped(note)}" for note in comparison.notes]
    lines = [f"# {escaped(title)}", "", *meaning(comparison), ""]
    lines += [*of_runs, *others, ""] if of_runs or others else []
    lines += [*_methods_table(comparison), ""]
    for unit in comparison.units:
        name, share = comparison.majority(unit)
        always = (
            f"Always answering {escaped(name)}: accuracy {share:.3f}, balanced {1 / _present(comparison, unit):.3f}."
        )
        lines += [f"## {UNIT_TITLES[unit].capitalize()}, n = {comparison.cases(unit)}", "", *above, always, ""]
        lines += [*_table(comparison, unit), ""]
    return "\n".join(lines)


def meaning(comparison: ClassifierComparison) -> list[str]:
    """What one must know to read the figures, a line each."""
    images, subjects = comparison.images, comparison.subjects
    over = f"{images} test images" + (f" of {subjects} subjects" if subjects != images else "")
    several = any(len(method.runs) > 1 for method in comparison.methods)
    tests = {figure.test for figure in comparison.figures.values()}
    two = len(comparison.classes) == 2
    area = f"of {escaped(comparison.classes[1])}" if two else "the mean of one class against the rest"
    lines = [
        f"On {over}; a figure is the mean of those of a method's runs, never that of their mean probabilities.",
        f"Differences are paired, method − {escaped(comparison.reference)}; intervals and p: bootstrap over subjects.",
        f"Log loss and ECE are better lower, all else higher; the AUC is {'that ' if two else ''}{area}.",
    ]
    if "subject" in comparison.units:
        pooled = {"mean": "the mean of the probabilities", "vote": "a vote", "max": "the largest probability"}
        lines.append(f"By subject: {pooled[comparison.pool]} of a subject's images, in each run.")
    if "delong" in tests:
        lines.append(f"Interval and p of the difference in AUC {_delong_unit(comparison)} are DeLong's.")
    if any(figure.mcnemar is not None for figure in comparison.figures.values()):
        shares = " (of the shares of runs that are right, exchanged at random)" if several else ""
        independent = "; several of a subject are not, so by image trust the bootstrap" if subjects != images else ""
        lines.append(f"McNemar{shares}: test of the accuracies as if cases were independent{independent}.")
    if any(tests):
        others = len(comparison.methods) - 1
        lines.append(f"p (Holm) is corrected over all methods but the reference ({others}), of each figure apart.")
    lines.append("The ECE of few cases is too high, that of resampled ones still more: its interval lies too high.")
    return [f"{line}  " for line in lines[:-1]] + lines[-1:]


def _delong_unit(comparison: ClassifierComparison) -> str:
    units = dict.fromkeys(figure.unit for figure in comparison.figures.values() if figure.test == "delong")
    return " and ".join(UNIT_TITLES[unit] for unit in units)


def _present(comparison: ClassifierComparison, unit: Unit) -> int:
    """Classes that the test part has: one over it is the balanced accuracy of a single answer."""
    return len(set(comparison.levels[comparison.reference, unit][0].truth.tolist()))


def _methods_table(comparison: ClassifierComparison) -> list[str]:
    """What was compared, and what it cost."""
    head = ["method", "runs", "model", "training (min)", "budget of a run", "training images"]
    body = []
    for method in comparison.methods:
        facts = method.facts
        models = " and ".join(dict.fromkeys(run.model for run in method.runs if run.model))
        budgets = " and ".join(dict.fromkeys(result.budget for result in facts.results if result.budget))
        minutes = NONE if facts.training_minutes is None else f"{facts.training_minutes:.3g}"
        known = [escaped(models) or NONE, minutes, escaped(budgets) or NONE, training_text(facts) or NONE]
        body.append([_name(comparison, method.name), str(len(method.runs)), *known])
    return padded_table(_without_empty([head, *body], first=2))


def _table(comparison: ClassifierComparison, unit: Unit) -> list[str]:
    lines = [list(HEAD)]
    for metric in COMPARED:
        for number, method in enumerate(comparison.methods):
            figure = comparison.figures[method.name, unit, metric]
            name = "" if number else FIGURE_TITLES[metric]
            lines.append([name, _name(comparison, method.name), *_cells(figure)])
    return padded_table(_without_empty(lines, first=3))


def _cells(figure: ClassifierFigure) -> list[str]:
    return [
        NONE if figure.value is None else f"{figure.value:.3f}",
        _between(figure.ci95, ".3f"),
        NONE if figure.run_sd is None else f"{figure.run_sd:.3f}",
        NONE if figure.difference is None else f"{figure.difference:+.3f}".replace("-", "−"),
        _between(figure.difference_ci95, "+.3f").replace("-", "−"),
        *(p_text(p) for p in (figure.p, figure.p_holm, figure.mcnemar, figure.mcnemar_holm)),
    ]


def _between(ends: tuple[float, float] | None, spec: str) -> str:
    return NONE if ends is None else f"[{ends[0]:{spec}}, {ends[1]:{spec}}]"


def _name(comparison: ClassifierComparison, method: str) -> str:
    return f"{escaped(method)} (reference)" if method == comparison.reference else escaped(method)


def _without_empty(lines: Sequence[Sequence[str]], *, first: int) -> list[list[str]]:
    """Without the columns, from `first` on, of which nothing is known for anybody."""
    kept = [place for place in range(len(lines[0])) if place < first or any(line[place] != NONE for line in lines[1:])]
    return [[line[place] for place in kept] for line in lines]


# ---------------------------------------------------------------- CSV and JSON


def classifier_comparison_csv(comparison: ClassifierComparison) -> str:
    """A row a unit, metric and method, in full precision, below the notes; an empty cell is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    minutes = {method.name: method.facts.training_minutes for method in comparison.methods}
    for figure in comparison.figures.values():
        row: dict[str, Any] = {
            **vars(figure),
            "reference": comparison.reference,
            "cases": comparison.cases(figure.unit),
            "subjects": comparison.subjects,
            "majority_share": comparison.majority(figure.unit)[1],
            "training_minutes": minutes[figure.method],
        }
        row["ci95_low"], row["ci95_high"] = figure.ci95 or (None, None)
        row["difference_low"], row["difference_high"] = figure.difference_ci95 or (None, None)
        writer.writerow(as_cells(row))
    return note_lines((*comparison.run_notes, *comparison.notes)) + text.getvalue()


def _as_data(comparison: ClassifierComparison, title: str) -> dict[str, Any]:
    return {
        "notes": [*comparison.run_notes, *comparison.notes],
        "title": title,
        "reference": comparison.reference,
        "classes": list(comparison.classes),
        "images": comparison.images,
        "subjects": comparison.subjects,
        "units": list(comparison.units),
        "pool": comparison.pool,
        "majority": {
            unit: dict(zip(("class", "share"), comparison.majority(unit), strict=True)) for unit in comparison.units
        },
        "meaning": [line.strip() for line in meaning(comparison)],
        "methods": [_method(method) for method in comparison.methods],
        "figures": [asdict(figure) for figure in comparison.figures.values()],
    }


def _method(method: ClassifierMethod) -> dict[str, Any]:
    known = ("source", "seed", "budget", "training_minutes", "device")
    return {
        "name": method.name,
        "training_minutes": method.facts.training_minutes,
        "runs": [
            {name: getattr(run.facts, name) for name in known}
            | {"model": run.model, "training_images": [len(part) for part in run.facts.training]}
            | {"notes": list(run.notes)}
            for run in method.runs
        ],
    }

"""A comparison of classifiers -> comparison.md, comparison.csv, comparison.json, comparison.png and its page."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from segmed.evaluate.answers import note_lines
from segmed.evaluate.classifier_comparison import ClassifierComparison, ClassifierFigure, ClassifierMethod
from segmed.evaluate.decisions import Unit
from segmed.files import csv_text
from segmed.metrics.repeated import COMPARED
from segmed.metrics.small_samples import used
from segmed.reports.classification.text import POOLED, UNIT_TITLES
from segmed.reports.classifier_comparison.figures import FIGURE_TITLES, classifier_comparison_figure
from segmed.reports.comparison.document import (
    Document,
    Section,
    Table,
    Writing,
    methods_section,
    p_text,
    reference_named,
    run_data,
    signed,
    signed_interval,
    with_ends,
    write_comparison_files,
)
from segmed.reports.segmentation.tables import NONE, escaped

COLUMNS = (
    "unit", "metric", "method", "reference", "cases", "subjects", "value", "ci95_low", "ci95_high", "ci95_method",
    "calibrated", "runs", "run_sd", "difference", "difference_low", "difference_high", "difference_method", "test",
    "p", "p_holm", "mcnemar", "mcnemar_holm", "majority_share", "training_minutes",
)  # fmt: skip
MOST_KEYS = 4  # methods above all
HEAD = (
    "figure", "method", "value", "95 % interval", "SD of runs", "difference", "its 95 % interval", "p", "p (Holm)",
    "McNemar", "McNemar (Holm)",
)  # fmt: skip


def write_classifier_comparison(comparison: ClassifierComparison, folder: Path, *, title: str) -> str:
    """Write comparison.csv, comparison.md, comparison.json, comparison.png and report.html.

    Args:
        comparison: what is shown.
        folder: made where it does not exist; files of an earlier comparison are replaced.
        title: of the tables and the figure.

    Returns:
        The text of comparison.md.

    Raises:
        OSError: the folder can't be written.
    """
    return write_comparison_files(
        partial(classifier_document, comparison, title=title),
        folder,
        table=classifier_comparison_csv(comparison),
        data=_as_data(comparison, title),
        figure=classifier_comparison_figure(comparison, title=title),
    )


# ---------------------------------------------------------------- text


def classifier_document(comparison: ClassifierComparison, *, title: str, written: Writing = escaped) -> Document:
    """The methods and what they cost, then a table by image and one by subject.

    Args:
        comparison: what is shown.
        title: above it.
        written: how names are.
    """
    methods = [
        (reference_named(method.name, comparison.reference, written), method.facts, _model_and_minutes(method, written))
        for method in comparison.methods
    ]
    return Document(
        written(title),
        [
            methods_section(methods, training="training images", written=written),
            *(_unit_section(comparison, unit, written) for unit in comparison.units),
        ],
        meaning=meaning(comparison, written),
        run_notes=[written(note) for note in comparison.run_notes],
        notes=[written(note) for note in comparison.notes],
        key=_key(comparison, written),
    )


def _key(comparison: ClassifierComparison, written: Writing) -> list[tuple[str, str, str]]:
    """The accuracy of the first methods, and of how many."""
    unit = comparison.units[-1]
    figures = [(method.name, comparison.figures[method.name, unit, "accuracy"]) for method in comparison.methods]
    shown = [(f"{one.value:.3f}", "", f"{written(name)}: accuracy") for name, one in figures[:MOST_KEYS] if one.value]
    return [*shown, (str(comparison.cases(unit)), "", f"tested {unit}s")]


def _model_and_minutes(method: ClassifierMethod, written: Writing) -> dict[str, str]:
    """Model and training time."""
    models = " and ".join(dict.fromkeys(run.model for run in method.runs if run.model))
    minutes = method.facts.training_minutes
    return {"model": written(models) or NONE, "training (min)": NONE if minutes is None else f"{minutes:.3g}"}


def _unit_section(comparison: ClassifierComparison, unit: Unit, written: Writing) -> Section:
    name, share = comparison.majority(unit)
    always = f"Always answering {written(name)}: accuracy {share:.3f}, balanced {1 / _present(comparison, unit):.3f}."
    title = f"{UNIT_TITLES[unit].capitalize()}, n = {comparison.cases(unit)}"
    return Section(title, _table(comparison, unit, written), [always])


def meaning(comparison: ClassifierComparison, written: Writing = escaped) -> list[str]:
    """What one must know to read the figures, a line each."""
    images, subjects = comparison.images, comparison.subjects
    over = f"{images} test images" + (f" of {subjects} subjects" if subjects != images else "")
    several = any(len(method.runs) > 1 for method in comparison.methods)
    tests = {figure.test for figure in comparison.figures.values()}
    two = len(comparison.classes) == 2
    area = f"of {written(comparison.classes[1])}" if two else "the mean of one class against the rest"
    lines = [
        f"On {over}; a figure is the mean of those of a method's runs, never that of their mean probabilities.",
        f"Differences are paired, method − {written(comparison.reference)}; intervals are over subjects; p: bootstrap.",
        f"Log loss and ECE are better lower, all else higher; the AUC is {'that ' if two else ''}{area}.",
    ]
    if "subject" in comparison.units:
        lines.append(f"By subject: {POOLED[comparison.pool]} of a subject's images, in each run.")
    if "delong" in tests:
        lines.append(f"p of the difference in AUC {_delong_unit(comparison)} is DeLong's.")
    if any(figure.mcnemar is not None for figure in comparison.figures.values()):
        shares = " (of the shares of runs that are right, exchanged at random)" if several else ""
        independent = "; several of a subject are not, so by image trust the bootstrap" if subjects != images else ""
        lines.append(f"McNemar{shares}: test of the accuracies as if cases were independent{independent}.")
    if any(tests):
        others = len(comparison.methods) - 1
        lines.append(f"p (Holm) is corrected over all methods but the reference ({others}), of each figure apart.")
    lines.append(
        "The ECE of few cases is too high, by another amount for each method: in brackets what its probabilities would "
        "have by chance, were each right as often as it says; it has neither interval nor p."
    )
    for unit in comparison.units:
        figures = [figure for figure in comparison.figures.values() if figure.unit == unit]
        own = used([(FIGURE_TITLES[figure.metric], figure.ci95_method) for figure in figures if figure.metric != "ece"])
        lines.append(f"95 % intervals {UNIT_TITLES[unit]}: {own}.")
        pairs = [(FIGURE_TITLES[f.metric], f.difference_method) for f in figures if f.difference_method]
        differences = used([(title, method) for title, method in pairs if title != FIGURE_TITLES["ece"]])
        lines.append(f"Those of differences {UNIT_TITLES[unit]}: {differences}.")
    return lines


def _delong_unit(comparison: ClassifierComparison) -> str:
    units = dict.fromkeys(figure.unit for figure in comparison.figures.values() if figure.test == "delong")
    return " and ".join(UNIT_TITLES[unit] for unit in units)


def _present(comparison: ClassifierComparison, unit: Unit) -> int:
    """Classes that the test part has: one over it is the balanced accuracy of a single answer."""
    return len(set(comparison.levels[comparison.reference, unit][0].truth.tolist()))


def _table(comparison: ClassifierComparison, unit: Unit, written: Writing) -> Table:
    rows = []
    for metric in COMPARED:
        for number, method in enumerate(comparison.methods):
            name = reference_named(method.name, comparison.reference, written)
            title = "" if number else FIGURE_TITLES[metric]
            rows.append([title, name, *_cells(comparison.figures[method.name, unit, metric])])
    return Table(HEAD, rows).without_empty(first=3)


def _cells(figure: ClassifierFigure) -> list[str]:
    return [
        NONE if figure.value is None else f"{figure.value:.3f}{_by_chance(figure)}",
        NONE if figure.ci95 is None else f"[{figure.ci95[0]:.3f}, {figure.ci95[1]:.3f}]",
        NONE if figure.run_sd is None else f"{figure.run_sd:.3f}",
        signed(figure.difference, 3),
        signed_interval(figure.difference_ci95, 3),
        *(p_text(p) for p in (figure.p, figure.p_holm, figure.mcnemar, figure.mcnemar_holm)),
    ]


def _by_chance(figure: ClassifierFigure) -> str:
    return "" if figure.calibrated is None else f" ({figure.calibrated:.3f})"


# ---------------------------------------------------------------- CSV and JSON


def classifier_comparison_csv(comparison: ClassifierComparison) -> str:
    """A row a unit, metric and method, in full precision, below the notes; an empty cell is not known."""
    minutes = {method.name: method.facts.training_minutes for method in comparison.methods}
    rows = (
        {
            **with_ends(figure),
            "reference": comparison.reference,
            "cases": comparison.cases(figure.unit),
            "subjects": comparison.subjects,
            "majority_share": comparison.majority(figure.unit)[1],
            "training_minutes": minutes[figure.method],
        }
        for figure in comparison.figures.values()
    )
    return note_lines((*comparison.run_notes, *comparison.notes)) + csv_text(COLUMNS, rows)


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
        "meaning": meaning(comparison),
        "methods": [_method(method) for method in comparison.methods],
        "figures": [asdict(figure) for figure in comparison.figures.values()],
    }


def _method(method: ClassifierMethod) -> dict[str, Any]:
    known = ("source", "seed", "budget", "training_minutes", "device")
    return {
        "name": method.name,
        "training_minutes": method.facts.training_minutes,
        "runs": [
            run_data(run.facts, *known, cases="training_images", model=run.model) | {"notes": list(run.notes)}
            for run in method.runs
        ],
    }

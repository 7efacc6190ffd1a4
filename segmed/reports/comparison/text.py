"""A comparison of methods -> comparison.md, comparison.csv, comparison.json and its page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from segmed.evaluate.comparison import Comparison, Figure
from segmed.evaluate.results import Method
from segmed.files import csv_text
from segmed.labels import MEAN
from segmed.metrics.mask_metrics import metric_named
from segmed.metrics.statistics import interval_method
from segmed.reports.comparison.document import (
    Document,
    Section,
    Table,
    Writing,
    against_text,
    families_text,
    methods_section,
    p_text,
    reference_named,
    run_data,
    short_number,
    signed,
    signed_interval,
    with_ends,
    write_comparison_files,
)
from segmed.reports.comparison.figures import comparison_figure
from segmed.reports.comparison.volume_tables import agreement_sections, write_agreements
from segmed.reports.segmentation.tables import NONE, digits, escaped, interval, mean_sd

COLUMNS = (
    "label", "kind", "metric", "method", "reference", "mean", "sd", "ci95_low", "ci95_high", "ci95_method", "median",
    "n", "seeds", "seed_sd", "missed", "chances", "against", "difference", "difference_low", "difference_high",
    "difference_method", "subjects", "p", "p_holm", "family", "tests", "no_p", "training_minutes", "inference_seconds",
    "cleaning", "learned_in",
)  # fmt: skip
MOST_KEYS = 4  # methods above all
COSTS = ("training_minutes", "inference_seconds")
HOW = ("cleaning", "learned_in")


def write_comparison(comparison: Comparison, folder: Path, *, title: str, suffix: str = "") -> str:
    """Write comparison.csv, comparison.md, comparison.json, comparison.png, agreement.csv and report.html.

    Args:
        comparison: what is shown.
        folder: made where it does not exist; files of an earlier comparison are replaced.
        title: of the tables and the figure.
        suffix: of the files' names.

    Returns:
        The text of comparison.md.

    Raises:
        OSError: the folder can't be written.
    """
    write_agreements(comparison, folder / f"agreement{suffix}.csv")
    return write_comparison_files(
        partial(comparison_document, comparison, title=title),
        folder,
        table=comparison_csv(comparison),
        data=_as_data(comparison, title),
        figure=comparison_figure(comparison, metric=comparison.metrics[0], title=title),
        suffix=suffix,
    )


# ---------------------------------------------------------------- text


def comparison_document(comparison: Comparison, *, title: str, written: Writing = escaped) -> Document:
    """The methods and what they cost, then a table a metric.

    Args:
        comparison: what is shown.
        title: above it.
        written: how names are.
    """
    methods = [
        (
            reference_named(method.name, comparison.reference, written),
            method,
            {
                "training (min)": short_number(method.training_minutes),
                "inference (s a case)": short_number(method.inference_seconds),
                "pieces dropped": written(method.cleaning or NONE),
                "learned in": written(method.learned_in or NONE),
            },
        )
        for method in comparison.methods
    ]
    sections = [methods_section(methods, training="training cases", written=written)]
    for metric in comparison.metrics:
        row = metric_named(metric)
        better = f", {row.better} is better" if row.better else ""
        sections.append(Section(f"{row.title}{better}", _metric_table(comparison, metric, written)))
    sections += agreement_sections(comparison, written)
    return Document(
        written(title),
        sections,
        meaning=meaning(comparison, written),
        notes=[written(note) for note in comparison.notes],
        key=_key(comparison, written),
    )


def _key(comparison: Comparison, written: Writing) -> list[tuple[str, str, str]]:
    """The first metric of the last label, or of the mean of labels, of the first methods, and how many cases."""
    metric, label = comparison.metrics[0], comparison.labels[-1]
    figures = [(method.name, comparison.figures[method.name, label, metric]) for method in comparison.methods]
    title = metric_named(metric).title
    shown = [
        (mean_sd(vars(figure), metric), "", f"{written(name)}: {title}, {written(label)}")
        for name, figure in figures[:MOST_KEYS]
        if figure.n
    ]
    return [*shown, (str(len(comparison.cases)), "", "test cases")]


def meaning(comparison: Comparison, written: Writing = escaped) -> list[str]:
    """What one must know to read the figures, a line each."""
    subjects, cases = len(set(comparison.subjects.values())), len(comparison.cases)
    over = f"{cases} test cases" + (f" of {subjects} subjects" if subjects != cases else "")
    pairs = "cases" if subjects == cases else "subjects (means of their cases)"
    mean = f" and the {MEAN}" if MEAN in comparison.labels else ""
    against = written(against_text(comparison))
    lines = [
        f"Mean ± SD over {over}, each with its mean over the runs of a method.",
        f"95 % intervals of means and differences over subjects: {interval_method(subjects)}.",
        f"Differences are paired, method − {against}; p: Wilcoxon's signed-rank test on {pairs}.",
    ]
    if any(figure.p is not None for figure in comparison.figures.values()):
        lines.append(f"p (Holm) is corrected within a family of tests, in each metric (its methods × labels{mean}).")
    lines += families_text(comparison, written)
    if any(counts.any() for counts in comparison.misses.values()):
        distance = {"diagonal": " and the image's diagonal as distance", "skip": " and no distance"}
        policy = distance.get(comparison.missed_policy or "", "")
        lines.append(f"A missed or invented structure counts Dice 0{policy}; misses are counted over all runs.")
    regions = [name for name, kind in comparison.kinds.items() if kind == "region"]
    if regions and "label" in comparison.kinds.values() and MEAN in comparison.labels:
        lines.append(f"The {MEAN} leaves out what overlaps them: {written(', '.join(regions))}.")
    if "dice" in comparison.metrics and "hd_mm" not in comparison.metrics:
        lines.append("No distances and volumes: they are not known for all methods.")
    return lines


def _metric_table(comparison: Comparison, metric: str, written: Writing) -> Table:
    head = ["label", "method", "mean ± SD", "95 % interval", "SD of runs", "missed"]
    head += ["difference", "its 95 % interval", "p", "p (Holm)"]
    rows = []
    for label in comparison.labels:
        known = [method for method in comparison.methods if comparison.figures[method.name, label, metric].n]
        for number, method in enumerate(known):
            figure = comparison.figures[method.name, label, metric]
            name = reference_named(method.name, comparison.reference, written)
            rows.append(["" if number else written(label), name, *_cells(figure, len(comparison.cases))])
    return Table(head, rows).without_empty(first=4)


def _cells(figure: Figure, cases: int) -> list[str]:
    entry, decimals = vars(figure), digits(vars(figure), figure.metric) if figure.mean is not None else 3
    fewer = f" (n = {figure.n})" if figure.n != cases else ""
    return [
        mean_sd(entry, figure.metric) + fewer,
        interval(entry, figure.metric) or NONE,
        NONE if figure.seed_sd is None else f"{figure.seed_sd:.{decimals}f}",
        f"{figure.missed} of {figure.chances}",
        signed(figure.difference, decimals),
        signed_interval(figure.difference_ci95, decimals),
        p_text(figure.p),
        p_text(figure.p_holm),
    ]


# ---------------------------------------------------------------- CSV and JSON


def comparison_csv(comparison: Comparison) -> str:
    """A row a label, metric and method, in full precision; an empty cell is not known."""
    methods = {method.name: method for method in comparison.methods}
    rows = (
        {
            **with_ends(figure),
            "kind": comparison.kinds[figure.label],
            "reference": comparison.reference,
            **{cost: getattr(methods[figure.method], cost) for cost in (*COSTS, *HOW)},
        }
        for figure in comparison.figures.values()
    )
    return csv_text(COLUMNS, rows)


def _as_data(comparison: Comparison, title: str) -> dict[str, Any]:
    return {
        "title": title,
        "reference": comparison.reference,
        "cases": len(comparison.cases),
        "subjects": len(set(comparison.subjects.values())),
        "missed": comparison.missed_policy,
        "labels": dict(comparison.kinds),
        "families": [vars(family) for family in comparison.families],
        "meaning": meaning(comparison),
        "notes": list(comparison.notes),
        "methods": [_method(method) for method in comparison.methods],
        "agreements": [line.data() for line in comparison.agreements],
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
    known = ("source", "seed", "budget", *COSTS, *HOW, "device")
    runs = [run_data(result, *known, cases="training_cases") for result in method.results]
    return {"name": method.name, **{cost: getattr(method, cost) for cost in (*COSTS, *HOW)}, "runs": runs}

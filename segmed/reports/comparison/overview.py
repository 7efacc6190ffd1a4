"""A comparison in one table, a line a method; and how the volumes of each method agree with the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.evaluate.comparison import Comparison, Figure, volumes_of
from segmed.evaluate.results import Method
from segmed.files import atomic_write_text, csv_text, remove
from segmed.metrics.mask_metrics import metric_named
from segmed.reports.comparison.document import (
    Document,
    Section,
    Table,
    Writing,
    against_text,
    families_text,
    markdown,
    p_text,
    signed,
    signed_interval,
    with_ends,
)
from segmed.reports.drawing.distributions import bland_altman
from segmed.reports.drawing.slices import save_figure
from segmed.reports.segmentation.tables import NONE, digits, escaped, mean_sd

PARTS = (
    "mean", "sd", "ci95_low", "ci95_high", "ci95_method", "difference", "difference_low", "difference_high",
    "difference_method", "p", "p_holm",
)  # fmt: skip


def write_overview(comparison: Comparison, folder: Path, *, title: str, suffix: str = "") -> str:
    """Write overview.md and overview.csv.

    Args:
        comparison: what is shown.
        folder: made where it does not exist.
        title: above the tables.
        suffix: of the files' names.

    Returns:
        The text of overview.md.

    Raises:
        OSError: the folder can't be written.
    """
    text = markdown(overview_document(comparison, title=title))
    atomic_write_text(folder / f"overview{suffix}.md", text)
    atomic_write_text(folder / f"overview{suffix}.csv", overview_csv(comparison))
    return text


def overview_document(comparison: Comparison, *, title: str, written: Writing = escaped) -> Document:
    """A table a label: mean ± SD of each metric, difference and test of the first, seconds, misses; a line a method.

    Args:
        comparison: what is shown.
        title: above the tables.
        written: how names are.
    """
    first = comparison.metrics[0]
    known = [
        label
        for label in comparison.labels
        if any(comparison.figures[method.name, label, first].n for method in comparison.methods)
    ]
    sections = [Section(written(label), _table(comparison, label, written)) for label in known]
    methods = dict.fromkeys(figure.ci95_method for figure in comparison.figures.values() if figure.n)
    intervals = f"95 % intervals over subjects: {', '.join(methods)}."
    return Document(written(title), sections, meaning=[intervals, *families_text(comparison, written)])


def _table(comparison: Comparison, label: str, written: Writing) -> Table:
    titles = [metric_named(metric).short_title for metric in comparison.metrics]
    head = ["method", *titles, f"{titles[0]} − {written(against_text(comparison))}"]
    rows = []
    for method in comparison.methods:
        figures = [comparison.figures[method.name, label, metric] for metric in comparison.metrics]
        seconds = NONE if method.inference_seconds is None else f"{method.inference_seconds:.3g}"
        rows.append([
            written(method.name), *(mean_sd(vars(figure), figure.metric) for figure in figures),
            *_against(figures[0]), seconds, f"{figures[0].missed} of {figures[0].chances}",
        ])  # fmt: skip
    return Table([*head, "95 % interval", "p", "p (Holm)", "s a case", "missed"], rows)


def _against(figure: Figure) -> list[str]:
    if figure.difference is None:
        return [NONE] * 4
    decimals = digits(vars(figure), figure.metric)
    return [
        signed(figure.difference, decimals), signed_interval(figure.difference_ci95, decimals),
        p_text(figure.p), p_text(figure.p_holm),
    ]  # fmt: skip


def overview_csv(comparison: Comparison) -> str:
    """A row a label and method, a column a figure, in full precision; an empty cell is not known."""
    columns = [
        "label",
        "method",
        "reference",
        "against",
        "family",
        "tests",
        "no_p",
        "cases",
        "missed",
        "seconds_a_case",
        "training_minutes",
        "cleaning",
        "learned_in",
    ]
    columns += [f"{metric}_{part}" for metric in comparison.metrics for part in PARTS]
    rows = []
    for label in comparison.labels:
        for method in comparison.methods:
            figures = [comparison.figures[method.name, label, metric] for metric in comparison.metrics]
            row = {
                "label": label,
                "method": method.name,
                "reference": comparison.reference,
                **{part: getattr(figures[0], part) for part in ("against", "family", "tests", "no_p")},
                "cases": len(comparison.cases),
                "missed": figures[0].missed,
                "seconds_a_case": method.inference_seconds,
                "training_minutes": method.training_minutes,
                "cleaning": method.cleaning,
                "learned_in": method.learned_in,
            }
            for figure in figures:
                known = with_ends(figure)
                row |= {f"{figure.metric}_{part}": known[part] for part in PARTS}
            rows.append(row)
    return csv_text(columns, rows)


def write_agreement(methods: Sequence[Method], label: str, path: Path, *, title: str, truth: str | None = None) -> bool:
    """Bland-Altman plots of a label's volume, a panel a method; a case counts once for each run of a method.

    Args:
        methods: that are compared.
        label: whose volume it is.
        path: of the figure; one of an earlier comparison is replaced, or removed where there are no volumes.
        title: above the figure.
        truth: column of the volume to compare with; None: that of the reference's label map.

    Returns:
        Whether there are volumes.

    Raises:
        OSError: it can't be written.
    """
    rows = volumes_of(methods, label, truth=truth)
    remove(path)
    if rows:
        subjects = {case: name for method in methods for one in method.results for case, name in one.subjects.items()}
        save_figure(bland_altman(rows, title=title, subjects=subjects), path, dpi=150)
    return bool(rows)

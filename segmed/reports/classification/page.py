"""The folder of a tested classifier -> report.html: one page that holds all it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmed.errors import RunError
from segmed.reports.classification.figures import learning_curves
from segmed.reports.classification.text import UNIT_TITLES, class_table, meaning, number, overall_rows, threshold_rows
from segmed.reports.drawing.slices import save_figure
from segmed.reports.rendering import pictures_in, read_json, run_files, write_page
from segmed.runs import read_history

UNIT_NAMES = {"image": "images", "subject": "subjects"}
CAPTIONS = {
    "confusion": "Counts, and shares of each true class; the answer is the most probable class.",
    "curves": "ROC and precision-recall curves on the test part; areas with 95 % intervals over subjects.",
    "reliability": "How often answers are right over their probability: on the diagonal a probability is a frequency. "
    "Red: the errors whose mean is the ECE.",
    "gallery": "Misclassified test images with the probabilities of truth and answer.",
    "maps": "Grad-CAM of the answer (scaled to its largest value), and how far the answer's probability falls where "
    "the image is hidden. Maps show what the model used, not where a disease is.",
    "learning_curves": "Losses and figures of validation over the steps.",
}


def write_classification_page(folder: Path) -> Path:
    """Write report.html of a run of classification, or of the folder that `write_classification` filled.

    The page loads nothing: pictures lie within it. Where the folder has a history.csv, learning_curves.png is drawn.

    Args:
        folder: a run's folder with the figures in `test`, or the folder with the figures.

    Returns:
        The path of the page.

    Raises:
        RunError: there is no figures.json, or it is damaged.
    """
    results = folder if (folder / "figures.json").is_file() else folder / "test"
    summary = read_json(results / "figures.json")
    if summary is None:
        raise RunError(f"{folder} holds no figures.json: name the folder of a run that was tested")
    title, notes = str(summary["title"]), summary["notes"]

    curves = learning_curves(read_history(folder / "history.csv"), title=title, notes=notes)
    if curves is not None:
        save_figure(curves, results / "learning_curves.png")
    return write_page(
        folder / "report.html",
        "classification.html",
        title=title,
        notes=notes,
        key=_key(summary),
        run=run_files(folder, what="images"),
        sections=_sections(summary),
        pictures=pictures_in(results, CAPTIONS),
    )


def _key(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers one looks for first: value, unit, what it is."""
    unit = summary["units"][-1]
    entry = summary[unit]
    shown = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC"}
    figures = [
        (number(entry["overall"][name]), "", f"{text} {UNIT_TITLES[unit]}")
        for name, text in shown.items()
        if entry["overall"].get(name, {}).get("value") is not None
    ]
    majority = f"{entry['majority_share']:.3f}", "", f"accuracy of always answering {entry['majority_class']}"
    return [*figures, majority, (str(entry["cases"]), "", f"tested {UNIT_NAMES[unit]}")]


def _sections(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Title, table and meaning of each."""
    units = [UNIT_TITLES[unit] for unit in summary["units"]]
    sections = [_section("Results", ["", *units], overall_rows(summary), meaning(summary))]
    if summary["positive"] is not None:
        sections.append(_section(f"Threshold of {summary['positive']}", ["", *units], threshold_rows(summary)))
    tables = {unit: class_table(summary, unit, intervals=True) for unit in summary["units"]}
    return [*sections, *(_section(f"Classes {UNIT_TITLES[unit]}", *table) for unit, table in tables.items())]


def _section(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], meaning: Sequence[str] = ()
) -> dict[str, Any]:
    return {"title": title, "head": head, "rows": rows, "meaning": meaning}

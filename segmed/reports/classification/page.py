"""The folder of a tested classifier -> report.html: one page that holds all it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from segmed.errors import RunError
from segmed.files import atomic_write_text
from segmed.reports.classification.figures import learning_curves
from segmed.reports.classification.text import UNIT_TITLES, class_table, meaning, overall_rows, threshold_rows
from segmed.reports.drawing.slices import save_figure
from segmed.reports.segmentation.page import (
    facts,
    folded,
    page,
    picture,
    plan_table,
    preformatted,
    read_json,
    read_text,
    versions_table,
)
from segmed.runs import read_history

CAPTIONS = {
    "confusion": "Counts, and shares of each true class; the answer is the most probable class.",
    "curves": "ROC and precision-recall curves on the test part; areas with 95 % bootstrap intervals over subjects.",
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

    def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        return _table(head, rows, notes)

    curves = learning_curves(read_history(folder / "history.csv"), title=title, notes=notes)
    if curves is not None:
        save_figure(curves, results / "learning_curves.png")
    units = summary["units"]
    head = [UNIT_TITLES[unit] for unit in units]
    parts = [_notes(notes), f"<h1>{escape(title)}</h1>", facts(folder, what="images")]
    parts += ["<h2>Results</h2>", table(["", *head], overall_rows(summary)), _meaning(summary)]
    if summary["positive"] is not None:
        parts += [f"<h2>Threshold of {escape(summary['positive'])}</h2>", table(["", *head], threshold_rows(summary))]
    for unit in units:
        parts += [f"<h2>Classes {UNIT_TITLES[unit]}</h2>", table(*class_table(summary, unit, intervals=True))]
    parts += ["<h2>Figures</h2>", *(_picture(results / f"{name}.png", text) for name, text in CAPTIONS.items())]
    parts += [
        folded("Config", preformatted(read_text(folder / "config.yaml"))),
        folded("Plan", plan_table(folder)),
        folded("Environment", versions_table(folder)),
    ]
    atomic_write_text(folder / "report.html", page(title, parts))
    return folder / "report.html"


def _notes(notes: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{lines}</ul>' if lines else ""


def _meaning(summary: Mapping[str, Any]) -> str:
    return "".join(f'<p class="meaning">{escape(line)}</p>' for line in meaning(summary))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    above = f'<caption class="notes">{"<br>".join(map(escape, notes))}</caption>' if notes else ""
    first = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>{above}<tr>{first}</tr>{lines}</table></div>'


def _picture(path: Path, caption: str) -> str:
    return picture(path.read_bytes(), caption) if path.is_file() else ""

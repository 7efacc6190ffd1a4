"""A run's or an evaluation's folder -> report.html: one page that holds all it shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmed.errors import RunError
from segmed.metrics.mask_metrics import OF_CASES, metric_named, metrics_shown
from segmed.reports.drawing.curves import training_curves
from segmed.reports.rendering import Picture, pictures_in, read_json, run_files, write_page
from segmed.reports.segmentation.tables import NONE, cells, entries, interval, mean_sd, whole_meaning
from segmed.runs import read_history

CAPTIONS = {
    "box_plots": "Every case, with median, quartiles and 1.5 times their range.",
    "bland_altman": "Predicted against reference volumes: bias and limits of agreement (Bland and Altman 1986).",
    "montage": "The worst and the median case by mean Dice over labels; slices are numbered from 1, as in the "
    "file. Letters: the patient's right, left, anterior, posterior, superior, inferior.",
}


def write_report(folder: Path) -> Path:
    """Write report.html of a run, or of the folder that `write_evaluation` or `segmed evaluate` filled.

    The page loads nothing: pictures lie within it. What a folder does not have (a run that was not tested yet has no
    table) is left out.

    Args:
        folder: a run's folder, or an evaluation's.

    Returns:
        The path of the page.

    Raises:
        RunError: the folder holds neither a config nor a summary, or a file in it is damaged.
    """
    results = folder if (folder / "summary.json").is_file() else folder / "test"
    summary = read_json(results / "summary.json")
    run = run_files(folder)
    if summary is None and run["config"] is None:
        raise RunError(f"{folder} holds neither config.yaml nor summary.json: name a run's or an evaluation's folder")
    return write_page(
        folder / "report.html",
        "evaluation.html",
        title=str(summary["title"]) if summary and "title" in summary else folder.resolve().name,
        run=run,
        key=[] if summary is None else _key(summary),
        results=None if summary is None else _results(summary),
        learned=_results(summary["learned"]) if summary and "learned" in summary else None,
        pictures=[] if summary is None else _pictures(results),
        training=_training(folder),
        cases=None if summary is None else _cases(results / "cases.csv"),
    )


def _key(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers one looks for first: value, unit, what it is."""
    name, figures = entries(summary)[-1]
    dice = mean_sd(figures["dice"], "dice"), "", f"Dice, {name} {interval(figures['dice'], 'dice')}".strip()
    far = (mean_sd(figures["hd95_mm"], "hd95_mm"), "mm", f"HD95, {name}") if figures["hd95_mm"]["n"] else None
    missed = str(sum(own["dice"]["missed"] for own in summary["labels"].values())), "", "missed or invented structures"
    cases = str(summary["cases"]), "", "cases" if summary["cases"] != 1 else "case"
    return [dice, *([far] if far else []), missed, cases]


def _results(summary: Mapping[str, Any]) -> dict[str, Any]:
    lines = [(metric.title, cells(summary, metric.name)) for metric in OF_CASES.values()]
    return {
        "head": ["", *(name for name, _ in entries(summary))],
        "rows": [(title, line) for title, line in lines if line],
        "missed": [figures["dice"]["missed"] for _, figures in entries(summary)],
        "meaning": " ".join(whole_meaning(summary)),
        "notes": summary.get("notes", ()),
    }


def _pictures(folder: Path) -> list[Picture]:
    """The pictures of the folder, those with a known caption first."""
    others = {path.stem: path.stem for path in sorted(folder.glob("*.png")) if not path.name.startswith(".")}
    return pictures_in(folder, CAPTIONS | {stem: stem for stem in others if stem not in CAPTIONS})


def _training(folder: Path) -> list[Picture]:
    """Curves of the run, or of each network that it consists of."""
    pictures = []
    for history in sorted(folder.rglob("history.csv"), key=lambda path: (len(path.parts), path)):
        figure = training_curves(read_history(history))
        if figure is not None:
            drawn = io.BytesIO()
            figure.savefig(drawn, format="png", dpi=130)
            network = history.parent.relative_to(folder).as_posix()
            whose = "Losses" if network == "." else f"{network}: losses"
            pictures.append(Picture(drawn.getvalue(), f"{whose} and validation over the steps."))
    return pictures


def _cases(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    told = ("case", "part", "label") if any(row.get("part") for row in rows) else ("case", "label")
    metrics = [metric for metric in metrics_shown("cases") if any(row.get(metric) for row in rows)]
    return {
        "head": [*told, *(metric_named(metric).title for metric in metrics)],
        "rows": [
            ((row.get("missed") or "0") != "0", [row.get(column) or NONE for column in (*told, *metrics)])
            for row in rows
        ],
    }

"""A run's or an evaluation's folder -> report.html: one page that holds all it shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from segmed.errors import RunError
from segmed.labels import MEAN
from segmed.metrics.mask_metrics import OF_CASES, metric_named, metrics_shown
from segmed.reports.drawing.curves import training_curves
from segmed.reports.rendering import Picture, pictures_in, read_json, run_files
from segmed.reports.segmentation.tables import NONE, cells, entries, interval, mean_sd, whole_meaning
from segmed.reports.viewer.layers import Layers
from segmed.reports.viewer.viewer import Column, Viewer, ViewerCase, write_page_with_viewer
from segmed.runs import read_history

CAPTIONS = {
    "box_plots": "Every case, with median, quartiles and 1.5 times their range.",
    "bland_altman": "Predicted against reference volumes: bias and limits of agreement (Bland and Altman 1986).",
    "montage": "The worst and the median case by mean Dice over labels; slices are numbered from 1, as in the "
    "file. Letters: the patient's right, left, anterior, posterior, superior, inferior.",
}


WORST = {"higher": "low", "lower": "high", "nearer to 0": "far", None: "high"}


@dataclass(frozen=True)
class Look:
    """Where the volumes of cases are, for the page's viewer.

    Attributes:
        labels: their names, in the order of their indices.
        load: name of a case -> its layers.
    """

    labels: tuple[str, ...]
    load: Callable[[str], Layers]


def write_report(folder: Path, look: Look | None = None) -> Path:
    """Write report.html of a run, or of the folder that `write_evaluation` or `segmed evaluate` filled.

    The page loads nothing: pictures lie within it. What a folder does not have (a run that was not tested yet has no
    table) is left out.

    Args:
        folder: a run's folder, or an evaluation's.
        look: where the volumes of the scored cases are; None: the page has no viewer.

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
    rows = None if summary is None else _rows(results / "cases.csv")
    return write_page_with_viewer(
        folder / "report.html",
        "evaluation.html",
        _viewer(rows, look) if rows and look is not None else None,
        title=str(summary["title"]) if summary and "title" in summary else folder.resolve().name,
        run=run,
        key=[] if summary is None else _key(summary),
        results=None if summary is None else _results(summary),
        learned=_results(summary["learned"]) if summary and "learned" in summary else None,
        pictures=[] if summary is None else _pictures(results),
        training=_training(folder),
        cases=_cases(rows) if rows else None,
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


def _rows(path: Path) -> list[dict[str, str]] | None:
    """Of cases.csv."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _cases(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    told = ("part", "label") if any(row.get("part") for row in rows) else ("label",)
    metrics = [metric for metric in metrics_shown("cases") if any(row.get(metric) for row in rows)]
    return {
        "head": ["case", *told, *(metric_named(metric).title for metric in metrics)],
        "rows": [
            {
                "case": row["case"],
                "label": row["label"],
                "missed": (row.get("missed") or "0") != "0",
                "cells": [row.get(column) or NONE for column in (*told, *metrics)],
            }
            for row in rows
        ],
    }


def _viewer(rows: Sequence[Mapping[str, str]], look: Look) -> Viewer:
    """The cases with every figure that they have, of each structure and of the mean over labels."""
    metrics = [name for name in OF_CASES if any(row.get(name) for row in rows)]
    metrics.sort(key=lambda name: metric_named(name).rank)
    structures = list(dict.fromkeys(row["label"] for row in rows))
    averaged = {row["label"] for row in rows if row.get("kind", "label") == "label"}
    of_case: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        of_case.setdefault(row["case"], []).append(row)
    several = len(averaged) > 1
    cases = []
    for name, own in of_case.items():
        values = {row["label"]: [_number(row.get(metric)) for metric in metrics] for row in own}
        if several:
            values[MEAN] = [
                _mean([_number(row.get(metric)) for row in own if row["label"] in averaged]) for metric in metrics
            ]
        cases.append(ViewerCase(name, values, _remarks(own)))
    return Viewer(
        labels=look.labels,
        load=look.load,
        cases=tuple(cases),
        columns=tuple(Column(metric_named(name).title, WORST[metric_named(name).better]) for name in metrics),
        structures=tuple([MEAN, *structures] if several else structures),
        elsewhere="the folders of the predictions and the references",
    )


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _remarks(rows: Sequence[Mapping[str, str]]) -> str:
    """What there is to say of a case."""
    missed = [row["label"] for row in rows if (row.get("missed") or "0") != "0"]
    part = rows[0].get("part")
    return " ".join([
        *([f"Part of the run's split: {part}."] if part else []),
        *([f"Missed or invented: {', '.join(missed)}."] if missed else []),
    ])  # fmt: skip

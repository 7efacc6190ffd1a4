"""Label maps of many cases -> one row a case and label, their summary, and the files and table that show it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmed.config import EvaluateConfig
from segmed.files import atomic_write_text, remove, write_json
from segmed.labels import IGNORE, LabelSet
from segmed.metrics.segmentation import (
    METRICS,
    NEED_SPACING,
    image_diagonal_mm,
    measure,
    measure_absent,
    overlaps,
)
from segmed.metrics.statistics import summarise
from segmed.metrics.surfaces import bounding_box
from segmed.plain import as_cell
from segmed.reports.distributions import bland_altman, box_plots
from segmed.reports.figures import CaseVolumes, montage, save_figure
from segmed.reports.tables import markdown, table_text

__all__ = ["absent_case", "evaluate_case", "ranked_cases", "summarise_cases", "table_text", "write_evaluation"]

Row = dict[str, Any]  # case, label, kind ("label" or "region"), the metrics of `measure`, missed

COLUMNS = ("case", "subject", "label", "kind", *METRICS, "missed")


# ---------------------------------------------------------------- one case


def evaluate_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    labels: LabelSet,
    *,
    case: str,
    spacing_mm: Sequence[float],
    config: EvaluateConfig,
    spacing_known: bool = True,
) -> list[Row]:
    """Metrics of every label and region of one case.

    Args:
        prediction, reference: (X, Y, Z) label indices on one grid; where the reference is IGNORE neither counts.
        labels: their names, and regions to score too.
        case: its id.
        spacing_mm: size of a voxel along X, Y and Z.
        config: tolerance and policy for misses.
        spacing_known: False: what needs a true spacing is None.

    Returns:
        A row a label, then a row a region: case, label, kind, the metrics of `measure`, missed.

    Raises:
        ValueError: prediction and reference of different shapes.
    """
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    if prediction.shape != reference.shape:
        raise ValueError(
            f"prediction {prediction.shape} and reference {reference.shape} of case {case} differ in shape: "
            "bring the prediction onto the reference's grid first"
        )
    diagonal_mm = image_diagonal_mm(reference.shape, spacing_mm)
    prediction, reference = _cut_together(prediction, reference)
    found, true = labels.masks(prediction), labels.masks(reference)

    def metrics(name: str) -> dict[str, float]:
        if not spacing_known:
            return overlaps(found[name], true[name])
        return measure(
            found[name],
            true[name],
            spacing_mm=spacing_mm,
            tolerance_mm=config.surface_dice_tolerance_mm,
            missed=config.missed,
            diagonal_mm=diagonal_mm,
        )

    return [_row(case, name, labels, metrics(name)) for name in true]


def absent_case(
    reference: np.ndarray,
    labels: LabelSet,
    *,
    case: str,
    spacing_mm: Sequence[float],
    config: EvaluateConfig,
    spacing_known: bool = True,
) -> list[Row]:
    """The rows of a case without a prediction: every label and region is missed.

    Args:
        reference: (X, Y, Z) label indices.
        labels, case, spacing_mm, config, spacing_known: as in `evaluate_case`.
    """
    rows = []
    for name, mask in labels.masks(np.asarray(reference)).items():
        metrics = measure_absent(mask, spacing_mm=spacing_mm, missed=config.missed)
        if not spacing_known:
            metrics = {key: value for key, value in metrics.items() if key not in NEED_SPACING}
        rows.append(_row(case, name, labels, metrics))
    return rows


def _row(case: str, name: str, labels: LabelSet, metrics: Mapping[str, float]) -> Row:
    kind = "region" if name in labels.regions else "label"
    values = {metric: metrics.get(metric) for metric in METRICS}
    return {"case": case, "label": name, "kind": kind, **values, "missed": metrics["missed"]}


def _cut_together(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, cut to the box around what either holds, in one memory order, without what is to be ignored."""
    boxes = [box for box in (bounding_box(prediction != 0), bounding_box(reference != 0)) if box[0].stop]
    if not boxes:
        boxes = [tuple(slice(0, 1) for _ in reference.shape)]
    hull = tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes, strict=True))
    prediction, reference = np.array(prediction[hull], order="C"), np.array(reference[hull], order="C")
    ignored = reference == IGNORE
    prediction[ignored] = 0
    reference[ignored] = 0
    return prediction, reference


# ---------------------------------------------------------------- many cases


def summarise_cases(
    rows: Sequence[Row], config: EvaluateConfig, *, subjects: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Mean, SD, bootstrap interval, number of cases and of misses, a label and metric.

    Args:
        rows: of `evaluate_case`, any number of cases.
        config: number of resamplings; policy and tolerance, which the summary repeats.
        subjects: case -> subject. Intervals then draw whole subjects. None: every case is its own subject.

    Returns:
        labels -> name -> metric -> mean, sd, ci95, n, missed, median; `mean`: the same of each case's mean over its
        labels, without regions (with regions where there is nothing else); cases and subjects: how many;
        spacing_known, missed (the policy) and surface_dice_tolerance_mm: what the figures mean.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("no case was evaluated: there is nothing to summarise")
    cases = list(dict.fromkeys(row["case"] for row in rows))
    subject = {case: (subjects or {}).get(case, case) for case in cases}
    names = list(dict.fromkeys(row["label"] for row in rows))
    regions = list(dict.fromkeys(row["label"] for row in rows if row["kind"] == "region"))
    averaged = [row for row in rows if row["kind"] == "label"] or list(rows)
    return {
        "cases": len(cases),
        "subjects": len(set(subject.values())),
        "spacing_known": any(row["avd_ml"] is not None for row in rows),
        "missed": config.missed,
        "surface_dice_tolerance_mm": config.surface_dice_tolerance_mm,
        "regions": regions,
        "labels": {name: _summary([row for row in rows if row["label"] == name], subject, config) for name in names},
        "mean": _summary(_means_over_labels(averaged, cases), subject, config),
    }


def _summary(rows: Sequence[Row], subject: Mapping[str, str], config: EvaluateConfig) -> dict[str, Any]:
    missed = int(sum(row["missed"] for row in rows))
    groups = [subject[row["case"]] for row in rows]
    return {
        metric: summarise([_number(row[metric]) for row in rows], missed, resamples=config.bootstrap, groups=groups)
        for metric in METRICS
    }


def _means_over_labels(rows: Sequence[Row], cases: Sequence[str]) -> list[Row]:
    of_case: dict[str, list[Row]] = {case: [] for case in cases}
    for row in rows:
        of_case[row["case"]].append(row)
    means = []
    for case, own in of_case.items():
        values = {metric: _mean([_number(row[metric]) for row in own]) for metric in METRICS}
        means.append({"case": case, **values, "missed": sum(row["missed"] for row in own)})
    return means


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def ranked_cases(rows: Sequence[Row]) -> list[tuple[str, float]]:
    """Cases with their mean Dice over labels, worst first."""
    averaged = [row for row in rows if row["kind"] == "label"] or list(rows)
    means = _means_over_labels(averaged, list(dict.fromkeys(row["case"] for row in averaged)))
    return sorted(((row["case"], row["dice"]) for row in means), key=lambda entry: (entry[1], entry[0]))


# ---------------------------------------------------------------- files


def write_evaluation(
    rows: Sequence[Row],
    folder: Path,
    *,
    title: str,
    config: EvaluateConfig,
    subjects: Mapping[str, str] | None = None,
    load: Callable[[str], CaseVolumes] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write cases.csv, summary.json, summary.md and the figures.

    Args:
        rows: of `evaluate_case`, any number of cases.
        folder: made where it does not exist.
        title: of the tables and figures.
        config: the `evaluate` section.
        subjects: case -> subject, for intervals that draw whole subjects.
        load: gives the volumes of a case, for the montage of the worst and the median one; None: no montage.
        notes: sentences on what is not in the figures (cases that failed), repeated in the summaries.

    Returns:
        The summary of `summarise_cases`, with title and notes.

    Raises:
        ValueError: no rows.
        OSError: the folder can't be written.
    """
    summary = {"title": title, **summarise_cases(rows, config, subjects=subjects), "notes": list(notes)}
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "cases.csv", _csv(rows, subjects))
    write_json(folder / "summary.json", summary)
    atomic_write_text(folder / "summary.md", markdown(summary))
    for name in ("bland_altman", "montage"):  # of an earlier evaluation, if this one has none
        remove(folder / f"{name}.png")
    save_figure(box_plots(rows, title=title), folder / "box_plots.png")
    if summary["spacing_known"]:
        save_figure(bland_altman(rows, title=title), folder / "bland_altman.png")
    if load is not None:
        save_figure(montage(_worst_and_median(rows, load), title=title), folder / "montage.png")
    return summary


def _csv(rows: Sequence[Row], subjects: Mapping[str, str] | None) -> str:
    table = io.StringIO()
    columns = [column for column in COLUMNS if column != "subject" or subjects is not None]
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = {column: row.get(column) for column in columns}
        if subjects is not None:
            values["subject"] = subjects.get(row["case"], row["case"])
        writer.writerow({column: _cell(value) for column, value in values.items()})
    return table.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return as_cell(value) if isinstance(value, str) else value
    return "" if math.isnan(value) else f"{value:.6g}"


def _worst_and_median(rows: Sequence[Row], load: Callable[[str], CaseVolumes]) -> list[tuple[str, CaseVolumes]]:
    """The volumes of two cases (of one, where there is but one), each with what it shows."""
    ranked = ranked_cases(rows)
    chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2]} if len(ranked) > 1 else {"only": ranked[0]}
    return [(f"{which} case: {case}, Dice {dice:.3f}", load(case)) for which, (case, dice) in chosen.items()]

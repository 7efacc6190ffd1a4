"""Label maps of cases -> one row a case and label, and the summary of all rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segmed.config import EvaluateConfig
from segmed.labels import IGNORE, LabelSet
from segmed.metrics.mask_metrics import (
    METRICS,
    OF_PROBABILITIES,
    image_diagonal_mm,
    measure,
    measure_absent,
    metric_named,
    overlaps,
)
from segmed.metrics.pixel_curves import PixelCounts
from segmed.metrics.statistics import summarise
from segmed.metrics.surfaces import bounding_box

Row = dict[str, Any]  # case, label, kind ("label" or "region"), the metrics of `measure`, missed

LEARNED = ("train", "validation")  # parts of a run's split that trained or selected it
NEVER_SEEN = "Cases that the run never saw"
SEEN = "Cases that trained or selected the run: no test"


def columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """Of cases.csv: the metrics of masks, and those of probabilities where a row has them."""
    return ("case", "subject", "label", "kind", *_metrics_in(rows), "missed")


def _metrics_in(rows: Sequence[Row]) -> tuple[str, ...]:
    return (*METRICS, *(name for name in OF_PROBABILITIES if any(row.get(name) is not None for row in rows)))


def evaluate_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    labels: LabelSet,
    *,
    case: str,
    spacing_mm: Sequence[float],
    config: EvaluateConfig,
    spacing_known: bool = True,
    pixels: Mapping[str, PixelCounts] | None = None,
) -> list[Row]:
    """Metrics of every label and region of one case.

    Args:
        prediction, reference: (X, Y, Z) label indices on one grid; where the reference is IGNORE neither counts.
        labels: their names, and regions to score too.
        case: its id.
        spacing_mm: size of a voxel along X, Y and Z.
        config: tolerance and policy for misses.
        spacing_known: False: what needs a true spacing is None.
        pixels: of `count_pixels`, where probabilities are known.

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
    predicted, true = labels.masks(prediction), labels.masks(reference)

    def metrics(name: str) -> dict[str, float]:
        if not spacing_known:
            return overlaps(predicted[name], true[name])
        return measure(
            predicted[name],
            true[name],
            spacing_mm=spacing_mm,
            tolerance_mm=config.surface_dice_tolerance_mm,
            missed=config.missed,
            diagonal_mm=diagonal_mm,
        )

    areas = {name: {"auc_roc": each.auc_roc, "auc_pr": each.auc_pr} for name, each in (pixels or {}).items()}
    return [_row(case, name, labels, {**metrics(name), **areas.get(name, {})}) for name in true]


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
            metrics = {
                key: value for key, value in metrics.items() if key == "missed" or not METRICS[key].needs_spacing
            }
        rows.append(_row(case, name, labels, metrics))
    return rows


def _row(case: str, name: str, labels: LabelSet, metrics: Mapping[str, float]) -> Row:
    kind = "region" if name in labels.regions else "label"
    values = {metric: metrics.get(metric) for metric in METRICS}
    values |= {metric: metrics[metric] for metric in OF_PROBABILITIES if metric in metrics}
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


def summarise_cases(
    rows: Sequence[Row], config: EvaluateConfig, *, subjects: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Mean, SD, interval, number of cases and of misses, a label and metric.

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
        name: summarise(
            [_number(row[name]) for row in rows],
            missed,
            resamples=config.bootstrap,
            groups=groups,
            bounds=metric.bounds,
        )
        for name, metric in ((name, metric_named(name)) for name in _metrics_in(rows))
    }


def _means_over_labels(rows: Sequence[Row], cases: Sequence[str]) -> list[Row]:
    of_case: dict[str, list[Row]] = {case: [] for case in cases}
    for row in rows:
        of_case[row["case"]].append(row)
    means = []
    for case, own in of_case.items():
        values = {metric: _mean([_number(row[metric]) for row in own]) for metric in _metrics_in(own)}
        means.append({"case": case, **values, "missed": sum(row["missed"] for row in own)})
    return means


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def split_by_part(rows: Sequence[Row], parts: Mapping[str, str]) -> tuple[list[Row], list[Row]]:
    """Rows of cases that a run never saw, and of those that trained or selected it.

    Args:
        rows: of `evaluate_case`.
        parts: case -> part of the run's split; a case that is not in it was never seen.
    """
    learned = [row for row in rows if parts.get(row["case"]) in LEARNED]
    return [row for row in rows if parts.get(row["case"]) not in LEARNED], learned


def ranked_cases(rows: Sequence[Row]) -> list[tuple[str, float]]:
    """Cases with their mean Dice over labels, worst first."""
    averaged = [row for row in rows if row["kind"] == "label"] or list(rows)
    means = _means_over_labels(averaged, list(dict.fromkeys(row["case"] for row in averaged)))
    return sorted(((row["case"], row["dice"]) for row in means), key=lambda entry: (entry[1], entry[0]))

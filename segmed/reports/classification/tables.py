"""Figures of a tested classifier -> its CSV tables: every figure, the confusion, and the points of the curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segmed.evaluate.answers import note_lines
from segmed.evaluate.decisions import Level
from segmed.files import atomic_write_text, csv_text

Row = tuple[Any, ...]
NO_INTERVAL = (None, None, None)  # of counts


def write_tables(summary: Mapping[str, Any], levels: Sequence[Level], folder: Path) -> None:
    """Write figures.csv, confusion.csv, roc.csv, precision_recall.csv and reliability.csv.

    Args:
        summary: of `summarise_classification`; its notes stand above every table.
        levels: what the summary counts.
        folder: exists.

    Raises:
        DiskError: the folder can't be written.
    """
    tables = {
        "figures": (("unit", "class", "figure", "value", "ci95_low", "ci95_high", "ci95_method"), _figures(summary)),
        "confusion": (("unit", "truth", "predicted", "count", "share_of_truth"), _confusion(summary)),
        "roc": (("unit", "class", "false_positive_rate", "sensitivity", "threshold"), _roc(summary, levels)),
        "precision_recall": (("unit", "class", "recall", "precision", "threshold"), _precision(summary, levels)),
        "reliability": (("unit", "probabilities", "low", "high", "cases", "confidence", "frequency"), _bins(levels)),
    }
    for name, (header, rows) in tables.items():
        text = csv_text(header, (dict(zip(header, row, strict=True)) for row in rows), digits=6)
        atomic_write_text(folder / f"{name}.csv", note_lines(summary["notes"]) + text)


def _figures(summary: Mapping[str, Any]) -> Iterator[Row]:
    """Long: a row a figure; what holds for all classes has no class."""
    for unit in summary["units"]:
        entry = summary[unit]
        for key in ("cases", "subjects", "majority_share"):
            yield (unit, "", key, entry[key], *NO_INTERVAL)
        for key, figure in entry["overall"].items():
            yield (unit, "", key, *_parts(figure))
        for when, figures in entry["calibration"].items():
            for key, figure in (figures or {}).items():
                if when == "after" or key not in entry["overall"]:
                    yield (unit, "", f"{key}_calibrated" if when == "after" else key, *_parts(figure))
        for name, own in entry["per_class"].items():
            for key, figure in own.items():
                yield (unit, name, key, *(_parts(figure) if isinstance(figure, Mapping) else (figure, *NO_INTERVAL)))
        for key, figure in (entry["threshold"] or {}).items():
            name = entry["threshold"]["positive"]
            if key == "value":
                yield (unit, name, "threshold", figure, *NO_INTERVAL)
            elif isinstance(figure, (int, Mapping)) and key != "chosen_on":
                values = _parts(figure) if isinstance(figure, Mapping) else (figure, *NO_INTERVAL)
                yield (unit, name, f"{key}_at_threshold", *values)


def _parts(figure: Mapping[str, Any]) -> Row:
    low, high = figure["ci95"] or (None, None)
    return figure["value"], low, high, figure["ci95_method"]


def _confusion(summary: Mapping[str, Any]) -> Iterator[Row]:
    for unit in summary["units"]:
        for true, row in zip(summary["classes"], summary[unit]["confusion"], strict=True):
            for predicted, count in zip(summary["classes"], row, strict=True):
                yield unit, true, predicted, count, count / sum(row) if sum(row) else math.nan


def _roc(summary: Mapping[str, Any], levels: Sequence[Level]) -> Iterator[Row]:
    for level in levels:
        for name, curve in level.roc(summary["classes"]).items():
            points = zip(curve.false_positive_rate, curve.sensitivity, curve.thresholds, strict=True)
            yield from ((level.unit, name, *map(float, point)) for point in points)


def _precision(summary: Mapping[str, Any], levels: Sequence[Level]) -> Iterator[Row]:
    for level in levels:
        for name, curve in level.precision_recall(summary["classes"]).items():
            thresholds = [*curve.thresholds, math.nan] if curve.recall.size else []  # the last point calls nothing
            points = zip(curve.recall, curve.precision, thresholds, strict=True)
            yield from ((level.unit, name, *map(float, point)) for point in points)


def _bins(levels: Sequence[Level]) -> Iterator[Row]:
    for level in levels:
        for name, bins in level.reliability().items():
            for one in bins:
                yield level.unit, name, one.low, one.high, one.cases, one.confidence, one.frequency

"""True classes and probabilities of many cases -> ROC and precision-recall curves of each class against the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from segmed.metrics.class_figures import Checked, areas_of, check, one_against_rest


@dataclass(frozen=True)
class RocCurve:
    """One class against the rest; empty, with an area of NaN, where one of the two has no case.

    Attributes:
        false_positive_rate, sensitivity, thresholds: (P,); the class is called where its probability >= threshold.
            The first threshold is infinite: nothing is called.
        auc: area under the curve.
        positives, negatives: how many cases.
    """

    false_positive_rate: np.ndarray
    sensitivity: np.ndarray
    thresholds: np.ndarray
    auc: float
    positives: int
    negatives: int


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """One class against the rest; empty, with an average precision of NaN, where one of the two has no case.

    Attributes:
        recall, precision: (P,); the last point is (0, 1) and has no threshold.
        thresholds: (P - 1,), ascending.
        average_precision: sum of the precisions, each weighted with the recall that it adds; no interpolation.
        positives, negatives: how many cases; their share is the precision of chance.
    """

    recall: np.ndarray
    precision: np.ndarray
    thresholds: np.ndarray
    average_precision: float
    positives: int
    negatives: int


def roc_curves(
    truth: Sequence[int] | np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, RocCurve]:
    """ROC curve of each class against the rest.

    Args:
        truth, probabilities, classes: as in `check`.

    Raises:
        MetricError: as in `check`.
    """
    curves = _against_rest(check(truth, probabilities, classes), roc_curve)
    return {
        name: RocCurve(rate, sensitivity, thresholds, areas[0], *counts)
        for name, (rate, sensitivity, thresholds), areas, counts in curves
    }


def precision_recall_curves(
    truth: Sequence[int] | np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, PrecisionRecallCurve]:
    """Precision-recall curve of each class against the rest.

    Args:
        truth, probabilities, classes: as in `check`.

    Raises:
        MetricError: as in `check`.
    """
    curves = _against_rest(check(truth, probabilities, classes), precision_recall_curve)
    return {
        name: PrecisionRecallCurve(recall, precision, thresholds, areas[1], *counts)
        for name, (precision, recall, thresholds), areas, counts in curves
    }


def _against_rest(
    checked: Checked, curve: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray], tuple[float, float], tuple[int, int]]]:
    """Of each class: name, curve (three empty arrays where it or the rest has no case), both areas, both counts."""
    empty = (np.empty(0), np.empty(0), np.empty(0))
    for number, name in enumerate(checked.classes):
        own, scores, positives, negatives = one_against_rest(checked, number)
        arrays = curve(own, scores) if positives and negatives else empty
        yield name, arrays, areas_of(checked, number), (positives, negatives)

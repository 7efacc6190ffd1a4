"""Validation cases and a named rule -> the threshold of the positive class, and what it does on other cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from segmed.errors import MetricError
from segmed.metrics.class_figures import Checked, check
from segmed.metrics.pooling import unit_numbers
from segmed.metrics.small_samples import Ends, none, share_or_percentiles, sums_of_subjects

Rule = Literal["best_accuracy", "youden", "sensitivity", "specificity"]

_ROUNDING = 1e-9  # 0.95 of 20 cases are 19, whatever floating point says


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it does on the cases that it was chosen on.

    Attributes:
        rule: "youden", or "sensitivity >= 0.95".
        threshold: a case is called positive where the probability of the positive class is at least this. 0 calls
            every case, anything above 1 none.
        sensitivity, specificity, accuracy: on the cases of the choice, so optimistic.
        cases: how many these were.
        positive: name of the positive class; the others are one class against it.
    """

    rule: str
    threshold: float
    sensitivity: float
    specificity: float
    accuracy: float
    cases: int
    positive: str


@dataclass(frozen=True)
class OperatingFigures:
    """What a threshold that was chosen elsewhere does; NaN where there is no case to count.

    Attributes:
        threshold, positive: of the operating point.
        sensitivity, specificity, accuracy, positive_predictive_value, negative_predictive_value: shares of cases.
        true_positives, false_positives, true_negatives, false_negatives: counts.
        cases: how many.
        ci95: of each of the five shares, low and high over subjects; NaN where there is none.
        ci95_method: of each, how it was found, or why there is none.
    """

    threshold: float
    positive: str
    sensitivity: float
    specificity: float
    accuracy: float
    positive_predictive_value: float
    negative_predictive_value: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    cases: int
    ci95: dict[str, tuple[float, float]]
    ci95_method: dict[str, str]


def choose_threshold(
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    positive: str,
    rule: Rule,
    least: float | None = None,
) -> OperatingPoint:
    """Choose a threshold on validation cases.

    Every way to cut the cases in two is tried; the threshold lies half-way between the two probabilities around the
    cut. Of cuts that the rule finds equal, the rules `best_accuracy`, `youden` and `sensitivity` take the lowest
    threshold (more sensitive) and `specificity` the highest (more specific). Two cuts are never equal in both, so the
    choice is unique.

    Args:
        truth, probabilities, classes: of the validation cases, as in `check`.
        positive: name of the positive class; the others are one class against it.
        rule: best_accuracy: most cases right. youden: largest sensitivity + specificity - 1. sensitivity: of the cuts
            with at least the sensitivity `least`, the one with the best specificity. specificity: the reverse.
        least: of the rules `sensitivity` and `specificity`, from 0 to 1.

    Raises:
        MetricError: as in `check`; no such class or rule, `least` missing, outside 0 to 1 or given for a rule
            that has none, validation without a case of the positive class or without another.

    Source: Youden 1950, Cancer 3:32, for the index.
    """
    checked = check(truth, probabilities, classes)
    own, scores = _positive(checked, positive)
    name = _rule_name(rule, least)
    positives, negatives = int(own.sum()), int((~own).sum())
    if not positives or not negatives:
        missing = f"case of class {positive}" if not positives else f"case of another class than {positive}"
        raise MetricError(f"no {missing} among {len(own)} validation cases: a threshold needs both")
    thresholds, true, false = _cuts(own, scores)
    right = true + negatives - false
    youden = true * negatives - false * positives  # in whole numbers, so that ties are ties
    best: tuple[np.ndarray, ...]
    if rule == "best_accuracy":
        best = (right, true)
    elif rule == "youden":
        best = (youden, true)
    elif rule == "sensitivity":
        best = (true >= _least(least) * positives - _ROUNDING, -false, true)
    else:
        best = (negatives - false >= _least(least) * negatives - _ROUNDING, true, -false)
    chosen = np.lexsort(best[::-1])[-1]
    return OperatingPoint(
        rule=name,
        threshold=float(thresholds[chosen]),
        sensitivity=float(true[chosen] / positives),
        specificity=float(1 - false[chosen] / negatives),
        accuracy=float(right[chosen] / len(own)),
        cases=len(own),
        positive=positive,
    )


def called_positive(point: OperatingPoint, probabilities: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Whether each case is called positive: (N,) bool.

    Args:
        point: the threshold.
        probabilities: (N, K), rows sum to one.
        classes: K names, the positive one among them.

    Raises:
        MetricError: as in `check`, or no such class.
    """
    given = np.asarray(probabilities)
    checked = check(np.zeros(len(given), dtype=np.intp), given, classes)
    return _positive(checked, point.positive)[1] >= point.threshold


def figures_at(
    point: OperatingPoint,
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    subjects: Sequence[str] | np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> OperatingFigures:
    """What a threshold does on test cases; it is taken as it is, whatever their labels.

    Args:
        point: chosen on validation.
        truth, probabilities, classes: of the test cases, as in `check`.
        subjects: (N,) str, drawn whole for the intervals; None: each case is its own.
        resamples, seed: of the bootstrap, as in `statistics.bootstrap_ci`.

    Raises:
        MetricError: as in `check`, or no such class.
    """
    checked = check(truth, probabilities, classes, subjects=subjects)
    own, scores = _positive(checked, point.positive)
    called = scores >= point.threshold
    units = np.arange(len(own)) if checked.subjects is None else checked.subjects
    parts = {
        "sensitivity": (called, own),
        "specificity": (~called, ~own),
        "accuracy": (called == own, np.ones_like(own)),
        "positive_predictive_value": (own, called),
        "negative_predictive_value": (~own, ~called),
    }
    shares = {name: float(what[among].mean()) if among.any() else float("nan") for name, (what, among) in parts.items()}
    ends = {name: _ends(what, among, units, resamples=resamples, seed=seed) for name, (what, among) in parts.items()}
    return OperatingFigures(
        threshold=point.threshold,
        positive=point.positive,
        **shares,
        true_positives=int(np.count_nonzero(called & own)),
        false_positives=int(np.count_nonzero(called & ~own)),
        true_negatives=int(np.count_nonzero(~called & ~own)),
        false_negatives=int(np.count_nonzero(~called & own)),
        cases=len(own),
        ci95={name: (one.low, one.high) for name, one in ends.items()},
        ci95_method={name: one.method for name, one in ends.items()},
    )


def _ends(what: np.ndarray, among: np.ndarray, units: np.ndarray, *, resamples: int, seed: int) -> Ends:
    """Interval of a share: as in `intervals`."""
    sums, counts = sums_of_subjects(what & among, among, unit_numbers(units))
    sums, counts = sums[counts > 0], counts[counts > 0]
    if not counts.size:
        return none("")
    draws = np.random.default_rng(seed).integers(0, len(sums), size=(resamples, len(sums)))
    return share_or_percentiles(sums[draws].sum(axis=1) / counts[draws].sum(axis=1), sums, counts)


def _positive(checked: Checked, positive: str) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool, whether a case is positive, and (N,) its probability to be."""
    if positive not in checked.classes:
        raise MetricError(f"positive class {positive} is none of {', '.join(checked.classes)}: name one")
    number = checked.classes.index(positive)
    return checked.truth == number, checked.probabilities[:, number]


def _rule_name(rule: str, least: float | None) -> str:
    if rule not in get_args(Rule):
        raise MetricError(f"threshold rule {rule!r}: choose from {', '.join(get_args(Rule))}")
    if rule in ("best_accuracy", "youden"):
        if least is not None:
            raise MetricError(f"threshold rule {rule} with a least of {least}: it has none, leave it out")
        return rule
    if least is None or not 0 <= least <= 1:
        raise MetricError(f"threshold rule {rule} with a least of {least}: give one from 0 to 1")
    return f"{rule} >= {least:g}"


def _least(least: float | None) -> float:
    return 0.0 if least is None else least


def _cuts(own: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, descending from one that calls nothing to 0, and the true and false positives of each."""
    levels, place = np.unique(scores, return_inverse=True)
    levels, place = levels[::-1], len(levels) - 1 - place
    between = (levels[1:] + levels[:-1]) / 2
    between = np.where(between > levels[1:], between, levels[:-1])  # neighbours in floating point have no middle
    thresholds = np.concatenate([[np.nextafter(max(1.0, levels[0]), 2.0)], between, [0.0]])
    true = np.bincount(place, weights=own, minlength=len(levels)).astype(np.int64)
    false = np.bincount(place, weights=~own, minlength=len(levels)).astype(np.int64)
    start = np.zeros(1, dtype=np.int64)
    return thresholds, np.concatenate([start, np.cumsum(true)]), np.concatenate([start, np.cumsum(false)])

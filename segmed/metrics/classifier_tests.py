"""Two classifiers on the same cases -> difference, interval and p: McNemar, DeLong, paired bootstrap by subject."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binomtest, chi2, norm, rankdata

from segmed.errors import MetricError
from segmed.metrics.class_figures import OVERALL, Checked, check_unnamed, positive_index
from segmed.metrics.pooling import unit_numbers
from segmed.metrics.resampling import Metric, WeightedFigures, drawn_weights, of_draws
from segmed.metrics.small_samples import Ends, percentiles, share_difference, sums_of_subjects
from segmed.metrics.statistics import FEWEST_DRAWN

FEW_DISCORDANT = 25  # below this many cases that only one has right, McNemar's test is exact

_DIGITS = 12  # of differences: equal figures that were added up in another order are to be equal


@dataclass(frozen=True)
class PairedDifference:
    """A figure of two classifiers on the same subjects.

    Attributes:
        metric: its name.
        value, reference: of the two on all cases.
        difference: value - reference.
        low, high: 95 % interval of the difference; NaN where there is none.
        method: how it was found, or why there is none.
        p: of the bootstrap, two-sided; NaN below 20 subjects, where it is too small as its interval is too short.
        subjects: how many were drawn from.
        draws: how many draws counted.
        undefined: how many were left out, since the figure did not exist in them.
    """

    metric: str
    value: float
    reference: float
    difference: float
    low: float
    high: float
    method: str
    p: float
    subjects: int
    draws: int
    undefined: int


@dataclass(frozen=True)
class McNemar:
    """Which of two classifiers has more cases right.

    Attributes:
        only_first, only_second: cases that only this one has right.
        method: exact (binomial) or chi2 (with continuity correction).
        statistic: chi-squared with one degree of freedom; NaN if exact.
        p: two-sided, as if all images were independent.
        by_subject: difference of the accuracies over subjects, whose p holds where subjects have several images; None
            where no subjects were given.
    """

    only_first: int
    only_second: int
    method: Literal["exact", "chi2"]
    statistic: float
    p: float
    by_subject: PairedDifference | None


@dataclass(frozen=True)
class DeLong:
    """Two correlated areas under the ROC curve.

    Attributes:
        auc, reference: the areas; NaN where no case is positive, or none negative.
        difference: auc - reference.
        standard_error: of the difference; NaN with fewer than two positive or negative cases.
        z, p: of the difference, two-sided; NaN where the standard error is NaN, or 0 without the difference being 0.
        low, high: 95 % interval of the difference, normal.
        positives, negatives: how many cases.
    """

    auc: float
    reference: float
    difference: float
    standard_error: float
    z: float
    p: float
    low: float
    high: float
    positives: int
    negatives: int


def mcnemar(
    truth: Sequence[int] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    reference: Sequence[int] | np.ndarray,
    *,
    subjects: Sequence[str] | np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> McNemar:
    """Whether two classifiers are wrong equally often, on the same cases.

    Args:
        truth: (N,) int.
        labels, reference: (N,) int, the answers of the two (argmax, or what a threshold calls).
        subjects: (N,) str, whose image each case is.
        resamples, seed: of the bootstrap by subject.

    Raises:
        MetricError: of different lengths, or no case.

    Source: McNemar 1947, doi 10.1007/BF02295996; Edwards 1948, doi 10.1007/BF02289261 (continuity).
    """
    true, own, other = (np.asarray(values) for values in (truth, labels, reference))
    if true.ndim != 1 or not true.size or own.shape != true.shape or other.shape != true.shape:
        raise MetricError(
            f"truth {true.shape}, answers {own.shape} and {other.shape}: give one of each a case, of the same cases"
        )
    first, second = own == true, other == true
    more, less = int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))
    by_subject = None
    if subjects is not None:
        right = np.stack([first, second]).astype(np.float64)
        means = [
            weights @ right.T / weights.sum(axis=1)[:, None] for weights in _draws(subjects, true, resamples, seed)
        ]
        draws = np.concatenate(means)
        values = (float(first.mean()), float(second.mean()))
        unit = unit_numbers(subjects)
        sums, counts = sums_of_subjects(first.astype(np.float64) - second, np.ones(len(true), dtype=bool), unit)
        ends = accuracy_difference(draws[:, 0] - draws[:, 1], sums, counts)
        by_subject = difference_of("accuracy", values, draws[:, 0] - draws[:, 1], len(sums), ends)
    discordant = more + less
    if discordant < FEW_DISCORDANT:
        p = float(binomtest(more, discordant).pvalue) if discordant else 1.0
        return McNemar(more, less, "exact", math.nan, p, by_subject)
    statistic = max(abs(more - less) - 1, 0) ** 2 / discordant
    return McNemar(more, less, "chi2", statistic, float(chi2.sf(statistic, 1)), by_subject)


def delong(
    positive: Sequence[bool] | np.ndarray, scores: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray
) -> DeLong:
    """Test of two areas under the ROC curve on the same cases, which it takes to be independent.

    So give one case a subject (`pooling.pool_by_subject`), or use `paired_bootstrap` with the metric "auc".

    Args:
        positive: (N,) bool, whether a case is of the positive class.
        scores, reference: (N,), its probability to be, by each of the two classifiers; any scale does.

    Raises:
        MetricError: of different lengths, no case, a truth that is not bool or 0 and 1, scores not finite.

    Source: DeLong et al. 1988, doi 10.2307/2531595, computed as by Sun and Xu 2014, doi 10.1109/LSP.2014.2337313.
    """
    own, given = np.asarray(positive), [np.asarray(side, dtype=np.float64) for side in (scores, reference)]
    if own.ndim != 1 or not own.size or any(side.shape != own.shape for side in given):
        raise MetricError(f"truth {own.shape}, scores {given[0].shape} and {given[1].shape}: give one of each a case")
    if not np.isin(own, (0, 1)).all():
        raise MetricError("truth of DeLong's test: give True or False per case, one class against the rest")
    for side in given:
        if not np.isfinite(side).all():
            raise MetricError(f"score of case {np.flatnonzero(~np.isfinite(side))[0]}: must be finite")
    own = own.astype(bool)
    positives, negatives = int(own.sum()), int((~own).sum())
    if not positives or not negatives:
        return DeLong(*(math.nan,) * 8, positives, negatives)
    of_positives, of_negatives = (np.stack(side) for side in zip(*(_placements(own, s) for s in given), strict=True))
    areas = of_positives.mean(axis=1)
    difference = float(np.round(areas[0] - areas[1], _DIGITS))
    if positives < 2 or negatives < 2:
        return DeLong(float(areas[0]), float(areas[1]), difference, *(math.nan,) * 5, positives, negatives)
    variance = sum(
        float(np.var(np.round(values[0] - values[1], _DIGITS), ddof=1)) / values.shape[1]
        for values in (of_positives, of_negatives)
    )
    error = math.sqrt(variance)
    z = difference / error if error else (math.nan if difference else 0.0)
    p = float(2 * norm.sf(abs(z)))
    reach = float(norm.ppf(0.975)) * error if error or not difference else math.nan
    low, high = difference - reach, difference + reach
    return DeLong(float(areas[0]), float(areas[1]), difference, error, z, p, low, high, positives, negatives)


def paired_bootstrap(
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    reference: np.ndarray,
    subjects: Sequence[str] | np.ndarray,
    *,
    metric: str | Metric = "balanced_accuracy",
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Difference of a figure of two classifiers, over subjects that are drawn for both at once.

    Below 20 subjects there is neither interval nor p, but for the interval of the accuracy: see `share_difference`.
    p is that of the smallest interval that reaches zero, 2 min(P(d <= 0), P(d >= 0)), each share with one draw added,
    and never below 2 / 2^S: what a sign test gives where all of S subjects agree.

    Args:
        truth: (N,) int.
        probabilities, reference: (N, K), of the two classifiers for the same cases in the same order.
        subjects: (N,) str, whose image each case is.
        metric: a key of `classification.OVERALL` (with two classes the second is the positive one), or any figure: a
            function of the truth and the probabilities of the cases drawn, NaN where it does not exist.
        resamples, seed: of the drawing.

    Raises:
        MetricError: as in `check`, or no such metric.

    Source: Efron and Tibshirani 1993, chapters 8, 13 and 15.
    """
    sides = [check_unnamed(truth, given, subjects=subjects) for given in (probabilities, reference)]
    if sides[0].classes != sides[1].classes:
        raise MetricError(
            f"{len(sides[0].classes)} and {len(sides[1].classes)} classes of two classifiers: give the same for both"
        )
    if isinstance(metric, str) and metric not in OVERALL:
        raise MetricError(f"metric {metric}: choose from {', '.join(OVERALL)}, or give a function")
    figures = [_figure(metric, side) for side in sides]
    whole = np.ones((1, len(sides[0].truth)))
    values = (float(figures[0](whole)[0]), float(figures[1](whole)[0]))
    drawn = [figures[0](weights) - figures[1](weights) for weights in _draws(subjects, sides[0].truth, resamples, seed)]
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
    draws, unit = np.concatenate(drawn), unit_numbers(subjects)
    units = int(unit.max()) + 1
    if metric == "accuracy":
        right = [(side.labels == side.truth).astype(np.float64) for side in sides]
        ends = accuracy_difference(draws, *sums_of_subjects(right[0] - right[1], np.ones(len(unit), dtype=bool), unit))
    else:
        ends = percentiles(draws, units)
    return difference_of(name, values, draws, units, ends)


def _draws(subjects: Sequence[str] | np.ndarray, truth: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    if len(subjects) != len(truth):
        raise MetricError(f"{len(subjects)} subjects for {len(truth)} cases: give one per case")
    return drawn_weights(subjects, resamples=resamples, seed=seed)


def _figure(metric: str | Metric, checked: Checked) -> Callable[[np.ndarray], np.ndarray]:
    """(R, N) weights -> (R,) the metric of one classifier."""
    if not isinstance(metric, str):
        return lambda weights: of_draws(metric, checked, weights)
    weighted = WeightedFigures(checked, positive_index(checked.classes, None))
    return lambda weights: weighted.overall(metric, weights, weighted.per_class(weights))


def accuracy_difference(draws: np.ndarray, differences: np.ndarray, counts: np.ndarray) -> Ends:
    """Interval of a difference of accuracies: of percentiles from 20 subjects of several cases on, else of shares.

    Args:
        draws: (D,) differences of resampled subjects.
        differences, counts: as in `share_difference`.
    """
    if counts.max() > 1 and len(counts) >= FEWEST_DRAWN:
        return percentiles(draws, len(counts))
    return share_difference(differences, counts)


def difference_of(
    name: str, values: tuple[float, float], draws: np.ndarray, units: int, ends: Ends
) -> PairedDifference:
    """A difference with its interval and the p of the bootstrap.

    Args:
        name: of the figure.
        values: of both on all cases.
        draws: (D,) differences of resampled subjects.
        units: how many subjects.
        ends: of the interval.
    """
    known, p = np.round(draws[~np.isnan(draws)], _DIGITS), math.nan
    if units >= FEWEST_DRAWN and known.size:
        tail = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
        p = min(1.0, max(2 * (tail + 1) / (known.size + 1), 2.0 ** (1 - units)))
    difference, left_out = float(np.round(values[0] - values[1], _DIGITS)), int(draws.size - known.size)
    return PairedDifference(
        name, *values, difference, ends.low, ends.high, ends.method, p, units, int(known.size), left_out
    )


def _placements(own: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the negatives below each positive, and of the positives above each negative; ties count half."""
    ranks = rankdata(scores)
    positives, negatives = scores[own], scores[~own]
    return (
        (ranks[own] - rankdata(positives)) / len(negatives),
        1 - (ranks[~own] - rankdata(negatives)) / len(positives),
    )

"""Classifiers that were trained several times: figures that are means over the runs, and their paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import permutation_test

from segmed.errors import MetricError
from segmed.metrics.class_figures import Checked, check_unnamed, positive_index
from segmed.metrics.classifier_tests import PairedDifference, mcnemar
from segmed.metrics.pooling import unit_numbers
from segmed.metrics.resampling import WeightedFigures, drawn_weights
from segmed.metrics.statistics import FEWEST_PAIRS

COMPARED = ("accuracy", "balanced_accuracy", "auc", "log_loss", "ece")
BINS = 15  # of the ECE, as in `expected_calibration_error`

_DIGITS = 12  # of differences: equal figures that were added up in another order are to be equal
_BATCH = 1000  # exchanges that are drawn at once


@dataclass(frozen=True, eq=False)
class MeanFigure:
    """One figure of a method.

    Attributes:
        of_runs: (R,) on all cases, of each run; NaN where it does not exist.
        draws: (D,) of subjects drawn anew, the same ones for all runs: the mean over the runs.
        subjects: how many were drawn from.
    """

    of_runs: np.ndarray
    draws: np.ndarray
    subjects: int

    @property
    def value(self) -> float:
        """Mean over the runs."""
        return float(self.of_runs.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % percentile interval of the mean over the runs; NaN with fewer than two subjects or without a draw."""
        return _interval(self.draws, self.subjects)


def mean_figures(
    truth: Sequence[int] | np.ndarray,
    runs: Sequence[np.ndarray],
    subjects: Sequence[str] | np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, MeanFigure]:
    """The figures of `COMPARED` of a method.

    The mean of the runs' figures, not the figure of their mean probabilities: the latter is that of an ensemble, which
    is better than what anybody gets who trains once. Subjects are drawn and runs are not, as another run is not another
    patient.

    Args:
        truth: (N,) int.
        runs: probabilities (N, K) of each run, for the same cases in the same order.
        subjects: (N,) str, whose image each case is.
        resamples, seed: of the drawing; two methods with the same are paired.

    Raises:
        MetricError: no run; else as in `check`.
    """
    if not runs:
        raise MetricError("no run: give the probabilities of one or more")
    counted = [_Run(check_unnamed(truth, probabilities, subjects=subjects)) for probabilities in runs]
    whole = [each(np.ones((1, len(truth)))) for each in counted]
    draws: dict[str, list[np.ndarray]] = {key: [] for key in COMPARED}
    for weights in drawn_weights(subjects, resamples=resamples, seed=seed):
        figures = [each(weights) for each in counted]
        for key in COMPARED:
            draws[key].append(np.mean([each[key] for each in figures], axis=0))
    units = int(unit_numbers(subjects).max()) + 1
    return {
        key: MeanFigure(np.array([each[key][0] for each in whole]), np.concatenate(draws[key]), units)
        for key in COMPARED
    }


def paired_difference_of(metric: str, own: MeanFigure, reference: MeanFigure) -> PairedDifference:
    """Difference of a figure of two methods, over subjects that are drawn for both at once.

    With one run of each it is that of `paired_bootstrap`, whose p it has.

    Args:
        metric: its name.
        own, reference: of `mean_figures` with the same subjects, resamples and seed.

    Raises:
        MetricError: other subjects, or another number of draws.
    """
    if own.draws.shape != reference.draws.shape or own.subjects != reference.subjects:
        raise MetricError(
            f"{len(own.draws)} draws of {own.subjects} subjects and {len(reference.draws)} of {reference.subjects}: "
            "draw both with the same subjects and resamples"
        )
    draws = own.draws - reference.draws
    known = np.round(draws[~np.isnan(draws)], _DIGITS)
    low, high = _interval(known, own.subjects)
    p = math.nan
    if own.subjects >= FEWEST_PAIRS and known.size:
        tail = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
        p = min(1.0, max(2 * (tail + 1) / (known.size + 1), 2.0 ** (1 - own.subjects)))
    difference = float(np.round(own.value - reference.value, _DIGITS))
    left_out = int(draws.size - known.size)
    return PairedDifference(
        metric, own.value, reference.value, difference, low, high, p, own.subjects, int(known.size), left_out
    )


def exchange_test(
    truth: Sequence[int] | np.ndarray,
    own: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    *,
    resamples: int = 9999,
    seed: int = 0,
) -> float:
    """Whether two methods are wrong equally often, on the same cases, which are taken to be independent.

    With one run of each it is McNemar's test. With several, every case has a share of runs that are right; the shares
    of the two methods are exchanged at random case by case. Of one run of each, that is McNemar's exact test.

    Args:
        truth: (N,) int.
        own, reference: answers (N,) int of each run of the two.
        resamples: exchanges that are drawn, where there are more than that.
        seed: of the drawing.

    Returns:
        Two-sided p.

    Raises:
        MetricError: as in `mcnemar`.

    Source: Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, section 3.6 (matched pairs).
    """
    if len(own) == len(reference) == 1:
        return mcnemar(truth, own[0], reference[0]).p
    true = np.asarray(truth)
    right, other = (np.sum([np.asarray(answers) == true for answers in side], axis=0) for side in (own, reference))
    difference = right * len(reference) - other * len(own)  # whole numbers: equal sums are equal
    difference = difference[difference != 0]
    if difference.size < 2:
        return 1.0
    test = permutation_test(
        (difference,), np.sum, permutation_type="samples", vectorized=True, n_resamples=resamples, batch=_BATCH,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(test.pvalue)


class _Run:
    """The figures of one run for many weights of its cases at once."""

    def __init__(self, checked: Checked) -> None:
        self._weighted = WeightedFigures(checked, positive_index(checked.classes, None))
        confidence = np.minimum(checked.probabilities.max(axis=1), 1.0)
        place = np.clip(np.searchsorted(np.linspace(0, 1, BINS + 1), confidence) - 1, 0, BINS - 1)
        self._gaps = np.eye(BINS)[place] * (confidence - (checked.labels == checked.truth))[:, None]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Weights (D, N) -> (D,) of each key of COMPARED."""
        columns = self._weighted.per_class(weights)
        figures = {key: self._weighted.overall(key, weights, columns) for key in COMPARED if key != "ece"}
        # cases of a bin times the distance of its means is the distance of its sums
        return {**figures, "ece": np.abs(weights @ self._gaps).sum(axis=1) / weights.sum(axis=1)}


def _interval(draws: np.ndarray, subjects: int) -> tuple[float, float]:
    known = draws[~np.isnan(draws)]
    if subjects < 2 or not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)

"""Classifiers that were trained several times: figures that are means over the runs, and their paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import permutation_test

from segmed.errors import MetricError
from segmed.metrics.calibration import calibrated_error
from segmed.metrics.class_figures import Checked, check_unnamed, positive_index
from segmed.metrics.classifier_tests import PairedDifference, accuracy_difference, difference_of, mcnemar
from segmed.metrics.pooling import unit_numbers
from segmed.metrics.resampling import WeightedFigures, drawn_weights
from segmed.metrics.small_samples import (
    FEWEST_OF_A_CLASS,
    Ends,
    area_or_percentiles,
    none,
    percentiles,
    share_or_percentiles,
    sums_of_subjects,
)

COMPARED = ("accuracy", "balanced_accuracy", "auc", "log_loss", "ece")
BIASED = "since it is biased: what calibrated probabilities would give stands beside it"  # the ECE has no interval
BINS = 15  # of the ECE, as in `expected_calibration_error`

_BATCH = 1000  # exchanges that are drawn at once


@dataclass(frozen=True, eq=False)
class MeanFigure:
    """One figure of a method.

    Attributes:
        of_runs: (R,) on all cases, of each run; NaN where it does not exist.
        draws: (D,) of subjects drawn anew, the same ones for all runs: the mean over the runs.
        subjects: how many were drawn from.
        ends: 95 % interval of the mean over the runs, and its method.
        right: of the accuracy: (2, U) right cases of each subject, mean over the runs, and all of its cases.
        calibrated: of the ECE: what calibrated probabilities would give, mean over the runs.
        smallest_class: subjects of the smallest class that it depends on.
    """

    of_runs: np.ndarray
    draws: np.ndarray
    subjects: int
    ends: Ends
    right: np.ndarray | None = None
    calibrated: float | None = None
    smallest_class: int = FEWEST_OF_A_CLASS

    @property
    def value(self) -> float:
        """Mean over the runs."""
        return float(self.of_runs.mean())


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
    subjects_of = _Subjects(counted, unit_numbers(subjects))
    return {
        key: subjects_of.figure(key, np.array([each[key][0] for each in whole]), np.concatenate(draws[key]))
        for key in COMPARED
    }


def paired_difference_of(metric: str, own: MeanFigure, reference: MeanFigure) -> PairedDifference:
    """Difference of a figure of two methods, over subjects that are drawn for both at once.

    With one run of each it is that of `paired_bootstrap`, whose p it has. That of the ECE, which is biased by another
    amount for each method, has neither interval nor p.

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
    if metric == "ece":
        unknown = np.full_like(draws, np.nan)
        return difference_of(metric, (own.value, reference.value), unknown, own.subjects, none(BIASED))
    if own.right is not None and reference.right is not None:
        ends = accuracy_difference(draws, own.right[0] - reference.right[0], own.right[1])
    else:
        ends = percentiles(draws, own.subjects, smallest_class=own.smallest_class)
    return difference_of(metric, (own.value, reference.value), draws, own.subjects, ends)


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


class _Subjects:
    """Subjects of a method's runs, from which the intervals of its figures come.

    Args:
        runs: of the method.
        unit: (N,) number of each case's subject.
    """

    def __init__(self, runs: Sequence[_Run], unit: np.ndarray) -> None:
        self._runs, self._unit, truth = runs, unit, runs[0].checked.truth
        self._units = int(unit.max()) + 1
        kinds = np.arange(len(runs[0].checked.classes))
        self._of_classes = [len(np.unique(unit[truth == kind])) for kind in kinds]
        self._smallest = min(count for count in self._of_classes if count)

    def figure(self, key: str, of_runs: np.ndarray, draws: np.ndarray) -> MeanFigure:
        """One of COMPARED: its values for every run (R,) and for resampled subjects (D,)."""
        if key == "ece":
            calibrated = float(np.mean([calibrated_error(run.checked.probabilities).mean for run in self._runs]))
            return MeanFigure(of_runs, draws, self._units, none(BIASED), calibrated=calibrated)
        if key == "accuracy":
            checks = [run.checked for run in self._runs]
            right = np.mean([(each.labels == each.truth).astype(np.float64) for each in checks], axis=0)
            of_subjects = np.stack(sums_of_subjects(right, np.ones(len(right), dtype=bool), self._unit))
            return MeanFigure(of_runs, draws, self._units, share_or_percentiles(draws, *of_subjects), of_subjects)
        smallest = self._units if key == "log_loss" else self._smallest
        if key == "auc" and len(self._of_classes) == 2:
            rest, own = self._of_classes
            one_each = self._units == len(self._unit)
            value = float(of_runs.mean())
            ends = area_or_percentiles(draws, value, (own, rest), units=self._units, one_each=one_each)
        else:
            ends = percentiles(draws, self._units, smallest_class=smallest)
        return MeanFigure(of_runs, draws, self._units, ends, smallest_class=smallest)


class _Run:
    """The figures of one run for many weights of its cases at once."""

    def __init__(self, checked: Checked) -> None:
        self.checked = checked
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

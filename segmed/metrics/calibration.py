"""How far probabilities are from frequencies: calibration errors, Brier score, reliability, temperature scaling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from segmed.errors import MetricError
from segmed.metrics.class_figures import Checked, check_unnamed

LOWEST, HIGHEST = 0.01, 100.0  # temperatures that a fit may give

_CHUNK = 4_000_000  # drawn cases held at once: 32 MB
_EDGE = 1e-3  # a fit this near to a bound, on the logarithm, has reached it


@dataclass(frozen=True)
class Bin:
    """Cases of similar probability.

    Attributes:
        low, high: the probabilities p of the bin, low < p <= high; the lowest bin holds its own low end too.
        cases: how many.
        confidence: their mean probability; NaN without a case.
        frequency: the share of them in which the class is the true one; NaN without a case.
    """

    low: float
    high: float
    cases: int
    confidence: float
    frequency: float


@dataclass(frozen=True)
class CalibratedError:
    """The ECE that calibrated probabilities have by chance.

    Attributes:
        mean: of it.
        low, high: 95 % of it lie between; an ECE in there says nothing against the calibration.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Temperature:
    """One number that logits are divided by.

    Attributes:
        value: above 1 it makes probabilities less sure; it never changes the most probable class.
        nll_before, nll_after: mean negative log-likelihood of the cases that it was fitted on, in nats.
        bounded: the fit was stopped, since the cases say nothing of where to end.
        note: why; empty if it was not.
    """

    value: float
    nll_before: float
    nll_after: float
    bounded: bool
    note: str

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (N, K) of logits (N, K).

        Raises:
            MetricError: logits of another shape, or not finite.
        """
        return softmax(_check_logits(logits) / self.value, axis=1)


def expected_calibration_error(
    truth: Sequence[int] | np.ndarray, probabilities: np.ndarray, *, bins: int = 15
) -> float:
    """Mean distance between the probability of the answer and how often the answer is right, in bins of equal width.

    Args:
        truth: (N,) int.
        probabilities: (N, K), rows sum to one; the largest of a row counts (top-label).
        bins: of equal width from 0 to 1.

    Returns:
        From 0 to 1. Finite samples give more than 0 even where calibration is perfect: see `calibrated_error`.

    Raises:
        MetricError: as in `check`, or no bin.

    Source: Guo et al. 2017 (arXiv 1706.04599), eq. 3.
    """
    return _distance(reliability(truth, probabilities, bins=bins))


def calibrated_error(
    probabilities: np.ndarray, *, bins: int = 15, resamples: int = 1000, seed: int = 0
) -> CalibratedError:
    """The calibration error of the same probabilities, were each right as often as it says: its bias.

    Args:
        probabilities: (N, K), rows sum to one.
        bins: as in `expected_calibration_error`.
        resamples: how many times right and wrong are drawn from the probabilities, cases by themselves.
        seed: of the drawing.

    Raises:
        MetricError: as in `check`, or no bin.

    Source: Bröcker and Smith 2007, doi 10.1175/WAF993.1 (consistency resampling).
    """
    labels = np.zeros(len(probabilities), dtype=np.intp)
    confidence, _ = _answers(check_unnamed(labels, probabilities))
    confidence = np.minimum(confidence, 1.0)
    edges = np.linspace(0, 1, _bin_count(bins) + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    generator, errors = np.random.default_rng(seed), []
    for start in range(0, resamples, rows := max(1, _CHUNK // len(confidence))):
        drawn = generator.random((min(rows, resamples - start), len(confidence))) < confidence
        gaps = (confidence - drawn) @ np.eye(bins)[place]
        errors.append(np.abs(gaps).sum(axis=1) / len(confidence))
    every = np.concatenate(errors)
    low, high = np.quantile(every, [0.025, 0.975])
    return CalibratedError(float(every.mean()), float(low), float(high))


def adaptive_calibration_error(
    truth: Sequence[int] | np.ndarray, probabilities: np.ndarray, *, bins: int = 15
) -> float:
    """The same in bins of equally many cases, which a sure classifier does not leave empty.

    Equal probabilities stay in one bin, so there may be fewer bins than asked for.

    Args:
        truth, probabilities: as in `expected_calibration_error`.
        bins: of equally many cases.

    Raises:
        MetricError: as in `check`, or no bin.

    Source: Nguyen and O'Connor 2015 (arXiv 1508.05154), section 4; top-label as in Guo et al. 2017.
    """
    confidence, right = _answers(check_unnamed(truth, probabilities))
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, _bin_count(bins) + 1)))
    return _distance(_table(confidence, right, edges))


def brier_score(truth: Sequence[int] | np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared distance between probabilities and truth.

    Args:
        truth: (N,) int.
        probabilities: (N, K), rows sum to one.

    Returns:
        With two classes the square of one probability's error, from 0 to 1; with more the sum over the classes, from
        0 to 2 (scikit-learn's `brier_score_loss` with `scale_by_half="auto"`).

    Raises:
        MetricError: as in `check`.

    Source: Brier 1950, Monthly Weather Review 78:1, eq. 2.
    """
    checked = check_unnamed(truth, probabilities)
    kinds = len(checked.classes)
    squares = np.square(checked.probabilities - np.eye(kinds)[checked.truth]).sum(axis=1)
    return float(squares.mean() / (2 if kinds == 2 else 1))


def reliability(
    truth: Sequence[int] | np.ndarray, probabilities: np.ndarray, *, bins: int = 15, positive: int | None = None
) -> tuple[Bin, ...]:
    """Table of a reliability diagram.

    Args:
        truth: (N,) int.
        probabilities: (N, K), rows sum to one.
        bins: of equal width from 0 to 1.
        positive: index of the class whose probability is looked at; None: the most probable class of each case.

    Raises:
        MetricError: as in `check`, no bin, or no such class.
    """
    checked = check_unnamed(truth, probabilities)
    if positive is None:
        confidence, happened = _answers(checked)
    elif 0 <= positive < len(checked.classes):
        confidence, happened = checked.probabilities[:, positive], checked.truth == positive
    else:
        raise MetricError(f"class {positive} of {len(checked.classes)}: give its index, counted from 0")
    return _table(np.minimum(confidence, 1.0), happened, np.linspace(0, 1, _bin_count(bins) + 1))


def fit_temperature(logits: np.ndarray, truth: Sequence[int] | np.ndarray) -> Temperature:
    """The temperature with the smallest negative log-likelihood, to be fitted on validation and never on test.

    The likelihood is concave in 1/T, so there is one optimum. It lies at 0 where every case is right, however sure the
    logits are: such cases cannot say how sure to be, and the temperature stays at 1. It lies at infinity where a
    uniform guess is better than the logits at any temperature.

    Args:
        logits: (N, K), before the softmax; logarithms of probabilities do as well.
        truth: (N,) int.

    Raises:
        MetricError: logits that are not finite; else as in `check`.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2.
    """
    given = _check_logits(logits)
    checked = check_unnamed(truth, softmax(given, axis=1))

    def nll(logarithm: float) -> float:
        rows = log_softmax(given / math.exp(logarithm), axis=1)
        return float(-np.take_along_axis(rows, checked.truth[:, None], axis=1).mean())

    before = nll(0.0)
    others = given.copy()
    np.put_along_axis(others, checked.truth[:, None], -np.inf, axis=1)
    own = np.take_along_axis(given, checked.truth[:, None], axis=1)[:, 0]
    if np.all(own >= others.max(axis=1)):
        note = f"all {len(own)} cases are right, which does not say how sure to be: temperature kept at 1"
        return Temperature(1.0, before, before, True, note)
    bounds = (math.log(LOWEST), math.log(HIGHEST))
    log_temperature = float(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    note = ""
    if min(log_temperature - bounds[0], bounds[1] - log_temperature) < _EDGE:
        note = f"no optimum between {LOWEST:g} and {HIGHEST:g}: temperature stopped there; look at the logits"
    after = nll(log_temperature)
    if after > before:  # by rounding alone, where 1 is the optimum
        log_temperature, after = 0.0, before
    return Temperature(math.exp(log_temperature), before, after, bool(note), note)


def _check_logits(logits: np.ndarray) -> np.ndarray:
    given = np.asarray(logits, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] < 2:
        raise MetricError(f"logits of shape {given.shape}: give (cases, classes), with two or more classes")
    broken = np.flatnonzero(~np.isfinite(given).all(axis=1))
    if broken.size:
        raise MetricError(
            f"logits of case {broken[0]} are {given[broken[0]].tolist()} ({broken.size} such cases): must be finite"
        )
    return given


def _bin_count(bins: int) -> int:
    if bins < 1:
        raise MetricError(f"{bins} bins of a calibration table: give at least one")
    return bins


def _answers(checked: Checked) -> tuple[np.ndarray, np.ndarray]:
    """(N,) probability of the most probable class, and (N,) whether it is the true one."""
    return checked.probabilities.max(axis=1), checked.labels == checked.truth


def _table(confidence: np.ndarray, happened: np.ndarray, edges: np.ndarray) -> tuple[Bin, ...]:
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0]])
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    cases = np.bincount(place, minlength=len(edges) - 1)
    sums = [np.bincount(place, weights=values, minlength=len(edges) - 1) for values in (confidence, happened)]
    means = [np.divide(each, cases, out=np.full(len(cases), np.nan), where=cases > 0) for each in sums]
    return tuple(
        Bin(float(edges[n]), float(edges[n + 1]), int(cases[n]), float(means[0][n]), float(means[1][n]))
        for n in range(len(cases))
    )


def _distance(table: tuple[Bin, ...]) -> float:
    filled = [each for each in table if each.cases]
    total = sum(each.cases for each in filled)
    return sum(each.cases * abs(each.confidence - each.frequency) for each in filled) / total

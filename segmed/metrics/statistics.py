"""Figures of many cases -> mean, SD, bootstrap interval, number of misses; of two methods -> difference and test."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student_t
from scipy.stats import wilcoxon

FEWEST_UNITS = 6  # below, no interval is given
FEWEST_DRAWN = 20  # below, percentile intervals are too short: 86 % for 95 % at six units
FEWEST_PAIRS = 6  # with five, the smallest p of a two-sided signed-rank test is 2 / 2^5 = 0.0625
_CHUNK = 4_000_000  # drawn indices held at once: 32 MB
_DIGITS = 9  # of differences, relative to the largest value: 0.9 - 0.8 and 0.5 - 0.4 are to tie


def bootstrap_ci(
    values: Sequence[float] | np.ndarray,
    *,
    resamples: int,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """Interval of the mean: percentile bootstrap from 20 units on, Student's t of the units from 6 on, else none.

    Of means over equally large units t is the textbook's; else its variance is that of a ratio. Over 6 to 19 units it
    covers 92.5 to 96.8 % in simulations of normal, Laplace and Dice-like (beta 20, 3) figures, where percentiles cover
    85 to 94 %. Of skewed ones it covers less: 91 to 93 % of log-normal with SD 0.5 of the logarithm, 81 to 86 % with
    SD 1, 69 to 93 % of Dice with 15 % zeros (six cases often have none). On the scale of the logarithm that is 93 to
    94, 87 to 89 and 68 to 92 %, on that of the logit of Dice 94 to 95 and 72 to 95 %: no remedy, so neither is done.

    Args:
        values: one number per case; NaN is left out.
        resamples: how many times the cases are drawn anew, with replacement.
        seed: of the drawing; the same seed gives the same interval.
        level: share of the resampled means inside.
        groups: the unit of each value (its subject). Whole units are drawn, since two scans of one subject are not
            two independent observations. None: each value is its own.

    Returns:
        low, high; NaN where fewer than 6 units are left. `interval_method` names how they were found.

    Raises:
        ValueError: groups of another length than values, or a level outside 0 to 1.

    Source: Efron and Tibshirani 1993, chapters 13 (percentile interval) and 8 (units that are drawn whole); Cochran
    1977, Sampling Techniques, eq. 6.13 (variance of a ratio).
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} of an interval: must lie between 0 and 1")
    sums, counts = _by_group(np.asarray(values, dtype=np.float64), groups)
    if len(sums) < FEWEST_UNITS:
        return float("nan"), float("nan")
    if len(sums) < FEWEST_DRAWN:
        mean = sums.sum() / counts.sum()
        off = (sums - mean * counts) / counts.mean()
        reach = student_t.ppf((1 + level) / 2, len(sums) - 1) * off.std(ddof=1) / np.sqrt(len(sums))
        return float(mean - reach), float(mean + reach)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(sums))
    means = []
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, len(sums), size=(min(rows, resamples - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_method(units: int) -> str:
    """How `bootstrap_ci` finds an interval over so many units, in the words of a table."""
    if units < FEWEST_UNITS:
        return f"none below {FEWEST_UNITS}"
    return "Student's t" if units < FEWEST_DRAWN else "percentile bootstrap"


def summarise(
    values: Sequence[float] | np.ndarray,
    missed: int = 0,
    *,
    resamples: int = 2000,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> dict[str, Any]:
    """Mean, SD, 95 % interval, number of cases, number of misses and median of one metric.

    Args:
        values: one number per case; NaN (not defined, or left out by the policy for misses) is not counted in `n`.
        missed: in how many cases the structure was missed or invented.
        resamples, seed, groups: as in `bootstrap_ci`.
        bounds: the least and the largest value that the metric can have; the interval ends there.

    Returns:
        mean, sd (of the sample, n - 1), ci95 (low and high), ci95_method, n, missed, median; None where it does not
        exist.
    """
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    low, high = bootstrap_ci(values, resamples=resamples, seed=seed, groups=groups)
    units = len(_by_group(values, groups)[0])
    return {
        "mean": float(known.mean()) if known.size else None,
        "sd": float(known.std(ddof=1)) if known.size > 1 else None,
        "ci95": None if np.isnan(low) else [max(low, bounds[0]), min(high, bounds[1])],
        "ci95_method": interval_method(units),
        "n": int(known.size),
        "missed": int(missed),
        "median": float(np.median(known)) if known.size else None,
    }


# ---------------------------------------------------------------- two methods on the same cases


def paired_difference(
    values: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray,
    *,
    resamples: int,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> tuple[float, float, float]:
    """Mean of the paired differences, and its 95 % interval.

    Args:
        values, reference: one number per case, in the same order; a pair with a NaN is left out.
        resamples, seed, groups: as in `bootstrap_ci`.

    Returns:
        Mean of values - reference, low, high; NaN where there is no pair, or no interval.

    Raises:
        ValueError: of different lengths.
    """
    difference = _differences(values, reference)
    known = difference[~np.isnan(difference)]
    low, high = bootstrap_ci(difference, resamples=resamples, seed=seed, groups=groups)
    return float(known.mean()) if known.size else float("nan"), low, high


def paired_wilcoxon(
    values: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test on paired figures.

    Differences of zero are dropped before ranking, as by Wilcoxon; those that are equal up to rounding tie. The
    distribution is exact for up to 50 differences without ties, else normal (scipy's `method="auto"`).

    Args:
        values, reference: one number per case, in the same order; a pair with a NaN is left out.
        groups: the unit of each pair (its subject). Pairs of one unit are averaged to one, since the test takes them
            to be independent. None: each pair is its own.

    Returns:
        1 where no pair differs; NaN with fewer than 6 pairs, as then no outcome at all could give p < 0.05.

    Raises:
        ValueError: of different lengths.

    Source: Wilcoxon 1945, doi 10.2307/3001968.
    """
    difference = _differences(values, reference)
    sums, counts = _by_group(difference, groups)
    if len(sums) < FEWEST_PAIRS:
        return float("nan")
    largest = max(np.nanmax(np.abs(np.asarray(side, dtype=np.float64))) for side in (values, reference))
    rounded = np.round(sums / counts / (largest or 1.0), _DIGITS)
    rounded = rounded[rounded != 0]
    return float(wilcoxon(rounded).pvalue) if rounded.size else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, adjusted so that 5 % is the chance of any false finding among them.

    Args:
        p_values: of the family; NaN (no test could be done) stays NaN and is not counted.

    Returns:
        In the same order, at most 1: the i-th smallest of m becomes the largest (m - j + 1) p_j up to j = i.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")[: np.count_nonzero(~np.isnan(given))]  # NaN is sorted to the end
    adjusted = np.full_like(given, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * np.arange(len(order), 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def _differences(values: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray) -> np.ndarray:
    own, other = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if own.shape != other.shape:
        raise ValueError(f"{own.size} values but {other.size} of the reference: give both for the same cases")
    return own - other


def _by_group(values: np.ndarray, groups: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each unit, in the order in which the units appear."""
    if groups is None:
        known = values[~np.isnan(values)]
        return known, np.ones_like(known)
    if len(groups) != len(values):
        raise ValueError(f"{len(values)} values but {len(groups)} groups: give one group a value")
    number: dict[Hashable, int] = {}
    index = np.array(
        [number.setdefault(group, len(number)) for group, value in zip(groups, values, strict=True) if value == value],
        dtype=np.intp,
    )
    known = values[~np.isnan(values)]
    return np.bincount(index, weights=known, minlength=len(number)), np.bincount(index, minlength=len(number))

"""Figures of many cases -> mean, SD, bootstrap interval, number of cases and of misses."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

_CHUNK = 4_000_000  # drawn indices held at once: 32 MB


def bootstrap_ci(
    values: Sequence[float] | np.ndarray,
    *,
    resamples: int,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean.

    Args:
        values: one number a case; NaN is left out.
        resamples: how many times the cases are drawn anew, with replacement.
        seed: of the drawing; the same seed gives the same interval.
        level: share of the resampled means inside.
        groups: the unit of each value (its subject). Whole units are drawn, since two scans of one subject are not
            two independent observations. None: each value is its own.

    Returns:
        low, high; NaN where fewer than two units are left, since then nothing is known of their spread.

    Raises:
        ValueError: groups of another length than values, or a level outside 0 to 1.

    Source: Efron and Tibshirani 1993, chapters 13 (percentile interval) and 8 (units that are drawn whole).
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} of an interval: must lie between 0 and 1")
    sums, counts = _by_group(np.asarray(values, dtype=np.float64), groups)
    if len(sums) < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(sums))
    means = []
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, len(sums), size=(min(rows, resamples - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summarise(
    values: Sequence[float] | np.ndarray,
    missed: int = 0,
    *,
    resamples: int = 2000,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Mean, SD, 95 % interval, number of cases, number of misses and median of one metric.

    Args:
        values: one number a case; NaN (not defined, or left out by the policy for misses) is not counted in `n`.
        missed: in how many cases the structure was missed or invented.
        resamples, seed, groups: as in `bootstrap_ci`.

    Returns:
        mean, sd (of the sample, n - 1), ci95 (low and high), n, missed, median; None where it does not exist.
    """
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    low, high = bootstrap_ci(values, resamples=resamples, seed=seed, groups=groups)
    return {
        "mean": float(known.mean()) if known.size else None,
        "sd": float(known.std(ddof=1)) if known.size > 1 else None,
        "ci95": None if np.isnan(low) else [low, high],
        "n": int(known.size),
        "missed": int(missed),
        "median": float(np.median(known)) if known.size else None,
    }


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

"""Errors on calibration cases -> bounds for a new case that hold at a level, whatever the errors' distribution.

Own code rather than MAPIE: its regressors leave cases out of an estimator of scikit-learn, while here the networks of
folds are left out as well, whole subjects count once, and a bound may be one-sided; the quantile itself is short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segmed.errors import MetricError

ROUNDING = 1e-9  # of weights that are summed


def borne_level(subjects: int) -> float:
    """The highest level that so many subjects bear: n / (n + 1)."""
    return subjects / (subjects + 1)


def subjects_needed(level: float) -> int:
    """How many subjects a level needs."""
    return math.ceil(level / (1 - level) - ROUNDING)


def check_level(level: float, subjects: int) -> None:
    """Refuse a level that so few subjects do not bear.

    Raises:
        MetricError: it is higher than n / (n + 1), or no level.
    """
    if not 0 < level < 1:
        raise MetricError(f"level {level:g}: give one between 0 and 1, as 0.9")
    if subjects < subjects_needed(level):
        raise MetricError(too_few(level, subjects))


def too_few(level: float, subjects: int) -> str:
    """Which level so few subjects bear, and how many another one needs."""
    most = math.floor(1000 * borne_level(subjects)) / 10
    return (
        f"{subjects} subjects bear a level of {most:g} % at most, {100 * level:g} % needs {subjects_needed(level)}: "
        "calibrate with more, or ask for a lower level"
    )


def subject_weights(subjects: Sequence[int] | np.ndarray) -> np.ndarray:
    """(N,) weight of each case: every subject weighs 1 / (n + 1), shared by its cases; what is missing to 1 is new.

    Source: Lee, Barber and Willett 2023 (arXiv 2306.06342), hierarchical conformal prediction.
    """
    _, place, counts = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    return 1 / ((len(counts) + 1) * counts[place])


def upper_bound(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    """The smallest value at or below which the weights sum to the level; infinity where all of them don't.

    With one case a subject this is the ceil((n + 1) level)-th smallest of n.

    Args:
        values: (N,).
        weights: (N,), of `subject_weights`.
        level: between 0 and 1.

    Source: Vovk et al. 2005, Algorithmic Learning in a Random World; Lei et al. 2018 (arXiv 1604.04173), section 2.
    """
    order = np.argsort(values, kind="stable")
    enough = np.flatnonzero(np.cumsum(weights[order]) >= level - ROUNDING)
    return float(values[order[enough[0]]]) if enough.size else math.inf


def lower_bound(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    """The largest value at or above which the weights sum to the level; see `upper_bound`."""
    return -upper_bound(-np.asarray(values), weights, level)

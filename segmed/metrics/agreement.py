"""Two measurements of the same cases -> correlation, ICC, bias and limits of agreement."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr, spearmanr

from segmed.metrics.statistics import FEWEST_UNITS


@dataclass(frozen=True)
class Agreement:
    """How far values agree with a reference; NaN where it does not exist.

    Attributes:
        n, subjects: pairs, and of how many subjects.
        pearson, spearman: correlation; NaN where one side is constant.
        icc: ICC(2,1) of Shrout and Fleiss: two-way random effects, absolute agreement, one measurement.
        bias, sd: mean and SD of value - reference.
        low, high: limits of agreement, bias ± 1.96 SD; these, the correlations and the ICC need 6 subjects.
    """

    n: int
    subjects: int
    pearson: float
    spearman: float
    icc: float
    bias: float
    sd: float
    low: float
    high: float


def agreement_of(
    values: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
) -> Agreement:
    """Agreement of paired values.

    Args:
        values, reference: one number a case, in the same order; a pair with a NaN is left out.
        groups: the subject of each case; None: each is its own.

    Source: Shrout and Fleiss 1979, doi 10.1037/0033-2909.86.2.420; Bland and Altman 1986.
    """
    own, other = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    known = ~np.isnan(own - other)
    subjects = len({group for group, there in zip(groups or range(len(own)), known, strict=True) if there})
    own, other = own[known], other[known]
    difference = own - other
    bias = float(difference.mean()) if own.size else math.nan
    sd = float(difference.std(ddof=1)) if own.size > 1 else math.nan
    if subjects < FEWEST_UNITS:
        return Agreement(own.size, subjects, *(math.nan,) * 3, bias, sd, math.nan, math.nan)
    varies = bool(np.ptp(own) > 0 and np.ptp(other) > 0)
    return Agreement(
        own.size,
        subjects,
        float(pearsonr(own, other).statistic) if varies else math.nan,
        float(spearmanr(own, other).statistic) if varies else math.nan,
        icc_2_1(np.stack([own, other], axis=1)),
        bias,
        sd,
        bias - 1.96 * sd,
        bias + 1.96 * sd,
    )


def icc_2_1(ratings: np.ndarray) -> float:
    """ICC(2,1): two-way random effects, absolute agreement, one measurement.

    Args:
        ratings: (N, K), N subjects by K raters.

    Returns:
        NaN where nothing varies.

    Source: Shrout and Fleiss 1979, doi 10.1037/0033-2909.86.2.420, table 4.
    """
    subjects, raters = ratings.shape
    whole = ratings.mean()
    rows, columns = ratings.mean(axis=1), ratings.mean(axis=0)
    between = raters * np.square(rows - whole).sum() / (subjects - 1)
    raters_square = subjects * np.square(columns - whole).sum() / (raters - 1)
    left = ratings - rows[:, None] - columns + whole
    error = np.square(left).sum() / ((subjects - 1) * (raters - 1))
    under = between + (raters - 1) * error + raters * (raters_square - error) / subjects
    return float((between - error) / under) if under > 0 else math.nan

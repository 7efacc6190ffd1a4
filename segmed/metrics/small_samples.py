"""Shares, areas and differences of shares over few subjects -> 95 % intervals that cover, each with its name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, norm
from scipy.stats import t as student_t

from segmed.metrics.statistics import FEWEST_DRAWN, FEWEST_UNITS

FEWEST_OF_A_CLASS = FEWEST_UNITS  # subjects of the smaller class, below which its figures have no interval

_CERTAIN = (0.025, 0.975)
_Z = float(norm.ppf(0.975))
_EDGE = 1e-12  # an area of 1 is a root by itself: the one that is looked for lies below


@dataclass(frozen=True)
class Ends:
    """An interval, and how it was found.

    Attributes:
        low, high: NaN where there is none.
        method: its name, or why there is none.
    """

    low: float
    high: float
    method: str


def none(why: str) -> Ends:
    """No interval."""
    return Ends(math.nan, math.nan, f"none{f' {why}' if why else ''}")


def percentiles(draws: np.ndarray, subjects: int, *, smallest_class: int = FEWEST_OF_A_CLASS) -> Ends:
    """Of resampled figures, NaN left out: percentile bootstrap, none below 20 subjects or 6 of a class.

    Args:
        draws: (D,).
        subjects: that were drawn from.
        smallest_class: subjects of the smallest class that the figure depends on.
    """
    if subjects < FEWEST_DRAWN:
        return none(f"below {FEWEST_DRAWN} subjects")
    if smallest_class < FEWEST_OF_A_CLASS:
        return none(f"below {FEWEST_OF_A_CLASS} subjects of a class")
    known = draws[~np.isnan(draws)]
    if not known.size:
        return none("")
    low, high = np.quantile(known, _CERTAIN)
    return Ends(float(low), float(high), "percentile bootstrap")


def share(sums: np.ndarray, counts: np.ndarray) -> Ends:
    """Interval of a share of cases, which come in subjects: that of Clopper and Pearson for the effective number.

    It covers 95 % or more whatever the share, the number and the subjects: one case a subject at least 95 % by its
    construction, several 97 to 100 % in simulations (6 to 40 subjects of 1 to 30 cases). For that it never counts more
    cases than there are subjects, so it is wide where cases of one subject are independent.

    Args:
        sums: (U,) cases of each subject that count, or the mean of several runs of it.
        counts: (U,) cases of each subject; subjects without any are left out.

    Returns:
        None below 6 subjects.

    Source: Clopper and Pearson 1934, doi 10.1093/biomet/26.4.404; Korn and Graubard 1998, Survey Methodology 24:193
    (effective number).
    """
    sums, counts = sums[counts > 0], counts[counts > 0]
    if len(sums) < FEWEST_UNITS:
        return none(f"below {FEWEST_UNITS} subjects")
    value = float(sums.sum() / counts.sum())
    number = _effective(sums, counts, value)
    right = value * number
    low = 0.0 if value <= 0 else float(beta.ppf(_CERTAIN[0], right, number - right + 1))
    high = 1.0 if value >= 1 else float(beta.ppf(_CERTAIN[1], right + 1, number - right))
    return Ends(low, high, "Clopper-Pearson")


def _effective(sums: np.ndarray, counts: np.ndarray, value: float) -> float:
    """Independent cases that would tell as much; at most as many as there are subjects, were they equally large."""
    subjects, cases = len(sums), float(counts.sum())
    most = float(cases**2 / np.square(counts).sum())
    variance = float(((sums - value * counts) / counts.mean()).var(ddof=1)) / subjects
    if most == cases or not 0 < value < 1 or not variance:  # one case each, or nothing known of the spread
        return most
    wider = student_t.ppf(_CERTAIN[1], cases - 1) / student_t.ppf(_CERTAIN[1], subjects - 1)
    return min(most, float(value * (1 - value) / variance * wider**2))


def area(value: float, positives: int, negatives: int) -> Ends:
    """Interval of an area under the ROC curve of independent cases: Newcombe's method 5.

    It covers 94 to 99 % of normal scores with 6 or more cases of both classes, an area of 1 included, and 90 to 99 % of
    exponential ones; less where classes of unequal spread are unequally large: 86 % with six of the wider spread
    against thirty of the other.

    Args:
        value: the area.
        positives, negatives: subjects, one case each.

    Returns:
        None below 6 of either; NaN stays.

    Source: Newcombe 2006, doi 10.1002/sim.2324.
    """
    if min(positives, negatives) < FEWEST_OF_A_CLASS:
        return none(f"below {FEWEST_OF_A_CLASS} subjects of a class")
    if math.isnan(value):
        return none("")
    half = (positives + negatives) / 2 - 1

    def reach(true: float) -> float:
        spread = 1 + half * ((1 - true) / (2 - true) + true / (1 + true))
        return _Z * math.sqrt(true * (1 - true) * spread / (positives * negatives))

    def below(true: float) -> float:
        return value - true - reach(true)

    def above(true: float) -> float:
        return true - value - reach(true)

    low = 0.0 if value <= 0 else float(brentq(below, 0.0, min(value, 1 - _EDGE)))
    high = 1.0 if value >= 1 else float(brentq(above, max(value, _EDGE), 1.0))
    return Ends(low, high, "Newcombe")


def share_or_percentiles(draws: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> Ends:
    """Interval of a share: percentiles from 20 subjects of several cases on, else as `share`.

    Args:
        draws: (D,) shares of resampled subjects.
        sums, counts: as in `share`.
    """
    known = int(np.count_nonzero(counts))
    if known < FEWEST_DRAWN or counts.max() <= 1:
        return share(sums, counts)
    return percentiles(draws, known)


def area_or_percentiles(
    draws: np.ndarray, value: float, classes: tuple[int, int], *, units: int, one_each: bool
) -> Ends:
    """Interval of an area: as `area` where subjects have one case and a class has fewer than 20, else percentiles.

    Args:
        draws: (D,) areas of resampled subjects.
        value: the area.
        classes: subjects with cases of the class, and of the others.
        units: subjects.
        one_each: whether every one has one case.
    """
    if one_each and min(classes) < FEWEST_DRAWN:
        return area(value, *classes)
    return percentiles(draws, units, smallest_class=min(classes))


def share_difference(differences: np.ndarray, counts: np.ndarray) -> Ends:
    """Interval of the difference of two shares on the same cases: Bonett and Price's, with whole subjects.

    To the subjects come two, of whom one is right by each method alone; so it has a width where the two agree on all.
    It covers 95 % or more in simulations of 6 to 40 subjects of 1 to 30 cases (Student's t: 45 to 100 %).

    Args:
        differences: (U,) cases of each subject that the first has right, less those of the second.
        counts: (U,) cases of each subject.

    Returns:
        None below 6 subjects.

    Source: Bonett and Price 2012, doi 10.3102/1076998611411915.
    """
    if len(differences) < FEWEST_UNITS:
        return none(f"below {FEWEST_UNITS} subjects")
    values = np.append(differences / counts.mean(), [1.0, -1.0])
    middle = float(values.mean())
    reach = _Z * math.sqrt(float(values.var()) / len(values))
    return Ends(max(-1.0, middle - reach), min(1.0, middle + reach), "Bonett-Price")


def sums_of_subjects(values: np.ndarray, among: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of values and number of cases of each subject.

    Args:
        values: (N,).
        among: (N,) bool, cases that count.
        unit: (N,) int, number of each case's subject.
    """
    units = int(unit.max()) + 1
    sums = np.bincount(unit[among], weights=np.asarray(values, dtype=np.float64)[among], minlength=units)
    return sums, np.bincount(unit[among], minlength=units).astype(np.float64)


def used(methods: Sequence[tuple[str, str]]) -> str:
    """Intervals named in a sentence: `Clopper-Pearson (accuracy), none below 20 subjects (F1)`.

    Args:
        methods: figure and method of its interval.
    """
    figures: dict[str, list[str]] = {}
    for figure, method in methods:
        figures.setdefault(method, []).append(figure)
    return "; ".join(f"{method} ({', '.join(dict.fromkeys(names))})" for method, names in figures.items())

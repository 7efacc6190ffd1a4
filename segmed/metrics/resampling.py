"""Subjects, each with all of its images -> intervals of the figures of classification."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.metrics.class_figures import OVERALL, PER_CLASS, Checked, check, check_unnamed, positive_index
from segmed.metrics.pooling import unit_numbers
from segmed.metrics.small_samples import (
    Ends,
    area_or_percentiles,
    none,
    percentiles,
    share_or_percentiles,
    sums_of_subjects,
)
from segmed.metrics.statistics import FEWEST_UNITS

# (N,) truth and (N, K) probabilities -> one number; NaN where it does not exist.
Metric = Callable[[np.ndarray, np.ndarray], float]

_CHUNK = 4_000_000  # weights held at once: 32 MB
_LEAST = float(np.finfo(np.float64).eps)  # of a probability whose logarithm is taken, as by scikit-learn
# Of which figure of the classes a figure of all is the mean. Areas: see `WeightedFigures.overall`.
_MEANS = {
    "balanced_accuracy": "recall",
    **{f"{mean}_{name}": name for mean in ("macro", "weighted") for name in ("precision", "recall", "f1")},
}


@dataclass(frozen=True)
class Interval:
    """95 % interval of one figure.

    Attributes:
        low, high: NaN where there is none.
        draws: how many draws had the figure.
        undefined: in how many it did not exist (a class had no case, for one).
        method: how it was found, or why there is none.
    """

    low: float
    high: float
    draws: int
    undefined: int
    method: str


@dataclass(frozen=True)
class Intervals:
    """Intervals of the figures of `figures`, under the same keys; `dataclasses.asdict` gives the JSON.

    Attributes:
        subjects: how many were drawn from.
        overall: of each key of `OVERALL`.
        per_class: of each class and key of `PER_CLASS`.
        notes: what the reader of the intervals has to know.
    """

    subjects: int
    overall: dict[str, Interval]
    per_class: dict[str, dict[str, Interval]]
    notes: tuple[str, ...]


def intervals(
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    subjects: Sequence[str] | np.ndarray,
    *,
    positive: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """95 % intervals of every figure of `figures`, over subjects.

    Images of one subject are not independent, so whole subjects are drawn. A draw in which a figure does not exist is
    left out of its interval and counted; a mean over classes exists where the figures of all the classes do that have
    one on the whole set. With few subjects percentile intervals are too short, so they stand from 20 subjects on, 6 of
    each class; below, and where every subject has one image, shares of cases have Clopper and Pearson's. Areas of one
    image a subject have Newcombe's, until both classes have 20. Of the log loss, which is skewed, Student's t would
    cover 80 to 90 % over 6 to 19 subjects: it has none there, nor has what else no method is known to cover.

    Args:
        truth, probabilities, classes, subjects: as in `check`.
        positive: as in `figures`.
        resamples: how many draws.
        seed: of the drawing; the same seed gives the same intervals.

    Raises:
        MetricError: as in `check` and `figures`.

    Source: Efron and Tibshirani 1993, chapters 13 (percentile interval) and 8 (units that are drawn whole).
    """
    checked = check(truth, probabilities, classes, subjects=subjects)
    weighted = WeightedFigures(checked, positive_index(checked.classes, positive))
    by_class: dict[str, list[np.ndarray]] = {key: [] for key in PER_CLASS}
    of_all: dict[str, list[np.ndarray]] = {key: [] for key in OVERALL}
    for weights in drawn_weights(subjects, resamples=resamples, seed=seed):
        columns = weighted.per_class(weights)
        for key in PER_CLASS:
            by_class[key].append(columns[key])
        for key in OVERALL:
            of_all[key].append(weighted.overall(key, weights, columns))
    finder = _Finder(checked, weighted, subjects)
    overall = {key: _interval(np.concatenate(values), finder.overall(key)) for key, values in of_all.items()}
    per_class = {
        name: {
            key: _interval(np.concatenate(by_class[key])[:, number], finder.of_class(key, number)) for key in PER_CLASS
        }
        for number, name in enumerate(checked.classes)
    }
    return Intervals(finder.units, overall, per_class, _notes(overall, finder.units))


def interval_of(
    metric: Metric,
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    subjects: Sequence[str] | np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of any other figure, from 20 subjects on.

    Args:
        metric: called once a draw with the truth and the probabilities of the cases that were drawn, repeated as often.
        truth, probabilities, subjects: as in `check`.
        resamples, seed: as in `intervals`.

    Raises:
        MetricError: as in `check`.
    """
    checked = check_unnamed(truth, probabilities, subjects=subjects)
    draws = [of_draws(metric, checked, weights) for weights in drawn_weights(subjects, resamples=resamples, seed=seed)]
    values, units = np.concatenate(draws), int(unit_numbers(subjects).max()) + 1
    return _interval(values, lambda known: percentiles(known, units))


def drawn_weights(subjects: Sequence[str] | np.ndarray, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each case is drawn, when as many subjects as there are get drawn with replacement.

    The subjects drawn are those of `statistics.bootstrap_ci` with the same seed and groups.

    Args:
        subjects: (N,) str.
        resamples: how many draws in all.
        seed: of the drawing.

    Yields:
        (R, N) float64, whole numbers; the R of all add up to resamples.
    """
    unit = unit_numbers(subjects)
    units = int(unit.max()) + 1
    rows = max(1, _CHUNK // len(unit))
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = generator.integers(0, units, size=(count, units))
        cells = drawn + units * np.arange(count)[:, None]
        times = np.bincount(cells.ravel(), minlength=units * count).reshape(count, units)
        yield times[:, unit].astype(np.float64)


def of_draws(metric: Metric, checked: Checked, weights: np.ndarray) -> np.ndarray:
    """(R,) a metric of the cases repeated as often as each row of weights (R, N) says."""
    repeated = (np.repeat(np.arange(weights.shape[1]), row.astype(np.intp)) for row in weights)
    return np.array([metric(checked.truth[index], checked.probabilities[index]) for index in repeated])


class WeightedFigures:
    """The figures of `figures` for many weights of the same cases at once.

    Args:
        checked: the cases.
        positive: index of the positive class; None with more than two classes.
    """

    def __init__(self, checked: Checked, positive: int | None) -> None:
        self._count = len(checked.classes)
        self.positive = positive
        self._cells = np.eye(self._count**2)[checked.truth * self._count + checked.labels]
        self._right = (checked.truth == checked.labels).astype(np.float64)
        rows = checked.probabilities / checked.probabilities.sum(axis=1, keepdims=True)
        true = np.take_along_axis(rows, checked.truth[:, None], axis=1)[:, 0]
        self._loss = -np.log(np.clip(true, _LEAST, 1 - _LEAST))
        self._ranked = [
            _Ranked(column, checked.truth == number) for number, column in enumerate(checked.probabilities.T)
        ]
        whole = self.per_class(np.ones((1, len(checked.truth))))
        self._known = {key: ~np.isnan(values[0]) for key, values in whole.items()}

    def per_class(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Keys of `PER_CLASS`: (R, K), and the support: (R, K).

        Args:
            weights: (R, N), how often each case counts.
        """
        table = (weights @ self._cells).reshape(-1, self._count, self._count)
        true, support, predicted = np.einsum("rkk->rk", table), table.sum(axis=2), table.sum(axis=1)
        areas = [ranked.areas(weights) for ranked in self._ranked]
        return {
            "precision": _ratio(true, predicted),
            "recall": _ratio(true, support),
            "f1": _ratio(2 * true, support + predicted),
            "auc": np.stack([area[0] for area in areas], axis=1),
            "average_precision": np.stack([area[1] for area in areas], axis=1),
            "support": support,
        }

    def overall(self, key: str, weights: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
        """(R,) one figure of `OVERALL`.

        Args:
            key: its name.
            weights: (R, N), how often each case counts.
            columns: of `per_class` with these weights.
        """
        if key in ("accuracy", "log_loss"):
            return weights @ (self._right if key == "accuracy" else self._loss) / weights.sum(axis=1)
        name = _MEANS.get(key, key)
        if key == name and self.positive is not None:
            return columns[name][:, self.positive]
        known = self._known[name]
        if not known.any():
            return np.full(len(weights), np.nan)
        values = columns[name][:, known]
        if not key.startswith("weighted"):
            return values.mean(axis=1)
        shares = columns["support"][:, known]
        return _ratio((np.where(shares > 0, values, 0.0) * shares).sum(axis=1), shares.sum(axis=1))


class _Ranked:
    """One class against the rest, its cases sorted by probability once for all weights."""

    def __init__(self, scores: np.ndarray, own: np.ndarray) -> None:
        self._order = np.argsort(scores, kind="stable")
        self._own = own[self._order].astype(np.float64)
        self._starts = np.flatnonzero(np.diff(scores[self._order], prepend=-np.inf) > 0)

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(R,) area under the ROC curve and (R,) average precision; NaN where the class or the rest has no weight."""
        ordered = weights[:, self._order]
        every = np.add.reduceat(ordered, self._starts, axis=1)  # of each distinct probability, ascending
        own = np.add.reduceat(ordered * self._own, self._starts, axis=1)
        rest = every - own
        positives, negatives = own.sum(axis=1), rest.sum(axis=1)
        below = np.cumsum(rest, axis=1) - rest / 2  # a tie counts half
        auc = _ratio((own * below).sum(axis=1), positives * negatives)
        called = np.cumsum(every[:, ::-1], axis=1)[:, ::-1]
        precision = _ratio(np.cumsum(own[:, ::-1], axis=1)[:, ::-1], called)
        average = _ratio(np.where(own > 0, own * precision, 0.0).sum(axis=1), positives)
        return auc, np.where(negatives > 0, average, np.nan)


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0)


def _interval(draws: np.ndarray, find: Callable[[np.ndarray], Ends]) -> Interval:
    known = draws[~np.isnan(draws)]
    ends = find(known)
    return Interval(ends.low, ends.high, int(known.size), int(draws.size - known.size), ends.method)


class _Finder:
    """What finds the interval of a figure: draws -> ends."""

    def __init__(self, checked: Checked, weighted: WeightedFigures, subjects: Sequence[str] | np.ndarray) -> None:
        self._checked, self._weighted = checked, weighted
        self._unit = unit_numbers(subjects)
        self.units = int(self._unit.max()) + 1
        self._one_each = self.units == len(self._unit)
        kinds = np.arange(len(checked.classes))
        own = [len(np.unique(self._unit[checked.truth == kind])) for kind in kinds]
        rest = [len(np.unique(self._unit[checked.truth != kind])) for kind in kinds]
        self._both = list(zip(own, rest, strict=True))
        self._smallest = min(count for count in own if count)

    def overall(self, key: str) -> Callable[[np.ndarray], Ends]:
        """Of a key of `OVERALL`."""
        checked, every = self._checked, np.ones(len(self._unit), dtype=bool)
        if key in ("accuracy", "weighted_recall"):
            return self._share(checked.labels == checked.truth, every)
        if key == "log_loss":
            return lambda draws: percentiles(draws, self.units)
        positive = self._weighted.positive
        if key in ("auc", "average_precision") and positive is not None:
            return self.of_class(key, positive)
        return lambda draws: percentiles(draws, self.units, smallest_class=self._smallest)

    def of_class(self, key: str, number: int) -> Callable[[np.ndarray], Ends]:
        """Of a key of `PER_CLASS`."""
        true, called = self._checked.truth == number, self._checked.labels == number
        if key in ("precision", "recall"):
            return self._share(true & called, called if key == "precision" else true)
        classes = self._both[number]
        if key == "auc":
            value = float(self._weighted.per_class(np.ones((1, len(self._unit))))["auc"][0, number])
            return lambda draws: area_or_percentiles(draws, value, classes, units=self.units, one_each=self._one_each)
        return lambda draws: percentiles(draws, self.units, smallest_class=min(classes))

    def _share(self, what: np.ndarray, among: np.ndarray) -> Callable[[np.ndarray], Ends]:
        """Of a share of cases; what was never called has no figure."""
        if not among.any():
            return lambda draws: none("")
        sums, counts = sums_of_subjects(what, among, self._unit)
        return lambda draws: share_or_percentiles(draws, sums, counts)


def _notes(overall: dict[str, Interval], units: int) -> tuple[str, ...]:
    if units < FEWEST_UNITS:
        return (f"{units} subject{'s' if units > 1 else ''}: below {FEWEST_UNITS} there is no interval",)
    notes = []
    fixed = [key for key, interval in overall.items() if interval.low == interval.high]
    if fixed:
        notes.append(
            f"every draw gave the same {', '.join(fixed)}: that is no certainty; where none of {units} subjects is "
            f"wrong, up to {min(1.0, 3 / units):.1%} of all may be"
        )
    partial = [f"{key} ({interval.undefined})" for key, interval in overall.items() if interval.undefined]
    if partial:
        notes.append(f"draws without a figure, left out: {', '.join(partial)}")
    return tuple(notes)

"""The rows of a method as arrays of cases and labels, with the mean over labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from segmed.errors import RunError
from segmed.evaluate.results import Method
from segmed.labels import MEAN
from segmed.metrics.mask_metrics import metric_named


class MethodTables:
    """The rows of a method as arrays; the mean over labels, where there are several, is one label more.

    Attributes:
        labels: names.
        averaged: how many of them the mean is over.
        values: metric -> (seeds, cases, labels), of those that have any figure.
        means: metric -> (cases, labels), over the seeds.
        missed: (seeds, cases, labels).
    """

    def __init__(self, method: Method, cases: Sequence[str], kinds: Mapping[str, str], metrics: Sequence[str]) -> None:
        self.name, self._cases, self._names = method.name, cases, list(kinds)
        self._rows = [{(row["case"], row["label"]): row for row in result.rows} for result in method.results]
        for rows, result in zip(self._rows, method.results, strict=True):
            if missing := next((key for key in itertools.product(cases, kinds) if key not in rows), None):
                raise RunError(f"{result.source} has no figures for '{missing[1]}' of case {missing[0]}: test again")
        own = [index for index, kind in enumerate(kinds.values()) if kind == "label"] or list(range(len(kinds)))
        self.averaged, self._own = len(own), own
        self.labels = (*kinds, MEAN) if len(own) > 1 else tuple(kinds)
        every = {metric: self._array(metric) for metric in metrics}
        known = {metric: values for metric, values in every.items() if method.constant or not np.isnan(values).all()}
        missed = self._array("missed")
        if len(own) > 1:
            means = {metric: mean_of_known(values[..., own], axis=-1) for metric, values in known.items()}
            known = {metric: _with(values, means[metric]) for metric, values in known.items()}
            missed = _with(missed, missed[..., own].sum(axis=-1))
        self.values, self.missed = known, missed
        self.means = {metric: mean_of_known(values, axis=0) for metric, values in known.items()}

    def beside(self, other: MethodTables, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Means over the labels of each case, (cases,) each: of those labels that both methods have figures of."""
        mine, theirs = (table.means[metric][:, table._own] for table in (self, other))
        known = ~(np.isnan(mine) | np.isnan(theirs))
        if (known == ~np.isnan(mine)).all() and (known == ~np.isnan(theirs)).all():
            return self.means[metric][:, -1], other.means[metric][:, -1]
        mine, theirs = (np.where(known, values, np.nan) for values in (mine, theirs))
        return mean_of_known(mine, axis=-1), mean_of_known(theirs, axis=-1)

    def lacks(self, metric: str) -> set[str]:
        """Labels without any figure in a metric, of those that the mean is over; none where all are without."""
        without = {self._names[index] for index in self._own if np.isnan(self.means[metric][:, index]).all()}
        return without if len(without) < len(self._own) else set()

    def _array(self, metric: str) -> np.ndarray:
        """(seeds, cases, labels) of the labels that have rows."""
        values = [
            [[_as_written(rows[case, name].get(metric)) for name in self._names] for case in self._cases]
            for rows in self._rows
        ]
        return np.array(values, dtype=np.float64)


def _as_written(value: float | None) -> float:
    """The value with the digits of cases.csv: else figures read from the file would differ from those just computed."""
    return math.nan if value is None else float(f"{value:.6g}")


def _with(values: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.concatenate([values, last[..., None]], axis=-1)


def lacking_notes(tables: Mapping[str, MethodTables], metrics: Sequence[str]) -> list[str]:
    """A note on each label of which a method has no figure in a metric, and another one has."""
    notes = []
    for name, table in tables.items():
        for metric in metrics:
            everywhere = set.intersection(*(other.lacks(metric) for other in tables.values()))
            if missing := sorted(table.lacks(metric) - everywhere):
                notes.append(
                    f"{name} has no {metric_named(metric).title} of {', '.join(missing)}: its mean of labels is over "
                    "the others; differences are over labels that both methods have"
                )
    return notes


def mean_of_known(values: np.ndarray, *, axis: int) -> np.ndarray:
    """The mean of the values that are not NaN; NaN where there are none."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)

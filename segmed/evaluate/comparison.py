"""Several methods on the same test cases -> means over seeds, intervals, paired tests against one of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segmed.errors import RunError
from segmed.evaluate.case_rows import MEAN, Row
from segmed.evaluate.comparable import (
    check_names,
    check_policy,
    common_labels,
    corrected,
    interval_or_none,
    or_none,
    shared_cases,
    warnings,
)
from segmed.evaluate.results import Method
from segmed.metrics.mask_metrics import metric_named, metrics_shown
from segmed.metrics.statistics import paired_difference, paired_wilcoxon, summarise


@dataclass(frozen=True)
class Figure:
    """One metric of one label by one method. What does not exist is None.

    Attributes:
        method, label, metric: whose.
        mean, sd, ci95, median, n: over the cases, each with the mean over its seeds.
        seeds: how many.
        seed_sd: SD between the means of the seeds.
        missed, chances: structures missed or invented, over all seeds, and of how many.
        difference, difference_ci95: to the reference, mean of the pairs.
        p, p_holm: of Wilcoxon's test against the reference, as it is, and corrected over the family of the metric.
    """

    method: str
    label: str
    metric: str
    mean: float | None
    sd: float | None
    ci95: tuple[float, float] | None
    median: float | None
    n: int
    seeds: int
    seed_sd: float | None
    missed: int
    chances: int
    difference: float | None = None
    difference_ci95: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The figures of a comparison, and what a reader must know of them.

    Attributes:
        methods: in the order given.
        reference: name of the method that the others are compared with.
        cases: ids of the test cases.
        subjects: case -> subject.
        labels: names, in the order of the tables; the mean over labels last, where there are several.
        kinds: label -> `label`, `region` or `mean`.
        metrics: those of which there are figures.
        figures: method, label, metric -> figure.
        values: method, metric -> (cases, labels), mean over the seeds, NaN where there is none.
        misses: method -> (cases, labels), in how many seeds the structure was missed or invented.
        families: metric -> number of tests that its p-values are corrected for.
        notes: what a reader must know so as not to be misled.
    """

    methods: tuple[Method, ...]
    reference: str
    cases: tuple[str, ...]
    subjects: Mapping[str, str]
    labels: tuple[str, ...]
    kinds: Mapping[str, str]
    metrics: tuple[str, ...]
    figures: Mapping[tuple[str, str, str], Figure]
    values: Mapping[tuple[str, str], np.ndarray]
    misses: Mapping[str, np.ndarray]
    families: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def missed_policy(self) -> str | None:
        """How a miss counts as a distance, where a result says so."""
        return next((result.missed for method in self.methods for result in method.results if result.missed), None)


def compare_methods(
    methods: Sequence[Method],
    *,
    reference: str,
    subjects: Mapping[str, str] | None = None,
    resamples: int = 2000,
    common_cases: bool = False,
    metrics: Sequence[str] | None = None,
) -> Comparison:
    """Compare methods pairwise on the same cases, never by two means.

    A case counts once, with the mean over the seeds of a method: seeds are no further patients. Intervals draw whole
    subjects, and the test takes the mean of a subject's cases. The p-values of all methods and labels (and of their
    mean) in one metric are one family of Holm's correction.

    Args:
        methods: two or more.
        reference: name of the one that the others are compared with.
        subjects: case -> subject; None: as the results say.
        resamples: of the bootstrap.
        common_cases: compare what all have been tested on, instead of refusing methods with other cases.
        metrics: columns of the rows; None: those that are shown first everywhere.

    Raises:
        RunError: a name twice or not there, other cases or labels, another policy for misses.
    """
    metrics = metrics_shown("main") if metrics is None else metrics
    check_names(methods, reference)
    check_policy(methods)
    cases, notes = shared_cases(methods, common_only=common_cases)
    kinds = common_labels(methods)
    tables = {method.name: _Tables(method, cases, kinds, metrics) for method in methods}
    if subjects is None:
        subjects = {case: subject for m in methods for r in m.results for case, subject in r.subjects.items()}
    subject_of = {case: subjects.get(case, case) for case in cases}
    groups = list(subject_of.values())
    labels = tables[reference].labels
    figures: dict[tuple[str, str, str], Figure] = {}
    families: dict[str, int] = {}
    for metric in metrics:
        if without := [name for name, table in tables.items() if metric not in table.values]:
            if len(without) < len(tables):
                notes.append(f"{metric_named(metric).title} is left out: not known for {', '.join(without)}")
            continue
        drawn = [
            _figure(table, tables[reference], metric, label, groups=groups, resamples=resamples)
            for table in tables.values()
            for label in range(len(labels))
        ]
        adjusted = corrected([figure.p for figure in drawn])
        families[metric] = sum(figure.p is not None for figure in drawn)
        for figure, p in zip(drawn, adjusted, strict=True):
            figures[figure.method, figure.label, metric] = replace(figure, p_holm=p)
    return Comparison(
        methods=tuple(methods),
        reference=reference,
        cases=cases,
        subjects=subject_of,
        labels=labels,
        kinds={**kinds, **({MEAN: "mean"} if MEAN in labels else {})},
        metrics=tuple(families),
        figures=figures,
        values={(name, metric): table.means[metric] for name, table in tables.items() for metric in families},
        misses={name: table.missed.sum(axis=0) for name, table in tables.items()},
        families=families,
        notes=(*notes, *warnings(methods, len(set(groups)), max(families.values(), default=0))),
    )


def volumes_of(methods: Sequence[Method], label: str, *, truth: str | None = None) -> list[Row]:
    """Predicted and reference volumes of a label by every run, with the method's name as their label.

    Args:
        methods: that are compared.
        label: whose volumes.
        truth: column of the volume to compare with; None: that of the reference's label map.

    Returns:
        No rows where no difference is known.
    """
    rows = [
        {**row, "label": method.name, **(_against_truth(row, truth) if truth else {})}
        for method in methods
        for result in method.results
        for row in result.rows
        if row["label"] == label and row["volume_difference_ml"] is not None and row["prediction_ml"] is not None
    ]
    return rows if any(math.isfinite(row["volume_difference_ml"]) for row in rows) else []


def _against_truth(row: Row, truth: str) -> Row:
    return {"reference_ml": row[truth], "volume_difference_ml": row["prediction_ml"] - row[truth]}


# ---------------------------------------------------------------- figures


class _Tables:
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
        self.averaged = len(own)
        self.labels = (*kinds, MEAN) if len(own) > 1 else tuple(kinds)
        every = {metric: self._array(metric) for metric in metrics}
        known = {metric: values for metric, values in every.items() if not np.isnan(values).all()}
        missed = self._array("missed")
        if len(own) > 1:
            known = {metric: _with(values, _mean(values[..., own], axis=-1)) for metric, values in known.items()}
            missed = _with(missed, missed[..., own].sum(axis=-1))
        self.values, self.missed = known, missed
        self.means = {metric: _mean(values, axis=0) for metric, values in known.items()}

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


def _figure(own: _Tables, other: _Tables, metric: str, label: int, *, groups: Sequence[str], resamples: int) -> Figure:
    every, missed = own.values[metric][..., label], own.missed[..., label]
    values, reference = own.means[metric][:, label], other.means[metric][:, label]
    summary = summarise(values, resamples=resamples, groups=groups)
    of_seeds = _mean(every, axis=1)
    against: dict[str, Any] = {}
    if own is not other:
        difference, low, high = paired_difference(values, reference, resamples=resamples, groups=groups)
        against = {
            "difference": or_none(difference),
            "difference_ci95": interval_or_none(low, high),
            "p": or_none(paired_wilcoxon(values, reference, groups=groups)),
        }
    return Figure(
        own.name,
        own.labels[label],
        metric,
        mean=summary["mean"],
        sd=summary["sd"],
        ci95=None if summary["ci95"] is None else tuple(summary["ci95"]),
        median=summary["median"],
        n=summary["n"],
        seeds=len(every),
        seed_sd=or_none(float(of_seeds.std(ddof=1))) if len(every) > 1 else None,
        missed=int(missed.sum()),
        chances=missed.size * (own.averaged if own.labels[label] == MEAN else 1),
        **against,
    )


def _mean(values: np.ndarray, *, axis: int) -> np.ndarray:
    """The mean of the values that are not NaN; NaN where there are none."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)

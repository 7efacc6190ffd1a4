"""Several methods on the same test cases -> means over seeds, intervals, paired tests against one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segmed.evaluate.case_rows import Row
from segmed.evaluate.comparable import (
    check_names,
    check_policy,
    common_labels,
    interval_or_none,
    or_none,
    shared_cases,
    warnings,
)
from segmed.evaluate.families import Family, against_of, check_families, correct, one_family
from segmed.evaluate.method_tables import MethodTables, lacking_notes, mean_of_known
from segmed.evaluate.results import Method
from segmed.evaluate.volume_agreement import MethodAgreement, agreements
from segmed.labels import MEAN
from segmed.metrics.mask_metrics import metric_named, metrics_shown
from segmed.metrics.statistics import interval_method, paired_difference, paired_wilcoxon, summarise


@dataclass(frozen=True)
class Figure:
    """One metric of one label by one method. What does not exist is None.

    Attributes:
        method, label, metric: whose.
        mean, sd, ci95, median, n: over the cases, each with the mean over its seeds.
        ci95_method: how the interval was found, or why there is none.
        seeds: how many.
        seed_sd: SD between the means of the seeds.
        missed, chances: structures missed or invented, over all seeds, and of how many.
        against: method that it is compared with: that of its family, else the reference.
        difference, difference_ci95, difference_method: to that one, mean of the pairs.
        subjects: with a difference.
        family, tests: of the test, and how many it has in this metric; None: not tested.
        p, p_holm: of Wilcoxon's test, as it is, and corrected within the family.
        no_p: why there is no p, or no corrected one; None where both are there, or nothing is tested.
    """

    method: str
    label: str
    metric: str
    mean: float | None
    sd: float | None
    ci95: tuple[float, float] | None
    ci95_method: str
    median: float | None
    n: int
    seeds: int
    seed_sd: float | None
    missed: int
    chances: int
    against: str | None = None
    difference: float | None = None
    difference_ci95: tuple[float, float] | None = None
    difference_method: str | None = None
    subjects: int = 0
    family: str | None = None
    tests: int | None = None
    p: float | None = None
    p_holm: float | None = None
    no_p: str | None = None


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
        families: of tests; within each the p-values of a metric are corrected.
        notes: what a reader must know so as not to be misled.
        agreements: of volumes, and of shares of a region, with the reference's.
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
    families: tuple[Family, ...]
    notes: tuple[str, ...]
    agreements: tuple[MethodAgreement, ...] = ()

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
    families: Sequence[Family] | None = None,
    shares: Mapping[str, Mapping[str, float]] | None = None,
) -> Comparison:
    """Compare methods pairwise on the same cases, never by two means.

    A case counts once, with the mean over the seeds of a method: seeds are no further patients. Intervals draw whole
    subjects, and the test takes the mean of a subject's cases. The p-values of a family's methods and all labels
    (and their mean) in one metric are corrected together, by Holm.

    Args:
        methods: two or more.
        reference: name of the one that the others are compared with.
        subjects: case -> subject; None: as the results say.
        resamples: of the bootstrap.
        common_cases: compare what all have been tested on, instead of refusing methods with other cases.
        metrics: columns of the rows; None: those that are shown first everywhere.
        families: of tests; a method in none has no p. None: all are one, against the reference.
        shares: as in `agreements`.

    Raises:
        RunError: a name twice or not there, other cases or labels, another policy for misses.
    """
    metrics = metrics_shown("main") if metrics is None else metrics
    check_names(methods, reference)
    names = [method.name for method in methods]
    families = one_family(names, reference) if families is None else tuple(families)
    check_families(families, names)
    check_policy(methods)
    cases, notes = shared_cases(methods, common_only=common_cases)
    subject_of = _subject_of(cases, methods, subjects)
    groups = list(subject_of.values())
    kinds = common_labels(methods)
    tables = {method.name: MethodTables(method, cases, kinds, metrics) for method in methods}
    common_metrics, left_out = _common_metrics(tables, metrics)
    left_out += lacking_notes(tables, common_metrics)
    labels = tables[reference].labels
    figures: dict[tuple[str, str, str], Figure] = {}
    for metric in common_metrics:
        of_metric = _figures(tables, reference, families, metric, groups=groups, resamples=resamples)
        figures |= {(figure.method, figure.label, metric): figure for figure in of_metric}
    return Comparison(
        methods=tuple(methods),
        reference=reference,
        cases=cases,
        subjects=subject_of,
        labels=labels,
        kinds={**kinds, **({MEAN: "mean"} if MEAN in labels else {})},
        metrics=tuple(common_metrics),
        figures=figures,
        values={(name, metric): table.means[metric] for name, table in tables.items() for metric in common_metrics},
        misses={name: table.missed.sum(axis=0) for name, table in tables.items()},
        families=tuple(families),
        agreements=agreements(methods, list(kinds), subject_of, shares=shares),
        notes=(*notes, *left_out, *warnings(methods, len(set(groups)), 0)),
    )


def _subject_of(cases: Sequence[str], methods: Sequence[Method], subjects: Mapping[str, str] | None) -> dict[str, str]:
    """Case -> subject; a case of which nothing is known is a subject of its own."""
    if subjects is None:
        subjects = {case: subject for m in methods for r in m.results for case, subject in r.subjects.items()}
    return {case: subjects.get(case, case) for case in cases}


def _common_metrics(tables: Mapping[str, MethodTables], metrics: Sequence[str]) -> tuple[list[str], list[str]]:
    """Metrics that are known for all methods, and a note on each that only some methods lack."""
    common, notes = [], []
    for metric in metrics:
        without = [name for name, table in tables.items() if metric not in table.values]
        if all(np.isnan(table.values[metric]).all() for table in tables.values() if metric in table.values):
            continue  # constant predictions alone
        if not without:
            common.append(metric)
        elif len(without) < len(tables):
            notes.append(f"{metric_named(metric).title} is left out: not known for {', '.join(without)}")
    return common, notes


def _figures(
    tables: Mapping[str, MethodTables],
    reference: str,
    families: Sequence[Family],
    metric: str,
    *,
    groups: Sequence[str],
    resamples: int,
) -> list[Figure]:
    """The figures of all methods and labels in one metric, with the p-values corrected within each family."""
    family_of = against_of(families)
    figures = []
    for name, table in tables.items():
        family = family_of.get(name)
        other = tables[reference if family is None else family.against]
        for label in range(len(tables[reference].labels)):
            figure = _figure(table, other, metric, label, groups=groups, resamples=resamples)
            figures.append(replace(figure, p=None) if family is None else replace(figure, family=family.name))
    for family in families:
        places = [n for n, figure in enumerate(figures) if figure.family == family.name and figure.subjects]
        done = correct([figures[n].p for n in places], [figures[n].subjects for n in places])
        for place, one in zip(places, done, strict=True):
            figures[place] = replace(figures[place], p=one.p, p_holm=one.p_holm, tests=one.tests, no_p=one.no_p)
    return figures


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


def _figure(
    own: MethodTables, other: MethodTables, metric: str, label: int, *, groups: Sequence[str], resamples: int
) -> Figure:
    every, missed = own.values[metric][..., label], own.missed[..., label]
    values, reference = own.means[metric][:, label], other.means[metric][:, label]
    paired = own.beside(other, metric) if own.labels[label] == MEAN else (values, reference)
    bounds = metric_named(metric).bounds
    summary = summarise(values, resamples=resamples, groups=groups, bounds=bounds)
    of_seeds = mean_of_known(every, axis=1)
    against: dict[str, Any] = {}
    if own is not other:
        pairs = len({group for group, value in zip(groups, paired[0] - paired[1], strict=True) if value == value})
        difference, low, high = paired_difference(*paired, resamples=resamples, groups=groups)
        against = {
            "against": other.name,
            "difference": or_none(difference),
            "difference_ci95": interval_or_none(low, high),
            "difference_method": interval_method(pairs),
            "subjects": pairs,
            "p": or_none(paired_wilcoxon(*paired, groups=groups)),
        }
    return Figure(
        own.name,
        own.labels[label],
        metric,
        mean=summary["mean"],
        sd=summary["sd"],
        ci95=None if summary["ci95"] is None else tuple(summary["ci95"]),
        ci95_method=summary["ci95_method"],
        median=summary["median"],
        n=summary["n"],
        seeds=len(every),
        seed_sd=or_none(float(of_seeds.std(ddof=1))) if len(every) > 1 else None,
        missed=int(missed.sum()),
        chances=missed.size * (own.averaged if own.labels[label] == MEAN else 1),
        **against,
    )

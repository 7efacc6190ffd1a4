"""Several classifiers on the same test images -> means over runs, intervals, paired tests against one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from segmed.errors import RunError
from segmed.evaluate.answers import Answers
from segmed.evaluate.classifier_runs import ClassifierMethod
from segmed.evaluate.comparable import check_names, corrected, interval_or_none, or_none, shared_cases, warnings
from segmed.evaluate.decisions import UNITS, Level, Unit, levels_of, why_not_by_subject
from segmed.metrics.classifier_tests import delong
from segmed.metrics.pooling import PoolingRule
from segmed.metrics.repeated import COMPARED, MeanFigure, exchange_test, mean_figures, paired_difference_of
from segmed.metrics.small_samples import FEWEST_OF_A_CLASS
from segmed.metrics.statistics import FEWEST_DRAWN, FEWEST_PAIRS

TestName = Literal["bootstrap", "delong"]


@dataclass(frozen=True)
class ClassifierFigure:
    """One figure of one method, by image or by subject. What does not exist is None.

    Attributes:
        method, unit, metric: whose.
        value, ci95, ci95_method: mean over its runs, its interval over subjects, and how this was found.
        calibrated: of the ECE: what calibrated probabilities would give.
        runs: how many.
        run_sd: SD between them.
        difference, difference_ci95, difference_method: to the reference.
        test: that gave p: bootstrap (paired, by subject) or delong.
        p, p_holm: against the reference, as it is, and corrected over the methods.
        mcnemar, mcnemar_holm: of the accuracy, p with the cases taken to be independent (`exchange_test`).
    """

    method: str
    unit: Unit
    metric: str
    value: float | None
    ci95: tuple[float, float] | None
    ci95_method: str
    runs: int
    run_sd: float | None
    calibrated: float | None = None
    difference: float | None = None
    difference_ci95: tuple[float, float] | None = None
    difference_method: str | None = None
    test: TestName | None = None
    p: float | None = None
    p_holm: float | None = None
    mcnemar: float | None = None
    mcnemar_holm: float | None = None


@dataclass(frozen=True)
class ClassifierComparison:
    """The figures of a comparison of classifiers, and what a reader must know of them.

    Attributes:
        methods: in the order given.
        reference: name of the method that the others are compared with.
        classes: names.
        images, subjects: how many there are.
        units: image, or image and subject.
        pool: of a subject's images to one decision.
        levels: method, unit -> what is counted, of each run, in the same order everywhere.
        figures: method, unit, metric -> figure.
        run_notes: lines that stand above every table of the runs, with the methods that they are of.
        notes: what else a reader must know so as not to be misled.
    """

    methods: tuple[ClassifierMethod, ...]
    reference: str
    classes: tuple[str, ...]
    images: int
    subjects: int
    units: tuple[Unit, ...]
    pool: PoolingRule
    levels: Mapping[tuple[str, Unit], tuple[Level, ...]]
    figures: Mapping[tuple[str, Unit, str], ClassifierFigure]
    run_notes: tuple[str, ...]
    notes: tuple[str, ...]

    def cases(self, unit: Unit) -> int:
        """How many images or subjects are counted."""
        return self.images if unit == "image" else self.subjects

    def majority(self, unit: Unit) -> tuple[str, float]:
        """The most frequent class, and the accuracy of always answering with it."""
        counts = np.bincount(self.levels[self.reference, unit][0].truth, minlength=len(self.classes))
        return self.classes[int(counts.argmax())], float(counts.max() / counts.sum())


def compare_classifiers(
    methods: Sequence[ClassifierMethod], *, reference: str, resamples: int = 2000, common_images: bool = False
) -> ClassifierComparison:
    """Compare classifiers pairwise on the same test images.

    A figure of a method is the mean of its runs' figures, as in the comparison of segmentations: a run is a seed, no
    further patient, and probabilities are not averaged over runs, since that would judge an ensemble which nobody
    trained for. Intervals and p draw whole subjects, the same ones for all methods and runs. Where all methods have
    one run and every case is a subject, the areas of two classes are tested by DeLong. Accuracies have McNemar's p
    beside it; several runs make shares of right runs that are exchanged between the methods. The p-values of all
    methods in one figure, by image or by subject, are one family of Holm's correction. With fewer than 6 subjects
    nothing is tested. Below 20 subjects nothing is bootstrapped: its intervals would be too short and its p too small.

    Args:
        methods: two or more.
        reference: name of the one that the others are compared with.
        resamples: of the bootstrap.
        common_images: compare what all have been tested on, instead of refusing methods with other images.

    Raises:
        RunError: a name twice or not there; other images or classes; an image of two classes or two subjects.
    """
    facts = [method.facts for method in methods]
    check_names(facts, reference)
    ids, notes = shared_cases(facts, common_only=common_images)
    aligned = _aligned(methods, ids)
    first = aligned[reference][0]
    pool, pool_notes = _pool(methods)
    own_subject = why_not_by_subject(first)
    units = UNITS[:1] if own_subject else UNITS
    levels: dict[tuple[str, Unit], tuple[Level, ...]] = {}
    for name, tests in aligned.items():
        of_runs = [levels_of(test, temperature=None, pool=pool, units=units) for test in tests]
        levels |= {(name, unit): tuple(own[place] for own in of_runs) for place, unit in enumerate(units)}
    figures: dict[tuple[str, Unit, str], ClassifierFigure] = {}
    for unit in units:
        of_unit = {name: levels[name, unit] for name in aligned}
        cases = len(levels[reference, unit][0].truth)
        for figure in _with_corrected_p(_figures(of_unit, reference, resamples=resamples), cases):
            figures[figure.method, unit, figure.metric] = figure
    subjects = len(set(first.subjects))
    said = warnings(facts, subjects, len(methods) - 1)
    return ClassifierComparison(
        methods=tuple(methods),
        reference=reference,
        classes=first.classes,
        images=len(ids),
        subjects=subjects,
        units=tuple(units),
        pool=pool,
        levels=levels,
        figures=figures,
        run_notes=_run_notes(methods),
        notes=tuple(dict.fromkeys([*notes, *pool_notes, *([own_subject] if own_subject else []), *said])),
    )


# ---------------------------------------------------------------- the same images


def _aligned(methods: Sequence[ClassifierMethod], ids: Sequence[str]) -> dict[str, list[Answers]]:
    """The runs of every method with the same images in the same order, and the classes of the first."""
    first = methods[0].runs[0]
    answers: dict[str, list[Answers]] = {}
    for method in methods:
        for run in method.runs:
            source, own = run.facts.source, run.answers
            if differing := sorted(set(own.classes) ^ set(first.answers.classes)):
                raise RunError(
                    f"method '{method.name}': {source} and {first.facts.source} have different classes, "
                    f"'{differing[0]}' in one alone: train both with the same data.classes"
                )
            answers.setdefault(method.name, []).append(_ordered(own, ids, first.answers.classes))
            _check_same(answers[method.name][-1], answers[methods[0].name][0], (source, first.facts.source))
    return answers


def _ordered(answers: Answers, ids: Sequence[str], classes: tuple[str, ...]) -> Answers:
    place = {name: row for row, name in enumerate(answers.ids)}
    rows = [place[name] for name in ids]
    columns = [answers.classes.index(name) for name in classes]
    return Answers(
        classes,
        tuple(ids),
        tuple(answers.subjects[row] for row in rows),
        np.argsort(columns)[answers.truth[rows]],
        answers.logits[rows][:, columns],
    )


def _check_same(own: Answers, other: Answers, sources: tuple[str, str]) -> None:
    """See that an image has one class and one subject, whoever tested it."""
    wrong = np.flatnonzero(own.truth != other.truth)
    if wrong.size:
        said = [test.classes[test.truth[wrong[0]]] for test in (own, other)]
        raise RunError(
            f"image '{own.ids[wrong[0]]}' is of class '{said[0]}' in {sources[0]} and of '{said[1]}' in {sources[1]}: "
            "train both with the same data.classes"
        )
    pairs = zip(own.ids, own.subjects, other.subjects, strict=True)
    if mixed := next(((name, a, b) for name, a, b in pairs if a != b), None):
        raise RunError(
            f"image '{mixed[0]}' is of subject '{mixed[1]}' in {sources[0]} and of '{mixed[2]}' in {sources[1]}: train "
            "both with the same data.subject"
        )


def _pool(methods: Sequence[ClassifierMethod]) -> tuple[PoolingRule, list[str]]:
    """The rule of all runs; the mean, and a note, where they differ."""
    rules = list(dict.fromkeys(run.pool for method in methods for run in method.runs))
    if len(rules) == 1:
        return rules[0], []
    return "mean", [f"the runs pool a subject's images differently ({', '.join(rules)}): here all take the mean"]


def _run_notes(methods: Sequence[ClassifierMethod]) -> tuple[str, ...]:
    """Notes of the runs, each once, with the methods whose note it is where it is not that of all runs."""
    every = sum(len(method.runs) for method in methods)
    owners: dict[str, list[str]] = {}
    for method in methods:
        for run in method.runs:
            for note in dict.fromkeys(run.notes):
                owners.setdefault(note, []).append(method.name)
    return tuple(
        note if len(names) == every else f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in owners.items()
    )


# ---------------------------------------------------------------- figures and tests


def _figures(of_unit: Mapping[str, Sequence[Level]], reference: str, *, resamples: int) -> list[ClassifierFigure]:
    """Every figure of every method by image or by subject; p-values are not corrected yet."""
    first = of_unit[reference][0]
    drawn = {
        name: mean_figures(first.truth, [level.probabilities for level in runs], first.subjects, resamples=resamples)
        for name, runs in of_unit.items()
    }
    by_delong = (
        all(len(runs) == 1 for runs in of_unit.values())
        and len(set(first.subjects)) == len(first.names)
        and first.probabilities.shape[1] == 2
    )
    rows = []
    for name, figures in drawn.items():
        for metric in COMPARED:
            figure = _alone(name, first.unit, metric, figures[metric])
            if name != reference:
                figure = replace(figure, **_bootstrapped(metric, figures[metric], drawn[reference][metric]))
                if metric == "auc" and by_delong:
                    figure = replace(figure, **_by_delong(of_unit[name][0], of_unit[reference][0]))
                if metric == "accuracy" and figures[metric].subjects >= FEWEST_PAIRS:
                    own, other = (
                        [level.probabilities.argmax(axis=1) for level in of_unit[n]] for n in (name, reference)
                    )
                    figure = replace(figure, mcnemar=exchange_test(first.truth, own, other))
            rows.append(figure)
    return rows


def _alone(name: str, unit: Unit, metric: str, figure: MeanFigure) -> ClassifierFigure:
    runs = len(figure.of_runs)
    sd = float(figure.of_runs.std(ddof=1)) if runs > 1 else math.nan
    return ClassifierFigure(
        name,
        unit,
        metric,
        or_none(figure.value),
        interval_or_none(figure.ends.low, figure.ends.high),
        figure.ends.method,
        runs,
        or_none(sd),
        figure.calibrated,
    )


def _bootstrapped(metric: str, own: MeanFigure, reference: MeanFigure) -> dict[str, Any]:
    difference = paired_difference_of(metric, own, reference)
    p = or_none(difference.p)
    return {
        "difference": or_none(difference.difference),
        "difference_ci95": interval_or_none(difference.low, difference.high),
        "difference_method": difference.method,
        "test": None if p is None else "bootstrap",
        "p": p,
    }


def _by_delong(own: Level, reference: Level) -> dict[str, Any]:
    """Nothing where it can't be done: the bootstrap's stays.

    Equal areas are told apart by chance in 0 to 7 % of sets with 6 of either class, so p stands from there on. The
    interval of areas that differ covers 78 to 93 % then, and 90 % or more from 20 of either class on.
    """
    test = delong(own.truth == 1, own.probabilities[:, 1], reference.probabilities[:, 1])
    fewest = min(test.positives, test.negatives)
    if math.isnan(test.p) or fewest < FEWEST_OF_A_CLASS:
        return {"difference_ci95": None, "difference_method": f"none below {FEWEST_OF_A_CLASS} subjects of a class"}
    if fewest < FEWEST_DRAWN:
        why = f"none below {FEWEST_DRAWN} subjects of a class"
        return {"difference_ci95": None, "difference_method": why, "test": "delong", "p": test.p}
    ends = interval_or_none(test.low, test.high)
    return {"difference_ci95": ends, "difference_method": "DeLong", "test": "delong", "p": test.p}


def _with_corrected_p(figures: Sequence[ClassifierFigure], cases: int) -> list[ClassifierFigure]:
    """Holm's correction over the methods, of each figure and of McNemar's p apart."""
    done: list[ClassifierFigure] = []
    for metric in COMPARED:
        family = [figure for figure in figures if figure.metric == metric]
        adjusted = zip(
            family, corrected([f.p for f in family]), corrected([f.mcnemar for f in family], units=cases), strict=True
        )
        done += [replace(figure, p_holm=p, mcnemar_holm=other) for figure, p, other in adjusted]
    return done

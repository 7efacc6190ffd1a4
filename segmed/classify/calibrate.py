"""Images that a classifier never saw, with their classes: the evidence from which it gives sets of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from segmed.builders.trained import load_classifier
from segmed.classify.predict import choices_of
from segmed.classify.prepare import known_cache
from segmed.classify.validate import Images
from segmed.config.classification import ClassificationConfig
from segmed.data.images.image_cache import ImageCache
from segmed.data.images.image_dataset import read_classes
from segmed.data.images.image_splits import ClassSplit
from segmed.errors import ConfigError, DatasetError, MetricError
from segmed.evaluate.answers import Answers, read_answers
from segmed.machine import this_machine
from segmed.runs import Folds, Run, holding, open_run, read_class_config, runs_of
from segmed.trust.conformal import borne_level, subjects_needed, too_few
from segmed.trust.evidence import checked, read_calibration, save_evidence
from segmed.trust.prediction_sets import ClassEvidence, ClassEvidenceCase, PredictionSets

USUAL_LEVEL = 0.9


def calibrate(folder: Path, data: Path | None, *, device: str) -> list[str]:
    """Calibrate a classification run, and keep the evidence in its folder.

    Args:
        folder: of a run, or of a cross-validation.
        data: classes of images in the run's layout; None: the answers of the run's test, or of all folds' tests.
        device: that computes.

    Returns:
        What it says of itself, a line each.

    Raises:
        ConfigError: a cross-validation with data, or no test part.
        MetricError: too few subjects.
        DatasetError: no image that the run did not learn from.
    """
    runs = runs_of(folder)
    if data is not None and len(runs) > 1:
        raise ConfigError(f"{folder} is a cross-validation, whose folds calibrate themselves: leave out --data")
    with holding(folder):
        if data is None:
            return kept(_tested(runs), runs, folder, f"{len(runs)} folds' tests" if len(runs) > 1 else "the run's test")
        answers, notes = _new_answers(open_run(folder), data, device)
        return [*notes, *kept([answers], runs, folder, f"images of {data.name}")]


def calibrate_folds(folds: Folds) -> None:
    """Calibrate a cross-validation that is done by the tests of its folds, and print what it gives.

    Too few subjects stop nothing: it is said that there are no sets, and why.
    """
    try:
        runs = folds.runs()
        lines = kept(_tested(runs), runs, folds.path, f"{len(runs)} folds' tests")
    except (MetricError, ConfigError) as error:
        lines = [f"no sets of classes: {error}"]
    print("\n".join(f"trust:    {line}" for line in lines))


def kept(answers: Sequence[Answers], runs: Sequence[Run], folder: Path, words: str) -> list[str]:
    """Write the evidence of each run's answers; gives what it is worth, a line each.

    Raises:
        MetricError: too few subjects.
    """
    names = dict.fromkeys(subject for each in answers for subject in each.subjects)
    if len(names) < subjects_needed(USUAL_LEVEL):
        raise MetricError(too_few(USUAL_LEVEL, len(names)))
    numbers = {subject: number for number, subject in enumerate(names)}
    cases = []
    for member, (run, each) in enumerate(zip(runs, answers, strict=True)):
        temperature = choices_of(run.path)["temperature"]
        probabilities = each.probabilities if temperature is None else each.calibrated(temperature)
        for subject, truth, row in zip(each.subjects, each.truth, probabilities, strict=True):
            shares = tuple(round(float(value), 6) for value in row)
            case = ClassEvidenceCase(subject=numbers[subject], member=member, truth=int(truth), probabilities=shares)
            cases.append(case)
    evidence = ClassEvidence(
        weights=tuple(digest_of(run) for run in runs),
        classes=answers[0].classes,
        drawn_from=f"{len(cases)} images of {len(names)} subjects: {words}",
        cases=tuple(cases),
    )
    path = save_evidence(evidence, folder)
    return [f"calibrated by {evidence.drawn_from}: {path}", _by_halves(evidence)]


def read_class_evidence(runs: Sequence[Path]) -> ClassEvidence | None:
    """The evidence for runs that answer together: that of the one run, or of the cross-validation whose folds they are.

    None where there is none, or it is of other networks.

    Raises:
        RunError: it is damaged, of another version or another kind.
    """
    places = {run.resolve().parent for run in runs} if len(runs) > 1 else {Path(runs[0])}
    if len(places) > 1:
        return None
    folder = places.pop()
    data = read_calibration(folder)
    if data is None:
        return None
    evidence = checked(ClassEvidence, data, folder)
    return evidence if evidence.weights == tuple(digest_of(Run(run)) for run in runs) else None


def digest_of(run: Run) -> str:
    """Tells weights apart."""
    return hashlib.sha256(run.weights("best").read_bytes()).hexdigest()


def _tested(runs: Sequence[Run]) -> list[Answers]:
    """The answers of each run's test.

    Raises:
        ConfigError: a run has no test part.
    """
    for run in runs:
        if not (run.test / "predictions.csv").is_file():
            raise ConfigError(f"{run.path} has no test: give --data, classes of images that it never saw")
    return [read_answers(run.test / "predictions.csv") for run in runs]


def _new_answers(run: Run, data: Path, device: str) -> tuple[Answers, list[str]]:
    """What a run says of images that it did not learn from."""
    config: ClassificationConfig = read_class_config(run)
    split = ClassSplit.load(run.split)
    dataset = read_classes(config.data.model_copy(update={"root": data}))
    if dataset.classes != tuple(config.data.classes):
        raise DatasetError(f"{data} has the classes {', '.join(dataset.classes)}, the run others: give its classes")
    seen = {*split.train, *split.validation}
    new = tuple(item.id for item in dataset.items if item.id not in seen)
    if not new:
        raise DatasetError(f"the run has learned from all images of {data}: give others")
    arrays = ImageCache(known_cache(config)).get(dataset.items, config.image, workers=this_machine().cores)
    parts = replace(split, train=(), validation=(), test=new)
    answers = Images(dataset, parts, arrays, config.train.batch_size).answers(
        load_classifier(run.path, device=device), "test"
    )
    count = len(dataset.items) - len(new)
    return answers, [f"{count} images trained or selected the run and are left out"] if count else []


def _by_halves(evidence: ClassEvidence) -> str:
    """How often sets hold for images of the half of the subjects that did not calibrate them, in one line."""
    level = min(USUAL_LEVEL, borne_level(evidence.subjects // 2))
    sizes, hits = [], []
    for half in (0, 1):
        others = tuple(case for case in evidence.cases if case.subject % 2 != half)
        sets = PredictionSets(evidence.model_copy(update={"cases": others}), level)
        for case in (case for case in evidence.cases if case.subject % 2 == half):
            classes = sets.classes(np.tile(case.probabilities, (len(evidence.weights), 1)))
            sizes.append(len(classes))
            hits.append(evidence.classes[case.truth] in classes)
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(0.95, "exact")
    return (
        f"each half of the subjects by the other: {100 * level:.3g} % sets hold the true class in "
        f"{sum(hits)}/{len(hits)} ({100 * interval.low:.0f} to {100 * interval.high:.0f} %), one class alone in "
        f"{sizes.count(1)}"
    )

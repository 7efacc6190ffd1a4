"""Cases that a run never saw, segmented and compared with their truth: the evidence that calibrates it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from rich.progress import track

from segmed.builders.datasets import build_dataset
from segmed.builders.ensembles import Member, members_of
from segmed.builders.observed import USUAL_LEVEL, Observed, inference_settings, load_observed
from segmed.config import PHANTOM_FILES, PhantomLayout, SegmentationConfig, known
from segmed.data.cases import Case, Dataset, cases_of, read_dataset
from segmed.data.field_of_view import probabilities_inside
from segmed.data.learned import learned_split
from segmed.data.preprocess import read_case
from segmed.data.splits import Split
from segmed.errors import ConfigError, DatasetError, MetricError, RunError
from segmed.labels import IGNORE
from segmed.metrics.mask_metrics import overlaps
from segmed.runs import Folds, Run, holding
from segmed.segmenters.segmenter import decide
from segmed.trust.assessment import assess, assessment_lines, judged_by_halves
from segmed.trust.conformal import borne_level, subjects_needed
from segmed.trust.evidence import FILE, CaseEvidence, Evidence, StructureEvidence, read_evidence, save_evidence
from segmed.trust.observer import Predictor
from segmed.trust.signs import scan_signs

FAILURE_DICE = 0.7
FEWEST = 5  # subjects: fewer say nothing of a spread


def calibrate(
    folder: Path,
    data: Path | None,
    *,
    device: str,
    failure_dice: float = FAILURE_DICE,
    progress: bool = False,
) -> list[str]:
    """Calibrate a run, and keep the evidence in its folder.

    Args:
        folder: of a run, or of a cross-validation.
        data: labelled cases; None: out of fold, or the run's test part.
        device: that computes.
        failure_dice: a Dice below it is called a failure.
        progress: show a bar.

    Returns:
        What it says of itself, a line each.

    Raises:
        MetricError: too few subjects.
        DatasetError: no case that the run did not learn from.
    """
    members = members_of(folder)
    with holding(folder):
        if data is None and Folds(folder).begun:
            evidence, notes = out_of_fold_evidence(members, device=device, failure_dice=failure_dice), list[str]()
        else:
            dataset, cases, notes = unseen(folder, members[0].config, data)
            evidence = held_out_evidence(
                members, cases, dataset, device=device, failure_dice=failure_dice, progress=progress
            )
        return [*notes, *kept(evidence, folder)]


def calibrate_folds(folds: Folds, *, device: str) -> None:
    """Calibrate a cross-validation that is done by its own cases, once for the same networks, and print what it gives.

    Too few cases stop nothing: it is said that there are no intervals, and why.

    Args:
        folds: all done, with the settings that were chosen for them.
        device: that computes.
    """
    members = members_of(folds.path)
    try:
        evidence = read_evidence(folds.path)
    except RunError:
        evidence = None
    weights, settings = tuple(member.digest for member in members), inference_settings(members)
    if evidence is not None and evidence.weights == weights and evidence.settings == settings:
        print(f"trust:   calibrated before: {folds.path / FILE}")
        return
    try:
        lines = kept(out_of_fold_evidence(members, device=device), folds.path)
    except MetricError as error:
        lines = [f"no intervals: {error}"]
    print("\n".join(f"trust:   {line}" for line in lines))


def kept(evidence: Evidence, folder: Path) -> list[str]:
    """Write evidence into the folder of a run; gives what it is worth, a line each."""
    path = save_evidence(evidence, folder)
    most = math.floor(1000 * borne_level(evidence.subjects)) / 10
    lines = [f"calibrated by {evidence.drawn_from}; {evidence.subjects} subjects bear levels up to {most:g} %: {path}"]
    level = min(USUAL_LEVEL, borne_level(evidence.subjects // 2))
    figures = assess(evidence.cases, judged_by_halves(evidence, level), evidence.failure_dice)
    return [
        *lines,
        "each half of the subjects judged by the other:",
        *(f"  {line}" for line in assessment_lines(figures)),
    ]


def unseen(folder: Path, config: SegmentationConfig, data: Path | None) -> tuple[Dataset, list[Case], list[str]]:
    """Labelled cases that no network of a run learned from, and what is to be said of the others."""
    learned = learned_split(folder)
    if data is None:
        if not learned.test:
            raise ConfigError(f"{folder} has no test part: give --data, a folder of labelled cases that it never saw")
        dataset = build_dataset(config)
        return dataset, list(cases_of(dataset, learned.test)), []
    if not data.is_dir():
        raise DatasetError(f"{data} is not a folder: give --data the folder of labelled cases")
    layout = PHANTOM_FILES if isinstance(config.data.layout, PhantomLayout) else config.data.layout
    dataset = read_dataset(config.data.model_copy(update={"root": data, "layout": layout}))
    seen = {*learned.train, *learned.validation, *learned.unlabelled}
    new = [case for case in dataset.cases if case.label is not None and case.id not in seen]
    if not new:
        raise DatasetError(f"the run has learned from all labelled cases of {data}: give others")
    count = sum(case.id in seen for case in dataset.cases)
    return dataset, new, [f"{count} cases trained or selected the run and are left out"] if count else []


def out_of_fold_evidence(members: Sequence[Member], *, device: str, failure_dice: float = FAILURE_DICE) -> Evidence:
    """Every case of a cross-validation, segmented by the one fold that did not learn from it.

    Raises:
        MetricError: too few subjects.
    """
    dataset = build_dataset(members[0].config)
    parts = [cases_of(dataset, Split.load(Run(member.run).split).test) for member in members]
    parts = [[case for case in part if case.label is not None] for part in parts]
    _check_enough([case for part in parts for case in part])
    subjects, pieces, rows = _numbers(dataset.cases), _pieces(members), list[CaseEvidence]()
    for number, (member, part) in enumerate(zip(members, parts, strict=True)):
        observed = load_observed([member], predictor="members", device=device, changes=pieces)
        rows += [shown_case(observed, case, dataset, member=number, subject=subjects[case.subject]) for case in part]
    words = f"{len(rows)} cases, each segmented by the one of {len(members)} folds that did not learn from it"
    return _evidence(members, rows, predictor="members", drawn_from=words, failure_dice=failure_dice)


def held_out_evidence(
    members: Sequence[Member],
    cases: Sequence[Case],
    dataset: Dataset,
    *,
    device: str,
    failure_dice: float = FAILURE_DICE,
    progress: bool = False,
) -> Evidence:
    """Cases that no network learned from, segmented by all of them together.

    Args:
        members: of the run.
        cases: of the data set.
        dataset: with labels.
        device, failure_dice, progress: as in `calibrate`.

    Raises:
        MetricError: too few subjects.
    """
    cases = [case for case in cases if case.label is not None]
    _check_enough(cases)
    observed = load_observed(members, predictor="whole", device=device)
    subjects = _numbers(cases)
    rows = [
        shown_case(observed, case, dataset, subject=subjects[case.subject])
        for case in track(cases, "calibrating", disable=not progress)
    ]
    words = f"{len(cases)} cases that no network learned from"
    return _evidence(members, rows, predictor="whole", drawn_from=words, failure_dice=failure_dice)


def _check_enough(cases: Sequence[Case]) -> None:
    subjects = len({case.subject for case in cases})
    if subjects < FEWEST:
        most = math.floor(1000 * borne_level(subjects)) / 10
        raise MetricError(
            f"{subjects} subjects with labels bear a level of {most:g} % at most: calibrate with {FEWEST} or more, "
            f"{subjects_needed(USUAL_LEVEL)} bear 90 %"
        )


def _numbers(cases: Iterable[Case]) -> dict[str, int]:
    """Subject -> a number in place of its name."""
    return {subject: number for number, subject in enumerate(dict.fromkeys(case.subject for case in cases))}


def _pieces(members: Sequence[Member]) -> dict[str, Any]:
    """The pieces that are cleaned of all members together, as fields of `inference`."""
    settings = inference_settings(members)
    return {name: settings[name] for name in ("largest_component", "smallest_ml")}


def shown_case(
    observed: Observed,
    case: Case,
    dataset: Dataset,
    *,
    subject: int,
    member: int = 0,
    change: Callable[[MetaTensor], MetaTensor] = lambda image: image,
) -> CaseEvidence:
    """What is shown of a labelled case, and how good it is.

    Args:
        observed: what segments it.
        case: of the data set.
        dataset: with labels.
        subject: its number.
        member: which predictor it is.
        change: of the image (C, X, Y, Z), where another kind of scan is wanted.

    Raises:
        DatasetError: it has no label map.
    """
    image, label = read_case(case, dataset)
    image = change(image)
    if label is None:
        raise DatasetError(f"case {case.id} has no label map: leave it out")
    probabilities = probabilities_inside(observed.segmenter.probabilities(image), case)
    indices = decide(probabilities.as_tensor(), observed.segmenter.labels).numpy(force=True)
    (signs,) = observed.observer.signs(image, probabilities, indices)
    counted = label.numpy()[0] != IGNORE
    predicted = dataset.labels.masks(np.where(counted, indices, 0))
    true = dataset.labels.masks(np.where(counted, label.numpy()[0], 0))
    unit = observed.observer.unit(image)
    structures = {
        name: StructureEvidence(
            signs=signs[name], volume=float(mask.sum()) * unit, dice=overlaps(predicted[name], mask)["dice"]
        )
        for name, mask in true.items()
    }
    return CaseEvidence(
        subject=subject,
        member=member,
        scan=scan_signs(image),
        structures=structures,
    )


def _evidence(
    members: Sequence[Member],
    rows: Sequence[CaseEvidence],
    *,
    predictor: Predictor,
    drawn_from: str,
    failure_dice: float,
) -> Evidence:
    data = members[0].config.data
    return Evidence(
        predictor=predictor,
        weights=tuple(member.digest for member in members),
        settings=inference_settings(members),
        drawn_from=drawn_from,
        images=known(data.images),
        volume_unit="ml" if data.spacing_known else "voxels",
        failure_dice=failure_dice,
        cases=tuple(rows),
    )

"""Cases that a run never saw, segmented and compared with their truth: the evidence that calibrates it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segmed.builders.datasets import build_dataset
from segmed.builders.ensembles import Member
from segmed.builders.observed import Observed, inference_settings, load_observed
from segmed.config import known
from segmed.data.cases import Case, Dataset, cases_of
from segmed.data.field_of_view import probabilities_inside
from segmed.data.preprocess import read_case
from segmed.data.splits import Split
from segmed.errors import DatasetError, MetricError
from segmed.labels import IGNORE
from segmed.metrics.mask_metrics import overlaps
from segmed.runs import Run
from segmed.segmenters.segmenter import decide
from segmed.trust.conformal import borne_level, subjects_needed
from segmed.trust.evidence import CaseEvidence, Evidence, StructureEvidence
from segmed.trust.signs import scan_signs
from segmed.volumes import spacing_mm

FAILURE_DICE = 0.7
FEWEST = 5  # subjects: fewer say nothing of a spread


def out_of_fold_evidence(members: Sequence[Member], *, device: str, failure_dice: float = FAILURE_DICE) -> Evidence:
    """Every case of a cross-validation, segmented by the one fold that did not learn from it.

    Raises:
        MetricError: too few subjects.
    """
    dataset = build_dataset(members[0].config)
    parts = [cases_of(dataset, Split.load(Run(member.run).split).test) for member in members]
    parts = [[case for case in part if case.label is not None] for part in parts]
    _check_enough([case for part in parts for case in part])

    def rows() -> Iterator[CaseEvidence]:
        for number, (member, part) in enumerate(zip(members, parts, strict=True)):
            observed = load_observed([member], predictor="members", device=device, changes=_pieces(members))
            yield from _rows(observed, part, dataset, member=number, subjects=_numbers(dataset.cases))

    words = f"{sum(map(len, parts))} cases, each segmented by the fold of {len(members)} that did not learn from it"
    return _evidence(members, rows(), predictor="members", drawn_from=words, failure_dice=failure_dice)


def held_out_evidence(
    members: Sequence[Member],
    cases: Sequence[Case],
    dataset: Dataset,
    *,
    device: str,
    failure_dice: float = FAILURE_DICE,
    done: Callable[[str], None] = lambda case: None,
) -> Evidence:
    """Cases that no network learned from, segmented by all of them together.

    Args:
        members: of the run.
        cases: of the data set.
        dataset: with labels.
        device: that computes.
        failure_dice: a Dice below it is called a failure.
        done: called with the id of each case that is ready.

    Raises:
        MetricError: too few subjects.
    """
    cases = [case for case in cases if case.label is not None]
    _check_enough(cases)
    observed = load_observed(members, predictor="whole", device=device)

    def rows() -> Iterator[CaseEvidence]:
        for row, case in zip(_rows(observed, cases, dataset, member=0, subjects=_numbers(cases)), cases, strict=True):
            done(case.id)
            yield row

    words = f"{len(cases)} cases that no network learned from"
    return _evidence(members, rows(), predictor="whole", drawn_from=words, failure_dice=failure_dice)


def enough_said(evidence: Evidence) -> str:
    """What so many subjects bear, in one line."""
    most = np.floor(1000 * borne_level(evidence.subjects)) / 10
    return f"{evidence.drawn_from}; {evidence.subjects} subjects bear levels up to {most:g} %"


def _check_enough(cases: Sequence[Case]) -> None:
    subjects = len({case.subject for case in cases})
    if subjects < FEWEST:
        most = np.floor(1000 * borne_level(subjects)) / 10
        raise MetricError(
            f"{subjects} subjects with labels bear a level of {most:g} % at most: calibrate with {FEWEST} or more, "
            f"{subjects_needed(0.9)} bear 90 %"
        )


def _numbers(cases: Iterable[Case]) -> dict[str, int]:
    """Subject -> a number in place of its name."""
    return {subject: number for number, subject in enumerate(dict.fromkeys(case.subject for case in cases))}


def _pieces(members: Sequence[Member]) -> dict[str, Any]:
    """The pieces that are cleaned of all members together, as fields of `inference`."""
    settings = inference_settings(members)
    return {name: settings[name] for name in ("largest_component", "smallest_ml")}


def _rows(
    observed: Observed, cases: Sequence[Case], dataset: Dataset, *, member: int, subjects: Mapping[str, int]
) -> Iterator[CaseEvidence]:
    """What was shown of each case, and how good it was."""
    for case in cases:
        image, label = read_case(case, dataset)
        if label is None:
            raise DatasetError(f"case {case.id} has no label map: leave it out")
        probabilities = probabilities_inside(observed.segmenter.probabilities(image), case)
        indices = decide(probabilities.as_tensor(), dataset.labels).numpy(force=True)
        (signs,) = observed.observer.signs(image, probabilities, indices)
        reference = label.numpy()[0]
        indices = np.where(reference == IGNORE, 0, indices)
        reference = np.where(reference == IGNORE, 0, reference)
        predicted, true = dataset.labels.masks(indices), dataset.labels.masks(reference)
        voxel_ml = float(np.prod(spacing_mm(image.affine))) / 1000 if observed.spacing_known else 1.0
        structures = {
            name: StructureEvidence(
                signs=signs[name],
                volume=float(mask.sum()) * voxel_ml,
                dice=overlaps(predicted[name], mask)["dice"],
            )
            for name, mask in true.items()
        }
        yield CaseEvidence(subject=subjects[case.subject], member=member, scan=scan_signs(image), structures=structures)


def _evidence(
    members: Sequence[Member], rows: Iterable[CaseEvidence], *, predictor: Any, drawn_from: str, failure_dice: float
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

"""Files of predictions and references -> rows of figures, many cases at once; a bad file costs its own case only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.config import DataConfig, EvaluateConfig
from segmed.data.cases import find_volumes
from segmed.data.field_of_view import read_field_of_view
from segmed.data.label_shares import resample_labels
from segmed.data.pairs import Pairing, pair
from segmed.data.references import Reference
from segmed.data.subjects import UNKNOWN
from segmed.errors import DatasetError, GeometryError, VolumeError
from segmed.evaluate.case_rows import Row, absent_case, evaluate_case
from segmed.evaluate.case_volumes import CaseVolumes
from segmed.evaluate.results import Result, first_few, predicting_seconds
from segmed.evaluate.structures import Structures, encode_known
from segmed.geometry import reversed_axes
from segmed.labels import IGNORE, LabelSet
from segmed.machine import cores
from segmed.volumes import (
    Source,
    grid_difference,
    is_picture,
    read_label_volume,
    read_volume,
    resample_onto,
    spacing_mm,
    strip_suffix,
    to_canonical,
)

BY_PRODUCTS = ("probabilities", "uncertainty")  # folders of what segmed predict keeps beside label maps


def known_structures(data: DataConfig | None, named: LabelSet | None, ignore: Sequence[int] = ()) -> Structures:
    """The structures to score where the command line names none: the labels of a run, else those of the data set.

    Args:
        data: section of the run's config, if there is a run.
        named: of the references' dataset.json, if there is one.
        ignore: values of the references that are not scored, besides those of the run.

    Raises:
        VolumeError: neither names labels.
    """
    if data is not None and isinstance(data.labels, dict):
        return Structures.of(LabelSet.from_config(data.labels, (*data.ignore, *ignore), data.regions, data.background))
    if named is not None and len(named):
        return Structures.of(named)
    raise VolumeError("no labels: give --labels, such as --labels myocardium=200,1220 scar=2221, or --run")


def pair_folder(folder: Path, references: Sequence[Reference], *, besides: Path | None = None) -> Pairing:
    """The predictions of a folder and the references that they belong to.

    Args:
        folder: label maps, at any depth; what `segmed predict` keeps beside them, probabilities and uncertainty, is
            no label map.
        references: of `find_references`.
        besides: a folder within it whose files are none.

    Raises:
        DatasetError: none belongs to a reference, or one to several.
    """
    out = None if besides is None else besides.resolve()
    files = [path for path in find_volumes(folder) if out is None or not path.resolve().is_relative_to(out)]
    files = [path for path in files if not _is_by_product(path.relative_to(folder))] if folder.is_dir() else files
    pairing = pair(files, references, folder=folder)
    if not pairing.predictions:
        raise DatasetError(
            f"no prediction fits a reference: {folder} holds {first_few([path.name for path in pairing.unused])}, the "
            f"references are {first_few(pairing.missing)}; name the files alike"
        )
    return pairing


def _is_by_product(path: Path) -> bool:
    """Whether a file below a folder of predictions is one of those that `segmed predict` writes beside label maps."""
    return path.parts[0] in BY_PRODUCTS and strip_suffix(path).endswith(f"_{path.parts[0]}")


@dataclass(frozen=True)
class Scoring:
    """How cases are scored.

    Attributes:
        structures: what is scored.
        config: tolerance, policy for misses.
        spacing_known: False: no figure in mm or ml.
        resample: bring a prediction on another grid onto that of its reference, by the nearest voxel.
    """

    structures: Structures
    config: EvaluateConfig
    spacing_known: bool = True
    resample: bool = False


@dataclass(frozen=True)
class Scores:
    """The rows of all cases that could be scored, and what could not.

    Attributes:
        rows: of the cases that could be scored, in the order of the references.
        failed: case -> why it could not.
        strange: values that no label has, found in predictions but in no reference -> in how many predictions.
        absent: names of structures that no reference holds.
    """

    rows: tuple[Row, ...]
    failed: Mapping[str, str]
    strange: Mapping[int, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class _CaseScores:
    rows: list[Row]
    present: frozenset[str]  # structures in the reference
    unscored: tuple[int, ...]  # values of the reference that no label has
    strange: tuple[int, ...]  # those of the prediction


def score_cases(
    references: Sequence[Reference],
    predictions: Mapping[str, Path],
    scoring: Scoring,
    *,
    workers: int = 1,
    done: Callable[[str], None] = lambda case: None,
) -> Scores:
    """Score many cases in parallel.

    Threads, not processes: reading, unpacking and distances run outside the interpreter's lock, and nothing has to be
    imported again or sent to another process.

    Args:
        references: of the cases to score.
        predictions: case -> file; a case without one is missed as a whole.
        scoring: what is scored, and how.
        workers: cases at once.
        done: called with the id of each case that is ready.
    """
    scores: dict[str, _CaseScores] = {}
    failed: dict[str, str] = {}
    for case, result in _in_parallel(references, predictions, scoring, workers):
        if isinstance(result, Exception):
            failed[case] = " ".join(str(result).split())
        else:
            scores[case] = result
        done(case)
    ordered = [scores[reference.id] for reference in references if reference.id in scores]
    unscored = {value for case in ordered for value in case.unscored}
    strange = Counter(value for case in ordered for value in case.strange if value not in unscored)
    present = frozenset().union(*(case.present for case in ordered))
    absent = tuple(name for name in scoring.structures.shown if name not in present) if ordered else ()
    rows = tuple(row for case in ordered for row in case.rows)
    return Scores(
        rows, {r.id: failed[r.id] for r in references if r.id in failed}, dict(sorted(strange.items())), absent
    )


def _in_parallel(
    references: Sequence[Reference], predictions: Mapping[str, Path], scoring: Scoring, workers: int
) -> Iterator[tuple[str, _CaseScores | Exception]]:
    with ThreadPoolExecutor(max(1, min(workers, len(references) or 1))) as pool:
        jobs = {
            pool.submit(_score, reference, predictions.get(reference.id), scoring): reference.id
            for reference in references
        }
        try:
            for job in as_completed(jobs):
                error = job.exception()
                if error is None:
                    yield jobs[job], job.result()
                elif isinstance(error, (ValueError, OSError, MemoryError)):
                    yield jobs[job], error
                else:
                    raise error
        finally:
            pool.shutdown(cancel_futures=True)


def score_folder(folder: Path, references: Sequence[Reference], scoring: Scoring, *, workers: int = 1) -> Result:
    """The figures of a folder of label maps, to be compared; what has no label map is not among its cases.

    Args:
        folder: label maps, at any depth. Where segmed predict made them, it says how long they took.
        references: of `find_references`.
        scoring, workers: as in `score_cases`.

    Raises:
        DatasetError: a file can't be scored, or none belongs to a reference.
    """
    pairing = pair_folder(folder, references)
    kept = [reference for reference in references if reference.id in pairing.predictions]
    scores = score_cases(kept, pairing.predictions, scoring, workers=workers)
    if scores.failed:
        case, why = next(iter(scores.failed.items()))
        raise DatasetError(f"{len(scores.failed)} label maps of {folder} can't be scored, first of case {case}: {why}")
    remarks = []
    if scores.strange:
        values = ", ".join(f"{value} (in {count} cases)" for value, count in scores.strange.items())
        remarks.append(f"{folder} holds values that no label has, taken as background: {values}")
    if not all(reference.subject_known for reference in kept):
        remarks.append(UNKNOWN)
    seconds = predicting_seconds(folder)
    if seconds is not None:
        remarks.append(f"the seconds of {folder} include reading and writing, those of runs do not")
    return Result(
        scores.rows,
        str(folder),
        {reference.id: reference.subject for reference in kept},
        inference_seconds=seconds,
        missed=scoring.config.missed,
        remarks=tuple(remarks),
    )


def default_workers() -> int:
    """One for each processor that this process may use, at most 8: a case holds two volumes in memory."""
    return min(8, cores())


# ---------------------------------------------------------------- one case


def _score(reference: Reference, prediction: Path | None, scoring: Scoring) -> _CaseScores:
    labels, shown = scoring.structures.labels, scoring.structures.shown
    true = read_label_volume(reference.label)
    indices, unscored = encode_known(true.as_tensor().numpy()[0], labels, where=str(reference.label.path))
    if reference.field_of_view is not None:
        indices[~read_field_of_view(reference.field_of_view, like=true, case=reference.id)] = IGNORE
    present = frozenset(name for name, mask in labels.masks(indices).items() if mask.any())
    spacing = spacing_mm(true.affine)
    spacing_known = scoring.spacing_known and not is_picture(reference.label.path)
    strange: tuple[int, ...] = ()
    if prediction is None:
        rows = absent_case(
            indices, labels, case=reference.id, spacing_mm=spacing, config=scoring.config,
            spacing_known=spacing_known,
        )  # fmt: skip
    else:
        label_map = on_grid(read_label_volume(prediction), true, resample=scoring.resample)
        predicted, strange = encode_known(label_map.as_tensor().numpy()[0], labels, where=str(prediction))
        rows = evaluate_case(
            predicted, indices, labels, case=reference.id, spacing_mm=spacing, config=scoring.config,
            spacing_known=spacing_known,
        )  # fmt: skip
    by_name = {row["label"]: row for row in rows}
    return _CaseScores([by_name[name] for name in shown], present, unscored, strange)


def on_grid(prediction: MetaTensor, reference: MetaTensor, *, resample: bool) -> MetaTensor:
    """The prediction on the grid of the reference.

    Raises:
        VolumeError: it is on another one, and `resample` is not asked for.
    """
    difference = grid_difference((prediction.shape, prediction.affine), (reference.shape, reference.affine))
    if difference is None:
        return prediction
    if not resample:
        raise GeometryError(
            f"{prediction.meta['path']} is on another grid than its reference: {difference}; predict on the grid of "
            "the image, or use --resample"
        )
    framed = torch.nn.functional.pad(prediction.as_tensor(), (1,) * 6)  # outside of its field nothing was predicted
    affine = np.asarray(prediction.affine, dtype=np.float64) @ np.block(
        [[np.eye(3), -np.ones((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]
    )
    volume = MetaTensor(framed, affine=torch.from_numpy(affine), meta={"path": prediction.meta["path"]})
    return resample_labels(volume, affine=reference.affine, shape=reference.shape[1:])


# ---------------------------------------------------------------- pictures


def load_volumes(
    reference: Reference, prediction: Path | None, scoring: Scoring, *, image: Source | None = None
) -> CaseVolumes:
    """The volumes of a case for a figure, in canonical axes on the reference's grid.

    Args:
        reference: of the case.
        prediction: its file; None: an empty label map.
        scoring: what is scored.
        image: where the image is; None: contours on black.
    """
    labels = scoring.structures.labels
    native = read_label_volume(reference.label)
    true = to_canonical(native)
    indices = encode_known(true.as_tensor().numpy()[0], labels, where="")[0]
    predicted = np.zeros_like(indices)
    if prediction is not None:
        label_map = to_canonical(on_grid(read_label_volume(prediction), native, resample=True))
        predicted = encode_known(label_map.as_tensor().numpy()[0], labels, where="")[0]
    background = None
    if image is not None:
        volume = read_volume(image)
        voxels = MetaTensor(volume.as_tensor()[:1], affine=volume.affine)
        if grid_difference((voxels.shape, voxels.affine), (true.shape, true.affine)) is not None:
            voxels = resample_onto(voxels, affine=true.affine, shape=true.shape[1:])
        background = voxels.as_tensor().numpy()[0]
    reverse = reversed_axes(native.affine)
    return CaseVolumes(background, indices, predicted, spacing_mm(true.affine), reversed_axes=reverse)

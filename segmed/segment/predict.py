"""Cases -> label maps on their own grids, in order; a bad one is reported and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.data.cases import Dataset
from segmed.data.field_of_view import labels_inside, probabilities_inside
from segmed.data.inputs import Input
from segmed.data.preprocess import read_case
from segmed.errors import DiskError, SegmenterError
from segmed.segment.conveyor import Conveyor, Waiting
from segmed.segment.outputs import Extras, stamp_of
from segmed.segment.record import CaseReport, place_of
from segmed.segmenters.segmenter import Segmenter, decide, on_grid_of
from segmed.volumes import spacing_mm, strip_suffix, write_volume

Writer = Callable[[Path, MetaTensor, Input], None]  # a path, values (1, X, Y, Z) on the input's grid, the input


class TrustOf(Protocol):
    """Says how far the case that was segmented last can be trusted.

    Attributes:
        calibration: tells calibrations and levels apart.
    """

    calibration: str

    def __call__(self, volume: MetaTensor, probabilities: MetaTensor, indices: np.ndarray) -> Mapping[str, Any]: ...


def write_as_input(path: Path, values: MetaTensor, item: Input) -> None:
    """Write a label map in the format of the path's suffix, with the header of its input where both are NIfTI."""
    write_volume(path, values, like=item.paths[0] if item.paths[0].is_file() else None)


def predict_cases(
    segmenter: Segmenter,
    inputs: Sequence[Input],
    output: Path,
    *,
    modalities: Sequence[str],
    extras: Extras | None = None,
    done: Mapping[str, CaseReport] | None = None,
    spacing_known: bool = True,
    unlike: Callable[[MetaTensor, bool], str | None] | None = None,
    classes: Sequence[str] = (),
    write: Writer = write_as_input,
    takes_incomplete: bool = False,
    trust: TrustOf | None = None,
    tell: Callable[[CaseReport], None] | None = None,
    waiting: Waiting | None = None,
) -> Iterator[CaseReport]:
    """Segment case after case and write the label maps, with the values of the data set, on the input's grid.

    While one case is computed the next ones are read, and those before are written, in a thread each.

    Args:
        segmenter: of native volumes.
        inputs: of `find_inputs`.
        output: folder of the label maps; `check_outputs` says beforehand whether it can be used.
        modalities: that the segmenter takes, in the order of channels.
        extras: written beside the label maps.
        done: reports of an earlier call by output path; such a case is kept while its files are the same.
        spacing_known: false: no volume in ml is reported.
        unlike: says what an image (C, X, Y, Z) has that no training image had, or nothing; it is told whether there
            is a mask of the field of view.
        classes: names of those that the segmenter tells of each case; none: it segments alone.
        write: writes a label map; in the thread that writes.
        takes_incomplete: whether the segmenter learned to do without some of the modalities.
        trust: says how far a case can be trusted; none: the segmenter is not calibrated.
        tell: is called with each report as soon as the case is done, in the thread that writes.
        waiting: to which the times of the network are added.

    Yields:
        A report a case, in their order, between the computing of two cases.

    Raises:
        DiskError: nothing can be written any more; what was written is whole.
    """
    stages = _Stages(
        segmenter, output, tuple(modalities), extras or Extras(), done or {}, spacing_known, unlike, tuple(classes),
        write, takes_incomplete, trust, tell,
    )  # fmt: skip
    conveyor = Conveyor(
        stages.read,
        stages.segment,
        stages.write,
        failed=stages.failed,
        is_report=lambda given: isinstance(given, CaseReport),
        size=_bytes_of,
        waiting=Waiting() if waiting is None else waiting,
    )
    yield from conveyor.run(inputs)


@dataclass(frozen=True)
class _Loaded:
    """A case that was read: its volume (C, X, Y, Z), what is strange about it, and how long it took."""

    item: Input
    stamp: str
    volume: MetaTensor
    warning: str | None
    seconds: float


@dataclass(frozen=True)
class _Segmented:
    """A case that was segmented: `indices` (1, X, Y, Z) uint8 on the grid of `empty`, which has no voxels."""

    item: Input
    stamp: str
    warning: str | None
    empty: MetaTensor
    indices: np.ndarray
    probabilities: MetaTensor | None
    classes: dict[str, float]
    trust: Mapping[str, Any]
    seconds: float


def _bytes_of(given: object) -> int:
    """Of the arrays that a stage gave."""
    if isinstance(given, _Loaded):
        return given.volume.nbytes
    if isinstance(given, _Segmented):
        return given.indices.nbytes + (0 if given.probabilities is None else given.probabilities.nbytes)
    return 0


@dataclass(frozen=True)
class _Stages:
    """What is done with a case, in the words of `predict_cases`; only `segment` touches the segmenter."""

    segmenter: Segmenter
    output: Path
    modalities: tuple[str, ...]
    extras: Extras
    done: Mapping[str, CaseReport]
    spacing_known: bool
    unlike: Callable[[MetaTensor, bool], str | None] | None
    class_names: tuple[str, ...]
    writer: Writer
    takes_incomplete: bool
    trust: TrustOf | None
    tell: Callable[[CaseReport], None] | None

    def read(self, item: Input) -> _Loaded | CaseReport:
        started = time.perf_counter()
        stamp = stamp_of(item.paths)
        before = self.done.get(place_of(self.output / item.output))
        if before is not None and self._still_holds(before, stamp) and (self.output / item.output).is_file():
            return replace(before, status="kept")
        _check_modalities(item, self.modalities, takes_incomplete=self.takes_incomplete)
        dataset = Dataset(
            "input", Path(), (item.case,), self.modalities, self.segmenter.labels, incomplete=self.takes_incomplete
        )
        volume = read_case(item.case, dataset)[0]
        warning = None if self.unlike is None else self.unlike(volume, item.case.field_of_view is not None)
        return _Loaded(item, stamp, volume, warning, time.perf_counter() - started)

    def segment(self, loaded: _Loaded) -> _Segmented:
        started = time.perf_counter()
        item, volume, trusted = loaded.item, loaded.volume, dict[str, Any]()
        probabilities = None
        if self.extras.probabilities or self.extras.uncertainty or self.trust is not None:
            probabilities = probabilities_inside(self.segmenter.probabilities(volume), item.case)
            indices = decide(probabilities.as_tensor(), self.segmenter.labels)[None].numpy(force=True)
            if self.trust is not None:
                trusted = dict(self.trust(volume, probabilities, indices[0]))
            if not (self.extras.probabilities or self.extras.uncertainty):
                probabilities = None
        else:
            indices = labels_inside(self.segmenter(volume), item.case).numpy(force=True)
        return _Segmented(
            item,
            loaded.stamp,
            loaded.warning,
            on_grid_of(volume, torch.empty(0)),
            indices,
            probabilities,
            _class_probabilities(self.segmenter, self.class_names),
            trusted,
            loaded.seconds + time.perf_counter() - started,
        )

    def write(self, outcome: _Segmented | CaseReport) -> CaseReport:
        report = outcome if isinstance(outcome, CaseReport) else self._written(outcome)
        if self.tell is not None:
            self.tell(report)
        return report

    def failed(self, item: Input, error: Exception) -> CaseReport:
        try:
            stamp = stamp_of(item.paths)
        except OSError:  # a disk that went away; the next call tries the case again in any case
            stamp = ""
        return CaseReport(item.case.id, _absolute(item.paths), stamp, "failed", error=_error_line(error))

    def _written(self, outcome: _Segmented) -> CaseReport:
        started, item = time.perf_counter(), outcome.item
        try:
            if outcome.probabilities is not None:
                _write_extras(outcome.probabilities, item, self.output, self.extras)
            values = torch.from_numpy(self.segmenter.labels.decode(outcome.indices))
            self.writer(self.output / item.output, on_grid_of(outcome.empty, values), item)
        except DiskError:
            raise
        except Exception as error:
            return self.failed(item, error)
        counts = np.bincount(outcome.indices.ravel(), minlength=self.segmenter.labels.classes)
        voxels = {name: int(count) for name, count in zip(self.segmenter.labels.names, counts[1:], strict=True)}
        voxel_ml = float(np.prod(spacing_mm(outcome.empty.affine))) / 1000
        return CaseReport(
            item.case.id,
            _absolute(item.paths),
            outcome.stamp,
            "done",
            output=str(self.output / item.output),
            seconds=round(outcome.seconds + time.perf_counter() - started, 3),
            voxels=voxels,
            volume_ml={n: round(count * voxel_ml, 4) for n, count in voxels.items()} if self.spacing_known else {},
            classes=outcome.classes,
            missing=tuple(name for name in self.modalities if name not in item.case.images),
            trust=outcome.trust,
            warning=outcome.warning,
        )

    def _still_holds(self, report: CaseReport, stamp: str) -> bool:
        """Whether a report of an earlier call is of the same files, the same classes and the same calibration."""
        calibration = None if self.trust is None else self.trust.calibration
        same = report.trust.get("calibration") == calibration
        return same and report.stamp == stamp and tuple(report.classes) == self.class_names


def _absolute(paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(str(path.absolute()) for path in paths)


def _class_probabilities(segmenter: Segmenter, classes: Sequence[str]) -> dict[str, float]:
    """Class -> its probability, of the case that was just segmented; empty where the segmenter gives none."""
    probabilities = segmenter.class_probabilities
    return {} if probabilities is None or not classes else dict(zip(classes, probabilities.tolist(), strict=True))


def _error_line(error: Exception) -> str:
    """What went wrong, as one line; an unexpected kind of error is named."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {text}"


def _check_modalities(item: Input, modalities: Sequence[str], *, takes_incomplete: bool) -> None:
    given = item.case.images
    if set(given) == set(modalities) or (takes_incomplete and given and set(given) < set(modalities)):
        return
    shown = ", ".join(modalities)
    hint = "name the files CASE_0000, CASE_0001 and so on, or give a file with a component for each"
    if given and set(given) < set(modalities):
        hint += "; only a run that was trained with augment.modality_dropout does without one"
    raise SegmenterError(
        f"{item.paths[0]}: case {item.case.id} has {len(given)} channel{'s' if len(given) != 1 else ''} "
        f"({', '.join(given)}), the run takes {len(modalities)} ({shown}): "
        + (hint if len(modalities) > 1 else "give the one modality alone")
    )


def _write_extras(probabilities: MetaTensor, item: Input, output: Path, extras: Extras) -> None:
    stem = strip_suffix(item.output).removesuffix(".dcm")
    suffix = item.output.name[len(stem) :]
    suffix = ".nii.gz" if suffix in (".png", ".dcm") else suffix
    like = item.paths[0] if item.paths[0].is_file() else None
    name = item.output.parent / stem
    if extras.probabilities:
        write_volume(output / "probabilities" / f"{name}_probabilities{suffix}", probabilities, like=like)
    if extras.uncertainty:
        write_volume(output / "uncertainty" / f"{name}_uncertainty{suffix}", entropy(probabilities), like=like)


def entropy(probabilities: MetaTensor) -> MetaTensor:
    """Uncertainty of every voxel: the entropy -sum p ln p of its probabilities, from 0 to ln(classes).

        >>> bool((segmed.entropy(segmenter.probabilities(volume)) <= np.log(5) + 1e-4).all())
        True

    Args:
        probabilities: (classes, X, Y, Z), summing to one.

    Returns:
        (1, X, Y, Z) float32, in nats.
    """
    total = torch.zeros(probabilities.shape[1:])
    for channel in probabilities.as_tensor().cpu():
        total += torch.special.entr(channel)
    return on_grid_of(probabilities, total[None])

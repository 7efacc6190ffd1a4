"""Cases -> label maps on their own grids, one after the other; a bad one is reported and the rest goes on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.data.cases import Dataset
from segmed.data.inputs import Input
from segmed.data.preprocess import read_case
from segmed.errors import DiskError, SegmenterError
from segmed.files import write_json
from segmed.segmenters.segmenter import Segmenter, decide, on_grid_of
from segmed.volumes import spacing_mm, strip_suffix, write_volume


@dataclass(frozen=True)
class CaseReport:
    """What became of one case.

    Attributes:
        case: its name.
        inputs: its files.
        stamp: sizes and times of the files, by which a later call knows that they are the same.
        status: `done`; `kept`: done before, by the same weights and settings; `failed`.
        output: the label map, if there is one.
        seconds: reading and writing included.
        voxels: of each label.
        volume_ml: of each label; none where the spacing is nominal.
        classes: probability of each class of the case, where the segmenter tells them.
        error: what was wrong.
        warning: what makes the label map doubtful, such as an image unlike all that the run learned from.
    """

    case: str
    inputs: tuple[str, ...]
    stamp: str
    status: Literal["done", "kept", "failed"]
    output: str | None = None
    seconds: float = 0.0
    voxels: Mapping[str, int] = field(default_factory=dict)
    volume_ml: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    warning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without what is empty."""
        return {key: value for key, value in asdict(self).items() if value not in (None, {}, ())}


@dataclass(frozen=True)
class Extras:
    """What is written beside the label maps.

    Attributes:
        probabilities: `probabilities/NAME_probabilities.nii.gz`, one component a class, background first.
        uncertainty: `uncertainty/NAME_uncertainty.nii.gz`, the entropy of the probabilities in nats.
    """

    probabilities: bool = False
    uncertainty: bool = False


def predict_cases(
    segmenter: Segmenter,
    inputs: Sequence[Input],
    output: Path,
    *,
    modalities: Sequence[str],
    extras: Extras | None = None,
    done: Mapping[str, CaseReport] | None = None,
    spacing_known: bool = True,
    unlike: Callable[[MetaTensor], str | None] | None = None,
    classes: Sequence[str] = (),
) -> Iterator[CaseReport]:
    """Segment case after case and write the label maps, with the values of the data set, on the input's grid.

    Args:
        segmenter: of native volumes.
        inputs: of `find_inputs`.
        output: folder of the label maps; `check_outputs` says beforehand whether it can be used.
        modalities: that the segmenter takes, in the order of channels.
        extras: written beside the label maps.
        done: reports of an earlier call by output path; such a case is kept while its files are the same.
        spacing_known: false: no volume in ml is reported.
        unlike: says what an image (C, X, Y, Z) has that no training image had, or nothing.
        classes: names of those that the segmenter tells of each case; none: it segments alone.

    Yields:
        A report a case, as soon as it is done.

    Raises:
        DiskError: nothing can be written any more; what was written is whole.
    """
    for item in inputs:
        started = time.perf_counter()
        files, stamp = tuple(map(str, item.paths)), stamp_of(item.paths)
        before = (done or {}).get(place_of(output / item.output))
        if before is not None and _still_holds(before, stamp, classes) and (output / item.output).is_file():
            yield CaseReport(**{**asdict(before), "status": "kept"})
            continue
        try:
            volume = _read(segmenter, item, modalities)
            warning = unlike(volume) if unlike is not None else None
            voxels, voxel_ml = _predict(segmenter, volume, item, output, extras or Extras())
            class_probabilities = _class_probabilities(segmenter, classes)
        except DiskError:
            raise
        except Exception as error:  # whatever is wrong with one file, the others are predicted
            yield CaseReport(item.case.id, files, stamp, "failed", error=_error_line(error))
            continue
        yield CaseReport(
            item.case.id,
            files,
            stamp,
            "done",
            output=str(output / item.output),
            seconds=round(time.perf_counter() - started, 3),
            voxels=voxels,
            volume_ml={n: round(count * voxel_ml, 4) for n, count in voxels.items()} if spacing_known else {},
            classes=class_probabilities,
            warning=warning,
        )


def _class_probabilities(segmenter: Segmenter, classes: Sequence[str]) -> dict[str, float]:
    """Class -> its probability, of the case that was just segmented; empty where the segmenter gives none."""
    probabilities = segmenter.class_probabilities
    return {} if probabilities is None or not classes else dict(zip(classes, probabilities.tolist(), strict=True))


def _still_holds(report: CaseReport, stamp: str, classes: Sequence[str]) -> bool:
    """Whether a report of an earlier call is of the same files and the same classes."""
    return report.stamp == stamp and tuple(report.classes) == tuple(classes)


def _error_line(error: Exception) -> str:
    """What went wrong, as one line; an unexpected kind of error is named."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {text}"


def _read(segmenter: Segmenter, item: Input, modalities: Sequence[str]) -> MetaTensor:
    """The image of one case, (C, X, Y, Z)."""
    _check_modalities(item, modalities)
    dataset = Dataset("input", Path(), (item.case,), tuple(modalities), segmenter.labels)
    return read_case(item.case, dataset)[0]


def _predict(
    segmenter: Segmenter, volume: MetaTensor, item: Input, output: Path, extras: Extras
) -> tuple[dict[str, int], float]:
    """One case; gives the voxels of each label and the size of one in ml."""
    if extras.probabilities or extras.uncertainty:
        probabilities = segmenter.probabilities(volume)
        indices = decide(probabilities.as_tensor(), segmenter.labels)[None].numpy(force=True)
        _write_extras(probabilities, item, output, extras)
    else:
        indices = segmenter(volume).numpy(force=True)
    like = item.paths[0] if item.paths[0].is_file() else None
    values = torch.from_numpy(segmenter.labels.decode(indices))
    write_volume(output / item.output, on_grid_of(volume, values), like=like)
    counts = np.bincount(indices.ravel(), minlength=segmenter.labels.classes)
    named = {name: int(count) for name, count in zip(segmenter.labels.names, counts[1:], strict=True)}
    return named, float(np.prod(spacing_mm(volume.affine))) / 1000


def _check_modalities(item: Input, modalities: Sequence[str]) -> None:
    given = item.case.images
    if set(given) == set(modalities):
        return
    shown = ", ".join(modalities)
    hint = "name the files CASE_0000, CASE_0001 and so on, or give a file with a component for each"
    raise SegmenterError(
        f"{item.paths[0]}: case {item.case.id} has {len(given)} channel{'s' if len(given) != 1 else ''} "
        f"({', '.join(given)}), the run takes {len(modalities)} ({shown}): "
        + (hint if len(modalities) > 1 else "give the one modality alone")
    )


def _write_extras(probabilities: MetaTensor, item: Input, output: Path, extras: Extras) -> None:
    suffix = item.output.name[len(strip_suffix(item.output)) :]
    suffix = ".nii.gz" if suffix == ".png" else suffix
    like = item.paths[0] if item.paths[0].is_file() else None
    name = item.output.parent / strip_suffix(item.output)
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


# ---------------------------------------------------------------- before it starts


def check_outputs(inputs: Sequence[Input], output: Path, *, replace: bool, kept: Mapping[str, CaseReport]) -> None:
    """Make the output folder and see that files can be written there without loss.

    Args:
        inputs: of `find_inputs`.
        output: folder of the label maps.
        replace: label maps that are there may be replaced.
        kept: reports of an earlier call, by output path, whose label maps may stand.

    Raises:
        SegmenterError: the folder can't be written, a label map would replace an input, or one that is there.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output, prefix=".writable"):
            pass
    except OSError as error:
        raise SegmenterError(
            f"output folder {output} can't be written ({error.strerror or error}): choose another"
        ) from error
    sources = {path.resolve(): path for item in inputs for path in item.paths}
    targets = [output / item.output for item in inputs]
    for target in targets:
        if (source := sources.get(target.resolve())) is not None:
            raise SegmenterError(f"the label map would replace its input {source}: choose another output folder")
    there = [target for target in targets if target.exists() and place_of(target) not in kept]
    if there and not replace:
        raise SegmenterError(
            f"{len(there)} of {len(targets)} label maps exist in {output}, first {there[0].name}: "
            "choose another output folder, or replace them with --overwrite"
        )


def place_of(path: Path) -> str:
    """Where a file is, the same from whichever folder it is named."""
    return str(path.resolve())


def stamp_of(paths: Sequence[Path]) -> str:
    """Sixteen letters that change with the size or the time of a file, or of a slice in a folder."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.exists():
                status = os.stat(file)
                digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------- the record


class Record:
    """`prediction.json`: by what the label maps of a folder were made, and what became of each case.

    It is written after every case, so that the same call goes on where it was stopped.

    Args:
        output: folder of the label maps.
        about: `runs` and `settings`, which decide whether a case has to be done again, and whatever else is worth
            knowing.
        overwrite: do everything again.

    Attributes:
        done: reports of label maps that the same runs and settings have made, by the place of the label map.

    Raises:
        SegmenterError: the folder holds label maps of other runs or settings, and may not be overwritten.
    """

    NAME = "prediction.json"

    def __init__(self, output: Path, about: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path = output / self.NAME
        self.about = dict(about)
        earlier = self._read()
        same = all(
            _without_run_path(earlier.get(key)) == _without_run_path(self.about[key]) for key in ("runs", "settings")
        )
        if earlier and not same and not overwrite:
            raise SegmenterError(
                f"{output} holds label maps of other runs or settings (see {self.NAME}): choose another output "
                "folder, or replace them with --overwrite"
            )
        reports = [_report(data) for data in earlier["cases"]] if earlier and same else []
        self.reports = {report.case: report.to_dict() for report in reports}
        known = [] if overwrite else [report for report in reports if report.status != "failed"]
        places = [(_present_path(str(report.output), output), report) for report in known]
        self.done = {place_of(place): report for place, report in places if place is not None}

    def add(self, report: CaseReport) -> None:
        """Note a case and write the record."""
        self.reports[report.case] = report.to_dict()
        write_json(self.path, {**self.about, "cases": list(self.reports.values())})

    def _read(self) -> dict[str, Any]:
        """The record of an earlier call; a damaged one is that of other runs."""
        if not self.path.exists():
            return {}
        try:
            earlier = json.loads(self.path.read_text(encoding="utf-8"))
            for data in earlier["cases"]:
                _report(data)
            return {key: earlier[key] for key in ("runs", "settings", "cases")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"runs": None, "settings": None, "cases": []}


def _without_run_path(about: Any) -> Any:
    """Runs or settings without the paths of the runs: the hash of the weights tells runs apart."""
    if not isinstance(about, list):
        return about
    return [{k: v for k, v in run.items() if k != "run"} if isinstance(run, dict) else run for run in about]


def _present_path(noted: str, output: Path) -> Path | None:
    """Where a label map of the record is now: it may have been written elsewhere, or from another working folder."""
    parts = Path(noted).parts
    tails = [output.joinpath(*parts[start:]) for start in range(len(parts)) if parts[start] not in ("/", "..")]
    return next((path for path in tails if path.is_file()), None)


def _report(data: Mapping[str, Any]) -> CaseReport:
    """A case of a record.

    Raises:
        ValueError, KeyError, TypeError: it is of another version or damaged.
    """
    report = CaseReport(**{**data, "inputs": tuple(map(str, data["inputs"]))})
    texts = (report.case, report.stamp, *((report.output,) if report.status != "failed" else ()))
    if report.status not in ("done", "kept", "failed") or not all(isinstance(text, str) for text in texts):
        raise ValueError("not the report of a case")
    return report

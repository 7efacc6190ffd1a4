"""Cases -> label maps on their own grids, one after the other; a bad one is reported and the rest goes on."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from segmed.segment.record import CaseReport, place_of
from segmed.segmenters.segmenter import Segmenter, decide, on_grid_of
from segmed.volumes import spacing_mm, strip_suffix, write_volume

NAME_BYTES = 255  # of a file's name, on every usual file system
Writer = Callable[[Path, MetaTensor, Input], None]  # a path, values (1, X, Y, Z) on the input's grid, the input


class TrustOf(Protocol):
    """Says how far the case that was segmented last can be trusted.

    Attributes:
        calibration: tells calibrations and levels apart.
    """

    calibration: str

    def __call__(self, volume: MetaTensor, probabilities: MetaTensor, indices: np.ndarray) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Extras:
    """What is written beside the label maps.

    Attributes:
        probabilities: `probabilities/NAME_probabilities.nii.gz`, one component a class, background first.
        uncertainty: `uncertainty/NAME_uncertainty.nii.gz`, the entropy of the probabilities in nats.
    """

    probabilities: bool = False
    uncertainty: bool = False

    @property
    def longest_ending(self) -> str:
        """What is put behind a case's name."""
        return "_probabilities" if self.probabilities else "_uncertainty" if self.uncertainty else ""


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
    unlike: Callable[[MetaTensor], str | None] | None = None,
    classes: Sequence[str] = (),
    write: Writer = write_as_input,
    takes_incomplete: bool = False,
    trust: TrustOf | None = None,
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
        write: writes a label map.
        takes_incomplete: whether the segmenter learned to do without some of the modalities.
        trust: says how far a case can be trusted; none: the segmenter is not calibrated.

    Yields:
        A report a case, as soon as it is done.

    Raises:
        DiskError: nothing can be written any more; what was written is whole.
    """
    for item in inputs:
        started = time.perf_counter()
        files, stamp = tuple(map(str, item.paths)), stamp_of(item.paths)
        before = (done or {}).get(place_of(output / item.output))
        same = before is not None and _still_holds(before, stamp, classes, trust)
        if before is not None and same and (output / item.output).is_file():
            yield CaseReport(**{**asdict(before), "status": "kept"})
            continue
        try:
            volume = _read(segmenter, item, modalities, takes_incomplete=takes_incomplete)
            warning = unlike(volume) if unlike is not None else None
            voxels, voxel_ml, trusted = _predict(segmenter, volume, item, output, extras or Extras(), write, trust)
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
            missing=tuple(name for name in modalities if name not in item.case.images),
            trust=trusted,
            warning=warning,
        )


def _class_probabilities(segmenter: Segmenter, classes: Sequence[str]) -> dict[str, float]:
    """Class -> its probability, of the case that was just segmented; empty where the segmenter gives none."""
    probabilities = segmenter.class_probabilities
    return {} if probabilities is None or not classes else dict(zip(classes, probabilities.tolist(), strict=True))


def _still_holds(report: CaseReport, stamp: str, classes: Sequence[str], trust: TrustOf | None) -> bool:
    """Whether a report of an earlier call is of the same files, the same classes and the same calibration."""
    calibration = None if trust is None else trust.calibration
    same = report.trust.get("calibration") == calibration
    return same and report.stamp == stamp and tuple(report.classes) == tuple(classes)


def _error_line(error: Exception) -> str:
    """What went wrong, as one line; an unexpected kind of error is named."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {text}"


def _read(segmenter: Segmenter, item: Input, modalities: Sequence[str], *, takes_incomplete: bool) -> MetaTensor:
    """The image of one case, (C, X, Y, Z)."""
    _check_modalities(item, modalities, takes_incomplete=takes_incomplete)
    dataset = Dataset("input", Path(), (item.case,), tuple(modalities), segmenter.labels, incomplete=takes_incomplete)
    return read_case(item.case, dataset)[0]


def _predict(
    segmenter: Segmenter,
    volume: MetaTensor,
    item: Input,
    output: Path,
    extras: Extras,
    write: Writer,
    trust: TrustOf | None,
) -> tuple[dict[str, int], float, Mapping[str, Any]]:
    """One case; gives the voxels of each label, the size of one in ml, and how far the case can be trusted."""
    trusted: Mapping[str, Any] = {}
    if extras.probabilities or extras.uncertainty or trust is not None:
        probabilities = probabilities_inside(segmenter.probabilities(volume), item.case)
        indices = decide(probabilities.as_tensor(), segmenter.labels)[None].numpy(force=True)
        _write_extras(probabilities, item, output, extras)
        if trust is not None:
            trusted = trust(volume, probabilities, indices[0])
    else:
        indices = labels_inside(segmenter(volume), item.case).numpy(force=True)
    values = torch.from_numpy(segmenter.labels.decode(indices))
    write(output / item.output, on_grid_of(volume, values), item)
    counts = np.bincount(indices.ravel(), minlength=segmenter.labels.classes)
    named = {name: int(count) for name, count in zip(segmenter.labels.names, counts[1:], strict=True)}
    return named, float(np.prod(spacing_mm(volume.affine))) / 1000, trusted


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


# ---------------------------------------------------------------- before it starts


def check_outputs(
    inputs: Sequence[Input],
    output: Path,
    *,
    replace: bool,
    kept: Mapping[str, CaseReport],
    extras: Extras | None = None,
) -> None:
    """Make the output folder and see that files can be written there without loss.

    Args:
        inputs: of `find_inputs`.
        output: folder of the label maps.
        replace: label maps that are there may be replaced.
        kept: reports of an earlier call, by output path, whose label maps may stand.
        extras: written beside the label maps.

    Raises:
        SegmenterError: the folder can't be written, a name would be too long, a label map would replace an input, or
            one that is there.
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
    _check_name_lengths(targets, extras or Extras())
    for target in targets:
        if (source := sources.get(target.resolve())) is not None:
            raise SegmenterError(f"the label map would replace its input {source}: choose another output folder")
    there = [target for target in targets if target.exists() and place_of(target) not in kept]
    if there and not replace:
        raise SegmenterError(
            f"{len(there)} of {len(targets)} label maps exist in {output}, first {there[0].name}: "
            "choose another output folder, or replace them with --overwrite"
        )


def _check_name_lengths(targets: Sequence[Path], extras: Extras) -> None:
    for target in targets:
        if len(os.fsencode(target.name + extras.longest_ending)) > NAME_BYTES:
            way_out = ", or leave out the probabilities and the uncertainty" if extras.longest_ending else ""
            raise SegmenterError(
                f"what is written for {target.name} has a name of more than {NAME_BYTES} bytes: shorten it{way_out}"
            )


def stamp_of(paths: Sequence[Path]) -> str:
    """Sixteen letters that change with the size or the time of a file, or of a slice in a folder."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.exists():
                status = os.stat(file)
                digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]

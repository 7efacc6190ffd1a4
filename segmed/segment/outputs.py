"""The folder of label maps, before a prediction starts: whether it can be written, and what would be lost there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from segmed.data.inputs import Input
from segmed.errors import SegmenterError
from segmed.files import check_target
from segmed.segment.record import CaseReport, place_of

NAME_BYTES = 255  # of a file's name, on every usual file system
WAIT_S = 5.0  # for a call that is just ending, or was stopped


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


def check_outputs(
    inputs: Sequence[Input],
    output: Path,
    *,
    replace: bool,
    earlier: Mapping[str, CaseReport | None],
    others: Collection[str] = (),
    extras: Extras | None = None,
) -> None:
    """Make the output folder and see that files can be written there without loss.

    Args:
        inputs: of `find_inputs`.
        output: folder of the label maps.
        replace: label maps that are there may be replaced.
        earlier: what an earlier call made, by the place of the label map, as `Record.own`: it may stand or be
            replaced by a label map of the same files.
        others: places of label maps that other runs or settings made: all of them have to be replaced.
        extras: written beside the label maps.

    Raises:
        SegmenterError: the folder can't be written, a name would be too long, a label map would replace an input,
            one that is there, or one of another image of the same name; some of other runs would stay.
    """
    _make(output)
    sources = {path.resolve(): path for item in inputs for path in item.paths}
    targets = [output / item.output for item in inputs]
    _check_name_lengths(targets, extras or Extras())
    for target in targets:
        if (source := sources.get(target.resolve())) is not None:
            raise SegmenterError(f"the label map would replace its input {source}: choose another output folder")
    for item, target in zip(inputs, targets, strict=True):
        before = earlier.get(place_of(target))
        if before is not None and not before.is_of(item.paths):
            raise SegmenterError(
                f"{item.paths[0]} and {before.inputs[0]}, done before, have one name in {output}: rename one, or "
                "choose another output folder; if it is the same image, moved: --overwrite does it again"
            )
    if stay := sorted({*others} - {place_of(target) for target in targets}):
        raise SegmenterError(
            f"{len(stay)} label maps of other runs or settings would stay in {output}, first {Path(stay[0]).name}: "
            "remove them, or choose another output folder"
        )
    there = [target for target in targets if target.exists() and place_of(target) not in earlier]
    if there and not replace:
        raise SegmenterError(
            f"{len(there)} of {len(targets)} label maps exist in {output}, first {there[0].name}: "
            "choose another output folder, or replace them with --overwrite"
        )


@contextmanager
def sole_writer(output: Path, record: Path) -> Iterator[None]:
    """Be the only process that writes a record of label maps: two would lose what the other one notes.

    Args:
        output: folder of the label maps, which is made.
        record: file beside which the lock lies.

    Raises:
        SegmenterError: another process writes it, or the folder can't be written.
    """
    _make(output)
    record.parent.mkdir(parents=True, exist_ok=True)
    path = record.with_name(f".{record.stem}.lock")
    check_target(path)
    lock = FileLock(path, timeout=WAIT_S)
    try:
        lock.acquire()
    except Timeout:
        raise SegmenterError(
            f"another segmed predict writes into {output}: wait for it, choose another output folder, or let one call "
            "deal its cases out (--on local)"
        ) from None
    except (NotImplementedError, OSError):  # a network disk without locks
        yield
        return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _make(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output, prefix=".writable"):
            pass
    except OSError as error:
        raise SegmenterError(
            f"output folder {output} can't be written ({error.strerror or error}): choose another"
        ) from error


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

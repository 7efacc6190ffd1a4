"""The folder of label maps, before a prediction starts: whether it can be written, and what would be lost there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.data.inputs import Input
from segmed.errors import SegmenterError
from segmed.segment.record import place_of

NAME_BYTES = 255  # of a file's name, on every usual file system


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
    kept: Container[str],
    extras: Extras | None = None,
) -> None:
    """Make the output folder and see that files can be written there without loss.

    Args:
        inputs: of `find_inputs`.
        output: folder of the label maps.
        replace: label maps that are there may be replaced.
        kept: places of label maps of an earlier call, which may stand or be replaced.
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

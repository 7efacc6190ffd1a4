"""What a run took of another one, and whether the other has learnt from its test: records, notes, refusals."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from segmed.data.learned import learned_before
from segmed.errors import DatasetError
from segmed.files import write_json
from segmed.networks.weight_transfer import Transfer
from segmed.runs import open_run
from segmed.training.tracking import FILE_ONLY, Tracker

log = logging.getLogger(__name__)

RECORD = "transfer.json"  # in the folder of a run
NAMED = 4  # cases that a message names


class Leaks(Protocol):
    """What an experiment says of leaks.

    Attributes:
        check: whether they are looked for.
        allow_leakage: whether a leak is noted rather than refused.
    """

    @property
    def check(self) -> bool: ...
    @property
    def allow_leakage(self) -> bool: ...


def seen_before(folder: Path, root: Path, cases: Sequence[str]) -> tuple[str, ...]:
    """Which of some cases another run has learnt from, or was selected on, or a run that it began with.

    Args:
        folder: of the other run.
        root: of this run's data; runs on other folders have seen none of them.
        cases: ids, of this run's test part.
    """
    theirs = learned_before(open_run(folder).path, root)
    return tuple(case for case in cases if case in theirs)


def leak_note(folder: Path, root: Path, cases: Sequence[str]) -> str:
    """What every reader of a test must know if the first weights have learnt from it; empty where it has not."""
    seen = seen_before(folder, root, cases)
    if not seen:
        return ""
    named = ", ".join(seen[:NAMED]) + (", ..." if len(seen) > NAMED else "")
    return (
        f"the weights come from {folder}, which has learnt from {len(seen)} of these {len(cases)} test cases "
        f"({named}): the figures are too good"
    )


def allowed_leak(folder: Path, root: Path, cases: Sequence[str], leaks: Leaks) -> str:
    """The same, where the experiment allows it.

    Args:
        folder, root, cases: as of `seen_before`.
        leaks: section of the experiment.

    Raises:
        DatasetError: the first weights have learnt from the test, and that is not allowed.
    """
    note = leak_note(folder, root, cases)
    if note and leaks.check and not leaks.allow_leakage:
        raise DatasetError(
            f"{note}: name a run that was trained on other data or on this split, or set leaks.allow_leakage, which "
            "every table of the run will then say"
        )
    return note


def record_transfer(moved: Transfer, *, source: object, folder: Path, tracker: Tracker, note: str = "") -> None:
    """Say how many weights were taken, and write all names into `transfer.json` and the log.

    Args:
        moved: what became of each weight.
        source: where they come from: a run, or published weights.
        folder: of the run that begins with them.
        tracker: of this process.
        note: what the reader must know of the source.
    """
    axis = "" if moved.axis is None else f" (2D kernels repeated along {'XYZ'[moved.axis]})"
    every = len(moved.taken) + len(moved.left)
    tracker.line(
        f"begins with {len(moved.taken)} of {every} weights from {source}{axis}; {len(moved.left)} are left as drawn, "
        f"{len(moved.unused)} of the source are not used: {RECORD} names them"
    )
    if note:
        tracker.line(f"NOTE: {note}")
    write_json(folder / RECORD, {"source": str(source), "note": note, **asdict(moved)})
    left = [f"{name} ({reason})" for name, reason in moved.left.items()]
    for what, names in (("taken", moved.taken), ("left as drawn", left), ("not used", moved.unused)):
        log.info("%s: %s", what, ", ".join(names) or "none", extra={FILE_ONLY: True})

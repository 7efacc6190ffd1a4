"""Cases that come one after the other: paths on standard input, and files that appear in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from segmed.config import DataConfig
from segmed.data.case import Case
from segmed.data.inputs import Input, find_cases, find_inputs, nested_input
from segmed.errors import DatasetError

POLL_SECONDS = 0.5
INCOMPLETE_SECONDS = 30.0  # that a case of several images waits for those which lack

Files = tuple[tuple[str, int, int], ...]
"""Path, bytes and time of change (ns) of each file of a case, or of each slice."""


@dataclass(frozen=True)
class Arrival:
    """What one path names.

    Attributes:
        name: the path, of a case its first.
        inputs: its cases.
        error: why there are none.
    """

    name: str
    inputs: tuple[Input, ...] = ()
    error: str | None = None


def from_lines(lines: Iterable[bytes], data: DataConfig, *, output: Path) -> Iterator[Arrival]:
    """The cases of paths, one a line, each as soon as its line is there; blank lines are skipped.

    Args:
        lines: such as `sys.stdin.buffer`.
        data: of the run, resolved.
        output: folder of label maps, left out if it lies in a folder that is named.
    """
    for line in lines:
        name = os.fsdecode(line.rstrip(b"\r\n"))
        if not name.strip():
            continue
        try:
            yield Arrival(name, find_inputs(Path(name), data, output=output))
        except (ValueError, OSError) as error:
            yield Arrival(name, error=" ".join(str(error).split()))


def from_folder(
    folder: Path,
    data: DataConfig,
    *,
    output: Path,
    poll_seconds: float = POLL_SECONDS,
    incomplete_seconds: float = INCOMPLETE_SECONDS,
) -> Iterator[Arrival]:
    """The cases of a folder as they come, without an end.

    A case is taken when its files were the same at two polls, and again when they have changed since. One that lacks
    an image waits for it. Label maps keep the folders that their images lie in, so that a later case of the same name
    changes no name.

    Args:
        folder: that is watched.
        data: of the run, resolved.
        output: folder of label maps; what lies in it is no input.
        poll_seconds: between two polls.
        incomplete_seconds: that an incomplete case has to stay unchanged.
    """
    since: dict[Files, float] = {}
    taken: set[Files] = set()
    while True:
        now, earlier, since = time.monotonic(), since, {}
        for case in _cases_in(folder, data, output):
            files = _files_of(case)
            since[files] = earlier.get(files, now)
            waits = incomplete_seconds if len(case.images) < len(data.images) and data.images != "auto" else 0
            if not files or files in taken or files not in earlier or now - since[files] < waits:
                continue
            taken.add(files)
            item = nested_input(case, data, folder)
            yield Arrival(str(item.paths[0]), (item,))
        time.sleep(poll_seconds)


def _cases_in(folder: Path, data: DataConfig, output: Path) -> list[Case]:
    """The cases that lie in a folder now; none where a file goes away meanwhile."""
    try:
        cases = find_cases(folder, data, output=output)
    except (DatasetError, OSError):
        return []
    written = output.resolve()
    images = [[source.path.resolve() for source in case.images.values()] for case in cases]
    return [
        case
        for case, paths in zip(cases, images, strict=True)
        if not any(path.is_relative_to(written) for path in paths)
    ]


def _files_of(case: Case) -> Files:
    """Empty for files that have gone."""
    paths = dict.fromkeys(source.path for source in case.images.values())
    try:
        files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        states = [(file, os.stat(file)) for file in files]
    except OSError:
        return ()
    series = tuple((case.id, 0, 0) for source in case.images.values() if source.series is not None)
    return tuple((str(file), state.st_size, state.st_mtime_ns) for file, state in states) + series

"""Pictures or volumes -> facts about each file, and pairs that show the same; cached until a file changes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segmed.data.content import SETTLED_NS, files_of
from segmed.data.images.image_dataset import Item
from segmed.data.leaks.image_facts import Record, record
from segmed.data.leaks.thumbnails import Thumbnail
from segmed.data.leaks.twins import NEAR, Twin, coarse, descriptors, twins_of
from segmed.data.processes import map_in_processes
from segmed.errors import DatasetError
from segmed.files import atomic_path

VERSION = 1  # raised whenever the same files give another survey
CHUNK = 16  # files that a worker takes at once


@dataclass(frozen=True, eq=False)
class Survey:
    """Facts about the pictures of a data set, independent of classes and parts.

    Attributes:
        records: one a picture, in the order of the items.
        twins: pairs that show the same.
        small: (N, 2, 32, 32) float16 of the readable pictures, in the order of `readable`: whole, and centred.
    """

    records: tuple[Record, ...]
    twins: tuple[Twin, ...]
    small: np.ndarray

    @property
    def readable(self) -> tuple[Record, ...]:
        """Records of the pictures that could be decoded."""
        return tuple(record for record in self.records if not record.error)

    @property
    def features(self) -> np.ndarray:
        """(N, 1024) float32 of the readable pictures, whose products are correlations of detail."""
        return descriptors(self.small[:, 1])


def make_survey(
    items: Sequence[Item],
    *,
    cache: Path | None = None,
    workers: int = 1,
    near: float = NEAR,
    progress: bool = False,
) -> Survey:
    """Decode every picture once and compare it with all others.

    About a minute for 5,000 pictures; the comparison grows with the square of their number.

    Args:
        items: of a data set.
        cache: folder for the cached survey; None: it is not cached.
        workers: processes that decode; 1: this one.
        near: correlation of the detail from which two pictures are near twins.
        progress: show a bar on stderr.

    Raises:
        DatasetError: no picture, an id twice, or a worker was killed.
    """
    if not items:
        raise DatasetError("no pictures to compare: check data.root and data.layout")
    if len({item.id for item in items}) != len(items):
        raise DatasetError("two pictures have the same id: give each row a path of its own")
    file = None if cache is None else survey_file(items, cache, near=near)
    if file is not None and (known := _remembered(file)) is not None:
        return known
    columns = (TextColumn("comparing pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    seen: list[tuple[Record, Thumbnail | None]] = []
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        for each in bar.track(_observed(items, workers), total=len(items)):
            seen.append(each)
    records = tuple(each for each, _ in seen)
    shown = [(each.id, small) for each, small in seen if small is not None]
    twins = twins_of([name for name, _ in shown], [small for _, small in shown], near=near)
    frames = np.stack([small.frames[:2] for _, small in shown]) if shown else np.zeros((0, 2, 64, 64), np.float16)
    survey = Survey(records, twins, coarse(frames).astype(np.float16))
    if file is not None and _settled(items):
        with suppress(OSError):  # a read-only or full folder: it is made again next time
            _remember(survey, file)
    return survey


def survey_file(items: Sequence[Item], cache: Path, *, near: float = NEAR) -> Path:
    """Path of the cached survey of these files."""
    return Path(cache) / f"survey-{survey_key(items, near=near)}.npz"


def survey_key(items: Sequence[Item], *, near: float = NEAR) -> str:
    """Hash of the pictures' ids, and of their files' places, sizes, inodes and times."""
    total = hashlib.blake2b(f"{VERSION} {near}".encode(), digest_size=20)
    for item in items:
        total.update(f"\n{item.id}".encode())
        for path, state in _states(item):
            total.update(f"\n{path} {state.st_size} {state.st_ino} {state.st_mtime_ns} {state.st_ctime_ns}".encode())
    return total.hexdigest()


def _states(item: Item) -> Iterator[tuple[str, os.stat_result]]:
    """State of each file; missing files have none and are reported when they are read."""
    with suppress(OSError):
        for path in files_of(item.path):
            yield os.path.realpath(path), os.stat(path)


def _settled(items: Sequence[Item]) -> bool:
    """Whether all files are old enough that another change would change their times."""
    newest = max((state.st_mtime_ns for item in items for _, state in _states(item)), default=0)
    return time.time_ns() - newest > SETTLED_NS


def _observed(items: Sequence[Item], workers: int) -> Iterator[tuple[Record, Thumbnail | None]]:
    """Record and small copies of every item, in their order."""
    names, paths = [item.id for item in items], [item.path for item in items]
    workers = min(workers, -(-len(items) // CHUNK))
    if workers <= 1:
        yield from map(record, names, paths)
        return
    yield from map_in_processes(record, names, paths, workers=workers, chunk=CHUNK)


# ---------------------------------------------------------------- memory


def _remember(survey: Survey, file: Path) -> None:
    facts = {"records": [asdict(each) for each in survey.records], "twins": [asdict(twin) for twin in survey.twins]}
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        text = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        np.savez(stream, facts=text, small=survey.small)


def _remembered(file: Path) -> Survey | None:
    """The cached survey; None where it is absent or damaged."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as data:
            facts = json.loads(data["facts"].tobytes())
            records = tuple(Record(**each) for each in facts["records"])
            survey = Survey(records, tuple(Twin(**twin) for twin in facts["twins"]), data["small"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
        return None
    return survey if len(survey.small) == len(survey.readable) else None

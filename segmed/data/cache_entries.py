"""The entries of a cache: how large each is, when it was used last, of which data it is, whether it is whole."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segmed.data.cache import CACHE_VERSION
from segmed.data.cache_lock import cache_lock
from segmed.data.cache_use import NAMING, names_in_use
from segmed.data.checksums import is_intact
from segmed.data.images.image_cache import ARRAYS_VERSION, array_is_intact
from segmed.data.processes import map_in_processes
from segmed.errors import DatasetError, DiskError
from segmed.files import put_aside, sweep

LOG = logging.getLogger(__name__)

VERSIONS = {"volumes": CACHE_VERSION, "images": ARRAYS_VERSION}  # folders of a cache that hold entries
NAME = re.compile(r"(\.?)([0-9a-f]{40})")  # with a dot: a build that was stopped, and that the next one goes on with
OWN = re.compile(r"entry\.json|done|.+\.npy|\..+")  # files of an entry, also of one that is being written
CHUNK = 16  # entries that a process checks at once

State = Literal["", "in use", "unfinished", "old"]


@dataclass(frozen=True)
class CacheEntry:
    """One entry of a cache.

    Attributes:
        folder: of its files.
        size_bytes: of all of them.
        used_s: when it was used last, in seconds since 1970.
        state: `in use` by a live process, `unfinished`, or `old`: of an earlier version, which no run opens.
        data: data set and case, or the folder of the images; empty where the entry does not say.
    """

    folder: Path
    size_bytes: int
    used_s: float
    state: State
    data: str

    @property
    def key(self) -> str:
        """Its name, without the dot of an unfinished one."""
        return self.folder.name.removeprefix(".")


def entries_of(folder: Path) -> list[CacheEntry]:
    """The entries of a cache, the one that was used last first.

    Args:
        folder: of the cache.

    Raises:
        DatasetError: it is not there, or it is no cache.
    """
    if not folder.is_dir():
        raise DatasetError(f"folder {folder} is not there: name a cache, as `cache` inside the folder of runs")
    if not any((folder / kind).is_dir() for kind in (*VERSIONS, "hashes", "locks")):
        raise DatasetError(f"{folder} is no cache: name the `cache` of the config, or `cache` inside the runs folder")
    in_use = names_in_use(folder)
    entries = [entry for kind in VERSIONS for entry in _entries(folder / kind, in_use)]
    return sorted(entries, key=lambda entry: -entry.used_s)


def _entries(folder: Path, in_use: set[str]) -> Iterator[CacheEntry]:
    if folder.is_symlink() or not folder.is_dir():
        return
    for item in os.scandir(folder):
        match = NAME.fullmatch(item.name)
        if match is None or not item.is_dir(follow_symlinks=False):
            continue
        path = Path(item.path)
        try:
            files = list(os.scandir(path))
            size, used = sum(file.stat().st_size for file in files), item.stat().st_mtime
        except FileNotFoundError:  # another process has removed it
            continue
        if not all(OWN.fullmatch(file.name) for file in files):  # somebody's folder with such a name
            continue
        note = _note(path)
        state: State = "unfinished" if match[1] else ""
        if note and note.get("version") != VERSIONS[folder.name]:
            state = "old"
        yield CacheEntry(path, size, used, "in use" if match[2] in in_use else state, _data(note))


def _note(folder: Path) -> dict[str, Any]:
    try:
        note = json.loads((folder / "entry.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _data(note: dict[str, Any]) -> str:
    data, ids = note.get("data"), note.get("ids")
    named = data if isinstance(data, str) else ""
    if not isinstance(ids, list):
        return named
    return f"{len(ids)} images of {named}" if named else f"{len(ids)} images"


# ---------------------------------------------------------------- whether they are whole


def damaged(entries: Sequence[CacheEntry], *, workers: int) -> list[CacheEntry]:
    """Entries of which a byte is not as it was written; those unfinished, or old, are not looked at.

    Args:
        entries: of one cache or more.
        workers: processes that read them.
    """
    whole = [entry for entry in entries if not entry.folder.name.startswith(".") and entry.state != "old"]
    folders = [entry.folder for entry in whole]
    if workers > 1 and len(whole) > CHUNK:
        intact = map_in_processes(entry_is_intact, folders, workers=workers, chunk=CHUNK)
    else:
        intact = map(entry_is_intact, folders)
    return [entry for entry, sound in zip(whole, intact, strict=True) if not sound and entry.folder.is_dir()]


def entry_is_intact(folder: Path) -> bool:
    """Whether every byte of an entry is as it was written."""
    return array_is_intact(folder) if folder.parent.name == "images" else is_intact(folder)


# ---------------------------------------------------------------- less of them


def prune(folder: Path, keep_bytes: float) -> list[CacheEntry]:
    """Remove entries until the others fit, least recently used first, never one that a live process uses.

    Args:
        folder: of the cache.
        keep_bytes: size that the entries may have together.

    Returns:
        What was removed.

    Raises:
        DatasetError: the folder is no cache.
        DiskError: it can't be written.
    """
    removed: list[CacheEntry] = []
    aside: list[Path] = []
    before = entries_of(folder)  # refuses what is no cache, before a file is written there
    for kind in VERSIONS:
        sweep(folder / kind)
    if sum(entry.size_bytes for entry in before) <= keep_bytes:
        return removed
    with cache_lock(folder, NAMING):  # none comes into use between the look and the removal
        entries = entries_of(folder)
        total = sum(entry.size_bytes for entry in entries)
        for entry in reversed(entries):
            if total <= keep_bytes:
                break
            if entry.state != "in use":
                aside.append(put_aside(entry.folder))
                removed.append(entry)
                total -= entry.size_bytes
    for path in aside:
        shutil.rmtree(path, ignore_errors=True)
    return removed


def keep_below(folder: Path, limit_gb: float) -> None:
    """Prune a cache whose limit a config gives, when a run begins, and say what was removed, or that nothing can be."""
    try:
        removed = prune(folder, limit_gb * 1e9)
    except (DatasetError, DiskError) as error:  # none yet, or another's
        if folder.is_dir():
            LOG.warning("the cache stays as large as it is: %s", error)
        return
    if removed:
        size_gb = sum(entry.size_bytes for entry in removed) / 1e9
        LOG.info("cache: %d entries (%.1f GB) were removed, limit %g GB", len(removed), size_gb, limit_gb)

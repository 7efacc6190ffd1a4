"""Which entries of a cache live processes use; a killed process holds none, as the system frees its lock."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segmed.data.cache_lock import cache_lock

FOLDER = "in_use"  # of a cache: for each user a list of entries, and a lock that it holds as long as it lives
NAMING = "in_use"  # lock of a cache under which entries are named as in use, and taken away


class EntriesInUse:
    """Entries that nobody may remove while this object lives; in a worker process, which its parent outlives, none.

    Where the cache can't be written, or its disk knows no locks, nothing is held: who prunes there is told nothing.

    Args:
        folder: of the cache; None: holds nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._names: set[str] = set()
        self._list: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return EntriesInUse, (None,)

    def hold(self, names: Iterable[str]) -> None:
        """Keep entries from being removed, whether they are there already or not."""
        new = set(names) - self._names
        if self.folder is None or not new:
            return
        with suppress(OSError, NotImplementedError), cache_lock(self.folder, NAMING):
            if self._list is None:
                self._list = self._begun(self.folder / FOLDER)
            with open(self._list, "a", encoding="ascii") as file:
                file.writelines(f"{name}\n" for name in sorted(new))
            self._names |= new

    def _begun(self, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / f"{uuid.uuid4().hex}.lock", thread_local=False)
        lock.acquire(timeout=0)
        held = Path(lock.lock_file).with_suffix(".txt")
        weakref.finalize(self, _end, lock, held, os.getpid())
        return held


def _end(lock: FileLock, held: Path, process: int) -> None:
    """Hold nothing any more; a forked process has a copy of what its parent still needs."""
    if os.getpid() == process:
        _clear(lock, held)


def _clear(lock: FileLock, held: Path) -> None:
    with suppress(OSError):
        held.unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def names_in_use(folder: Path) -> set[str]:
    """Names of the entries that live processes use; lists of processes that were killed are removed.

    Args:
        folder: of the cache.
    """
    names: set[str] = set()
    for held in (folder / FOLDER).glob("*.txt"):
        lock = FileLock(held.with_suffix(".lock"), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError, NotImplementedError):  # used, or nobody can say
            with suppress(OSError):
                names.update(held.read_text(encoding="ascii").split())
        else:
            _clear(lock, held)
    return names

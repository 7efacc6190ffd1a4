"""A lock for each entry of a cache, so that one process builds it; the system frees the lock of a killed process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from segmed.errors import DiskError

WAY_OUT = "name another folder as `cache` in the config (--cache FOLDER)"


@contextmanager
def cache_lock(folder: Path, key: str) -> Iterator[None]:
    """Hold the lock of one entry within the block.

    Args:
        folder: of the cache; locks lie in its `locks`.
        key: name of the entry.

    Raises:
        DiskError: the folder can't be written.
    """
    try:
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "locks" / key)
        lock.acquire()
    except OSError as error:
        raise DiskError(
            error.errno, f"can't write to the cache {folder}: {error.strerror or error}; {WAY_OUT}"
        ) from error
    try:
        yield
    finally:
        lock.release()

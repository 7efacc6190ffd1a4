"""What keeps a run whole: one process at a time writes it, inside its folder, and what only reads it writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from segmed.errors import RunError
from segmed.files import bounds, check_target
from segmed.runs.run_folder import LOCK, Run

WAIT_S = 10.0  # data workers of a run that was killed notice it within 5 s; until then they hold its lock


@contextmanager
def holding(folder: Path, *, leads: bool = True) -> Iterator[None]:
    """Be the only process (or group of processes) that writes a run, and write nothing outside of it by a link.

    Args:
        folder: of the run or of the cross-validation.
        leads: whether this process is the one of its group that writes.

    Raises:
        RunError: another process holds it, or it can't be written.
        DiskError: its lock is a link.
    """
    with bounds(folder), _lock(folder) if leads else nullcontext():
        yield


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    path = folder / LOCK
    check_target(path / LOCK)  # refuses a lock that is itself a link
    lock = FileLock(path, timeout=WAIT_S)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"run {folder} is being trained by another process: wait for it, or stop it first") from None
    except NotImplementedError:  # a network disk without locks
        yield
        return
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"no permission to write run folder {folder} ({reason}): copy it, then go on there") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether a process trains what is in a folder, now."""
    path = folder / LOCK
    if path.is_symlink() or not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False


def own_files(folder: Path) -> Iterator[Path]:
    """The files that a run, or the runs below a folder, consist of: what tools that read it must never write."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path
        elif path.name in ("weights", "test", "predictions", "tensorboard", "wandb", "mlflow"):
            yield from (file for file in path.rglob("*") if file.is_file())
        elif not path.is_symlink() and (Run(path).config.is_file() or path.name in ("coarse", "fine")):
            yield from own_files(path)

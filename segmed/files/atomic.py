"""Files that are whole or not there: written to a temporary name and renamed, never over an input, never by a link."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.errors import DiskError

NAME_BYTES = 255  # of a file's name, on every usual file system
TEMPORARY = re.compile(r"\.([0-9a-f]{8})-(\d+)\..*", re.DOTALL)  # machine and process that write it
FORGOTTEN_S = 7 * 24 * 3600  # age from which a temporary file of another machine counts as left behind


# ---------------------------------------------------------------- what may be written


@dataclass(frozen=True, eq=False)
class _Bounds:
    folders: tuple[str, ...]  # as they are named, from the root of the disk on
    inputs: dict[tuple[int, int], Path]


_bounds: list[_Bounds] = []  # of the whole process: the threads and processes that a tool starts keep to them, too


@contextmanager
def bounds(*folders: Path | str, inputs: Iterable[Path | str] = ()) -> Iterator[None]:
    """Within the block no input is replaced or removed, and nothing is written through a link below `folders`.

    Every writer of this module keeps to it: whatever a tool's options are, it can't destroy what it reads.

    Args:
        folders: that the user named for what is written; they may themselves be reached through links.
        inputs: files, and folders whose files are meant (DICOM slices); what is not there is left out.
    """
    own = _Bounds(tuple(map(_from_root, folders)), dict(_identities(inputs)))
    _bounds.append(own)
    try:
        yield
    finally:
        _bounds.remove(own)


def _identities(paths: Iterable[Path | str]) -> Iterator[tuple[tuple[int, int], Path]]:
    """Device and inode of files: the same under every name and through every link."""
    for path in map(Path, paths):
        for file in path.iterdir() if path.is_dir() else (path,):
            identity = _identity(file)
            if identity is not None:
                yield identity, file


def _identity(path: Path | str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return None if stat.S_ISDIR(status.st_mode) else (status.st_dev, status.st_ino)


def check_target(target: Path | str) -> None:
    """See that a file may be written, replaced or removed.

    Raises:
        DiskError: it is an input, or a link would lead out of the folder that the user named.
    """
    for own in _bounds:
        source = own.inputs.get(_identity(target) or (-1, -1))
        if source is not None:
            named = f"{target} is an input" if Path(target) == source else f"{target} is the input {source}"
            raise DiskError(f"{named}, and inputs are never replaced: choose another output")
        for folder in own.folders:
            _check_way(folder, os.path.dirname(_from_root(target)))


def _from_root(path: Path | str) -> str:
    """The whole path, with its `..`."""
    return os.path.join(os.getcwd(), Path(path))


def _check_way(folder: str, place: str) -> None:
    """See that the way down from a folder to a place below it stays there; any other place is none of its affair."""
    while place.startswith(folder.rstrip(os.sep) + os.sep):
        if os.path.basename(place) == "..":
            raise DiskError(f"{place} leads out of {folder}: nothing is written outside")
        if os.path.islink(place):
            raise DiskError(f"{place} is a link, and nothing is written through it: remove it, or choose another")
        place = os.path.dirname(place)


def remove(path: Path | str) -> None:
    """Remove a file, if it is there.

    Raises:
        DiskError: it is an input, a link leads there, or there is no permission.
    """
    check_target(path)
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise _named(error, Path(path)) from error


# ---------------------------------------------------------------- temporary names


def _temporary(target: Path) -> Path:
    """A name beside the target that says who writes it, and ends like it: writers choose a format by suffix."""
    prefix, name = f".{_machine()}-{os.getpid()}.", target.name
    while len(os.fsencode(prefix + name)) > NAME_BYTES:
        name = name[1:]
    return target.with_name(prefix + name)


def _machine() -> str:
    """Tells machines that share a disk apart, and containers with their own numbers of processes."""
    numbers = ""
    with suppress(OSError):
        numbers = os.readlink("/proc/self/ns/pid")
    return hashlib.blake2b(f"{socket.gethostname()} {numbers}".encode(), digest_size=4).hexdigest()


def sweep(folder: Path | str) -> None:
    """Remove the temporary files that killed processes left in a folder."""
    import psutil

    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = TEMPORARY.fullmatch(entry.name)
            if match is None:
                continue
            here = match[1] == _machine()
            with suppress(OSError):
                old = time.time() - entry.stat(follow_symlinks=False).st_mtime > FORGOTTEN_S
                if not psutil.pid_exists(int(match[2])) if here else old:
                    _clear(Path(entry.path))


_swept: set[tuple[int, str]] = set()  # process and folder: a folder of thousands of files is listed once


def _prepare(target: Path) -> Path:
    """Check a target, make its folder, remove what killed processes left there; its temporary name, which is free."""
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    place = (os.getpid(), os.path.abspath(target.parent))
    if place not in _swept:
        _swept.add(place)
        sweep(target.parent)
    temporary = _temporary(target)
    _clear(temporary)
    return temporary


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- writing


def put_aside(path: Path) -> Path:
    """Let a file or folder vanish at once: it has a temporary name from then on, which `sweep` clears in the end.

    Raises:
        DiskError: it is an input, a link leads there, or there is no permission.
    """
    check_target(path)
    temporary = _temporary(path)
    _clear(temporary)
    try:
        os.replace(path, temporary)
    except OSError as error:
        raise _named(error, path) from error
    return temporary


def put(temporary: Path, target: Path) -> None:
    """Let a finished file or folder appear under its name."""
    os.replace(temporary, target)


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `target` that becomes it when the block ends well.

    The temporary name keeps the target's suffixes, so that writers which choose a format by suffix work.

    Raises:
        DiskError: the disk is full, the folder can't be written, or the target is an input.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        temporary = _prepare(target)
        yield temporary
        check_target(target)
        put(temporary, target)
    except OSError as error:
        raise _named(error, target) from error
    finally:
        if temporary is not None:
            _clear(temporary)


@contextmanager
def atomic_folder(target: Path | str) -> Iterator[Path]:
    """Give an empty temporary folder beside `target` that becomes it when the block ends well.

    Raises:
        FileExistsError: another process made a filled `target` meanwhile; the temporary folder is removed.
        DiskError: the disk is full or the folder can't be written.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        temporary = _prepare(target)
        temporary.mkdir()
        yield temporary
        put(temporary, target)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, f"{target} exists already") from error
        raise _named(error, target) from error
    finally:
        if temporary is not None:
            _clear(temporary)


def make_folder(folder: Path | str) -> None:
    """Make the folder that a command writes to, before it does any work.

    Raises:
        DiskError: it can't be made or written, in a line that says why.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file is in the way" if isinstance(error, (FileExistsError, NotADirectoryError)) else error.strerror
        raise DiskError(error.errno, f"cannot make folder {folder} ({reason}): choose another") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DiskError(errno.EACCES, f"no permission to write {folder}: choose another folder")


@contextmanager
def disk_errors(target: Path | str) -> Iterator[None]:
    """Name the file, or the folder, in what goes wrong while it is written in place.

    Raises:
        DiskError: the disk is full, the file can't be written, is an input, or is a link out of the folder.
    """
    check_target(target)
    check_target(Path(target) / "_")  # which a target that is itself a link would lead astray, too
    try:
        yield
    except OSError as error:
        raise _named(error, Path(target)) from error


def _named(error: OSError, target: Path) -> OSError:
    if isinstance(error, DiskError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskError(error.errno, f"no space left for {target}: free some space or choose another folder")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskError(error.errno, f"no permission to write {target}: choose another folder")
    return error


def atomic_write_text(target: Path | str, text: str) -> None:
    """Write a text file that is whole or not there; bytes of file names that are not UTF-8 stand escaped in it."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(target: Path | str, data: Any) -> None:
    """Write JSON with two spaces of indent; NaN and infinity are refused by the standard, so they become null."""
    with atomic_path(target) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(finite(data), file, indent=2, ensure_ascii=False, allow_nan=False)  # no text of the whole in memory
        file.write("\n")


def finite(data: Any) -> Any:
    """The same as plain values of JSON: NaN and infinity, which the standard refuses, become None."""
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    if hasattr(data, "item") and getattr(data, "ndim", 0) == 0:
        data = data.item()
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    return str(data) if isinstance(data, Path) else data

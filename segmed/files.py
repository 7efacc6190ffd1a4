"""Files that are whole or not there: written to a temporary name and renamed."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segmed.errors import DiskError


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `target` that becomes it when the block ends well.

    The temporary name keeps the target's suffixes, so that writers which choose a format by suffix work.

    Raises:
        DiskError: the disk is full or the folder can't be written.
    """
    target = Path(target)
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _named(error, target) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(target: Path | str) -> Iterator[Path]:
    """Give an empty temporary folder beside `target` that becomes it when the block ends well.

    Raises:
        FileExistsError: another process made a filled `target` meanwhile; the temporary folder is removed.
        DiskError: the disk is full or the folder can't be written.
    """
    target = Path(target)
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        os.rename(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, f"{target} exists already") from error
        raise _named(error, target) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def disk_errors(target: Path | str) -> Iterator[None]:
    """Name the file in what goes wrong while it is written in place.

    Raises:
        DiskError: the disk is full or the file can't be written.
    """
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
    """Write a text file that is whole or not there."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, digits: int | None = None) -> str:
    """A table as CSV; None and NaN are empty cells, and what is no column is left out.

    Args:
        columns: its header.
        rows: column -> value; a column that a row lacks is empty.
        digits: of numbers that are no whole ones; None: all.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_cell(row.get(column), digits) for column in columns] for row in rows)
    return text.getvalue()


def _csv_cell(value: Any, digits: int | None) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else value if digits is None else f"{value:.{digits}g}"


def write_json(target: Path | str, data: Any) -> None:
    """Write JSON with two spaces of indent; NaN and infinity are refused by the standard, so they become null."""
    atomic_write_text(target, json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if hasattr(data, "item") and getattr(data, "ndim", 0) == 0:
        data = data.item()
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    return str(data) if isinstance(data, Path) else data

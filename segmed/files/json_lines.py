"""Lines of JSON, appended as they come; a line that a kill cut short is left out when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmed.files.atomic import disk_errors, finite


def append_line(path: Path | str, data: Mapping[str, Any]) -> None:
    """Append one line; what a kill left of an earlier one stays apart from it.

    Raises:
        DiskError: the disk is full, the file can't be written, is an input, or is a link out of the folder.
    """
    text = json.dumps(finite(data), ensure_ascii=False, allow_nan=False) + "\n"
    with disk_errors(path), open(path, "ab+") as file:
        if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            text = "\n" + text
        file.write(text.encode("utf-8", errors="backslashreplace"))


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    """The objects of a file, line by line; none where there is no file. What is no whole object is left out."""
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError:
        return []
    return [data for data in map(_object, lines) if data is not None]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None

"""Texts of strangers: names that are plain, lines that a terminal only shows, cells that no spreadsheet computes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")  # escapes, and changes of direction
COMPUTED = ("=", "+", "@", "-", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula
QUOTE = "'"  # before a cell: it is text


def what_is_odd(name: str) -> str | None:
    """Why a name can't be that of a file in a folder of ours; None where it can."""
    if not name or name in (".", ".."):
        return "is no name of a file"
    if "/" in name or "\\" in name:
        return "leads to another folder"
    if CONTROL.search(name):
        return "holds characters that can't be seen"
    return None


def printable(text: object) -> str:
    """One line in which nothing moves a cursor, colours or hides; bytes that are not UTF-8 stand as escapes."""
    line = CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
    return line.encode("utf-8", "backslashreplace").decode()


def as_cell(text: str) -> str:
    """A text as a cell of a CSV table that a spreadsheet may open: what it would compute is quoted."""
    return QUOTE + text if text.lstrip(QUOTE).startswith(COMPUTED) and not _is_number(text) else text


def as_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose texts are cells, see `as_cell`; numbers stay."""
    return {column: as_cell(value) if isinstance(value, str) else value for column, value in row.items()}


def from_cell(cell: str) -> str:
    """The text of a cell that `as_cell` wrote."""
    return cell[1:] if cell.startswith(QUOTE) and cell.lstrip(QUOTE).startswith(COMPUTED) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

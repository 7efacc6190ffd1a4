"""Rows -> a table as CSV, of whose cells no spreadsheet computes one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COMPUTED = ("=", "+", "@", "-", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula
QUOTE = "'"  # before a cell: it is text


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, digits: int | None = None) -> str:
    """A table as text; None and NaN are empty cells, a formula is quoted, and what is no column is left out.

    Args:
        columns: its header.
        rows: column -> value; a column that a row lacks is empty.
        digits: of numbers that are no whole ones; None: all.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(as_cell, columns))
    writer.writerows([_cell(row.get(column), digits) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any, digits: int | None) -> Any:
    if isinstance(value, str):
        return as_cell(value)
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else value if digits is None else f"{value:.{digits}g}"


def as_cell(text: str) -> str:
    """A text as a cell of a CSV table that a spreadsheet may open: what it would compute is quoted."""
    return QUOTE + text if text.lstrip(QUOTE).startswith(COMPUTED) and not _is_number(text) else text


def from_cell(cell: str) -> str:
    """The text of a cell that `as_cell` wrote."""
    return cell[1:] if cell.startswith(QUOTE) and cell.lstrip(QUOTE).startswith(COMPUTED) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

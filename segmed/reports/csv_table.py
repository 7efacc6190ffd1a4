"""Rows -> a table as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, digits: int | None = None) -> str:
    """A table as text; None and NaN are empty cells, and what is no column is left out.

    Args:
        columns: its header.
        rows: column -> value; a column that a row lacks is empty.
        digits: of numbers that are no whole ones; None: all.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column), digits) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any, digits: int | None) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else value if digits is None else f"{value:.{digits}g}"

"""history.csv of a run -> its columns."""

from __future__ import annotations

import csv
from pathlib import Path


def read_history(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Column -> (step, value) of the rows that have it; empty where the file is missing or has no rows."""
    if not path.is_file():
        return {}
    columns: dict[str, list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            for name, cell in row.items():
                try:
                    columns.setdefault(name, []).append((float(row["step"]), float(cell)))
                except (TypeError, ValueError, KeyError):
                    continue  # an empty cell, or a line that a kill has torn
    return {name: points for name, points in columns.items() if points}

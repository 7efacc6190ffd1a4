"""history.csv: one row per step that was logged, the columns growing as new names appear."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from segmed.errors import RunError
from segmed.files import atomic_write_text, disk_errors


class History:
    """A table on disk that a killed and resumed run goes on with.

    Args:
        path: of the CSV file.
        step: last step of the checkpoint; later rows are cut, and so is a torn last line.
    """

    def __init__(self, path: Path, *, step: int = 0) -> None:
        self.path = path
        self._columns: list[str] = []
        self._last: dict[str, str] = {}
        self._offset = 0
        if path.exists():
            self._rewrite([row for row in self.rows() if int(row["step"]) <= step])

    def rows(self) -> list[dict[str, str]]:
        """All complete rows, as text by column; empty cells are left out."""
        if not self.path.exists():
            return []
        try:
            lines = list(csv.reader(io.StringIO(self.path.read_text(encoding="utf-8"))))
        except (UnicodeDecodeError, csv.Error) as error:
            raise self._damaged() from error
        columns = lines[0] if lines else []
        if columns and columns[0] != "step":
            raise self._damaged()
        complete = [line for line in lines[1:] if len(line) == len(columns) and line[0].isdecimal()]
        return [{name: cell for name, cell in zip(columns, line, strict=True) if cell} for line in complete]

    def _damaged(self) -> RunError:
        return RunError(f"{self.path} is damaged or of another version: move it away, and the run goes on without it")

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; values of the same step as the last row join it.

        Raises:
            DiskError: no space, or no permission.
        """
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in values.items()}}
        same_step = self._last.get("step") == row["step"]
        merged = {**self._last, **row} if same_step else row
        if set(merged) <= set(self._columns):
            self._write(merged, replace=same_step)
        else:
            rows = self.rows()
            self._rewrite([*(rows[:-1] if same_step else rows), merged])

    def _write(self, row: Mapping[str, str], *, replace: bool) -> None:
        with disk_errors(self.path), open(self.path, "r+", encoding="utf-8", newline="") as file:
            if replace:
                file.seek(self._offset)
                file.truncate()
            else:
                self._offset = file.seek(0, io.SEEK_END)
            file.write(_line(row.get(name, "") for name in self._columns))
        self._last = dict(row)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self._columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
        lines = [_line(self._columns), *(_line(row.get(name, "") for name in self._columns) for row in rows)]
        atomic_write_text(self.path, "".join(lines))
        self._last = dict(rows[-1]) if rows else {}
        self._offset = sum(len(line.encode()) for line in lines[:-1])


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()

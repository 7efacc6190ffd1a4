"""Files that are whole or not there, and the texts of strangers in them: names, lines, cells of tables."""

from __future__ import annotations

from segmed.files.atomic import (
    TEMPORARY,
    atomic_folder,
    atomic_path,
    atomic_write_text,
    bounds,
    check_target,
    disk_errors,
    finite,
    make_folder,
    put,
    put_aside,
    remove,
    sweep,
    write_json,
)
from segmed.files.csv_table import as_cell, csv_text, from_cell
from segmed.files.json_lines import append_line, read_lines
from segmed.files.plain import printable, what_is_odd

__all__ = [
    "TEMPORARY",
    "append_line",
    "as_cell",
    "atomic_folder",
    "atomic_path",
    "atomic_write_text",
    "bounds",
    "check_target",
    "csv_text",
    "disk_errors",
    "finite",
    "from_cell",
    "make_folder",
    "printable",
    "put",
    "put_aside",
    "read_lines",
    "remove",
    "sweep",
    "what_is_odd",
    "write_json",
]

"""Notebooks -> pages: their text, code and, where they are run, what they print and draw."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SECONDS = 600  # of a cell, at most
SHORT = {
    "first_run": {"CASES": 6, "MINUTES": 0.4, "CHANNELS": (8, 16, 32)},
    "looking_inside": {"CASES": 5, "MINUTES": 0.6, "CHANNELS": (8, 16, 32)},
    "live_wire": {},
}


def write_notebook_pages(notebooks: Path, folder: Path, *, run: bool) -> None:
    """A page a notebook, and the list of them.

    Args:
        notebooks: folder of .ipynb files, without outputs.
        folder: of the pages.
        run: whether they are run, with trainings of less than a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for path in sorted(notebooks.glob("*.ipynb")):
        names.append(path.stem)
        shutil.copyfile(path, folder / path.name)
        _write_page(path, folder, run=run)
    ran = "Run when this site was built, with trainings of less than a minute." if run else "Shown without being run."
    lines = ["# Notebooks", "", f"Each is one task. {ran} `tests/test_notebooks.py` runs them all.", ""]
    lines += [":::{toctree}", ":maxdepth: 1", *names, ":::", ""]
    (folder / "index.md").write_text("\n".join(lines), encoding="utf-8")


def _write_page(path: Path, folder: Path, *, run: bool) -> None:
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    if run:
        first = next(cell for cell in book.cells if cell.cell_type == "code")
        shown = first.source
        first.source += "".join(f"\n{name} = {value!r}" for name, value in SHORT.get(path.stem, {}).items())
        with TemporaryDirectory() as work:
            NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": work}}).execute()
        first.source = shown
    lines: list[str] = []
    for number, cell in enumerate(book.cells):
        if cell.cell_type == "markdown":
            lines += [cell.source, ""]
            continue
        lines += ["```python", "\n".join(line for line in cell.source.splitlines() if line[:1] != "%"), "```", ""]
        for place, output in enumerate(cell.outputs):
            lines += _shown(output, folder, f"{path.stem}_{number}_{place}.png")
    lines += [f"{{download}}`The notebook <{path.name}>`", ""]
    (folder / f"{path.stem}.md").write_text("\n".join(lines), encoding="utf-8")


def _shown(output: Any, folder: Path, picture: str) -> list[str]:
    data = output.get("data", {})
    if "image/png" in data:
        (folder / picture).write_bytes(base64.b64decode(data["image/png"]))
        return [f"![What the cell above draws]({picture})", ""]
    text = output.get("text", "") if output.get("name") == "stdout" else data.get("text/plain", "")
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).rstrip()
    return ["```text", text, "```", ""] if text.strip() else []

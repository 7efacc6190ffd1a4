"""The public names of segmed -> a page of their docstrings, in the groups of `help(segmed)`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import segmed

INTRODUCTION = """
`import segmed` imports nothing heavy; each name is imported when it is first used. The examples run as they stand, one
after the other, in an empty folder: `tests/test_public.py` does so. They begin with these lines:
"""


def write_public_page(folder: Path) -> None:
    """Write `python.rst`.

    Args:
        folder: of the page.
    """
    from segmed import public

    lines = ["The public interface", "====================", INTRODUCTION.replace("`", "``")]
    lines += [".. code-block:: python", "", *(f"   {line}" for line in _first_lines(public.__doc__ or "")), ""]
    for title, names in groups().items():
        lines += [title, "-" * len(title), ""]
        for name in names:
            kind = "autoclass" if inspect.isclass(getattr(segmed, name)) else "autofunction"
            lines += [f".. {kind}:: segmed.{name}", ""]
            lines += ["   :members:", ""][: 2 if kind == "autoclass" else 0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "python.rst").write_text("\n".join(lines), encoding="utf-8")


def groups() -> dict[str, list[str]]:
    """Title of a group -> its names, as segmed's docstring lists them."""
    rows = re.findall(r"^(\w[\w ]*):\s+(.+)$", segmed.__doc__ or "", flags=re.M)
    return {title: [name.strip() for name in names.split(",")] for title, names in rows}


def _first_lines(text: str) -> list[str]:
    """The examples of a docstring, without their prompts."""
    return [line.strip()[4:] for line in text.splitlines() if re.match(r"\s*(>>>|\.\.\.)", line)]

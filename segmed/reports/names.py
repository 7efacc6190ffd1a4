"""Names that are too long for a table or a figure -> the part of them that fits."""

from __future__ import annotations


def beginning(name: str, most: int = 24) -> str:
    """A name, its end left out where it has more letters: of a label, a class, a row."""
    return name if len(name) <= most else name[: most - 1] + "…"


def ending(name: str, most: int = 34) -> str:
    """A name, its beginning left out where it has more letters: paths and ids of cases differ at their end."""
    return name if len(name) <= most else "…" + name[len(name) - most + 1 :]

"""An audit of images with classes -> what a terminal shows of it: tables, findings by kind, a verdict."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from segmed.data.leaks.image_audit import ClassAudit
from segmed.reports.audit.text import findings_text, verdict


def class_audit_text(audit: ClassAudit) -> RenderableType:
    """All of it, for `rich.console.Console.print`."""
    return Group(*class_tables(audit), *findings_text(audit.findings), verdict(audit))


def class_tables(audit: ClassAudit) -> list[Table]:
    """What it is like, and what a figure is worth, where something was measured."""
    return [_classes(audit), *([_scores(audit)] if audit.shortcuts or audit.neighbours else [])]


def _classes(audit: ClassAudit) -> Table:
    who = f"{audit.subjects} subjects" if audit.subjects is not None else "subjects not known"
    total = sum(audit.classes.values())
    table = Table("class", "images", "share", title=f"{audit.name}: {total} images, {who}", title_justify="left")
    for name, count in audit.classes.items():
        table.add_row(name, str(count), f"{count / max(total, 1):.0%}")
    if audit.parts:
        table.caption = "parts: " + ", ".join(f"{part} {count}" for part, count in audit.parts.items())
        table.caption_justify = "left"
    return table


def _scores(audit: ClassAudit) -> Table:
    """Of the nearest neighbour and of each shortcut."""
    table = Table(
        "what a figure is worth", "accuracy", "balanced", "chance", title="without learning", title_justify="left"
    )
    for split, score in audit.neighbours.items():
        name = {"images": "nearest neighbour, split by image"}.get(split, f"nearest neighbour, split by {split}")
        table.add_row(name, f"{score.accuracy:.1%}", f"{score.balanced_accuracy:.1%}", f"majority {score.majority:.1%}")
    for shortcut in audit.shortcuts:
        chance = f"{shortcut.chance:.1%} ({shortcut.chance_low:.1%} to {shortcut.chance_high:.1%})"
        table.add_row(shortcut.feature, "", f"{shortcut.balanced_accuracy:.1%}", chance)
    return table

"""An audit -> report.html: what the data set is like, what must be mended, and where it would leak."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from segmed.data.audit import Audit
from segmed.data.findings import Finding
from segmed.data.leaks.image_audit import ClassAudit
from segmed.reports.audit.leak_text import class_tables
from segmed.reports.audit.text import facts_table, verdict
from segmed.reports.rendering import pictures_in, write_page

CAPTIONS = {"leaks": "What tells the classes apart without anatomy, and which images show the same."}
Key = tuple[str, str, str]


def write_audit_page(audit: Audit, folder: Path, *, name: str, root: Path, pictures: bool = False) -> Path:
    """Write the page of a data set with label maps.

    Args:
        audit: what is shown.
        folder: it is written to.
        name, root: of the data set.
        pictures: whether the images are pictures, which have pixels and no millimetres.

    Raises:
        DiskError: the folder can't be written.
    """
    tables = [facts_table(audit, name=name, pictures=pictures)] if audit.facts else []
    counted = (str(len(audit.facts)), "", "readable cases")
    return _write(folder, name, audit, counted, tables, [("data", str(root))])


def write_class_audit_page(audit: ClassAudit, folder: Path, *, root: Path) -> Path:
    """Write the page of images with classes, with leaks.png, where it lies in the folder.

    Raises:
        DiskError: the folder can't be written.
    """
    facts = [("data", str(root))]
    if audit.parts:
        facts.append(("split", ", ".join(f"{count} {part}" for part, count in audit.parts.items())))
    counted = (str(sum(audit.classes.values())), "", f"images of {len(audit.classes)} classes")
    return _write(folder, audit.name, audit, counted, class_tables(audit), facts)


def _write(
    folder: Path, name: str, audit: Audit | ClassAudit, counted: Key, tables: Sequence[Table], facts: Sequence[Any]
) -> Path:
    errors = len(audit.errors)
    return write_page(
        folder / "report.html",
        "audit.html",
        title=f"{name}: audit",
        verdict=verdict(audit).plain,
        key=[counted, (str(errors), "", "to mend"), (str(len(audit.findings) - errors), "", "to look at")],
        facts=facts,
        tables=[_cells(table) for table in tables],
        findings=_groups(audit.findings),
        pictures=pictures_in(folder, CAPTIONS),
    )


def _cells(table: Table) -> dict[str, Any]:
    """A table of the terminal as text."""
    rows = list(zip(*(map(str, column.cells) for column in table.columns), strict=True))
    head = [str(column.header) for column in table.columns]
    return {"title": str(table.title or ""), "head": head, "rows": rows, "caption": str(table.caption or "")}


def _groups(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings of a kind together, errors first."""
    kinds = dict.fromkeys((finding.severity, finding.kind) for finding in findings)
    groups = []
    for severity, kind in sorted(kinds, key=lambda each: each[0] != "error"):
        alike = [finding for finding in findings if (finding.severity, finding.kind) == (severity, kind)]
        named = any(finding.case for finding in alike)
        groups.append({
            "title": f"{severity}: {kind.replace('_', ' ')}",
            "head": [*(["case"] if named else []), "what", "what to do"],
            "rows": [[*([one.case or ""] if named else []), one.what, one.fix] for one in alike],
        })  # fmt: skip
    return groups

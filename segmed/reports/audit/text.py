"""An audit -> what a terminal shows of it: a table of the data set, and the findings by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from segmed.data.audit import Audit
from segmed.data.findings import Finding
from segmed.data.fingerprint import CaseFacts
from segmed.data.leaks.image_audit import ClassAudit

THICK = 2.0  # slices are thick from this many times the spacing within them on
SHOWN = 5  # findings of one kind on the terminal; the rest is in audit.json
STYLES = {"error": "bold red", "warning": "yellow"}


def audit_text(audit: Audit, *, name: str, pictures: bool = False) -> RenderableType:
    """All of it, for `rich.console.Console.print`.

    Args:
        audit: what is shown.
        name: of the data set, the table's title.
        pictures: whether the images are pictures, which have pixels and no millimetres.
    """
    parts: list[RenderableType] = [facts_table(audit, name=name, pictures=pictures)] if audit.facts else []
    return Group(*parts, *findings_text(audit.findings), verdict(audit))


def facts_table(audit: Audit, *, name: str, pictures: bool = False) -> Table:
    """What the cases are like: median, smallest and largest of each fact."""
    facts = audit.facts
    orders = _axis_orders(facts)
    table = Table(
        "", "cases", "median", "from", "to", title=f"{name}: {len(facts)} readable cases", title_justify="left"
    )
    table.add_row("shape", "", *_spread(_triples(facts, "shape", orders), "{:.0f}"))
    if not pictures:
        table.add_row("spacing (mm)", "", *_spread(_triples(facts, "spacing_mm", orders), "{:.4g}"))
    table.add_row("body (voxels)", "", *_spread(_triples(facts, "body_shape", orders), "{:.0f}"))
    for modality in audit.modalities:
        values = [fact.intensity[modality] for fact in facts if modality in fact.intensity]
        for title, key in (("0.5 %", "p0_5"), ("median", "p50"), ("99.5 %", "p99_5")):
            table.add_row(f"{modality}, {title}", "", *_spread(np.array([[v[key]] for v in values]), "{:.4g}"))
        table.add_row(f"{modality}, zeros", "", *_spread(np.array([[v["zero_fraction"]] for v in values]), "{:.0%}"))
    unit = "pixels" if pictures else "ml"
    for label in audit.labels:
        sizes = [
            fact.label_voxels[label] if pictures else fact.label_ml[label]
            for fact in facts
            if fact.label_voxels.get(label)
        ]
        if sizes:
            row = _spread(np.array([[size] for size in sizes]), "{:.4g}")
            table.add_row(f"{label} ({unit})", str(len(sizes)), *row)
        else:
            table.add_row(f"{label} ({unit})", "0", "", "", "")
    if pictures:
        return table
    orientations = Counter(fact.orientation for fact in facts).most_common()
    table.caption = "orientation: " + ", ".join(f"{name} in {count}" for name, count in orientations)
    if len(set(orders)) > 1:
        table.caption += "; thick slices point in different ways: their axis is shown last"
    table.caption_justify = "left"
    return table


def _axis_orders(facts: Sequence[CaseFacts]) -> list[tuple[int, ...]]:
    """Order of axes for display: the one across thick slices last, where it is not the same for all cases."""
    across = [int(np.argmax(fact.spacing_mm)) for fact in facts]
    thick = [max(fact.spacing_mm) > THICK * sorted(fact.spacing_mm)[1] for fact in facts]
    if len({axis for axis, is_thick in zip(across, thick, strict=True) if is_thick}) < 2:
        return [(0, 1, 2)] * len(facts)
    return [
        (*(other for other in range(3) if other != axis), axis) if is_thick else (0, 1, 2)
        for axis, is_thick in zip(across, thick, strict=True)
    ]


def _triples(facts: Sequence[CaseFacts], name: str, orders: Sequence[tuple[int, ...]]) -> np.ndarray:
    """One attribute of all cases, (cases, 3), with the axes in the order of display."""
    return np.array(
        [[getattr(fact, name)[axis] for axis in order] for fact, order in zip(facts, orders, strict=True)], float
    )


def _spread(values: np.ndarray, form: str) -> tuple[str, str, str]:
    """Median, minimum and maximum of (cases, axes), axis by axis."""
    return tuple(  # type: ignore[return-value]
        " × ".join(form.format(value) for value in reduce(values, axis=0)) for reduce in (np.median, np.min, np.max)
    )


def findings_text(findings: Sequence[Finding]) -> Iterable[Text]:
    """A heading a kind, then its first findings, a line each."""
    for severity, kind in dict.fromkeys((finding.severity, finding.kind) for finding in findings):
        alike = [finding for finding in findings if (finding.severity, finding.kind) == (severity, kind)]
        yield Text(f"{severity}: {kind.replace('_', ' ')} ({len(alike)})", style=STYLES[severity])
        for finding in alike[:SHOWN]:
            case = f"{finding.case}: " if finding.case else ""
            yield Text(f"  {case}{finding.what}\n    -> {finding.fix}")
        if len(alike) > SHOWN:
            yield Text(f"  and {len(alike) - SHOWN} more, see audit.json")


def verdict(audit: Audit | ClassAudit) -> Text:
    """One line: what must be done."""
    errors = len(audit.errors)
    warnings = len(audit.findings) - errors
    if errors:
        return Text(f"{errors} to mend, {warnings} to look at", style=STYLES["error"])
    return Text(f"nothing to mend, {warnings} to look at" if warnings else "nothing to mend", style="green")

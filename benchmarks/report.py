"""Rows -> a table for the terminal, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.timing import Outcome, Target, Timing
from segmed.files import atomic_write_text, write_json

MIB = 2**20
COLUMNS = ("contender", "median", "min–max", "× ours", "memory")


def show(outcome: Outcome, console: Console, *, judged: bool) -> None:
    """Print one row: its contenders, its targets, its notes."""
    table = Table(title=outcome.work, title_justify="left", title_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "contender" else "right")
    for cells in contender_lines(outcome):
        table.add_row(*cells)
    console.print(table)
    for target in outcome.targets:
        console.print(f"  {verdict(target, judged=judged)}{target}", markup=False)
    for note in outcome.notes:
        console.print(f"  {note}", markup=False)


def contender_lines(outcome: Outcome) -> list[tuple[str, ...]]:
    """The cells of COLUMNS for every contender, ours first."""
    names = sorted(outcome.timings, key=lambda name: name != outcome.ours)
    return [_cells(name, outcome.timings[name], outcome.ratio(name)) for name in names]


def _cells(name: str, timing: Timing, ratio: float) -> tuple[str, ...]:
    low, high = duration(min(timing.seconds)), duration(max(timing.seconds))
    memory = "" if timing.memory_bytes is None else f"{timing.memory_bytes / MIB:.0f} MiB"
    return name, duration(timing.median), f"{low}–{high}", f"{ratio:.2f}", memory


def duration(seconds: float) -> str:
    """Three figures in the unit that fits."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1000 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"


def verdict(target: Target, *, judged: bool) -> str:
    """Whether a target is met, where the sizes are those that it is about."""
    if not judged:
        return ""
    return "met: " if target.met else "MISSED: "


def markdown(outcomes: Sequence[Outcome], machine: str, *, judged: bool) -> str:
    """A table of all rows, then targets and notes."""
    lines = [machine, "", f"| work | {' | '.join(COLUMNS)} |", "|---|---|---:|---:|---:|---:|"]
    for outcome in outcomes:
        for number, cells in enumerate(contender_lines(outcome)):
            lines.append(f"| {'' if number else outcome.work} | {' | '.join(cells)} |")
    lines.append("")
    for outcome in outcomes:
        lines += [f"- {outcome.row}: {verdict(target, judged=judged)}{target}" for target in outcome.targets]
        lines += [f"- {outcome.row}: {note}" for note in outcome.notes]
    return "\n".join(lines) + "\n"


def write(folder: Path, outcomes: Sequence[Outcome], facts: dict[str, Any], machine: str, *, judged: bool) -> None:
    """benchmark.md and benchmark.json."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "benchmark.md", markdown(outcomes, machine, judged=judged))
    write_json(folder / "benchmark.json", {**facts, "rows": [outcome.to_dict() for outcome in outcomes]})

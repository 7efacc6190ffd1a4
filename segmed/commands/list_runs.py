"""Runs below a folder: segmed runs FOLDER"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from segmed.commands.command_line import parse
from segmed.config import Section
from segmed.errors import RunError
from segmed.files import printable
from segmed.runs.run_state import RunStatus, last_change, runs_below, size_bytes, status_of, trial_end

COLUMNS = ("run", "state", "budget", "done", "score", "Dice", "left", "age", "size")
LEFT_ALIGNED = 3


class Arguments(Section):
    """List the runs below a folder: state, budget, score, age, size; cross-validations with their folds.

    A run is done, trained (and not tested yet), training (a process holds it), stopped (it can go on) or planned;
    trials that a search does not go on with are pruned or failed. `score` is the best of the validations so far, `Dice`
    that of the test part, of a finished run. `left` is by the speed so far. Jobs and trials that failed are named with
    the reason, jobs by the last line of their log. Exit code 0, also where there is no run.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = Field(
        Path("runs"), description="folder of runs, or a run"
    )
    sort: Literal["name", "age", "score", "size"] = Field(
        "name", description="newest, best or largest first; or by name"
    )


def main() -> int:
    """Print the table."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if not arguments.folder.is_dir():
        raise RunError(f"folder {arguments.folder} is not there: name the folder in which runs are made")
    lines = table_of(arguments.folder, arguments.sort)
    print("\n".join(lines) if lines else f"no runs below {arguments.folder}")
    for line in [*failed_trials(arguments.folder), *failed_jobs(arguments.folder)]:
        print(line)
    return 0


def table_of(folder: Path, sort: str = "name") -> list[str]:
    """The lines of the table, its head first; none where there is no run."""
    rows = [(path, status_of(path), last_change(path), size_bytes(path)) for path in runs_below(folder)]
    if not rows:
        return []
    orders = {
        "age": lambda row: -row[2],
        "score": lambda row: -(row[1].score if row[1].score is not None else float("-inf")),
        "size": lambda row: -row[3],
    }
    rows = sorted(rows, key=orders[sort]) if sort in orders else rows
    now = time.time()
    cells = [COLUMNS, *(_cells(folder, *row, now=now) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    return ["  ".join(_padded(row, widths)).rstrip() for row in cells]


def _padded(row: tuple[str, ...], widths: list[int]) -> list[str]:
    pairs = enumerate(zip(row, widths, strict=True))
    return [cell.ljust(width) if column < LEFT_ALIGNED else cell.rjust(width) for column, (cell, width) in pairs]


def _cells(folder: Path, path: Path, status: RunStatus, changed: float, size: int, *, now: float) -> tuple[str, ...]:
    name = path.name if path == folder else path.relative_to(folder).as_posix()
    left = "" if status.minutes_left is None or status.state != "training" else duration(60 * status.minutes_left)
    return (
        printable(name), status.state, status.budget,
        "" if status.share is None else f"{100 * status.share:.0f} %",
        "" if status.score is None else f"{status.score:.3f}",
        "" if status.test_dice is None else f"{status.test_dice:.3f}",
        left, duration(now - changed) if changed else "", bytes_text(size),
    )  # fmt: skip


def duration(seconds: float) -> str:
    """In the largest unit of which there is more than one."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def bytes_text(size: int) -> str:
    """In MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def failed_trials(folder: Path) -> list[str]:
    """A line for each run below a folder that is a trial of a search and failed."""
    runs = [path for path in runs_below(folder) if status_of(path).state == "failed"]
    return [printable(f"trial {path} failed: {trial_end(path).get('error', 'no reason given')}") for path in runs]


def failed_jobs(folder: Path) -> list[str]:
    """A line for each job of a plan at or below a folder that failed and was not done since."""
    from segmed.errors import JobError
    from segmed.jobs.carry import exit_words
    from segmed.jobs.job import Plan
    from segmed.jobs.job_records import JobRecords

    lines = []
    for record in sorted({*folder.glob("jobs/plan.json"), *folder.glob("*/jobs/plan.json")}):
        try:
            plan = Plan.load(record.parent.parent)
        except JobError as error:
            lines.append(printable(error))
            continue
        records = JobRecords(plan)
        for job in plan.left():
            attempt = records.attempt(job)
            if attempt is not None and attempt.state == "failed":
                code = exit_words(attempt.code) if attempt.code is not None else "no exit code"
                where = "" if plan.folder == folder else f" of {plan.folder}"
                lines.append(printable(f"job {job.name}{where} failed ({code}): {records.last_line(job)}"))
    return lines

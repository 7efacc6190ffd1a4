"""All jobs of a plan in one table: what each needs, or how far each is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from segmed.files import printable
from segmed.jobs.job import Job, Plan, width
from segmed.jobs.job_records import JobRecords, State
from segmed.runs.run_folder import is_run
from segmed.runs.run_state import RunStatus, status_of

STYLES: dict[State, str] = {
    "waiting": "dim", "running": "bold", "elsewhere": "bold", "done": "green", "failed": "red", "left out": "yellow",
}  # fmt: skip
LINE_SECONDS = 60.0  # between two lines of a job that runs, without a terminal
MOST_ROWS = 40  # of a live table; those that run and those that failed come first


def plan_text(plan: Plan) -> str:
    """The plan before it is carried out: a line a job."""
    left = {job.name for job in plan.left()}
    widest = max(len(job.name) for job in plan.jobs)
    lines = [f"jobs: {len(plan.jobs)}, of which {len(left)} are left to do and {width(plan.jobs)} could run at once"]
    for job in plan.jobs:
        state = "to do" if job.name in left else "done"
        after = f"after {', '.join(job.after)}" if len(job.after) < 4 else f"after {len(job.after)} jobs"
        lines.append(f"  {job.name:{widest}}  {state:5}  {job.needs}" + (f"  {after}" if job.after else ""))
    first = next(iter(plan.left()), plan.jobs[0])
    return printable_lines([*lines, f"  a job is a command line, as: {first.line}"])


def printable_lines(lines: list[str]) -> str:
    """Lines in which nothing but their ends moves a cursor."""
    return "\n".join(map(printable, lines))


class JobTable:
    """The live table in a terminal; a line for each change where there is none.

    Args:
        plan: whose jobs are shown.
        records: of it.
        console: none: standard output.
    """

    def __init__(self, plan: Plan, records: JobRecords, console: Console | None = None) -> None:
        self.plan, self.records = plan, records
        self.console = console or Console()
        self._said: dict[str, State] = {}
        self._last_line: dict[str, float] = {}
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[JobTable]:
        """While the jobs run."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(console=self.console, refresh_per_second=2, transient=True) as self._live:
            yield self
        self._live = None

    def update(self, states: Mapping[str, State]) -> None:
        """Show how far all are."""
        if self._live is not None:
            self._live.update(self.table(states))
            return
        for job in self.plan.jobs:
            state = states[job.name]
            new = self._said.get(job.name, "waiting") != state
            again = state == "running" and time.monotonic() - self._last_line.get(job.name, 0.0) > LINE_SECONDS
            if new or again:
                self._said[job.name], self._last_line[job.name] = state, time.monotonic()
                self.console.print(self._line(job, state), markup=False, highlight=False, soft_wrap=True)

    def _line(self, job: Job, state: State) -> str:
        words = [f"{job.name}: {state}"]
        if state in ("running", "done") and (status := run_status(job)) is not None and status.step:
            words += [
                _step(status),
                f"score {_number(status.score)}" if status.score is not None else "",
                _left(status),
            ]
        if state == "failed":
            words.append(f"{self.records.last_line(job)} (log: {self.records.log(job)})")
        return printable(", ".join(filter(None, words)))

    def table(self, states: Mapping[str, State]) -> Group:
        """State, step, Dice and time left of all jobs."""
        table = Table(box=None, pad_edge=False)
        for name in ("job", "state", "step", "score", "Dice", "left"):
            table.add_column(name, justify="left" if name in ("job", "state") else "right", no_wrap=True)
        order = ("running", "elsewhere", "failed", "left out", "waiting", "done")
        jobs = sorted(self.plan.jobs, key=lambda job: order.index(states[job.name]))[:MOST_ROWS]
        shown = {job.name for job in jobs}
        for job in (job for job in self.plan.jobs if job.name in shown):
            state = states[job.name]
            status = run_status(job)
            cells = ["", "", "", ""] if status is None else [
                _step(status).removeprefix("step "), _number(status.score), _number(status.test_dice),
                _left(status).removesuffix(" left"),
            ]  # fmt: skip
            table.add_row(printable(job.name), Text(state, style=STYLES[state]), *cells)
        counts = [f"{sum(each == state for each in states.values())} {state}" for state in order]
        return Group(table, Text(", ".join(each for each in counts if not each.startswith("0 "))))


def run_status(job: Job) -> RunStatus | None:
    """Where the run of a job stands; None where it is none, or not begun."""
    return status_of(job.folder) if is_run(job.folder) else None


def _step(status: RunStatus) -> str:
    return f"step {status.step}" + (f" ({100 * status.share:.0f} %)" if status.share is not None else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _left(status: RunStatus) -> str:
    minutes = status.minutes_left
    if minutes is None:
        return ""
    return f"{minutes:.0f} min left" if minutes >= 1.5 else f"{60 * minutes:.0f} s left"

"""A plan is carried out: jobs begin when those before them are done and there is room; a failed one stops no other."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from segmed.errors import JobError
from segmed.files import printable
from segmed.jobs.job import Job, Needs, Plan
from segmed.jobs.job_records import JobRecords, State
from segmed.jobs.job_table import JobTable
from segmed.runs import is_held

TICK_S = 0.2
TAKEN_AGAIN = 3  # times that a job begins whose process or machine died; one that ends with an error is not


class Engine(Protocol):
    """What jobs run on, while this process watches them."""

    name: str

    def sized(self, plan: Plan) -> Plan:
        """The plan with the cores that each job gets.

        Raises:
            JobError: a job needs more than there is anywhere.
        """

    def has_room(self, needs: Needs) -> bool:
        """Whether one more may begin."""

    def most_at_once(self, plan: Plan) -> int:
        """How many jobs of a sized plan there is room for at a time."""

    def start(self, job: Job, records: JobRecords) -> None:
        """Begin a job."""

    def ended(self) -> list[tuple[str, int]]:
        """Names and exit codes of the jobs that ended since the last call; a negative code: it was killed."""

    def stop_one(self, name: str) -> None:
        """End one job that runs, so that it could go on."""

    def stop(self) -> None:
        """End what runs, so that it can go on, and wait for that."""


class Stopped(KeyboardInterrupt):
    """The plan was stopped from outside and can go on; the message says how."""


def carry_out(plan: Plan, engine: Engine, table: JobTable | None = None) -> dict[str, State]:
    """Carry out what is left of a plan; what became of each job.

    Raises:
        JobError: a job needs more than there is anywhere; another process carries out the same plan.
        Stopped: SIGTERM or Ctrl-C; all jobs have saved what they have.
    """
    plan = engine.sized(plan)
    records = JobRecords(plan)
    with records.holding(), noted_signals() as requested:
        course = _Course(plan, engine, records)
        with (table or JobTable(plan, records)).shown() as shown:
            while course.step():
                shown.update(course.states)
                time.sleep(TICK_S)
                if requested:
                    engine.stop()
                    course.settle()
                    raise Stopped(f"all jobs have saved; go on with: {shlex.join(plan.again)} --on {engine.name}")
            shown.update(course.states)
    return course.states


class _Course:
    """Where each job of a plan stands, and what comes next."""

    def __init__(self, plan: Plan, engine: Engine, records: JobRecords) -> None:
        self.plan, self.engine, self.records = plan, engine, records
        left = {job.name for job in plan.left()}
        self.states: dict[str, State] = {job.name: "waiting" if job.name in left else "done" for job in plan.jobs}
        self.begun: dict[str, int] = {}

    def step(self) -> bool:
        """Take in what ended, begin what may; whether anything is left."""
        self.settle()
        for job in self.plan.jobs:
            if self.states[job.name] == "waiting":
                self._begin_if_due(job)
            elif self.states[job.name] == "elsewhere" and not is_held(job.folder):
                self.states[job.name] = "done" if job.done else "waiting"
        return not set(self.states.values()) <= {"done", "failed", "left out"}

    def settle(self) -> None:
        """Take in what ended."""
        for name, code in self.engine.ended():
            job = self.plan.by_name[name]
            self.records.end(job, code)
            if code == 0 and job.done:
                self.states[name] = "done"
            elif code < 0 and self.begun[name] < TAKEN_AGAIN:
                self.states[name] = "waiting"
            else:
                self.states[name] = "failed"

    def _begin_if_due(self, job: Job) -> None:
        before = {self.states[name] for name in job.after}
        if before & {"failed", "left out"}:
            self.states[job.name] = "left out"
        elif before <= {"done"} and is_held(job.folder):
            self.states[job.name] = "elsewhere"
        elif before <= {"done"} and self.engine.has_room(job.needs):
            self.begun[job.name] = self.begun.get(job.name, 0) + 1
            self.records.begin(job)
            self.states[job.name] = "running"
            self.engine.start(job, self.records)


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Within the block SIGTERM and Ctrl-C are only noted."""
    requested: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        requested.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def failures(plan: Plan, states: Mapping[str, State]) -> list[str]:
    """A line for each job that failed, with the last line of its log, and for those that wait for it."""
    records = JobRecords(plan)
    lines = []
    for job in plan.jobs:
        if states[job.name] == "failed":
            attempt = records.attempt(job)
            code = "" if attempt is None or attempt.code is None else f" ({exit_words(attempt.code)})"
            lines.append(f"{job.name} failed{code}: {records.last_line(job)} (log: {records.log(job)})")
        elif states[job.name] == "left out":
            lines.append(f"{job.name} is left out: it waits for one that failed")
    return list(map(printable, lines))


def exit_words(code: int) -> str:
    """What an exit code says."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def check_fits(plan: Plan, largest: Needs, where: str) -> None:
    """Refuse a plan of which a job could never begin.

    Args:
        plan: to carry out.
        largest: what the largest machine has.
        where: what it is, for the message.

    Raises:
        JobError: naming the job.
    """
    for job in plan.left():
        if job.needs.exceeds(largest):
            raise JobError(
                f"job {job.name} needs {job.needs}; {where} has {largest}: give less with --jobs.cores, "
                "--jobs.memory-gb or --jobs.gpus, or a larger machine"
            )

"""The records of a plan, in its folder `jobs`: what became of each job, its log, and a lock against a second plan."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from segmed.errors import JobError
from segmed.files import write_json
from segmed.jobs.job import Job, Plan

State = Literal["waiting", "running", "elsewhere", "done", "failed", "left out"]
STATES: dict[State, str] = {
    "waiting": "its turn has not come",
    "running": "of this plan, now",
    "elsewhere": "another process has its run; it is waited for",
    "done": "its last file is there",
    "failed": "it ended without it",
    "left out": "it waits for one that failed",
}
MOST_READ_BYTES = 20_000  # of the end of a log


@dataclass(frozen=True)
class Attempt:
    """One time that a job ran.

    Attributes:
        state: `running`, `done` or `failed`.
        code: exit code; negative: the signal that killed it; None: it runs.
        host: name of the machine.
        began: seconds since 1970.
        seconds: that it took.
        number: counted from 1.
    """

    state: str
    code: int | None = None
    host: str = ""
    began: float = 0.0
    seconds: float = 0.0
    number: int = 1


class JobRecords:
    """The folder `jobs` of a plan.

    Args:
        plan: whose records they are.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.folder = plan.folder / "jobs"

    def log(self, job: Job) -> Path:
        """Everything that the job printed, each attempt behind the one before."""
        return self.folder / "logs" / f"{flat(job.name)}.log"

    def attempt(self, job: Job) -> Attempt | None:
        """What became of it the last time; None where it never ran, or the record is damaged."""
        try:
            return Attempt(**json.loads(self._file(job).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, job: Job, *, host: str = "") -> None:
        """Note that it runs."""
        before = self.attempt(job)
        number = 1 if before is None else before.number + 1
        self.write(job, Attempt("running", None, host or socket.gethostname(), time.time(), number=number))

    def end(self, job: Job, code: int) -> None:
        """Note how it ended."""
        before = self.attempt(job) or Attempt("running", began=time.time())
        state = "done" if job.done and code == 0 else "failed"
        seconds = round(time.time() - before.began, 3)
        self.write(job, Attempt(state, code, before.host, before.began, seconds, before.number))

    def write(self, job: Job, attempt: Attempt) -> None:
        """Write the record of an attempt."""
        write_json(self._file(job), asdict(attempt))

    def _file(self, job: Job) -> Path:
        return self.folder / "states" / f"{flat(job.name)}.json"

    def last_line(self, job: Job) -> str:
        """What the job said last; an error before what follows it."""
        return last_line(self.log(job))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Be the only process that carries out the plan.

        Raises:
            JobError: another one does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise JobError(
                f"another process carries out the jobs of {self.plan.folder}: wait for it, or stop it first; "
                f"segmed runs {self.plan.folder} shows how far it is"
            ) from None
        except NotImplementedError:  # a network disk without locks
            yield
            return
        try:
            yield
        finally:
            lock.release()


def flat(name: str) -> str:
    """The name of a job as that of a file."""
    return name.replace("/", ".")


def last_line(log: Path) -> str:
    """The last line of a log, or its last one that names an error; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - MOST_READ_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines[-5:] if line.startswith("error:")]
    return (errors or lines or [""])[-1]

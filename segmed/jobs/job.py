"""A job, a command line with its run folder, what it needs and what it waits for; a plan is a graph of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from segmed.errors import JobError
from segmed.files import write_json
from segmed.machine import GIB


@dataclass(frozen=True)
class Needs:
    """What a job takes of a machine while it runs.

    Attributes:
        cores: processor cores; None: the engine shares out what there is.
        memory_bytes: of the machine, as the planner estimates it; None: not known.
        gpus: whole ones.
    """

    cores: int | None = None
    memory_bytes: int | None = None
    gpus: int = 0

    def __str__(self) -> str:
        words = ["any number of cores" if self.cores is None else f"{self.cores} core{'s' * (self.cores != 1)}"]
        words += [] if self.memory_bytes is None else [f"{self.memory_bytes / GIB:.1f} GiB"]
        words += [f"{self.gpus} GPU{'s' * (self.gpus != 1)}"] if self.gpus else []
        return ", ".join(words)

    def exceeds(self, other: Needs) -> bool:
        """Whether it is more than there is, of anything that both know."""
        cores = self.cores is not None and other.cores is not None and self.cores > other.cores
        known = self.memory_bytes is not None and other.memory_bytes is not None
        return cores or self.gpus > other.gpus or (known and (self.memory_bytes or 0) > (other.memory_bytes or 0))


@dataclass(frozen=True)
class Job:
    """A command line that may be given twice: what is done it does not do again, what was begun it goes on with.

    Attributes:
        name: in tables, logs and scripts; a path below the plan's folder where it is a run.
        command: words of the command line, the first of which is `segmed`.
        folder: where it writes; the lock, the history and the log of a run lie there.
        proof: the file that it writes last: once that is there, the job is done.
        needs: of a machine.
        after: names of the jobs that it waits for.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    proof: Path
    needs: Needs = Needs()
    after: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether its last file is there."""
        return self.proof.is_file()

    @property
    def line(self) -> str:
        """The command line, as a shell takes it."""
        return shlex.join(self.command)


@dataclass(frozen=True)
class Plan:
    """Jobs in an order in which they could run one after the other.

    Attributes:
        title: what all of them are together.
        folder: of the whole; records of the jobs are kept in its folder `jobs`.
        jobs: each after those that it waits for.
        again: command line by which what is left is gone on with.

    Raises:
        JobError: two of one name, or one that waits for a job that does not come before it.
    """

    title: str
    folder: Path
    jobs: tuple[Job, ...]
    again: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        before: set[str] = set()
        for job in self.jobs:
            if job.name in before:
                raise JobError(f"plan {self.title} has two jobs of the name '{job.name}': give each its own")
            if missing := [name for name in job.after if name not in before]:
                raise JobError(f"job '{job.name}' waits for '{missing[0]}', which does not come before it")
            before.add(job.name)

    @cached_property
    def by_name(self) -> dict[str, Job]:
        """Name -> job."""
        return {job.name: job for job in self.jobs}

    def left(self) -> tuple[Job, ...]:
        """The jobs that are not done, and those that wait for one of them: their results are to be made anew."""
        names: set[str] = set()
        for job in self.jobs:
            if not job.done or names.intersection(job.after):
                names.add(job.name)
        return tuple(job for job in self.jobs if job.name in names)

    @property
    def record(self) -> Path:
        """Where the plan is written down."""
        return self.folder / "jobs" / "plan.json"

    def save(self) -> None:
        """Write it as JSON: what jobs there are, in words that a person can type."""
        jobs = [{**asdict(job), "folder": str(job.folder), "proof": str(job.proof)} for job in self.jobs]
        write_json(self.record, {"title": self.title, "again": shlex.join(self.again), "jobs": jobs})

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """From `save`.

        Args:
            folder: of the whole; it may have been moved, then its jobs lie where they were.

        Raises:
            JobError: there is none, or it is damaged.
        """
        path = folder / "jobs" / "plan.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            jobs = tuple(
                Job(
                    str(each["name"]), tuple(map(str, each["command"])), Path(each["folder"]), Path(each["proof"]),
                    Needs(**each["needs"]), tuple(map(str, each["after"])),
                )
                for each in data["jobs"]
            )  # fmt: skip
            return cls(str(data["title"]), folder, jobs, tuple(shlex.split(data["again"])))
        except FileNotFoundError as error:
            raise JobError(f"{folder} holds no plan of jobs: it has no jobs/plan.json") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JobError(f"{path} is damaged: remove it, and the same command writes it again") from error

    def with_needs(self, **changes: int | None) -> Plan:
        """The plan with other needs of all its jobs; what is None stays."""
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(
            self,
            jobs=tuple(replace(job, needs=replace(job.needs, **given)) for job in self.jobs),
        )


def width(jobs: Iterable[Job]) -> int:
    """How many of the jobs could run at once, if there was room: the most of one depth."""
    depth: dict[str, int] = {}
    for job in jobs:
        depth[job.name] = 1 + max((depth.get(name, -1) for name in job.after), default=-1)
    depths = list(depth.values())
    return max((depths.count(each) for each in set(depths)), default=1)


def joined(parts: Mapping[str, Plan], last: Job, *, title: str, again: tuple[str, ...]) -> Plan:
    """Plans side by side as one, and a job that waits for all of them; its folder is that of the whole.

    Args:
        parts: name -> plan: its jobs are called NAME/JOB, or NAME where there is one.
        last: what waits.
        title, again: of the whole.

    Raises:
        JobError: two jobs have one name.
    """
    jobs: list[Job] = []
    ends: list[str] = []
    for name, plan in parts.items():
        names = {job.name: name if len(plan.jobs) == 1 else f"{name}/{job.name}" for job in plan.jobs}
        jobs += [
            replace(job, name=names[job.name], after=tuple(names[before] for before in job.after)) for job in plan.jobs
        ]
        waited_for = {before for job in plan.jobs for before in job.after}
        ends += [names[job.name] for job in plan.jobs if job.name not in waited_for]
    return Plan(title, last.folder, (*jobs, replace(last, after=tuple(ends))), again)

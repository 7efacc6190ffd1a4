"""The engine `local`: as many jobs at a time as this machine's cores, memory and GPUs allow."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass, replace

from segmed.jobs.carry import check_fits
from segmed.jobs.child import environment_of, start_child
from segmed.jobs.job import Job, Needs, Plan, width
from segmed.jobs.job_records import JobRecords
from segmed.machine import cores, free_ram_bytes

SAVING_S = 120.0  # that jobs have to save when they are stopped


def here() -> Needs:
    """What this machine has for jobs: cores, free memory, GPUs."""
    return Needs(cores(), free_ram_bytes(), _gpus())


def _gpus() -> int:
    """GPUs that this process may use; torch is asked, as training asks it."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    gpus: tuple[int, ...]


class LocalPool:
    """This machine.

    Args:
        room: what the jobs may take of it together; none: all that is there.
        at_once: jobs at a time; none: as many as there is room for.
    """

    name = "local"

    def __init__(self, room: Needs | None = None, at_once: int | None = None) -> None:
        self.room = room or here()
        self.at_once = at_once
        self._running: dict[str, _Running] = {}

    def sized(self, plan: Plan) -> Plan:
        """The plan with the cores that each job gets: an equal share of those that can run at once.

        As many jobs as there are cores, of one core each, go before fewer with more cores: on two cores four folds took
        98 s so, and 110 s one after the other (benchmarks/jobs.py).
        """
        check_fits(plan, self.room, "this machine")
        together = min(width(plan.left()), self.most_at_once(plan))
        share = max(1, (self.room.cores or 1) // max(1, together))
        jobs = [
            job if job.needs.cores is not None else replace(job, needs=replace(job.needs, cores=share))
            for job in plan.jobs
        ]
        return replace(plan, jobs=tuple(jobs))

    def most_at_once(self, plan: Plan) -> int:
        """How many jobs the cores, the memory and the GPUs allow at a time."""
        needs = [job.needs for job in plan.left()] or [Needs()]
        limits = [self.room.cores or 1]
        limits += [self.at_once] if self.at_once is not None else []
        memory = max(each.memory_bytes or 0 for each in needs)
        limits += [(self.room.memory_bytes or 0) // memory] if memory else []
        gpus = max(each.gpus for each in needs)
        limits += [self.room.gpus // gpus] if gpus else []
        return max(1, min(limits))

    def has_room(self, needs: Needs) -> bool:
        """Whether cores, memory and GPUs are left beside what runs."""
        taken = [running.job.needs for running in self._running.values()]
        if self.at_once is not None and len(taken) >= self.at_once:
            return False
        memory = (self.room.memory_bytes or 0) - sum(each.memory_bytes or 0 for each in taken)
        left = Needs((self.room.cores or 1) - sum(each.cores or 1 for each in taken), memory, len(self._free_gpus()))
        return not needs.exceeds(left)

    def _free_gpus(self) -> list[int]:
        taken = {number for running in self._running.values() for number in running.gpus}
        return [number for number in range(self.room.gpus) if number not in taken]

    def start(self, job: Job, records: JobRecords) -> None:
        """Start the process of a job, with its share of the machine."""
        gpus = tuple(self._free_gpus()[: job.needs.gpus])
        environ = environment_of(job.needs.cores, gpus if self.room.gpus else None)
        self._running[job.name] = _Running(job, start_child(job.command, records.log(job), environ=environ), gpus)

    def ended(self) -> list[tuple[str, int]]:
        """Those whose process is over."""
        codes = [(name, running.process.poll()) for name, running in self._running.items()]
        over = [(name, code) for name, code in codes if code is not None]
        for name, _ in over:
            del self._running[name]
        return over

    def stop_one(self, name: str) -> None:
        """SIGTERM to a job, by which a training saves and ends."""
        self._running[name].process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM to all, by which a training saves; SIGKILL to what has not ended two minutes later."""
        for running in self._running.values():
            running.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + SAVING_S
        for running in self._running.values():
            try:
                running.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()

"""The engine `ray`: a remote task runs a job's command line; Ray chooses the machine, and another where one dies."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segmed.errors import JobError
from segmed.files import printable
from segmed.jobs.carry import TAKEN_AGAIN, check_fits
from segmed.jobs.child import environment_of, start_child
from segmed.jobs.job import Job, Needs, Plan, width
from segmed.jobs.job_records import JobRecords
from segmed.runs import is_held

EXTRA = 'install it with pip install "segmed-mri[ray]"'
LOST = -9  # code of a job whose machine died, and which Ray could place nowhere else
SAVING_S = 120.0  # that jobs have to save when they are stopped
ORPHAN_S = 60.0  # that the process of a job whose machine died may take to save and let go of its run


def run_command(command: Sequence[str], log: str, folder: str, cores: int) -> int:
    """Run a command line on the machine that Ray chose; its exit code.

    Where Ray cancels the task, the command gets SIGTERM, by which a training saves, and is waited for.
    """
    until = time.monotonic() + ORPHAN_S
    while is_held(Path(folder)) and time.monotonic() < until:
        time.sleep(0.5)  # taken again: the process of the machine that died has the run for a moment longer
    process = start_child(command, Path(log), environ=environment_of(cores))
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


class RayEngine:
    """A Ray cluster, over disks that all its machines share.

    Args:
        address: of a cluster that is there; none: RAY_ADDRESS, or one is started on this machine.
        at_once: jobs at a time; none: as many as Ray finds room for.

    Raises:
        JobError: Ray is not installed, or the cluster can't be reached.
    """

    name = "ray"

    def __init__(self, address: str | None = None, at_once: int | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise JobError(f"the engine ray is not installed: {EXTRA}") from error
        self._ray, self.at_once = ray, at_once
        if not ray.is_initialized():
            _connect(ray, address or os.environ.get("RAY_ADDRESS"))
        self._refs: dict[Any, str] = {}

    def nodes(self) -> list[Needs]:
        """What each machine of the cluster has."""
        each = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [Needs(int(r.get("CPU", 0)), int(r.get("memory", 0)), int(r.get("GPU", 0))) for r in each]

    def sized(self, plan: Plan) -> Plan:
        """The plan with the cores that each job gets: a share of the cluster's, and no more than one machine has."""
        nodes = self.nodes()
        largest = Needs(
            max(node.cores or 0 for node in nodes),
            max(node.memory_bytes or 0 for node in nodes),
            max(node.gpus for node in nodes),
        )
        check_fits(plan, largest, f"the largest of {len(nodes)} nodes of the Ray cluster")
        together = min(width(plan.left()), self.at_once or width(plan.left()))
        share = max(1, min(largest.cores or 1, sum(node.cores or 0 for node in nodes) // max(1, together)))
        jobs = [
            job if job.needs.cores is not None else replace(job, needs=replace(job.needs, cores=share))
            for job in plan.jobs
        ]
        return replace(plan, jobs=tuple(jobs))

    def most_at_once(self, plan: Plan) -> int:
        """How many jobs such as the first of a sized plan its machines hold, and `at_once` allows."""
        needs = plan.jobs[0].needs
        room = sum(_room(node, needs) for node in self.nodes())
        return max(1, room if self.at_once is None else min(room, self.at_once))

    def has_room(self, needs: Needs) -> bool:
        """Ray itself knows where there is room, and keeps what waits."""
        return self.at_once is None or len(self._refs) < self.at_once

    def start(self, job: Job, records: JobRecords) -> None:
        """Hand a job to Ray."""
        cores = job.needs.cores or 1
        wanted: dict[str, Any] = {"num_cpus": cores, "num_gpus": job.needs.gpus, "max_retries": TAKEN_AGAIN - 1}
        if job.needs.memory_bytes:
            wanted["memory"] = job.needs.memory_bytes
        task = self._ray.remote(run_command).options(name=job.name, **wanted)
        ref = task.remote(list(job.command), str(records.log(job)), str(job.folder), cores)
        self._refs[ref] = job.name

    def ended(self) -> list[tuple[str, int]]:
        """Those whose task is over."""
        if not self._refs:
            return []
        ready, _ = self._ray.wait(list(self._refs), num_returns=len(self._refs), timeout=0)
        return [(self._refs.pop(ref), self._code(ref)) for ref in ready]

    def _code(self, ref: Any) -> int:
        try:
            return int(self._ray.get(ref))
        except self._ray.exceptions.RayError:
            return int(LOST)

    def stop_one(self, name: str) -> None:
        """Cancel a job: its command saves and ends."""
        for ref in [ref for ref, own in self._refs.items() if own == name]:
            self._ray.cancel(ref)

    def stop(self) -> None:
        """Cancel all: commands that run save and end, what waits for room is taken back."""
        for ref in self._refs:
            self._ray.cancel(ref)
        if self._refs:
            self._ray.wait(list(self._refs), num_returns=len(self._refs), timeout=SAVING_S)


def _room(node: Needs, needs: Needs) -> int:
    """How many such jobs a machine holds."""
    limits = [(node.cores or 0) // (needs.cores or 1)]
    limits += [(node.memory_bytes or 0) // needs.memory_bytes] if needs.memory_bytes else []
    limits += [node.gpus // needs.gpus] if needs.gpus else []
    return min(limits)


def _connect(ray: Any, address: str | None) -> None:
    """Join a cluster, or start one on this machine.

    Raises:
        JobError: there is none at that address.
    """
    from segmed.machine import cores

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    try:
        if address is None:
            ray.init(num_cpus=cores(), **quiet)
            return
        del quiet["include_dashboard"]
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        words = printable(" ".join(str(error).split()))[:200]
        raise JobError(
            f"the Ray cluster {address or 'on this machine'} can't be reached ({words}): start it with "
            "ray start --head, or leave out --jobs.address"
        ) from error

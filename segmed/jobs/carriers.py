"""The engine that a command line names, and what it does with a plan."""

from __future__ import annotations

import sys

from segmed.config.jobs import EngineName, JobsConfig
from segmed.jobs.carry import Engine, carry_out, failures
from segmed.jobs.job import Plan
from segmed.machine import GIB


def with_given_needs(plan: Plan, given: JobsConfig) -> Plan:
    """The plan with the needs that the command line gives."""
    memory = None if given.memory_gb is None else int(given.memory_gb * GIB)
    return plan.with_needs(cores=given.cores, memory_bytes=memory, gpus=given.gpus)


def run_plan(plan: Plan, on: EngineName, given: JobsConfig, *, submit: bool = False) -> int:
    """Carry out a plan; exit code 1 where a job failed.

    Args:
        plan: its jobs.
        on: name of an engine.
        given: what the command line says of the jobs.
        submit: slurm: call sbatch.

    Raises:
        JobError: the engine is not installed or can't be reached, or a job needs more than it has.
    """
    plan = with_given_needs(plan, given)
    plan.save()
    if on == "slurm":
        from segmed.jobs.on_slurm import write_or_submit

        write_or_submit(plan, given, submit=submit)
        return 0
    states = carry_out(plan, live_engine(on, given))
    done = sum(state == "done" for state in states.values())
    print(f"{done} of {len(states)} jobs are done: {plan.folder}")
    lines = failures(plan, states)
    for line in lines:
        print(line, file=sys.stderr)
    return 1 if lines else 0


def live_engine(on: EngineName, given: JobsConfig) -> Engine:
    """An engine whose jobs this process watches.

    Raises:
        JobError: it is not installed, or can't be reached.
    """
    if on == "ray":
        from segmed.jobs.on_ray import RayEngine

        return RayEngine(given.address, at_once=given.at_once)
    from segmed.jobs.pool import LocalPool

    return LocalPool(at_once=given.at_once)

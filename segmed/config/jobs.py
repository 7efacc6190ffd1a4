"""On what the runs of an experiment are carried out, and how much of it each of them takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from segmed.config.base import Count, Positive, Section

EngineName = Literal["here", "local", "ray", "slurm"]


class JobsConfig(Section):
    """What each job takes, and what an engine is told."""

    at_once: Count | None = Field(None, description="jobs at a time; none: as many as there is room for")
    cores: Count | None = Field(None, description="of each job; none: an equal share (slurm: 4)")
    memory_gb: Positive | None = Field(
        None, description="GiB of each job; none: what the planner estimates (slurm: 16)"
    )
    gpus: Annotated[int, Field(ge=0)] | None = Field(
        None, description="of each job; none: one where this machine (ray: the cluster) has any"
    )
    address: str | None = Field(
        None, description="ray: of a cluster that is there, as auto or HOST:6379; none: one is started on this machine"
    )
    partition: str | None = Field(None, description="slurm: where the jobs run; none: the cluster's default")
    time_limit: str | None = Field(
        None,
        pattern=r"^(\d+-)?\d+(:\d\d){0,2}$",
        description="slurm: of a job, as 12:00:00; one that reaches it saves, is queued again and goes on",
    )
    options: tuple[str, ...] = Field(
        (), description='slurm: more for #SBATCH, with =, as "--jobs.options=--account=lab --qos=long"'
    )
    scripts: Path | None = Field(None, description="slurm: folder of the scripts; none: jobs/slurm of the plan")

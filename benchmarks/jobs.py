"""Folds side by side against one after the other, and what a job costs beside its work: python -m benchmarks.jobs"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydantic import Field, PositiveInt

from benchmarks.processes import ROOT
from segmed.commands.command_line import parse, run_tool
from segmed.config import Section
from segmed.jobs.child import THREADS


class Arguments(Section):
    """Time the folds of an experiment in one process and as jobs of this machine, and jobs that do nothing.

    Both train the same number of steps, on a data set that lies there and with a cache of their own, which is filled
    within the time. Each process has as many threads as it has cores, whatever OMP_NUM_THREADS says. Seconds of both
    stand beside the load of the machine, which should be idle.
    """

    config: Path | None = Field(
        None, description="YAML of a segmentation, or the name of a shipped one; none: the cost of a job alone"
    )
    folds: PositiveInt = Field(4, description="of the experiment")
    steps: PositiveInt = Field(60, description="of each fold, with one validation")
    jobs: PositiveInt = Field(8, description="that do nothing")


def main() -> None:
    """Print seconds and the load."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    print(f"load of the last minute before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        print(f"a job that does nothing costs {seconds_of_a_job(Path(folder) / 'empty', arguments.jobs):.2f} s")
        if arguments.config is not None:
            compare_folds(arguments.config, arguments.folds, arguments.steps, Path(folder))


def seconds_of_a_job(folder: Path, count: int) -> float:
    """Seconds a job of a plan of jobs that do nothing, one at a time: beginning, watching, records."""
    from segmed.jobs.carry import carry_out
    from segmed.jobs.job import Job, Needs, Plan
    from segmed.jobs.pool import LocalPool

    jobs = []
    for number in range(count):
        proof = folder / f"{number}.done"
        jobs.append(Job(f"job_{number}", ("touch", str(proof)), folder / str(number), proof, Needs(1)))
    began = time.perf_counter()
    carry_out(Plan("nothing", folder, tuple(jobs)), LocalPool(Needs(1)))
    return (time.perf_counter() - began) / count


def compare_folds(config: Path, folds: int, steps: int, folder: Path) -> None:
    """Print the seconds of the folds in one process, with all cores, and as jobs that share them."""
    words = ["train", "--config", str(config), "--folds", str(folds), "--train.budget-minutes", "None"]
    words += ["--train.epochs", "1", "--train.steps-per-epoch", str(steps), "--train.validations", "1"]
    _segmed(*words, "--plan-only", "--cache", str(folder / "cache"))  # makes the data, where it is a phantom
    seconds = {}
    for on in ("here", "local"):
        began = time.perf_counter()
        _segmed(*words, "--run-dir", str(folder / on), "--cache", str(folder / f"cache-{on}"), "--on", on)
        seconds[on] = time.perf_counter() - began
    ratio = seconds["here"] / seconds["local"]
    print(f"{folds} folds: {seconds['here']:.0f} s one after the other, {seconds['local']:.0f} s as jobs: {ratio:.2f}x")
    print(f"load of the last minute after: {os.getloadavg()[0]:.1f}")


def _segmed(*words: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in THREADS}
    subprocess.run([sys.executable, "-m", "segmed.commands.program", *words], cwd=ROOT, check=True, env=environ)


if __name__ == "__main__":
    run_tool(main)

"""Measure segmed beside what one would use instead: python -m benchmarks --output FOLDER"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import tyro
from pydantic import Field, PositiveInt

from benchmarks.rows import ROWS, RowName, measure
from segmed.commands.command_line import parse, run_tool
from segmed.config import Auto, Section
from segmed.errors import ConfigError

ROUNDS, QUICK_ROUNDS = 3, 2
PLAIN_WIDTH = 120  # of a table that goes to a file


class Arguments(Section):
    """Measure segmed beside MONAI, TorchIO and, where an interpreter that has it is named, nnU-Net. On the CPU.

    Contenders take turns after a warm-up, so that whatever else the machine does hits all of them; a ratio is the
    median over the rounds. For nnU-Net make an environment of its own, as it brings torchvision, which breaks the
    CPU build of torch here: python -m venv ENV && ENV/bin/pip install -c constraints.txt torch nnunetv2, then
    --nnunet-python ENV/bin/python. Peers that are not installed are left out.
    """

    rows: tuple[RowName, ...] = Field(ROWS, description="what to measure")
    output: Path | None = Field(None, description="folder for benchmark.md and benchmark.json")
    nnunet_python: Path | None = Field(None, description="Python interpreter of an environment with nnunetv2")
    run: Path | None = Field(None, description="trained run whose Dice in bf16 is compared with that in fp32")
    generator: tuple[PositiveInt, ...] | Auto = Field(
        "auto", description="feature maps of each level of the network in the adversarial rows; auto: 16 to 256"
    )
    threads: PositiveInt | Auto = Field("auto", description="of every contender; auto: one a core")
    rounds: PositiveInt | Auto = Field("auto", description=f"timed turns of each; auto: {ROUNDS}")
    quick: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="small sizes, in about a minute: shows that all of it runs, the figures mean nothing"
    )


def main() -> None:
    """Print every row as soon as it is measured, then write the files."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if arguments.nnunet_python is not None and not arguments.nnunet_python.is_file():
        raise ConfigError(f"--nnunet-python {arguments.nnunet_python} is not there: name a Python interpreter")
    import torch
    from rich.console import Console

    from benchmarks.report import show, write
    from benchmarks.timing import Outcome, Setting
    from segmed.files import bounds
    from segmed.machine import this_machine
    from segmed.runs import environment, own_files

    threads = this_machine().cores if arguments.threads == "auto" else arguments.threads
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # of peers about their own future
    machine = f"{_processor()}, {threads} threads, load {os.getloadavg()[0]:.1f} before"
    facts: dict[str, Any] = {**environment(), "processor": _processor(), "threads": threads, "load": os.getloadavg()}
    console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    console.print(machine)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="segmed-benchmark-") as scratch:
        setting = Setting(
            quick=arguments.quick,
            threads=threads,
            rounds=(QUICK_ROUNDS if arguments.quick else ROUNDS) if arguments.rounds == "auto" else arguments.rounds,
            scratch=Path(scratch),
            nnunet_python=arguments.nnunet_python and arguments.nnunet_python.absolute(),
            run=arguments.run,
            generator=None if arguments.generator == "auto" else arguments.generator,
        )
        for row in arguments.rows:
            outcomes.append(measure(row, setting))
            show(outcomes[-1], console, judged=not arguments.quick)
            if arguments.output is not None:
                with bounds(arguments.output, inputs=[] if arguments.run is None else own_files(arguments.run)):
                    write(arguments.output, outcomes, facts, machine, judged=not arguments.quick)
    if arguments.output is not None:
        console.print(f"written: {arguments.output / 'benchmark.md'}, benchmark.json", markup=False)


def _processor() -> str:
    """Its name and the number of cores."""
    from segmed.machine import this_machine

    name = ""
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or 'CPU'}, {this_machine().cores} cores"


if __name__ == "__main__":
    run_tool(main)

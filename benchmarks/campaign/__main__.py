"""The same minutes, folds and test cases for all: python -m benchmarks.campaign --data FOLDER"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from segmed.commands.command_line import parse, run_tool
from segmed.config import Section
from segmed.errors import ConfigError

SetName = Literal["hippocampus", "myops", "acdc"]
ContenderName = Literal["segmed", "mednext", "nnunet", "dynunet"]
FOLDERS = {"hippocampus": "hippocampus", "myops": "myops_lge", "acdc": "acdc"}


class Arguments(Section):
    """Train segmed, segmed with MedNeXt blocks, nnU-Net and DynUNet on the same folds for the same minutes.

    nnU-Net has its own plan, DynUNet MONAI's recipe.

    All test cases of the folds are then compared by `segmed compare`: paired differences with intervals to segmed.
    What is finished is kept: the same command goes on where it was. Contenders and folds of the same split may be
    added; other settings need another --output. nnU-Net needs an environment of its own, as it
    brings torchvision, which breaks the CPU build of torch:
    python -m venv ENV && ENV/bin/pip install -c constraints.txt torch nnunetv2, then --nnunet-python ENV/bin/python.

    Minutes are those of training; reading, planning and prediction come on top and stand in the table. Only one
    campaign should run on a machine at a time, and nothing beside it.
    """

    data: Path = Field(description="folder that holds the data sets, as hippocampus, myops_lge, acdc")
    output: Path = Field(Path("runs/campaign"), description="folder of all that is written")
    sets: tuple[SetName, ...] = Field(("hippocampus", "myops", "acdc"), description="what is learned")
    contenders: tuple[ContenderName, ...] = Field(
        ("segmed", "mednext", "nnunet", "dynunet"), description="who learns it"
    )
    folds: PositiveInt = Field(5, description="of the cross-validation, by subject")
    first_folds: PositiveInt | None = Field(None, description="take only so many of the folds; none: all")
    minutes: PositiveFloat | None = Field(None, description="of training, each; none: 20, 10 and 8 by set")
    threads: PositiveInt | None = Field(None, description="of every contender; none: one a core")
    seed: int = Field(0, description="of weights and patches")
    nnunet_python: Path | None = Field(None, description="Python interpreter of an environment with nnunetv2")


def main() -> None:
    """Take every turn that is not over, then write the tables."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    _check(arguments)
    from benchmarks.campaign.tables import write_tables
    from benchmarks.campaign.turns import check_begun, take_turns
    from segmed.machine import this_machine

    threads = arguments.threads or this_machine().cores
    for name in arguments.sets:  # of all sets, before hours go by over the first
        check_begun(name, arguments.data / FOLDERS[name], arguments, threads=threads)
    for name in arguments.sets:
        print(f"{name}: load {os.getloadavg()[0]:.1f} before", flush=True)
        take_turns(name, arguments.data / FOLDERS[name], arguments, threads=threads)
        print(write_tables(arguments.output, name, arguments.contenders, threads=threads))


def _check(arguments: Arguments) -> None:
    for name in arguments.sets:
        if not (arguments.data / FOLDERS[name]).is_dir():
            raise ConfigError(f"{arguments.data / FOLDERS[name]} is not there: name the folder that holds it by --data")
    python = arguments.nnunet_python
    if "nnunet" in arguments.contenders and (python is None or not python.is_file()):
        raise ConfigError(
            f"--nnunet-python {python or ''} is no interpreter: name one with nnunetv2, or leave nnunet out of "
            "--contenders"
        )


if __name__ == "__main__":
    sys.exit(run_tool(main))

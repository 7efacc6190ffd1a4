"""Make a synthetic cardiac LGE data set with known truth: segmed phantom data/phantom"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field, NonNegativeInt, PositiveInt

from segmed.commands.command_line import parse
from segmed.config import Section


class Arguments(Section):
    """Make synthetic short-axis LGE stacks: myocardium, blood pool, right ventricle and scar of known volume.

    Every case is FOLDER/CASE/CASE_LGE.nii.gz, CASE_label.nii.gz and truth.json. A folder that is complete is left
    as it is; the same seed gives the same files.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = Field(
        Path("data/phantom"), description="where the cases go"
    )
    cases: PositiveInt = Field(20, description="number of synthetic subjects")
    seed: NonNegativeInt = Field(0, description="seed of the data set")
    isotropic: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="3D LGE of 1.3 mm instead of thick slices displaced by breathing"
    )
    hard: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="scar as bright as blood in thinned walls, more dark cores, more hearts without scar"
    )


def main() -> int:
    """Exit code 0: the data set is there."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    from segmed.data.phantoms import make_phantom

    folder = arguments.folder
    make_phantom(folder, **arguments.model_dump(exclude={"folder"}), progress=True)
    print(f"{folder} holds {arguments.cases} cases: 1 myocardium, 2 blood pool, 3 right ventricle, 4 scar")
    print(f"Look at it: segmed audit {folder} --output {folder.name}_audit")
    return 0

"""Make a synthetic data set with known truth: segmed phantom data/phantom"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field, NonNegativeInt, PositiveInt

from segmed.commands.command_line import parse
from segmed.config import Section
from segmed.errors import ConfigError


class Arguments(Section):
    """Make synthetic short-axis LGE stacks: myocardium, blood pool, right ventricle and scar of known volume.

    Every case is FOLDER/CASE/CASE_LGE.nii.gz, CASE_label.nii.gz and truth.json. With --kind vessels: photographs of
    the retina, the true vessels and the field of view, in the files and folders of DRIVE. With --kind cine: beating
    hearts of known ejection fraction, in those of ACDC. A folder that is complete is
    left as it is; the same seed gives the same files.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = Field(
        Path("data/phantom"), description="where the cases go"
    )
    kind: Literal["heart", "vessels", "cine"] = Field(
        "heart", description="heart: LGE of hearts; vessels: retinal photographs; cine: hearts that beat"
    )
    cases: PositiveInt = Field(20, description="number of synthetic subjects; of vessels half of them are for the test")
    seed: NonNegativeInt = Field(0, description="seed of the data set")
    isotropic: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="3D LGE of 1.3 mm instead of thick slices displaced by breathing"
    )
    phases: Annotated[int, Field(ge=2)] = Field(20, description="of a beat, of --kind cine")
    hard: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="scar as bright as blood in thinned walls, more dark cores, more hearts without scar"
    )


def main() -> int:
    """Exit code 0: the data set is there."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if arguments.kind == "vessels":
        return _vessels(arguments)
    if arguments.kind == "cine":
        return _cine(arguments)
    from segmed.data.phantoms import make_phantom

    folder = arguments.folder
    make_phantom(folder, **arguments.model_dump(exclude={"folder", "kind", "phases"}), progress=True)
    print(f"{folder} holds {arguments.cases} cases: 1 myocardium, 2 blood pool, 3 right ventricle, 4 scar")
    print(f"Look at it: segmed audit {folder} --output {folder.name}_audit")
    return 0


def _vessels(arguments: Arguments) -> int:
    _check_still_heart(arguments)
    from segmed.data.vessel_phantom import make_vessel_phantom

    folder = arguments.folder
    make_vessel_phantom(folder, cases=arguments.cases, seed=arguments.seed, progress=True)
    print(f"{folder} holds {arguments.cases} retinal photographs with vessels: half for training, half for the test")
    print(f"Learn from it: segmed train --config configs/seg/drive.yaml --data.root {folder}")
    return 0


def _cine(arguments: Arguments) -> int:
    _check_still_heart(arguments)
    from segmed.data.cine_phantom import make_cine_phantom

    folder = arguments.folder
    numbers = arguments.model_dump(include={"cases", "seed", "phases"})
    make_cine_phantom(folder, **numbers, progress=True)
    print(f"{folder} holds {arguments.cases} beating hearts: 1 right ventricle, 2 myocardium, 3 LV cavity")
    known = "--data.spacing-known"
    print(f"Learn from it: segmed train --config configs/seg/acdc.yaml --data.root {folder} {known}")
    return 0


def _check_still_heart(arguments: Arguments) -> None:
    if arguments.isotropic or arguments.hard:
        raise ConfigError("isotropic and hard are of hearts in LGE: leave them out, or choose --kind heart")

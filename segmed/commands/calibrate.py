"""Say how far a run or a model can be trusted, case by case: segmed calibrate --run RUN [--data FOLDER]"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from segmed.commands.command_line import parse
from segmed.commands.model_option import OneModel
from segmed.config import Section
from segmed.config.reading import classifies
from segmed.errors import ConfigError
from segmed.files import bounds


class Arguments(Section):
    """Calibrate a run on labelled cases that it never saw, so that its predictions say how far they can be trusted.

    The run keeps calibration.json, from which segmed predict, quantify-scar and classify take intervals of volumes, the
    Dice to expect, flags, and sets of classes. Cases that trained or selected the run are left out. A cross-validation
    without --data is calibrated by its own cases, each by the fold that did not learn from it; a single run by its
    test part. 9 subjects bear a level of 90 %, 19 of 95 %. A model file is calibrated by --data, and written with its
    calibration into a new one; the given one stays as it is.
    """

    run: Path | None = Field(None, description="folder of a run or of a cross-validation")
    model: OneModel = None
    data: Path | None = Field(
        None, description="folder of labelled cases in the run's layout; none: the test part, or out of fold"
    )
    output: Path | None = Field(None, description="of --model: the new file, NAME.segmed")
    failure_dice: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.7, description="a Dice below it is called a failure, of which flags warn"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")


def main() -> int:
    """Exit code 0: the run is calibrated."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if arguments.model is not None:
        lines = _model(arguments, arguments.model)
    elif arguments.run is None:
        raise ConfigError("nothing is named that could be calibrated: give --run RUN, or --model FILE with --output")
    elif arguments.output is not None:
        raise ConfigError("--output is of --model: a run keeps its calibration in its folder; leave it out")
    else:
        lines = _run(arguments, arguments.run)
    print("\n".join(lines))
    return 0


def _run(arguments: Arguments, run: Path) -> list[str]:
    from segmed.classify import calibrate as of_classes
    from segmed.data.content import volume_files
    from segmed.runs import runs_of
    from segmed.segment import calibrate as of_labels

    data, device = arguments.data, arguments.device
    with bounds(run, inputs=[] if data is None else volume_files(data, besides=run)):
        if classifies(runs_of(run)[0].config):
            return of_classes.calibrate(run, data, device=device)
        return of_labels.calibrate(run, data, device=device, failure_dice=arguments.failure_dice, progress=True)


def _model(arguments: Arguments, model: Path) -> list[str]:
    if arguments.run is not None:
        raise ConfigError("--run and --model exclude each other: give one")
    if arguments.data is None:
        raise ConfigError("a model file holds no cases: give --data, a folder of labelled cases that it never saw")
    if arguments.output is None:
        raise ConfigError("--model needs --output NAME.segmed: the given file stays as it is")
    from segmed.data.content import volume_files
    from segmed.export.calibrate_model import calibrate_model

    data, output = arguments.data, arguments.output
    with bounds(output.parent, inputs=[model, *volume_files(data, besides=output)]):
        return calibrate_model(model, data, output, device=arguments.device, failure_dice=arguments.failure_dice)

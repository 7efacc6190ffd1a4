"""Say how far a run can be trusted, case by case: segmed calibrate --run RUN [--data FOLDER]"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from segmed.commands.command_line import parse
from segmed.config import Section
from segmed.config.reading import classifies
from segmed.files import bounds


class Arguments(Section):
    """Calibrate a run on labelled cases that it never saw, so that its predictions say how far they can be trusted.

    The run keeps calibration.json, from which segmed predict, quantify-scar and classify take intervals of volumes, the
    Dice to expect, flags, and sets of classes. Cases that trained or selected the run are left out. A cross-validation
    without --data is calibrated by its own cases, each by the fold that did not learn from it; a single run by its
    test part. 9 subjects bear a level of 90 %, 19 of 95 %.
    """

    run: Path = Field(description="folder of a run or of a cross-validation")
    data: Path | None = Field(
        None, description="folder of labelled cases in the run's layout; none: the test part, or out of fold"
    )
    failure_dice: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.7, description="a Dice below it is called a failure, of which flags warn"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")


def main() -> int:
    """Exit code 0: the run is calibrated."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    from segmed.data.content import volume_files
    from segmed.runs import runs_of

    read = [] if arguments.data is None else volume_files(arguments.data, besides=arguments.run)
    with bounds(arguments.run, inputs=read):
        if classifies(runs_of(arguments.run)[0].config):
            return _classifier(arguments)
        return _segmenter(arguments)


def _segmenter(arguments: Arguments) -> int:
    from segmed.segment.calibrate import calibrate

    lines = calibrate(
        arguments.run, arguments.data, device=arguments.device, failure_dice=arguments.failure_dice, progress=True
    )
    print("\n".join(lines))
    return 0


def _classifier(arguments: Arguments) -> int:
    from segmed.classify.calibrate import calibrate

    print("\n".join(calibrate(arguments.run, arguments.data, device=arguments.device)))
    return 0

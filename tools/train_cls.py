"""Train a classification experiment from files to test figures.

Without arguments it makes synthetic brain MRI with and without contrast agent and tells them apart in subjects it
never saw. Any field of the experiment can be set on the command line, as in --model.name resnet18 --train.epochs 20.
Splits that leak are refused; --leaks.allow-leakage trains on one all the same, and every table then says so.
"""

import sys
from pathlib import Path

from pydantic import Field

from segmed.cli import ConfigError, parse_as, run_tool
from segmed.config import Section
from segmed.config.classification import ClassificationConfig

FIRST_RUN = Path(__file__).resolve().parents[1] / "configs" / "cls" / "contrast_phantom.yaml"


class Arguments(Section):
    """Options of the tool itself; all others are fields of the experiment."""

    config: Path = Field(FIRST_RUN, description="YAML of the experiment; default: the synthetic first run")
    run_dir: Path | None = Field(None, description="folder of the run; none: a new one below `runs`")
    resume: Path | None = Field(None, description="run to go on with; takes no other option")
    fold: int | None = Field(None, description="train and test one cross-validation fold, counted from 0")
    folds: int | None = Field(None, description="train and test so many folds, one after the other, and sum them up")
    plan_only: bool = Field(False, description="print what would be trained, and why, and stop")


def main() -> int | None:
    options = [argument.split("=")[0] for argument in sys.argv[1:] if argument.startswith("--")]
    if "--resume" in options and len(options) > 1:
        raise ConfigError("--resume takes no other option: the run's own config.yaml says what to do")
    arguments, config = parse_as(ClassificationConfig, Arguments, description=__doc__, default_config=FIRST_RUN)

    from segmed.classify import experiment  # heavy: torch and MONAI

    if arguments.resume is not None:
        return experiment.resume(arguments.resume)
    if arguments.fold is not None or arguments.folds is not None:
        changes = {k: v for k, v in (("fold", arguments.fold), ("folds", arguments.folds)) if v is not None}
        config = config.model_copy(update={"split": config.split.model_validate(config.split.model_dump() | changes)})
    if arguments.plan_only:
        return experiment.show_plan(config)
    if arguments.folds is not None and arguments.fold is None:
        return experiment.cross_validate(config, arguments.run_dir)
    return experiment.run(config, arguments.run_dir)


if __name__ == "__main__":
    run_tool(main)

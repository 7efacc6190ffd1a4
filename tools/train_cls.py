"""Train a classification experiment from files to test figures.

Without arguments it makes synthetic brain MRI with and without contrast agent and tells them apart in subjects it
never saw. Any field of the experiment can be set on the command line, as in --model.name resnet18 --train.epochs 20.
Splits that leak are refused; --leaks.allow-leakage trains on one all the same, and every table then says so.
"""

from pathlib import Path

from pydantic import Field

from segmed.commands.command_line import run_tool
from segmed.commands.training import TrainingOptions, read_training
from segmed.config.classification import ClassificationConfig

FIRST_RUN = Path(__file__).resolve().parents[1] / "configs" / "cls" / "contrast_phantom.yaml"


class Arguments(TrainingOptions):
    """Options of the tool itself; all others are fields of the experiment."""

    config: Path = Field(FIRST_RUN, description="YAML of the experiment; default: the synthetic first run")


def main() -> None:
    """Train, go on with, plan or cross-validate, as the command line says."""
    asked, config = read_training(ClassificationConfig, Arguments, description=__doc__)
    from segmed.classify.run import cross_validate, resume, run, show_plan  # heavy, and not needed for --help

    if asked.resume is not None:
        resume(asked.resume)
    elif asked.plan_only:
        show_plan(config)
    elif asked.every_fold:
        cross_validate(config, asked.run_dir)
    else:
        run(config, asked.run_dir)


if __name__ == "__main__":
    run_tool(main)

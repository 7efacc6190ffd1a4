"""Train a segmentation experiment from files to test figures.

Without arguments it makes a synthetic cardiac LGE data set, trains on it, and tests on hearts it never saw.
Any field of the experiment can be set on the command line, as in --train.budget-minutes 20.
"""

from pathlib import Path

from pydantic import Field

from segmed.commands.command_line import run_tool
from segmed.commands.training import TrainingOptions, read_training
from segmed.config import ExperimentConfig

FIRST_RUN = Path(__file__).resolve().parents[1] / "configs" / "seg" / "phantom.yaml"


class Arguments(TrainingOptions):
    """Options of the tool itself; all others are fields of the experiment."""

    config: Path = Field(FIRST_RUN, description="YAML of the experiment; default: the synthetic first run")


def main() -> None:
    """Train, go on with, plan or cross-validate, as the command line says."""
    asked, config = read_training(ExperimentConfig, Arguments, description=__doc__)
    from segmed.compose.run import cross_validate, resume, run, show_plan  # heavy, and not needed for --help

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

"""Train a segmentation experiment from files to test figures.

Without arguments it makes a synthetic cardiac LGE data set, trains on it, and tests on hearts it never saw.
Any field of the experiment can be set on the command line, as in --train.budget-minutes 20.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from segmed.commands.short_help import Groups
from segmed.commands.training import TrainingOptions, read_training
from segmed.config import SegmentationConfig

FIRST_RUN = Path("phantom")  # a shipped config


class Arguments(TrainingOptions):
    """Options of the tool itself; all others are fields of the experiment."""

    often_used: ClassVar[Groups] = {
        "this command": ("config", "run_dir", "resume", "plan_only", "folds", "fold", "on"),
        "data": ("data.root", "split.test"),
        "model": (
            "network.name",
            "network.encoder.name",
            "patches.dims",
            "patches.size",
            "augment.name",
            "loss.name",
            "init_encoder",
        ),
        "training": (
            "train.budget_minutes",
            "train.epochs",
            "train.batch_size",
            "train.learning_rate",
            "train.devices",
        ),
    }
    config: Path = Field(FIRST_RUN, description="YAML of the experiment, or the name of a shipped one")


def main() -> int:
    """Train, resume, plan or cross-validate, as the command line says."""
    arguments, config = read_training(SegmentationConfig, Arguments, description=__doc__)
    from segmed.commands.as_jobs import train_or_plan
    from segmed.compose import run  # heavy, and not needed for --help

    return train_or_plan(arguments, config, run)

"""Train a classification experiment from files to test figures.

Without arguments it makes synthetic brain MRI with and without contrast agent and tells them apart in subjects it
never saw. Any field of the experiment can be set on the command line, as in --network.name resnet --train.epochs 20.
Splits that leak are refused; --leaks.allow-leakage trains on one all the same, and every table then says so.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from segmed.commands.short_help import Groups
from segmed.commands.training import TrainingOptions, read_training
from segmed.config.classification import ClassificationConfig

FIRST_RUN = Path("contrast_phantom")  # a shipped config


class Arguments(TrainingOptions):
    """Options of the tool itself; all others are fields of the experiment."""

    often_used: ClassVar[Groups] = {
        "this command": ("config", "run_dir", "resume", "plan_only", "folds", "fold", "on"),
        "data": ("data.root", "split.test", "split.by", "image.size"),
        "model": ("network.name", "network.encoder.name", "augment.name", "init_encoder"),
        "training": (
            "train.budget_minutes",
            "train.epochs",
            "train.batch_size",
            "train.learning_rate",
            "train.balanced",
        ),
    }
    config: Path = Field(FIRST_RUN, description="YAML of the experiment, or the name of a shipped one")


def main() -> int:
    """Train, resume, plan or cross-validate, as the command line says."""
    arguments, config = read_training(ClassificationConfig, Arguments, description=__doc__)
    from segmed.classify import run  # heavy, and not needed for --help
    from segmed.commands.as_jobs import train_or_plan

    return train_or_plan(arguments, config, run)

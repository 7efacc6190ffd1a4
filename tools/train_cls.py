"""Train a classification experiment from files to test figures.

Without arguments it makes synthetic brain MRI with and without contrast agent and tells them apart in subjects it
never saw. Any field of the experiment can be set on the command line, as in --network.name resnet18 --train.epochs 20.
Splits that leak are refused; --leaks.allow-leakage trains on one all the same, and every table then says so.
"""

from pathlib import Path

from pydantic import Field

from segmed.commands.command_line import run_tool
from segmed.commands.training import TrainingOptions, train
from segmed.config.classification import ClassificationConfig

FIRST_RUN = Path(__file__).resolve().parents[1] / "configs" / "cls" / "contrast_phantom.yaml"


class Arguments(TrainingOptions):
    """Options of the tool itself; all others are fields of the experiment."""

    config: Path = Field(FIRST_RUN, description="YAML of the experiment; default: the synthetic first run")


def main() -> int:
    return train(ClassificationConfig, Arguments, "segmed.classify.test", description=__doc__)


if __name__ == "__main__":
    run_tool(main)

"""Train a segmentation experiment from files to test figures.

Without arguments it makes a synthetic cardiac LGE data set, trains on it, and tests on hearts it never saw.
Any field of the experiment can be set on the command line, as in --train.budget-minutes 20.
"""

from pathlib import Path

from pydantic import Field

from segmed.commands.command_line import run_tool
from segmed.commands.training import TrainingOptions, train
from segmed.config import SegmentationConfig

FIRST_RUN = Path(__file__).resolve().parents[1] / "configs" / "seg" / "phantom.yaml"


class Arguments(TrainingOptions):
    """Options of the tool itself; all others are fields of the experiment."""

    config: Path = Field(FIRST_RUN, description="YAML of the experiment; default: the synthetic first run")


def main() -> int:
    return train(SegmentationConfig, Arguments, "segmed.compose.experiment", description=__doc__)


if __name__ == "__main__":
    run_tool(main)

"""The folds of a cross-validation, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.runs import Folds, Run

Config = TypeVar("Config", SegmentationConfig, ClassificationConfig)
Result = TypeVar("Result", covariant=True)


class TrainAndTest(Protocol[Result]):
    """Trains and tests what a run folder describes, from its beginning or on from its checkpoint."""

    def __call__(self, run: Run, *, resume: bool) -> Result: ...


def run_folds(
    config: Config, folds: Folds, *, start: Callable[[Config, Path], Run], train_and_test: TrainAndTest[Result]
) -> list[Result]:
    """Train and test every fold; one that was begun is continued, one that is complete is only tested again.

    Args:
        config: what the folds have in common.
        folds: their folder.
        start: makes the folder of a run.
        train_and_test: does what it says.

    Returns:
        What the test of each fold gave.
    """
    results = []
    for fold, run in enumerate(folds.runs()):
        print(f"fold {fold + 1} of {config.split.folds}")
        begun = run.config.is_file()
        if not begun:
            split = config.split.model_copy(update={"fold": fold})
            run = start(config.model_copy(update={"split": split}), run.path)
        results.append(train_and_test(run, resume=begun))
    return results

"""What the training loop is told, as the train section of a config says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from segmed.config import TrainConfig, known
from segmed.training.schedule import Budget, StepBudget, TimeBudget


@dataclass(frozen=True)
class FitSettings:
    """What the loop itself is told.

    Attributes:
        validations: how many in the run, the last at its end.
        patience: stop after so many validations without a better one; none: never.
        checkpoint_minutes: time between checkpoints.
        seed: of dropout and whatever else draws from torch's generators.
        resume: go on from the run's checkpoint.
        resume_command: shown to the user when the run stops early.
    """

    validations: int = 10
    patience: int | None = None
    checkpoint_minutes: float = 5.0
    seed: int = 0
    resume: bool = False
    resume_command: str = "segmed train --resume RUN"

    @classmethod
    def of(cls, train: TrainConfig, *, seed: int, resume: bool, resume_command: str) -> FitSettings:
        """As a train section says."""
        return cls(train.validations, train.patience, train.checkpoint_minutes, seed, resume, resume_command)


def total_steps(train: TrainConfig) -> int | None:
    """Steps of the whole run; none where its length is given in minutes."""
    return None if train.budget_minutes else train.epochs * known(train.steps_per_epoch)


def run_seconds(train: TrainConfig, batch_seconds: float) -> float:
    """What a run takes about, in seconds, where one batch takes so many: its minutes, where it is given any."""
    if train.budget_minutes is not None:
        return 60 * train.budget_minutes
    return (total_steps(train) or 1) * train.accumulate * batch_seconds


def budget_of(train: TrainConfig, rehearse: Callable[[], float] = lambda: 0.0, *, spent: float = 0.0) -> Budget:
    """In steps, or in minutes of which the time of the last validation is kept free.

    Args:
        train: resolved.
        rehearse: tells the seconds that a validation takes; only asked where the run is given minutes.
        spent: seconds of the run that went by before its first step.
    """
    if train.budget_minutes is None:
        budget: Budget = StepBudget(total_steps(train) or 1)
    else:
        budget = TimeBudget(train.budget_minutes, validation_seconds=rehearse())
    budget.seconds = spent
    return budget

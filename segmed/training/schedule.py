"""Progress of a run in [0, 1]: what it means for the learning rate, and what it is counted in."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

Schedule = Literal["cosine", "polynomial", "step", "constant"]
START = 0.01  # share of the peak rate with which the warm-up starts
POWER = 0.9  # of the polynomial decay; Source: Isensee et al. 2021, nnU-Net
VALIDATION_SHARE = 0.2  # largest share of a budget in minutes that validations may take
SMOOTHING = 0.2  # weight of the newest step in the running mean of step times


ALMOST = 1e-9  # so that 20 / 60 of a run counts as a third


def rate_factor(
    progress: float,
    schedule: Schedule,
    *,
    warmup: float = 0.0,
    drop_share: float = 1 / 3,
    drop_factor: float = 0.1,
) -> float:
    """Share of the peak learning rate at a point of the run.

    Args:
        progress: in [0, 1].
        schedule: what follows the warm-up: half a cosine, (1 - t)^0.9, drops, or no decay.
        warmup: share of the run in which the rate rises linearly.
        drop_share: of the run between two drops.
        drop_factor: of the rate at each.
    """
    if progress < warmup:
        return START + (1 - START) * progress / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return drop_factor ** math.floor(min(progress, 1 - ALMOST) / drop_share + ALMOST)
    left = 1.0 - min((progress - warmup) / (1 - warmup), 1.0) if warmup < 1 else 0.0
    return 0.5 - 0.5 * math.cos(math.pi * left) if schedule == "cosine" else left**POWER


class Budget(ABC):
    """How much of a run is done, and whether it is over.

    Seconds count from `start` on, validations included, and are carried over a resume.

    Attributes:
        seconds: elapsed, as agreed between the processes at the last `advance`.
        validation_seconds: what one validation takes.
        step_seconds: what one step takes, a running mean.
    """

    def __init__(self, *, validation_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = 0.0
        self.validation_seconds = validation_seconds
        self.step_seconds = 0.0
        self._clock = clock
        self._since = clock()

    def start(self) -> None:
        """Start the clock."""
        self._since = self._clock() - self.seconds

    def elapsed(self) -> float:
        """Seconds by the clock of this process."""
        return self._clock() - self._since

    def advance(self, seconds: float, *, step_seconds: float | None = None) -> None:
        """Set the clock that `progress` goes by, and remember how long the last step took."""
        self.seconds = seconds
        if step_seconds is not None:
            weight = SMOOTHING if self.step_seconds else 1.0
            self.step_seconds += weight * (step_seconds - self.step_seconds)

    @abstractmethod
    def progress(self, step: int) -> float:
        """Share of the run that is done, in [0, 1], after `step` steps."""

    @abstractmethod
    def finished(self, step: int) -> bool:
        """Whether no further step is due."""

    @abstractmethod
    def validations(self, asked: int) -> int:
        """How many validations the run affords."""

    def state_dict(self) -> dict[str, Any]:
        """For a resume."""
        return {
            "seconds": self.seconds,
            "validation_seconds": self.validation_seconds,
            "step_seconds": self.step_seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.seconds = float(state["seconds"])
        self.validation_seconds = float(state["validation_seconds"])
        self.step_seconds = float(state["step_seconds"])


class StepBudget(Budget):
    """A number of steps: the same config gives the same run, bit for bit."""

    def __init__(self, steps: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock=clock)
        self.steps = steps

    def progress(self, step: int) -> float:
        """Share of the steps."""
        return min(step / self.steps, 1.0)

    def finished(self, step: int) -> bool:
        """Whether all steps are done."""
        return step >= self.steps

    def validations(self, asked: int) -> int:
        """As many as asked."""
        return min(asked, self.steps)


class TimeBudget(Budget):
    """A number of minutes, validations included: the schedule fits itself to the machine and ends on time.

    The time of the last validation is kept free, so the learning rate has reached its end when it begins.
    """

    def __init__(
        self, minutes: float, *, validation_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(validation_seconds=validation_seconds, clock=clock)
        self.total_seconds = 60 * minutes

    def progress(self, step: int) -> float:
        """Share of the seconds that steps may start in."""
        usable = self.total_seconds - self.validation_seconds - self.step_seconds
        return min(self.seconds / usable, 1.0) if usable > 0 else 1.0

    def finished(self, step: int) -> bool:
        """Whether another step would end later than the budget, by more than half of it. One step is always done."""
        end = self.seconds + self.step_seconds / 2 + self.validation_seconds
        return step > 0 and end >= self.total_seconds

    def validations(self, asked: int) -> int:
        """As many as asked, but no more than fit in a fifth of the time; the last is always done."""
        if not self.validation_seconds:
            return asked
        return max(1, min(asked, int(VALIDATION_SHARE * self.total_seconds / self.validation_seconds)))

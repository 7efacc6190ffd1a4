"""The discriminator's accuracy over many steps, and one warning where one side of the game has won."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)
WON = 0.98  # mean accuracy from which the discriminator has nothing left to learn, and the generator no way to go
CHANCE = 0.02  # distance from one half within which the accuracy is chance
SAYS = {
    "won": "it has won and its gradient teaches little: lower adversary.learning_rate or adversary.ratio, or choose "
    "another adversary.disguise",
    "chance": "it is at chance: results pass for references, or it has collapsed; if losses or Dice got worse, raise "
    "adversary.learning_rate, adversary.ratio or its channels, or lower adversary.weight",
}


class Balance:
    """Adds up accuracies and reads them once in `steps` steps, so that a GPU is not waited for.

    Args:
        steps: over which the mean is taken.
        speaks: whether this process writes the warnings.
    """

    def __init__(self, steps: int, *, speaks: bool = True) -> None:
        self.steps = steps
        self.speaks = speaks
        self._total: Tensor | None = None
        self._count = 0
        self._said: list[str] = []

    def add(self, accuracy: Tensor) -> None:
        """Take in the accuracy of one step, a scalar, and warn once where the mean of the last ones says so."""
        self._total = accuracy.detach().clone() if self._total is None else self._total + accuracy.detach()
        self._count += 1
        if self._count < self.steps:
            return
        mean = float(self._total) / self._count
        self._total, self._count = None, 0
        verdict = "won" if mean > WON else "chance" if abs(mean - 0.5) <= CHANCE else None
        if verdict is not None and verdict not in self._said:
            self._said.append(verdict)
            if self.speaks:
                LOG.warning(
                    "the discriminator was right in %.1f %% of its decisions over %d steps: %s",
                    100 * mean,
                    self.steps,
                    SAYS[verdict],
                )

    def state_dict(self) -> dict[str, Any]:
        """For a resume."""
        total = torch.zeros(()) if self._total is None else self._total
        return {"total": total, "count": self._count, "said": list(self._said)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._count = int(state["count"])
        self._total = state["total"] if self._count else None
        self._said = list(state["said"])

"""Where a training run stands, and what the loop is given to validate and to draw with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class ValidationResult:
    """Score, metrics and figures of one validation.

    Attributes:
        score: chooses the best weights; larger is better.
        metrics: by name, e.g. `dice/scar`.
        figures: matplotlib figures by name.
    """

    score: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


Validate = Callable[[nn.Module], ValidationResult]
Draw = Callable[[Batch, Mapping[str, Any]], Any]  # a training batch and the views of `Step.views` -> a figure


@dataclass
class FitState:
    """Where a run stands; part of the checkpoint, and the result of `fit`.

    Attributes:
        step: steps that are done.
        validated_step, validated_at: step and progress of the last validation.
        best_score, best_step, best_metrics: of the best validation; none where nothing was validated.
        worse: validations since then, or since the batches last became more varied.
        losses: of the validations since the batches last became more varied.
        trained: mean training loss of the steps before each of them.
        loss_sum, loss_steps: of the training steps since the last validation.
        breadth: how often they did.
        ended: nothing is left to do.
        seconds: of training and validation.
    """

    step: int = 0
    validated_step: int = -1
    validated_at: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    worse: int = 0
    losses: list[float] = field(default_factory=list)
    trained: list[float] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_steps: int = 0
    breadth: int = 0
    ended: bool = False
    seconds: float = 0.0

    def begin_anew(self) -> None:
        """The batches become more varied from here on: what validation said before counts no more."""
        self.breadth += 1
        self.losses, self.trained, self.worse = [], [], 0

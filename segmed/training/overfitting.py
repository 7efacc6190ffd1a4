"""Losses of validations -> whether a run learns its training cases by heart."""

from __future__ import annotations

from collections.abc import Sequence

from segmed.training.loss_rise import relative_rise

RISE = 0.01  # share of the least loss: less is noise; of 14 runs one went beyond it twice running, and was overfitting
LATE = 0.8  # share of a run after which an answer has no time to be learned from


def overfits(losses: Sequence[float]) -> bool:
    """Whether the last two losses lie above the least one before them.

    Args:
        losses: of validations in their order.
    """
    return len(losses) > 2 and relative_rise(min(losses[-2:]), losses[:-2]) > RISE

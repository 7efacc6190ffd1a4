"""Losses of validations, and of the steps between them -> whether a run learns its training cases by heart."""

from __future__ import annotations

from collections.abc import Sequence

from segmed.training.loss_rise import relative_rise

RISE = 0.01  # share of the least loss: less is noise; of 14 runs one went beyond it twice running, and was overfitting
STILL = 0.01  # share by which a loss that still falls comes below its least value in two validations
FALL = 0.05  # share by which the training loss falls meanwhile
LATE = 0.8  # share of a run after which an answer has no time to be learned from


def overfits(losses: Sequence[float], trained: Sequence[float] = ()) -> str:
    """How the last two validations show overfitting, in words; empty where they don't.

    Their loss lies above the least one before them, or it falls no more while that of training does: a rate that sinks
    to 0 and a mean of weights hide the rise.

    Args:
        losses: of validations in their order.
        trained: mean training loss of the steps before each; none: only a rise is seen.
    """
    if len(losses) < 3:
        return ""
    rise = relative_rise(min(losses[-2:]), losses[:-2])
    values = f"{min(losses[:-2]):.4g}, then {losses[-2]:.4g} and {losses[-1]:.4g}"
    if rise > RISE:
        return f"the validation loss lay above its least twice ({values})"
    if len(trained) == len(losses) and rise > -STILL and relative_rise(trained[-1], trained[:-2]) < -FALL:
        return (
            f"the validation loss falls no more ({values}), that of training does ({trained[-3]:.4g}, then "
            f"{trained[-1]:.4g})"
        )
    return ""

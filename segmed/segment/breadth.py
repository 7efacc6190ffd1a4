"""How much augmentation varies what a network sees: the preset that fits the cases and the length of a run."""

from __future__ import annotations

from typing import Literal

from segmed.config import TrainConfig, known

Preset = Literal["light", "full"]
FULL_DRAWS = 20  # patches of each training case from which `full` was measured to be no worse than `light`
FULL_SECONDS = 3.0  # of training a case, where a run is given minutes: on two cores about as many patches


def fitting_preset(train: TrainConfig, *, cases: int, patches: int) -> tuple[Preset, str]:
    """The preset for a run, and why.

    Args:
        train: resolved but for what is measured.
        cases: that train.
        patches: of one step, on all devices.
    """
    if train.budget_minutes is not None:
        seconds = 60 * train.budget_minutes / cases
        enough, often = seconds >= FULL_SECONDS, f"{seconds:.3g} s for each"
    else:
        draws = train.epochs * known(train.steps_per_epoch) * patches / cases
        enough, often = draws >= FULL_DRAWS, f"each drawn {draws:.3g} times"
    why = "time enough to see them varied" if enough else "too short to learn from strong changes"
    return "full" if enough else "light", f"{cases} training cases, {often}: {why}"

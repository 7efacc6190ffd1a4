"""How much augmentation varies what a network sees: the preset that fits the cases and the length of a run."""

from __future__ import annotations

from segmed.config import TrainConfig, known
from segmed.config.sampling import Preset

FULL_DRAWS = 15  # patches of each case; measured on the hippocampus set: after 8 `full` was worse, after 19 it was not
FULL_SECONDS = 3.0  # of training for each case, where a run is given minutes: on two cores so many patches or more


def fitting_preset(train: TrainConfig, *, cases: int, patches: int, spacing_known: bool) -> tuple[Preset, str]:
    """The preset for a run, and why.

    Args:
        train: resolved but for what is measured.
        cases: that train.
        patches: of one step, on all devices.
        spacing_known: False: headers were lost, and the same anatomy comes in many sizes and directions.
    """
    if train.budget_minutes is not None:
        seconds = 60 * train.budget_minutes / cases
        enough, often = seconds >= FULL_SECONDS, f"{seconds:.3g} s for each"
    else:
        draws = train.epochs * known(train.steps_per_epoch) * patches / cases
        enough, often = draws >= FULL_DRAWS, f"each drawn {draws:.3g} times"
    seen = f"{cases} training cases, {often}"
    if not enough:
        return "light", f"{seen}: too short to learn from strong changes"
    if spacing_known:
        return "full", f"{seen}: time enough to see them varied"
    return "wide", f"{seen}; the spacing is not known, so sizes and directions vary more"

"""A run's config -> the few settings that tell it from others, for TensorBoard's table of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segmed.config import Section

LEFT_OUT = ("name", "title", "data", "runs", "cache", "evaluate", "leaks", "adopt")  # of files, not of the method
ALWAYS = (
    "seed", "network.name", "loss.name", "augment.name", "train.optimiser", "train.learning_rate", "train.epochs",
    "train.budget_minutes", "train.batch_size",
)  # fmt: skip
MACHINE = ("train.workers", "train.devices", "train.memory_format", "inference.windows")
Plain = bool | int | float | str


def telling_settings(config: Section) -> dict[str, Plain]:
    """Dotted names and values of what differs from the defaults, and of what always matters.

    Args:
        config: of the run, resolved.
    """
    every = _flat(config.model_dump(mode="json"))
    changed = _flat(config.model_dump(mode="json", exclude_defaults=True))
    names = [*ALWAYS, *(name for name in changed if name not in ALWAYS and name not in MACHINE)]
    return {
        name: every[name]
        for name in names
        if name in every and every[name] is not None and name.split(".")[0] not in LEFT_OUT
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names, of the types that TensorBoard's table takes; None stays."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
    return flat

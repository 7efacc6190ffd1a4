"""A run's config -> the few settings that tell it from others, for TensorBoard's table of runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from segmed.config import Section

LEFT_OUT = {  # not how it is trained
    "name", "title", "data", "runs", "cache", "evaluate", "leaks", "train.trackers", "augment.keep",
}  # fmt: skip
ALWAYS = (
    "seed", "network.name", "loss.name", "augment.name", "train.optimiser", "train.learning_rate", "train.epochs",
    "train.budget_minutes", "train.batch_size", "patches.size",
)  # fmt: skip
Plain = bool | int | float | str


def telling_settings(config: Section) -> dict[str, Plain]:
    """Dotted names and values of what always matters, and of what differs from the defaults.

    What is planned or measured unless it is given (its default is `auto`) follows from the data and is left out.

    Args:
        config: of the run, resolved.
    """
    told = {}
    for name, value, default in _settings(config):
        differs = value != default and default != "auto" and not isinstance(value, (dict, type(None)))
        if value is not None and (name in ALWAYS or (differs and not {name, name.split(".")[0]} & LEFT_OUT)):
            told[name] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return told


def _settings(section: Section, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and default of every setting, those of nested sections included."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, field.get_default(call_default_factory=True, validated_data={})

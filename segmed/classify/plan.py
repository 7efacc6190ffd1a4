"""Size of the images + machine -> the values that a classifier's network left `auto`, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segmed.config import known
from segmed.config.classifier import ClassifierNetwork, EncoderClassifierConfig
from segmed.config.network import Strides
from segmed.networks.levels import pooling
from segmed.training.encoder_transfer import shaped_like

WIDTH = {"cpu": 16, "cuda": 32}  # feature maps of the finest level
WIDEST = 512
HALVED_FROM = 64  # voxels of the smallest axis


def planned_network(
    model: ClassifierNetwork, *, size: Sequence[int], device: str, init_encoder: Path | None = None
) -> tuple[ClassifierNetwork, dict[str, str]]:
    """A model without `auto`, and why each value is what it is.

    Args:
        model: as in the config.
        size: of the image in voxels.
        device: `cpu` or `cuda`.
        init_encoder: run whose encoder it begins with, and which gives the shape where nothing else is said.

    Raises:
        RunError: that run has no encoder to give.
    """
    if not isinstance(model, EncoderClassifierConfig):
        return model, {}
    shaped, taken = shaped_like(model, init_encoder, dims=len(size))
    reasons = {f"network.{field}": reason for field, reason in taken.items()}
    if shaped.strides == "auto":
        levels = None if shaped.channels == "auto" else len(shaped.channels)
        strides, reasons["network.strides"] = _strides(size, levels)
        shaped = shaped.model_copy(update={"strides": strides})
    if "channels" in taken:  # of an encoder of other dimensions, which may have more levels
        shaped = shaped.model_copy(update={"channels": known(shaped.channels)[: len(known(shaped.strides))]})
    if shaped.channels == "auto":
        channels = tuple(min(WIDTH[device] * 2**level, WIDEST) for level in range(len(known(shaped.strides))))
        shaped = shaped.model_copy(update={"channels": channels})
        reasons["network.channels"] = f"{WIDTH[device]} maps on a {device.upper()}, doubled a level"
    return shaped, reasons


def _strides(size: Sequence[int], levels: int | None) -> tuple[Strides, str]:
    """Steps of each level, and why."""
    why = "halve an axis while 4 voxels remain"
    if min(size) < HALVED_FROM:
        return pooling(size, [1.0] * len(size), levels=levels), why
    strides = pooling([n // 2 for n in size], [1.0] * len(size), levels=levels)
    return (
        (2,) * len(size),
        *strides[1:],
    ), f"{why}; the first level too, a third of the time: a class needs no fine map"

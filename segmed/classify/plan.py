"""Images + machine -> the values that a classification config left `auto`, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segmed.config import known
from segmed.config.classification import ClassificationConfig
from segmed.config.classifier import ClassifierNetwork, EncoderClassifierConfig
from segmed.config.encoder import Strides
from segmed.data.images.image_dataset import ClassDataset
from segmed.data.images.image_splits import ClassSplit
from segmed.machine import Machine
from segmed.networks.levels import pooling
from segmed.training.encoder_transfer import shaped_like
from segmed.training.optimisation import PEAK_RATE

ENCODER = "network.encoder"
WIDTH = {"cpu": 16, "cuda": 32}  # feature maps of the finest level
WIDEST = 512
HALVED_FROM = 64  # voxels of the smallest axis


def resolve(
    config: ClassificationConfig, dataset: ClassDataset, split: ClassSplit, *, machine: Machine
) -> tuple[ClassificationConfig, dict[str, str]]:
    """Resolve every `auto` of a config but precision and memory format, which are measured.

    Args:
        config: as the user gave it.
        dataset: the images.
        split: their parts.
        machine: what the run may use.

    Returns:
        The config, and the reason of each value that was `auto`.

    Raises:
        RunError: the run that the encoder comes from can't be used.
    """
    network, reasons = planned_network(
        config.network, size=config.image.size, device=machine.device, init_encoder=config.init_encoder
    )
    train = config.train
    changes: dict[str, Any] = {}
    if train.learning_rate == "auto":
        changes["learning_rate"] = PEAK_RATE[train.optimiser]
        reasons["train.learning_rate"] = f"usual peak for {train.optimiser}"
    if train.steps_per_epoch == "auto":
        changes["steps_per_epoch"] = max(1, math.ceil(len(split.train) / train.batch_size))
        reasons["train.steps_per_epoch"] = f"{len(split.train)} images, {train.batch_size} a step"
    if train.workers == "auto":
        changes["workers"] = 0 if machine.device == "cpu" else min(machine.cores - 1, 8)
        reasons["train.workers"] = "images are small" if machine.device == "cpu" else f"{machine.cores} cores"
    data = config.data
    if data.classes == "auto":
        data = data.model_copy(update={"classes": {name: name for name in dataset.classes}})
    augment, chosen = config.augment, config.augment.name == "auto"
    if chosen:
        augment = augment.filled("light")
        reasons["augment.name"] = "the preset that the shipped experiments use"
    broaden, why = augment.answers(train, chosen=chosen, validated=bool(split.validation))
    if broaden != augment.broaden:
        augment = augment.model_copy(update={"broaden": broaden})
        reasons["augment.broaden"] = why
    config = config.model_copy(
        update={"network": network, "train": train.model_copy(update=changes), "data": data, "augment": augment}
    )
    return config, reasons


def planned_network(
    network: ClassifierNetwork, *, size: Sequence[int], device: str, init_encoder: Path | None = None
) -> tuple[ClassifierNetwork, dict[str, str]]:
    """A network without `auto`, and why each value is what it is.

    Args:
        network: as in the config.
        size: of the image in voxels.
        device: `cpu` or `cuda`.
        init_encoder: run whose encoder it begins with, and which gives the shape where nothing else is said.

    Raises:
        RunError: that run has no encoder to give.
    """
    if not isinstance(network, EncoderClassifierConfig):
        return network, {}
    encoder, taken = shaped_like(network.encoder, init_encoder, dims=len(size))
    reasons = {f"{ENCODER}.{field}": reason for field, reason in taken.items()}
    if encoder.strides == "auto":
        levels = None if encoder.channels == "auto" else len(encoder.channels)
        strides, reasons[f"{ENCODER}.strides"] = _strides(size, levels)
        encoder = encoder.model_copy(update={"strides": strides})
    if "channels" in taken:  # of an encoder of other dimensions, which may have more levels
        encoder = encoder.model_copy(update={"channels": known(encoder.channels)[: len(known(encoder.strides))]})
    if encoder.channels == "auto":
        channels = tuple(min(WIDTH[device] * 2**level, WIDEST) for level in range(len(known(encoder.strides))))
        encoder = encoder.model_copy(update={"channels": channels})
        reasons[f"{ENCODER}.channels"] = f"{WIDTH[device]} maps on a {device.upper()}, doubled a level"
    return network.model_copy(update={"encoder": encoder}), reasons


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

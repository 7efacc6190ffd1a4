"""Images + machine -> the values that a classification config left `auto`, each with its reason."""

from __future__ import annotations

import math
from typing import Any

from segmed.builders.classifiers import planned_model
from segmed.config.classification import ClassificationConfig
from segmed.data.images.image_dataset import ClassDataset
from segmed.data.images.image_splits import ClassSplit
from segmed.machine import Machine
from segmed.training.optimisation import PEAK_RATE


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
    model, reasons = planned_model(
        config.model, size=config.image.size, device=machine.device, init_encoder=config.init_encoder
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
    config = config.model_copy(update={"model": model, "train": train.model_copy(update=changes), "data": data})
    return config, reasons

"""Two classes that anybody can tell apart, in a few small images of several subjects each, and a config for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segmed.config.classification import ClassificationConfig
from segmed.config.reading import validate

SIZE = 24
CLASSES = ("disc", "frame")
MODEL = {"name": "encoder", "encoder": "plain", "channels": [4, 8], "strides": [[1, 1], [2, 2]], "blocks": 1}


def picture(kind: str, seed: int) -> np.ndarray:
    """A bright disc or a bright frame on noise, somewhere near the middle."""
    rng = np.random.default_rng([seed, CLASSES.index(kind)])
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE / 2 + rng.uniform(-2, 2, 2))[:, None, None]
    wide = np.maximum(abs(x), abs(y))
    shape = x**2 + y**2 < 25 if kind == "disc" else (wide < 8) & (wide > 5.5)
    values = rng.normal(60, 15, (SIZE, SIZE)) + 120 * shape
    return values.clip(0, 255).astype(np.uint8)


def write_classes(folder: Path, *, subjects: int = 10, images: int = 2) -> Path:
    """Class folders with images named SUBJECT_NUMBER.png; the subjects of the classes differ."""
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for subject in range(subjects):
            for number in range(images):
                values = picture(kind, 100 * subject + number)
                Image.fromarray(values).save(folder / kind / f"{kind[0]}{subject:02}_{number}.png")
    return folder


def config_of(folder: Path, data: Path, **changes: Any) -> ClassificationConfig:
    """A run of seconds; `changes` replace values inside the sections."""
    given: dict[str, Any] = {
        "runs": folder / "runs",
        "data": {"root": data, "layout": {"name": "folders"}, "subject": r"([df]\d+)_"},
        "split": {"test": 0.3, "validation": 0.3},
        "image": {"size": [SIZE, SIZE]},
        "augment": {"name": "none"},
        "model": MODEL,
        "train": {
            "epochs": 15, "batch_size": 8, "learning_rate": 0.02, "validations": 3, "ema": 0.5, "workers": 0,
            "precision": "fp32", "memory_format": "contiguous",
        },
        "evaluate": {"bootstrap": 50, "maps": 2, "gallery": 4},
    }  # fmt: skip
    for section, values in changes.items():
        given[section] = {**given.get(section, {}), **values} if isinstance(values, dict) else values
    return validate(ClassificationConfig, given, where="test")

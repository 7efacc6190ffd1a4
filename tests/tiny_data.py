"""A data set of balls in noise and a config that trains on it in a second, for tests of whole runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from lightning_fabric import Fabric

from segmed.builders.segmentation import build_dataset
from segmed.compose import experiment
from segmed.config import ExperimentConfig
from segmed.data.splits import Split
from segmed.runs import Run, read_config
from segmed.segment.train import Session
from segmed.training.checkpoint import Checkpoints
from segmed.training.ranks import Ranks
from segmed.training.tracking import Tracker

SIDE = 16
CASES = 6
LAYOUT = {"name": "pattern", "images": {"MR": "{case}.nii.gz"}, "label": "{case}_label.nii.gz"}
ADVERSARY = {"discriminator": {"name": "patch", "channels": [4]}, "warmup": 0.25}


def names(count: int = CASES) -> list[str]:
    """Ids of the cases."""
    return [f"ball_{number:02d}" for number in range(count)]


def make_balls(folder: Path, *, cases: int = CASES, without_label: Iterable[str] = ()) -> Path:
    """Volumes of 16^3 voxels: a ball of label 1 with a core of label 2, brighter than the noise around it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names(cases)):
        rng = np.random.default_rng(number)
        away = np.linalg.norm(np.indices((SIDE,) * 3) - rng.uniform(6, 10, 3)[:, None, None, None], axis=0)
        label = (away < 5).astype(np.int16) + (away < 2.5)
        image = (label + rng.normal(scale=0.5, size=label.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / f"{name}.nii.gz")
        if name not in without_label:
            nib.save(nib.Nifti1Image(label.astype(np.int16), np.eye(4)), folder / f"{name}_label.nii.gz")
    return folder


def tiny(root: Path, runs: Path, **sections: Any) -> ExperimentConfig:
    """A config of four steps over patches of 8^3 voxels; dictionaries are merged into its sections."""
    data: dict[str, Any] = {
        "name": "tiny",
        "runs": str(runs),
        "data": {"root": str(root), "layout": LAYOUT, "labels": {"shell": 1, "core": 2}},
        "split": {"test": 0.17, "validation": 0.2},
        "preprocess": {"crop": "none", "intensity": "zscore"},
        "augment": {"name": "none"},
        "patches": {"dims": 3, "size": [8, 8, 8], "batch_size": 2},
        "network": {"name": "unet", "channels": [4, 8]},
        "train": {
            "epochs": 2, "steps_per_epoch": 2, "workers": 0, "validations": 1, "precision": "fp32",
            "memory_format": "contiguous", "devices": 1,
        },
        "inference": {"windows": 4},
        "evaluate": {"bootstrap": 20},
    }  # fmt: skip
    for name, section in sections.items():
        data[name] = {**(data.get(name) or {}), **section} if isinstance(section, dict) else section
    return ExperimentConfig.model_validate(data)


class Stop(Tracker):
    """Sends this process a signal while a run trains: it is received after step `step`."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def progress(self, share: float, step: int) -> None:
        if step == self.step - 1:
            os.kill(os.getpid(), self.number)


class Lines(Tracker):
    """Keeps the lines for the reader and the figures of the last row."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.figures: dict[str, float] = {}

    def line(self, text: str) -> None:
        self.lines.append(text)

    def scalars(self, step, values, *, minutes) -> None:
        self.figures.update(values)


def session_of(run: Run) -> Session:
    """The objects of a run that was started."""
    config, split = read_config(run), Split.load(run.split)
    return Session(
        run,
        config,
        build_dataset(config),
        split,
        fabric=Fabric(accelerator="cpu", devices=1),
        checkpoints=Checkpoints(run.path, ranks=Ranks()),
    )


def trained(config: ExperimentConfig | None, folder: Path, tracker: Tracker | None = None) -> Run:
    """Start and train a run as `experiment.run` does, or go on with it where there is no config; it is not tested."""
    run = Run(folder) if config is None else experiment.start(config, folder)
    session_of(run).train(tracker or Tracker(), resume=config is None)
    return run

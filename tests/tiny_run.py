"""A training run of seconds, for the tests: `python tests/tiny_run.py FOLDER [--resume] ...` runs it on its own."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, Dataset

from segmed.commands.command_line import run_tool
from segmed.config import TrainConfig
from segmed.training.checkpoint import Checkpoints
from segmed.training.loop import FitSettings, FitState, ValidationResult, fit
from segmed.training.precision import Choice
from segmed.training.ranks import Ranks
from segmed.training.schedule import StepBudget, TimeBudget
from segmed.training.steps import SupervisedStep
from segmed.training.tracking import RunTracker, Tracker

EACH_STEP = 1e-9  # minutes between checkpoints
RESUME = "python tools/train_seg.py --resume RUN"


class TinyNet(nn.Module):
    """Two levels of logits from 8³ patches, with an instance norm, a batch norm and dropout."""

    out_channels = 3

    def __init__(self, *, width: int = 4, dropout: float = 0.2, batch_norm: bool = True) -> None:
        super().__init__()
        self.fine = nn.Conv3d(1, width, 3, padding=1)
        self.norm = nn.InstanceNorm3d(width, affine=True)
        self.dropout = nn.Dropout3d(dropout)
        self.coarse = nn.Conv3d(width, width, 3, stride=2, padding=1)
        self.coarse_norm = nn.BatchNorm3d(width) if batch_norm else nn.Identity()
        self.fine_head = nn.Conv3d(width, self.out_channels, 1)
        self.coarse_head = nn.Conv3d(width, self.out_channels, 1)

    def all_logits(self, image: torch.Tensor) -> list[torch.Tensor]:
        fine = self.dropout(self.norm(self.fine(image)).relu())
        coarse = self.coarse_norm(self.coarse(fine)).relu()
        return [self.fine_head(fine), self.coarse_head(coarse)]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.all_logits(image)[0]


class TinyLoss(nn.Module):
    """Mean cross-entropy over both levels."""

    def forward(self, logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        labels = labels.long()
        levels = zip(logits, (labels, labels[:, ::2, ::2, ::2]), strict=True)
        return sum(nn.functional.cross_entropy(level.float(), label) for level, label in levels)


class TinyPatches(Dataset):
    """Sample n is a pure function of n: noise, brighter where the label is larger."""

    def __init__(self, *, nan_from: int | None = None) -> None:
        self.nan_from = nan_from

    def __getitem__(self, index: int) -> dict:
        generator = np.random.default_rng([7, index])
        label = np.repeat(np.repeat(np.repeat(generator.integers(0, 3, (2, 2, 2)), 4, 0), 4, 1), 4, 2)
        image = (label + 0.3 * generator.standard_normal(label.shape)).astype(np.float32)[None]
        if self.nan_from is not None and index >= self.nan_from:
            image[0, 0, 0, 0] = np.nan
        return {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label.astype(np.uint8)),
            "case": f"case_{index % 5}",
            "index": index,
        }


class Numbers:
    """Sample numbers of one process from a step on; the same for two processes with half the batch."""

    def __init__(self, start: int, batch: int, rank: int, world: int) -> None:
        self.start, self.batch, self.rank, self.world = start, batch, rank, world

    def __iter__(self):
        step = self.start
        while True:
            first = (step * self.world + self.rank) * self.batch
            yield from range(first, first + self.batch)
            step += 1


class Validate:
    """Accuracy on fixed samples."""

    def __init__(self, samples: int = 4) -> None:
        self.samples = [TinyPatches()[10**6 + n] for n in range(samples)]
        self.calls = 0

    def __call__(self, network: nn.Module) -> ValidationResult:
        self.calls += 1
        right = [
            (network(sample["image"][None]).argmax(1)[0] == sample["label"]).float().mean().item()
            for sample in self.samples
        ]
        return ValidationResult(float(np.mean(right)), {"dice/left": right[0], "dice/right": right[1]})


def tiny_train(**changes) -> TrainConfig:
    """A training config without `auto`."""
    given = {"learning_rate": 1e-2, "precision": "fp32", "memory_format": "contiguous", "ema": 0.9, "workers": 0}
    return TrainConfig(**{**given, **changes})


# Adam would turn the rounding of gradients that are zero into steps of full size
EXACT: dict = {"dropout": 0.0, "batch_norm": False, "train": tiny_train(optimiser="sgd", learning_rate=0.01)}


def single() -> Fabric:
    """One process on the CPU."""
    return Fabric(accelerator="cpu", devices=1)


def tiny_step(*, fabric: Fabric | None = None, choice: Choice | None = None, train: TrainConfig | None = None, **net):
    """A step over a tiny network with weights of a fixed seed."""
    torch.manual_seed(3)
    network = TinyNet(**net)
    return SupervisedStep(
        network, TinyLoss(), train or tiny_train(), fabric=fabric or single(), choice=choice or Choice()
    )


def batches_of(dataset: Dataset, *, batch: int = 2, ranks: Ranks | None = None, workers: int = 0):
    """Function that gives the batches from a step on."""
    rank, world = (ranks.rank, ranks.world) if ranks else (0, 1)

    def batches(start: int) -> DataLoader:
        return DataLoader(dataset, batch_size=batch, sampler=Numbers(start, batch, rank, world), num_workers=workers)

    return batches


def train_tiny(
    folder: Path,
    *,
    steps: int = 30,
    minutes: float | None = None,
    resume: bool = False,
    settings: dict | None = None,
    fabric: Fabric | None = None,
    batch: int = 2,
    tracker: Tracker | None = None,
    validate: Validate | None = None,
    nan_from: int | None = None,
    workers: int = 0,
    train: TrainConfig | None = None,
    **net,
) -> FitState:
    """One whole run into a folder."""
    fabric = fabric or single()
    ranks = Ranks()
    step = tiny_step(fabric=fabric, train=train, **net)
    checkpoints = Checkpoints(folder, ranks=ranks, metadata={"network": "tiny", "labels": "left, right"})
    return fit(
        step,
        batches_of(TinyPatches(nan_from=nan_from), batch=batch, ranks=ranks, workers=workers),
        TimeBudget(minutes) if minutes else StepBudget(steps),
        settings=FitSettings(
            **{"validations": 3, "checkpoint_minutes": 60, "seed": 5, "resume": resume, **(settings or {})},
            resume_command=RESUME,
        ),
        checkpoints=checkpoints,
        tracker=tracker or Tracker(),
        validate=validate or Validate(),
    )


def forked(action: Callable[[Fabric], object]) -> list[int]:
    """Exit codes of two processes forked from this one (nothing has to be imported again) that join over gloo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ.update(
                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_RANK=str(rank), NODE_RANK="0"
            )
            code = 1
            try:
                fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
                fabric.launch()
                action(fabric)
                code = 0
            except BaseException as error:
                print(f"process {rank}: {error!r}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


class Shouting(RunTracker):
    """Prints the number of each step, so that another process knows when to kill."""

    def __init__(self, folder: Path, *, step: int, wait_seconds: float) -> None:
        super().__init__(folder, step=step, console=Console(stderr=True))
        self.wait_seconds = wait_seconds

    def progress(self, share: float, step: int) -> None:
        print(f"step {step}", flush=True)
        time.sleep(self.wait_seconds)


def main() -> None:
    """The command line that the tests kill."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--checkpoint-minutes", type=float, default=EACH_STEP)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--wait-seconds", type=float, default=0.0, help="after each step")
    parser.add_argument("--exact", action="store_true", help="a network and an optimiser that DDP averages exactly")
    given = parser.parse_args()
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=given.devices, strategy="ddp" if given.devices > 1 else "auto")
    fabric.launch()
    checkpoints = Checkpoints(given.folder, ranks=Ranks())
    tracker = Tracker()
    if checkpoints.ranks.leads:
        tracker = Shouting(given.folder, step=checkpoints.last_step(), wait_seconds=given.wait_seconds)
    with tracker:
        train_tiny(
            given.folder,
            steps=given.steps,
            resume=given.resume,
            settings={"checkpoint_minutes": given.checkpoint_minutes},
            fabric=fabric,
            batch=given.batch,
            tracker=tracker,
            workers=given.workers,
            **(EXACT if given.exact else {}),
        )


if __name__ == "__main__":
    run_tool(main)

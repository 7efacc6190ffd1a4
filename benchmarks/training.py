"""Rows of training: a step with its memory, and what an epoch takes beyond its steps."""

from __future__ import annotations

import io
import time
from functools import cache
from pathlib import Path

from rich.console import Console

from benchmarks.patches import patches_of
from benchmarks.peers import nnunet
from benchmarks.processes import Worker
from benchmarks.steps import CLASSES, StepSize, fixed_batch, supervised_step, unet
from benchmarks.synthetic import stored
from benchmarks.timing import Outcome, Setting, Target, alternate, ratio, timed
from segmed.builders.losses import build_loss
from segmed.config import AugmentConfig, DiceCELossConfig
from segmed.data.training_patches import PatchDataset, patch_loader
from segmed.machine import this_machine
from segmed.training.checkpoint import Checkpoints
from segmed.training.fit_settings import FitSettings
from segmed.training.loop import fit
from segmed.training.precision import Choice, choose_precision
from segmed.training.ranks import Ranks
from segmed.training.schedule import StepBudget
from segmed.training.steps import SupervisedStep
from segmed.training.tracking import RunTracker

OURS, NNUNET, DYNUNET = "segmed", "nnU-Net's PlainConvUNet, fp32", "MONAI's DynUNet, fp32"
EPOCH, BARE = "segmed, from the cache to the weights", "the bare step"
QUICK = StepSize((4, 8, 8), patch=16)
EPOCH_ROUNDS = 2  # an epoch is long


def training_step_row(setting: Setting) -> Outcome:
    """Each contender in a process of its own, so that its memory can be told."""
    size = QUICK if setting.quick else StepSize()
    choice = chosen(size)
    options = {
        "channels": size.channels,
        "strides": size.strides,
        "patch": size.shape[2:],
        "batch": size.batch,
        "classes": CLASSES,
        "threads": setting.threads,
    }
    ours = {"task": "segmed", "precision": choice.precision, "memory_format": choice.memory_format}
    with (
        Worker("benchmarks.steps", {**options, **ours}) as mine,
        Worker("benchmarks.steps", {**options, "task": "dynunet"}) as dynunet,
        nnunet(setting, NNUNET, {**options, "task": "train"}) as (peers, missing),
    ):
        timings = alternate({OURS: mine, DYNUNET: dynunet, **peers}, rounds=setting.rounds)
    targets: list[Target] = []
    if NNUNET in timings:
        share = (timings[OURS].memory_bytes or 0) / max(timings[NNUNET].memory_bytes or 0, 1)
        targets = [
            Target("nnU-Net / ours", ratio(timings[NNUNET], timings[OURS]), "at least", 1.9),
            Target("peak memory, ours / nnU-Net's", share, "below", 1.0),
        ]
    note = f"segmed takes {choice.precision}, {choice.memory_format} ({choice.reason})"
    return Outcome("step", f"training step, {size}", OURS, timings, tuple(targets), (note, *missing))


def epoch_row(setting: Setting) -> Outcome:
    """Steady state of the loop that every run takes, preset `full`, logging included, against its step alone."""
    size, steps, edge = (QUICK, 3, 32) if setting.quick else (StepSize(), 8, 128)
    step = supervised_step(size, chosen(size))
    batch = fixed_batch(size)
    patches = patches_of(stored(setting.scratch, (edge,) * 3).volume, size.patch, AugmentConfig(name="full"))
    folder = setting.scratch / "run"
    contenders = {
        EPOCH: lambda: epoch(step, patches, size, steps=steps, folder=folder),
        BARE: timed(lambda: step.step(batch, 0.5), times=steps),
    }
    step.step(batch, 0.5)
    timings = alternate(contenders, rounds=min(setting.rounds, EPOCH_ROUNDS), warm_ups=0)
    target = Target("an epoch / its bare steps", ratio(timings[EPOCH], timings[BARE]), "at most", 1.05)
    return Outcome("epoch", f"{steps} steps of an epoch, {size}", EPOCH, timings, (target,))


@cache
def chosen(size: StepSize) -> Choice:
    """Precision and memory format as a run measures them, once for both rows."""
    network = unet(size)
    loss = build_loss(DiceCELossConfig(), network)
    return choose_precision(network, loss, size.shape, ranks=Ranks())


def epoch(step: SupervisedStep, patches: PatchDataset, size: StepSize, *, steps: int, folder: Path) -> float:
    """Seconds of a step in the loop, without the first, which waits for the workers to start.

    The loader has no end, so that for each batch that is used another is prepared, as in the middle of a run.
    """
    workers = min(this_machine().cores - 1, 2)  # as planned on a CPU
    clock = _Clock(folder, console=Console(file=io.StringIO()))
    with clock:
        fit(
            step,
            lambda start: patch_loader(
                patches, batch_size=size.batch, start_step=start, total_steps=None, workers=workers
            ),
            StepBudget(steps + 1),
            settings=FitSettings(checkpoint_minutes=60),
            checkpoints=Checkpoints(folder, ranks=Ranks()),
            tracker=clock,
        )
    return (clock.ends[-1] - clock.ends[0]) / steps


class _Clock(RunTracker):
    """Notes when each step was over."""

    def __init__(self, folder: Path, *, console: Console) -> None:
        super().__init__(folder, console=console)
        self.ends: list[float] = []

    def progress(self, share: float, step: int) -> None:
        """Where the run stands, and when."""
        super().progress(share, step)
        self.ends.append(time.perf_counter())

"""What every training begins with: its processes and device, and where the run folder stands."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from segmed.config import Auto
from segmed.config.training import Service
from segmed.errors import TrainingError
from segmed.runs import Run
from segmed.training.checkpoint import Checkpoints
from segmed.training.ranks import Ranks
from segmed.training.services import check_services, with_services
from segmed.training.time_left import TimeLeft
from segmed.training.tracking import RunTracker, Tracker


def launch(devices: int | Auto) -> tuple[Fabric, Ranks]:
    """Start the processes and choose the device; torchrun has started its processes itself.

    A GPU multiplies in TF32, and cuDNN chooses algorithms that give the same result each time.

    Args:
        devices: GPUs or processes of this node; auto: all GPUs, or one process.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        torch.set_float32_matmul_precision("high")  # TF32
        torch.backends.cudnn.deterministic = True
    accelerator = "cuda" if cuda else "cpu"
    if dist.is_torchelastic_launched():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // local
        fabric = Fabric(accelerator=accelerator, strategy="ddp", devices=local, num_nodes=nodes)
    else:
        if devices == "auto":
            devices = torch.cuda.device_count() if cuda else 1
        fabric = Fabric(accelerator=accelerator, strategy="ddp" if devices > 1 else "auto", devices=devices)
    fabric.launch()
    return fabric, Ranks()


def require_one_process(ranks: Ranks, message: str) -> None:
    """Refuse several processes.

    Args:
        ranks: the processes.
        message: what runs on one alone, and what to do.

    Raises:
        TrainingError: there are several.
    """
    if ranks.world > 1:
        raise TrainingError(message)


def open_tracker(
    run: Run, ranks: Ranks, *, resume: bool, time_left: TimeLeft | None = None, services: Iterable[Service] = ()
) -> tuple[Tracker, int]:
    """The tracker of a run, and the step of the checkpoint to go on from; 0: from the beginning.

    Args:
        run: whose records are written.
        ranks: the processes.
        resume: whether it goes on.
        time_left: of the whole that the run is a part of; none: of the run alone.
        services: that record it, too.

    Raises:
        ConfigError: a service is not installed.
    """
    step = Checkpoints(run.path, ranks=ranks).last_step() if resume else 0
    if not ranks.leads:
        return Tracker(), step
    check_services(services := tuple(services))
    tracker = RunTracker(run.path, step=step, time_left=time_left)
    return with_services(tracker, services, run.path) if services else tracker, step

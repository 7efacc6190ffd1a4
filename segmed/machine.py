"""What this machine has: its device, the memory that is really free, its cores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

GIB = 1024**3


@dataclass(frozen=True)
class Machine:
    """The device that trains, and what a run may use of it.

    Attributes:
        device: `cuda` or `cpu`.
        name: of the device.
        memory_bytes: free memory of the device (RAM, or GPU memory).
        cores: processor cores that this process may use.
        devices: number of GPUs (1 on a CPU).
    """

    device: str
    name: str
    memory_bytes: int
    cores: int
    devices: int = 1


def this_machine() -> Machine:
    """The machine as it is now."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return Machine("cuda", torch.cuda.get_device_name(), free, cores, torch.cuda.device_count())
    return Machine("cpu", f"CPU, {cores} cores", free_ram_bytes(), cores)


def free_ram_bytes() -> int:
    """RAM that can be had without swapping, the limit of a container included."""
    available = psutil.virtual_memory().available
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit, used = int(Path(limit_file).read_text()), int(Path(used_file).read_text())
        except (OSError, ValueError):  # no container, or `max`: no limit
            continue
        available = min(available, max(limit - used, 0))
    return available

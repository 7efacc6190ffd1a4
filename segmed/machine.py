"""What this machine has: its device, the memory that is really free, its cores."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from segmed import limits

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
    cores = limits.cores()
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return Machine("cuda", torch.cuda.get_device_name(), free, cores, torch.cuda.device_count())
    return Machine("cpu", f"CPU, {cores} cores", free_ram_bytes(), cores)


def free_ram_bytes() -> int:
    """RAM that can be had without swapping, within the limits of containers, batch jobs and the shell."""
    return limits.free_memory_bytes()

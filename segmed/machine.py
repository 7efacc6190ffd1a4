"""What this process may use of the machine: its device, cores and memory, by its container, batch job and shell."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import psutil

MIB, GIB = 1024**2, 1024**3
UNLIMITED = 1 << 60  # cgroup v1 writes a number like this where there is no limit


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
    import torch  # here: the number of cores is asked before it is loaded

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return Machine("cuda", torch.cuda.get_device_name(), free, cores(), torch.cuda.device_count())
    return Machine("cpu", f"CPU, {cores()} cores", free_ram_bytes(), cores())


@dataclass(frozen=True)
class ControlGroup:
    """A group of processes that share a limit, and the groups around it.

    Attributes:
        version: 1 or 2.
        folders: of its files, its own first, then those of the groups around it.
    """

    version: int
    folders: tuple[Path, ...]


@cache
def control_groups(controller: str, proc: Path = Path("/proc/self")) -> tuple[ControlGroup, ...]:
    """The groups of this process that limit `memory` or `cpu`, of either version.

    Args:
        controller: name in version 1.
        proc: folder with `cgroup` and `mountinfo`.
    """
    try:
        memberships = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return ()
    groups = []
    for line in memberships:
        number, names, path = line.split(":", 2)
        version = 2 if number == "0" and not names else 1
        if version == 1 and controller not in names.split(","):
            continue
        for mount in mounts:
            place = _mounted(mount, version, controller, path)
            if place is not None:
                groups.append(ControlGroup(version, place))
                break
    return tuple(groups)


def _mounted(mount: str, version: int, controller: str, path: str) -> tuple[Path, ...] | None:
    """Folders of a group below one line of mountinfo; None where that is another hierarchy."""
    left, _, right = mount.partition(" - ")
    root, point = left.split()[3:5]
    kind, _, options = right.split(None, 2)
    if kind != ("cgroup2" if version == 2 else "cgroup") or (version == 1 and controller not in options.split(",")):
        return None
    inside, top = PurePosixPath(path), Path(point)
    # in a container the mount shows the group itself as its root, whatever path the host knows it by
    below = inside.relative_to(root) if inside.is_relative_to(root) and root != "/" else inside.relative_to("/")
    if ".." in below.parts or not (top / below).is_dir():
        below = PurePosixPath()
    place = top / below
    return tuple(each for each in (place, *place.parents) if each.is_relative_to(top))


def cores(environ: Mapping[str, str] | None = None, proc: Path = Path("/proc/self")) -> int:
    """Processor cores that this process may use: the least of affinity, a container's quota, SLURM's and a job's."""
    environ = os.environ if environ is None else environ
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [float(allowed), *_quotas(proc)]
    given = environ.get("SLURM_CPUS_PER_TASK") or environ.get("SLURM_CPUS_ON_NODE") or ""
    shares += [float(each) for each in (given, environ.get("SEGMED_CORES", "")) if each.isdigit()]
    return max(1, math.ceil(min(shares)))


def _quotas(proc: Path) -> Iterator[float]:
    for group in control_groups("cpu", proc):
        for folder in group.folders:
            if group.version == 2:
                quota, _, period = _text(folder / "cpu.max").partition(" ")
            else:
                quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
            if quota.isdigit() and period.isdigit() and int(period):
                yield int(quota) / int(period)


def free_ram_bytes(environ: Mapping[str, str] | None = None, proc: Path = Path("/proc/self")) -> int:
    """Memory that can be had without swapping: the smallest of the machine, containers, SLURM's share and ulimits."""
    environ = os.environ if environ is None else environ
    free = [psutil.virtual_memory().available, *_left_in_groups(proc), *_left_of_slurm(environ), *_left_of_ulimits()]
    return max(0, min(free))


def _left_in_groups(proc: Path) -> Iterator[int]:
    for group in control_groups("memory", proc):
        for folder in group.folders:
            if group.version == 2:
                limits, used = [_text(folder / "memory.max"), _text(folder / "memory.high")], "memory.current"
            else:
                limits, used = [_text(folder / "memory.limit_in_bytes")], "memory.usage_in_bytes"
            known = [int(limit) for limit in limits if limit.isdigit() and int(limit) < UNLIMITED]
            taken = _text(folder / used)
            if known and taken.isdigit():
                yield min(known) - max(0, int(taken) - _reclaimable(folder))


def _reclaimable(folder: Path) -> int:
    """Bytes of files that the kernel drops from memory when it is needed."""
    numbers = dict(line.split(None, 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    stated = numbers.get("total_inactive_file", numbers.get("inactive_file", "0"))
    return int(stated) if stated.isdigit() else 0


def _left_of_slurm(environ: Mapping[str, str]) -> Iterator[int]:
    """SLURM states MiB a node, or a core; 0 is the whole node."""
    whole, each = environ.get("SLURM_MEM_PER_NODE", ""), environ.get("SLURM_MEM_PER_CPU", "")
    count = environ.get("SLURM_CPUS_ON_NODE", "")
    total = int(whole) if whole.isdigit() else int(each) * int(count) if each.isdigit() and count.isdigit() else 0
    if total:
        process = psutil.Process()
        family = [process, *process.children(recursive=True)]
        yield total * MIB - sum(_resident(member) for member in family)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _left_of_ulimits() -> Iterator[int]:
    """`ulimit -v` counts addresses, of which libraries reserve more than they use."""
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit - int(psutil.Process().memory_info().vms)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

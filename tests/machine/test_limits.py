"""Memory and cores are what the container, the batch job and the shell leave."""

import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from segmed.machine import cores, free_ram_bytes, this_machine

GIB = 1 << 30


def made_proc(folder: Path, *, version: int, group: str, root: str = "/") -> tuple[Path, Path]:
    """`/proc/self` of a process in a group, and the folder where the groups are mounted."""
    proc, mount = folder / "proc", folder / "cgroup"
    proc.mkdir(parents=True)
    (mount / group.strip("/")).mkdir(parents=True)
    names, kind = ("0:", "cgroup2 cgroup2 rw") if version == 2 else ("4:memory", "cgroup cgroup rw,memory")
    lines = [f"{names}:{group}"]
    mounts = [f"30 23 0:26 {root} {mount} rw shared:4 - {kind}"]
    if version == 1:
        lines.append(f"5:cpu,cpuacct:{group}")
        mounts.append(f"31 23 0:27 {root} {mount} rw - cgroup cgroup rw,cpu,cpuacct")
    (proc / "cgroup").write_text("\n".join(lines) + "\n")
    (proc / "mountinfo").write_text("\n".join(["22 1 8:1 / / rw - ext4 /dev/sda1 rw", *mounts]) + "\n")
    return proc, mount


def test_a_limit_of_any_group_around_counts_in_version_2(tmp_path):
    proc, mount = made_proc(tmp_path, version=2, group="/slice/job/step")
    (mount / "slice/job/step/memory.max").write_text("max\n")
    (mount / "slice/job/step/memory.current").write_text(str(GIB // 4))
    (mount / "slice/job/memory.max").write_text(str(GIB))
    (mount / "slice/job/memory.current").write_text(str(GIB // 2))
    (mount / "slice/job/memory.stat").write_text(f"anon 5\ninactive_file {GIB // 8}\n")
    (mount / "slice/job/cpu.max").write_text("150000 100000\n")
    assert free_ram_bytes({}, proc) == GIB // 2 + GIB // 8, "cached files can be dropped"
    assert cores({}, proc) == min(2, this_machine().cores)
    (mount / "slice/memory.high").write_text(str(3 * GIB // 4))
    (mount / "slice/memory.current").write_text(str(GIB // 2))
    assert free_ram_bytes({}, proc) == GIB // 4


def test_limits_of_version_1_count_too(tmp_path):
    proc, mount = made_proc(tmp_path, version=1, group="/docker/abc")
    (mount / "docker/abc/memory.limit_in_bytes").write_text(str(700 << 20))
    (mount / "docker/abc/memory.usage_in_bytes").write_text(str(100 << 20))
    (mount / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (mount / "memory.usage_in_bytes").write_text(str(8 * GIB))
    (mount / "docker/abc/cpu.cfs_quota_us").write_text("50000")
    (mount / "docker/abc/cpu.cfs_period_us").write_text("100000")
    assert free_ram_bytes({}, proc) == 600 << 20
    assert cores({}, proc) == 1


def test_inside_a_container_the_mount_is_the_group_itself(tmp_path):
    proc, mount = made_proc(tmp_path, version=2, group="/docker/abc", root="/docker/abc")
    (mount / "memory.max").write_text(str(GIB))
    (mount / "memory.current").write_text("0")
    assert free_ram_bytes({}, proc) == GIB


def test_the_share_of_a_slurm_job_counts(tmp_path):
    mib = psutil.Process().memory_info().rss // 2**20 // 2 * 2  # what this process has already, beside 2 GiB
    free = free_ram_bytes({"SLURM_MEM_PER_NODE": f"{2048 + mib}"}, tmp_path)
    assert free == pytest.approx(2 * GIB, abs=GIB // 4)
    free = free_ram_bytes({"SLURM_MEM_PER_CPU": f"{1024 + mib // 2}", "SLURM_CPUS_ON_NODE": "2"}, tmp_path)
    assert free == pytest.approx(2 * GIB, abs=GIB // 4)
    assert free_ram_bytes({"SLURM_MEM_PER_NODE": "0"}, tmp_path) > 0
    assert cores({"SLURM_CPUS_PER_TASK": "1", "SLURM_CPUS_ON_NODE": "64"}, tmp_path) == 1


def test_a_ulimit_of_addresses_counts():
    code = "from segmed.machine import free_ram_bytes; print(free_ram_bytes())"
    limited = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB)),
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert 0 < int(limited.stdout) < GIB

"""Scripts for SLURM, run under a stand-in for sbatch that honours arrays, dependencies and requeueing."""

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from shell_jobs import shell_job, shell_plan

from segmed.config.jobs import JobsConfig
from segmed.errors import JobError
from segmed.jobs.job import Needs
from segmed.jobs.job_records import JobRecords
from segmed.jobs.on_slurm import arrays_of, write_or_submit
from segmed.machine import GIB

STUB = Path(__file__).parents[1] / "fixtures" / "slurm_stub.py"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Folder of the stand-in's own records; sbatch and scontrol are on the path."""
    tools = tmp_path / "slurm_tools"
    tools.mkdir()
    for name in ("sbatch", "scontrol", "squeue"):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {STUB} {name} "$@"\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STUB", str(tmp_path / "slurm_state"))
    return tmp_path / "slurm_state"


def order(folder):
    return (folder / "order").read_text().split()


def folds(folder, **lines):
    """Three folds and a sum."""
    jobs = [shell_job(folder, f"fold_{n}", lines.get(f"fold_{n}", f"echo {n} >> {folder}/order")) for n in range(3)]
    jobs = [replace(job, command=("exec", *job.command)) for job in jobs]  # as segmed is called: a signal reaches it
    after = tuple(job.name for job in jobs)
    return shell_plan(folder, *jobs, shell_job(folder, "together", f"echo sum >> {folder}/order", after=after))


def test_an_array_of_folds_and_a_sum_that_waits_for_it(slurm, tmp_path, capsys):
    plan = folds(tmp_path)
    write_or_submit(plan, JobsConfig(), submit=True)
    assert sorted(order(tmp_path)[:3]) == ["0", "1", "2"]
    assert order(tmp_path)[3] == "sum"
    assert all(job.done for job in plan.jobs)
    assert {JobRecords(plan).attempt(job).state for job in plan.jobs} == {"done"}
    write_or_submit(plan, JobsConfig(), submit=True)
    assert len(order(tmp_path)) == 4
    assert "nothing is left to do" in capsys.readouterr().out


def test_what_waits_for_a_task_that_failed_does_not_run_and_the_next_submission_has_only_what_is_left(slurm, tmp_path):
    bad = f"[ -e {tmp_path}/mended ] || {{ echo 'error: no such volume'; exit 2; }}; echo 1 >> {tmp_path}/order"
    plan = folds(tmp_path, fold_1=bad)
    write_or_submit(plan, JobsConfig(), submit=True)
    assert sorted(order(tmp_path)) == ["0", "2"]
    records = JobRecords(plan)
    assert (records.attempt(plan.jobs[1]).state, records.attempt(plan.jobs[1]).code) == ("failed", 2)
    assert records.last_line(plan.jobs[1]) == "error: no such volume"
    (tmp_path / "mended").touch()
    write_or_submit(plan, JobsConfig(), submit=True)
    assert order(tmp_path)[2:] == ["1", "sum"]


def test_a_job_at_its_time_limit_saves_is_queued_again_and_goes_on(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STUB_TIME_IS_OVER", str(tmp_path / "begun"))  # then the script gets SIGTERM
    saving = (
        f"if [ -e {tmp_path}/saved ]; then echo went_on >> {tmp_path}/order; else "
        f"trap 'touch {tmp_path}/saved; exit 130' TERM; touch {tmp_path}/begun; while :; do sleep 0.05; done; fi"
    )
    plan = folds(tmp_path, fold_1=f"{{ {saving}; }}")
    write_or_submit(plan, JobsConfig(time_limit="12:00:00"), submit=True)
    assert order(tmp_path)[-1] == "sum"
    assert sorted(order(tmp_path)[:-1]) == ["0", "2", "went_on"]
    assert JobRecords(plan).attempt(plan.jobs[1]).number == 2
    assert (slurm / "requeued").read_text().split() == ["1_1"]


def test_the_scripts_say_what_the_jobs_need_and_can_be_submitted_by_hand(tmp_path, capsys):
    gpu = Needs(8, 10 * GIB, 1)
    jobs = [shell_job(tmp_path, f"fold_{n}", needs=gpu) for n in range(5)]
    plan = shell_plan(tmp_path, *jobs, shell_job(tmp_path, "together", after=tuple(job.name for job in jobs)))
    given = JobsConfig(partition="gpu", time_limit="1-00:00:00", at_once=2, options=("--account=lab",))
    write_or_submit(plan, given, submit=False)
    folder = tmp_path / "jobs" / "slurm"
    text = (folder / "01_fold.sh").read_text()
    for line in (
        "--array=0-4%2", "--cpus-per-task=8", "--mem=13G", "--gres=gpu:1", "--time=1-00:00:00", "--partition=gpu",
        "--account=lab", "--requeue", "--signal=B:TERM@180", "--open-mode=append",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert f"submit: bash {folder}/submit.sh" in capsys.readouterr().out
    submit = (folder / "submit.sh").read_text()
    assert (
        'array_02=$(sbatch --parsable --dependency="afterok:$array_01" --kill-on-invalid-dep=yes 02_together.sh)'
        in submit
    )
    assert (folder / "submit.sh").stat().st_mode & stat.S_IXUSR
    for script in folder.glob("*.sh"):
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_a_job_waits_for_the_tasks_that_it_needs_and_for_no_others(tmp_path):
    coarse = [shell_job(tmp_path, f"{run}/coarse") for run in ("a", "b")]
    fine = [shell_job(tmp_path, f"{run}/fine", after=(f"{run}/coarse",)) for run in ("a", "b")]
    plan = shell_plan(tmp_path, *coarse, *fine)
    assert [[job.name for job in array.jobs] for array in arrays_of(plan.jobs)] == [
        ["a/coarse", "b/coarse"], ["a/fine"], ["b/fine"],
    ]  # fmt: skip
    write_or_submit(plan, JobsConfig(), submit=False)
    submit = (tmp_path / "jobs" / "slurm" / "submit.sh").read_text()
    assert 'afterok:${array_01}_0"' in submit
    assert 'afterok:${array_01}_1"' in submit


def test_jobs_that_wait_are_not_submitted_twice(slurm, tmp_path):
    plan = folds(tmp_path, fold_1="exit 2")
    write_or_submit(plan, JobsConfig(), submit=True)
    (slurm / "queued").write_text("1\n77\n")
    with pytest.raises(JobError, match="submitted before wait or run, 1: wait for them, or scancel 1 first"):
        write_or_submit(plan, JobsConfig(), submit=True)
    (slurm / "queued").unlink()
    write_or_submit(plan, JobsConfig(), submit=True)
    assert len(list(slurm.glob("*.job"))) == 4


def test_what_sbatch_says_against_a_job_is_one_line(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STUB_REFUSES", "yes")
    with pytest.raises(
        JobError, match=r"sbatch refused the jobs of .*: sbatch: error: invalid partition specified: gpus"
    ):
        write_or_submit(folds(tmp_path), JobsConfig(partition="gpus"), submit=True)


def test_without_sbatch_nothing_is_submitted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(JobError, match="there is no sbatch on this machine: leave out --submit"):
        write_or_submit(folds(tmp_path), JobsConfig(), submit=True)

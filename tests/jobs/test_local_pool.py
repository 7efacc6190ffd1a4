"""Plans of jobs on this machine: order, room, what is done before, what fails, what is killed, what is locked."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from shell_jobs import shell_job, shell_plan

from segmed.errors import JobError
from segmed.jobs.carry import Stopped, carry_out, failures
from segmed.jobs.job import Needs, Plan, width
from segmed.jobs.job_records import JobRecords
from segmed.jobs.job_table import plan_text
from segmed.jobs.pool import LocalPool
from segmed.machine import GIB, cores
from segmed.runs import holding

ROOM = Needs(4, 8 * GIB, 0)


def note(folder, word):
    return f"echo {word} >> {folder}/order"


def test_jobs_begin_when_those_before_them_are_done(tmp_path):
    plan = shell_plan(
        tmp_path,
        shell_job(tmp_path, "a", note(tmp_path, "a")),
        shell_job(tmp_path, "b", f"sleep 0.3 && {note(tmp_path, 'b')}"),
        shell_job(tmp_path, "c", note(tmp_path, "c"), after=("a", "b")),
    )
    assert set(carry_out(plan, LocalPool(ROOM)).values()) == {"done"}
    assert (tmp_path / "order").read_text().split() == ["a", "b", "c"]


def test_what_is_done_is_not_done_again_but_what_waits_for_new_results_is(tmp_path):
    jobs = [shell_job(tmp_path, name, note(tmp_path, name)) for name in ("a", "b")]
    plan = shell_plan(tmp_path, *jobs, shell_job(tmp_path, "sum", note(tmp_path, "sum"), after=("a", "b")))
    carry_out(plan, LocalPool(ROOM))
    carry_out(plan, LocalPool(ROOM))
    assert sorted((tmp_path / "order").read_text().split()) == ["a", "b", "sum"]
    plan.jobs[1].proof.unlink()
    assert [job.name for job in plan.left()] == ["b", "sum"]


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = shell_plan(tmp_path, shell_job(tmp_path, "a"), shell_job(tmp_path, "b c", after=("a",), needs=ROOM))
    plan.save()
    assert Plan.load(tmp_path) == plan
    plan.record.write_text("{")
    with pytest.raises(JobError, match="damaged"):
        Plan.load(tmp_path)


def test_a_failed_job_is_named_with_its_last_line_and_the_others_go_on(tmp_path):
    plan = shell_plan(
        tmp_path,
        shell_job(tmp_path, "bad", "echo reading; echo 'error: no such volume' >&2; exit 2; echo"),
        shell_job(tmp_path, "good", "sleep 0.3"),
        shell_job(tmp_path, "after_bad", after=("bad",)),
        shell_job(tmp_path, "after_good", after=("good",)),
    )
    states = carry_out(plan, LocalPool(ROOM))
    assert states == {"bad": "failed", "good": "done", "after_bad": "left out", "after_good": "done"}
    lines = failures(plan, states)
    log = JobRecords(plan).log(plan.jobs[0])
    assert lines[0] == f"bad failed (exit code 2): error: no such volume (log: {log})"
    assert lines[1] == "after_bad is left out: it waits for one that failed"


def test_a_job_that_is_killed_is_taken_again_and_given_up_after_three_times(tmp_path):
    twice = f"echo x >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -ge 2 ] || kill -9 $$"
    plan = shell_plan(tmp_path, shell_job(tmp_path, "once_killed", twice), shell_job(tmp_path, "killed", "kill -9 $$"))
    states = carry_out(plan, LocalPool(ROOM))
    assert states == {"once_killed": "done", "killed": "failed"}
    assert JobRecords(plan).attempt(plan.jobs[0]).number == 2
    assert JobRecords(plan).attempt(plan.jobs[1]).number == 3
    assert "killed by SIGKILL" in failures(plan, states)[0]


class Counting(LocalPool):
    """Counts how many jobs run at once."""

    most = 0

    def start(self, job, records):
        super().start(job, records)
        self.most = max(self.most, len(self._running))


@pytest.mark.parametrize(("room", "at_once"), [(Needs(2, 8 * GIB), 2), (Needs(8, 3 * GIB), 3), (Needs(1, 8 * GIB), 1)])
def test_as_many_run_at_once_as_cores_and_memory_allow(tmp_path, room, at_once):
    jobs = [shell_job(tmp_path, f"j{n}", "sleep 0.3", needs=Needs(None, GIB)) for n in range(4)]
    counted = Counting(room)
    carry_out(shell_plan(tmp_path, *jobs), counted)
    assert counted.most == at_once
    assert jobs[0].proof.read_text().strip() == str(max(1, room.cores // min(4, at_once)))


def test_a_job_counts_the_cores_that_it_was_given():
    assert cores({"SEGMED_CORES": "1"}) == 1
    assert cores({"SEGMED_CORES": "100000"}) == cores({})


def test_a_job_that_needs_more_than_there_is_is_refused_before_anything_begins(tmp_path):
    plan = shell_plan(tmp_path, shell_job(tmp_path, "a"), shell_job(tmp_path, "big", needs=Needs(1, 64 * GIB)))
    with pytest.raises(JobError, match=r"job big needs 1 core, 64.0 GiB; this machine has 4 cores, 8.0 GiB: give less"):
        carry_out(plan, LocalPool(ROOM))
    assert not plan.jobs[0].done


def test_two_plans_on_one_folder_at_once_are_refused(tmp_path):
    plan = shell_plan(tmp_path, shell_job(tmp_path, "a"))
    with JobRecords(plan).holding(), pytest.raises(JobError, match="another process carries out the jobs of"):
        carry_out(plan, LocalPool(ROOM))
    assert carry_out(plan, LocalPool(ROOM)) == {"a": "done"}


def test_a_run_that_another_process_trains_is_waited_for(tmp_path):
    plan = shell_plan(tmp_path, shell_job(tmp_path, "a"))
    plan.jobs[0].folder.mkdir()
    began = time.monotonic()
    with holding(plan.jobs[0].folder):
        code = (
            "import sys; sys.path[:0] = ['tests/fixtures', '.']\n"
            "from pathlib import Path; from shell_jobs import *; from segmed.jobs.carry import carry_out\n"
            "from segmed.jobs.pool import LocalPool\n"
            f"p = shell_plan(Path({str(tmp_path)!r}), shell_job(Path({str(tmp_path)!r}), 'a'))\n"
            "print(carry_out(p, LocalPool(Needs(1))))"
        )
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        while JobRecords(plan).folder.exists() is False and time.monotonic() - began < 60:
            time.sleep(0.1)
        time.sleep(1)
        assert not plan.jobs[0].done
    out, _ = other.communicate(timeout=60)
    assert "a: elsewhere" in out
    assert plan.jobs[0].done


def test_ctrl_c_lets_jobs_save_and_says_how_to_go_on(tmp_path):
    saving = f"trap 'touch {tmp_path}/saved; exit 130' TERM; touch {tmp_path}/begun; while :; do sleep 0.05; done"
    plan = shell_plan(tmp_path, shell_job(tmp_path, "a", saving))

    def stop():
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(Stopped, match=f"go on with: segmed train --resume {tmp_path} --on local"):
        carry_out(plan, LocalPool(ROOM))
    assert (tmp_path / "saved").exists()
    assert JobRecords(plan).attempt(plan.jobs[0]).code == 130


def test_a_plan_that_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(JobError, match="two jobs of the name 'a'"):
        shell_plan(tmp_path, shell_job(tmp_path, "a"), shell_job(tmp_path, "a"))
    with pytest.raises(JobError, match="'a' waits for 'b', which does not come before it"):
        shell_plan(tmp_path, shell_job(tmp_path, "a", after=("b",)), shell_job(tmp_path, "b"))


def test_the_plan_as_a_table_says_what_each_job_needs_and_waits_for(tmp_path):
    jobs = [shell_job(tmp_path, f"fold_{n}", needs=Needs(2, 3 * GIB, 1)) for n in range(5)]
    last = shell_job(tmp_path, "together", after=tuple(job.name for job in jobs))
    plan = shell_plan(tmp_path, *jobs, last)
    jobs[0].proof.touch()
    text = plan_text(plan)
    assert "jobs: 6, of which 5 are left to do and 5 could run at once" in text
    assert "  fold_0    done   2 cores, 3.0 GiB, 1 GPU\n" in text
    assert "  together  to do  1 core  after 5 jobs" in text
    assert width(plan.jobs) == 5

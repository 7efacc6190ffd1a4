"""A run that is stopped, killed or torn goes on to the same weights as one that never was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import EACH_STEP, RESUME, TinyPatches, Validate, batches_of, tiny_step, train_tiny

from segmed.errors import RunError, TrainingError
from segmed.training.checkpoint import Checkpoints, load_state, save_state
from segmed.training.fit_settings import FitSettings
from segmed.training.fit_state import ValidationResult
from segmed.training.history import History
from segmed.training.interruption import Interrupted
from segmed.training.loop import fit
from segmed.training.ranks import Ranks
from segmed.training.schedule import StepBudget
from segmed.training.tracking import RunTracker, Tracker

SCRIPT = Path(__file__).resolve().parents[1] / "fixtures" / "tiny_run.py"
STEPS = 30


class StopAt(Tracker):
    """Sends this process a signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.step, self.number = step, number

    def progress(self, share, step):
        if step == self.step - 1:  # it is received during the next step
            os.kill(os.getpid(), self.number)


def start(folder: Path, *options: object, **popen) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(folder), "--steps", str(STEPS), *map(str, options)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        **popen,
    )  # fmt: skip


def wait_for_step(process: subprocess.Popen, step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == f"step {step}":
            return
    raise AssertionError(f"ended before step {step}: {process.communicate()[1]}")


def same_weights(a: Path, b: Path) -> bool:
    """Whether best and last weights of two runs agree bit for bit."""
    for which in ("best", "last"):
        first, second = (load_file(folder / "weights" / f"{which}.safetensors") for folder in (a, b))
        if first.keys() != second.keys() or not all(torch.equal(first[name], second[name]) for name in first):
            return False
    return True


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train_tiny(folder, steps=STEPS)
    return folder


def test_two_runs_of_one_config_are_the_same_bit_for_bit(unbroken, tmp_path):
    train_tiny(tmp_path, steps=STEPS)
    assert same_weights(unbroken, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stop", [7, 10, 23])
def test_a_signal_saves_after_the_step_and_says_how_to_go_on(unbroken, tmp_path, number, stop):
    with pytest.raises(Interrupted, match=rf"stopped after step {stop}; go on with: {RESUME}"):
        train_tiny(tmp_path, steps=STEPS, tracker=StopAt(stop, number))
    assert load_state(tmp_path / "checkpoint.pt")["fit"]["step"] == stop
    train_tiny(tmp_path, steps=STEPS, resume=True)
    assert same_weights(unbroken, tmp_path)


def test_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train_tiny(tmp_path, steps=2)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.xdist_group("processes")
def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_to_the_same_weights(unbroken, tmp_path):
    process = start(tmp_path, "--workers", 1, "--wait-seconds", 0.02)
    wait_for_step(process, 17)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    saved = load_state(tmp_path / "checkpoint.pt")["fit"]["step"]
    assert 16 <= saved < STEPS  # the checkpoint of a step is written after its number is printed
    with RunTracker(tmp_path, step=saved) as tracker:
        train_tiny(tmp_path, steps=STEPS, resume=True, tracker=tracker)
    assert same_weights(unbroken, tmp_path)
    steps = [int(row["step"]) for row in History(tmp_path / "history.csv", step=STEPS).rows()]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS


@pytest.mark.xdist_group("processes")
def test_sigterm_to_all_processes_of_a_run_saves_and_exits_130(unbroken, tmp_path):
    rarely = ("--checkpoint-minutes", 60)
    process = start(tmp_path, *rarely, "--workers", 1, "--wait-seconds", 0.05, start_new_session=True)
    wait_for_step(process, 12)
    os.killpg(process.pid, signal.SIGTERM)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaint.strip().splitlines()[-1].endswith(f"go on with: {RESUME}")
    assert "Traceback" not in complaint
    assert load_state(tmp_path / "checkpoint.pt")["fit"]["step"] >= 12
    train_tiny(tmp_path, steps=STEPS, resume=True)
    assert same_weights(unbroken, tmp_path)


def test_a_kill_in_the_middle_of_writing_keeps_the_checkpoint_before(unbroken, tmp_path):
    train_tiny_until_killed_while_writing(tmp_path)
    torn = [path.name for path in tmp_path.iterdir() if path.name.endswith("checkpoint.pt")]
    assert len(torn) == 2, "the half-written file lies beside the whole one"
    saved = load_state(tmp_path / "checkpoint.pt")["fit"]["step"]
    assert 0 < saved < STEPS
    train_tiny(tmp_path, steps=STEPS, resume=True)
    assert same_weights(unbroken, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def train_tiny_until_killed_while_writing(folder: Path) -> None:
    """In a forked process whose 12th checkpoint ends half way, without any chance to clean up."""
    child = os.fork()
    if child == 0:
        from segmed.training import checkpoint

        whole, calls = checkpoint.torch.save, []

        def torn(state, file):
            calls.append(1)
            if len(calls) < 12:
                return whole(state, file)
            file.write(b"half")
            file.flush()
            os._exit(9)

        checkpoint.torch.save = torn
        try:
            train_tiny(folder, steps=STEPS, settings={"checkpoint_minutes": EACH_STEP})
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_ctrl_c_during_a_validation_loses_nothing(unbroken, tmp_path):
    class InterruptedValidation(Validate):
        def __call__(self, network) -> ValidationResult:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
            raise AssertionError("the signal should have ended the validation")

    with pytest.raises(Interrupted, match=r"the checkpoint of step 10 is kept"):
        train_tiny(tmp_path, steps=STEPS, validate=InterruptedValidation())
    train_tiny(tmp_path, steps=STEPS, resume=True)
    assert same_weights(unbroken, tmp_path)


def test_a_finished_run_resumes_to_its_own_end(unbroken):
    validate = Validate()
    state = train_tiny(unbroken, steps=STEPS, resume=True, validate=validate)
    assert state.ended
    assert state.step == STEPS
    assert validate.calls == 0


def test_a_budget_of_minutes_carries_its_clock_over_a_resume(tmp_path):
    with pytest.raises(Interrupted):
        train_tiny(tmp_path, minutes=10, tracker=StopAt(5))
    saved = load_state(tmp_path / "checkpoint.pt")
    assert saved["budget"]["seconds"] > 0
    saved["budget"]["seconds"] = 599.5
    save_state(tmp_path / "checkpoint.pt", saved)
    began = time.monotonic()
    state = train_tiny(tmp_path, minutes=10, resume=True)
    assert state.seconds == pytest.approx(600, abs=0.5)
    assert time.monotonic() - began < 5


def test_resume_without_a_checkpoint_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint .* is not there: nothing to go on from"):
        train_tiny(tmp_path, resume=True)


def test_a_checkpoint_of_another_network_names_the_first_difference(tmp_path):
    train_tiny(tmp_path, steps=2)
    difference = r"fine\.weight is \(4, 1, 3, 3, 3\) there and \(6, 1, 3, 3, 3\) here"
    with pytest.raises(RunError, match=difference) as error:
        train_tiny(tmp_path, steps=4, resume=True, width=6)
    assert "\n" not in str(error.value)


def test_batches_restart_at_the_step_of_the_checkpoint():
    batches = batches_of(TinyPatches())
    later = iter(batches(3))
    from_start = iter(batches(0))
    expected = [next(from_start) for _ in range(5)][3:]
    for batch in expected:
        assert np.array_equal(next(later)["image"], batch["image"])


@pytest.mark.xdist_group("processes")
def test_a_killed_data_worker_is_one_line_and_keeps_the_checkpoint(tmp_path):
    process = start(tmp_path, "--workers", 1, "--wait-seconds", 0.1)
    wait_for_step(process, 5)
    worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    os.kill(int(worker), signal.SIGKILL)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in complaint
    last = complaint.strip().splitlines()[-1]
    assert last.startswith("error: a process that prepares patches died")
    assert last.endswith(RESUME)
    assert load_state(tmp_path / "checkpoint.pt")["fit"]["step"] >= 4


def test_batches_that_end_early_are_named(tmp_path):
    batches = batches_of(TinyPatches())
    with pytest.raises(TrainingError, match=r"the batches ended at step 3"):
        fit(
            tiny_step(),
            lambda first: [batch for batch, _ in zip(batches(first), range(3), strict=False)],
            StepBudget(9),
            settings=FitSettings(),
            checkpoints=Checkpoints(tmp_path, ranks=Ranks()),
            tracker=Tracker(),
        )

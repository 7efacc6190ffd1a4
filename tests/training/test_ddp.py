"""Two processes over gloo train as one does, and go on as one does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from small_discriminators import CLASSES, make, make_encoder
from tiny_run import EACH_STEP, EXACT, RESUME, TinyLoss, TinyNet, TinyPatches, batches_of, forked, single, train_tiny

from segmed.config import AdversaryConfig
from segmed.data.unlabelled import with_unlabelled
from segmed.errors import TrainingError
from segmed.networks.discriminators import MultiScaleCritic
from segmed.training.adversarial_step import AdversarialStep
from segmed.training.checkpoint import Checkpoints, load_state
from segmed.training.fit_settings import FitSettings
from segmed.training.interruption import Interrupted
from segmed.training.loop import fit
from segmed.training.opponents import Decider
from segmed.training.precision import Choice
from segmed.training.ranks import Ranks
from segmed.training.schedule import StepBudget
from segmed.training.tracking import Tracker

SCRIPT = str(Path(__file__).resolve().parents[1] / "fixtures" / "tiny_run.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STEPS = 12

pytestmark = pytest.mark.xdist_group("ddp")


def started(folder: Path, *options: object, launcher: list[str] | None = None) -> subprocess.Popen:
    """Two processes with batches of two, started as a user does."""
    command = [sys.executable, *(launcher or []), SCRIPT, str(folder), "--devices", "2", "--steps", str(STEPS)]
    return subprocess.Popen(
        [*command, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights" / "last.safetensors")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A run of two processes, never stopped, with dropout."""
    folder = tmp_path_factory.mktemp("pair")
    assert forked(lambda fabric: train_tiny(folder, steps=STEPS, fabric=fabric)) == [0, 0]
    return folder


def test_two_processes_give_the_weights_of_one_with_twice_the_batch(tmp_path):
    process = started(tmp_path / "two", "--exact")  # Fabric starts the second
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    train_tiny(tmp_path / "one", steps=STEPS, batch=4, **EXACT)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6, msg=name)


def test_accumulation_over_two_processes_gives_the_weights_of_one(tmp_path):
    exact = {**EXACT, "train": EXACT["train"].model_copy(update={"accumulate": 2})}
    assert forked(lambda fabric: train_tiny(tmp_path / "two", steps=4, batch=4, fabric=fabric, **exact)) == [0, 0]
    train_tiny(tmp_path / "one", steps=4, batch=8, **EXACT)
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_killed_torchrun_goes_on_to_the_weights_of_a_run_never_stopped(pair, tmp_path):
    process = started(tmp_path, "--wait-seconds", "0.1", launcher=TORCHRUN)
    assert process.stdout is not None
    assert any(line.strip() == "step 5" for line in process.stdout)
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    workers = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    assert len(workers) >= 2
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    process.communicate(timeout=120)
    assert 4 <= load_state(tmp_path / "checkpoint.pt")["fit"]["step"] < STEPS
    assert forked(lambda fabric: train_tiny(tmp_path, steps=STEPS, resume=True, fabric=fabric)) == [0, 0]
    assert all(torch.equal(value, weights(pair)[name]) for name, value in weights(tmp_path).items())


def test_a_signal_to_one_process_stops_both_at_the_same_step(pair, tmp_path):
    def stopped(fabric: Fabric) -> None:
        class Stop(Tracker):
            def progress(self, share, step):
                if step == 5 and fabric.global_rank == 1:
                    os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted, match="stopped after step 6"):
            train_tiny(tmp_path, steps=STEPS, fabric=fabric, tracker=Stop())

    assert forked(stopped) == [0, 0]
    assert load_state(tmp_path / "checkpoint.pt")["fit"]["step"] == 6


def test_each_process_draws_its_own_dropout(pair):
    first, second = load_state(pair / "checkpoint.pt")["random"]
    assert not torch.equal(first["cpu"], second["cpu"])


def test_nan_of_one_process_stops_both_with_its_cases(tmp_path):
    def broken(fabric: Fabric) -> None:
        with pytest.raises(TrainingError, match=r"is nan at step 8 \(cases case_3, case_4, case_0, case_1;"):
            train_tiny(tmp_path, steps=60, fabric=fabric, nan_from=30, settings={"validations": 1})

    assert forked(broken) == [0, 0]


def test_a_leader_that_fails_stops_the_others_with_its_words():
    def fails(fabric: Fabric) -> None:
        ranks = Ranks()

        def full() -> None:
            raise OSError("no space left for checkpoint.pt")

        expected = OSError if ranks.leads else TrainingError
        with pytest.raises(expected, match="no space left"):
            ranks.lead(full)
        assert ranks.lead(lambda: "spoken once") == "spoken once"

    assert forked(fails) == [0, 0]


def test_a_run_of_two_goes_on_alone_with_a_warning(pair, tmp_path):
    class Lines(Tracker):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def line(self, text):
            self.lines.append(text)

    lines = Lines()
    assert forked(
        lambda fabric: train_tiny(tmp_path, steps=4, fabric=fabric, settings={"checkpoint_minutes": EACH_STEP})
    ) == [0, 0]
    state = train_tiny(tmp_path, steps=STEPS, resume=True, tracker=lines)
    assert state.ended
    assert any(line.startswith("resumed on 1 processes instead of 2") for line in lines.lines)


# ---------------------------------------------------------------- against an adversary

GAMES = {
    "patch": {},
    "R1, two steps, accumulation": {"r1": 1.0, "ratio": 2, "accumulate": 2},
    "segan": {"discriminator": {"name": "segan"}},
    "unlabelled": {"unlabelled": {"weight": 0.5, "pseudo_weight": 0.5, "confidence": 0, "start": 0.5}},
}
OF_EACH_PROCESS = {  # noise is drawn, and mean features of a batch are matched, by each process for itself
    "noise": {"disguise": {"name": "noise"}},
    "feature matching": {"feature_matching": 1.0},
}


def play(folder: Path, fabric: Fabric, *, batch: int, game: str) -> None:
    """Four steps against an adversary from the second on; each process writes the state that it ends with."""
    section = dict({**GAMES, **OF_EACH_PROCESS}[game])
    train = EXACT["train"].model_copy(update={"accumulate": section.pop("accumulate", 1)})
    torch.manual_seed(3)
    network = TinyNet(dropout=0.0, batch_norm=False)
    # each piece of a batch is a step of the power iteration: with pieces, samples meet norms of another step
    discriminator = make("patch", 3, image_channels=1, spectral_norm=train.accumulate == 1)
    if game == "segan":
        discriminator = MultiScaleCritic(make_encoder(CLASSES - 1, 3), image_channels=1, classes=CLASSES)
    step = AdversarialStep(
        network,
        TinyLoss(),
        discriminator,
        train=train,
        adversary=AdversaryConfig(warmup=0.25, optimiser="sgd", learning_rate=0.01, **section),
        fabric=fabric,
        choice=Choice(),
    )
    ranks = Ranks()
    batches = batches_of(TinyPatches(), batch=batch * train.accumulate, ranks=ranks)
    if game == "unlabelled":
        labelled, others = batches, batches_of(Later(), batch=batch, ranks=ranks)
        batches = lambda start: map(with_unlabelled, labelled(start), others(start))  # noqa: E731
    fit(
        step,
        batches,
        StepBudget(4),
        settings=FitSettings(validations=1, resume_command=RESUME),
        checkpoints=Checkpoints(folder, ranks=ranks),
        tracker=Tracker(),
    )
    torch.save(step.state_dict(), folder / f"end_{ranks.rank}_of_{ranks.world}.pt")


class Later(TinyPatches):
    """Other samples than those of the same numbers."""

    def __getitem__(self, index: int) -> dict:
        return super().__getitem__(index + 1000)


def both_networks(folder: Path, name: str) -> dict[str, torch.Tensor]:
    state = torch.load(folder / f"end_{name}.pt")
    sides = {"generator": state["network"], "discriminator": state["discriminator"]["network"]}
    return {f"{side}.{key}": value for side, weights in sides.items() for key, value in weights.items()}


@pytest.mark.parametrize("game", [*GAMES, *OF_EACH_PROCESS])
def test_two_processes_play_the_game_of_one_with_twice_the_batch(tmp_path, game):
    assert forked(lambda fabric: play(tmp_path, fabric, batch=2, game=game)) == [0, 0]
    first, second = (both_networks(tmp_path, f"{rank}_of_2") for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    if game in GAMES:
        play(tmp_path, single(), batch=4, game=game)
        for name, value in both_networks(tmp_path, "0_of_1").items():
            torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_nan_of_one_discriminator_stops_both_processes(tmp_path, monkeypatch):
    losses, calls = Decider.discriminator_losses, []

    def broken(self, exhibit):
        loss, figures = losses(self, exhibit)
        calls.append(1)
        if len(calls) == 2 and self.learner.fabric.global_rank == 1:
            return loss * float("nan"), {**figures, "loss/discriminator": loss.detach() * float("nan")}
        return loss, figures

    monkeypatch.setattr(Decider, "discriminator_losses", broken)

    def stopped(fabric: Fabric) -> None:
        with pytest.raises(
            TrainingError, match=r"loss/discriminator is nan at step 3 \(cases case_3, case_4, case_0, case_1"
        ):
            play(tmp_path, fabric, batch=2, game="patch")

    assert forked(stopped) == [0, 0]

"""Schedules, budgets, optimisation, the loop and its faults."""

import math
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_run import TinyLoss, TinyNet, TinyPatches, Validate, batches_of, tiny_step, tiny_train, train_tiny
from torch import nn

from segmed.errors import DiskError, RunError, TrainingError
from segmed.training import checkpoint
from segmed.training.checkpoint import (
    Checkpoints,
    fingerprint,
    load_state,
    load_weights,
    read_metadata,
    save_state,
    save_weights,
)
from segmed.training.fit_settings import FitSettings
from segmed.training.fit_state import FitState, ValidationResult
from segmed.training.loop import fit
from segmed.training.optimisation import Average, make_optimiser
from segmed.training.precision import Choice, choose_precision
from segmed.training.ranks import Ranks
from segmed.training.schedule import StepBudget, TimeBudget, rate_factor
from segmed.training.tracking import Tracker

SCHEDULES = ("cosine", "polynomial", "constant")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Recorded(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.scores: list[tuple[int, float]] = []

    def scalars(self, step, values, *, minutes):
        self.rows.append({"step": step, **values})

    def validation(self, step, metrics, *, minutes, figures=None, note=""):
        self.scores.append((step, metrics["score"]))


def fit_steps(step, folder: Path, steps: int, *, tracker: Tracker | None = None, validate=None, **settings) -> FitState:
    """Run a step of one's own."""
    return fit(
        step,
        batches_of(TinyPatches()),
        StepBudget(steps),
        settings=FitSettings(**settings),
        checkpoints=Checkpoints(folder, ranks=Ranks()),
        tracker=tracker or Tracker(),
        validate=validate,
    )


# ---------------------------------------------------------------- schedules and budgets


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_rises_to_its_peak_in_the_warm_up(schedule):
    assert rate_factor(0, schedule, warmup=0.1) == pytest.approx(0.01)
    assert rate_factor(0.05, schedule, warmup=0.1) == pytest.approx(0.505)
    assert rate_factor(0.1, schedule, warmup=0.1) == pytest.approx(1)


def test_the_rate_ends_at_zero_or_stays():
    assert [rate_factor(1, schedule) for schedule in SCHEDULES] == pytest.approx([0, 0, 1])


def test_the_step_schedule_drops_after_each_share_of_the_run():
    """0.1, x 0.1 every 20 of 60 epochs."""
    rates = [0.1 * rate_factor(epoch / 60, "step") for epoch in (0, 19.9, 20, 39.9, 40, 60)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert rate_factor(0.5, "step", drop_share=0.5, drop_factor=0.3) == pytest.approx(0.3)


def test_sgd_takes_the_momentum_of_the_config():
    optimiser = make_optimiser(TinyNet(), tiny_train(optimiser="sgd", momentum=0.9))
    assert {(group["momentum"], group["nesterov"]) for group in optimiser.param_groups} == {(0.9, True)}
    plain = make_optimiser(TinyNet(), tiny_train(optimiser="sgd", momentum=0.0))
    assert {(group["momentum"], group["nesterov"]) for group in plain.param_groups} == {(0.0, False)}


def test_half_way_a_cosine_is_one_half_and_the_polynomial_is_its_power():
    assert rate_factor(0.5, "cosine") == pytest.approx(0.5)
    assert rate_factor(0.5, "polynomial") == pytest.approx(0.5**0.9)


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(SCHEDULES), st.floats(0, 1))
def test_after_the_warm_up_the_rate_never_rises(first, second, schedule, warmup):
    first, second = sorted((max(first, warmup), max(second, warmup)))
    assert 1 >= rate_factor(first, schedule, warmup=warmup) >= rate_factor(second, schedule, warmup=warmup) >= 0


def test_a_budget_of_steps_is_counted_in_steps():
    budget = StepBudget(40)
    assert [budget.progress(step) for step in (0, 10, 40)] == [0, 0.25, 1]
    assert [budget.finished(step) for step in (0, 39, 40)] == [False, False, True]


def simulate(minutes: float, *, step_seconds: float, validation_seconds: float) -> tuple[float, float, int]:
    """Seconds at the end of the last validation, progress of the last step, number of steps."""
    clock = Clock()
    budget = TimeBudget(minutes, validation_seconds=validation_seconds, clock=clock)
    budget.start()
    step, progress = 0, 0.0
    while not budget.finished(step):
        progress = budget.progress(step)
        clock.now += step_seconds
        step += 1
        budget.advance(budget.elapsed(), step_seconds=step_seconds)
    return budget.elapsed() + validation_seconds, progress, step


@pytest.mark.parametrize("step_seconds", [0.05, 0.7, 3.0])
@pytest.mark.parametrize("validation_seconds", [0.0, 9.0])
def test_a_budget_of_minutes_ends_on_time_with_the_final_validation_foreseen(step_seconds, validation_seconds):
    ends, progress, _ = simulate(2, step_seconds=step_seconds, validation_seconds=validation_seconds)
    assert ends == pytest.approx(120, abs=step_seconds)
    assert progress > 1 - 2 * step_seconds / 120
    assert rate_factor(progress, "cosine") < 0.01


def test_a_budget_shorter_than_a_step_takes_one_step():
    assert simulate(0.001, step_seconds=3.0, validation_seconds=1.0)[2] == 1


def test_validations_take_at_most_a_fifth_of_a_budget_of_minutes():
    assert TimeBudget(10, validation_seconds=1).validations(10) == 10
    assert TimeBudget(10, validation_seconds=30).validations(10) == 4
    assert TimeBudget(1, validation_seconds=50).validations(10) == 1


def test_a_run_by_minutes_ends_on_time_and_with_a_rate_of_zero(tmp_path):
    recorded = Recorded()
    state = train_tiny(tmp_path, minutes=0.03, tracker=recorded)
    assert state.seconds == pytest.approx(1.8, abs=0.3)
    assert recorded.rows[-1]["learning_rate"] < 1e-4
    assert recorded.scores[-1][0] == state.step


# ---------------------------------------------------------------- optimisation


def test_norms_and_biases_are_not_decayed():
    groups = make_optimiser(TinyNet(), tiny_train(weight_decay=0.1)).param_groups
    decays = {parameter.ndim > 1: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays == {True: 0.1, False: 0.0}


@pytest.mark.parametrize(
    ("optimiser", "kind", "rate"),
    [
        ("adamw", torch.optim.AdamW, 1e-3),
        ("adam", torch.optim.Adam, 1e-3),
        ("sgd", torch.optim.SGD, 1e-2),
        ("adadelta", torch.optim.Adadelta, 1.0),
    ],
)
def test_each_optimiser_has_its_own_rate(optimiser, kind, rate):
    made_optimiser = make_optimiser(TinyNet(), tiny_train(optimiser=optimiser, learning_rate="auto"))
    assert type(made_optimiser) is kind
    assert made_optimiser.param_groups[0]["lr"] == rate


@pytest.mark.parametrize(("optimiser", "decayed"), [("adam", 2.0 - 0.1), ("adamw", 2.0 - 0.1 * 0.3 * 2.0)])
def test_without_a_gradient_adam_steps_by_its_rate_and_adamw_by_the_share_of_the_decay(optimiser, decayed):
    """The decay of Adam goes through its moments, which make a first step of any gradient as long as the rate."""
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(2.0)
    network.weight.grad = torch.zeros(1, 1)
    make_optimiser(network, tiny_train(optimiser=optimiser, learning_rate=0.1, weight_decay=0.3)).step()
    assert network.weight.item() == pytest.approx(decayed, abs=1e-6)


def test_the_average_after_two_updates_is_the_formula():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    average = Average(network, decay=0.99)
    expected = 1.0
    for number, weight in enumerate((2.0, 5.0)):
        network.weight.data.fill_(weight)
        average.update()
        decay = min(0.99, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * weight
    assert average.network.weight.item() == pytest.approx(expected)


def test_the_average_of_weights_that_stand_still_is_those_weights_buffers_included():
    network = TinyNet()
    average = Average(network, decay=0.9)
    for parameter in network.parameters():
        parameter.data.add_(1)
    network.coarse_norm.running_mean.add_(2)
    network.coarse_norm.num_batches_tracked.add_(7)
    for _ in range(300):
        average.update()
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], msg=name)


def batch_of(*numbers: int) -> dict:
    return next(iter(batches_of(TinyPatches(), batch=len(numbers))(numbers[0] // len(numbers))))


def test_accumulated_pieces_give_the_weights_of_the_whole_batch():
    exact = {"dropout": 0.0, "batch_norm": False}
    steps = [tiny_step(train=tiny_train(accumulate=pieces, optimiser="sgd", warmup=0), **exact) for pieces in (1, 2, 4)]
    for number in range(3):
        for step in steps:
            step.step(batch_of(*range(4 * number, 4 * number + 4)), 0.0)
    for step in steps[1:]:
        for one, other in zip(steps[0].network.parameters(), step.network.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_reported_norm_is_that_before_clipping_and_the_step_is_clipped():
    step = tiny_step(
        train=tiny_train(clip=1e-3, optimiser="sgd", warmup=0, weight_decay=0.0, learning_rate=1.0), dropout=0.0
    )
    before = [p.detach().clone() for p in step.network.parameters()]
    values = step.step(batch_of(0, 1), 0.0)
    moved = torch.stack([(a - b).norm() for a, b in zip(step.network.parameters(), before, strict=True)]).norm()
    assert values["gradient_norm"] > 0.1
    assert moved.item() == pytest.approx(1e-3 * 1.99, rel=0.02), "Nesterov's first step is 1 + momentum of the gradient"


def test_the_rate_of_a_step_follows_the_progress():
    step = tiny_step(train=tiny_train(learning_rate=0.1, warmup=0))
    step.step(batch_of(0, 1), 0.5)
    assert step.rates == {"learning_rate": pytest.approx(0.05)}


def test_a_step_returns_detached_tensors():
    values = tiny_step().step(batch_of(0, 1), 0.0)
    assert set(values) == {"loss", "gradient_norm"}
    assert all(isinstance(value, torch.Tensor) and not value.requires_grad for value in values.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("optimiser", "rate"), [("adamw", 0.01), ("adam", 0.01), ("sgd", 0.01), ("adadelta", 3.0)])
def test_every_precision_and_layout_learns_and_keeps_fp32_weights(precision, memory_format, optimiser, rate):
    train = tiny_train(optimiser=optimiser, warmup=0, learning_rate=rate)
    step = tiny_step(choice=Choice(precision, memory_format), train=train, dropout=0.0)
    plain = tiny_step(train=train, dropout=0.0)
    losses, plain_losses = [], []
    for _ in range(12):
        losses.append(step.step(batch_of(0, 1), 0.0)["loss"].item())
        plain_losses.append(plain.step(batch_of(0, 1), 0.0)["loss"].item())
    assert losses[-1] < 0.9 * losses[0]
    assert losses == pytest.approx(plain_losses, rel=1e-3 if precision == "fp32" else 0.05)
    assert all(parameter.dtype == torch.float32 for parameter in step.network.parameters())


def test_without_an_average_the_trained_network_is_evaluated():
    step = tiny_step(train=tiny_train(ema=0))
    assert step.evaluation_network is step.network
    assert "average" not in step.state_dict()


def test_a_compiled_network_has_the_same_names(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiled, plain = tiny_step(train=tiny_train(compile="on")), tiny_step()
    assert compiled.network.state_dict().keys() == plain.network.state_dict().keys()
    assert compiled.evaluation_network.state_dict().keys() == plain.network.state_dict().keys()
    torch.manual_seed(0)
    expected = plain.step(batch_of(0, 1), 0.0)["loss"]
    torch.manual_seed(0)
    torch.testing.assert_close(compiled.step(batch_of(0, 1), 0.0)["loss"], expected)


# ---------------------------------------------------------------- precision


def test_given_precision_is_not_measured():
    choice = choose_precision(TinyNet(), TinyLoss(), (2, 1, 8, 8, 8), ranks=Ranks(), fixed=("bf16", "channels_last"))
    assert choice == Choice("bf16", "channels_last")
    assert choice.reason == "given"


def test_a_measurement_times_all_four_and_leaves_the_network_alone():
    network = TinyNet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    choice = choose_precision(network, TinyLoss(), (2, 1, 8, 8, 8), ranks=Ranks())
    assert set(choice.seconds) == {f"{p} {m}" for p in ("fp32", "bf16") for m in ("contiguous", "channels_last")}
    assert choice.seconds[f"{choice.precision} {choice.memory_format}"] <= 1.05 * min(choice.seconds.values())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_measurement_without_time_still_compares_the_precisions():
    choice = choose_precision(TinyNet(), TinyLoss(), (2, 1, 8, 8, 8), ranks=Ranks(), limit_seconds=0)
    assert set(choice.seconds) == {"bf16 contiguous", "bf16 channels_last", "fp32 contiguous"}


# ---------------------------------------------------------------- the loop


@pytest.mark.parametrize(
    ("steps", "validations", "expected"), [(30, 3, [10, 20, 30]), (7, 2, [4, 7]), (3, 10, [1, 2, 3])]
)
def test_validations_are_spread_over_the_run_and_the_last_is_at_its_end(tmp_path, steps, validations, expected):
    recorded = Recorded()
    train_tiny(tmp_path, steps=steps, tracker=recorded, settings={"validations": validations})
    assert [step for step, _ in recorded.scores] == expected


class Scores:
    """Gives scores from a list, and remembers the weights they were given for."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.weights: list[torch.Tensor] = []

    def __call__(self, network) -> ValidationResult:
        assert not network.training
        self.weights.append(network.fine.weight.clone())
        score = self.scores.pop(0)
        return ValidationResult(score, {"dice/scar": score})


def test_best_weights_are_those_of_the_best_score_and_last_those_of_the_end(tmp_path):
    validate = Scores(0.2, 0.7, math.nan, 0.5)
    state = train_tiny(tmp_path, steps=12, settings={"validations": 4}, validate=validate)
    assert (state.best_score, state.best_step, state.best_metrics) == (0.7, 6, {"dice/scar": 0.7})
    best, last = (load_file(tmp_path / "weights" / f"{which}.safetensors") for which in ("best", "last"))
    assert torch.equal(best["fine.weight"], validate.weights[1])
    assert torch.equal(last["fine.weight"], validate.weights[3])
    metadata = read_metadata(tmp_path / "weights" / "best.safetensors")
    assert (metadata["step"], metadata["score"], metadata["labels"]) == ("6", "0.700000", "left, right")
    assert metadata["fingerprint"] == fingerprint(TinyNet())


def test_patience_stops_after_so_many_validations_without_a_better_one(tmp_path):
    settings = {"validations": 10, "patience": 2}
    state = train_tiny(tmp_path, steps=20, settings=settings, validate=Scores(0.1, 0.5, 0.5, 0.4, 0.9))
    assert (state.step, state.best_step, state.ended) == (8, 4, True)


def test_training_mode_is_back_after_a_validation(tmp_path):
    step = tiny_step(train=tiny_train(ema=0))
    fit_steps(step, tmp_path, 3, validate=Validate(), validations=1)
    assert step.network.training


def test_without_validation_the_last_weights_are_the_best(tmp_path):
    state = fit_steps(tiny_step(), tmp_path, 3)
    assert state.best_score is None
    best, last = (load_file(tmp_path / "weights" / f"{which}.safetensors") for which in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in best | last)


def test_rows_hold_losses_speed_and_the_share_of_waiting(tmp_path):
    recorded = Recorded()
    train_tiny(tmp_path, steps=30, tracker=recorded, settings={"validations": 1})
    assert [row["step"] for row in recorded.rows] == [10, 20, 30]
    assert set(recorded.rows[0]) == {
        "step", "loss", "gradient_norm", "learning_rate", "patches_per_second", "data_wait_share",
    }  # fmt: skip
    assert all(0 < row["data_wait_share"] < 1 and row["patches_per_second"] > 0 for row in recorded.rows)


# ---------------------------------------------------------------- NaN


def test_a_nan_names_step_cases_and_last_values_and_keeps_the_good_checkpoint(tmp_path):
    with pytest.raises(TrainingError) as error:
        train_tiny(tmp_path, steps=30, nan_from=26, settings={"checkpoint_minutes": 1e-9})
    message = str(error.value)
    assert message.startswith("loss is nan at step 14 (cases case_1, case_2; last finite values: loss ")
    assert message.endswith("the checkpoint of step 13 is kept")
    assert "\n" not in message
    saved = load_state(tmp_path / "checkpoint.pt")
    assert saved["fit"]["step"] == 13
    assert all(value.isfinite().all() for value in saved["step"]["network"].values())
    best = load_file(tmp_path / "weights" / "best.safetensors")
    assert all(value.isfinite().all() for value in best.values())


def test_a_gradient_that_overflows_is_found_before_its_weights_are_saved(tmp_path):
    class Overflow(TinyLoss):
        """A finite value whose gradient is not."""

        def forward(self, logits, labels):
            return super().forward(logits, labels) + (0 * logits[0].detach() + logits[0] - logits[0]).abs().sqrt().sum()

    step = tiny_step()
    step.loss = Overflow()
    with pytest.raises(TrainingError, match=r"at step 1 .*no checkpoint was written yet"):
        fit_steps(step, tmp_path, 3, checkpoint_minutes=1e-9)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Poison(Tracker):
        def __init__(self, step) -> None:
            self.step = step

        def progress(self, share, step):
            if step == 2:
                self.step.network.fine_head.bias.data[0] = math.inf

    step = tiny_step()
    with pytest.raises(TrainingError, match=r"a weight is not finite at step 2.*the checkpoint of step 1 is kept"):
        fit_steps(step, tmp_path, 9, tracker=Poison(step), checkpoint_minutes=1e-9)
    assert load_state(tmp_path / "checkpoint.pt")["fit"]["step"] == 1


def test_a_gpu_without_memory_is_one_line_that_says_what_to_lower(tmp_path):
    class Greedy(TinyLoss):
        def forward(self, logits, labels):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    step = tiny_step()
    step.loss = Greedy()
    with pytest.raises(ValueError, match=r"^the GPU has too little memory: lower train\.batch_size"):
        fit_steps(step, tmp_path, 3)


# ---------------------------------------------------------------- files


def test_weights_come_back_with_their_metadata(tmp_path):
    torch.manual_seed(1)
    network, other = TinyNet(), TinyNet()
    save_weights(tmp_path / "a.safetensors", network, {"step": 12, "labels": "myocardium"})
    assert load_weights(tmp_path / "a.safetensors", other)["labels"] == "myocardium"
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in other.state_dict().items())


def test_weights_in_channels_last_come_back(tmp_path):
    network = Choice("fp32", "channels_last").place(TinyNet(), torch.device("cpu"))
    other = TinyNet()
    save_weights(tmp_path / "a.safetensors", network, {})
    load_weights(tmp_path / "a.safetensors", other)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in other.state_dict().items())


class Twice(nn.Module):
    """Registers one layer under two names, as MONAI's DynUNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.ModuleList([self.first])


def test_a_layer_with_two_names_is_stored_once_and_comes_back(tmp_path):
    network, other = Twice(), Twice()
    save_weights(tmp_path / "a.safetensors", network, {})
    assert set(load_file(tmp_path / "a.safetensors")) == {"first.weight", "first.bias"}
    load_weights(tmp_path / "a.safetensors", other)
    assert torch.equal(other.second[0].weight, network.first.weight)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: TinyNet(width=6), r"fine\.weight is \(4, 1, 3, 3, 3\) there and \(6, 1, 3, 3, 3\) here"),
        (lambda: TinyNet(batch_norm=False), r"coarse_norm\.bias is \(4,\) there and missing here \(5 of 15 weights"),
    ],
)
def test_weights_of_another_network_name_the_first_difference(tmp_path, other, difference):
    save_weights(tmp_path / "a.safetensors", TinyNet(), {})
    with pytest.raises(RunError, match=difference) as error:
        load_weights(tmp_path / "a.safetensors", other())
    assert "\n" not in str(error.value)


def test_fingerprints_differ_where_networks_do():
    assert fingerprint(TinyNet()) == fingerprint(TinyNet())
    assert fingerprint(TinyNet()) != fingerprint(TinyNet(width=6))


class Malicious:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_stranger_s_code_is_never_run(tmp_path, write):
    trace = tmp_path / "ran"
    path = tmp_path / "checkpoint.pt"
    write({"format": 1, "step": Malicious(trace)}, path)
    for lazy in (False, True):
        with pytest.raises(RunError, match=r"checkpoint .*checkpoint\.pt") as error:
            load_state(path, lazy=lazy)
        assert "\n" not in str(error.value)
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(RunError, match="damaged or no safetensors"):
        load_weights(tmp_path / "w.safetensors", TinyNet())
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04 not a zip", "half"])
def test_a_damaged_checkpoint_is_one_line(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    save_state(path, {"format": 1, "fit": {"step": 3}, "weights": torch.zeros(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(RunError, match=r"damaged") as error:
        load_state(path)
    assert "\n" not in str(error.value)


def test_missing_and_damaged_weights_are_one_line(tmp_path):
    with pytest.raises(RunError, match="are not there"):
        load_weights(tmp_path / "a.safetensors", TinyNet())
    save_weights(tmp_path / "a.safetensors", TinyNet(), {})
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[:-50])
    with pytest.raises(RunError, match="damaged"):
        load_weights(tmp_path / "a.safetensors", TinyNet())


FULL_DISK = """
import resource, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from segmed.commands.command_line import run_tool
from tiny_run import Tracker, train_tiny

class Fill(Tracker):
    def progress(self, share, step):
        if step == 6:  # from here on no file may grow beyond a few bytes, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

run_tool(lambda: train_tiny(Path({folder!r}), tracker=Fill(), settings={{"checkpoint_minutes": 1e-9}}) and None)
"""


@pytest.mark.xdist_group("processes")
def test_a_full_disk_is_one_line_and_keeps_the_checkpoint_before(tmp_path):
    program = FULL_DISK.format(tests=str(Path(__file__).parents[1] / "fixtures"), folder=str(tmp_path))
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: no space left for ")
    assert "Traceback" not in result.stderr
    assert load_state(tmp_path / "checkpoint.pt")["fit"]["step"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"], "nothing half-written is left"


def test_a_full_disk_behind_torch_s_own_error_is_named(tmp_path, monkeypatch):
    def full(state, file):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672]")  # noqa: B904

    save_state(tmp_path / "checkpoint.pt", {"format": 1, "number": 1})
    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(DiskError, match=r"no space left for .*checkpoint\.pt"):
        save_state(tmp_path / "checkpoint.pt", {"format": 1, "number": 2})
    monkeypatch.undo()
    assert load_state(tmp_path / "checkpoint.pt")["number"] == 1

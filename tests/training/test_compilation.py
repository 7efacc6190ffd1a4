"""torch.compile: measured in long runs, off where it does not pay or can't be done, kept for a resume."""

import time
from functools import partial

import pytest
import torch
from tiny_data import make_balls, tiny
from tiny_run import TinyLoss, TinyNet, tiny_train
from torch import nn
from torch._inductor import cpp_builder

from segmed.compose import run as compose_run
from segmed.config import TrainConfig
from segmed.runs import Run, read_config
from segmed.segment import train as segment_train
from segmed.training.compilation import LONG_SECONDS, Compilation, choose_compilation, compiled
from segmed.training.fit_settings import budget_of, run_seconds
from segmed.training.precision import Choice
from segmed.training.ranks import Ranks
from segmed.training.steps import AllLogits

SLOW = 0.05  # seconds that a step takes beside its work


class Slow(nn.Module):
    """Takes its time, unless it is compiled."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seconds = network, SLOW

    def forward(self, image):
        time.sleep(self.seconds)
        return self.network.all_logits(image)


def choose(seconds=2 * LONG_SECONDS, call=Slow, **given) -> Compilation:
    return choose_compilation(
        TinyNet(), TinyLoss(), (2, 1, 8, 8, 8), choice=Choice(), ranks=Ranks(), call=call, seconds=lambda _: seconds,
        **given,
    )  # fmt: skip


@pytest.fixture
def compile_takes(monkeypatch):
    """Compiling succeeds, and a compiled step takes that share of the time."""

    def fake(module, *, dynamic, share):
        assert dynamic is False
        module.seconds *= share
        return module

    return lambda share: monkeypatch.setattr(torch, "compile", partial(fake, share=share))


def test_a_faster_step_is_compiled_in_a_long_run_and_both_times_are_the_reason(compile_takes):
    compile_takes(0.1)
    chosen = choose()
    assert chosen.on
    assert chosen.reason.startswith("measured: eager 0.")
    assert "s to compile" in chosen.reason
    assert chosen.seconds > 5 * SLOW


def test_a_step_that_gains_nothing_is_not_compiled(compile_takes):
    compile_takes(4.0)
    chosen = choose()
    assert not chosen.on
    assert chosen.reason.startswith("measured: ")


def test_a_short_run_is_not_compiled_and_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    assert choose(seconds=LONG_SECONDS - 1) == Compilation(
        False, "a run below 15 minutes is too short to make up for compiling"
    )
    assert choose(given="off") == Compilation(False)
    assert choose(given="on") == Compilation(True)


def test_a_compiler_that_fails_leaves_the_network_as_it_is_and_says_why_in_one_line(monkeypatch):
    def fails(module, **_):
        raise RuntimeError("CppCompileError: no header\nwith many\nlines")

    monkeypatch.setattr(torch, "compile", fails)
    assert choose().reason == "compiling failed: CppCompileError: no header"


def test_without_a_compiler_the_network_is_called_as_it_is(monkeypatch, caplog):
    def missing():
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    assert choose().reason == "torch.compile finds no C++ compiler, such as g++"
    module = AllLogits(TinyNet())
    assert compiled(module, torch.device("cpu")) is module
    assert caplog.messages == ["torch.compile finds no C++ compiler, such as g++: the network is not compiled"]


def test_a_compiler_that_fails_is_one_line_and_the_network_trains_as_it_is(monkeypatch, caplog):
    def failing(_):
        raise RuntimeError("C++ compile error\n\nOutput:\nfatal error: Python.h: No such file")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "g++")
    monkeypatch.setattr(torch, "compile", lambda *_, **__: failing)
    module = TinyNet()
    assert compiled(module, torch.device("cpu")) is module
    assert caplog.messages == [
        "torch.compile fails on a small function (C++ compile error): the network is not compiled"
    ]


def test_measuring_draws_nothing_from_torchs_generator(compile_takes):
    compile_takes(0.5)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    network = TinyNet()
    torch.manual_seed(0)
    choose_compilation(
        network, TinyLoss(), (2, 1, 8, 8, 8), choice=Choice(), ranks=Ranks(), call=Slow, seconds=lambda _: 1e6
    )
    assert torch.equal(torch.rand(3), expected)
    assert all(weight.grad is None for weight in network.parameters())


def test_a_run_keeps_the_choice_for_its_resume_and_pays_for_it_with_its_time(tmp_path, monkeypatch):
    seen = []

    def chosen(*_, given, **__):
        seen.append(given)
        return Compilation(True, "measured: eager 2 s, compiled 1 s a step, 50 s to compile", 60.0)

    monkeypatch.setattr(segment_train, "choose_compilation", chosen)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compose_run.run(tiny(make_balls(tmp_path / "data"), tmp_path, train={"compile": "auto"}), tmp_path / "run")
    run = Run(tmp_path / "run")
    assert read_config(run).train.compile == "on"
    assert "50 s to compile" in run.plan.read_text()
    assert "torch.compile on: measured: eager 2 s" in (run.path / "log.txt").read_text()
    assert float((run.path / "history.csv").read_text().splitlines()[-1].split(",")[1]) > 1  # minutes
    assert seen == ["auto"]


def test_a_budget_goes_on_from_what_was_spent_before_its_first_step():
    budget = budget_of(TrainConfig(budget_minutes=2), spent=60.0)
    budget.start()
    assert 60 <= budget.elapsed() < 61
    assert run_seconds(TrainConfig(budget_minutes=2), 5.0) == 120
    assert run_seconds(tiny_train(epochs=3, steps_per_epoch=4, accumulate=2, batch_size=1), 5.0) == 120


def test_what_was_true_or_false_is_on_or_off():
    assert [TrainConfig(compile=value).compile for value in (True, False, "auto")] == ["on", "off", "auto"]

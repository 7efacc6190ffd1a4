"""Whether a run compiles its network with torch.compile, chosen by a short measurement on the machine that trains."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from segmed.training.precision import Choice, made_batch
from segmed.training.ranks import Ranks

LOG = logging.getLogger(__name__)
LONG_SECONDS = 900.0  # of a run; in a shorter one not even a third less a step makes up for what compiling takes
GAIN = 0.9  # a compiled step must take less than this share of an eager one
TURNS = 4  # timed steps of each, in turns; the fastest counts

Call = Callable[[nn.Module], nn.Module]
Given = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Compilation:
    """Whether the network is compiled.

    Attributes:
        on: whether it is.
        reason: for the run's record.
        seconds: that measuring it took, of the run's time.
    """

    on: bool
    reason: str = "given"
    seconds: float = 0.0

    @property
    def value(self) -> Literal["on", "off"]:
        """As the config has it."""
        return "on" if self.on else "off"


def compiled(module: nn.Module, device: torch.device) -> nn.Module:
    """The module, compiled for batches of one shape; itself where this machine can't compile, with a warning."""
    why_not = _missing_compiler(device) or _failure(device)
    if why_not:
        LOG.warning("%s: the network is not compiled", why_not)
        return module
    return cast(nn.Module, torch.compile(module, dynamic=False))


def choose_compilation(
    network: nn.Module,
    loss: nn.Module,
    shape: Sequence[int],
    *,
    choice: Choice,
    ranks: Ranks,
    call: Call,
    given: Given = "auto",
    seconds: Callable[[float], float],
    device: torch.device | str = "cpu",
    target: Tensor | None = None,
) -> Compilation:
    """Compile where the run is long and a compiled step is faster by a tenth, and by more in all than compiling takes.

    Copies of the network are used. The leading process measures for all.

    Args:
        network: what trains.
        loss: of what the called module gives and the target.
        shape: (B, C, *spatial) of a training batch.
        choice: precision and memory format, which are chosen already.
        ranks: the processes that train.
        call: wraps the network into the module that is called in training.
        given: what the config says; only `auto` is measured.
        seconds: of an eager step -> those that the run will take about.
        device: that trains.
        target: as in `choose_precision`.
    """
    if given != "auto":
        return Compilation(given == "on")
    place = torch.device(device)
    image, target = made_batch(network, shape, target, place)

    def step(module: nn.Module) -> float:
        began = time.perf_counter()
        with choice.autocast(place):
            value = loss(module(choice.arrange(image)), target)
        value.backward()
        if image.is_cuda:
            torch.cuda.synchronize(place)
        module.zero_grad(set_to_none=True)
        return time.perf_counter() - began

    def measure() -> Compilation:
        loss.to(place)
        with torch.random.fork_rng(devices=[place] if image.is_cuda else []):
            return _measured(lambda: call(choice.place(copy.deepcopy(network), place).train()), step, seconds, place)

    return ranks.lead(measure)


def _measured(
    module: Callable[[], nn.Module],
    step: Callable[[nn.Module], float],
    seconds: Callable[[float], float],
    device: torch.device,
) -> Compilation:
    began = time.perf_counter()
    plain = module()
    first = min(step(plain) for _ in range(2))
    if seconds(first) < LONG_SECONDS:
        return Compilation(False, f"a run below {LONG_SECONDS / 60:.0f} minutes is too short to make up for compiling")
    missing = _missing_compiler(device)
    if missing:
        return Compilation(False, missing, time.perf_counter() - began)
    try:
        fast = cast(nn.Module, torch.compile(module(), dynamic=False))
        compiling = step(fast)
        turns = [(step(plain), step(fast)) for _ in range(TURNS)]
    except Exception as error:  # whatever a compiler and its back ends may raise
        return Compilation(False, f"compiling failed: {_line(error)}", time.perf_counter() - began)
    eager, quick = (min(times) for times in zip(*turns, strict=True))
    pays = quick < GAIN * eager and (1 - quick / eager) * seconds(eager) > compiling
    figures = f"measured: eager {eager:.3g} s, compiled {quick:.3g} s a step, {compiling:.0f} s to compile"
    return Compilation(pays, figures, time.perf_counter() - began)


def _missing_compiler(device: torch.device) -> str:
    """What compiling needs and this machine lacks; empty where nothing is missing."""
    if device.type != "cpu":
        return ""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:  # torch's own kind, which is no part of its interface
        return "torch.compile finds no C++ compiler, such as g++"
    return ""


def _failure(device: torch.device) -> str:
    """What goes wrong where a small function is compiled, as without Python's headers; empty where nothing does."""
    try:
        torch.compile(_small)(torch.zeros(64, device=device))
    except Exception as error:  # whatever a compiler and its back ends may raise
        return f"torch.compile fails on a small function ({_line(error)})"
    return ""


def _small(values: Tensor) -> Tensor:
    return values.sin() + values.cos()


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

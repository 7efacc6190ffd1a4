"""Precision and memory format of training, chosen by a short measurement on the machine that trains."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from segmed.training.ranks import Ranks

Precision = Literal["fp32", "bf16"]
MemoryFormat = Literal["contiguous", "channels_last"]
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
FIRST = 3  # candidates that are timed whatever it takes: bf16 in both formats, and fp32
TURNS = 4  # timed steps of a candidate, after one that sets up the kernels; the fastest counts
HOPELESS = 3.0  # a candidate that takes so many times the best one's time is not timed again
GAIN = 0.97  # a candidate must take less than this share of the time of the simpler one before it


Forward = Callable[[nn.Module, Tensor], Any]


def all_logits(network: nn.Module, image: Tensor) -> Any:
    """Logits of every level of a segmentation network."""
    return cast(Any, network).all_logits(image)


@dataclass(frozen=True)
class Choice:
    """How the network computes.

    Attributes:
        precision: of convolutions; weights are always kept in fp32.
        memory_format: of weights and feature maps.
        seconds: what a step took, by candidate; empty where nothing was measured.
    """

    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"
    seconds: dict[str, float] = field(default_factory=dict)

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """Context in which to compute."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def place(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Bring a network to the device, its weights in the memory format."""
        network.to(device)
        for weight in network.parameters():
            weight.data = self.arrange(weight.data)
        return network

    def arrange(self, data: Tensor) -> Tensor:
        """Bring a batch or a convolution's weight, (N, C, *spatial), 2D or 3D, into the memory format."""
        if self.memory_format == "contiguous" or data.ndim not in CHANNELS_LAST:
            return data
        return data.contiguous(memory_format=CHANNELS_LAST[data.ndim])

    @property
    def reason(self) -> str:
        """Why, for the run's record."""
        if not self.seconds:
            return "given"
        return "measured: " + ", ".join(f"{name} {seconds:.3g} s" for name, seconds in self.seconds.items()) + " a step"


def choose_precision(
    network: nn.Module,
    loss: nn.Module,
    shape: Sequence[int],
    *,
    ranks: Ranks,
    device: torch.device | str = "cpu",
    fixed: tuple[str, str] = ("auto", "auto"),
    limit_seconds: float = 30.0,
    forward: Forward = all_logits,
    target: Tensor | None = None,
) -> Choice:
    """Time forward and backward in fp32 and bf16, contiguous and channels-last, and take the fastest.

    A copy of the network is used. The leading process measures for all.

    Args:
        network: what trains.
        loss: of what `forward` gives and the target.
        shape: (B, C, *spatial) of a training batch.
        ranks: the processes that train.
        device: that trains.
        fixed: precision and memory format that are given, or `auto`.
        limit_seconds: after this time nothing is begun but the first step of the first three candidates.
        forward: network and image -> what the loss takes.
        target: of the batch; none: random labels (B, *spatial) of the network's `out_channels` classes.
    """
    precisions = ["bf16", "fp32"] if fixed[0] == "auto" else [fixed[0]]
    formats = ["contiguous", "channels_last"] if fixed[1] == "auto" else [fixed[1]]
    candidates = [Choice(cast(Precision, p), cast(MemoryFormat, m)) for p, m in product(precisions, formats)]
    if len(candidates) == 1:
        return candidates[0]
    work = _Work(network, loss, forward, *made_batch(network, shape, target, torch.device(device)))
    measured = ranks.lead(lambda: _measure(candidates, work, limit_seconds))
    simple_first = sorted(measured, key=lambda c: (c.precision != "fp32", c.memory_format != "contiguous"))
    best = simple_first[0]
    seconds = {name: s for choice in measured for name, s in choice.seconds.items()}
    for choice in simple_first[1:]:
        if _seconds(choice) < GAIN * _seconds(best):
            best = choice
    return Choice(best.precision, best.memory_format, seconds)


def _seconds(choice: Choice) -> float:
    return next(iter(choice.seconds.values()))


@dataclass(frozen=True)
class _Work:
    """What is timed."""

    network: nn.Module
    loss: nn.Module
    forward: Forward
    image: Tensor
    target: Tensor


def made_batch(
    network: nn.Module, shape: Sequence[int], target: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """A batch to measure with: noise of that shape, and the target or random labels."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(tuple(shape), generator=generator)
    if target is None:
        classes = int(cast(Any, network).out_channels)
        target = torch.randint(0, classes, (shape[0], *shape[2:]), generator=generator, dtype=torch.uint8)
    return image.to(device), target.to(device)


def _measure(candidates: Sequence[Choice], work: _Work, limit_seconds: float) -> list[Choice]:
    """The candidates that were timed, each with its seconds."""
    work.loss.to(work.image.device)
    times: dict[int, list[float]] = {number: [] for number in range(len(candidates))}
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[work.image.device] if work.image.is_cuda else []):
        for turn in range(1 + TURNS):  # in turns, so that a machine busy for a while is busy for all of them
            for number, choice in enumerate(candidates):
                if time.perf_counter() - began > limit_seconds and (turn or number >= FIRST):
                    break
                if turn and min(times[number]) > HOPELESS * min(map(min, filter(None, times.values()))):
                    continue
                times[number].append(_time(choice, work))
    names = {number: f"{choice.precision} {choice.memory_format}" for number, choice in enumerate(candidates)}
    fastest = {number: min(seconds[1:] or seconds) for number, seconds in times.items() if seconds}
    return [replace(candidates[number], seconds={names[number]: seconds}) for number, seconds in fastest.items()]


def _time(choice: Choice, work: _Work) -> float:
    """Seconds of one forward and backward pass; infinite where memory does not suffice."""
    device = work.image.device
    try:
        image = choice.arrange(work.image)
        network = choice.place(copy.deepcopy(work.network), device).train()
        start = time.perf_counter()
        with choice.autocast(device):
            value = work.loss(work.forward(network, image), work.target)
        value.backward()
        if image.is_cuda:
            torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return float("inf")
    return time.perf_counter() - start

"""The peak learning rate of a run, found by a short trial in which the rate rises from step to step.

Source: Smith 2017, Cyclical learning rates for training neural networks, section 3.3 (the range test).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from segmed.config import TrainConfig
from segmed.training.fit_settings import total_steps
from segmed.training.loss_rise import relative_rise
from segmed.training.optimisation import make_optimiser, set_rate
from segmed.training.precision import Choice
from segmed.training.ranks import Ranks

STEPS = 60  # of the trial; fewer in a shorter run
FEWEST = 20  # steps of a trial that says something: in six trials of a small U-Net fewer found the last rate or any
SHARE = 0.05  # of a run in minutes: as long as the trial may take
LOWEST, HIGHEST = 0.03, 30.0  # rates of the trial, as multiples of the usual peak
SMOOTHING = 0.85  # of the loss from step to step
DIVERGED = 0.5  # share by which the smoothed loss has risen when the trial ends
WIDTH = 4.0  # the rate that is found stays within the usual peak over and times this


@dataclass(frozen=True)
class FoundRate:
    """A peak learning rate.

    Attributes:
        rate: the peak.
        reason: for the run's record.
        seconds: that the trial took, of the run's time.
    """

    rate: float
    reason: str
    seconds: float


@dataclass(frozen=True)
class _Trial:
    """What a trial saw.

    Attributes:
        rates, losses: of each step.
        failed: why nothing can be said, and what to do; empty where something can.
    """

    rates: Sequence[float] = ()
    losses: Sequence[float] = ()
    failed: str = ""


def find_rate(
    network: nn.Module,
    loss: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    train: TrainConfig,
    *,
    usual: float,
    choice: Choice,
    ranks: Ranks,
    call: Callable[[nn.Module], nn.Module],
    target: str = "label",
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> FoundRate:
    """Train a copy on the run's first batches with a rising rate; the rate at which the loss falls fastest is taken.

    Where the trial can't tell, the usual peak is taken. The leading process measures for all. Of batches that are
    accumulated the first piece alone is used.

    Args:
        network: what trains.
        loss: of what the called module gives and the target.
        batches: each has `image` (B, C, ...) and the target.
        train: length of the run, optimiser, weight decay, clipping.
        usual: peak that `auto` would give this run: the middle of the trial.
        choice: precision and memory format, which are chosen already.
        ranks: the processes that train.
        call: wraps the network into the module that is called in training.
        target: its name in a batch.
        device: that trains.
        clock: seconds.
    """
    place = torch.device(device)

    def search() -> FoundRate:
        began = clock()
        loss.to(place)
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            copied = choice.place(copy.deepcopy(network), place).train()
            module = call(copied)

            def loss_of(batch: Mapping[str, Any]) -> Tensor:
                image, wanted = (batch[name].chunk(train.accumulate)[0].to(place) for name in ("image", target))
                with choice.autocast(place):
                    return cast(Tensor, loss(module(choice.arrange(image)), wanted))

            trial = _trial(copied, loss_of, batches, train, usual=usual, elapsed=lambda: clock() - began)
        return FoundRate(*_judged(trial, usual), clock() - began)

    return ranks.lead(search)


def fastest_fall(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate at which a smoothed loss falls fastest from step to step.

    Args:
        rates: rising, one a step, at least two.
        losses: of those steps.
    """
    smooth = smoothed(losses)
    end = int(np.argmin(smooth)) + 1
    falls = np.diff(smooth[: max(end, 2)])
    return float(rates[int(np.argmin(falls)) + 1])


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Exponential moving average, free of the bias of its start."""
    mean, result = 0.0, []
    for number, value in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        result.append(mean / (1 - SMOOTHING**number))
    return np.array(result)


def _judged(trial: _Trial, usual: float) -> tuple[float, str]:
    """The rate, with two digits, and the reason."""
    if trial.failed:
        return usual, f"usual peak: {trial.failed}"
    fastest = fastest_fall(trial.rates, trial.losses)
    rate = float(f"{min(max(fastest, usual / WIDTH), usual * WIDTH):.2g}")
    where = "here" if rate == float(f"{fastest:.2g}") else f"at {fastest:.2g}"
    kept = "" if where == "here" else f"; taken is {WIDTH if fastest > usual else 1 / WIDTH:g} times the usual peak"
    span = f"{len(trial.losses)} steps from {trial.rates[0]:.2g} to {trial.rates[-1]:.2g}"
    return rate, f"found: the loss falls fastest {where}, in {span}{kept}"


def _trial(
    network: nn.Module,
    loss_of: Callable[[Mapping[str, Any]], Tensor],
    batches: Iterable[Mapping[str, Any]],
    train: TrainConfig,
    *,
    usual: float,
    elapsed: Callable[[], float],
) -> _Trial:
    """Rates and losses of the steps, until the loss diverges or the time is over."""
    need, way_out = f"of the {FEWEST} steps that a trial needs", "train longer, or give a rate"
    steps = min(STEPS, total_steps(train) or STEPS)
    if steps < FEWEST:
        return _Trial(failed=f"the run has {steps} {need}: {way_out}")
    step = _step(network, loss_of, iter(batches), train)
    limit, share = float("inf"), ""
    if train.budget_minutes is not None:
        limit, share = SHARE * 60 * train.budget_minutes, f"{SHARE:.0%} of the run's {train.budget_minutes:g} min"
        steps = min(steps, _affordable(lambda: step(LOWEST * usual), elapsed, limit))
        if steps < FEWEST:
            return _Trial(failed=f"{share} hold {steps} {need}: {way_out}")
    rates = np.geomspace(LOWEST * usual, HIGHEST * usual, steps).tolist()
    losses, ended = _losses(step, rates, lambda: elapsed() < limit)
    number, failed = len(losses), ""
    if ended == "not finite" and number < FEWEST:
        failed = f"the loss was finite in {number} {need}: look at the data, or give a lower rate"
    elif ended == "time" and rates[number] <= WIDTH * usual:
        failed = f"{share} were over when the rate had come to {rates[max(number, 1) - 1]:.2g} alone: {way_out}"
    elif number < FEWEST:
        failed = f"{share} were over after {number} {need}: {way_out}"
    return _Trial(rates[:number], losses, failed)


def _step(
    network: nn.Module,
    loss_of: Callable[[Mapping[str, Any]], Tensor],
    stream: Iterator[Mapping[str, Any]],
    train: TrainConfig,
) -> Callable[[float], float]:
    """Learning rate -> the loss of the next batch, from which the network learns where it is finite."""
    optimiser = make_optimiser(network, train)

    def step(rate: float) -> float:
        set_rate(optimiser, rate)
        loss = loss_of(next(stream))
        if loss.isfinite():
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), train.clip or float("inf"))
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return loss.item()

    return step


def _losses(
    step: Callable[[float], float], rates: Sequence[float], in_time: Callable[[], bool]
) -> tuple[list[float], Literal["last rate", "diverged", "not finite", "time"]]:
    """The finite losses of steps with these rates, and why there are no more."""
    losses: list[float] = []
    for rate in rates:
        if not in_time():
            return losses, "time"
        loss = step(rate)
        if not math.isfinite(loss):
            return losses, "not finite"
        losses.append(loss)
        curve = smoothed(losses).tolist()
        if len(losses) >= FEWEST and relative_rise(curve[-1], curve) > DIVERGED:
            return losses, "diverged"
    return losses, "last rate"


def _affordable(step: Callable[[], float], elapsed: Callable[[], float], limit: float) -> int:
    """How many more steps fit into a number of seconds; the first, which waits for data, does not tell."""
    step()
    before = elapsed()
    if before >= limit:
        return 0
    step()
    return int(max(limit - elapsed(), 0.0) / max(elapsed() - before, 1e-6))

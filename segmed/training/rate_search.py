"""The peak learning rate of a run, found by a short trial in which the rate rises from step to step.

Source: Smith 2017, Cyclical learning rates for training neural networks, section 3.3 (the range test).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from segmed.config import TrainConfig
from segmed.training.fit_settings import total_steps
from segmed.training.optimisation import PEAK_RATE, make_optimiser, set_rate
from segmed.training.precision import Choice
from segmed.training.ranks import Ranks

STEPS = 60  # of the trial, or all of a shorter run
FEWEST = 3  # steps below which nothing can be said
LOWEST, HIGHEST = 0.03, 30.0  # rates of the trial, as multiples of the optimiser's usual peak
SMOOTHING = 0.85  # of the loss from step to step
DIVERGED = 1.5  # times the least smoothed loss: the trial ends
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


def find_rate(
    network: nn.Module,
    loss: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    train: TrainConfig,
    *,
    choice: Choice,
    ranks: Ranks,
    call: Callable[[nn.Module], nn.Module],
    target: str = "label",
    device: torch.device | str = "cpu",
) -> FoundRate:
    """Train a copy on the run's first batches with a rising rate; the rate at which the loss falls fastest is taken.

    The leading process measures for all. Of batches that are accumulated the first piece alone is used.

    Args:
        network: what trains.
        loss: of what the called module gives and the target.
        batches: each has `image` (B, C, ...) and the target.
        train: optimiser, weight decay, clipping.
        choice: precision and memory format, which are chosen already.
        ranks: the processes that train.
        call: wraps the network into the module that is called in training.
        target: its name in a batch.
        device: that trains.
    """
    place = torch.device(device)

    def search() -> FoundRate:
        began = time.perf_counter()
        loss.to(place)
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            trial = choice.place(copy.deepcopy(network), place).train()
            module = call(trial)

            def loss_of(batch: Mapping[str, Any]) -> Tensor:
                image, wanted = (batch[name].chunk(train.accumulate)[0].to(place) for name in ("image", target))
                with choice.autocast(place):
                    return cast(Tensor, loss(module(choice.arrange(image)), wanted))

            rates, losses = _trial(trial, loss_of, batches, train)
        rate = fastest_fall(rates, losses, usual=PEAK_RATE[train.optimiser])
        return FoundRate(rate, _reason(rates, losses), time.perf_counter() - began)

    return ranks.lead(search)


def fastest_fall(rates: Sequence[float], losses: Sequence[float], *, usual: float) -> float:
    """The rate at which a smoothed loss falls fastest from step to step, with two digits.

    Args:
        rates: rising, one a step.
        losses: of those steps.
        usual: peak of the optimiser; what is found stays within a quarter and four times of it.
    """
    smooth = smoothed(losses)
    if len(smooth) < FEWEST:
        return usual
    end = int(np.argmin(smooth)) + 1
    falls = np.diff(smooth[: max(end, 2)])
    rate = float(rates[int(np.argmin(falls)) + 1])
    return float(f"{min(max(rate, usual / WIDTH), usual * WIDTH):.2g}")


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Exponential moving average, free of the bias of its start."""
    mean, result = 0.0, []
    for number, value in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        result.append(mean / (1 - SMOOTHING**number))
    return np.array(result)


def _reason(rates: Sequence[float], losses: Sequence[float]) -> str:
    if len(losses) < FEWEST:
        return f"usual peak: the loss was finite in {len(losses)} steps alone, too few to find another"
    return f"found: the loss falls fastest here, in {len(losses)} steps from {rates[0]:.2g} to {rates[-1]:.2g}"


def _trial(
    network: nn.Module,
    loss_of: Callable[[Mapping[str, Any]], Tensor],
    batches: Iterable[Mapping[str, Any]],
    train: TrainConfig,
) -> tuple[list[float], list[float]]:
    """Rates and losses of the steps, until the loss diverges."""
    usual = PEAK_RATE[train.optimiser]
    rates = np.geomspace(LOWEST * usual, HIGHEST * usual, min(STEPS, total_steps(train) or STEPS)).tolist()
    optimiser, losses = make_optimiser(network, train), list[float]()
    for rate, batch in zip(rates, batches, strict=False):  # the batches of a run in minutes have no end
        set_rate(optimiser, rate)
        loss = loss_of(batch)
        if not loss.isfinite():
            break
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), train.clip or float("inf"))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        curve = smoothed(losses)
        if curve[-1] > DIVERGED * curve.min():
            break
    return rates[: len(losses)], losses

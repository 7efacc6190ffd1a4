"""What steps share: optimisers built from the config, learning rates, averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn

from segmed.config import TrainConfig
from segmed.errors import ConfigError

PEAK_RATE = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2, "adadelta": 1.0}
FUSED = ("cpu", "cuda")  # devices on which torch updates all weights in one kernel


def peak_rate(train: TrainConfig) -> float:
    """The largest learning rate of the run; where it is still to be chosen, the optimiser's usual one."""
    return PEAK_RATE[train.optimiser] if isinstance(train.learning_rate, str) else train.learning_rate


def make_optimiser(
    network: nn.Module, train: TrainConfig, *, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    """AdamW, Adam, Adadelta, or SGD with Nesterov momentum; norms and biases are not decayed.

    Levels of an encoder have groups of their own where their rates differ: `layer_decay`.
    """
    weights = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for share, part in _by_share(network, train.layer_decay):
        own = {} if share == 1 else {"share": share}
        groups += [
            {"params": [p for p in part if p.ndim > 1], "weight_decay": train.weight_decay, **own},
            {"params": [p for p in part if p.ndim <= 1], "weight_decay": 0.0, **own},
        ]
    groups = [group for group in groups if group["params"]]
    fused = weights[0].device.type in FUSED
    rate = peak_rate(train)
    if train.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=fused)
    if train.optimiser == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=betas, fused=fused)
    if train.optimiser == "adadelta":
        return torch.optim.Adadelta(groups, lr=rate)
    return torch.optim.SGD(groups, lr=rate, momentum=train.momentum, nesterov=train.momentum > 0, fused=fused)


def _by_share(network: nn.Module, layer_decay: float) -> Iterator[tuple[float, list[nn.Parameter]]]:
    """Share of the full rate, and the trained weights that have it: first those outside the encoder's levels."""
    levels = list(getattr(getattr(network, "encoder", None), "levels", ())) if layer_decay < 1 else []
    inside = {id(weight) for level in levels for weight in level.parameters()}
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    yield 1.0, [weight for weight in trained if id(weight) not in inside]
    for number, level in enumerate(levels):
        share = layer_decay ** (len(levels) - number)
        yield share, [weight for weight in level.parameters() if weight.requires_grad]


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups; those with a share of it get that share."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def freeze(network: nn.Module, levels: int) -> None:
    """Keep the weights of the finest levels of a network's encoder; running statistics of batch norms still follow.

    Raises:
        ConfigError: no level would be left to learn.
    """
    if not levels:
        return
    every = list(cast(Iterable[nn.Module], network.encoder.levels))  # type: ignore[union-attr]
    check_frozen(levels, len(every))
    for level in every[:levels]:
        level.requires_grad_(False)


def check_frozen(levels: int, there: int) -> None:
    """See that no more levels are frozen than an encoder has.

    Raises:
        ConfigError: more are.
    """
    if levels > there:
        raise ConfigError(f"train.frozen_levels {levels}: the encoder has {there} levels: give {there} or less")


class Average:
    """Exponential moving average of a network's weights and buffers, with a warm-up of the decay.

    The decay is min(decay, (1 + n) / (10 + n)) at update n = 0, 1, ..., so that the first, untrained weights are
    soon forgotten.

    Attributes:
        network: the averaged copy, in evaluation mode.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        pairs = list(zip(self._tensors(self.network), self._tensors(network), strict=True))
        self._averaged = [(a, b) for a, b in pairs if a.is_floating_point()]
        self._counted = [(a, b) for a, b in pairs if not a.is_floating_point()]

    @staticmethod
    def _tensors(network: nn.Module) -> list[torch.Tensor]:
        return [*network.parameters(), *network.buffers()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_([a.data for a, _ in self._averaged], [b.data for _, b in self._averaged], 1 - decay)
        for mine, theirs in self._counted:
            mine.copy_(theirs)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """For a resume."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.network.load_state_dict(state["network"])
        self.updates = int(state["updates"])

"""Spectral normalisation: every layer of a discriminator bounded by its largest singular value."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from segmed.errors import NetworkError
from segmed.networks.encoders.base_encoder import Encoder


class _FullPrecision(nn.Module):
    """A parametrisation that autocast leaves in fp32: on a GPU it would round the matrix products to bf16."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, weight: Tensor) -> Tensor:
        if weight.device.type == "meta":  # which knows no autocast
            return self.norm(weight)
        with torch.autocast(weight.device.type, enabled=False):
            return self.norm(weight)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def normalise_spectrally(network: nn.Module) -> None:
    """Bound every convolution and linear layer, in place: its weight is divided by its largest singular value.

    The singular value is followed by one power iteration a forward pass, in training only, and is that of the
    weight as a matrix of output channels x all else. Initialise first: a weight is read-only from then on.

    Raises:
        NetworkError: an encoder inside is checkpointed; backward would compute it with later singular values.

    Source: Miyato et al. 2018, arXiv 1802.05957, eq. 8 and algorithm 1.
    """
    if any(isinstance(module, Encoder) and module.checkpointing for module in network.modules()):
        raise NetworkError("spectral normalisation and checkpointing do not go together: switch one of them off")
    for module in list(network.modules()):
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)) and not is_parametrized(module, "weight"):
            spectral_norm(module)
            steps = cast(nn.ModuleDict, module.parametrizations)["weight"]
            cast(nn.ModuleList, steps)[0] = _FullPrecision(cast(nn.ModuleList, steps)[0])

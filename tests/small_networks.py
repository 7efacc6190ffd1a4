"""Networks of a few channels, and images for them: what the tests of networks share."""

from __future__ import annotations

import pytest
import torch

from segmed.networks.encoders import DenseEncoder, PlainEncoder, ResidualEncoder
from segmed.networks.models import SegmentationModel, SegmentationNet
from segmed.networks.peers import monai_network

ENCODERS = [PlainEncoder, ResidualEncoder, DenseEncoder]
NORMS = ["instance", "batch", "group"]
CHANNELS = (4, 6, 8)
STRIDES = {
    ("isotropic", 2): ((1, 1), (2, 2), (2, 2)),
    ("isotropic", 3): ((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    ("anisotropic", 2): ((1, 1), (2, 1), (2, 2)),
    ("anisotropic", 3): ((1, 1, 1), (2, 2, 1), (2, 1, 2)),
}
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}

every_encoder = pytest.mark.parametrize("encoder_type", ENCODERS)
every_norm = pytest.mark.parametrize("norm", NORMS)
every_dims = pytest.mark.parametrize("dims", [2, 3])
every_stride = pytest.mark.parametrize("kind", ["isotropic", "anisotropic"])


def image_of(dims: int, *, batch: int = 2, channels: int = 2, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn((batch, channels, *[size] * dims), generator=torch.Generator().manual_seed(seed))


def make_net(
    encoder_type=PlainEncoder, dims=3, kind="isotropic", *, deep_supervision=True, upsampling="transposed", **kw
):
    torch.manual_seed(0)
    encoder = encoder_type(2, CHANNELS, STRIDES[kind, dims], dims=dims, **kw)
    return SegmentationNet(encoder, 3, deep_supervision=deep_supervision, upsampling=upsampling)


def gradients(net: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a fixed random function of all logits."""
    net.zero_grad()
    generator = torch.Generator().manual_seed(1)
    logits = net.all_logits(image)
    torch.stack([(torch.randn(level.shape, generator=generator) * level).sum() for level in logits]).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


PEERS = {
    "dynunet": {"channels": (4, 6, 8, 8), "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2))},
    "segresnet": {"init_filters": 8},
    "swinunetr": {"feature_size": 12},
}


def make_peer(name: str, dims: int) -> SegmentationModel:
    torch.manual_seed(0)
    options = dict(PEERS[name])
    if name == "dynunet":
        options["strides"] = tuple(stride[:dims] for stride in options["strides"])
    return monai_network(name, in_channels=2, out_channels=3, dims=dims, **options)

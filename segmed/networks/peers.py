"""MONAI's networks for comparison, behind the interface of our own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from monai.networks.nets import DynUNet, SegResNet, SwinUNETR
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segmed.errors import NetworkError
from segmed.networks.blocks import Strides, check_strides, kernels_for
from segmed.networks.models import SegmentationModel, deep_supervision_levels

PeerName = Literal["dynunet", "segresnet", "swinunetr"]
DIVISORS = {  # of every axis of an image
    "segresnet": 2**3,  # three halvings between its four levels
    "swinunetr": 2 * 2**4,  # a patch embedding of 2 and four mergings
}
DYNUNET_LEVELS = 3  # at least
SWIN_WIDTH = 12  # its finest level has 3 heads of a multiple of 4 features


class MonaiNetwork(SegmentationModel):
    """A network of MONAI that gives one map of logits."""

    def __init__(
        self, body: nn.Module, in_channels: int, out_channels: int, divisor: tuple[int, ...], *, smallest_map: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, divisor, smallest_map=smallest_map)
        self.body = body

    def all_logits(self, image: Tensor) -> list[Tensor]:
        """image: (B, in_channels, *spatial) -> [logits (B, out_channels, *spatial)]."""
        self.check_image(image)
        return [self.body(image)]


class DynUNetPeer(MonaiNetwork):
    """MONAI's DynUNet; its own forward would resample the coarse logits to full size and stack them."""

    body: DynUNet

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) -> logits (B, out_channels, *spatial), in training too."""
        return self.all_logits(image)[0]

    def all_logits(self, image: Tensor) -> list[Tensor]:
        """image: (B, in_channels, *spatial) -> logits of each level, finest first."""
        self.check_image(image)
        finest = self.body.output_block(self.body.skip_layers(image))
        heads = self.body.heads
        coarser = list(heads) if self.supervised_levels > 1 else []
        heads[:] = [torch.empty(0)] * len(heads)  # kept maps would hold the graph, and stop a copy of the network
        return [finest, *coarser]


def monai_network(
    name: PeerName, *, in_channels: int, out_channels: int, dims: int, **options: object
) -> SegmentationModel:
    """A network of MONAI with the attributes and methods of ours.

    Args:
        name: `dynunet` (options channels, strides, deep_supervision), `segresnet` (init_filters) or
            `swinunetr` (feature_size).
        in_channels: channels of the image.
        out_channels: classes, background included.
        dims: 2 or 3.
        options: of that network; the rest is MONAI's default.

    Raises:
        NetworkError: a name or an option that is not known, or values that the network can't have.
    """
    if name not in PEERS:
        raise NetworkError(f"no MONAI network '{name}': choose {', '.join(PEERS)}")
    if dims not in (2, 3):
        raise NetworkError(f"a network has 2 or 3 dimensions, not {dims}")
    try:
        return PEERS[name](in_channels, out_channels, dims, **options)
    except TypeError as error:
        raise NetworkError(f"MONAI network '{name}': {str(error).split('() ')[-1]}") from error


def dynunet_arguments(
    *, dims: int, channels: Sequence[int], strides: Sequence[Sequence[int]], deep_supervision: bool = True
) -> dict[str, Any]:
    """Arguments of MONAI's DynUNet beside its channels of image and classes, with the kernels that ours would have.

    Raises:
        NetworkError: channels and strides do not fit together.
    """
    check_strides(channels, strides, dims)
    steps: Strides = tuple(tuple(stride) for stride in strides)
    if len(steps) < DYNUNET_LEVELS or max(steps[0]) > 1:
        raise NetworkError(
            f"dynunet with strides {steps}: give at least {DYNUNET_LEVELS} levels, the first with stride 1"
        )
    heads = deep_supervision_levels(len(steps)) if deep_supervision else 1
    return {
        "spatial_dims": dims,
        "kernel_size": kernels_for(steps),
        "strides": steps,
        "upsample_kernel_size": steps[1:],
        "filters": list(channels),
        "deep_supervision": heads > 1,
        "deep_supr_num": max(1, heads - 1),
    }


def _dynunet(in_channels: int, out_channels: int, dims: int, **options: Any) -> SegmentationModel:
    """nnU-Net's network."""
    arguments = dynunet_arguments(dims=dims, **options)
    steps = arguments["strides"]
    divisor = tuple(math.prod(axis) for axis in zip(*steps, strict=True))
    body = DynUNet(in_channels=in_channels, out_channels=out_channels, **arguments)
    network = DynUNetPeer(body, in_channels, out_channels, divisor, smallest_map=2)
    network.supervised_levels = arguments["deep_supr_num"] + 1 if arguments["deep_supervision"] else 1
    return network


def _segresnet(in_channels: int, out_channels: int, dims: int, *, init_filters: int = 16) -> SegmentationModel:
    if init_filters % 8:
        raise NetworkError(f"segresnet with init_filters {init_filters}: give a multiple of 8, its number of groups")
    body = SegResNet(dims, init_filters=init_filters, in_channels=in_channels, out_channels=out_channels)
    return MonaiNetwork(body, in_channels, out_channels, (DIVISORS["segresnet"],) * dims)


class _NumbersInMemory(TorchFunctionMode):
    """A row of numbers is made on the CPU: SwinUNETR reads its rates of dropped paths from one, also on `meta`."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        place = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **(kwargs or {}), **place)


def _swinunetr(in_channels: int, out_channels: int, dims: int, *, feature_size: int = 24) -> SegmentationModel:
    if feature_size < SWIN_WIDTH or feature_size % SWIN_WIDTH:
        raise NetworkError(f"swinunetr with feature_size {feature_size}: give a multiple of {SWIN_WIDTH}")
    with _NumbersInMemory():
        body = SwinUNETR(in_channels, out_channels, feature_size=feature_size, spatial_dims=dims)
    return MonaiNetwork(body, in_channels, out_channels, (DIVISORS["swinunetr"],) * dims, smallest_map=2)


PEERS: Mapping[str, Callable[..., SegmentationModel]] = {
    "dynunet": _dynunet,
    "segresnet": _segresnet,
    "swinunetr": _swinunetr,
}

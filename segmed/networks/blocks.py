"""Convolution blocks for 2 and 3 dimensions, and the kernels that strides ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segmed.errors import NetworkError

Norm = Literal["instance", "batch", "group", "none"]
Strides = tuple[tuple[int, ...], ...]

SLOPE = 0.01  # of LeakyReLU below zero, as in nnU-Net
EPSILON = 1e-5  # added to a variance
SOLID = 5  # axes of a 3D feature map
GROUPS = 8  # of group normalisation; fewer where each would hold less than two channels


class Conv2d(nn.Conv2d):
    """PyTorch's, but for one case that it gets wrong in bf16 on a CPU and that is computed in fp32 here.

    Dilated, in channels-last layout, with more than 16 inputs that are no multiple of 16, torch 2.13 takes a part of
    the weight's gradient from memory that nobody has written.
    """

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, inputs, X, Y) -> (B, outputs, *strided)."""
        odd = max(self.dilation) > 1 and self.in_channels > 16 and self.in_channels % 16 > 0
        if odd and _in_bf16_on_cpu(features):
            return _in_fp32(super().forward, features)
        return super().forward(features)


class Conv3d(nn.Conv3d):
    """PyTorch's, but for one shape that it gets wrong in bf16 on a CPU and that is computed in fp32 here.

    Where the first spatial axis has 2 voxels, kernel 3 and stride 1, torch 2.13 takes a part of the weight's gradient
    from memory that nobody has written: the first two of its three planes were off by any factor, up to infinity.
    """

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, inputs, X, Y, Z) -> (B, outputs, *strided)."""
        if features.shape[2] == 2 and _in_bf16_on_cpu(features):
            return _in_fp32(super().forward, features)
        return super().forward(features)


def _in_bf16_on_cpu(features: Tensor) -> bool:
    return features.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def _in_fp32(convolve: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """Without autocast; the result in autocast's type and in the layout of the features."""
    with torch.autocast("cpu", enabled=False):
        result = convolve(features.float())
    last = CHANNELS_LAST[features.dim() - 2]
    kept = last if features.is_contiguous(memory_format=last) and not features.is_contiguous() else None
    return result.to(torch.get_autocast_dtype("cpu"), memory_format=kept or torch.contiguous_format)


CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {2: Conv2d, 3: Conv3d}
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
DROPOUTS: dict[int, Callable[..., nn.Module]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
BATCH_NORMS: dict[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def kernels_for(strides: Strides) -> Strides:
    """Kernel sizes of each level, finest first: 3, or 1 across slices that are still too thick to be compared.

    An axis counts as thick at a level as long as no level down to the next one has halved it, while the next
    one halves another axis. These are the kernels that nnU-Net plans for thick slices, read off the strides;
    the coarsest level always has 3.

    Args:
        strides: step of each level relative to the one before, finest first, an entry per axis.

    Source: Isensee et al. 2021, Nat Methods 18:203, supplementary note 2.
    """
    kernels = []
    for level in range(len(strides)):
        seen = strides[: level + 2]
        next_halves = level + 1 < len(strides) and max(strides[level + 1]) > 1
        kernels.append(tuple(1 if next_halves and all(s[a] == 1 for s in seen) else 3 for a in range(len(strides[0]))))
    return tuple(kernels)


def check_strides(channels: Sequence[int], strides: Sequence[Sequence[int]], dims: int) -> None:
    """Refuse channels and strides that describe no network of `dims` dimensions.

    Raises:
        NetworkError: no level, different lengths, a stride of another dimension or below 1.
    """
    if dims not in CONVOLUTIONS:
        raise NetworkError(f"a network has 2 or 3 dimensions, not {dims}")
    if not channels or len(channels) != len(strides):
        raise NetworkError(f"{len(channels)} channels and {len(strides)} strides: give one of each for every level")
    if min(channels) < 1:
        raise NetworkError(f"channels {tuple(channels)}: each level needs at least 1")
    for stride in strides:
        if len(stride) != dims or min(stride) < 1:
            raise NetworkError(f"stride {tuple(stride)} does not fit: give {dims} whole numbers from 1 on")


def convolution(
    inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int], *, bias: bool, groups: int = 1
) -> nn.Module:
    """A convolution with odd kernels that turns n voxels into ceil(n / stride).

    Where a step is wider than the kernel, the kernel grows so that no voxel is skipped.
    """
    sizes = tuple(max(k, 2 * s - 1) for k, s in zip(kernel, stride, strict=True))
    padding = tuple(size // 2 for size in sizes)
    return CONVOLUTIONS[len(sizes)](inputs, outputs, sizes, tuple(stride), padding, groups=groups, bias=bias)


class Merge(nn.Module):
    """A convolution of each block of `stride` voxels to one, n voxels to ceil(n / stride).

    It does the work of an average pooling and a 1 x 1 convolution; PyTorch has no pooling in bf16 on a CPU.
    """

    def __init__(self, inputs: int, outputs: int, stride: Sequence[int], *, bias: bool = False) -> None:
        super().__init__()
        self.stride = tuple(stride)
        self.conv = CONVOLUTIONS[len(stride)](inputs, outputs, self.stride, self.stride, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, inputs, *spatial) -> (B, outputs, *strided)."""
        missing = [-size % step for size, step in zip(features.shape[2:], self.stride, strict=True)]
        if any(missing):
            features = F.pad(features, [n for size in reversed(missing) for n in (0, size)])
        return self.conv(features)


class InstanceNorm(nn.Module):
    """Instance normalisation in 2D and 3D that keeps the channels-last layout on a CPU.

    PyTorch's own gives a contiguous result for a channels-last feature map and takes 2.5 times as long there
    (26 against 10 ms forward and backward, 2 x 32 x 48^3 in bf16). Normalising one image at a time is batch
    normalisation, which has a kernel for that layout.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, C, *spatial) -> the same shape, each channel of each image with mean 0 and SD 1."""
        if features.device.type != "cpu" or features.is_contiguous():
            return F.instance_norm(features, weight=self.weight, bias=self.bias, eps=EPSILON)
        images = features.split(1)
        return torch.cat([F.batch_norm(i, None, None, self.weight, self.bias, True, 0.0, EPSILON) for i in images])


def normalisation(norm: Norm, channels: int, dims: int) -> nn.Module:
    """The normalisation of a block, with a learnt scale and shift; `none` leaves the maps as they are.

    Raises:
        NetworkError: `norm` is not known.
    """
    if norm == "instance":
        return InstanceNorm(channels)
    if norm == "batch":
        return BATCH_NORMS[dims](channels)
    if norm == "group":
        # a group of one channel would be instance normalisation by another name
        groups = 1 if channels % 2 else math.gcd(GROUPS, channels // 2)
        return nn.GroupNorm(groups, channels)
    if norm == "none":
        return nn.Identity()
    raise NetworkError(f"no normalisation '{norm}': choose instance, batch, group or none")


def activation() -> nn.Module:
    """LeakyReLU in place, so that backward keeps one tensor for it and the convolution that follows."""
    return nn.LeakyReLU(SLOPE, inplace=True)


class ConvBlock(nn.Sequential):
    """Convolution, normalisation, LeakyReLU, dropout of whole feature maps.

    The convolution has no bias, as the normalisation that follows would take it away; with norm `none` it has one.
    Neighbouring voxels are too alike for dropout to take them one by one.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        dims = len(kernel)
        super().__init__()
        self.conv = convolution(inputs, outputs, kernel, stride, bias=norm == "none")
        self.norm = normalisation(norm, outputs, dims)
        self.act = activation()
        if dropout:
            self.drop = DROPOUTS[dims](dropout)


class InvertedBottleneck(nn.Module):
    """A convolution of each map by itself, then two of 1 x 1 that widen the maps and narrow them, beside a shortcut.

    Where size or width change, the shortcut is a strided convolution of 1 x 1. On a CPU the convolution of each map
    is computed in fp32 where torch 2.13 is slow in bf16: in 3D (forward and backward of 2 x 16 x 48^3, channels-last,
    0.09 s against 0.66) and where it is transposed (2 x 32 x 24^3: 0.15 s against 0.59).

    Args:
        inputs, outputs: feature maps.
        kernel: odd, of the convolution of each map.
        stride: of the same.
        expansion: `expansion x inputs` maps lie between the two convolutions of 1 x 1.
        act: between them.
        norm: after the convolution of each map.
        dropout: of what is added to the shortcut.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        expansion: int,
        act: nn.Module,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dims, inner = len(kernel), expansion * inputs
        self.depthwise = self.each_map(inputs, kernel, stride, bias=norm == "none")
        self.norm = normalisation(norm, inputs, dims)
        self.expand = CONVOLUTIONS[dims](inputs, inner, 1)
        self.act = act
        self.compress = CONVOLUTIONS[dims](inner, outputs, 1)
        self.drop: nn.Module = DROPOUTS[dims](dropout) if dropout else nn.Identity()
        changed = inputs != outputs or max(stride) > 1
        self.shortcut = self.changed(inputs, outputs, stride) if changed else nn.Identity()

    def each_map(self, maps: int, kernel: Sequence[int], stride: Sequence[int], *, bias: bool) -> nn.Module:
        """The convolution of each map by itself."""
        return convolution(maps, maps, kernel, stride, bias=bias, groups=maps)

    def changed(self, inputs: int, outputs: int, stride: Sequence[int]) -> nn.Module:
        """The shortcut where size or width change."""
        return CONVOLUTIONS[len(stride)](inputs, outputs, 1, tuple(stride))

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, inputs, *spatial) -> (B, outputs, *strided)."""
        slow = features.dim() == SOLID or isinstance(self.depthwise, nn.ConvTranspose2d)
        in_fp32 = slow and _in_bf16_on_cpu(features)
        maps = _in_fp32(self.depthwise, features) if in_fp32 else self.depthwise(features)
        inner = self.act(self.expand(self.norm(maps)))
        return self.shortcut(features) + self.drop(self.compress(inner))


def initialise(network: nn.Module) -> None:
    """Draw the weights of every convolution as He et al. 2015 (eq. 15) do, biases 0, from torch's generator."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def run_checkpointed(module: nn.Module, *inputs: Tensor) -> Tensor:
    """`module(*inputs)` whose inner activations are computed again in backward instead of being kept.

    Values, gradients, dropout masks and batch statistics are those of the plain call.
    """
    if not torch.is_grad_enabled():
        return module(*inputs)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _statistics_held(module)

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_held(module: nn.Module) -> Iterator[None]:
    """Keeps batch normalisation from counting a batch twice when its activations are computed again."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches

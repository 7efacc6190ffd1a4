"""Image -> feature maps, finest first: plain, residual and dense, in 2 and 3 dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.blocks import (
    ConvBlock,
    Merge,
    Norm,
    Strides,
    activation,
    check_strides,
    convolution,
    initialise,
    kernels_for,
    normalisation,
    run_checkpointed,
)

DEEP = 2  # coarsest levels, to which `deep_dropout` applies


class Encoder(nn.Module):
    """Image (B, C, *spatial) -> one feature map a level, finest first.

    A subclass fills `levels` with one module a level, which takes the map of the level before (the first: the
    image). What follows an encoder sizes itself from what the encoder declares.

    Attributes:
        in_channels: channels of the image.
        channels: feature maps of each level.
        strides: step of each level, an entry an axis, relative to the level before (the first: to the image).
            A level delivers ceil(n / stride) voxels of n.
        dims: 2 or 3.
        norm, dropout, checkpointing: as built, so that a decoder can match.

    Raises:
        NetworkError: channels, strides and dims do not fit together.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        strides: Sequence[Sequence[int]],
        *,
        dims: int,
        norm: Norm = "instance",
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_strides(channels, strides, dims)
        if in_channels < 1:
            raise NetworkError(f"an image of {in_channels} channels: give at least 1")
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.strides: Strides = tuple(tuple(stride) for stride in strides)
        self.dims = dims
        self.norm = norm
        self.dropout = dropout
        self.checkpointing = checkpointing
        self.levels = nn.ModuleList()

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: (B, in_channels, *spatial) -> a list of (B, channels[i], *spatial_i), finest first.

        Raises:
            NetworkError: the image has other channels or dimensions.
        """
        if image.dim() != self.dims + 2 or image.shape[1] != self.in_channels:
            raise NetworkError(
                f"image of shape {tuple(image.shape)} does not fit: this network takes (B, {self.in_channels}, "
                f"{', '.join('XYZ'[: self.dims])})"
            )
        features = []
        for level in self.levels:
            image = run_checkpointed(level, image) if self.checkpointing else level(image)
            features.append(image)
        return features


class PyramidEncoder(Encoder):
    """An encoder whose levels are all of one kind, `level(inputs, outputs, kernel, stride, blocks=...)`.

    Args (beside those of `Encoder`):
        blocks: convolutions, residual blocks or dense layers a level.
        deep_dropout: of the two coarsest levels, where it is larger than `dropout`.
    """

    level: type[PlainLevel] | type[ResidualLevel] | type[DenseLevel]

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        strides: Sequence[Sequence[int]],
        *,
        dims: int,
        blocks: int = 2,
        norm: Norm = "instance",
        dropout: float = 0.0,
        deep_dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            in_channels, channels, strides, dims=dims, norm=norm, dropout=dropout, checkpointing=checkpointing
        )
        if blocks < 1:
            raise NetworkError(f"{blocks} blocks a level: give at least 1")
        inputs, shapes = in_channels, zip(self.channels, kernels_for(self.strides), self.strides, strict=True)
        for number, (outputs, kernel, stride) in enumerate(shapes):
            lost = max(dropout, deep_dropout) if number >= len(self.channels) - DEEP else dropout
            self.levels.append(self.level(inputs, outputs, kernel, stride, blocks=blocks, norm=norm, dropout=lost))
            inputs = outputs
        initialise(self)


class PlainLevel(nn.Sequential):
    """`blocks` convolutions with normalisation and LeakyReLU, the first of them strided."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        blocks: int = 2,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        once = (1,) * len(kernel)
        first = ConvBlock(inputs, outputs, kernel, stride, norm=norm, dropout=dropout)
        rest = [ConvBlock(outputs, outputs, kernel, once, norm=norm, dropout=dropout) for _ in range(blocks - 1)]
        super().__init__(first, *rest)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; where size or width change, the shortcut merges voxels by a convolution.

    Source: He et al. 2016, arXiv 1512.03385, fig. 2; that the shortcut sees every voxel: He et al. 2019,
    arXiv 1812.01187, fig. 2c.
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
        super().__init__()
        self.first = ConvBlock(inputs, outputs, kernel, stride, norm=norm, dropout=dropout)
        self.conv = convolution(outputs, outputs, kernel, (1,) * len(kernel), bias=norm == "none")
        self.norm = normalisation(norm, outputs, len(kernel))
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or max(stride) > 1:
            self.shortcut = nn.Sequential(Merge(inputs, outputs, stride), normalisation(norm, outputs, len(kernel)))
        self.act = activation()

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, inputs, *spatial) -> (B, outputs, *strided)."""
        return self.act(self.norm(self.conv(self.first(features))) + self.shortcut(features))


class ResidualLevel(nn.Sequential):
    """`blocks` residual blocks, the first of them strided."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        blocks: int = 2,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        once = (1,) * len(kernel)
        first = ResidualBlock(inputs, outputs, kernel, stride, norm=norm, dropout=dropout)
        rest = [ResidualBlock(outputs, outputs, kernel, once, norm=norm, dropout=dropout) for _ in range(blocks - 1)]
        super().__init__(first, *rest)


class DenseLevel(nn.Module):
    """A strided transition, `blocks` layers that each add feature maps to all before, a 1 x 1 convolution.

    Each layer adds half of `outputs`. A map is normalised once, where it is made; the original does it again
    in each layer that reads it.

    Source: Huang et al. 2017, arXiv 1608.06993.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        blocks: int = 2,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        once = (1,) * len(kernel)
        growth = max(1, outputs // 2)
        self.transition: nn.Module = nn.Identity()
        if max(stride) > 1:
            self.transition = nn.Sequential(
                Merge(inputs, growth, stride, bias=norm == "none"),
                normalisation(norm, growth, len(kernel)),
                activation(),
            )
            inputs = growth
        widths = [inputs + growth * layer for layer in range(blocks + 1)]
        self.layers = nn.ModuleList(
            ConvBlock(width, growth, kernel, once, norm=norm, dropout=dropout) for width in widths[:-1]
        )
        self.compress = ConvBlock(widths[-1], outputs, once, once, norm=norm)

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, inputs, *spatial) -> (B, outputs, *strided)."""
        features = self.transition(features)
        for layer in self.layers:
            features = torch.cat([features, layer(features)], dim=1)
        return self.compress(features)


class PlainEncoder(PyramidEncoder):
    """Strided convolutions, as nnU-Net: Isensee et al. 2021, Nat Methods 18:203."""

    level = PlainLevel


class ResidualEncoder(PyramidEncoder):
    """Residual blocks, as nnU-Net's ResEnc: Isensee et al. 2024, arXiv 2404.09556."""

    level = ResidualLevel


class DenseEncoder(PyramidEncoder):
    """Dense blocks and transitions, as DenseNet: Huang et al. 2017, arXiv 1608.06993."""

    level = DenseLevel

"""Feature maps -> decoded feature maps, finest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.blocks import (
    CONVOLUTIONS,
    TRANSPOSED,
    ConvBlock,
    Norm,
    check_strides,
    initialise,
    kernels_for,
    run_checkpointed,
)

Upsampling = Literal["transposed", "interpolate"]
LINEAR = {2: "bilinear", 3: "trilinear"}


class DecoderLevel(nn.Module):
    """Upsample the coarser map, join the encoder's map, convolve.

    Args:
        inputs: feature maps of the coarser level.
        outputs: of this level, in the encoder too.
        kernel: of this level.
        stride: from this level to the coarser one.
        blocks, norm, upsampling, dropout: as for `UNetDecoder`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        blocks: int,
        norm: Norm,
        upsampling: Upsampling,
        dropout: float,
    ) -> None:
        super().__init__()
        self.up = upsampler(inputs, outputs, stride, upsampling)
        widths, once = [2 * outputs] + [outputs] * blocks, (1,) * len(kernel)
        self.convolve = nn.Sequential(
            *(ConvBlock(wide, narrow, kernel, once, norm=norm, dropout=dropout) for wide, narrow in pairwise(widths))
        )

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """coarse: (B, channels[i + 1], *spatial_(i+1)); skip: (B, channels[i], *spatial_i) -> as skip."""
        return self.convolve(torch.cat([self.up(coarse), skip], dim=1))


class UNetDecoder(nn.Module):
    """The expanding path of a U-Net: from each level to the next finer one, joined with the encoder's map.

    `UNetDecoder(encoder.channels, encoder.strides, dims=encoder.dims)` fits its encoder by construction. Level i
    delivers `channels[i]` maps; the coarsest level has nothing to decode. An encoder of one level is given back
    as it is.

    Args:
        channels: of the encoder's levels, finest first.
        strides: of the encoder's levels, an entry per axis.
        dims: 2 or 3.
        blocks: convolutions a level.
        norm: normalisation.
        upsampling: `transposed` convolution, or linear interpolation (`interpolate`) after a 1 x 1 convolution.
        dropout: probability that a feature map is dropped after a convolution.
        checkpointing: compute activations again in backward instead of keeping them.

    Raises:
        NetworkError: channels, strides and dims do not fit together, or a name is not known.

    Source: Ronneberger et al. 2015, arXiv 1505.04597.
    """

    level: Callable[..., nn.Module] = DecoderLevel

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[Sequence[int]],
        *,
        dims: int,
        blocks: int = 2,
        norm: Norm = "instance",
        upsampling: Upsampling = "transposed",
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_strides(channels, strides, dims)
        if blocks < 1:
            raise NetworkError(f"{blocks} blocks per level of the decoder: give at least 1")
        self.checkpointing = checkpointing
        steps = tuple(tuple(stride) for stride in strides)
        self.levels = nn.ModuleList()
        for fine, kernel in enumerate(kernels_for(steps)[:-1]):
            level = self.level(
                *(channels[fine + 1], channels[fine], kernel, steps[fine + 1]),
                blocks=blocks,
                norm=norm,
                upsampling=upsampling,
                dropout=dropout,
            )
            self.levels.append(level)
        initialise(self)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Decode an encoder's feature maps.

        Args:
            features: (B, channels[i], *spatial_i), finest first.

        Returns:
            (B, channels[i], *spatial_i) of every level but the coarsest, finest first.
        """
        decoded = [features[-1]]
        for level, skip in zip(reversed(self.levels), reversed(features[:-1]), strict=True):
            coarse = decoded[-1]
            decoded.append(run_checkpointed(level, coarse, skip) if self.checkpointing else level(coarse, skip))
        return decoded[:0:-1] or decoded


def upsampler(inputs: int, outputs: int, stride: Sequence[int], upsampling: Upsampling) -> nn.Module:
    """What makes `stride` voxels of one along each axis, and `outputs` channels of `inputs`.

    Raises:
        NetworkError: `upsampling` is not known.
    """
    stride = tuple(stride)
    if upsampling == "transposed":
        return TRANSPOSED[len(stride)](inputs, outputs, stride, stride)
    if upsampling == "interpolate":
        return Interpolate(inputs, outputs, stride)
    raise NetworkError(f"no upsampling '{upsampling}': choose transposed or interpolate")


class Interpolate(nn.Module):
    """A 1 x 1 convolution, then linear interpolation; in this order the convolution sees fewer voxels."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        self.conv = CONVOLUTIONS[len(stride)](inputs, outputs, 1)

    def forward(self, coarse: Tensor) -> Tensor:
        """coarse: (B, inputs, *spatial) -> (B, outputs, *spatial x stride)."""
        features = self.conv(coarse)
        size = [n * step for n, step in zip(features.shape[2:], self.stride, strict=True)]
        # autocast interpolates in fp32, and an fp32 map would make all that follows wide
        return F.interpolate(features, size=size, mode=LINEAR[len(size)]).to(features.dtype)

"""ConvNeXt blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from segmed.networks.blocks import InvertedBottleneck, Merge, Norm, activation, convolution, normalisation
from segmed.networks.encoders.base_encoder import PyramidEncoder, RepeatedLevel

WIDE = 7  # voxels of the depthwise kernel
EXPANSION = 4  # of the feature maps inside a block


class ConvNextBlock(InvertedBottleneck):
    """A wide convolution of each map by itself, then two of 1 x 1, beside the identity.

    Source: Liu et al. 2022, arXiv 2201.03545, fig. 4; normalisation and activation are those of
    our other encoders, and there is no layer scale.
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
        wide = tuple(WIDE if size > 1 else 1 for size in kernel)  # 1 across thick slices
        super().__init__(
            inputs, outputs, wide, stride, expansion=EXPANSION, act=activation(), norm=norm, dropout=dropout
        )


class ConvNextStart(nn.Sequential):
    """A normalised convolution to `outputs` maps, which merges voxels where it is strided."""

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
        bias = norm == "none"
        first = (
            Merge(inputs, outputs, stride, bias=bias)
            if max(stride) > 1
            else convolution(inputs, outputs, kernel, stride, bias=bias)
        )
        super().__init__(first, normalisation(norm, outputs, len(kernel)))


class ConvNextLevel(RepeatedLevel):
    """A start without dropout, then `blocks` blocks."""

    start = ConvNextStart
    block = ConvNextBlock


class ConvNextEncoder(PyramidEncoder):
    """ConvNeXt: Liu et al. 2022, arXiv 2201.03545."""

    level = ConvNextLevel

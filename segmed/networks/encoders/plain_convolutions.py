"""Strided convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from segmed.networks.blocks import ConvBlock, Norm
from segmed.networks.encoders.base_encoder import PyramidEncoder


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


class PlainEncoder(PyramidEncoder):
    """Strided convolutions, as nnU-Net: Isensee et al. 2021, Nat Methods 18:203."""

    level = PlainLevel

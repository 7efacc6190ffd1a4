"""Residual blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segmed.networks.blocks import ConvBlock, Merge, Norm, activation, convolution, normalisation
from segmed.networks.encoders.base_encoder import PyramidEncoder, RepeatedLevel


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


class ResidualLevel(RepeatedLevel):
    """`blocks` residual blocks, the first of them strided."""

    block = ResidualBlock


class ResidualEncoder(PyramidEncoder):
    """Residual blocks, as nnU-Net's ResEnc: Isensee et al. 2024, arXiv 2404.09556."""

    level = ResidualLevel

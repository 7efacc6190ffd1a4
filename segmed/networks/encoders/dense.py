"""Dense blocks and transitions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segmed.networks.blocks import ConvBlock, Merge, Norm, activation, normalisation
from segmed.networks.encoders.base_encoder import PyramidEncoder


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


class DenseEncoder(PyramidEncoder):
    """Dense blocks and transitions, as DenseNet: Huang et al. 2017, arXiv 1608.06993."""

    level = DenseLevel

"""ConvNeXt blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segmed.networks.blocks import CONVOLUTIONS, DROPOUTS, Merge, Norm, activation, convolution, normalisation
from segmed.networks.encoders.base_encoder import PyramidEncoder

WIDE = 7  # voxels of the depthwise kernel
EXPANSION = 4  # of the feature maps inside a block


class ConvNextBlock(nn.Module):
    """A wide convolution of each map by itself, then two of 1 x 1, beside the identity.

    Source: Liu et al. 2022, arXiv 2201.03545, fig. 4; normalisation and activation are those of
    our other encoders, and there is no layer scale.
    """

    def __init__(self, channels: int, kernel: Sequence[int], *, norm: Norm = "instance", dropout: float = 0.0) -> None:
        super().__init__()
        dims = len(kernel)
        wide = tuple(WIDE if size > 1 else 1 for size in kernel)  # 1 across thick slices
        padding = tuple(size // 2 for size in wide)
        inner = EXPANSION * channels
        self.depthwise = CONVOLUTIONS[dims](
            channels, channels, wide, padding=padding, groups=channels, bias=norm == "none"
        )
        self.norm = normalisation(norm, channels, dims)
        self.expand = CONVOLUTIONS[dims](channels, inner, 1)
        self.act = activation()
        self.compress = CONVOLUTIONS[dims](inner, channels, 1)
        self.drop: nn.Module = DROPOUTS[dims](dropout) if dropout else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, channels, *spatial) -> the same shape."""
        inner = self.act(self.expand(self.norm(self.depthwise(features))))
        return features + self.drop(self.compress(inner))


class ConvNextLevel(nn.Sequential):
    """A normalised convolution to `outputs` maps, which merges voxels where it is strided; then `blocks` blocks."""

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
        bias = norm == "none"
        strided = max(stride) > 1
        first = (
            Merge(inputs, outputs, stride, bias=bias)
            if strided
            else convolution(inputs, outputs, kernel, stride, bias=bias)
        )
        start = nn.Sequential(first, normalisation(norm, outputs, len(kernel)))
        rest = [ConvNextBlock(outputs, kernel, norm=norm, dropout=dropout) for _ in range(blocks)]
        super().__init__(start, *rest)


class ConvNextEncoder(PyramidEncoder):
    """ConvNeXt: Liu et al. 2022, arXiv 2201.03545."""

    level = ConvNextLevel

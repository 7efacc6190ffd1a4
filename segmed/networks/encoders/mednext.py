"""MedNeXt blocks, and the decoder that is made of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segmed.networks.blocks import TRANSPOSED, InvertedBottleneck, Merge, Norm
from segmed.networks.decoders import UNetDecoder, Upsampling, upsampler
from segmed.networks.encoders.base_encoder import PyramidEncoder, RepeatedLevel

EXPANSION = 2  # of the feature maps inside a block, as in MedNeXt-S


class MedNextBlock(InvertedBottleneck):
    """A convolution of each map by itself, then two of 1 x 1 with GELU between them, beside a shortcut.

    With norm `instance` its normalisation is the published one, a group for each map.

    Source: Roy et al. 2023, MICCAI, arXiv 2303.09975, fig. 1; strided, its down block.
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
        super().__init__(
            inputs, outputs, kernel, stride, expansion=EXPANSION, act=nn.GELU(), norm=norm, dropout=dropout
        )


class MedNextUpBlock(MedNextBlock):
    """A MedNeXt block whose convolution of each map makes `stride` voxels of one, and its shortcut too."""

    def each_map(self, maps: int, kernel: Sequence[int], stride: Sequence[int], *, bias: bool) -> nn.Module:
        """A transposed convolution of each map by itself, n voxels to n x stride."""
        sizes = tuple(max(k, 2 * s - 1) for k, s in zip(kernel, stride, strict=True))
        padding, more = tuple(size // 2 for size in sizes), tuple(step - 1 for step in stride)
        return TRANSPOSED[len(sizes)](maps, maps, sizes, tuple(stride), padding, more, groups=maps, bias=bias)

    def changed(self, inputs: int, outputs: int, stride: Sequence[int]) -> nn.Module:
        """A transposed convolution of 1 x 1: one voxel of `stride` has its value, the others its bias."""
        more = tuple(step - 1 for step in stride)
        return TRANSPOSED[len(stride)](inputs, outputs, 1, tuple(stride), 0, more)


class MedNextStart(nn.Sequential):
    """The down block of a strided level; a convolution of 1 x 1 where nothing is strided.

    A block that would be narrower inside than what it delivers (an image of one channel has no maps to convolve
    apart) gives way to one convolution that merges voxels.
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
        if max(stride) == 1 or EXPANSION * inputs < outputs:
            super().__init__(Merge(inputs, outputs, stride, bias=True))
        else:
            super().__init__(MedNextBlock(inputs, outputs, kernel, stride, norm=norm, dropout=dropout))


class MedNextLevel(RepeatedLevel):
    """A start, then `blocks` blocks."""

    start = MedNextStart
    block = MedNextBlock


class MedNextDecoderLevel(nn.Module):
    """An up block, the encoder's map added to what it gives, then `blocks` blocks.

    Args:
        inputs: feature maps of the coarser level.
        outputs: of this level, in the encoder too.
        kernel: of this level.
        stride: from this level to the coarser one.
        upsampling: `transposed` is the up block; `interpolate` has no block.
        blocks, norm, dropout: as for `UNetDecoder`.
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
        once = (1,) * len(kernel)
        self.up = (
            MedNextUpBlock(inputs, outputs, kernel, stride, norm=norm, dropout=dropout)
            if upsampling == "transposed"
            else upsampler(inputs, outputs, stride, upsampling)
        )
        self.convolve = nn.Sequential(
            *(MedNextBlock(outputs, outputs, kernel, once, norm=norm, dropout=dropout) for _ in range(blocks))
        )

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """coarse: (B, inputs, *spatial_(i+1)); skip: (B, outputs, *spatial_i) -> as skip."""
        return self.convolve(self.up(coarse) + skip)


class MedNextDecoder(UNetDecoder):
    """The expanding path of MedNeXt."""

    level = MedNextDecoderLevel


class MedNextEncoder(PyramidEncoder):
    """MedNeXt with kernels of 3, of the size S with two blocks a level: Roy et al. 2023, MICCAI, arXiv 2303.09975.

    Kernels of 5 that start from trained ones of 3, and the wider blocks of the sizes B, M and L, are not here.
    Across slices that are still too thick kernels are 1, as in our other encoders.
    """

    level = MedNextLevel
    decoder = MedNextDecoder

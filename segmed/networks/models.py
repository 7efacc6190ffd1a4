"""Image -> logits: an encoder, a decoder and heads, composed on one page."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.blocks import CONVOLUTIONS, initialise
from segmed.networks.decoders import LINEAR, Upsampling
from segmed.networks.encoders.base_encoder import Encoder


class SegmentationModel(nn.Module, ABC):
    """Whatever turns an image into logits: ours and MONAI's networks behave alike.

    Attributes:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, background included.
        divisor: an entry per axis; the image's size must be a multiple.
        supervised_levels: how many logits a member gives in `all_logits`, for `DeepSupervisionLoss`.
        members: how many networks it is made of.
        smallest_map: voxels that the coarsest map needs at least.
    """

    def __init__(self, in_channels: int, out_channels: int, divisor: tuple[int, ...], *, smallest_map: int = 1) -> None:
        super().__init__()
        if out_channels < 2:
            raise NetworkError(f"{out_channels} classes: give at least 2, background included")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.divisor = divisor
        self.dims = len(divisor)
        self.supervised_levels = self.members = 1
        self.smallest_map = smallest_map

    @abstractmethod
    def all_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of every supervised level, of one member after the other.

        Args:
            image: (B, in_channels, *spatial).

        Returns:
            (B, out_channels, *spatial_i), finest first; of a single network the first is `forward(image)`.

        Raises:
            NetworkError: the image does not fit the network.
        """

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) -> logits (B, out_channels, *spatial).

        Raises:
            NetworkError: the image does not fit the network.
        """
        return self.all_logits(image)[0]

    def check_image(self, image: Tensor) -> None:
        """Refuse an image that the network can't take.

        Raises:
            NetworkError: other channels or dimensions, or a size that is no multiple of `divisor`.
        """
        shape = tuple(image.shape)
        if image.dim() != self.dims + 2 or image.shape[1] != self.in_channels:
            axes = ", ".join("XYZ"[: self.dims])
            raise NetworkError(f"image of shape {shape} does not fit: give (B, {self.in_channels}, {axes})")
        size = shape[2:]
        coarsest = [math.ceil(n / d) for n, d in zip(size, self.divisor, strict=True)]
        if any(n % d for n, d in zip(size, self.divisor, strict=True)):
            fitting = tuple(n * d for n, d in zip(coarsest, self.divisor, strict=True))
            raise NetworkError(
                f"image of size {size} does not fit: sizes must be multiples of {self.divisor}, such as {fitting}"
            )
        if math.prod(coarsest) < self.smallest_map:
            larger = (*size[:-1], self.smallest_map * self.divisor[-1])
            raise NetworkError(
                f"image of size {size} leaves {math.prod(coarsest)} voxel at the coarsest level, too few to be "
                f"normalised: give a larger one, such as {larger}"
            )


class SegmentationNet(SegmentationModel):
    """A U-Net around any encoder: `heads[0](decoder(encoder(image))[0])`.

    Args:
        encoder: its channels, strides, normalisation and dropout size what follows.
        out_channels: classes, background included.
        upsampling: of the decoder, `transposed` or `interpolate`.
        deep_supervision: heads at coarser levels too, all but the two coarsest, as in nnU-Net.
        decoder_blocks: convolutions a level of the decoder.

    Raises:
        NetworkError: fewer than two classes.
    """

    def __init__(
        self,
        encoder: Encoder,
        out_channels: int,
        *,
        upsampling: Upsampling = "transposed",
        deep_supervision: bool = True,
        decoder_blocks: int = 2,
    ) -> None:
        divisor = tuple(math.prod(steps) for steps in zip(*encoder.strides, strict=True))
        super().__init__(
            encoder.in_channels, out_channels, divisor, smallest_map=2 if encoder.norm == "instance" else 1
        )
        self.encoder = encoder
        self.decoder = encoder.decoder(
            encoder.channels,
            encoder.strides,
            dims=encoder.dims,
            blocks=decoder_blocks,
            norm=encoder.norm,
            upsampling=upsampling,
            dropout=encoder.dropout,
            checkpointing=encoder.checkpointing,
        )
        if deep_supervision:
            self.supervised_levels = deep_supervision_levels(len(encoder.channels))
        convolution = CONVOLUTIONS[encoder.dims]
        self.heads = nn.ModuleList(
            convolution(width, out_channels, 1) for width in encoder.channels[: self.supervised_levels]
        )
        initialise(self.heads)

    def decode(self, image: Tensor) -> list[Tensor]:
        """image: (B, in_channels, *spatial) -> decoded maps (B, channels[i], *spatial_i), finest first."""
        self.check_image(image)
        return self.decoder(self.encoder(image))

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) -> logits (B, out_channels, *spatial); see `all_logits`."""
        return _at_size(self.heads[0](self.decode(image)[0]), image)

    def all_logits(self, image: Tensor) -> list[Tensor]:
        """image: (B, in_channels, *spatial) -> logits of each head, finest first, the first at the image's size."""
        return self.head_logits(self.decode(image), image)

    def head_logits(self, maps: Sequence[Tensor], image: Tensor) -> list[Tensor]:
        """Decoded maps and the image that they are of -> logits of each head, as `all_logits` gives them."""
        finest, *coarser = [head(features) for head, features in zip(self.heads, maps, strict=False)]
        return [_at_size(finest, image), *coarser]


def deep_supervision_levels(depth: int) -> int:
    """How many levels of a U-Net of `depth` levels get a head: all but the two coarsest, and the finest always."""
    return max(1, depth - 2)


def _at_size(logits: Tensor, image: Tensor) -> Tensor:
    """Logits at the image's size; only an encoder whose first stride is not 1 leaves anything to do."""
    if logits.shape[2:] == image.shape[2:]:
        return logits
    return F.interpolate(logits, size=image.shape[2:], mode=LINEAR[image.dim() - 2])

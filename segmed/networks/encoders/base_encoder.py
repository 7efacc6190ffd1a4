"""Image -> feature maps, finest first: what every encoder is, in 2 and 3 dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.blocks import Norm, Strides, check_strides, initialise, kernels_for, run_checkpointed
from segmed.networks.decoders import UNetDecoder

DEEP = 2  # coarsest levels, to which `deep_dropout` applies


class Encoder(nn.Module):
    """Image (B, C, *spatial) -> one feature map per level, finest first.

    A subclass fills `levels` with one module per level, which takes the map of the level before (the first: the
    image). What follows an encoder sizes itself from what the encoder declares.

    Attributes:
        in_channels: channels of the image.
        channels: feature maps of each level.
        strides: step of each level, an entry per axis, relative to the level before (the first: to the image).
            A level delivers ceil(n / stride) voxels of n.
        dims: 2 or 3.
        norm, dropout, checkpointing: as built, so that a decoder can match.
        decoder: class of the decoder that belongs to it.

    Raises:
        NetworkError: channels, strides and dims do not fit together.
    """

    decoder: Callable[..., nn.Module] = UNetDecoder

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


class RepeatedLevel(nn.Sequential):
    """`blocks` blocks of one class; the first is strided, or stands behind a `start` that is."""

    block: Callable[..., nn.Module]  # a class
    start: Callable[..., nn.Module] | None = None  # a class; none: the first block

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
        first = (self.start or self.block)(inputs, outputs, kernel, stride, norm=norm, dropout=dropout)
        left = blocks if self.start else blocks - 1
        rest = [self.block(outputs, outputs, kernel, once, norm=norm, dropout=dropout) for _ in range(left)]
        super().__init__(first, *rest)


class PyramidEncoder(Encoder):
    """An encoder whose levels are all of one kind, `level(inputs, outputs, kernel, stride, blocks=...)`.

    Args (beside those of `Encoder`):
        blocks: convolutions, residual blocks or dense layers a level.
        deep_dropout: of the two coarsest levels, where it is larger than `dropout`.
    """

    level: Callable[..., nn.Module]  # a class

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
            raise NetworkError(f"{blocks} blocks per level: give at least 1")
        inputs, shapes = in_channels, zip(self.channels, kernels_for(self.strides), self.strides, strict=True)
        for number, (outputs, kernel, stride) in enumerate(shapes):
            lost = max(dropout, deep_dropout) if number >= len(self.channels) - DEEP else dropout
            self.levels.append(self.level(inputs, outputs, kernel, stride, blocks=blocks, norm=norm, dropout=lost))
            inputs = outputs
        initialise(self)

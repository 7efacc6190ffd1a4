"""Image -> logits of classes: an encoder, a pooling, a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.encoders.base_encoder import Encoder

Pooling = Literal["average", "max", "attention"]
ATTENTION_WIDTH = 128  # features inside the attention, as in its source; fewer where the map has fewer


class ClassificationModel(nn.Module, ABC):
    """Whatever turns an image into logits of classes; a subclass gives `classify`.

    Attributes:
        in_channels: channels of the image.
        classes: 2 or more.
        dims: 2 or 3.
        map_layer: dotted name of the module whose feature map (B, C, *spatial) Grad-CAM shows; "" where there is none.
        smallest: voxels that every axis of the image needs at least.
        size: the only size of image that fits, an entry per axis; none: any from `smallest` on.

    Raises:
        NetworkError: fewer than two classes, no channel, or another number of dimensions.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        dims: int,
        map_layer: str = "",
        smallest: int = 1,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if dims not in (2, 3):
            raise NetworkError(f"a network has 2 or 3 dimensions, not {dims}")
        if classes < 2:
            raise NetworkError(f"{classes} classes: give at least 2")
        if in_channels < 1:
            raise NetworkError(f"an image of {in_channels} channels: give at least 1")
        if size is not None and (len(size) != dims or min(size) < smallest):
            raise NetworkError(
                f"images of size {tuple(size)}: this network takes {dims} axes of {smallest} voxels or more"
            )
        self.in_channels = in_channels
        self.classes = classes
        self.dims = dims
        self.map_layer = map_layer
        self.smallest = smallest
        self.size = None if size is None else tuple(size)

    @abstractmethod
    def classify(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) of a size that fits -> logits (B, classes)."""

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) -> logits (B, classes).

        Raises:
            NetworkError: the image does not fit, or leaves batch or instance normalisation a single value.
        """
        self.check_image(image)
        try:
            return self.classify(image)
        except ValueError as error:
            if not str(error).startswith("Expected more than 1"):  # torch's words
                raise
            raise NetworkError(
                f"images of size {tuple(image.shape[2:])} in a batch of {len(image)} leave one voxel, too few to be "
                "normalised: give larger images or, with batch normalisation, more a batch"
            ) from error

    def check_image(self, image: Tensor) -> None:
        """Refuse an image that the network can't take.

        Raises:
            NetworkError: other channels or dimensions, too few voxels, or another size than the fixed one.
        """
        shape = tuple(image.shape)
        if image.dim() != self.dims + 2 or image.shape[1] != self.in_channels:
            axes = ", ".join("XYZ"[: self.dims])
            raise NetworkError(f"image of shape {shape} does not fit: give (B, {self.in_channels}, {axes})")
        if self.size is not None and shape[2:] != self.size:
            raise NetworkError(f"image of size {shape[2:]} does not fit: this network was built for {self.size}")
        if min(shape[2:]) < self.smallest:
            raise NetworkError(f"image of size {shape[2:]} is too small: give {self.smallest} voxels per axis or more")


class Classifier(ClassificationModel):
    """A pooling and a linear head on any encoder: `head(dropout(pooling(encoder(image)[-1])))`.

    Args:
        encoder: the same as a `SegmentationNet` takes, so that weights move between the two.
        classes: 2 or more.
        pooling: of the coarsest feature map, `average`, `max` or `attention`.
        dropout: of the pooled features.

    Raises:
        NetworkError: fewer than two classes, or a pooling that is not known.
    """

    def __init__(self, encoder: Encoder, classes: int, *, pooling: Pooling = "average", dropout: float = 0.0) -> None:
        last = len(encoder.channels) - 1
        super().__init__(encoder.in_channels, classes, dims=encoder.dims, map_layer=f"encoder.levels.{last}")
        if pooling not in POOLINGS:
            raise NetworkError(f"no pooling '{pooling}': choose {', '.join(POOLINGS)}")
        self.encoder = encoder
        self.pooling = POOLINGS[pooling](encoder.channels[-1])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.channels[-1], classes)

    def classify(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) -> logits (B, classes)."""
        return self.head(self.dropout(self.pooling(self.encoder(image)[-1])))


class AveragePooling(nn.Module):
    """The mean over the voxels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, C, *spatial) -> (B, C)."""
        return features.flatten(2).mean(2)


class MaxPooling(nn.Module):
    """The largest of the voxels of a map, for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, C, *spatial) -> (B, C)."""
        return features.flatten(2).amax(2)


class AttentionPooling(nn.Module):
    """The mean over the voxels, weighted by a gated attention that is learnt: where to look.

    Source: Ilse et al. 2018, arXiv 1802.04712, eq. 7 and 9, a voxel in the place of an instance of a bag.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = min(ATTENTION_WIDTH, channels)
        self.value = nn.Linear(channels, width)
        self.gate = nn.Linear(channels, width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, C, *spatial) -> (B, C)."""
        voxels = features.flatten(2).transpose(1, 2)
        return (self._weights(voxels).to(voxels.dtype).transpose(1, 2) @ voxels)[:, 0]

    def weights(self, features: Tensor) -> Tensor:
        """features: (B, C, *spatial) -> the share of each voxel (B, *spatial); the shares of an image add to 1."""
        voxels = features.flatten(2).transpose(1, 2)
        return self._weights(voxels).reshape(len(features), *features.shape[2:])

    def _weights(self, voxels: Tensor) -> Tensor:
        """voxels: (B, N, C) -> (B, N, 1), in fp32: thousands of shares in bf16 would not add to 1."""
        scores = self.score(torch.tanh(self.value(voxels)) * torch.sigmoid(self.gate(voxels)))
        return scores.float().softmax(1)


POOLINGS: dict[str, Callable[[int], nn.Module]] = {
    "average": AveragePooling,
    "max": MaxPooling,
    "attention": AttentionPooling,
}

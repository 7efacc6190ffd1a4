"""Image -> label map and class: a decoder and a pooling on one encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.classifiers import POOLINGS, Pooling
from segmed.networks.encoders.base_encoder import Encoder
from segmed.networks.models import SegmentationNet


class SegmentationAndClass(SegmentationNet):
    """A `SegmentationNet` with a second head for the class of the image, as a `Classifier` has it.

    Called, it segments: whatever takes a segmentation network takes this one. Weights of the segmentation have the
    names, and at the same seed the values, that they have without the second head.

    Args:
        encoder: that both heads share.
        out_channels: classes of voxels, background included.
        classes: of the image, 2 or more.
        pooling: of the coarsest feature map, `average`, `max` or `attention`.
        dropout: of the pooled features.
        decoder: further options of `SegmentationNet`.

    Raises:
        NetworkError: fewer than two classes of either kind, or a pooling that is not known.
    """

    def __init__(
        self,
        encoder: Encoder,
        out_channels: int,
        classes: int,
        *,
        pooling: Pooling = "average",
        dropout: float = 0.0,
        **decoder: Any,
    ) -> None:
        super().__init__(encoder, out_channels, **decoder)
        if classes < 2:
            raise NetworkError(f"{classes} classes of the image: give at least 2")
        if pooling not in POOLINGS:
            raise NetworkError(f"no pooling '{pooling}': choose {', '.join(POOLINGS)}")
        self.classes = classes
        self.class_pooling = POOLINGS[pooling](encoder.channels[-1])
        self.class_dropout = nn.Dropout(dropout)
        self.class_head = nn.Linear(encoder.channels[-1], classes)

    def classify(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) -> logits of its class (B, classes); the decoder is not used."""
        self.check_image(image)
        return self._class_logits(self.encoder(image)[-1])

    def both(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """image: (B, in_channels, *spatial) -> what `all_logits` and what `classify` give, by one pass of the encoder.

        Raises:
            NetworkError: the image does not fit the network.
        """
        self.check_image(image)
        features = self.encoder(image)
        return self.head_logits(self.decoder(features), image), self._class_logits(features[-1])

    def _class_logits(self, coarsest: Tensor) -> Tensor:
        return self.class_head(self.class_dropout(self.class_pooling(coarsest)))

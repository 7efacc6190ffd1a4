"""Networks and losses that a config can name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from segmed.config.base import Auto, Fraction, Positive, Section, Width
from segmed.config.encoder import EncoderConfig, Strides


class UNetConfig(Section):
    """U-Net: an encoder of ours, skips, a decoder."""

    name: Literal["unet"] = "unet"
    encoder: EncoderConfig = EncoderConfig()
    upsampling: Literal["transposed", "interpolate"] = Field("transposed", description="of the decoder")
    deep_supervision: bool = Field(True, description="losses at coarser levels too")
    members: Annotated[int, Field(ge=1, le=16)] = Field(
        1,
        description="U-Nets that learn beside each other from the same patches, each from random weights of its own; "
        "their mean answers, and a step takes as many times as long",
    )


class DynUNetConfig(Section):
    """MONAI's DynUNet, nnU-Net's network."""

    name: Literal["dynunet"] = "dynunet"
    channels: Annotated[tuple[Width, ...], Field(max_length=12)] | Auto = Field(
        "auto", description="feature maps of each level, finest first"
    )
    strides: Strides | Auto = Field("auto", description="step of each level, an entry an axis")


class SegResNetConfig(Section):
    """MONAI's SegResNet."""

    name: Literal["segresnet"] = "segresnet"
    init_filters: Width = Field(16, description="feature maps of the finest level")


class SwinUNETRConfig(Section):
    """MONAI's SwinUNETR; patch sizes must be multiples of 32."""

    name: Literal["swinunetr"] = "swinunetr"
    feature_size: Annotated[int, Field(ge=12, le=4096, multiple_of=12)] = Field(
        24, description="feature maps of the finest level"
    )


class PatchCnnConfig(Section):
    """A CNN that decides on each voxel from the patch around it; mostly for the voxels of a region that is known."""

    name: Literal["patch_cnn"] = "patch_cnn"
    patch: Annotated[int, Field(ge=1, le=512)] = Field(21, description="voxels along an axis; with two levels 13 + 4 n")
    channels: Annotated[tuple[Width, ...], Field(max_length=12)] = Field(
        (32, 48), description="feature maps of each level; a level halves the patch"
    )
    hidden: Width = Field(96, description="features before the decision")
    dropout: Fraction = Field(0.0, description="of these features")


Network = Annotated[
    UNetConfig | DynUNetConfig | SegResNetConfig | SwinUNETRConfig | PatchCnnConfig, Field(discriminator="name")
]


class DiceLossConfig(Section):
    """Soft Dice, over the labels without background."""

    name: Literal["dice"] = "dice"
    batch: bool = Field(True, description="sums run over the batch: a patch without a label does no harm")


class DiceCELossConfig(Section):
    """Soft Dice plus cross-entropy."""

    name: Literal["dice_ce"] = "dice_ce"
    batch: bool = Field(True, description="sums run over the batch")
    ce_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the cross-entropy")
    class_weights: tuple[Positive, ...] | None = Field(
        None, description="of background and labels, in the cross-entropy"
    )


class DiceFocalLossConfig(Section):
    """Soft Dice plus focal loss, a mean over voxels: MONAI's softmax focal, a mean over classes too, × classes."""

    name: Literal["dice_focal"] = "dice_focal"
    batch: bool = Field(True, description="sums run over the batch")
    gamma: Annotated[float, Field(ge=0)] = Field(2.0, description="focus on hard voxels; 0 is cross-entropy")
    class_weights: tuple[Positive, ...] | None = Field(None, description="of background and labels, in the focal loss")


class TverskyLossConfig(Section):
    """Tversky: false positives and false negatives weighed apart."""

    name: Literal["tversky"] = "tversky"
    alpha: Fraction = Field(0.3, description="weight of false positives")
    beta: Fraction = Field(0.7, description="weight of false negatives")
    batch: bool = Field(True, description="sums run over the batch")


class GeneralisedDiceLossConfig(Section):
    """Dice with labels weighted by the inverse square of their volume."""

    name: Literal["generalised_dice"] = "generalised_dice"
    batch: bool = Field(True, description="sums run over the batch")


class TopKCELossConfig(Section):
    """Cross-entropy of the hardest voxels."""

    name: Literal["topk_ce"] = "topk_ce"
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="share of the voxels that count")
    class_weights: tuple[Positive, ...] | None = Field(
        None, description="of background and labels, in the cross-entropy"
    )


Loss = Annotated[
    DiceLossConfig
    | DiceCELossConfig
    | DiceFocalLossConfig
    | TverskyLossConfig
    | GeneralisedDiceLossConfig
    | TopKCELossConfig,
    Field(discriminator="name"),
]

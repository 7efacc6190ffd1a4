"""The adversary of a segmenter: a discriminator, its losses, and how the two sides take turns."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from segmed.config.base import Auto, Count, Fraction, Positive, Section
from segmed.config.encoder import Channels, DiscriminatorEncoderConfig, Norm

Weight = Annotated[float, Field(ge=0)]


class PixelDiscriminatorConfig(Section):
    """Judges every voxel by itself, through 1 x 1 convolutions."""

    name: Literal["pixel"] = "pixel"
    channels: Channels = Field((16, 32), description="feature maps of each layer")
    norm: Norm = Field("none", description="normalisation; spectral norm needs none")
    spectral_norm: bool = Field(True, description="keep each layer's largest gain at 1")
    conditional: bool = Field(True, description="sees the image beside the map")


def _keep_activations(discriminator: Any) -> Any:
    """Refuse to compute activations twice under spectral normalisation, whose estimate each pass moves on."""
    if discriminator.spectral_norm and discriminator.encoder.checkpointing:
        raise ValueError("encoder.checkpointing and spectral_norm exclude each other: leave one out")
    return discriminator


class PatchDiscriminatorConfig(Section):
    """Judges overlapping regions, each by a decision of its own."""

    name: Literal["patch"] = "patch"
    encoder: DiscriminatorEncoderConfig = DiscriminatorEncoderConfig()
    spectral_norm: bool = Field(True, description="keep each layer's largest gain at 1")
    conditional: bool = Field(True, description="sees the image beside the map")

    _not_both = model_validator(mode="after")(_keep_activations)


class ImageDiscriminatorConfig(PatchDiscriminatorConfig):
    """Judges the whole patch of a training step by one decision."""

    name: Literal["image"] = "image"  # type: ignore[assignment]


class SeganCriticConfig(Section):
    """SegAN's multi-scale critic: features of image x map at every level, no decision."""

    name: Literal["segan"] = "segan"
    encoder: DiscriminatorEncoderConfig = DiscriminatorEncoderConfig()
    spectral_norm: bool = Field(True, description="bounds the critic, whose loss has no bound of its own")

    _not_both = model_validator(mode="after")(_keep_activations)


Discriminator = Annotated[
    PixelDiscriminatorConfig | PatchDiscriminatorConfig | ImageDiscriminatorConfig | SeganCriticConfig,
    Field(discriminator="name"),
]


class NoDisguiseConfig(Section):
    """Soft probabilities against one-hot references: the discriminator tells them apart at a glance."""

    name: Literal["none"] = "none"


class SoftenConfig(Section):
    """The reference takes the softness of the result (Luc et al. 2016, arXiv 1611.08408)."""

    name: Literal["soften"] = "soften"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.9, description="least probability of the reference's own class"
    )


class StraightThroughConfig(Section):
    """The result is shown one-hot; gradients pass as if it were soft (Bengio et al. 2013, arXiv 1308.3432)."""

    name: Literal["straight_through"] = "straight_through"


class InstanceNoiseConfig(Section):
    """Gaussian noise on both maps that fades (Sonderby et al. 2016, arXiv 1610.04490)."""

    name: Literal["noise"] = "noise"
    sd: Positive = Field(3.0, description="at the start of the run; below 1 it hides little")
    until: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="share of the run after which there is none")


Disguise = Annotated[
    NoDisguiseConfig | SoftenConfig | StraightThroughConfig | InstanceNoiseConfig, Field(discriminator="name")
]


class UnlabelledConfig(Section):
    """What cases without a label map teach (Hung et al. 2018, arXiv 1802.07934); `data.unlabelled` lists them."""

    weight: Weight = Field(0.01, description="of the adversarial loss on them")
    pseudo_weight: Weight = Field(0.1, description="of the cross-entropy with the generator's own labels")
    confidence: Fraction = Field(0.2, description="own labels count where the discriminator gives at least this")
    start: Fraction = Field(0.5, description="share of the run after which own labels count")


class AdversaryConfig(Section):
    """A discriminator that the segmenter learns to deceive. Without this section training is supervised."""

    discriminator: Discriminator = PatchDiscriminatorConfig()
    loss: Literal["auto", "non_saturating", "least_squares", "hinge", "wasserstein", "segan_l1"] = Field(
        "auto", description="auto: segan_l1 for SegAN's critic, non_saturating for the others"
    )
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="one-sided: the reference's target is 1 less this; non_saturating and least_squares"
    )
    gradient_penalty: Weight | Auto = Field(
        "auto", description="weight (Gulrajani et al. 2017); auto: 10 for wasserstein, else 0"
    )
    r1: Weight = Field(0.0, description="weight of the penalty on the gradient at references (Mescheder et al. 2018)")
    disguise: Disguise = StraightThroughConfig()
    segmentation_weight: Weight = Field(1.0, description="of the supervised loss")
    weight: Weight = Field(0.1, description="of the adversarial loss; 10 : 1 as in Son et al. 2017, arXiv 1706.09318")
    feature_matching: Weight = Field(0.0, description="of matching the discriminator's features (Salimans et al. 2016)")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.25, description="share of the run in which the generator trains supervised alone"
    )
    ratio: float = Field(
        1.0, description="steps of the discriminator for each of the generator: 1, 2, 3, ... or 0.5 (every second), ..."
    )
    optimiser: Literal["adamw", "adam", "sgd"] = Field(
        "adamw", description="of the discriminator; adamw and adam with betas 0.5, 0.999"
    )
    learning_rate: Positive = Field(1e-3, description="peak, of the discriminator; it follows train.schedule")
    unlabelled: UnlabelledConfig = UnlabelledConfig()
    watch_steps: Count = Field(
        200, description="the log warns when the discriminator's mean accuracy over so many steps says won or lost"
    )

    @field_validator("ratio")
    @classmethod
    def _ratio_takes_turns(cls, ratio: float) -> float:
        """A whole number of steps on one side for one on the other."""
        if not (math.isfinite(ratio) and ratio > 0):
            raise ValueError(
                "the discriminator would never learn: give 1 to begin with, or take the adversary section away"
            )
        turns = ratio if ratio >= 1 else 1 / ratio
        if abs(turns - round(turns)) > 1e-2:
            raise ValueError("give a whole number from 1 on, or 1 divided by one, such as 0.5")
        return ratio

    @model_validator(mode="after")
    def _loss_fits_discriminator(self) -> AdversaryConfig:
        critic = isinstance(self.discriminator, SeganCriticConfig)
        if self.loss != "auto" and critic != (self.loss == "segan_l1"):
            raise ValueError(
                f"adversary.loss {self.loss} does not fit adversary.discriminator {self.discriminator.name}: segan_l1 "
                "is the loss of segan, and segan has no other; leave loss 'auto'"
            )
        if critic and (self.r1 or self.feature_matching or self.gradient_penalty not in ("auto", 0)):
            raise ValueError(
                "adversary.r1, gradient_penalty and feature_matching need a discriminator that decides: "
                "leave them at 0 with segan"
            )
        if self.smoothing and self.loss_name not in ("non_saturating", "least_squares"):
            raise ValueError(f"adversary.smoothing has no target to soften in {self.loss_name}: set it to 0")
        return self

    @property
    def loss_name(self) -> str:
        """The loss, with `auto` resolved."""
        if self.loss != "auto":
            return self.loss
        return "segan_l1" if isinstance(self.discriminator, SeganCriticConfig) else "non_saturating"

    @property
    def gradient_penalty_weight(self) -> float:
        """The weight, with `auto` resolved."""
        if self.gradient_penalty != "auto":
            return float(self.gradient_penalty)
        return 10.0 if self.loss_name == "wasserstein" else 0.0

    @property
    def gives_confidence(self) -> bool:
        """Whether the discriminator's answer is a probability, which pseudo-labels need."""
        return self.loss_name not in ("segan_l1", "wasserstein")

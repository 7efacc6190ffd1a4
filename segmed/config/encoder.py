"""The encoder of a network: one section, for segmenters, classifiers and discriminators."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from segmed.config.base import Auto, Depth, Fraction, Section, Width

EncoderName = Literal["plain", "residual", "dense", "convnext", "mednext"]
Norm = Literal["instance", "batch", "group", "none"]
Channels = Annotated[tuple[Width, ...], Field(min_length=1, max_length=12)]
Strides = tuple[tuple[int, ...], ...]


class EncoderConfig(Section):
    """One of our encoders: an image becomes feature maps, a level after the other."""

    name: EncoderName = Field("plain", description="kind of its blocks")
    channels: Channels | Auto = Field("auto", description="feature maps of each level, finest first")
    strides: Strides | Auto = Field("auto", description="step of each level, an entry an axis; the first is usually 1")
    blocks: Depth = Field(2, description="number in each level: convolutions (plain), dense layers, else blocks")
    norm: Norm = Field("instance", description="normalisation; a decoder has it too")
    dropout: Fraction = Field(0.0, description="of feature maps, in each block; a decoder has it too")
    deep_dropout: Fraction = Field(0.0, description="of feature maps, in the two coarsest levels, if larger")
    checkpointing: bool = Field(False, description="recompute activations: less memory, a third more time")


class ClassifierEncoderConfig(EncoderConfig):
    """One of our encoders, residual unless something else is said."""

    name: EncoderName = Field("residual", description="kind of its blocks")


class DiscriminatorEncoderConfig(EncoderConfig):
    """One of our encoders, as light as a discriminator needs it."""

    blocks: Depth = Field(1, description="number in each level: convolutions (plain), dense layers, else blocks")
    norm: Norm = Field("none", description="normalisation; any but none widens what a decision sees")

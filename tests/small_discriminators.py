"""Discriminators of a few channels, and maps for them: what the tests of discriminators share."""

from __future__ import annotations

import itertools

import pytest
import torch
from small_networks import CHANNELS, ENCODERS, STRIDES, image_of

from segmed.networks.discriminators import ImageDiscriminator, MultiScaleCritic, PatchDiscriminator, PixelDiscriminator
from segmed.networks.encoders import PlainEncoder

every_kind = pytest.mark.parametrize("kind", ["pixel", "patch", "image"])
every_network = pytest.mark.parametrize(
    ("kind", "encoder_type"), [("pixel", PlainEncoder), *itertools.product(["patch", "image"], ENCODERS)]
)
every_spacing = pytest.mark.parametrize("spacing", ["isotropic", "anisotropic"])
CLASSES = 3


def make_encoder(channels, dims, encoder_type=PlainEncoder, *, spacing="anisotropic", blocks=1, norm="none", **options):
    return encoder_type(channels, CHANNELS, STRIDES[spacing, dims], dims=dims, blocks=blocks, norm=norm, **options)


def make(
    kind, dims, encoder_type=PlainEncoder, *, image_channels=2, spectral_norm=True, norm="none", seed=0, **options
):
    torch.manual_seed(seed)
    channels = image_channels + CLASSES
    if kind == "pixel":
        return PixelDiscriminator(
            channels, (4, 6), classes=CLASSES, dims=dims, spectral_norm=spectral_norm, norm=norm, **options
        )
    discriminator = {"patch": PatchDiscriminator, "image": ImageDiscriminator}[kind]
    encoder = make_encoder(channels, dims, encoder_type, norm=norm, **options)
    return discriminator(encoder, classes=CLASSES, spectral_norm=spectral_norm)


def make_critic(dims, encoder_type=PlainEncoder, **options):
    torch.manual_seed(0)
    encoder = make_encoder(2 * (CLASSES - 1), dims, encoder_type)
    return MultiScaleCritic(encoder, image_channels=2, classes=CLASSES, **options)


def maps_of(dims, *, size=8, batch=2, seed=1):
    return image_of(dims, batch=batch, channels=CLASSES, size=size, seed=seed).softmax(dim=1)

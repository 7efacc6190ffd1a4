"""One section of an encoder, one builder: U-Net, classifier and discriminators take every encoder alike."""

from typing import get_args

import pytest
import torch

from segmed.builders.architectures import ENCODERS, build_classifier, build_discriminator, build_network
from segmed.config import (
    DiscriminatorEncoderConfig,
    EncoderConfig,
    EncoderName,
    ImageDiscriminatorConfig,
    PatchDiscriminatorConfig,
    SeganCriticConfig,
    UNetConfig,
)
from segmed.config.classifier import EncoderClassifierConfig
from segmed.config.reading import validate
from segmed.errors import ConfigError
from segmed.networks.weight_transfer import move_encoder

NAMES = get_args(EncoderName)


def test_every_name_has_its_class():
    assert set(ENCODERS) == set(NAMES)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_section_is_the_encoder_of_a_segmenter_a_classifier_and_a_discriminator(name, dims):
    shape = {"name": name, "channels": (4, 6), "strides": ((1,) * dims, (2,) * dims), "blocks": 1, "norm": "group"}
    torch.manual_seed(0)
    segmenter = build_network(UNetConfig(encoder=shape), in_channels=1, out_channels=3, dims=dims)
    classifier = build_classifier(EncoderClassifierConfig(encoder=shape), in_channels=1, classes=2, size=(8,) * dims)
    kinds = [PatchDiscriminatorConfig, ImageDiscriminatorConfig, SeganCriticConfig]
    judges = [build_discriminator(kind(encoder=shape), image_channels=1, classes=3, dims=dims) for kind in kinds]
    assert {type(network.encoder) for network in (segmenter, classifier, *judges)} == {ENCODERS[name]}
    assert not move_encoder(segmenter.state_dict(), classifier).left
    image = torch.randn(2, 1, *[8] * dims)
    maps = segmenter(image).softmax(1)
    assert maps.shape == (2, 3, *[8] * dims)
    assert classifier(image).shape == (2, 2)
    assert judges[0](image, maps).decision.shape == (2, 1, *[4] * dims)
    assert judges[1](image, maps).decision.numel() == 2
    assert [len(features) for features in judges[2](image, maps)] == [2, 2, 2]
    judges[0](image, maps).decision.sum().backward()
    gradients = [weight.grad for weight in segmenter.encoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_defaults_differ_by_what_the_encoder_is_for():
    found = [(made.name, made.blocks, made.norm) for made in (
        UNetConfig().encoder, EncoderClassifierConfig().encoder, PatchDiscriminatorConfig().encoder
    )]  # fmt: skip
    assert found == [("plain", 2, "instance"), ("residual", 2, "instance"), ("plain", 1, "none")]
    given = PatchDiscriminatorConfig(encoder={"channels": [4]}).encoder
    assert given == DiscriminatorEncoderConfig(channels=(4,))
    assert given != EncoderConfig(channels=(4,))


def test_a_discriminator_is_not_checkpointed_under_spectral_norm():
    section = {"name": "patch", "encoder": {"checkpointing": True}}
    with pytest.raises(ConfigError, match=r"encoder\.checkpointing and spectral_norm exclude each other"):
        validate(PatchDiscriminatorConfig, section, where="test")
    assert validate(PatchDiscriminatorConfig, {**section, "spectral_norm": False}, where="test").encoder.checkpointing

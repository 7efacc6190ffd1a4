"""Config -> network: the only place where the name of an encoder, a network or a discriminator becomes a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from segmed.config import (
    CaseClassConfig,
    Discriminator,
    DynUNetConfig,
    EncoderConfig,
    Network,
    PatchCnnConfig,
    PixelDiscriminatorConfig,
    SeganCriticConfig,
    SegResNetConfig,
    SwinUNETRConfig,
    UNetConfig,
    known,
)
from segmed.config.classifier import (
    AlexNetConfig,
    ClassifierNetwork,
    ContrastCnnConfig,
    EncoderClassifierConfig,
    LeNet5Config,
    LogisticConfig,
    Vgg16Config,
    VitConfig,
)
from segmed.networks.backbones import backbone
from segmed.networks.classic import AlexNet, ContrastCnn, LeNet5, LogisticRegression, Vgg16
from segmed.networks.classifiers import ClassificationModel, Classifier
from segmed.networks.deep_ensemble import DeepEnsemble
from segmed.networks.discriminators import ImageDiscriminator, MultiScaleCritic, PatchDiscriminator, PixelDiscriminator
from segmed.networks.encoders.base_encoder import Encoder, PyramidEncoder
from segmed.networks.encoders.convnext import ConvNextEncoder
from segmed.networks.encoders.dense import DenseEncoder
from segmed.networks.encoders.mednext import MedNextEncoder
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.encoders.residual import ResidualEncoder
from segmed.networks.models import SegmentationModel, SegmentationNet
from segmed.networks.patchwise import PatchwiseNet
from segmed.networks.peers import monai_network
from segmed.networks.two_heads import SegmentationAndClass

ENCODERS: Mapping[str, type[PyramidEncoder]] = {
    "plain": PlainEncoder,
    "residual": ResidualEncoder,
    "dense": DenseEncoder,
    "convnext": ConvNextEncoder,
    "mednext": MedNextEncoder,
}


def build_encoder(config: EncoderConfig, in_channels: int, *, dims: int) -> Encoder:
    """The encoder of a resolved section, whichever network it is for.

    Args:
        config: without `auto`.
        in_channels: of what it sees.
        dims: 2 or 3.

    Raises:
        NetworkError: channels, strides and dims do not fit together.
    """
    options = config.model_dump(exclude={"name", "channels", "strides"})
    return ENCODERS[config.name](in_channels, known(config.channels), known(config.strides), dims=dims, **options)


def build_network(
    config: Network,
    *,
    in_channels: int,
    out_channels: int,
    dims: int,
    class_head: CaseClassConfig | None = None,
    device: torch.device | str = "cpu",
) -> SegmentationModel:
    """The network of a resolved config.

    Args:
        config: without `auto`.
        in_channels: modalities.
        out_channels: labels and background.
        dims: 2 or 3.
        class_head: a second head of a U-Net of ours, its classes resolved; none: the network segments alone.
        device: `meta` builds without memory, for a summary.
    """
    with torch.device(device):
        match config:
            case UNetConfig():
                encoder = partial(build_encoder, config.encoder, in_channels, dims=dims)
                decoder: Any = {"upsampling": config.upsampling, "deep_supervision": config.deep_supervision}
                if class_head is None:
                    members = [SegmentationNet(encoder(), out_channels, **decoder) for _ in range(config.members)]
                    return members[0] if config.members == 1 else DeepEnsemble(members)
                classes, pooling = len(known(class_head.classes)), class_head.pooling
                return SegmentationAndClass(
                    encoder(), out_channels, classes, pooling=pooling, dropout=class_head.dropout, **decoder
                )
            case PatchCnnConfig():
                return PatchwiseNet(in_channels, out_channels, dims=dims, **config.model_dump(exclude={"name"}))
            case DynUNetConfig() | SegResNetConfig() | SwinUNETRConfig():
                return monai_network(
                    in_channels=in_channels, out_channels=out_channels, dims=dims, **config.model_dump()
                )


def build_discriminator(
    config: Discriminator, *, image_channels: int, classes: int, dims: int, device: torch.device | str = "cpu"
) -> nn.Module:
    """The discriminator of a resolved config.

    Args:
        config: without `auto`.
        image_channels: modalities.
        classes: labels and background.
        dims: 2 or 3.
        device: `meta` builds without memory, for a summary.
    """
    if isinstance(config, SeganCriticConfig):
        in_channels = image_channels * (classes - 1)
    else:
        in_channels = classes + (image_channels if config.conditional else 0)
    with torch.device(device):
        if isinstance(config, PixelDiscriminatorConfig):
            return PixelDiscriminator(
                in_channels,
                config.channels,
                classes=classes,
                dims=dims,
                spectral_norm=config.spectral_norm,
                norm=config.norm,
            )
        encoder = build_encoder(config.encoder, in_channels, dims=dims)
        if isinstance(config, SeganCriticConfig):
            return MultiScaleCritic(
                encoder, image_channels=image_channels, classes=classes, spectral_norm=config.spectral_norm
            )
        kind = ImageDiscriminator if config.name == "image" else PatchDiscriminator
        return kind(encoder, classes=classes, spectral_norm=config.spectral_norm)


NOT_OPTIONS = {"name", "pretrained", "grey"}


def build_classifier(
    config: ClassifierNetwork, *, in_channels: int, classes: int, size: Sequence[int]
) -> ClassificationModel:
    """The network of a resolved config, with random weights.

    Args:
        config: without `auto`.
        in_channels: of the image.
        classes: 2 or more.
        size: of the image in voxels.

    Raises:
        NetworkError: values that the network can't have, or a library that is not installed.
    """
    dims = len(size)
    options = config.model_dump(exclude=NOT_OPTIONS)
    match config:
        case EncoderClassifierConfig():
            encoder = build_encoder(config.encoder, in_channels, dims=dims)
            return Classifier(encoder, classes, pooling=config.pooling, dropout=config.dropout)
        case LogisticConfig():
            return LogisticRegression(in_channels, classes, size=size)
        case ContrastCnnConfig():
            return ContrastCnn(in_channels, classes, dims=dims, size=size, **options)
        case LeNet5Config():
            return LeNet5(in_channels, classes, dims=dims)
        case AlexNetConfig():
            return AlexNet(in_channels, classes, dims=dims, **options)
        case Vgg16Config():
            return Vgg16(in_channels, classes, dims=dims, **options)
        case VitConfig():
            options["size"] = tuple(size)
    if config.name == "timm":
        options["published"] = False
    return backbone(config.name, in_channels=in_channels, classes=classes, dims=dims, **options)

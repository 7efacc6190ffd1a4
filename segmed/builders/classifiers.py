"""Config -> model, run folder -> model: the only place where the name of a classifier becomes a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from segmed.builders.segmentation import ENCODERS
from segmed.config import known
from segmed.config.classification import ClassificationConfig, ClassLoss, FocalConfig
from segmed.config.classifier import (
    AlexNetConfig,
    BackboneConfig,
    ClassifierNetwork,
    ContrastCnnConfig,
    EncoderClassifierConfig,
    LogisticConfig,
    TimmConfig,
    Vgg16Config,
    VitConfig,
)
from segmed.config.network import Strides
from segmed.losses.classification import ClassificationLoss
from segmed.networks.backbones import backbone
from segmed.networks.classic import AlexNet, ContrastCnn, LogisticRegression, Vgg16
from segmed.networks.classifiers import ClassificationModel, Classifier
from segmed.networks.levels import pooling
from segmed.networks.weight_transfer import Transfer
from segmed.runs import open_run, read_class_config
from segmed.training.checkpoint import load_weights
from segmed.training.encoder_transfer import shaped_like, take_encoder
from segmed.training.pretrained import load_pretrained

WIDTH = {"cpu": 16, "cuda": 32}  # feature maps of the finest level
WIDEST = 512
HALVED_FROM = 64  # voxels of the smallest axis
NOT_OPTIONS = {"name", "pretrained", "grey"}


def planned_model(
    model: ClassifierNetwork, *, size: Sequence[int], device: str, init_encoder: Path | None = None
) -> tuple[ClassifierNetwork, dict[str, str]]:
    """A model without `auto`, and why each value is what it is.

    Args:
        model: as in the config.
        size: of the image in voxels.
        device: `cpu` or `cuda`.
        init_encoder: run whose encoder it begins with, and which gives the shape where nothing else is said.

    Raises:
        RunError: that run has no encoder to give.
    """
    if not isinstance(model, EncoderClassifierConfig):
        return model, {}
    shaped, taken = shaped_like(model, init_encoder, dims=len(size))
    reasons = {f"network.{field}": reason for field, reason in taken.items()}
    if shaped.strides == "auto":
        levels = None if shaped.channels == "auto" else len(shaped.channels)
        strides, reasons["network.strides"] = _strides(size, levels)
        shaped = shaped.model_copy(update={"strides": strides})
    if "channels" in taken:  # of an encoder of other dimensions, which may have more levels
        shaped = shaped.model_copy(update={"channels": known(shaped.channels)[: len(known(shaped.strides))]})
    if shaped.channels == "auto":
        channels = tuple(min(WIDTH[device] * 2**level, WIDEST) for level in range(len(known(shaped.strides))))
        shaped = shaped.model_copy(update={"channels": channels})
        reasons["network.channels"] = f"{WIDTH[device]} maps on a {device.upper()}, doubled a level"
    return shaped, reasons


def _strides(size: Sequence[int], levels: int | None) -> tuple[Strides, str]:
    """Steps of each level, and why."""
    why = "halve an axis while 4 voxels remain"
    if min(size) < HALVED_FROM:
        return pooling(size, [1.0] * len(size), levels=levels), why
    strides = pooling([n // 2 for n in size], [1.0] * len(size), levels=levels)
    return (
        (2,) * len(size),
        *strides[1:],
    ), f"{why}; the first level too, a third of the time: a class needs no fine map"


def build_classifier(
    model: ClassifierNetwork, *, in_channels: int, classes: int, size: Sequence[int]
) -> ClassificationModel:
    """The network of a resolved config, with drawn weights.

    Args:
        model: without `auto`.
        in_channels: of the image.
        classes: 2 or more.
        size: of the image in voxels.

    Raises:
        NetworkError: values that the network can't have, or a library that is not installed.
    """
    dims = len(size)
    options = model.model_dump(exclude=NOT_OPTIONS)
    match model:
        case EncoderClassifierConfig():
            encoder = ENCODERS[model.encoder](
                in_channels,
                known(model.channels),
                known(model.strides),
                dims=dims,
                blocks=model.blocks,
                norm=model.norm,
            )
            return Classifier(encoder, classes, pooling=model.pooling, dropout=model.dropout)
        case LogisticConfig():
            return LogisticRegression(in_channels, classes, size=size)
        case ContrastCnnConfig():
            return ContrastCnn(in_channels, classes, dims=dims, size=size, **options)
        case AlexNetConfig():
            return AlexNet(in_channels, classes, dims=dims, **options)
        case Vgg16Config():
            return Vgg16(in_channels, classes, dims=dims, **options)
        case VitConfig():
            options["size"] = tuple(size)
    if model.name == "timm":
        options["published"] = False
    return backbone(model.name, in_channels=in_channels, classes=classes, dims=dims, **options)


def start_weights(network: ClassificationModel, config: ClassificationConfig) -> Transfer | None:
    """Fill a network with published weights, or its encoder with another run's; None: the weights stay as drawn.

    Args:
        network: is changed.
        config: its `network.pretrained` and `init_encoder` are used.

    Raises:
        NetworkError: published weights that can't be had.
        RunError: the other run has no weights that fit.
    """
    moved = None
    chosen = config.network
    if isinstance(chosen, TimmConfig) and chosen.pretrained == "hub":
        kept = {"in_channels": network.in_channels, "classes": network.classes, "dims": network.dims}
        options = chosen.model_dump(exclude=NOT_OPTIONS)
        network.load_state_dict(backbone("timm", published=True, **kept, **options).state_dict())
    elif isinstance(chosen, BackboneConfig) and chosen.pretrained is not None:
        folder = (config.cache or config.runs / "cache") / "weights"
        moved = load_pretrained(network, chosen.name, chosen.pretrained, folder=folder, grey=chosen.grey)
    if config.init_encoder is not None:
        moved = take_encoder(network, config.init_encoder)
    return moved


def build_class_loss(loss: ClassLoss, *, counts: Mapping[str, int]) -> ClassificationLoss:
    """The loss of a config.

    Args:
        loss: of the config.
        counts: class -> training images, in the order of the classes; `balanced` weights follow them.
    """
    given = loss.class_weights
    if given == "balanced":
        total = sum(counts.values())
        given = tuple(total / (len(counts) * max(count, 1)) for count in counts.values())
    gamma = loss.gamma if isinstance(loss, FocalConfig) else 0.0
    return ClassificationLoss(class_weights=given, smoothing=loss.smoothing, focal_gamma=gamma)


def load_classifier(folder: Path, *, weights: str = "best", device: str = "auto") -> ClassificationModel:
    """The trained model of a run, in evaluation mode.

    Args:
        folder: of the run.
        weights: `best` on validation, or `last`.
        device: `auto`: a GPU where there is one.

    Raises:
        RunError: no run, or one without these weights.
        RunError: weights of another model.
    """
    run = open_run(folder)
    config = read_class_config(run)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build_classifier(
        config.network,
        in_channels=config.image.channels,
        classes=len(known(config.data.classes)),
        size=config.image.size,
    )
    load_weights(run.weights(weights), network)
    return network.to(device).eval()

"""Config -> the weights that a network starts from in place of random ones."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from segmed.builders.architectures import NOT_OPTIONS
from segmed.builders.segmenters import label_set
from segmed.config import SegmentationConfig, known
from segmed.config.classification import ClassificationConfig
from segmed.config.classifier import BackboneConfig, TimmConfig
from segmed.errors import NetworkError
from segmed.networks.backbones import backbone
from segmed.networks.classifiers import ClassificationModel
from segmed.networks.weight_transfer import Transfer
from segmed.targets import targets_of
from segmed.training.encoder_transfer import take_encoder, take_network
from segmed.training.pretrained import load_pretrained

log = logging.getLogger(__name__)

OR_RANDOM = "hub_or_random"


def first_weights(network: nn.Module, config: SegmentationConfig) -> Transfer:
    """Fill a segmentation network with what `init_network` or `init_encoder` names.

    Args:
        network: is changed; on the device `meta` it is only seen whether they fit.
        config: names one of the two; its labels and classes are resolved.

    Raises:
        RunError: the other run has no weights that fit.
        ValueError: the config names none.
    """
    if config.init_network is not None:
        labels, second = targets_of(label_set(config)).names, config.classification
        classes = () if second is None else known(second.classes)
        return take_network(network, config.init_network, labels=labels, classes=classes)
    if config.init_encoder is not None:
        return take_encoder(network, config.init_encoder)
    raise ValueError("the config names no run to start from: give init_network or init_encoder")


def start_weights(network: ClassificationModel, config: ClassificationConfig) -> Transfer | None:
    """Fill a network with published weights, or its encoder with another run's; None: the weights stay random.

    Args:
        network: is changed.
        config: its `network.pretrained` and `init_encoder` are used.

    Raises:
        NetworkError: published weights that can't be had, unless they may be random.
        RunError: the other run has no weights that fit.
    """
    moved = None
    if isinstance(config.network, BackboneConfig):
        try:
            moved = _published_weights(network, config)
        except NetworkError as error:
            if config.network.pretrained != OR_RANDOM:
                raise
            log.warning("%s begins with random weights: %s", config.network.architecture, error)
    if config.init_encoder is not None:
        moved = take_encoder(network, config.init_encoder)
    return moved


def _published_weights(network: ClassificationModel, config: ClassificationConfig) -> Transfer | None:
    """As `start_weights`, of published weights alone."""
    chosen = config.network
    if not isinstance(chosen, BackboneConfig) or chosen.pretrained is None:
        return None
    if isinstance(chosen, TimmConfig) and not isinstance(chosen.pretrained, Path):
        kept = {"in_channels": network.in_channels, "classes": network.classes, "dims": network.dims}
        options = chosen.model_dump(exclude=NOT_OPTIONS)
        network.load_state_dict(backbone("timm", published=True, **kept, **options).state_dict())
        return None
    folder = (config.cache or config.runs / "cache") / "weights"
    return load_pretrained(network, chosen.architecture, chosen.pretrained, folder=folder, grey=chosen.grey)

"""Classification models of a few channels, and images for them: what their tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from small_networks import CHANNELS, ENCODERS, STRIDES

from segmed.networks.backbones import backbone
from segmed.networks.classic import AlexNet, ContrastCnn, LogisticRegression, Vgg16
from segmed.networks.classifiers import POOLINGS, ClassificationModel, Classifier

SLIM = {"first_kernel": 3, "first_stride": 1, "max_pool": False, "width": 4}
TINY_VIT = {"patch": 8, "width": 12, "layers": 2, "heads": 3, "hidden": 16}


def encoder_classifier(encoder_type, dims: int, classes: int = 3, *, channels: int = 2, **options) -> Classifier:
    torch.manual_seed(0)
    return Classifier(encoder_type(channels, CHANNELS, STRIDES["isotropic", dims], dims=dims), classes, **options)


Make = tuple[Callable[[], ClassificationModel], tuple[int, ...]]
MODELS: dict[str, Make] = {
    **{
        f"{kind.__name__}-{pooling}-{dims}d": (
            lambda kind=kind, pooling=pooling, dims=dims: encoder_classifier(kind, dims, pooling=pooling),
            (8,) * dims,
        )
        for kind, pooling, dims in [
            *((ENCODERS[0], pooling, dims) for pooling in POOLINGS for dims in (2, 3)),
            *((kind, "average", dims) for kind in ENCODERS[1:] for dims in (2, 3)),
        ]
    },
    "resnet18-slim-2d": (lambda: backbone("resnet18", in_channels=2, classes=3, dims=2, **SLIM), (16, 24)),
    "resnet18-slim-3d": (lambda: backbone("resnet18", in_channels=2, classes=3, dims=3, **SLIM), (16, 8, 8)),
    "resnet18-colour-2d": (
        lambda: backbone("resnet18", in_channels=2, classes=3, dims=2, width=4, colour=True),
        (48, 32),
    ),
    "densenet121-2d": (lambda: backbone("densenet121", in_channels=2, classes=3, dims=2), (48, 32)),
    "efficientnet_b0-2d": (lambda: backbone("efficientnet_b0", in_channels=2, classes=3, dims=2), (48, 32)),
    "vit-2d": (lambda: backbone("vit", in_channels=2, classes=3, dims=2, size=(16, 24), **TINY_VIT), (16, 24)),
    "vit-3d": (lambda: backbone("vit", in_channels=2, classes=3, dims=3, size=(8, 16, 8), **TINY_VIT), (8, 16, 8)),
    "logistic-2d": (lambda: LogisticRegression(2, 2, size=(5, 6)), (5, 6)),
    "logistic-3d": (lambda: LogisticRegression(2, 3, size=(3, 4, 5)), (3, 4, 5)),
    "alexnet": (lambda: AlexNet(2, 3, hidden=16), (70, 63)),
    "vgg16": (lambda: Vgg16(2, 3, hidden=16), (32, 40)),
    "contrast_cnn": (lambda: ContrastCnn(2, 2, size=(24, 22), channels=(4, 6, 8), hidden=8), (24, 22)),
}


@cache
def published_model(name: str) -> ClassificationModel:
    """A model of the published size, without memory."""
    classic = {"alexnet": AlexNet, "vgg16": Vgg16}
    options = {"size": (224, 224)} if name == "vit" else {}
    with torch.device("meta"):
        if name in classic:
            return classic[name](3, 1000)
        return backbone(name, in_channels=3, classes=1000, dims=2, **options)


@cache
def small_model(name: str) -> ClassificationModel:
    """One model of a name for a whole test run; a test that changes it takes a copy."""
    torch.manual_seed(0)
    return MODELS[name][0]()


def image_for(name: str, *, batch: int = 4, seed: int = 0) -> torch.Tensor:
    shape = (batch, small_model(name).in_channels, *MODELS[name][1])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

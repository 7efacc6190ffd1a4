"""A config of configs/seg on a made fingerprint: planned, built, and taught for two steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from segmed.builders.segmentation import build_discriminator, build_loss, build_network
from segmed.config import ExperimentConfig, known
from segmed.data.fingerprint import CaseFacts
from segmed.machine import GIB, Machine
from segmed.segment.plan import resolve
from segmed.training.adversarial_step import AdversarialStep
from segmed.training.precision import Choice
from segmed.training.steps import SupervisedStep

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs" / "seg").glob("*.yaml"))
COMPOSED = [path for path in CONFIGS if re.search("^(cascade|ensemble):", path.read_text(), re.MULTILINE)]
CPU = Machine("cpu", "CPU", 20 * GIB, 2)
THIN = ((24, 32, 24), (1.0, 1.0, 1.0))
THICK = ((48, 48, 6), (1.5, 1.5, 10.0))
STACKS = ("acdc", "myops", "phantom")  # how the names begin of configs for short-axis stacks
NUMBERS = dict.fromkeys(("min", "p0_5", "p50", "p99_5", "max", "mean", "sd"), 1.0) | {"zero_fraction": 0.0}
EDGE = {2: 32, 3: 16}  # voxels of the images that a network is taught with; more only where its strides need more


def with_images(config: ExperimentConfig) -> ExperimentConfig:
    """With the names of its modalities, which a run reads from its data."""
    if config.data.images != "auto":
        return config
    images = tuple(getattr(config.data.layout, "images", ["MR"]))
    return config.model_copy(update={"data": config.data.model_copy(update={"images": images})})


def facts_of(name: str, images: Sequence[str]) -> list[CaseFacts]:
    """Fingerprint of one case like those of the config of that name: of thin or of thick slices."""
    shape, spacing_mm = THICK if name.startswith(STACKS) else THIN
    return [CaseFacts("a", shape, spacing_mm, "RAS", dict.fromkeys(images, NUMBERS), {}, {}, shape)]


def planned(config: ExperimentConfig, facts: Sequence[CaseFacts]) -> ExperimentConfig:
    """The config of one network without `auto`."""
    return resolve(config, facts, channels=len(known(config.data.images)), machine=CPU).config


def two_steps(config: ExperimentConfig) -> list[dict[str, Any]]:
    """Figures of two steps on one small batch of noise; dropout draws the same both times.

    Args:
        config: of one network, planned.
    """
    channels, classes = len(known(config.data.images)), len(known(config.data.labels)) + 1
    dims, size, adversary = known(config.patches.dims), known(config.patches.size), config.adversary
    torch.manual_seed(0)
    network = build_network(config.network, in_channels=channels, out_channels=classes, dims=dims)
    loss = build_loss(config.loss, network, class_weights=config.train.class_weights)
    place: dict[str, Any] = {"fabric": Fabric(accelerator="cpu"), "choice": Choice("fp32", "contiguous")}
    train = config.train.model_copy(update={"warmup": 0.0})
    step: SupervisedStep | AdversarialStep
    if adversary is None:
        step = SupervisedStep(network, loss, train, **place)
        size = tuple(min(n, max(EDGE[dims], 2 * d)) for n, d in zip(size, network.divisor, strict=True))
    else:
        judge = build_discriminator(adversary.discriminator, image_channels=channels, classes=classes, dims=dims)
        step = AdversarialStep(network, loss, judge, train=train, adversary=adversary, **place)
    batch = {
        "image": torch.randn(2, channels, *size),
        "label": torch.randint(0, classes, (2, *size), dtype=torch.uint8),
    }
    figures = []
    for _ in range(2):
        torch.manual_seed(1)
        figures.append(step.step(batch, 0.0 if adversary is None else adversary.warmup))
    return figures


def check_learning(figures: Sequence[dict[str, Any]], loss: str = "loss") -> None:
    """All figures are finite, and the loss falls."""
    assert all(torch.isfinite(value) for row in figures for value in row.values())
    assert figures[1][loss] < figures[0][loss]

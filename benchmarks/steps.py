"""One training step of segmed, supervised or adversarial, and of MONAI's DynUNet; run as a module, one a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from torch import Tensor

from benchmarks.processes import Work, serve
from segmed.builders.architectures import build_discriminator, build_network
from segmed.builders.losses import build_loss
from segmed.config import AdversaryConfig, DiceCELossConfig, EncoderConfig, TrainConfig, UNetConfig
from segmed.networks.models import SegmentationModel
from segmed.training.adversarial_step import AdversarialStep
from segmed.training.precision import Choice
from segmed.training.steps import SupervisedStep

CLASSES = 4
PROGRESS = 0.5  # of the run: a discriminator plays by then


@dataclass(frozen=True)
class StepSize:
    """Of a network like the one that nnU-Net plans for the patch, and of a batch."""

    channels: tuple[int, ...] = (32, 64, 128, 256, 320)
    patch: int = 64
    batch: int = 2
    dims: int = 3

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of each level: all but the first halve."""
        return ((1,) * self.dims, *((2,) * self.dims,) * (len(self.channels) - 1))

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, C, *spatial)."""
        return (self.batch, 1, *(self.patch,) * self.dims)

    def __str__(self) -> str:
        widths = f"{self.channels[0]}–{self.channels[-1]}"
        patch = f"{self.patch}{'²³'[self.dims - 2]}"
        return f"U-Net of {len(self.channels)} levels, {widths} maps, patch {patch}, batch {self.batch}"


def unet(size: StepSize) -> SegmentationModel:
    """Our U-Net of plain blocks, with weights of a fixed seed."""
    torch.manual_seed(0)
    config = UNetConfig(encoder=EncoderConfig(channels=size.channels, strides=size.strides))
    return build_network(config, in_channels=1, out_channels=CLASSES, dims=size.dims)


def supervised_step(size: StepSize, choice: Choice) -> SupervisedStep:
    """As in a run: AdamW, averaged weights, clipping, Dice and cross-entropy with deep supervision."""
    network = unet(size)
    return SupervisedStep(
        network,
        build_loss(DiceCELossConfig(), network),
        TrainConfig(learning_rate=1e-3),
        fabric=Fabric(accelerator="cpu", devices=1),
        choice=choice,
    )


def adversarial_step(size: StepSize, choice: Choice, adversary: AdversaryConfig) -> AdversarialStep:
    """The same against a discriminator."""
    network = unet(size)
    discriminator = build_discriminator(adversary.discriminator, image_channels=1, classes=CLASSES, dims=size.dims)
    return AdversarialStep(
        network,
        build_loss(DiceCELossConfig(), network),
        discriminator,
        train=TrainConfig(learning_rate=1e-3),
        adversary=adversary,
        fabric=Fabric(accelerator="cpu", devices=1),
        choice=choice,
    )


def fixed_batch(size: StepSize) -> dict[str, Tensor]:
    """image (B, 1, *spatial), label (B, *spatial), drawn once."""
    torch.manual_seed(1)
    label = torch.randint(0, CLASSES, (size.batch, *size.shape[2:]), dtype=torch.uint8)
    return {"image": torch.randn(size.shape), "label": label}


# ---------------------------------------------------------------- processes


def _segmed(options: Mapping[str, Any]) -> Work:
    size = _size(options)
    step = supervised_step(size, Choice(options["precision"], options["memory_format"]))
    batch = fixed_batch(size)
    return lambda: step.step(batch, PROGRESS)


def _adversarial(options: Mapping[str, Any]) -> Work:
    """Returns how often the generator's encoder ran, the most in any step so far."""
    size = _size(options)
    adversary = AdversaryConfig.model_validate(options["adversary"])
    step = adversarial_step(size, Choice(options["precision"], options["memory_format"]), adversary)
    batch = fixed_batch(size)
    runs, most = [], 0
    step.network.get_submodule("encoder").register_forward_hook(lambda *_: runs.append(1))

    def work() -> int:
        nonlocal most
        runs.clear()
        step.step(batch, PROGRESS)
        most = max(most, len(runs))
        return most

    return work


def _dynunet(options: Mapping[str, Any]) -> Work:
    """MONAI's network of the same feature maps, its loss, SGD as nnU-Net's; fp32."""
    size = _size(options)
    torch.manual_seed(0)
    network = DynUNet(
        3,
        1,
        CLASSES,
        kernel_size=[3] * len(size.channels),
        strides=size.strides,
        upsample_kernel_size=size.strides[1:],
        filters=size.channels,
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=max(1, len(size.channels) - 3),
    ).train()
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    optimiser = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    batch = fixed_batch(size)
    label = batch["label"][:, None]

    def work() -> None:
        optimiser.zero_grad(set_to_none=True)
        levels = network(batch["image"]).unbind(1)
        weights = [0.5**level for level in range(len(levels))]
        total = sum(w * loss(level, label) for w, level in zip(weights, levels, strict=True)) / sum(weights)
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimiser.step()

    return work


def _size(options: Mapping[str, Any]) -> StepSize:
    torch.set_num_threads(options["threads"])
    return StepSize(tuple(options["channels"]), options["patch"][0], options["batch"], dims=len(options["patch"]))


TASKS = {"segmed": _segmed, "adversarial": _adversarial, "dynunet": _dynunet}

if __name__ == "__main__":
    serve(TASKS)

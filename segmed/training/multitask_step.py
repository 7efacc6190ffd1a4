"""Segmentation and classification on one encoder as a training method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segmed.config import TrainConfig
from segmed.training.learner import Learner
from segmed.training.precision import Choice
from segmed.training.steps import LearnerStep


class BothLogits(nn.Module):
    """Makes `forward` of a network's `both`, so that DDP's hooks and torch.compile see the call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits of all levels, finest first, and of the class (B, K).

        Args:
            image: (B, C, *spatial).
        """
        return cast(Any, self.network).both(image)


class MultiTaskStep(LearnerStep):
    """Segmentation from labelled patches, and from each patch the class of the case that it was cut from.

    The loss is that of the segmentation plus `weight` times that of the classes. Patches of cases without a class
    teach the segmentation alone. A batch is cut into `train.accumulate` pieces, as in `SupervisedStep`.

    Args:
        network: gives `both(image)`: a list of logits, finest first, and logits of classes (B, K).
        loss: of that list and the labels (B, *spatial).
        class_loss: of the logits and classes (B,).
        train: optimiser, schedule, EMA, clipping, accumulation.
        weight: of the second loss.
        fabric: device and processes, in full precision: autocast is done here.
        choice: precision and memory format.
    """

    method = "multitask"
    does = "segments and classifies"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        class_loss: nn.Module,
        train: TrainConfig,
        *,
        weight: float,
        fabric: Fabric,
        choice: Choice,
    ) -> None:
        self.learner = Learner(network, train, fabric=fabric, choice=choice, call=BothLogits)
        self.network = self.learner.network
        self.loss, self.class_loss = loss.to(fabric.device), class_loss.to(fabric.device)
        self.train, self.weight, self.fabric, self.choice = train, weight, fabric, choice

    def step(self, batch: Mapping[str, Any], progress: float) -> dict[str, Tensor]:
        """Forward, backward, clip, step, average.

        Args:
            batch: image (B, C, *spatial), label (B, *spatial), target (B,): below 0 where the class is unknown.
            progress: in [0, 1].

        Returns:
            loss, and its parts loss/segmentation and loss/classification (0 where no class is known); gradient_norm.
        """
        segmentation, classification = self._gradients(batch["image"], batch["label"], batch["target"])
        return {
            "loss": segmentation + self.weight * classification,
            "loss/segmentation": segmentation,
            "loss/classification": classification,
            "gradient_norm": self.learner.advance(progress),
        }

    def _gradients(self, images: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Add up the gradients of the batch's pieces; the means of both losses, detached."""
        device, number = self.fabric.device, self.train.accumulate
        with_class = max(int((targets >= 0).sum()), 1)  # on the CPU: nothing waits for the device
        pieces = list(zip(images.chunk(number), labels.chunk(number), targets.chunk(number), strict=True))
        totals = torch.zeros(2, device=device)
        for place, (image, label, target) in enumerate(pieces, start=1):
            image = self.choice.arrange(image.to(device, non_blocking=True))
            label = label.to(device, non_blocking=True)
            with self.learner.unsynchronised(place < len(pieces)):
                with self.choice.autocast(device):
                    levels, logits = self.learner.module(image)
                    segmentation = self.loss(levels, label) * (len(image) / len(images))
                classification = self._class_term(logits, target, with_class)
                self.fabric.backward(segmentation + self.weight * classification)
            totals += torch.stack([segmentation.detach().float(), classification.detach()])
        return totals[0], totals[1]

    def _class_term(self, logits: Tensor, target: Tensor, with_class: int) -> Tensor:
        """The piece's share of the loss of the classes, over the patches that have one."""
        rows = (target >= 0).nonzero()[:, 0]
        if not len(rows):
            return 0.0 * logits.float().sum()  # every weight takes part in every step, as several processes need it
        loss = self.class_loss(logits[rows.to(logits.device)], target[rows].to(logits.device))
        return loss * (len(rows) / with_class)

"""Classification of whole images as a training method: one network, cross-entropy or focal loss, mixup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from segmed.config import TrainConfig
from segmed.training.learner import Learner
from segmed.training.precision import Choice
from segmed.training.steps import LearnerStep


class ClassificationStep(LearnerStep):
    """Classes of images from labelled images.

    Args:
        network: image (B, C, *spatial) -> logits (B, K); declares `classes`.
        loss: of logits and classes (B,), or shares of classes (B, K).
        train: optimiser, schedule, EMA, clipping; `accumulate` must be 1: images are small.
        fabric: device and processes, in full precision: autocast is done here.
        choice: precision and memory format.
        mixup: alpha of the Beta distribution that the share of the other image is drawn from; 0: none.

    Source: of mixup: Zhang et al. 2018, arXiv 1710.09412.
    """

    method = "classification"
    does = "classifies"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        train: TrainConfig,
        *,
        fabric: Fabric,
        choice: Choice,
        mixup: float = 0.0,
    ) -> None:
        self.learner = Learner(network, train, fabric=fabric, choice=choice)
        self.network = self.learner.network
        self.loss = loss.to(fabric.device)
        self.fabric, self.choice, self.mixup = fabric, choice, mixup

    def step(self, batch: Mapping[str, Any], progress: float) -> dict[str, Tensor]:
        """Mix, forward, backward, clip, step, average.

        Args:
            batch: image (B, C, *spatial), target (B,).
            progress: in [0, 1].

        Returns:
            loss, accuracy (of the images before they are mixed; only without mixup), gradient_norm.
        """
        device = self.fabric.device
        image = batch["image"].to(device, non_blocking=True)
        target = batch["target"].to(device, non_blocking=True)
        seen, wanted = self._mix(image, target) if self.mixup else (image, target)
        with self.choice.autocast(device):
            logits = self.learner.module(self.choice.arrange(seen))
        loss = self.loss(logits, wanted)
        self.fabric.backward(loss)
        figures = {"loss": loss.detach()}
        if not self.mixup:
            figures["accuracy"] = (logits.detach().argmax(1) == target).float().mean()
        return {**figures, "gradient_norm": self.learner.advance(progress)}

    def _mix(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Each image with a share of another one of the batch, and the shares of both classes."""
        alpha = torch.full((len(image),), self.mixup)
        share = torch.distributions.Beta(alpha, alpha).sample().to(image.device)
        partner = torch.randperm(len(image)).to(image.device)
        shares = F.one_hot(target, int(cast(Any, self.network).classes)).float()
        over = share.reshape(-1, *[1] * (image.ndim - 1))
        mixed = over * image + (1 - over) * image[partner]
        return mixed, share[:, None] * shares + (1 - share[:, None]) * shares[partner]

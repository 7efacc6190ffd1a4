"""Logits of regions and labels -> one number: Dice, cross-entropy and related losses of a sigmoid each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, TverskyLoss
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.labels import IGNORE
from segmed.losses.segmentation_loss import SMALLEST, hardest_mean
from segmed.targets import Targets


class RegionLoss(nn.Module):
    """Logits (B, R, *spatial) and labels (B, *spatial) -> scalar in fp32, under autocast too.

    Voxels of `IGNORE` change neither the value nor any gradient, and a batch that holds nothing else gives 0.

    Args:
        targets: which labels each of the R channels holds.
        parts: terms of the loss, each with its weight.
    """

    def __init__(self, targets: Targets, parts: Sequence[tuple[float, _Part]]) -> None:
        super().__init__()
        self.targets = targets
        self.weights = tuple(weight for weight, _ in parts)
        self.parts = nn.ModuleList(part for _, part in parts)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (B, R, *spatial), before the sigmoid.
            labels: (B, *spatial), integer.

        Raises:
            NetworkError: the shapes do not fit together, or there are not as many channels as regions.
        """
        regions = self.targets.channels
        if logits.dim() < 3 or logits.shape[1] != regions or labels.shape != logits.shape[:1] + logits.shape[2:]:
            raise NetworkError(
                f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit: give (B, {regions}, "
                "*spatial), a channel a region, and (B, *spatial)"
            )
        counted = (labels != IGNORE)[:, None]
        with torch.autocast(logits.device.type, enabled=False):
            maps = self.targets.maps(labels)
            parts = [
                weight * part(logits.float(), maps, counted)
                for weight, part in zip(self.weights, self.parts, strict=True)
            ]
            return torch.stack(parts).sum()


class _Part(nn.Module):
    """One term."""

    @abstractmethod
    def forward(self, logits: Tensor, maps: Tensor, counted: Tensor) -> Tensor:
        """Scalar of fp32 logits, maps of 0 and 1 (both (B, R, *spatial)) and the voxels that count (B, 1, *spatial)."""


class _Overlap(_Part):
    """MONAI's Dice or Tversky of each region, the mean over regions."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, maps: Tensor, counted: Tensor) -> Tensor:
        value: Tensor = self.loss(logits.sigmoid() * counted, maps)  # maps are 0 where nothing counts
        return value


class _BinaryCrossEntropy(_Part):
    """Binary cross-entropy times (1 - probability of what is true) ** gamma; the mean over voxels and regions.

    Args:
        gamma: focus on hard voxels; 0: plain.
        fraction: share of the voxels that count, the hardest ones; 1: all.
    """

    def __init__(self, *, gamma: float = 0.0, fraction: float = 1.0) -> None:
        super().__init__()
        self.gamma, self.fraction = gamma, fraction

    def forward(self, logits: Tensor, maps: Tensor, counted: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(logits, maps, reduction="none")
        if self.gamma:
            losses = losses * (1 - torch.exp(-losses)).clamp(min=SMALLEST) ** self.gamma
        if self.fraction < 1:
            return hardest_mean(losses.mean(1), counted[:, 0], self.fraction)
        return (losses.mean(1, keepdim=True) * counted).sum() / counted.sum().clamp(min=1)


def region_loss(
    name: str, targets: Targets, *, class_weights: Sequence[float] | None = None, **options: Any
) -> RegionLoss:
    """A loss of regions by its name in a config: the same names as for labels, where they have a meaning.

    Args:
        name: dice, dice_ce, dice_focal, tversky or topk_ce.
        targets: the regions.
        class_weights: none: background and labels have no channel of their own.
        options: of that loss: batch, ce_weight, gamma, alpha, beta, fraction.

    Raises:
        NetworkError: a loss that has no meaning for regions, or weights of labels.
    """
    if name not in REGION_LOSSES:
        raise NetworkError(
            f"loss '{name}' weighs labels that exclude each other, data.targets are regions: "
            f"choose {', '.join(REGION_LOSSES)}"
        )
    if class_weights is not None:
        raise NetworkError(
            "loss.class_weights are of background and labels, data.targets are regions: leave the weights out"
        )
    return RegionLoss(targets, REGION_LOSSES[name](**options))


def _dice(*, batch: bool = True) -> list[tuple[float, _Part]]:
    return [(1.0, _Overlap(DiceLoss(batch=batch)))]


def _dice_ce(*, batch: bool = True, ce_weight: float = 1.0) -> list[tuple[float, _Part]]:
    return [*_dice(batch=batch), (ce_weight, _BinaryCrossEntropy())]


def _dice_focal(*, batch: bool = True, gamma: float = 2.0) -> list[tuple[float, _Part]]:
    return [*_dice(batch=batch), (1.0, _BinaryCrossEntropy(gamma=gamma))]


def _tversky(*, alpha: float = 0.3, beta: float = 0.7, batch: bool = True) -> list[tuple[float, _Part]]:
    return [(1.0, _Overlap(TverskyLoss(alpha=alpha, beta=beta, batch=batch)))]


def _topk_ce(*, fraction: float = 0.1) -> list[tuple[float, _Part]]:
    return [(1.0, _BinaryCrossEntropy(fraction=fraction))]


REGION_LOSSES: dict[str, Any] = {
    "dice": _dice,
    "dice_ce": _dice_ce,
    "dice_focal": _dice_focal,
    "tversky": _tversky,
    "topk_ce": _topk_ce,
}

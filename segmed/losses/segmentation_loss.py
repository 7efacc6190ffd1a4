"""Logits and labels -> one number: Dice, cross-entropy and related losses; voxels marked 255 are ignored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, TverskyLoss
from monai.networks import one_hot
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.labels import IGNORE

SMALLEST = 1e-7
SMOOTHING = 1e-5  # voxels added to both sides of a Dice, as MONAI does: 1 where there is nothing to find and to see


class SegmentationLoss(nn.Module, ABC):
    """Logits (B, C, *spatial) and labels (B, *spatial) -> scalar in fp32, under autocast too.

    Labels are whole numbers, 0 for background, up to C - 1; voxels of `IGNORE` change neither the value nor any
    gradient, and a batch that holds nothing else gives 0.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (B, C, *spatial), C at least 2, before softmax.
            labels: (B, *spatial), integer.

        Raises:
            NetworkError: the shapes do not fit together, or there is one class only.
        """
        if logits.dim() < 3 or logits.shape[1] < 2 or labels.shape != logits.shape[:1] + logits.shape[2:]:
            raise NetworkError(
                f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit: give (B, C, *spatial) "
                "with at least 2 classes, and (B, *spatial)"
            )
        with torch.autocast(logits.device.type, enabled=False):
            return self.compute(logits.float(), labels)

    @abstractmethod
    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of fp32 logits (B, C, *spatial) and labels (B, *spatial)."""


class Dice(SegmentationLoss):
    """1 - soft Dice, the mean over labels without background.

    Args:
        batch: sums run over the batch; else each image has its own Dice, and the loss is the mean.

    Source: Milletari et al. 2016, arXiv 1606.04797, with the unsquared sums of Drozdzal et al. 2016.
    """

    def __init__(self, *, batch: bool = True) -> None:
        super().__init__()
        self.loss = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=batch, ignore_index=IGNORE)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss(logits, labels[:, None])


class Tversky(SegmentationLoss):
    """1 - Tversky index, the mean over labels without background: Dice with its two kinds of errors weighed apart.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives; both 0.5 give Dice.
        batch: sums run over the batch.

    Source: Salehi et al. 2017, arXiv 1706.05721, eq. 3.
    """

    def __init__(self, *, alpha: float = 0.3, beta: float = 0.7, batch: bool = True) -> None:
        super().__init__()
        self.loss = TverskyLoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            alpha=alpha,
            beta=beta,
            batch=batch,
            ignore_index=IGNORE,
        )

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss(logits, labels[:, None])


class GeneralisedDice(SegmentationLoss):
    """1 - Dice of all labels together without background, each weighted by the inverse square of its volume.

    A label that is not there has the weight of the smallest that is. Only the ratios of weights act, so they are
    taken to the smallest label: sums stay of the size of volumes, and the smoothing is nothing beside them.

    Args:
        batch: volumes and sums run over the batch; else each image has its own Dice, and the loss is the mean.

    Source: Sudre et al. 2017, arXiv 1707.03237.
    """

    def __init__(self, *, batch: bool = True) -> None:
        super().__init__()
        self.batch = batch

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        counted = (labels != IGNORE)[:, None]
        reference = (one_hot(torch.where(counted, labels[:, None], 0), logits.shape[1]) * counted)[:, 1:]
        probabilities = (logits.softmax(dim=1) * counted)[:, 1:]
        axes = [0, *range(2, logits.dim())] if self.batch else list(range(2, logits.dim()))
        volumes, predicted, both = (x.sum(axes) for x in (reference, probabilities, reference * probabilities))
        smallest = torch.where(volumes > 0, volumes, math.inf).amin(-1, keepdim=True)
        present = (volumes > 0) & smallest.isfinite()
        weights = torch.where(present, smallest / volumes.clamp(min=1), 1.0).square()
        overlap, total = (2 * weights * both).sum(-1), (weights * (predicted + volumes)).sum(-1)
        return (1 - (overlap + SMOOTHING) / (total + SMOOTHING)).mean()


class CrossEntropy(SegmentationLoss):
    """Cross-entropy, the weighted mean over the voxels that count.

    Args:
        class_weights: of background and labels.
    """

    def __init__(self, *, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.weights = _Weights(class_weights)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = self.weights(logits)
        total = F.cross_entropy(logits, labels.long(), weight, ignore_index=IGNORE, reduction="sum")
        if weight is None:
            return total / (labels != IGNORE).sum().clamp(min=1)
        counts = torch.stack([(labels == index).sum() for index in range(len(weight))])
        return total / (counts * weight).sum().clamp(min=SMALLEST)


class TopKCrossEntropy(SegmentationLoss):
    """Cross-entropy of the hardest voxels of the batch.

    Args:
        fraction: share of the voxels that count.
        class_weights: of background and labels; a voxel's weight takes part in what is hard.

    Source: Wu et al. 2016, arXiv 1605.06885, as in nnU-Net.
    """

    def __init__(self, *, fraction: float = 0.1, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not 0 < fraction <= 1:
            raise NetworkError(f"topk_ce with fraction {fraction}: give more than 0 and at most 1")
        self.fraction = fraction
        self.weights = _Weights(class_weights)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        counted = labels != IGNORE
        losses = F.cross_entropy(logits, labels.long(), self.weights(logits), ignore_index=IGNORE, reduction="none")
        return hardest_mean(losses, counted, self.fraction)


def hardest_mean(losses: Tensor, counted: Tensor, fraction: float) -> Tensor:
    """Mean over the voxels of the largest losses.

    Args:
        losses: (B, *spatial), from 0 on.
        counted: (B, *spatial) bool, the voxels that count.
        fraction: share of them that is taken.
    """
    ranked = torch.where(counted, losses, -1.0).flatten()
    hardest = ranked.topk(math.ceil(fraction * ranked.numel())).values
    # how many voxels count is known on the device only, and asking for it would stop a GPU
    wanted = (counted.sum() * fraction).ceil()
    taken = torch.arange(len(hardest), device=hardest.device) < wanted
    return torch.where(taken, hardest, 0.0).sum() / taken.sum().clamp(min=1)


class Focal(SegmentationLoss):
    """Cross-entropy of each voxel times (1 - its probability) ** gamma, the mean over the voxels that count.

    Equal to MONAI's FocalLoss with softmax where that has an `ignore_index`, in half its time: it looks at the
    probability of each voxel's own class alone. Without an `ignore_index` MONAI divides by the classes too: this loss
    is then MONAI's times the number of classes. So gamma 0 is cross-entropy, with any number of classes.

    Args:
        gamma: focus on hard voxels; 0 is cross-entropy.
        class_weights: of background and labels.

    Source: Lin et al. 2017, arXiv 1708.02002.
    """

    def __init__(self, *, gamma: float = 2.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if gamma < 0:
            raise NetworkError(f"focal loss with gamma {gamma}: give a number from 0 on")
        self.gamma = gamma
        self.weights = _Weights(class_weights)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = self.weights(logits)
        counted = labels != IGNORE
        losses = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="none")
        focus = (1 - torch.exp(-losses)).clamp(min=SMALLEST) ** self.gamma  # a power below 1 has no slope at 0
        if weight is not None:
            focus = focus * weight[torch.where(counted, labels, 0).long()]
        return (focus * losses).sum() / counted.sum().clamp(min=1)


class Sum(SegmentationLoss):
    """Several losses, each times its weight."""

    def __init__(self, losses: Sequence[SegmentationLoss], weights: Sequence[float]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.factors = tuple(weights)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        parts = [factor * loss(logits, labels) for factor, loss in zip(self.factors, self.losses, strict=True)]
        return torch.stack(parts).sum()


class _Weights(nn.Module):
    """Class weights that travel with their loss to its device, and must be as many as there are classes."""

    def __init__(self, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        if class_weights is not None and min(class_weights) < 0:
            raise NetworkError(f"class weights {tuple(class_weights)}: give numbers from 0 on")
        values = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("values", values, persistent=False)

    def forward(self, logits: Tensor) -> Tensor | None:
        """The weights, if `logits` (B, C, *spatial) have as many classes."""
        values = self.values
        if isinstance(values, Tensor) and len(values) != logits.shape[1]:
            raise NetworkError(
                f"{len(values)} class weights for {logits.shape[1]} classes: give one for background and each label"
            )
        return values  # type: ignore[return-value]


def segmentation_loss(name: str, *, class_weights: Sequence[float] | None = None, **options: Any) -> SegmentationLoss:
    """A loss by its name in a config.

    Args:
        name: dice, dice_ce, dice_focal, tversky, generalised_dice or topk_ce.
        class_weights: of background and labels, in the part that is a cross-entropy.
        options: of that loss: batch, ce_weight, gamma, alpha, beta, fraction.

    Raises:
        NetworkError: a name or an option is not known, or the loss has no cross-entropy for weights to act on.
    """
    if name not in LOSSES:
        raise NetworkError(f"no loss '{name}': choose {', '.join(LOSSES)}")
    if class_weights is not None:
        if name not in WEIGHTED:
            raise NetworkError(
                f"loss '{name}' has no cross-entropy for class weights to act on: choose {', '.join(WEIGHTED)}"
            )
        options["class_weights"] = class_weights
    try:
        return LOSSES[name](**options)
    except TypeError as error:
        raise NetworkError(f"loss '{name}': {str(error).split('() ')[-1]}") from error


def _dice_ce(*, batch: bool = True, ce_weight: float = 1.0, class_weights: Sequence[float] | None = None) -> Sum:
    return Sum([Dice(batch=batch), CrossEntropy(class_weights=class_weights)], [1.0, ce_weight])


def _dice_focal(*, batch: bool = True, gamma: float = 2.0, class_weights: Sequence[float] | None = None) -> Sum:
    """Dice + `Focal`: MONAI's `FocalLoss(use_softmax=True)` times the classes (its `DiceFocalLoss` takes sigmoids)."""
    return Sum([Dice(batch=batch), Focal(gamma=gamma, class_weights=class_weights)], [1.0, 1.0])


LOSSES: dict[str, Any] = {
    "dice": Dice,
    "dice_ce": _dice_ce,
    "dice_focal": _dice_focal,
    "tversky": Tversky,
    "generalised_dice": GeneralisedDice,
    "topk_ce": TopKCrossEntropy,
}
WEIGHTED = ("dice_ce", "dice_focal", "topk_ce")


class DeepSupervisionLoss(nn.Module):
    """The same loss at each level; weights halve from level to level. The mean over the members of a network.

    Args:
        loss: of one level, of labels or of regions.
        levels: number of logits of a member, as a network's `supervised_levels`.
        members: of the network.

    Source: Isensee et al. 2021, Nat Methods 18:203.
    """

    def __init__(self, loss: nn.Module, levels: int, members: int = 1) -> None:
        super().__init__()
        if levels < 1:
            raise NetworkError(f"deep supervision over {levels} levels: give at least 1")
        self.loss = cast(SegmentationLoss, loss)
        halving = tuple(2.0**-level / (2 - 2.0 ** (1 - levels)) for level in range(levels))
        self.weights = tuple(weight / members for weight in halving) * members

    def forward(self, logits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Compute the weighted sum.

        Args:
            logits: (B, C, *spatial_i), finest first, of one member after the other.
            labels: (B, *spatial), integer; each level sees the nearest voxels.

        Raises:
            NetworkError: more or fewer logits than levels.
        """
        if len(logits) != len(self.weights):
            raise NetworkError(f"{len(logits)} logits for {len(self.weights)} supervised levels: give one per level")
        parts = [
            weight * self.loss(level, _nearest(labels, level.shape[2:]))
            for weight, level in zip(self.weights, logits, strict=True)
        ]
        return torch.stack(parts).sum()


def _nearest(labels: Tensor, size: Sequence[int]) -> Tensor:
    """labels (B, *spatial) -> (B, *size): voxel i of n comes from voxel floor(i * spatial / n)."""
    for axis, (have, want) in enumerate(zip(labels.shape[1:], size, strict=True), start=1):
        if have != want:
            labels = labels.index_select(axis, torch.arange(want, device=labels.device) * have // want)
    return labels

"""Logits of whole images and their classes -> one number: cross-entropy and focal loss, for mixed classes too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.errors import NetworkError


class ClassificationLoss(nn.Module):
    """Cross-entropy, or focal loss, of logits (B, K) and classes (B,) or shares of classes (B, K).

    Args:
        class_weights: one per class; the loss is the weighted mean over the images, as torch's cross-entropy has it.
        smoothing: share of the truth that is spread evenly over all classes.
        focal_gamma: each class's term is multiplied by (1 - p) to this power; 0: cross-entropy.

    Raises:
        NetworkError: a weight that is not positive, a smoothing or gamma out of range.

    Source: smoothing: Szegedy et al. 2016, arXiv 1512.00567; focal: Lin et al. 2017, arXiv 1708.02002, eq. 5.
    """

    def __init__(
        self, *, class_weights: Sequence[float] | None = None, smoothing: float = 0.0, focal_gamma: float = 0.0
    ) -> None:
        super().__init__()
        if class_weights is not None and min(class_weights, default=0.0) <= 0:
            raise NetworkError(f"class weights {tuple(class_weights)}: each must be above 0")
        if not 0 <= smoothing < 1 or focal_gamma < 0:
            raise NetworkError(f"smoothing {smoothing} and focal gamma {focal_gamma}: give 0 to below 1, and 0 or more")
        self.smoothing, self.focal_gamma = smoothing, focal_gamma
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.weights: Tensor | None
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss in fp32, under autocast too.

        Args:
            logits: (B, K), K at least 2.
            target: (B,) whole numbers below K, or (B, K) shares that sum to one.

        Raises:
            NetworkError: the shapes do not fit together.
        """
        if logits.dim() != 2 or logits.shape[1] < 2 or target.shape not in (logits.shape, logits.shape[:1]):
            raise NetworkError(
                f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit: give (B, K) with at least "
                "2 classes, and (B,) or (B, K)"
            )
        if self.weights is not None and len(self.weights) != logits.shape[1]:
            raise NetworkError(f"{len(self.weights)} class weights for {logits.shape[1]} classes: give one per class")
        with torch.autocast(logits.device.type, enabled=False):
            return self._compute(logits.float(), target)

    def _compute(self, logits: Tensor, target: Tensor) -> Tensor:
        classes = logits.shape[1]
        shares = target.float() if target.shape == logits.shape else F.one_hot(target.long(), classes).float()
        weights = torch.ones(classes, device=logits.device) if self.weights is None else self.weights
        total = (shares * weights).sum()  # of the images' true classes, before smoothing, as torch divides
        shares = (1 - self.smoothing) * shares + self.smoothing / classes
        logs = logits.log_softmax(dim=1)
        terms = -shares * weights * logs
        if self.focal_gamma:
            terms = terms * (1 - logs.exp()) ** self.focal_gamma
        return terms.sum() / total

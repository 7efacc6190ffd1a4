"""Config -> loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segmed.config import CaseClassConfig, Loss
from segmed.config.classification import ClassLoss, FocalConfig
from segmed.losses.classification_loss import ClassificationLoss
from segmed.losses.segmentation_loss import DeepSupervisionLoss, segmentation_loss
from segmed.networks.models import SegmentationModel


def build_loss(config: Loss, network: SegmentationModel) -> DeepSupervisionLoss:
    """The loss of a config, over all levels of a network's logits."""
    options = config.model_dump()
    loss = segmentation_loss(options.pop("name"), **options)
    return DeepSupervisionLoss(loss, network.supervised_levels)


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


def build_case_class_loss(head: CaseClassConfig, counts: Sequence[int]) -> ClassificationLoss:
    """The loss of a second head.

    Args:
        head: of the config.
        counts: training cases of each class, 1 or more.
    """
    weights = [sum(counts) / (len(counts) * count) for count in counts] if head.balanced else None
    return ClassificationLoss(class_weights=weights, smoothing=head.smoothing)

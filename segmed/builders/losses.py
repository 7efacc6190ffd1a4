"""Config -> loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from segmed.config import CaseClassConfig, Loss
from segmed.config.classification import ClassLoss, FocalConfig
from segmed.labels import LabelSet
from segmed.losses.classification_loss import ClassificationLoss
from segmed.losses.region_loss import region_loss
from segmed.losses.segmentation_loss import DeepSupervisionLoss, segmentation_loss
from segmed.networks.models import SegmentationModel
from segmed.targets import targets_of


def build_loss(config: Loss, network: SegmentationModel, *, labels: LabelSet | None = None) -> DeepSupervisionLoss:
    """The loss of a config, over all levels of a network's logits.

    Args:
        config: of the run.
        network: whose logits they are.
        labels: whose targets, if it has any, are the channels; none: background and labels are.
    """
    return DeepSupervisionLoss(level_loss(config, labels), network.supervised_levels, network.members)


def level_loss(config: Loss, labels: LabelSet | None) -> nn.Module:
    """The loss of a config, of one level of logits, as in `build_loss`.

    Raises:
        NetworkError: a loss that has no meaning for regions.
    """
    options = config.model_dump()
    name = options.pop("name")
    if labels is not None and labels.targets:
        return region_loss(name, targets_of(labels), **options)
    return segmentation_loss(name, **options)


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

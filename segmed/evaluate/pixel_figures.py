"""Label maps with probabilities -> what ROC and precision-recall curves say of their pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from segmed.labels import IGNORE, LabelSet
from segmed.metrics.pixel_curves import PixelCounts


def count_pixels(
    prediction: np.ndarray, reference: np.ndarray, probabilities: np.ndarray, labels: LabelSet
) -> dict[str, PixelCounts]:
    """The pixels of a case, of every label and region.

    Args:
        prediction, reference: (X, Y, Z) label indices; where the reference is IGNORE nothing counts.
        probabilities: (classes, X, Y, Z), background first; those of a region's labels are added.
        labels: their names.
    """
    counted = reference != IGNORE
    predicted, true = labels.masks(prediction[counted]), labels.masks(reference[counted])
    counts = {}
    for name in true:
        probability = probabilities[list(labels.members(name))].sum(axis=0)[counted].clip(0, 1)
        counts[name] = PixelCounts.of(probability, predicted[name], true[name])
    return counts


def added(totals: Mapping[str, PixelCounts], more: Mapping[str, PixelCounts]) -> dict[str, PixelCounts]:
    """The pixels of all cases so far and of one more, by label and region."""
    return {name: totals[name] + counts if name in totals else counts for name, counts in more.items()}


def pooled_figures(totals: Mapping[str, PixelCounts]) -> dict[str, dict[str, float | None]]:
    """Dice and areas over the pixels of all cases together, as papers on vessels give them, by label and region."""
    figures = {
        name: {"dice": counts.dice, "auc_roc": counts.auc_roc, "auc_pr": counts.auc_pr}
        for name, counts in totals.items()
    }
    return {
        name: {key: None if math.isnan(value) else value for key, value in own.items()} for name, own in figures.items()
    }

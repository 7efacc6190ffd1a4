"""Probabilities and truth of pixels -> areas under the ROC and the precision-recall curve, and counts that add up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

STEPS = 2048  # of the logit, in one unit: probabilities closer than 0.01 % of a half count as equal
LARGEST_LOGIT = 24.0  # beyond it a float32 knows no difference from 0
BINS = int(2 * LARGEST_LOGIT * STEPS) + 1


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Pixels by probability, of one image or of several together: counts add up.

    Attributes:
        inside, outside: (BINS,) int, pixels of the structure and others, by rising probability.
        predicted: pixels that were decided for the structure.
        shared: those of them that are right.
    """

    inside: np.ndarray
    outside: np.ndarray
    predicted: int
    shared: int

    @classmethod
    def of(cls, probability: np.ndarray, prediction: np.ndarray, reference: np.ndarray) -> PixelCounts:
        """Count the pixels of an image.

        Args:
            probability: (N,), from 0 to 1, of the structure.
            prediction, reference: (N,) bool.
        """
        with np.errstate(divide="ignore"):
            logits = np.log(probability, dtype=np.float64) - np.log1p(-np.asarray(probability, np.float64))
        steps = np.rint((logits.clip(-LARGEST_LOGIT, LARGEST_LOGIT) + LARGEST_LOGIT) * STEPS).astype(np.int64)
        inside = np.bincount(steps[reference], minlength=BINS)
        outside = np.bincount(steps[~reference], minlength=BINS)
        return cls(inside, outside, int(prediction.sum()), int((prediction & reference).sum()))

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(
            self.inside + other.inside,
            self.outside + other.outside,
            self.predicted + other.predicted,
            self.shared + other.shared,
        )

    @property
    def auc_roc(self) -> float:
        """Probability that a pixel of the structure has a higher one than another pixel; NaN where a side is empty."""
        pairs = float(self.inside.sum()) * float(self.outside.sum())
        if not pairs:
            return math.nan
        below = np.cumsum(self.outside) - self.outside
        return float(self.inside @ (below + self.outside / 2)) / pairs

    @property
    def auc_pr(self) -> float:
        """Average precision, the area under the precision-recall curve in steps; NaN where nothing is inside."""
        true = float(self.inside.sum())
        if not true:
            return math.nan
        right, all_above = (np.cumsum(counts[::-1]) for counts in (self.inside, self.inside + self.outside))
        return float(self.inside[::-1] @ (right / np.maximum(all_above, 1))) / true

    @property
    def dice(self) -> float:
        """Of all pixels together; 1 where there is nothing to find and nothing was found."""
        size = self.predicted + int(self.inside.sum())
        return 2 * self.shared / size if size else 1.0

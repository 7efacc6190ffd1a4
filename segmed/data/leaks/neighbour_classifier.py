"""The effect of a leak: accuracy of a nearest-neighbour classifier on pixels, split by picture and by group."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

FOLDS = 5


@dataclass(frozen=True)
class NeighbourScore:
    """Cross-validated figures of the nearest neighbour.

    Attributes:
        accuracy, balanced_accuracy: over all pictures, each predicted once.
        majority: share of the largest class, the accuracy of a constant answer.
        folds: of the cross-validation.
    """

    accuracy: float
    balanced_accuracy: float
    majority: float
    folds: int


def neighbour_score(
    pictures: np.ndarray, labels: Sequence[int], groups: Sequence[str] | None = None, *, seed: int = 0
) -> NeighbourScore | None:
    """Give each picture the class of the one with the nearest pixels in the other folds.

    Args:
        pictures: (N, D) grey values of small copies of one size.
        labels: class of each.
        groups: what stays together (subjects, groups of twins); None: every picture by itself, as most tutorials split.
        seed: of the folds.

    Returns:
        None where fewer than two groups or pictures of a class are left to split.
    """
    truth = np.asarray(labels)
    units = (
        np.arange(len(truth)) if groups is None else np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    )
    folds = min(FOLDS, fewest_groups(truth, units))
    if folds < 2:
        return None
    model = KNeighborsClassifier(n_neighbors=1, algorithm="brute")
    values = np.asarray(pictures, dtype=np.float32).reshape(len(truth), -1)
    grouped = groups is not None
    cut = splitter(folds, grouped, seed)
    predicted = cross_val_predict(model, values, truth, groups=units if grouped else None, cv=cut)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        balanced = float(balanced_accuracy_score(truth, predicted))
    majority = float(np.bincount(np.unique(truth, return_inverse=True)[1]).max() / len(truth))
    return NeighbourScore(float(accuracy_score(truth, predicted)), balanced, majority, folds)


def splitter(folds: int, grouped: bool, seed: int) -> StratifiedKFold | StratifiedGroupKFold:
    """Folds that share the classes out; with groups, no group stands in two."""
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    return kind(folds, shuffle=True, random_state=seed)


def fewest_groups(labels: np.ndarray, groups: np.ndarray) -> int:
    """Number of groups of the class with the second most: cross-validation needs two classes in every fold."""
    counts = sorted(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    return counts[-2] if len(counts) > 1 else 0

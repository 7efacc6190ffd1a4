"""Balanced accuracy of the class from features without anatomy: size, aspect, brightness, file type, border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from segmed.data.leaks.neighbour_classifier import FOLDS, fewest_groups, splitter

TOGETHER = "together"
RESAMPLES = 1000
SURE = 0.01  # p-value from which chance is ruled out
MATTERS = 0.1  # of balanced accuracy above chance, from which it is worth a line


@dataclass(frozen=True)
class Shortcut:
    """A feature and how well it predicts the class alone.

    Attributes:
        feature: its name, or `together`.
        balanced_accuracy: mean recall of the classes, cross-validated by group.
        chance: one in the number of classes.
        chance_low, chance_high: between which 95 % of the figures lie when the groups' classes are exchanged at random.
        p: share of these figures that reach `balanced_accuracy`.
    """

    feature: str
    balanced_accuracy: float
    chance: float
    chance_low: float
    chance_high: float
    p: float

    @property
    def tells(self) -> bool:
        """Whether the feature predicts the class significantly, and well enough to matter."""
        return self.p <= SURE and self.balanced_accuracy >= self.chance + MATTERS


def find_shortcuts(
    features: Mapping[str, np.ndarray], labels: Sequence[int], groups: Sequence[str], *, seed: int = 0
) -> tuple[Shortcut, ...]:
    """Balanced accuracy of a small tree on each feature, and on all together; nothing where folds can't be made.

    Args:
        features: name -> (N,) or (N, D) numbers; those that are the same for all pictures are left out.
        labels: class of each picture.
        groups: what stays together, say subjects or groups of twins.
        seed: of folds and permutations.
    """
    truth = np.unique(np.asarray(labels), return_inverse=True)[1]
    units = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    columns = {name: np.asarray(values, dtype=np.float64).reshape(len(truth), -1) for name, values in features.items()}
    columns = {name: values for name, values in columns.items() if (values != values[:1]).any()}
    if not columns or min(FOLDS, fewest_groups(truth, units)) < 2:
        return ()
    if len(columns) > 1:
        columns[TOGETHER] = np.concatenate(list(columns.values()), axis=1)
    return tuple(_scored(name, values, truth, units, seed) for name, values in columns.items())


def one_hot(names: Sequence[str]) -> np.ndarray:
    """(N, number of different names), 0 and 1."""
    known, codes = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    return np.eye(len(known))[codes]


def _scored(name: str, values: np.ndarray, truth: np.ndarray, units: np.ndarray, seed: int) -> Shortcut:
    folds = min(FOLDS, fewest_groups(truth, units))
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=3, class_weight="balanced", random_state=seed)
    predicted = cross_val_predict(tree, values, truth, groups=units, cv=splitter(folds, True, seed))
    accuracy = _balanced(truth, predicted)
    drawn = _by_chance(truth, predicted, units, seed)
    low, high = np.quantile(drawn, [0.025, 0.975])
    p = (1 + int((drawn >= accuracy).sum())) / (1 + RESAMPLES)
    return Shortcut(name, accuracy, 1 / (int(truth.max()) + 1), float(low), float(high), p)


def _by_chance(truth: np.ndarray, predicted: np.ndarray, units: np.ndarray, seed: int) -> np.ndarray:
    """(RESAMPLES,) balanced accuracies of the same answers when the groups exchange their classes.

    A group with several classes, say a subject before and after, is as many groups here.
    """
    generator = np.random.default_rng(seed)
    _, first, blocks = np.unique(np.stack([units, truth]), axis=1, return_index=True, return_inverse=True)
    own = truth[first]
    places = np.stack([blocks, predicted])
    pairs, counts = np.unique(places, axis=1, return_counts=True)  # of each group: how often each answer was given
    drawn = np.stack([generator.permutation(own) for _ in range(RESAMPLES)])[:, pairs[0]]
    figures = np.zeros((int(truth.max()) + 1, RESAMPLES))
    for number, recall in enumerate(figures):
        those = (drawn == number) * counts
        recall[:] = those[:, pairs[1] == number].sum(axis=1) / np.maximum(those.sum(axis=1), 1)
    return figures.mean(axis=0)


def _balanced(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall of the classes."""
    counts = np.bincount(truth)
    right = np.bincount(truth[truth == predicted], minlength=len(counts))
    return float((right / counts).mean())

"""Probabilities of images -> probabilities of their subjects."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from segmed.errors import MetricError
from segmed.metrics.class_figures import check_probabilities

PoolingRule = Literal["mean", "vote", "max"]

_TIE = 1e-6  # weight of the mean in a vote: less than one vote of any subject with under half a million images


@dataclass(frozen=True)
class Pooled:
    """Subjects in the order in which they first appear.

    Attributes:
        subjects: S names.
        probabilities: (S, K), rows sum to one.
        truth: (S,) int; None: no truth was given.
        images: (S,) int, how many each subject has.
    """

    subjects: tuple[str, ...]
    probabilities: np.ndarray
    truth: np.ndarray | None
    images: np.ndarray


def pool_by_subject(
    probabilities: np.ndarray,
    subjects: Sequence[str] | np.ndarray,
    rule: PoolingRule = "mean",
    *,
    truth: Sequence[int] | np.ndarray | None = None,
) -> Pooled:
    """One row of probabilities a subject, from those of its images (slices).

    Args:
        probabilities: (N, K), rows sum to one.
        subjects: (N,) str.
        rule: mean: of the probabilities. vote: the share of the images whose most probable class it is; equal shares
            are told apart by the mean, which enters with a millionth. max: the largest probability of each class in
            any image, divided by their sum, for a finding that a single slice can show.
        truth: (N,) int, the label of each image.

    Raises:
        MetricError: other lengths, an unknown rule, rows that are no probabilities, or a subject whose
            images have different labels.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim != 2 or not given.size or len(subjects) != len(given):
        raise MetricError(
            f"probabilities of shape {given.shape} and {len(subjects)} subjects: give one of each an image"
        )
    if rule not in get_args(PoolingRule):
        raise MetricError(f"pooling rule {rule!r}: choose from {', '.join(get_args(PoolingRule))}")
    check_probabilities(given)
    names = tuple(dict.fromkeys(str(subject) for subject in subjects))
    unit = unit_numbers([str(subject) for subject in subjects])
    images = np.bincount(unit, minlength=len(names))
    mean = _sums(given, unit, len(names)) / images[:, None]
    if rule == "vote":
        votes = np.eye(given.shape[1])[given.argmax(axis=1)]
        shares = _sums(votes, unit, len(names)) / images[:, None]
        pooled = (1 - _TIE) * shares + _TIE * mean
    elif rule == "max":
        largest = np.zeros_like(mean)
        np.maximum.at(largest, unit, given)
        pooled = largest / largest.sum(axis=1, keepdims=True)
    else:
        pooled = mean
    return Pooled(names, pooled, None if truth is None else _labels(np.asarray(truth), unit, names), images)


def unit_numbers(subjects: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """(N,) int, the number of each case's subject, counted in the order in which they first appear."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(subject, len(number)) for subject in subjects], dtype=np.intp)


def _sums(values: np.ndarray, unit: np.ndarray, units: int) -> np.ndarray:
    result = np.zeros((units, values.shape[1]))
    np.add.at(result, unit, values)
    return result


def _labels(truth: np.ndarray, unit: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    if truth.shape != unit.shape:
        raise MetricError(f"truth of shape {truth.shape} for {len(unit)} images: give one label per image")
    labels = np.zeros(len(names), dtype=np.intp)
    labels[unit] = truth
    mixed = np.flatnonzero(labels[unit] != truth)
    if mixed.size:
        subject = unit[mixed[0]]
        values = ", ".join(str(label) for label in np.unique(truth[unit == subject]))
        raise MetricError(
            f"subject {names[subject]} has images of the labels {values}: "
            "a subject needs one label to be pooled; mend the labels or take the figures by image"
        )
    return labels

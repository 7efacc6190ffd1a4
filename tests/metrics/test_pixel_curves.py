"""Curves over pixels: areas are those of scikit-learn, and counts of several images add up."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from segmed.metrics.pixel_curves import PixelCounts


def counts(probability, reference) -> PixelCounts:
    probability, reference = np.asarray(probability, np.float32), np.asarray(reference, bool)
    return PixelCounts.of(probability, probability > 0.5, reference)


def test_areas_of_four_pixels_are_those_of_a_hand():
    four = counts([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0])
    assert four.auc_roc == 0.75  # three of the four pairs are in order
    assert four.auc_pr == pytest.approx((1 + 2 / 3) / 2)
    assert four.dice == 0.5


def test_equal_probabilities_count_half():
    assert counts([0.5, 0.5, 0.5], [1, 0, 0]).auc_roc == 0.5
    assert counts([0.5, 0.5, 0.5], [1, 0, 0]).auc_pr == pytest.approx(1 / 3)


def test_areas_are_those_of_scikit_learn_up_to_the_fourth_place():
    rng = np.random.default_rng(0)
    reference = rng.random(20_000) < 0.12
    probability = 1 / (1 + np.exp(-rng.normal(np.where(reference, 3, -6), 3))).astype(np.float32)
    own = counts(probability, reference)
    assert own.auc_roc == pytest.approx(roc_auc_score(reference, probability), abs=2e-5)
    assert own.auc_pr == pytest.approx(average_precision_score(reference, probability), abs=2e-5)


def test_counts_of_two_images_are_those_of_all_their_pixels():
    rng = np.random.default_rng(1)
    probability, reference = rng.random((2, 500)), rng.random((2, 500)) < 0.3
    together = counts(probability[0], reference[0]) + counts(probability[1], reference[1])
    whole = counts(probability.ravel(), reference.ravel())
    assert (together.auc_roc, together.auc_pr, together.dice) == (whole.auc_roc, whole.auc_pr, whole.dice)


def test_certain_probabilities_are_the_ends_of_the_curve():
    assert counts([1.0, 0.0], [1, 0]).auc_roc == 1
    assert counts([1.0, 0.0], [0, 1]).auc_roc == 0


def test_without_a_structure_there_is_no_area():
    empty = counts([0.1, 0.2], [0, 0])
    assert math.isnan(empty.auc_roc)
    assert math.isnan(empty.auc_pr)
    assert empty.dice == 1

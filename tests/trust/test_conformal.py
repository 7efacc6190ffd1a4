"""Bounds that hold at a level: exact coverage by enumeration, what few subjects bear, subjects of several cases."""

import math

import numpy as np
import pytest

from segmed.errors import MetricError
from segmed.trust.conformal import check_level, lower_bound, subject_weights, subjects_needed, upper_bound
from segmed.trust.left_out import LeftOut


def covered(values: np.ndarray, level: float) -> float:
    """In how many of all orders the last of N exchangeable values lies below the bound of the others."""
    inside = 0
    for new in range(len(values)):
        others = np.delete(values, new)
        inside += values[new] <= upper_bound(others, subject_weights(range(len(others))), level)
    return inside / len(values)


@pytest.mark.parametrize(("calibration", "level"), [(9, 0.9), (19, 0.9), (24, 0.9), (12, 0.8), (100, 0.95), (3, 0.5)])
def test_coverage_is_exactly_what_conformal_prediction_promises(calibration, level):
    values = np.random.default_rng(0).standard_cauchy(calibration + 1)
    assert covered(values, level) == pytest.approx(math.ceil(level * (calibration + 1)) / (calibration + 1))
    assert covered(values, level) >= level


def test_a_lower_bound_mirrors_the_upper_one():
    values, weights = np.array([3.0, 1.0, 2.0, 5.0]), subject_weights([0, 1, 2, 3])
    assert upper_bound(values, weights, 0.8) == 5.0
    assert upper_bound(values, weights, 0.6) == 3.0
    assert lower_bound(values, weights, 0.8) == 1.0
    assert lower_bound(values, weights, 0.6) == 2.0
    assert upper_bound(values, weights, 0.9) == math.inf


def test_nine_subjects_bear_ninety_per_cent_and_three_do_not():
    assert [subjects_needed(level) for level in (0.5, 0.8, 0.9, 0.95)] == [1, 4, 9, 19]
    check_level(0.9, 9)
    with pytest.raises(MetricError, match=r"^3 subjects bear a level of 75 % at most, 90 % needs 9: "):
        check_level(0.9, 3)
    with pytest.raises(MetricError, match=r"88\.8 % at most"):
        check_level(0.9, 8)
    with pytest.raises(MetricError, match="between 0 and 1"):
        check_level(90, 100)


def test_a_subject_of_many_cases_counts_once():
    """Nine subjects, one with ninety cases of small errors: the bound is that of the others' largest."""
    subjects = [*range(8), *[8] * 90]
    values = np.array([*range(1, 9), *[0.0] * 90], float)
    weights = subject_weights(subjects)
    assert weights.sum() == pytest.approx(9 / 10)
    assert upper_bound(values, weights, 0.9) == 8.0
    assert upper_bound(values, subject_weights(range(98)), 0.9) < 1.0  # as if all were different subjects


def test_jackknife_plus_covers_new_cases_where_errors_grow_with_a_sign():
    """400 data sets of 30 cases, a new one each: coverage within three standard errors of the level."""
    rng, level, inside = np.random.default_rng(1), 0.9, 0
    for _ in range(400):
        signs = rng.standard_normal((31, 2))
        targets = signs @ [1.0, -0.5] + np.exp(0.5 * signs[:, 0]) * rng.standard_t(3, 31)
        fits = LeftOut(signs[:30], targets[:30], range(30))
        middle, reach = fits.predict(np.repeat(signs[30:], 30, axis=0)), np.abs(fits.residuals)
        weights = subject_weights(range(30))
        low, high = lower_bound(middle - reach, weights, level), upper_bound(middle + reach, weights, level)
        inside += low <= targets[30] <= high
    assert inside / 400 == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 400))


def test_a_residual_is_that_of_the_fit_without_its_subject():
    signs, targets = np.zeros((4, 1)), np.array([1.0, 1.0, 0.0, 5.0])
    fits = LeftOut(signs, targets, [0, 0, 1, 2])
    assert fits.residuals == pytest.approx([1 - 2.5, 1 - 2.5, 0 - 7 / 3, 5 - 2 / 3])
    assert fits.predict(np.zeros((4, 1))) == pytest.approx([2.5, 2.5, 7 / 3, 2 / 3])

"""Agreement of two measurements: ICC, limits, and what does not exist."""

import math

import numpy as np
import pytest

from segmed.metrics.agreement import agreement_of, icc_2_1

JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)


def test_icc_of_the_example_of_shrout_and_fleiss_is_the_published_one():
    assert icc_2_1(JUDGES) == pytest.approx(0.29, abs=0.005)


def test_a_constant_offset_lowers_the_icc_and_no_correlation():
    true = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    same, shifted = agreement_of(true, true), agreement_of(true + 3, true)
    assert (same.icc, same.bias, same.low, same.high) == (1, 0, 0, 0)
    assert (shifted.pearson, shifted.spearman) == (pytest.approx(1), pytest.approx(1))
    assert (shifted.bias, shifted.low, shifted.high) == (3, 3, 3)
    assert shifted.icc == pytest.approx(3.5 / (3.5 + 4.5))  # the raters' variance is that of two at 3 ml distance


def test_a_constant_prediction_has_a_bias_and_limits_but_no_correlation():
    true = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    constant = agreement_of(np.full(6, 3.5), true)
    assert math.isnan(constant.pearson)
    assert math.isnan(constant.spearman)
    assert constant.icc == pytest.approx(0)
    assert (constant.bias, constant.sd) == (0, pytest.approx(true.std(ddof=1)))
    assert constant.high == pytest.approx(1.96 * true.std(ddof=1))


def test_limits_need_six_subjects_and_not_six_cases():
    true = np.arange(10.0)
    five = agreement_of(true + 1, true, groups=list("aabbccddee"))
    assert (five.n, five.subjects, five.bias) == (10, 5, 1)
    assert all(math.isnan(value) for value in (five.low, five.high, five.icc, five.pearson))

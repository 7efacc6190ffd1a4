"""Calibration: errors of made classifiers with known calibration, and temperatures that are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import brier_score_loss

from segmed.errors import MetricError
from segmed.metrics.calibration import (
    HIGHEST,
    LOWEST,
    adaptive_calibration_error,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    reliability,
)

ERRORS = [expected_calibration_error, adaptive_calibration_error]


def simulated(cases, classes=3, *, seed=0, scale=2.0):
    """Logits, and a truth that is drawn from their softmax: perfectly calibrated."""
    generator = np.random.default_rng(seed)
    logits = scale * generator.normal(size=(cases, classes))
    cumulated = softmax(logits, axis=1).cumsum(axis=1)
    truth = np.minimum((generator.random((cases, 1)) > cumulated).sum(axis=1), classes - 1)
    return logits, truth


@pytest.mark.parametrize("error", ERRORS)
def test_a_classifier_whose_truth_is_drawn_from_its_probabilities_has_an_error_near_zero(error):
    logits, truth = simulated(40_000)
    assert error(truth, softmax(logits, axis=1)) < 0.01
    assert error(truth, softmax(3 * logits, axis=1)) > 0.08


@pytest.mark.parametrize("error", ERRORS)
def test_always_sure_and_right_half_of_the_time_is_an_error_of_one_half(error):
    assert error([0, 1, 0, 1], np.eye(2)[[0, 0, 0, 0]]) == pytest.approx(0.5)
    assert error([0, 0, 0, 0], np.eye(2)[[0, 0, 0, 0]]) == 0


def test_calibration_errors_of_four_cases_by_hand():
    rows = np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1], [0.05, 0.95]])
    truth = [0, 1, 0, 1]
    # two bins of equal width: all lie in the upper one, |0.7875 - 0.75|; of equal number: |0.65 - 0.5|, |0.925 - 1|
    assert expected_calibration_error(truth, rows, bins=2) == pytest.approx(0.0375)
    assert adaptive_calibration_error(truth, rows, bins=2) == pytest.approx((0.15 + 0.075) / 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 20))
def test_no_calibration_error_exceeds_one_and_finer_bins_never_lower_that_of_nested_ones(seed, bins):
    logits, truth = simulated(30, seed=seed)
    rows = softmax(logits, axis=1)
    coarse = expected_calibration_error(truth, rows, bins=bins)
    assert 0 <= coarse <= expected_calibration_error(truth, rows, bins=2 * bins) + 1e-12 <= 1 + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000))
def test_the_adaptive_error_does_not_depend_on_the_order_of_tied_cases(seed):
    generator = np.random.default_rng(seed)
    confidence = generator.choice([0.6, 0.7, 0.8], 20)
    rows, truth = np.stack([confidence, 1 - confidence], axis=1), generator.integers(0, 2, 20)
    order = generator.permutation(20)
    error = adaptive_calibration_error(truth, rows, bins=5)
    assert adaptive_calibration_error(truth[order], rows[order], bins=5) == pytest.approx(error)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_brier_score_is_that_of_scikit_learn(classes):
    logits, truth = simulated(200, classes)
    rows = softmax(logits, axis=1)
    peer = brier_score_loss(truth, rows[:, 1] if classes == 2 else rows)
    assert brier_score(truth, rows) == pytest.approx(peer)


def test_the_brier_score_of_a_fair_coin_is_a_quarter():
    assert brier_score([0, 1], np.full((2, 2), 0.5)) == 0.25


def test_the_reliability_table_counts_every_case_once_and_knows_empty_bins():
    rows = np.array([[0.55, 0.45], [0.7, 0.3], [0.9, 0.1], [0.0, 1.0]])
    table = reliability([0, 1, 0, 1], rows, bins=5)
    assert [each.cases for each in table] == [0, 0, 1, 1, 2]
    assert [(each.low, each.high) for each in table][-1] == pytest.approx((0.8, 1.0))
    assert (table[-1].confidence, table[-1].frequency) == pytest.approx((0.95, 1.0))
    assert math.isnan(table[0].confidence)
    assert math.isnan(table[0].frequency)


def test_a_probability_on_an_edge_belongs_to_the_bin_below():
    assert [each.cases for each in reliability([0, 1], np.full((2, 2), 0.5), bins=4)] == [0, 2, 0, 0]


def test_the_reliability_of_the_positive_class_looks_at_its_probability_alone():
    rows = np.array([[0.9, 0.1], [0.85, 0.15], [0.2, 0.8], [1.0, 0.0]])
    table = reliability([0, 1, 1, 0], rows, bins=4, positive=1)
    assert [each.cases for each in table] == [3, 0, 0, 1]
    assert (table[0].confidence, table[0].frequency) == pytest.approx((0.25 / 3, 1 / 3))
    assert (table[3].confidence, table[3].frequency) == (0.8, 1.0)


# ---------------------------------------------------------------- temperature


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0, 10.0])
def test_the_factor_that_logits_were_multiplied_by_is_found_again(factor):
    logits, truth = simulated(5_000)
    unscaled = fit_temperature(logits, truth)
    assert unscaled.value == pytest.approx(1, abs=0.08)
    temperature = fit_temperature(factor * logits, truth)
    assert temperature.value == pytest.approx(factor * unscaled.value, rel=1e-4)
    assert temperature.nll_after == pytest.approx(unscaled.nll_after, rel=1e-8)
    assert temperature.nll_after <= temperature.nll_before
    assert (temperature.bounded, temperature.note) == (False, "")
    assert expected_calibration_error(truth, temperature.apply(factor * logits)) < 0.03


def test_log_probabilities_do_as_well_as_logits():
    logits, truth = simulated(500)
    rows = np.log(softmax(3 * logits, axis=1))
    assert fit_temperature(rows, truth).value == pytest.approx(fit_temperature(3 * logits, truth).value, rel=1e-5)


def test_a_temperature_changes_no_answer():
    logits, truth = simulated(300)
    temperature = fit_temperature(5 * logits, truth)
    assert np.array_equal(temperature.apply(5 * logits).argmax(axis=1), logits.argmax(axis=1))


@pytest.mark.parametrize("last", [[1.0, -1.0], [1.0, 1.0]], ids=["clear", "tied"])
def test_cases_that_are_all_right_leave_the_temperature_at_one_and_say_so(last):
    logits = np.array([[2.0, 0.0], [0.0, 0.1], last])
    temperature = fit_temperature(logits, [0, 1, 0])
    assert (temperature.value, temperature.bounded) == (1.0, True)
    assert temperature.nll_before == temperature.nll_after > 0
    assert "all 3 cases are right" in temperature.note


def test_logits_that_are_worse_than_a_guess_stop_at_the_highest_temperature_and_say_so():
    logits, truth = simulated(500)
    temperature = fit_temperature(-logits, truth)
    assert temperature.bounded
    assert temperature.value == pytest.approx(HIGHEST, rel=0.01)
    assert temperature.nll_after < temperature.nll_before
    assert "no optimum between 0.01 and 100" in temperature.note


def test_one_faint_error_among_sure_cases_does_not_pass_the_lowest_temperature():
    logits = np.array([[1e-3, 0.0]] * 1000 + [[1e-9, 0.0]])
    temperature = fit_temperature(logits, [0] * 1000 + [1])
    assert temperature.bounded
    assert temperature.value == pytest.approx(LOWEST, rel=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_temperature([[1.0, math.inf], [0.0, 1.0]], [0, 1]), "logits of case 0"),
        (lambda: fit_temperature([1.0, 2.0], [0, 1]), r"logits of shape \(2,\)"),
        (lambda: fit_temperature(np.zeros((3, 2)), [0, 1]), r"shape \(3, 2\) for 2 cases"),
        (lambda: brier_score([0, 1], np.full((2, 2), math.nan)), "case 0 are"),
        (lambda: brier_score([0, 1], [0.5, 0.5]), r"give \(cases, classes\)"),
        (lambda: reliability([0, 1], np.eye(2), bins=0), "0 bins"),
        (lambda: reliability([0, 1], np.eye(2), positive=2), "class 2 of 2"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(call, message):
    with pytest.raises(MetricError, match=message):
        call()

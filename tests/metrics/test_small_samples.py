"""Intervals over few subjects: how often they hold the truth, and where there is none."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm, rankdata

from segmed.metrics.calibration import calibrated_error, expected_calibration_error
from segmed.metrics.resampling import intervals
from segmed.metrics.small_samples import area, percentiles, share, share_difference, used

TWO = ("no", "yes")


def one_each(right, of):
    return share(np.repeat([1.0, 0.0], [right, of - right]), np.ones(of))


def test_a_share_of_one_case_a_subject_is_clopper_and_pearsons():
    peer = binomtest(7, 9).proportion_ci(method="exact")
    ends = one_each(7, 9)
    assert (ends.low, ends.high) == pytest.approx((peer.low, peer.high))
    assert ends.method == "Clopper-Pearson"


@pytest.mark.parametrize("subjects", [6, 10, 19])
@pytest.mark.parametrize("truth", [0.5, 0.7, 0.9, 0.97])
def test_a_share_of_one_case_a_subject_covers_its_truth(subjects, truth):
    every = [one_each(right, subjects) for right in range(subjects + 1)]
    held = [ends.low <= truth <= ends.high for ends in every]
    assert binom.pmf(np.arange(subjects + 1), subjects, truth) @ held >= 0.95


@pytest.mark.parametrize("subjects", [6, 10, 19])
@pytest.mark.parametrize(("truth", "alike"), [(0.7, 0.3), (0.9, 0.3), (0.9, 0.9), (0.97, 0.9)])
def test_a_share_of_subjects_of_unequal_size_covers_its_truth(subjects, truth, alike):
    generator = np.random.default_rng(subjects)
    spread = (1 - alike) / alike
    held = 0
    for _ in range(200):
        counts = generator.integers(1, 30, subjects)
        own = generator.beta(truth * spread, (1 - truth) * spread, subjects)
        ends = share(generator.binomial(counts, own).astype(float), counts.astype(float))
        held += ends.low <= truth <= ends.high
    assert held / 200 >= 0.95


@pytest.mark.parametrize(("positives", "negatives"), [(6, 6), (6, 13), (9, 10)])
@pytest.mark.parametrize("truth", [0.6, 0.8, 0.9, 0.97])
def test_an_area_of_normal_scores_covers_its_truth(positives, negatives, truth):
    generator = np.random.default_rng(positives)
    scores = generator.normal(size=(500, positives + negatives))
    scores[:, :positives] += norm.ppf(truth) * math.sqrt(2)
    ranks = rankdata(scores, axis=1)[:, :positives].sum(axis=1)
    areas = (ranks - positives * (positives + 1) / 2) / (positives * negatives)
    ends = {value: area(value, positives, negatives) for value in np.unique(areas)}
    assert 0.92 <= np.mean([ends[value].low <= truth <= ends[value].high for value in areas]) <= 0.99


def test_a_perfect_area_of_few_has_a_lower_end_and_mirrors_that_of_none():
    perfect, none = area(1.0, 8, 6), area(0.0, 6, 8)
    assert (perfect.high, none.low) == (1, 0)
    assert 0.6 < perfect.low < 0.8
    assert none.high == pytest.approx(1 - perfect.low)


@pytest.mark.parametrize("subjects", [6, 10, 19])
@pytest.mark.parametrize("right", [(0.8, 0.8), (0.9, 0.7), (0.95, 0.85), (0.99, 0.9)])
def test_a_difference_of_shares_covers_its_truth_even_where_both_often_agree(subjects, right):
    generator = np.random.default_rng(subjects)
    held = 0
    for _ in range(300):
        fate = generator.random(subjects)
        other = np.where(generator.random(subjects) < 0.8, fate, generator.random(subjects))
        ends = share_difference((fate < right[0]) * 1.0 - (other < right[1]), np.ones(subjects))
        held += ends.low <= right[0] - right[1] <= ends.high
    assert held / 300 >= 0.95


def test_a_difference_of_none_has_a_width():
    ends = share_difference(np.zeros(8), np.ones(8))
    assert (ends.low, ends.high) == pytest.approx((-1.96 * math.sqrt(0.02), 1.96 * math.sqrt(0.02)), rel=1e-4)


def test_below_six_there_is_no_interval_of_anything():
    ends = [one_each(4, 5), area(0.8, 5, 30), share_difference(np.ones(5), np.ones(5)), percentiles(np.ones(9), 19)]
    assert all(math.isnan(each.low) and math.isnan(each.high) for each in ends)
    assert [each.method for each in ends] == [
        "none below 6 subjects", "none below 6 subjects of a class", "none below 6 subjects", "none below 20 subjects",
    ]  # fmt: skip
    assert percentiles(np.ones(9), 30, smallest_class=5).method == "none below 6 subjects of a class"


def test_figures_of_ten_subjects_have_intervals_where_a_method_covers_and_reasons_elsewhere():
    generator = np.random.default_rng(0)
    truth = np.arange(14) % 2
    scores = np.clip(0.5 + 0.2 * (2 * truth - 1) + generator.normal(0, 0.2, 14), 0.01, 0.99)
    rows = np.stack([1 - scores, scores], axis=1)
    drawn = intervals(truth, rows, TWO, [str(number) for number in range(14)], resamples=50)
    methods = {key: interval.method for key, interval in drawn.overall.items()}
    assert (methods["accuracy"], methods["auc"]) == ("Clopper-Pearson", "Newcombe")
    assert methods["macro_f1"] == methods["log_loss"] == methods["balanced_accuracy"] == "none below 20 subjects"
    assert drawn.per_class["yes"]["recall"].method == "Clopper-Pearson"
    assert math.isnan(drawn.overall["macro_f1"].low)
    twice = intervals(np.repeat(truth, 2), np.repeat(rows, 2, axis=0), TWO, np.repeat(np.arange(14), 2).astype(str))
    assert twice.overall["auc"].method == "none below 20 subjects"
    assert twice.overall["accuracy"].low <= drawn.overall["accuracy"].low  # copies tell nothing new


def test_methods_are_named_with_what_they_are_of():
    text = used([("accuracy", "Clopper-Pearson"), ("F1", "none below 20 subjects"), ("recall", "Clopper-Pearson")])
    assert text == "Clopper-Pearson (accuracy, recall); none below 20 subjects (F1)"


def test_the_calibration_error_of_calibrated_probabilities_is_the_bias_that_is_said():
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 60)
    rows = np.stack([1 - confidence, confidence], axis=1)
    every = [(generator.random(60) < confidence).astype(int) for _ in range(400)]
    errors = np.array([expected_calibration_error(truth, rows) for truth in every])
    said = calibrated_error(rows, seed=1)
    assert said.mean == pytest.approx(errors.mean(), abs=0.006)
    assert said.mean > 0.08
    assert np.mean((said.low <= errors) & (errors <= said.high)) == pytest.approx(0.95, abs=0.03)


def test_the_calibration_error_of_an_overconfident_classifier_lies_outside_what_chance_gives():
    rows = np.tile([0.05, 0.95], (60, 1))
    truth = (np.arange(60) % 3 > 0).astype(int)
    assert expected_calibration_error(truth, rows) == pytest.approx(0.95 - 2 / 3)
    assert expected_calibration_error(truth, rows) > 3 * calibrated_error(rows).high

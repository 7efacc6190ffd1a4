"""Thresholds of the positive class: chosen by brute force alike, applied as they are."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmed.errors import MetricError
from segmed.metrics.operating_points import OperatingPoint, called_positive, choose_threshold, figures_at
from segmed.metrics.statistics import bootstrap_ci

TWO = ("no", "yes")
RULES = [("best_accuracy", None), ("youden", None), ("sensitivity", 0.8), ("specificity", 0.8)]


def rows_of(scores):
    scores = np.asarray(scores, dtype=float)
    return np.stack([1 - scores, scores], axis=1)


def choose(truth, scores, rule, least=None):
    return choose_threshold(truth, rows_of(scores), TWO, positive="yes", rule=rule, least=least)


SIX = [0, 0, 1, 0, 1, 1]
SCORES = [0.1, 0.2, 0.3, 0.4, 0.6, 0.9]


@pytest.mark.parametrize(
    ("rule", "least", "threshold", "sensitivity", "specificity"),
    [
        ("best_accuracy", None, 0.25, 1, 2 / 3),  # 5 of 6, as at 0.5: the lower one
        ("youden", None, 0.25, 1, 2 / 3),
        ("sensitivity", 0.6, 0.5, 2 / 3, 1),
        ("sensitivity", 2 / 3, 0.5, 2 / 3, 1),
        ("sensitivity", 0.95, 0.25, 1, 2 / 3),
        ("specificity", 0.95, 0.5, 2 / 3, 1),
        ("specificity", 0.3, 0.25, 1, 2 / 3),
        ("specificity", 0.0, 0.25, 1, 2 / 3),
        ("sensitivity", 0.0, 0.5, 2 / 3, 1),
    ],
)
def test_thresholds_of_six_cases_by_hand(rule, least, threshold, sensitivity, specificity):
    point = choose(SIX, SCORES, rule, least)
    assert point.threshold == pytest.approx(threshold)
    assert (point.sensitivity, point.specificity) == pytest.approx((sensitivity, specificity))
    assert (point.cases, point.positive) == (6, "yes")
    assert point.rule == (rule if least is None else f"{rule} >= {least:g}")


samples = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0, 0.1, 0.25, 0.5, 0.7, 0.9, 1])), min_size=2, max_size=12
).filter(lambda cases: {truth for truth, _ in cases} == {0, 1})


def counted(truth, scores, threshold):
    called = scores >= threshold
    own = truth == 1
    return (called & own).sum() / own.sum(), (~called & ~own).sum() / (~own).sum(), (called == own).mean()


@settings(max_examples=40, deadline=None)
@given(samples, st.sampled_from(RULES))
def test_no_other_threshold_is_better_by_the_rule(cases, rule):
    truth, scores = (np.array(side) for side in zip(*cases, strict=True))
    point = choose(truth, scores, *rule)
    own = (point.sensitivity, point.specificity, point.accuracy)
    assert own == pytest.approx(counted(truth, rows_of(scores)[:, 1], point.threshold))
    for threshold in (0, *np.unique(scores), 1.1):
        sensitivity, specificity, accuracy = counted(truth, scores, threshold)
        better = {
            "best_accuracy": accuracy > point.accuracy + 1e-9,
            "youden": sensitivity + specificity > point.sensitivity + point.specificity + 1e-9,
            "sensitivity": sensitivity >= 0.8 - 1e-9 and specificity > point.specificity + 1e-9,
            "specificity": specificity >= 0.8 - 1e-9 and sensitivity > point.sensitivity + 1e-9,
        }
        assert not better[rule[0]]
    assert rule[0] != "sensitivity" or point.sensitivity >= 0.8 - 1e-9
    assert rule[0] != "specificity" or point.specificity >= 0.8 - 1e-9


@settings(max_examples=40, deadline=None)
@given(samples, st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_the_threshold_does_not_depend_on_the_order_or_on_the_number_of_copies(cases, rule, random):
    point = choose(*zip(*cases, strict=True), *rule)
    copies = list(cases) * 3
    random.shuffle(copies)
    again = choose(*zip(*copies, strict=True), *rule)
    assert again.threshold == point.threshold
    assert again.sensitivity == pytest.approx(point.sensitivity)


@settings(max_examples=40, deadline=None)
@given(samples, st.sampled_from(RULES))
def test_the_same_cases_are_called_after_any_rising_map_of_the_probabilities(cases, rule):
    truth, scores = (np.array(side) for side in zip(*cases, strict=True))
    mapped = 0.2 + 0.5 * scores**3
    one, other = choose(truth, scores, *rule), choose(truth, mapped, *rule)
    assert np.array_equal(called_positive(one, rows_of(scores), TWO), called_positive(other, rows_of(mapped), TWO))


@settings(max_examples=40, deadline=None)
@given(samples)
def test_a_larger_least_sensitivity_never_raises_the_threshold(cases):
    thresholds = [choose(*zip(*cases, strict=True), "sensitivity", least).threshold for least in (0.2, 0.5, 0.9, 1.0)]
    assert thresholds == sorted(thresholds, reverse=True)


def test_nothing_or_everything_is_called_where_that_is_best():
    nothing = choose([1, 0, 0, 0, 0], [0.5, 1.0, 1.0, 1.0, 1.0], "best_accuracy")
    assert (nothing.sensitivity, nothing.specificity) == (0, 1)
    assert 1 < nothing.threshold < math.inf
    everything = choose([0, 1, 1], [0.9, 0.0, 0.0], "sensitivity", 1.0)
    assert (everything.threshold, everything.sensitivity) == (0, 1)


@pytest.mark.parametrize("low", [0.3, np.nextafter(0.3, 1)])  # the rounded middle of two is now the one, now the other
def test_neighbours_in_floating_point_are_still_cut_apart(low):
    scores = [low, np.nextafter(low, 1)]
    assert called_positive(choose([0, 1], scores, "youden"), rows_of(scores), TWO).tolist() == [False, True]


def test_one_class_of_three_is_cut_against_the_others():
    rows = np.array([[0.1, 0.2, 0.7], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4], [0.8, 0.1, 0.1]])
    point = choose_threshold([2, 1, 2, 0], rows, ("a", "b", "c"), positive="c", rule="youden")
    assert (point.sensitivity, point.specificity, point.threshold) == (1, 1, pytest.approx(0.25))


# ---------------------------------------------------------------- on test


def test_the_figures_of_a_threshold_by_hand():
    point = OperatingPoint("youden", 0.5, 1.0, 1.0, 1.0, 10, "yes")
    point_figures = figures_at(point, [1, 1, 1, 0, 0], rows_of([0.5, 0.9, 0.4, 0.6, 0.1]), TWO)
    counts = (
        point_figures.true_positives,
        point_figures.false_positives,
        point_figures.true_negatives,
        point_figures.false_negatives,
    )
    assert counts == (2, 1, 1, 1)
    assert (point_figures.sensitivity, point_figures.specificity, point_figures.accuracy) == pytest.approx(
        (2 / 3, 1 / 2, 3 / 5)
    )
    assert (point_figures.positive_predictive_value, point_figures.negative_predictive_value) == pytest.approx(
        (2 / 3, 1 / 2)
    )
    assert (point_figures.threshold, point_figures.cases) == (0.5, 5)


def test_shares_without_a_case_to_count_are_undefined():
    point = OperatingPoint("youden", 0.5, 1.0, 1.0, 1.0, 10, "yes")
    point_figures = figures_at(point, [0, 0], rows_of([0.1, 0.2]), TWO)
    assert math.isnan(point_figures.sensitivity)
    assert math.isnan(point_figures.positive_predictive_value)
    assert (point_figures.specificity, point_figures.negative_predictive_value) == (1, 1)
    assert math.isnan(point_figures.ci95["sensitivity"][0])


def test_the_interval_of_the_sensitivity_is_that_of_the_positive_cases_by_subject():
    generator = np.random.default_rng(0)
    truth, scores = np.repeat(generator.integers(0, 2, 60), 3), generator.random(180)
    subjects = np.repeat([f"s{number}" for number in range(60)], 3)
    point = OperatingPoint("youden", 0.4, 1.0, 1.0, 1.0, 10, "yes")
    point_figures = figures_at(point, truth, rows_of(scores), TWO, subjects=subjects, resamples=200)
    own = truth == 1
    called = called_positive(point, rows_of(scores), TWO)[own].astype(float)
    assert point_figures.ci95["sensitivity"] == bootstrap_ci(called, resamples=200, groups=subjects[own].tolist())
    assert point_figures.ci95_method["sensitivity"] == "percentile bootstrap"
    assert point_figures.ci95["sensitivity"][0] < point_figures.sensitivity < point_figures.ci95["sensitivity"][1]


def test_labels_of_the_test_part_cannot_reach_the_threshold():
    point = choose(SIX, SCORES, "youden")
    rows = rows_of([0.2, 0.24, 0.26, 0.8])
    called = called_positive(point, rows, TWO)
    assert called.tolist() == [False, False, True, True]
    assert "truth" not in inspect.signature(called_positive).parameters
    for truth in ([0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0]):
        point_figures = figures_at(point, truth, rows, TWO, resamples=10)
        assert point_figures.threshold == point.threshold
        assert point_figures.true_positives + point_figures.false_positives == called.sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "luck"}, "choose from best_accuracy, youden, sensitivity, specificity"),
        ({"rule": "sensitivity"}, "sensitivity with a least of None: give one from 0 to 1"),
        ({"rule": "specificity", "least": 95}, "least of 95"),
        ({"least": 0.5}, "youden with a least of 0.5: it has none"),
        ({"positive": "maybe"}, "positive class maybe is none of no, yes"),
        ({"truth": [0] * 6}, "no case of class yes among 6 validation cases"),
        ({"truth": [1] * 6}, "no case of another class than yes"),
    ],
)
def test_a_threshold_that_cannot_be_chosen_is_refused(change, message):
    given = {"truth": SIX, "probabilities": rows_of(SCORES), "classes": TWO, "positive": "yes", "rule": "youden"}
    with pytest.raises(MetricError, match=message):
        choose_threshold(**(given | change))

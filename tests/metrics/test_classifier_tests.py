"""Two classifiers on the same cases: McNemar, DeLong and the paired bootstrap, each against another way to get it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm
from sklearn.metrics import roc_auc_score

from segmed.errors import MetricError
from segmed.metrics.class_figures import OVERALL, figures
from segmed.metrics.classifier_tests import delong, mcnemar, paired_bootstrap

# ---------------------------------------------------------------- McNemar


def answers(both, first, second, neither):
    """Truth and two classifiers' answers, with known numbers of cases that both, one or none has right."""
    truth = np.zeros(both + first + second + neither, dtype=int)
    own = np.repeat([0, 0, 1, 1], [both, first, second, neither])
    other = np.repeat([0, 1, 0, 1], [both, first, second, neither])
    return truth, own, other


def test_few_discordant_cases_have_the_exact_binomial_p():
    test = mcnemar(*answers(50, 9, 2, 5))
    assert (test.only_first, test.only_second, test.method) == (9, 2, "exact")
    assert test.p == pytest.approx(2 * binom.cdf(2, 11, 0.5))
    assert math.isnan(test.statistic)


def test_many_discordant_cases_have_the_corrected_chi_squared_p():
    test = mcnemar(*answers(10, 121, 59, 0))  # the textbook table of 121 and 59
    assert test.method == "chi2"
    assert test.statistic == pytest.approx((121 - 59 - 1) ** 2 / 180)
    assert test.p == pytest.approx(2 * norm.sf(math.sqrt(test.statistic)))
    assert mcnemar(*answers(0, 15, 15, 0)).p == 1


def test_no_discordant_case_is_a_p_of_one():
    assert mcnemar(*answers(5, 0, 0, 5)).p == 1
    assert mcnemar(*answers(5, 0, 0, 5)).by_subject is None


def test_two_classifiers_in_the_other_order_have_the_same_p():
    truth, own, other = answers(10, 30, 12, 4)
    assert mcnemar(truth, own, other).p == mcnemar(truth, other, own).p
    assert mcnemar(truth, other, own).only_first == 12


def test_ten_copies_of_every_image_lower_the_p_by_image_but_not_that_by_subject():
    truth, own, other = answers(25, 9, 4, 2)
    subjects = [f"s{number}" for number in range(40)]
    one = mcnemar(truth, own, other, subjects=subjects)
    ten = mcnemar(*(np.repeat(side, 10) for side in (truth, own, other)), subjects=np.repeat(subjects, 10))
    assert ten.p < 0.001 < 0.05 < one.p
    for key in ("difference", "p", "subjects", "draws"):
        assert getattr(ten.by_subject, key) == getattr(one.by_subject, key)
    assert one.by_subject.p > 0.05
    assert one.by_subject.difference == pytest.approx(5 / 40)
    assert one.by_subject.low < 5 / 40 < one.by_subject.high


def test_the_p_by_subject_agrees_with_the_clustered_test_of_durkalski():
    generator = np.random.default_rng(2)
    shift = np.repeat(generator.normal(0.1, 0.25, 60), 8)
    truth = np.zeros(480, dtype=int)
    own, other = generator.random(480) > 0.7 + shift, generator.random(480) > 0.7 - shift
    subjects = np.repeat([f"s{number}" for number in range(60)], 8)
    test = mcnemar(truth, own.astype(int), other.astype(int), subjects=subjects)
    each = (other.astype(float) - own).reshape(60, 8).sum(axis=1)
    z = each.sum() / math.sqrt(np.square(each).sum())
    assert test.by_subject.p == pytest.approx(2 * norm.sf(abs(z)), abs=0.02)
    assert test.p < test.by_subject.p / 2


def test_answers_of_different_cases_are_refused():
    with pytest.raises(MetricError, match=r"truth \(2,\), answers \(2,\) and \(3,\)"):
        mcnemar([0, 1], [0, 1], [0, 1, 1])
    with pytest.raises(MetricError, match="1 subjects for 2 cases"):
        mcnemar([0, 1], [0, 1], [0, 1], subjects=["a"])


# ---------------------------------------------------------------- DeLong


def by_pairs(own, scores, reference):
    """Areas and the variance of their difference from every pair of a positive and a negative case."""
    kernels = []
    for side in (scores, reference):
        positive, negative = side[own][:, None], side[~own][None]
        kernels.append((positive > negative) + 0.5 * (positive == negative))
    ten, one = (np.array([kernel.mean(axis=axis) for kernel in kernels]) for axis in (1, 0))
    covariance = np.cov(ten) / ten.shape[1] + np.cov(one) / one.shape[1]
    contrast = np.array([1, -1])
    return [kernel.mean() for kernel in kernels], contrast @ covariance @ contrast


@pytest.mark.parametrize(("positives", "negatives"), [(5, 6), (7, 30), (60, 25)])
@pytest.mark.parametrize("digits", [1, 12])
def test_delong_is_that_of_the_mann_whitney_covariance_over_all_pairs(positives, negatives, digits):
    generator = np.random.default_rng(positives)
    own = np.arange(positives + negatives) < positives
    scores = np.round(generator.normal(size=own.size) + own / 2, digits)
    reference = np.round(scores + generator.normal(size=own.size), digits)
    areas, variance = by_pairs(own, scores, reference)
    test = delong(own, scores, reference)
    assert [test.auc, test.reference] == pytest.approx(areas)
    assert test.standard_error == pytest.approx(math.sqrt(variance))
    assert test.z == pytest.approx((areas[0] - areas[1]) / math.sqrt(variance))
    assert test.p == pytest.approx(2 * norm.sf(abs(test.z)))
    assert (test.low, test.high) == pytest.approx(
        (test.difference - 1.959964 * test.standard_error, test.difference + 1.959964 * test.standard_error)
    )
    assert test.auc == pytest.approx(roc_auc_score(own, scores))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 500))
def test_delong_depends_on_ranks_alone_and_changes_sign_with_the_order(seed):
    generator = np.random.default_rng(seed)
    own = np.arange(25) < 10
    scores, reference = generator.normal(size=25) + own, generator.normal(size=25)
    test, mapped = delong(own, scores, reference), delong(own, np.exp(scores), 3 * reference - 1)
    assert (mapped.auc, mapped.z, mapped.p) == pytest.approx((test.auc, test.z, test.p))
    turned = delong(own, reference, scores)
    assert (turned.z, turned.p) == pytest.approx((-test.z, test.p))


def test_the_same_scores_differ_by_nothing_and_two_perfect_ones_as_well():
    own = np.arange(10) < 4
    scores = np.random.default_rng(0).random(10)
    assert (delong(own, scores, 2 * scores).difference, delong(own, scores, scores).p) == (0, 1)
    perfect = delong(own, own.astype(float), own + scores / 10)
    assert (perfect.auc, perfect.reference, perfect.p) == (1, 1, 1)
    assert (perfect.low, perfect.high) == (0, 0)


def test_no_spread_but_a_difference_is_no_test():
    own = np.arange(10) < 4
    test = delong(own, own.astype(float), -own.astype(float))
    assert (test.difference, test.standard_error) == (1, 0)
    assert math.isnan(test.p)
    assert math.isnan(test.low)


def test_one_class_alone_has_no_area_and_one_case_of_it_no_spread():
    empty = delong([True] * 4, [1, 2, 3, 4], [1, 2, 3, 4])
    assert math.isnan(empty.auc)
    assert math.isnan(empty.p)
    assert (empty.positives, empty.negatives) == (4, 0)
    single = delong([True, False, False], [3, 1, 2], [1, 2, 3])
    assert (single.auc, single.reference) == (1, 0)
    assert math.isnan(single.p)


def test_under_the_null_one_p_of_delong_in_twenty_is_below_five_percent():
    generator = np.random.default_rng(4)
    own = np.arange(80) < 40
    signal = generator.normal(size=(300, 80)) + own
    p_values = [delong(own, each + generator.normal(size=80), each + generator.normal(size=80)).p for each in signal]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.035)


@pytest.mark.parametrize(
    ("positive", "scores", "message"),
    [
        ([0, 1, 2], [1, 2, 3], "True or False per case"),
        ([0, 1, 1], [1, math.nan, 3], "score of case 1"),
        ([0, 1], [1, 2, 3], r"truth \(2,\), scores \(3,\)"),
    ],
)
def test_scores_without_a_test_are_refused(positive, scores, message):
    with pytest.raises(MetricError, match=message):
        delong(positive, scores, [1, 2, 3])


# ---------------------------------------------------------------- paired bootstrap


def two_classifiers(subjects, images, *, gain=0.0, classes=2, seed=0):
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(subjects) % classes, images)
    sides = []
    for extra in (gain, 0.0):
        rows = generator.dirichlet(np.ones(classes), subjects * images) + (0.3 + extra) * np.eye(classes)[truth]
        sides.append(rows / rows.sum(axis=1, keepdims=True))
    return truth, sides[0], sides[1], np.repeat([f"s{number}" for number in range(subjects)], images)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("metric", OVERALL)
def test_the_values_are_the_figures_and_the_interval_is_around_their_difference(metric, classes):
    truth, own, other, subjects = two_classifiers(24, 2, classes=classes)
    difference = paired_bootstrap(truth, own, other, subjects, metric=metric, resamples=200)
    names = "abc"[:classes]
    values = [figures(truth, side, list(names)).overall[metric] for side in (own, other)]
    assert (difference.value, difference.reference) == pytest.approx(tuple(values))
    assert difference.difference == pytest.approx(values[0] - values[1])
    assert difference.low < difference.difference < difference.high
    assert (difference.subjects, difference.draws + difference.undefined) == (24, 200)


def test_a_classifier_does_not_differ_from_itself():
    truth, own, _, subjects = two_classifiers(20, 3)
    difference = paired_bootstrap(truth, own, own, subjects, metric="auc", resamples=200)
    assert (difference.difference, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


def test_a_clear_gain_is_found_and_the_order_turns_its_sign():
    truth, own, other, subjects = two_classifiers(60, 2, gain=0.7)
    difference = paired_bootstrap(truth, own, other, subjects, metric="accuracy", resamples=500)
    turned = paired_bootstrap(truth, other, own, subjects, metric="accuracy", resamples=500)
    assert difference.low > 0
    assert difference.p < 0.01
    assert (turned.difference, turned.p) == pytest.approx((-difference.difference, difference.p))
    assert (turned.low, turned.high) == pytest.approx((-difference.high, -difference.low))


def test_p_is_below_five_percent_where_the_interval_leaves_zero_out():
    agreed = []
    for seed in range(25):
        truth, own, other, subjects = two_classifiers(40, 1, gain=0.15, seed=seed)
        difference = paired_bootstrap(truth, own, other, subjects, metric="auc", resamples=399)
        outside = difference.low > 0 or difference.high < 0
        agreed.append(outside == (difference.p < 0.05))
        assert outside or difference.p > 0.03
    assert sum(agreed) >= 22


def test_few_subjects_have_no_p_and_many_one_that_is_not_below_that_of_a_sign_test():
    truth, own, other = np.array([0, 1] * 10), np.eye(2)[[0, 1] * 10], np.eye(2)[[1, 0] * 10]
    five = paired_bootstrap(truth, own, other, np.repeat(list("abcde"), 4), metric="accuracy")
    assert math.isnan(five.low)
    assert five.method == "none below 6 subjects"
    ten = paired_bootstrap(truth, own, other, np.repeat(list("abcdefghij"), 2), metric="accuracy")
    assert math.isnan(ten.p)
    assert (ten.low, ten.high, ten.method) == (pytest.approx(0.5206, abs=1e-4), 1, "Bonett-Price")
    each = paired_bootstrap(truth, own, other, [str(n) for n in range(20)], metric="balanced_accuracy", resamples=50)
    assert each.p == pytest.approx(2 / 51)
    alone = paired_bootstrap(truth, own, other, ["x"] * 20, metric="accuracy")
    assert math.isnan(alone.low)


def test_any_function_of_truth_and_probabilities_is_a_metric():
    truth, own, other, subjects = two_classifiers(20, 2)

    def right(true, rows):
        return float((rows.argmax(axis=1) == true).mean())

    difference = paired_bootstrap(truth, own, other, subjects, metric=right, resamples=100)
    named = paired_bootstrap(truth, own, other, subjects, metric="accuracy", resamples=100)
    assert (difference.metric, difference.low, difference.high, difference.p) == (
        "right",
        pytest.approx(named.low),
        named.high,
        named.p,
    )


def test_draws_in_which_the_figure_does_not_exist_are_counted():
    truth, own, other, subjects = two_classifiers(10, 1)
    truth[:] = 0
    truth[3] = 1
    difference = paired_bootstrap(truth, own, other, subjects, metric="auc", resamples=1000)
    assert difference.undefined / 1000 == pytest.approx(0.9**10, abs=0.06)
    assert difference.draws + difference.undefined == 1000


def test_classifiers_that_cannot_be_compared_are_refused():
    truth, own, other, subjects = two_classifiers(6, 1)
    with pytest.raises(MetricError, match="metric luck: choose from accuracy"):
        paired_bootstrap(truth, own, other, subjects, metric="luck")
    with pytest.raises(MetricError, match="2 and 3 classes"):
        paired_bootstrap(truth, own, np.full((6, 3), 1 / 3), subjects)
    with pytest.raises(MetricError, match=r"shape \(5, 2\) for 6 cases"):
        paired_bootstrap(truth, own, other[:5], subjects)

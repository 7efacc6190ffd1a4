"""Two methods on the same cases: paired difference, Wilcoxon's test, Holm's correction."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from segmed.metrics.statistics import bootstrap_ci, holm, paired_difference, paired_wilcoxon

NAN = math.nan
SIX = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


# ---------------------------------------------------------------- Wilcoxon


@pytest.mark.parametrize("cases", [6, 20, 80])
def test_the_signed_rank_test_is_that_of_scipy(cases):
    generator = np.random.default_rng(cases)
    reference = generator.random(cases)
    values = reference + generator.normal(0.05, 0.1, cases)
    assert paired_wilcoxon(values, reference) == pytest.approx(wilcoxon(values, reference).pvalue, rel=1e-9)


def test_six_differences_of_one_sign_have_the_exact_p_of_two_in_sixty_four():
    better = [value + 0.01 * (number + 1) for number, value in enumerate(SIX)]
    assert paired_wilcoxon(better, SIX) == pytest.approx(2 / 64)
    assert paired_wilcoxon(SIX, better) == pytest.approx(2 / 64)


def test_equal_figures_have_a_p_of_one():
    assert paired_wilcoxon(SIX, SIX) == 1.0
    assert paired_wilcoxon([0.0] * 6, [0.0] * 6) == 1.0


def test_differences_of_zero_are_dropped_before_ranking():
    reference = np.linspace(0.1, 0.9, 12)
    values = reference + np.array([0, 0, 0, 0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, -0.08])
    assert paired_wilcoxon(values, reference) == pytest.approx(wilcoxon([1, 2, 3, 4, 5, 6, 7, -8]).pvalue)


def test_differences_that_differ_by_rounding_alone_tie():
    values, reference = [0.9, 0.5, 0.7, 0.2, 0.8, 0.6, 0.3], [0.8, 0.4, 0.6, 0.1, 0.7, 0.5, 0.4]
    assert len(set(np.subtract(values, reference)[:6])) > 1
    assert paired_wilcoxon(values, reference) == pytest.approx(wilcoxon([1, 1, 1, 1, 1, 1, -1]).pvalue)
    noise = np.array(SIX) * (1 + 1e-15)
    assert paired_wilcoxon(noise, SIX) == 1.0


def test_fewer_than_six_pairs_are_no_test():
    assert math.isnan(paired_wilcoxon([1.0] * 5, [0.0] * 5))
    assert math.isnan(paired_wilcoxon([1.0] * 6, [0.0] * 5 + [NAN]))
    assert math.isnan(paired_wilcoxon([], []))


def test_a_pair_without_a_figure_is_left_out_of_the_test():
    generator = np.random.default_rng(1)
    values, reference = generator.random(10), generator.random(10)
    assert paired_wilcoxon([*values, NAN, 5.0], [*reference, 1.0, NAN]) == paired_wilcoxon(values, reference)


def test_scans_of_one_subject_are_one_pair():
    generator = np.random.default_rng(2)
    values, reference = generator.random(8), generator.random(8)
    twice = [np.repeat(values, 2), np.repeat(reference, 2)]
    subjects = np.repeat(np.arange(8), 2).tolist()
    assert paired_wilcoxon(*twice, groups=subjects) == pytest.approx(paired_wilcoxon(values, reference))
    assert math.isnan(paired_wilcoxon([1.0] * 9, [0.0] * 9, groups=[1, 1, 2, 2, 3, 3, 4, 4, 5]))


def test_figures_of_different_numbers_of_cases_are_refused():
    with pytest.raises(ValueError, match="3 values but 2 of the reference"):
        paired_wilcoxon([1, 2, 3], [1, 2])


# ---------------------------------------------------------------- Holm


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_is_never_above_one_and_leaves_a_single_p_as_it_is():
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_a_test_that_was_not_done_is_no_member_of_the_family():
    adjusted = holm([0.01, NAN, 0.02])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_the_p_and_that_of_bonferroni(p_values):
    adjusted = holm(p_values)
    for own, other in zip(p_values, adjusted, strict=True):
        assert own <= other <= min(1, len(p_values) * own) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


# ---------------------------------------------------------------- difference


def test_the_difference_is_that_of_the_pairs_that_are_known():
    mean, low, high = paired_difference([0.9, 0.8, NAN, 0.7] * 10, [0.8, 0.8, 0.1, NAN] * 10, resamples=500)
    assert mean == pytest.approx(0.05)
    assert 0 <= low < mean < high <= 0.1 + 1e-12


def test_the_interval_of_the_difference_is_that_of_the_mean_over_subjects():
    generator = np.random.default_rng(5)
    values, reference = generator.random(12), generator.random(12)
    groups = np.repeat(np.arange(6), 2).tolist()
    difference = paired_difference(values, reference, resamples=400, groups=groups)
    assert difference[1:] == bootstrap_ci(values - reference, resamples=400, groups=groups)


def test_a_constant_difference_has_no_width_however_far_the_cases_lie_apart():
    reference = np.array([0.1, 0.5, 0.9, 0.3, 0.2, 0.7])
    assert paired_difference(reference + 0.25, reference, resamples=200) == pytest.approx((0.25, 0.25, 0.25))


def test_no_pair_has_no_difference():
    assert all(math.isnan(value) for value in paired_difference([NAN], [1.0], resamples=10))

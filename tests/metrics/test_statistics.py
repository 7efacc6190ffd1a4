"""Summaries and intervals of many cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, ttest_1samp

from segmed.metrics.mask_metrics import METRICS
from segmed.metrics.statistics import bootstrap_ci, interval_method, summarise

NAN = math.nan


def test_summary_of_three_cases_by_hand():
    summary = summarise([0.8, 0.9, 1.0], 1, resamples=500)
    assert summary["mean"] == pytest.approx(0.9)
    assert summary["sd"] == pytest.approx(0.1)
    assert summary["median"] == 0.9
    assert (summary["n"], summary["missed"]) == (3, 1)
    assert (summary["ci95"], summary["ci95_method"]) == (None, "none below 6")


def test_an_interval_ends_where_its_metric_does():
    distances_mm = [5.0, 6.0, 4.0, 5.0, 7.0, 220.0]
    assert summarise(distances_mm)["ci95"][0] < 0
    low, high = summarise(distances_mm, bounds=METRICS["hd95_mm"].bounds)["ci95"]
    assert low == 0
    assert high == summarise(distances_mm)["ci95"][1]
    dice = [1.0, 1.0, 0.99, 1.0, 1.0, 0.6]
    assert summarise(dice)["ci95"][1] > 1
    assert summarise(dice, bounds=METRICS["dice"].bounds)["ci95"][1] == 1
    differences_ml = [-5.0, 6.0, -4.0, 5.0, -7.0, 8.0]
    bounds = METRICS["volume_difference_ml"].bounds
    assert summarise(differences_ml, bounds=bounds)["ci95"] == summarise(differences_ml)["ci95"]


def test_a_case_without_a_figure_is_not_counted():
    summary = summarise([1.0, NAN, 3.0])
    assert (summary["mean"], summary["n"]) == (2.0, 2)


def test_one_case_has_a_mean_but_neither_sd_nor_interval():
    assert summarise([0.7]) == {
        "mean": 0.7,
        "sd": None,
        "ci95": None,
        "ci95_method": "none below 6",
        "n": 1,
        "missed": 0,
        "median": 0.7,
    }


def test_no_case_has_nothing_but_its_misses():
    assert summarise([NAN, NAN], 2) == {
        "mean": None,
        "sd": None,
        "ci95": None,
        "ci95_method": "none below 6",
        "n": 0,
        "missed": 2,
        "median": None,
    }


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(3).normal(0.85, 0.05, 40)
    peer = bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert bootstrap_ci(values, resamples=20000) == pytest.approx((peer.low, peer.high), abs=5e-4)


def test_interval_is_the_same_for_the_same_seed_and_moves_with_another():
    values = np.random.default_rng(0).random(24)
    assert bootstrap_ci(values, resamples=300, seed=4) == bootstrap_ci(values, resamples=300, seed=4)
    assert bootstrap_ci(values, resamples=300, seed=4) != bootstrap_ci(values, resamples=300, seed=5)


def test_interval_does_not_depend_on_how_the_drawing_is_cut_into_chunks(monkeypatch):
    values = np.random.default_rng(0).random(24)
    whole = bootstrap_ci(values, resamples=301)
    monkeypatch.setattr("segmed.metrics.statistics._CHUNK", 72)
    assert bootstrap_ci(values, resamples=301) == whole


def test_a_group_a_value_is_the_same_as_no_groups():
    values = np.random.default_rng(0).random(9)
    assert bootstrap_ci(values, resamples=300, groups=range(9)) == bootstrap_ci(values, resamples=300)


def test_ten_copies_of_every_subject_do_not_narrow_the_interval():
    values = np.random.default_rng(1).random(8)
    copies, subjects = np.repeat(values, 10), np.repeat(np.arange(8), 10)
    low, high = bootstrap_ci(copies, resamples=2000, groups=subjects.tolist())
    assert (low, high) == pytest.approx(bootstrap_ci(values, resamples=2000))
    naive = bootstrap_ci(copies, resamples=2000)
    assert naive[1] - naive[0] < 0.5 * (high - low)


def test_a_subject_whose_figures_are_all_unknown_is_no_unit():
    values, groups = [1.0, NAN, NAN, 3.0, 2.0, 5.0, 4.0, 7.0], list("abbcdefg")
    known = [1.0, 3.0, 2.0, 5.0, 4.0, 7.0]
    assert bootstrap_ci(values, resamples=200, groups=groups) == bootstrap_ci(known, resamples=200)
    assert math.isnan(bootstrap_ci(known, resamples=200, groups=list("aabcde"))[0])


def test_below_twenty_units_the_interval_is_that_of_the_t_test():
    values = np.random.default_rng(4).random(9)
    peer = ttest_1samp(values, 0).confidence_interval()
    assert bootstrap_ci(values, resamples=10) == pytest.approx((peer.low, peer.high))


@pytest.mark.parametrize(
    ("units", "method"), [(5, "none below 6"), (6, "Student's t"), (19, "Student's t"), (20, "percentile bootstrap")]
)
def test_the_method_of_an_interval_is_named_and_stands_in_the_summary(units, method):
    summary = summarise(np.linspace(0.5, 0.9, units), resamples=50)
    assert interval_method(units) == summary["ci95_method"] == method
    assert (summary["ci95"] is None) == (units < 6)


@pytest.mark.parametrize("units", [6, 10, 15, 19])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda generator, n: generator.normal(0, 1, n), 0),
        (lambda generator, n: generator.laplace(0, 1, n), 0),
        (lambda generator, n: generator.beta(20, 3, n), 20 / 23),
    ],
    ids=["normal", "Laplace", "Dice"],
)
def test_below_twenty_units_intervals_cover_the_truth_as_often_as_they_say(units, draw, truth):
    """Of 1000: two standard errors of 95 % are 1.4 points, and a skewed Dice lacks one or two."""
    generator = np.random.default_rng(units)
    ends = np.array([bootstrap_ci(draw(generator, units), resamples=1) for _ in range(1000)])
    covered = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    assert 0.915 <= covered <= 0.98


def test_groups_must_be_as_many_as_values():
    with pytest.raises(ValueError, match="3 values but 2 groups"):
        bootstrap_ci([1, 2, 3], resamples=10, groups=["a", "b"])


def test_a_level_of_ninety_five_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_ci([1, 2, 3], resamples=10, level=95)


@given(st.lists(st.floats(-1e3, 1e3), min_size=20, max_size=40), st.integers(0, 5))
def test_interval_lies_within_the_range_of_twenty_or_more_values(values, seed):
    low, high = bootstrap_ci(values, resamples=50, seed=seed)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9

"""Intervals over subjects, and the pooling of a subject's images."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from segmed.errors import MetricError
from segmed.metrics.class_figures import OVERALL, PER_CLASS, check, figures
from segmed.metrics.pooling import pool_by_subject
from segmed.metrics.resampling import WeightedFigures, drawn_weights, interval_of, intervals
from segmed.metrics.statistics import bootstrap_ci

ABC = ("a", "b", "c")


def drawn_cases(subjects, images, classes=3, *, seed=0, digits=1):
    """Images of subjects of one class each; probabilities with few digits, so that they tie."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(generator.integers(0, classes, subjects), images)
    rows = np.round(generator.dirichlet(np.ones(classes), subjects * images) + 0.3 * np.eye(classes)[truth], digits)
    rows[:, 0] += 0.1
    names = np.repeat([f"s{number}" for number in range(subjects)], images)
    return truth, rows / rows.sum(axis=1, keepdims=True), names


# ---------------------------------------------------------------- weighted figures


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_figures_of_equal_weights_are_the_figures(classes, seed):
    truth, rows, _ = drawn_cases(20, 2, classes, seed=seed)
    names = ABC[:classes]
    weighted = WeightedFigures(check(truth, rows, names), 1 if classes == 2 else None)
    ones = np.ones((1, len(truth)))
    columns, result = weighted.per_class(ones), figures(truth, rows, names)
    for key in OVERALL:
        assert weighted.overall(key, ones, columns)[0] == pytest.approx(result.overall[key]), key
    for key in PER_CLASS:
        assert columns[key][0] == pytest.approx([result.per_class[name][key] for name in names]), key


def test_figures_of_a_draw_are_those_of_the_repeated_cases():
    truth, rows, subjects = drawn_cases(12, 3)
    weighted = WeightedFigures(check(truth, rows, ABC), None)
    (weights,) = drawn_weights(subjects, resamples=10, seed=3)
    columns = weighted.per_class(weights)
    compared = 0
    for number, row in enumerate(weights):
        again = np.repeat(np.arange(len(truth)), row.astype(int))
        result = figures(truth[again], rows[again], ABC)
        if result.undefined:
            continue
        compared += 1
        for key in OVERALL:
            assert weighted.overall(key, weights, columns)[number] == pytest.approx(result.overall[key]), key
    assert compared >= 5


def test_areas_with_weights_are_those_of_scikit_learn():
    truth, rows, _ = drawn_cases(15, 2, 2)
    weights = np.random.default_rng(1).integers(0, 4, (5, 30)).astype(float)
    columns = WeightedFigures(check(truth, rows, ABC[:2]), 1).per_class(weights)
    for number, row in enumerate(weights):
        known = {"y_score": rows[:, 1], "sample_weight": row}
        assert columns["auc"][number, 1] == pytest.approx(roc_auc_score(truth, **known))
        assert columns["average_precision"][number, 1] == pytest.approx(average_precision_score(truth, **known))


def test_a_subject_is_drawn_with_all_of_its_images():
    subjects = ["x", "y", "x", "z", "z", "z"]
    (weights,) = drawn_weights(subjects, resamples=50, seed=0)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.array_equal(weights[:, 3], weights[:, 5])
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(weights, axis=0)) > 5


# ---------------------------------------------------------------- intervals


def test_the_interval_of_the_accuracy_is_that_of_the_mean_of_right_answers(monkeypatch):
    truth, rows, subjects = drawn_cases(25, 4)
    right = (rows.argmax(axis=1) == truth).astype(float)
    expected = bootstrap_ci(right, resamples=301, seed=5, groups=subjects.tolist())
    drawn = intervals(truth, rows, ABC, subjects, resamples=301, seed=5)
    assert (drawn.overall["accuracy"].low, drawn.overall["accuracy"].high) == pytest.approx(expected)
    monkeypatch.setattr("segmed.metrics.resampling._CHUNK", 600)
    cut = intervals(truth, rows, ABC, subjects, resamples=301, seed=5)
    for key in OVERALL:
        one, other = (asdict(side.overall[key]) for side in (cut, drawn))
        assert one.pop("method") == other.pop("method") == "percentile bootstrap"
        assert one == pytest.approx(other, rel=1e-12), key


def test_the_interval_holds_the_figure_and_has_its_keys():
    truth, rows, subjects = drawn_cases(40, 2)
    drawn, whole = intervals(truth, rows, ABC, subjects, resamples=300), figures(truth, rows, ABC)
    assert tuple(drawn.overall) == OVERALL
    assert tuple(drawn.per_class) == ABC
    assert drawn.subjects == 40
    for key in OVERALL:
        assert drawn.overall[key].low < whole.overall[key] < drawn.overall[key].high
        assert drawn.overall[key].draws + drawn.overall[key].undefined == 300
    for name in ABC:
        for key in PER_CLASS:
            assert drawn.per_class[name][key].low <= whole.per_class[name][key] <= drawn.per_class[name][key].high


def test_ten_copies_of_every_subject_do_not_narrow_any_interval():
    truth, rows, subjects = drawn_cases(20, 1)
    copies = [np.repeat(each, 10, axis=0) for each in (truth, rows, subjects)]
    one = intervals(truth, rows, ABC, subjects, resamples=200)
    ten = intervals(copies[0], copies[1], ABC, copies[2], resamples=200)
    shares = ("accuracy", "weighted_recall")  # of one image a subject: Clopper and Pearson's, which is wider
    for key in (key for key in OVERALL if key not in shares):
        assert (ten.overall[key].low, ten.overall[key].high) == pytest.approx(
            (one.overall[key].low, one.overall[key].high)
        )
    naive = intervals(copies[0], copies[1], ABC, [str(number) for number in range(200)], resamples=200)
    assert naive.overall["auc"].high - naive.overall["auc"].low < 0.5 * (
        one.overall["auc"].high - one.overall["auc"].low
    )


def test_draws_without_a_class_are_left_out_and_counted():
    truth, rows, subjects = drawn_cases(10, 2, 2, seed=1)
    truth[:] = 0
    truth[:2] = 1  # one subject alone: (1 - 1 / 10) ** 10 of the draws do without it
    drawn = intervals(truth, rows, ABC[:2], subjects, resamples=2000)
    assert drawn.overall["auc"].undefined / 2000 == pytest.approx(0.9**10, abs=0.04)
    assert drawn.overall["auc"].draws + drawn.overall["auc"].undefined == 2000
    assert drawn.overall["balanced_accuracy"].undefined == drawn.per_class["b"]["recall"].undefined > 0
    assert drawn.overall["accuracy"].undefined == drawn.overall["weighted_recall"].undefined == 0
    assert drawn.overall["weighted_recall"].low == pytest.approx(drawn.overall["accuracy"].low)
    assert any("left out" in note and "auc" in note for note in drawn.notes)


def test_a_figure_that_is_undefined_on_the_whole_has_no_interval():
    truth, rows, subjects = drawn_cases(10, 2, 2)
    rows = np.hstack([rows, np.zeros((20, 1))])
    drawn = intervals(truth, rows, ABC, subjects, resamples=100)
    assert math.isnan(drawn.per_class["c"]["recall"].low)
    assert drawn.per_class["c"]["recall"].undefined == 100
    assert drawn.overall["balanced_accuracy"].draws > 90


def test_one_subject_has_no_interval_and_a_perfect_classifier_none_that_says_certainty():
    alone = intervals([0, 1, 2], np.eye(3), ABC, ["x"] * 3, resamples=10)
    assert all(math.isnan(interval.low) for interval in alone.overall.values())
    assert alone.notes == ("1 subject: below 6 there is no interval",)
    perfect = intervals([0, 1] * 15, np.eye(2)[[0, 1] * 15], ABC[:2], [str(n) for n in range(30)], resamples=50)
    accuracy = perfect.overall["accuracy"]
    assert (accuracy.low, accuracy.high) == pytest.approx((0.025 ** (1 / 30), 1))
    assert perfect.overall["balanced_accuracy"].low == 1
    assert "up to 10.0% of all may be" in perfect.notes[0]


def test_nineteen_of_twenty_intervals_hold_the_true_accuracy_when_subjects_are_drawn_and_few_when_images_are():
    generator = np.random.default_rng(0)
    names = np.repeat([f"s{number}" for number in range(40)], 5)
    held = {"subjects": 0, "images": 0}
    rounds = 60
    for _ in range(rounds):
        right = np.repeat(generator.random(40) < 0.7, 5)  # all images of a subject share its fate
        truth = np.arange(200) % 2
        rows = np.eye(2)[np.where(right, truth, 1 - truth)]
        for kind, units in (("subjects", names), ("images", [str(number) for number in range(200)])):
            accuracy = intervals(truth, rows, ABC[:2], units, resamples=100).overall["accuracy"]
            held[kind] += accuracy.low <= 0.7 <= accuracy.high
    assert held["subjects"] / rounds > 0.88
    assert held["images"] / rounds < 0.75


def test_any_other_figure_has_an_interval_too():
    truth, rows, subjects = drawn_cases(30, 2)
    peer = intervals(truth, rows, ABC, subjects, resamples=40).overall["balanced_accuracy"]

    def balanced(true, given):
        return balanced_accuracy_score(true, given.argmax(axis=1)) if len(set(true)) == 3 else math.nan

    own = interval_of(balanced, truth, rows, subjects, resamples=40)
    assert (own.low, own.high, own.draws) == pytest.approx((peer.low, peer.high, peer.draws))


# ---------------------------------------------------------------- pooling

SLICES = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.2, 0.8]])
OWNERS = ["p", "p", "p", "q"]


@pytest.mark.parametrize(
    ("rule", "expected"), [("mean", 1.3 / 3), ("vote", 2 / 3), ("max", 0.6 / 1.5)], ids=lambda value: str(value)
)
def test_pooling_of_three_slices_by_hand(rule, expected):
    pooled = pool_by_subject(SLICES, OWNERS, rule, truth=[0, 0, 0, 1])
    assert pooled.subjects == ("p", "q")
    assert pooled.probabilities[0, 1] == pytest.approx(expected, abs=1e-6)
    assert pooled.truth.tolist() == [0, 1]
    assert pooled.images.tolist() == [3, 1]


def test_equal_votes_are_told_apart_by_the_mean_and_not_by_the_order_of_the_classes():
    pooled = pool_by_subject(np.array([[0.55, 0.45], [0.1, 0.9]]), ["p", "p"], "vote")
    assert pooled.probabilities[0] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert pooled.probabilities[0].argmax() == 1
    assert pooled.truth is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(2, 4), st.integers(0, 100), st.sampled_from(["mean", "vote", "max"]))
def test_pooled_rows_are_probabilities_and_do_not_depend_on_the_order_of_the_images(images, classes, seed, rule):
    generator = np.random.default_rng(seed)
    rows = generator.dirichlet(np.ones(classes), images)
    subjects = np.array([f"s{number}" for number in generator.integers(0, 5, images)])
    pooled = pool_by_subject(rows, subjects, rule)
    assert pooled.probabilities.sum(axis=1) == pytest.approx(np.ones(len(pooled.subjects)))
    assert pooled.images.sum() == images
    order = generator.permutation(images)
    again = pool_by_subject(rows[order], subjects[order], rule)
    table = dict(zip(again.subjects, again.probabilities, strict=True))
    for name, row in zip(pooled.subjects, pooled.probabilities, strict=True):
        assert table[name] == pytest.approx(row)


def test_a_subject_of_one_image_keeps_its_probabilities_under_the_mean():
    pooled = pool_by_subject(SLICES, ["d", "c", "b", "a"])
    assert pooled.subjects == ("d", "c", "b", "a")
    assert np.array_equal(pooled.probabilities, SLICES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": [0, 1, 0, 1]}, "subject p has images of the labels 0, 1"),
        ({"truth": [0, 1]}, "for 4 images"),
        ({"rule": "median"}, "choose from mean, vote, max"),
        ({"subjects": ["p"]}, "1 subjects"),
        ({"probabilities": np.full((4, 2), math.nan)}, "case 0 are .nan, nan"),
    ],
)
def test_what_cannot_be_pooled_is_refused(change, message):
    with pytest.raises(MetricError, match=message):
        pool_by_subject(**({"probabilities": SLICES, "subjects": OWNERS} | change))

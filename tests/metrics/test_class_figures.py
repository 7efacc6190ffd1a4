"""Figures and curves of classification: by hand, against scikit-learn, and what is undefined."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import classification_report, log_loss, roc_auc_score

from segmed.errors import MetricError
from segmed.files import write_json
from segmed.metrics.class_curves import precision_recall_curves, roc_curves
from segmed.metrics.class_figures import OVERALL, PER_CLASS, check, figures

ABC = ("a", "b", "c")
TWO = ("no", "yes")


def certain(labels, classes):
    return np.eye(classes)[np.asarray(labels)]


def drawn(cases, classes, *, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, classes, cases), generator.dirichlet(np.ones(classes), cases)


# ---------------------------------------------------------------- figures by hand

# rows of the truth: a 3 1 0, b 1 2 1, c 0 0 2
HAND_TRUTH = [0] * 4 + [1] * 4 + [2] * 2
HAND_LABELS = [0, 0, 0, 1, 0, 1, 1, 2, 2, 2]


def test_confusion_and_report_of_ten_cases_by_hand():
    result = figures(HAND_TRUTH, certain(HAND_LABELS, 3), ABC)
    assert result.confusion == ((3, 1, 0), (1, 2, 1), (0, 0, 2))
    assert result.overall["accuracy"] == pytest.approx(0.7)
    assert result.overall["balanced_accuracy"] == pytest.approx((3 / 4 + 2 / 4 + 1) / 3)
    assert [result.per_class[name]["precision"] for name in ABC] == pytest.approx([3 / 4, 2 / 3, 2 / 3])
    assert [result.per_class[name]["recall"] for name in ABC] == pytest.approx([3 / 4, 2 / 4, 1])
    assert [result.per_class[name]["f1"] for name in ABC] == pytest.approx([6 / 8, 4 / 7, 4 / 5])
    assert [result.per_class[name]["support"] for name in ABC] == [4, 4, 2]
    assert [result.per_class[name]["predicted"] for name in ABC] == [4, 3, 3]
    assert result.overall["macro_f1"] == pytest.approx((6 / 8 + 4 / 7 + 4 / 5) / 3)
    assert result.overall["weighted_precision"] == pytest.approx(0.4 * 3 / 4 + 0.4 * 2 / 3 + 0.2 * 2 / 3)
    assert (result.majority_class, result.majority_share, result.cases) == ("a", 0.4, 10)
    assert result.undefined == ()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_figures_are_those_of_scikit_learn(classes):
    truth, probabilities = drawn(80, classes, seed=classes)
    names = [f"class {number}" for number in range(classes)]
    result = figures(truth, probabilities, names)
    report = classification_report(truth, probabilities.argmax(axis=1), target_names=names, output_dict=True)
    for name in names:
        for own, other in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert result.per_class[name][own] == pytest.approx(report[name][other])
            assert result.overall[f"macro_{own}"] == pytest.approx(report["macro avg"][other])
            assert result.overall[f"weighted_{own}"] == pytest.approx(report["weighted avg"][other])
    area = roc_auc_score(truth, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr")
    assert result.overall["auc"] == pytest.approx(area)
    assert result.overall["log_loss"] == pytest.approx(log_loss(truth, probabilities))


def test_a_perfect_classifier_has_every_figure_at_its_best():
    truth = [0, 1, 2, 1]
    result = figures(truth, certain(truth, 3), ABC)
    assert all(result.overall[key] == 1 for key in OVERALL if key != "log_loss")
    assert result.overall["log_loss"] == pytest.approx(0, abs=1e-12)


def test_a_classifier_that_knows_nothing_is_at_chance():
    truth, probabilities = drawn(20_000, 4)
    result = figures(truth, probabilities, list("abcd"))
    assert result.overall["accuracy"] == pytest.approx(0.25, abs=0.02)
    assert result.overall["balanced_accuracy"] == pytest.approx(0.25, abs=0.02)
    assert result.overall["auc"] == pytest.approx(0.5, abs=0.02)
    assert result.overall["average_precision"] == pytest.approx(0.25, abs=0.02)


def test_always_the_majority_has_its_share_as_accuracy_and_chance_as_balanced_accuracy():
    truth = [0] * 9 + [1]
    result = figures(truth, certain([0] * 10, 2), TWO)
    assert result.overall["accuracy"] == result.majority_share == 0.9
    assert result.overall["balanced_accuracy"] == 0.5
    assert result.overall["auc"] == 0.5


def test_the_positive_class_of_two_is_a_choice():
    truth, probabilities = drawn(60, 2)
    one, other = (figures(truth, probabilities, TWO, positive=name) for name in TWO)
    assert figures(truth, probabilities, TWO).positive == "yes"
    assert one.overall["auc"] == pytest.approx(other.overall["auc"])
    assert one.overall["average_precision"] == one.per_class["no"]["average_precision"]
    assert other.overall["average_precision"] == other.per_class["yes"]["average_precision"]
    assert one.overall["average_precision"] != other.overall["average_precision"]


# ---------------------------------------------------------------- undefined


def test_a_class_without_a_case_has_no_recall_and_is_named():
    result = figures([0, 0, 1, 1], certain([0, 1, 1, 1], 3), ABC)
    absent = result.per_class["c"]
    assert all(math.isnan(absent[key]) for key in PER_CLASS)
    assert (absent["support"], absent["predicted"]) == (0, 0)
    assert {f"{key} of c" for key in PER_CLASS} == set(result.undefined)
    assert result.overall["balanced_accuracy"] == pytest.approx(0.75)
    assert result.overall["auc"] == pytest.approx(0.75)
    assert len(result.notes) == 1
    assert "class c has no case" in result.notes[0]


def test_an_answer_with_an_absent_class_is_wrong_but_defined():
    absent = figures([0, 0, 1, 1], certain([0, 2, 1, 1], 3), ABC).per_class["c"]
    assert (absent["precision"], absent["f1"]) == (0, 0)
    assert math.isnan(absent["recall"])


def test_a_class_that_is_never_answered_has_no_precision_but_a_recall_of_zero():
    result = figures([0, 1], certain([0, 0], 2), TWO)
    assert math.isnan(result.per_class["yes"]["precision"])
    assert (result.per_class["yes"]["recall"], result.per_class["yes"]["f1"]) == (0, 0)
    assert result.undefined == ("precision of yes",)


def test_one_class_alone_has_neither_an_area_nor_an_average_precision():
    result = figures([1, 1, 1], certain([1, 1, 0], 2), TWO)
    assert math.isnan(result.overall["auc"])
    assert math.isnan(result.overall["average_precision"])
    assert {"auc", "average_precision", "auc of no", "auc of yes"} < set(result.undefined)
    assert result.overall["balanced_accuracy"] == pytest.approx(2 / 3)


def test_the_json_of_figures_has_the_stable_keys_and_null_where_undefined(tmp_path):
    write_json(tmp_path / "figures.json", asdict(figures([0, 1], certain([0, 0], 2), TWO)))
    table = json.loads((tmp_path / "figures.json").read_text())
    assert tuple(table["overall"]) == OVERALL
    assert tuple(table["per_class"]["yes"]) == (*PER_CLASS, "support", "predicted")
    assert table["per_class"]["yes"]["precision"] is None
    assert table["confusion"] == [[1, 0], [1, 0]]


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_every_figure_lies_between_zero_and_one_and_does_not_depend_on_the_order(data):
    cases = data.draw(st.integers(1, 12))
    truth = np.array(data.draw(st.lists(st.integers(0, 2), min_size=cases, max_size=cases)))
    rows = np.array(
        data.draw(
            st.lists(st.sampled_from([(1, 0, 0), (0.5, 0.5, 0), (0.2, 0.3, 0.5)]), min_size=cases, max_size=cases)
        )
    )
    result = figures(truth, rows, ABC)
    bounded = [result.overall[key] for key in OVERALL if key != "log_loss"]
    assert all(math.isnan(value) or -1e-12 <= value <= 1 + 1e-12 for value in bounded)
    order = np.array(data.draw(st.permutations(range(cases))))
    again = figures(truth[order], rows[order], ABC)
    assert again.confusion == result.confusion
    assert [again.overall[key] for key in OVERALL] == pytest.approx(
        [result.overall[key] for key in OVERALL], nan_ok=True
    )


# ---------------------------------------------------------------- curves


def test_roc_curve_of_four_cases_by_hand():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    curve = roc_curves([0, 0, 1, 1], np.stack([1 - scores, scores], axis=1), TWO)["yes"]
    assert curve.false_positive_rate.tolist() == [0, 0, 0.5, 0.5, 1]
    assert curve.sensitivity.tolist() == [0, 0.5, 0.5, 1, 1]
    assert curve.thresholds.tolist() == [math.inf, 0.8, 0.4, 0.35, 0.1]
    assert (curve.auc, curve.positives, curve.negatives) == (0.75, 2, 2)


def test_precision_recall_curve_of_four_cases_by_hand():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    curve = precision_recall_curves([0, 0, 1, 1], np.stack([1 - scores, scores], axis=1), TWO)["yes"]
    assert curve.thresholds.tolist() == [0.1, 0.35, 0.4, 0.8]
    assert curve.precision == pytest.approx([0.5, 2 / 3, 0.5, 1, 1])
    assert curve.recall == pytest.approx([1, 1, 0.5, 0.5, 0])
    assert curve.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_curves_carry_the_areas_of_the_figures_and_are_empty_where_these_are_undefined():
    truth, probabilities = drawn(30, 3)
    truth[truth == 2] = 0
    result = figures(truth, probabilities, ABC)
    roc, precision_recall = roc_curves(truth, probabilities, ABC), precision_recall_curves(truth, probabilities, ABC)
    for name in ABC[:2]:
        assert roc[name].auc == result.per_class[name]["auc"]
        assert np.trapezoid(roc[name].sensitivity, roc[name].false_positive_rate) == pytest.approx(roc[name].auc)
        assert precision_recall[name].average_precision == result.per_class[name]["average_precision"]
    assert roc["c"].sensitivity.size == precision_recall["c"].recall.size == 0
    assert math.isnan(roc["c"].auc)
    assert math.isnan(precision_recall["c"].average_precision)
    assert (roc["c"].positives, roc["c"].negatives) == (0, 30)


# ---------------------------------------------------------------- refused

GOOD = np.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("truth", "probabilities", "message"),
    [
        ([0, 1, 0], [[0.5, 0.5], [math.nan, 0.5], [0.5, 0.5]], r"probabilities of case 1 are \[nan, 0.5\] \(1 such"),
        ([0, 1, 0], [[0.5, 0.5], [0.5, 0.5], [0.5, 0.6]], "case 2 sum to 1.1"),
        ([0, 1, 0], [[0.5, 0.5], [-1.0, 2.0], [0.5, 0.5]], "case 1 .* must lie between 0 and 1.* softmax"),
        ([0, 1], GOOD, r"shape \(3, 2\) for 2 cases and 2 classes"),
        ([0, 1, 0], GOOD[:, :1], r"shape \(3, 1\) for 3 cases and 2 classes"),
        ([0, 2, 0], GOOD, "true label 2 of case 1: must lie between 0 and 1"),
        ([0, -1, 0], GOOD, "true label -1 of case 1"),
        ([0.0, 1.0, 0.0], GOOD, "type float64: give one integer per case"),
        ([], np.empty((0, 2)), "at least one case"),
    ],
)
def test_input_that_no_figure_can_be_made_of_is_refused_in_one_line(truth, probabilities, message):
    with pytest.raises(MetricError, match=message) as error:
        figures(truth, probabilities, TWO)
    assert "\n" not in str(error.value)


def test_subjects_names_and_positive_class_are_checked():
    with pytest.raises(MetricError, match="2 subjects for 3 cases"):
        check([0, 1, 0], GOOD, TWO, subjects=["a", "b"])
    for names in (("a",), ("a", "a"), "ab"):
        with pytest.raises(MetricError, match="two or more different names"):
            check([0, 1, 0], GOOD, names)
    with pytest.raises(MetricError, match="positive class maybe is none of no, yes"):
        figures([0, 1, 0], GOOD, TWO, positive="maybe")
    with pytest.raises(MetricError, match="only two classes have one"):
        figures([0, 1], np.full((2, 3), 1 / 3), ABC, positive="a")


def test_probabilities_of_a_table_with_four_digits_are_accepted():
    rows = np.round(np.random.default_rng(0).dirichlet(np.ones(7), 50), 4)
    assert np.abs(rows.sum(axis=1) - 1).max() > 1e-5
    truth = np.arange(50) % 7
    result = figures(truth, rows, list("abcdefg"))
    normal = rows / rows.sum(axis=1, keepdims=True)
    assert result.overall["log_loss"] == pytest.approx(-np.log(normal[np.arange(50), truth]).mean())

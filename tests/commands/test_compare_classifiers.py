"""Classifiers on the same test images: figures by hand, seeds, tests, what can't be compared, tables and tool."""

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from scipy.stats import binom

from segmed.commands.command_line import run_tool
from segmed.config.classification import ClassificationConfig
from segmed.data.images.image_splits import ClassSplit
from segmed.errors import MetricError, RunError
from segmed.evaluate.answers import Answers, save_answers
from segmed.evaluate.classifier_comparison import compare_classifiers
from segmed.evaluate.classifier_runs import ClassifierMethod, is_classifier, read_classifier, run_of
from segmed.files import write_json
from segmed.metrics.calibration import calibrated_error, expected_calibration_error
from segmed.metrics.class_figures import figures
from segmed.metrics.classifier_tests import delong, mcnemar, paired_bootstrap
from segmed.metrics.pooling import pool_by_subject
from segmed.metrics.repeated import COMPARED, exchange_test, mean_figures, paired_difference_of
from segmed.metrics.resampling import intervals
from segmed.metrics.statistics import holm
from segmed.reports.classifier_comparison.figures import classifier_comparison_figure, colours_of
from segmed.reports.classifier_comparison.text import (
    classifier_comparison_csv,
    classifier_document,
    write_classifier_comparison,
)
from segmed.reports.comparison.document import markdown

TOOL = Path(__file__).resolve().parents[2] / "tools" / "compare.py"
FEW = 200  # resamplings
TWO, THREE = ("no", "yes"), ("a", "b", "c")
LEAK = "LEAKING SPLIT, allowed: 3 images stand on two sides"


def drawn(seed, *, sharp=2.0, subjects=24, images=3, classes=TWO):
    """Subjects with several images, told apart the better the larger `sharp`; the seed does not change the truth."""
    truth = np.repeat(np.arange(subjects) % len(classes), images)
    noise = np.random.default_rng(seed).normal(0, 1.5, (len(truth), len(classes)))
    names = [f"s{number:02}" for number in range(subjects) for _ in range(images)]
    ids = [f"{name}_{row}.png" for row, name in enumerate(names)]
    return Answers(classes, tuple(ids), tuple(names), truth, sharp * np.eye(len(classes))[truth] + noise)


def answered(right, *, images=1):
    """Two classes, an image a subject: sure and right, or sure and wrong."""
    truth = np.arange(len(right)) % 2
    answer = np.where(right, truth, 1 - truth)
    names = tuple(f"s{row // images:02}" for row in range(len(right)))
    return Answers(TWO, tuple(f"{row:02}.png" for row in range(len(right))), names, truth, 3.0 * np.eye(2)[answer])


def method(name, *tests, **options):
    return ClassifierMethod(name, tuple(run_of(test, f"run {name} {n}", **options) for n, test in enumerate(tests)))


def compare(*methods, **options):
    return compare_classifiers(methods, **{"reference": methods[0].name, "resamples": FEW, **options})


# ---------------------------------------------------------------- means over runs


@pytest.mark.parametrize("classes", [TWO, THREE])
def test_figures_and_intervals_of_one_run_are_those_of_its_own_report(classes):
    test = drawn(0, classes=classes)
    given = (test.truth, test.probabilities)
    own = mean_figures(test.truth, [test.probabilities], test.subjects, resamples=FEW)
    overall = figures(*given, classes).overall
    spread = intervals(*given, classes, test.subjects, resamples=FEW).overall
    for metric in COMPARED[:-1]:
        assert own[metric].value == pytest.approx(overall[metric])
        expected = spread[metric]
        ends = own[metric].ends
        assert (ends.low, ends.high) == pytest.approx((expected.low, expected.high))
        assert ends.method == expected.method == "percentile bootstrap"
    assert own["ece"].value == pytest.approx(expected_calibration_error(*given))
    assert own["ece"].calibrated == calibrated_error(test.probabilities).mean
    assert own["ece"].ends.method.startswith("none since it is biased")


@pytest.mark.parametrize("metric", COMPARED[:-1])
def test_the_difference_of_two_runs_is_that_of_the_paired_bootstrap(metric):
    one, two = drawn(0), drawn(1, sharp=1.0)
    own, other = (mean_figures(t.truth, [t.probabilities], t.subjects, resamples=FEW)[metric] for t in (one, two))
    expected = paired_bootstrap(
        one.truth, one.probabilities, two.probabilities, one.subjects, metric=metric, resamples=FEW
    )
    found = paired_difference_of(metric, own, other)
    for field in ("value", "reference", "difference", "low", "high", "p", "subjects", "draws"):
        assert getattr(found, field) == pytest.approx(getattr(expected, field)), field


def test_a_method_has_the_mean_of_its_runs_figures_and_not_that_of_their_ensemble():
    right = [True] * 8 + [False] * 4
    runs = [answered(right), answered(right[::-1]), answered([True] * 12)]
    found = compare(method("a", *runs), method("b", runs[0])).figures["a", "image", "accuracy"]
    assert found.value == pytest.approx((8 + 8 + 12) / 36)
    assert found.run_sd == pytest.approx(np.std([8 / 12, 8 / 12, 1], ddof=1))
    ensemble = np.mean([run.probabilities for run in runs], axis=0).argmax(axis=1)
    assert (ensemble == runs[0].truth).mean() == 1


def test_ten_copies_of_a_run_change_neither_interval_nor_p():
    one, two = drawn(0), drawn(1, sharp=0.5)
    once = compare(method("a", two), method("b", one, one)).figures
    often = compare(method("a", two), method("b", *[one] * 10)).figures
    for key, figure in once.items():
        assert often[key].ci95 == pytest.approx(figure.ci95)
        assert (often[key].p, often[key].mcnemar) == (figure.p, figure.mcnemar)


def test_draws_of_other_subjects_are_not_paired():
    one, two = drawn(0), drawn(0, subjects=10)
    own, other = (mean_figures(t.truth, [t.probabilities], t.subjects, resamples=FEW)["auc"] for t in (one, two))
    with pytest.raises(MetricError, match="200 draws of 24 subjects and 200 of 10"):
        paired_difference_of("auc", own, other)
    with pytest.raises(MetricError, match="no run"):
        mean_figures(one.truth, [], one.subjects)


# ---------------------------------------------------------------- McNemar and exchanges


def test_one_run_of_each_is_mcnemars_test_and_copies_of_it_are_its_exact_one():
    truth, own, other = np.zeros(30, int), np.repeat([0, 0, 1], [12, 9, 9]), np.repeat([0, 1, 0, 1], [12, 9, 2, 7])
    exact = 2 * binom.cdf(2, 11, 0.5)
    assert exchange_test(truth, [own], [other]) == mcnemar(truth, own, other).p == pytest.approx(exact)
    assert exchange_test(truth, [own] * 3, [other] * 2) == pytest.approx(exact)


def test_shares_of_right_runs_are_exchanged_and_not_only_counted():
    """One run fewer is right on one image, three more on five: 14 of 16 at most, which 4 of 64 exchanges reach."""
    truth = np.zeros(6, int)
    own = [np.zeros(6, int), np.zeros(6, int), np.eye(6, dtype=int)[0]]
    other = [np.array([0, 1, 1, 1, 1, 1])] * 3
    assert exchange_test(truth, own, other) == pytest.approx(4 / 64)


def test_methods_that_are_right_on_the_same_images_have_a_p_of_one():
    truth = np.zeros(8, int)
    own = np.array([0, 1] * 4)
    assert exchange_test(truth, [own, own], [own]) == 1
    assert exchange_test(truth, [own, own], [np.where(np.arange(8) == 1, 0, own)]) == 1  # a single image differs


def test_many_images_are_drawn_the_same_way_every_time():
    one, two, three = (drawn(seed, subjects=60).labels for seed in range(3))
    truth = drawn(0, subjects=60).truth
    p = exchange_test(truth, [one, two], [three], resamples=500)
    assert p == exchange_test(truth, [one, two], [three], resamples=500)
    assert 0 < p <= 1


# ---------------------------------------------------------------- two methods


def test_two_classifiers_by_hand():
    reference, own = answered([True] * 5 + [False] * 9), answered([True] * 14)
    found = compare(method("a", reference), method("b", own)).figures["b", "image", "accuracy"]
    assert (found.value, found.difference) == (1, pytest.approx(9 / 14))
    assert (found.mcnemar, found.mcnemar_holm) == (2 / 512, 2 / 512)  # nine images, all for one side
    assert (found.test, found.p) == (None, None)  # a bootstrap of 14 subjects would be too sure
    assert found.difference_method == "Bonett-Price"
    assert found.difference_ci95[0] < 9 / 14 < found.difference_ci95[1]


def test_the_reference_is_compared_with_nothing():
    found = compare(method("a", drawn(0)), method("b", drawn(1))).figures["a", "subject", "auc"]
    assert (found.difference, found.difference_ci95, found.test, found.p, found.mcnemar) == (None,) * 5


def test_areas_by_subject_of_two_classes_have_delongs_p_and_interval():
    one, two = drawn(0, sharp=0.4), drawn(1, sharp=0.2)
    compared = compare(method("a", one), method("b", two)).figures
    pooled = [pool_by_subject(test.probabilities, test.subjects, truth=test.truth) for test in (two, one)]
    expected = delong(pooled[0].truth == 1, *(side.probabilities[:, 1] for side in pooled))
    found = compared["b", "subject", "auc"]
    assert (found.test, found.p) == ("delong", expected.p)
    assert found.difference == pytest.approx(expected.difference)
    assert (found.difference_ci95, found.difference_method) == (None, "none below 20 subjects of a class")
    many = [drawn(seed, sharp=0.4, subjects=40, images=1) for seed in (0, 1)]
    test = delong(many[0].truth == 1, *(side.probabilities[:, 1] for side in many[::-1]))
    figure = compare(method("a", many[0]), method("b", many[1])).figures["b", "image", "auc"]
    assert figure.difference_ci95 == pytest.approx((test.low, test.high))
    assert (figure.difference_method, figure.test) == ("DeLong", "delong")
    assert compared["b", "image", "auc"].test == "bootstrap"  # images of one subject are not independent


def test_areas_of_three_classes_or_of_several_runs_are_bootstrapped():
    three = compare(method("a", drawn(0, classes=THREE)), method("b", drawn(1, classes=THREE)))
    several = compare(method("a", drawn(0), drawn(2)), method("b", drawn(1)))
    assert {three.figures["b", "subject", "auc"].test, several.figures["b", "subject", "auc"].test} == {"bootstrap"}


def test_areas_of_a_perfect_separation_of_both_are_left_to_the_bootstrap_or_equal():
    sure = drawn(0, sharp=30.0)
    found = compare(method("a", sure), method("b", drawn(1, sharp=30.0))).figures["b", "subject", "auc"]
    assert (found.difference, found.p) == (0, 1)


def test_holm_is_over_the_methods_of_each_figure_apart():
    compared = compare(
        method("a", drawn(0, sharp=0.2)), method("b", drawn(1, sharp=1.0)), method("c", drawn(2, sharp=2.0))
    )
    for metric in COMPARED[:-1]:  # the ECE has no p
        for unit in ("image", "subject"):
            own = [compared.figures[name, unit, metric] for name in "bc"]
            assert [figure.p_holm for figure in own] == pytest.approx(holm([figure.p for figure in own]))
    own = [compared.figures[name, "image", "accuracy"] for name in "bc"]
    assert [figure.mcnemar_holm for figure in own] == pytest.approx(holm([figure.mcnemar for figure in own]))


def test_below_six_subjects_nothing_is_tested_and_it_is_said():
    compared = compare(method("a", drawn(0, subjects=5)), method("b", drawn(1, subjects=5)))
    assert {(figure.p, figure.mcnemar, figure.test) for figure in compared.figures.values()} == {(None, None, None)}
    assert any("5 subjects are too few for a paired test" in note for note in compared.notes)


def test_images_that_are_their_own_subjects_are_counted_once():
    compared = compare(method("a", answered([True, False] * 5)), method("b", answered([True] * 10)))
    assert compared.units == ("image",)
    assert any("every image counts as a subject" in note for note in compared.notes)


def test_the_majority_class_stands_beside_the_figures():
    truth = np.repeat([0, 1], [9, 3])
    tests = [
        Answers(TWO, tuple("abcdefghijkl"), tuple("abcdefghijkl"), truth, np.random.default_rng(n).normal(size=(12, 2)))
        for n in range(2)
    ]
    compared = compare(method("a", tests[0]), method("b", tests[1]))
    assert compared.majority("image") == ("no", 0.75)
    text = markdown(classifier_document(compared, title="x"))
    assert "Always answering no: accuracy 0.750, balanced 0.500." in text


# ---------------------------------------------------------------- the same images


def changed(test, **values):
    return Answers(
        **{**{name: getattr(test, name) for name in ("classes", "ids", "subjects", "truth", "logits")}, **values}
    )


def test_rows_and_classes_in_another_order_are_the_same():
    one, two = drawn(0), drawn(1)
    order = np.random.default_rng(0).permutation(len(one.ids))
    mixed = changed(
        two, classes=TWO[::-1], ids=[two.ids[n] for n in order], subjects=[two.subjects[n] for n in order],
        truth=1 - two.truth[order], logits=two.logits[order][:, ::-1],
    )  # fmt: skip
    straight, other = (compare(method("a", one), method("b", test)).figures for test in (two, mixed))
    assert other == straight


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (drawn(1, subjects=25), r"'a': run a 0 was not tested on 3 of 75 cases, s24_72\.png, .* as run b 0 was"),
        (
            changed(drawn(1), classes=("no", "maybe")),
            "run b 0 and run a 0 have different classes, 'maybe' in one alone",
        ),
        (
            changed(drawn(1), truth=1 - drawn(1).truth),
            r"'s00_0\.png' is of class 'yes' in run b 0 and of 'no' in run a",
        ),
        (changed(drawn(1), subjects=drawn(1).ids), r"'s00_0\.png' is of subject 's00_0\.png' in run b 0 and of 's00'"),
    ],
)
def test_other_images_classes_or_subjects_are_one_line(other, message):
    with pytest.raises(RunError, match=message) as error:
        compare(method("a", drawn(0)), method("b", other))
    assert "\n" not in str(error.value)


def test_common_images_are_compared_when_asked_for():
    compared = compare(method("a", drawn(0)), method("b", drawn(1, subjects=25)), common_images=True)
    assert (compared.images, compared.subjects) == (72, 24)
    assert any("only 72 of 75 cases" in note for note in compared.notes)


def test_runs_that_pool_differently_are_pooled_by_the_mean_and_it_is_said():
    compared = compare(method("a", drawn(0), pool="vote"), method("b", drawn(1), pool="max"))
    assert compared.pool == "mean"
    assert any("(vote, max): here all take the mean" in note for note in compared.notes)
    assert compare(method("a", drawn(0), pool="vote"), method("b", drawn(1), pool="vote")).pool == "vote"


# ---------------------------------------------------------------- tables and figure


@pytest.fixture(scope="module")
def compared():
    return compare(
        method("plain", drawn(0, sharp=0.5), drawn(3, sharp=0.5)),
        method("a|b", drawn(1, sharp=3.0), notes=(LEAK,), model="resnet18"),
        method("c", drawn(2, sharp=0.4), seed=0),
    )


def test_a_leaking_split_stands_above_every_table_with_the_method_that_it_is_of(compared):
    text = markdown(classifier_document(compared, title="x"))
    lines = text.splitlines()
    tables = [n for n, line in enumerate(lines) if line.startswith("| ") and not lines[n - 1].startswith("|")]
    assert len(tables) == 3  # methods, by image, by subject
    notes = [n for n, line in enumerate(lines) if "LEAKING SPLIT" in line]
    assert all(
        any(before < note < table for note in notes) for before, table in zip([0, *tables], tables, strict=False)
    )
    assert r"a\|b: LEAKING SPLIT" in text
    assert classifier_comparison_csv(compared).startswith(f"# a|b: {LEAK}\n")
    assert "LEAKING SPLIT" in classifier_comparison_figure(compared).get_suptitle()


def test_a_note_of_all_runs_needs_no_name():
    both = compare(method("a", drawn(0), notes=(LEAK,)), method("b", drawn(1), notes=(LEAK,)))
    assert both.run_notes == (LEAK,)


def test_the_tables_show_mean_interval_difference_and_tests(compared):
    text = markdown(classifier_document(compared, title="x"))
    figure = compared.figures["a|b", "subject", "accuracy"]
    row = next(line for line in text.split("## By subject")[1].splitlines() if line.startswith("|") and r"a\|b" in line)
    cells = [cell.strip() for cell in row.replace(r"\|", "/").strip("|").split("|")]
    assert cells[2] == f"{figure.value:.3f}"
    assert cells[5] == f"{figure.difference:+.3f}"
    assert "plain (reference)" in text
    assert "several of a subject are not, so by image trust the bootstrap" in text


def test_all_files_are_written_and_hold_the_same_figures(compared, tmp_path):
    text = write_classifier_comparison(compared, tmp_path / "out", title="three methods")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.md", "comparison.csv", "comparison.json", "comparison.png", "report.html",
    }  # fmt: skip
    assert (tmp_path / "out" / "comparison.md").read_text() == text
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    lines = (tmp_path / "out" / "comparison.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("# ")))
    assert len(rows) == len(data["figures"]) == 3 * 2 * len(COMPARED)
    assert next(iter(data)) == "notes"
    for row, figure in zip(rows, data["figures"], strict=True):
        assert (row["method"], row["unit"], row["metric"]) == (figure["method"], figure["unit"], figure["metric"])
        assert float(row["value"]) == figure["value"]
        assert (float(row["p"]) if row["p"] else None) == figure["p"]


def test_the_figure_shows_each_difference_with_its_interval_and_a_curve_a_run(compared):
    axes = classifier_comparison_figure(compared).axes
    accuracy, roc = axes[0], axes[len(COMPARED)]
    assert [text.get_text() for text in accuracy.get_yticklabels()] == ["a|b", "c"]
    figure = compared.figures["a|b", "image", "accuracy"]
    intervals_shown = [tuple(line.get_xdata()) for line in accuracy.lines if len(line.get_xdata()) == 2]
    assert figure.difference_ci95 in intervals_shown
    marks = {tuple(line.get_xdata()): line for line in accuracy.lines if len(line.get_xdata()) == 1}
    assert marks[(figure.difference,)].get_markerfacecolor() == (
        colours_of(compared)["a|b"] if figure.p_holm < 0.05 else "white"
    )
    assert len(roc.lines) == 1 + 4  # chance, and two runs, one and one


def test_three_classes_have_a_panel_each_against_the_rest():
    tests = [drawn(seed, classes=THREE) for seed in range(2)]
    axes = classifier_comparison_figure(compare(method("a", tests[0]), method("b", tests[1]))).axes
    titles = [panel.get_title() for panel in axes[len(COMPARED) :]]
    assert titles[:3] == ["a, by subject", "b, by subject", "c, by subject"]


# ---------------------------------------------------------------- the tool


def write_part(folder, tested, *, seed=0, training=("t_1", "t_2")):
    """What a classification run, or a fold, has beside its table."""
    folder.mkdir(parents=True)
    given = {"seed": seed, "network": {"name": "resnet"}, "train": {"epochs": 10, "steps_per_epoch": 5}}
    config = ClassificationConfig.model_validate(given)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    ClassSplit(tuple(training), (), tested.ids).save(folder / "split.json")
    (folder / "history.csv").write_text("step,minutes,loss\n10,5,0.5\n20,10,0.4\n")
    write_json(folder / "environment.json", {"device": "CPU, 2 cores"})


def write_run(folder, tested, *, notes=(), pool="mean", **part):
    """A finished classification run."""
    write_part(folder, tested, **part)
    (folder / "test").mkdir()
    save_answers(tested, folder / "test" / "predictions.csv", notes=notes)
    write_json(folder / "test" / "figures.json", {"pool": pool})
    return folder


def write_folds(folder, tested):
    """A finished cross-validation of two folds."""
    for fold in range(2):
        write_part(folder / f"fold_{fold}", tested, training=[f"t_{fold}"])
    (folder / "folds.yaml").write_text(yaml.safe_dump({"split": {"folds": 2}, "network": {"name": "resnet"}}))
    (folder / "test").mkdir()
    save_answers(tested, folder / "test" / "predictions.csv")
    return folder


@pytest.fixture
def run_compare(tmp_path, monkeypatch, capsys):
    """Run the tool in this process, without drawing: exit code, output, errors, comparison.json."""
    monkeypatch.chdir(tmp_path)
    where = "segmed.reports.classifier_comparison.text"
    monkeypatch.setattr(f"{where}.classifier_comparison_figure", lambda *given, **options: None)
    monkeypatch.setattr("segmed.reports.comparison.document.save_figure", lambda *given, **options: None)

    def call(*options):
        spec = importlib.util.spec_from_file_location("compare_tool", TOOL)
        tool = sys.modules["compare_tool"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        monkeypatch.setattr(sys, "argv", ["compare.py", *options, "--output", "out", "--bootstrap", str(FEW)])
        with pytest.raises(SystemExit) as stop:
            run_tool(tool.main)
        printed = capsys.readouterr()
        path = tmp_path / "out" / "comparison.json"
        data = json.loads(path.read_text()) if path.exists() else None
        return SimpleNamespace(code=stop.value.code, out=printed.out, err=printed.err, data=data)

    return call


@pytest.fixture
def runs(tmp_path):
    """Two seeds of a ResNet, one of which leaks, and one of a DenseNet."""
    for seed in range(2):
        write_run(tmp_path / f"resnet_{seed}", drawn(seed), seed=seed, notes=(LEAK,) if seed else ())
    write_run(tmp_path / "dense", drawn(7, sharp=0.5))
    return tmp_path


def test_the_tool_compares_runs_of_classification_with_their_seeds(runs, run_compare):
    done = run_compare("--methods", "resnet=resnet_0,resnet_1", "dense=dense", "--reference", "resnet")
    assert done.code == 0, done.err
    assert done.out.startswith("# dense against resnet\n")
    for text in (done.err, done.out, " ".join(done.data["notes"])):
        assert f"resnet: {LEAK}" in text
        assert "different numbers of runs: resnet 2, dense 1" in text
    assert [len(own["runs"]) for own in done.data["methods"]] == [2, 1]
    assert "| resnet (reference) | 2    | resnet18 | 10             | 50 steps of 32 images |" in done.out
    own = next(
        f for f in done.data["figures"] if (f["method"], f["unit"], f["metric"]) == ("dense", "image", "accuracy")
    )
    share = [(drawn(seed).labels == drawn(seed).truth).mean() for seed in range(2)]
    test = drawn(7, sharp=0.5)
    assert own["difference"] == pytest.approx((test.labels == test.truth).mean() - np.mean(share))


def test_a_cross_validation_is_compared_with_a_run(runs, run_compare):
    write_folds(runs / "folds", drawn(3))
    done = run_compare("--methods", "cv=folds", "run=dense")
    assert done.code == 0, done.err
    assert done.data["methods"][0]["training_minutes"] == 20
    assert "not trained on the same cases: cv 1, run 2" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("a=resnet_0", "b=segmenter"), "resnet_0 classifies images, segmenter does not: compare classifiers"),
        (("a=segmenter", "b=resnet_0"), "resnet_0 classifies images, segmenter does not"),
        (
            ("a=resnet_0", "b=stopped"),
            "run stopped has no finished test: go on with segmed train-cls --resume",
        ),
        (("a=stopped", "b=stopped_2"), "run stopped has no finished test: go on with segmed train-cls"),
        (("a=resnet_0", "b=other"), "'a': resnet_0 was not tested on 3 of 75 cases, s24_72.png, s24_73.png"),
        (("a=resnet_0", "b=torn"), "torn/test/predictions.csv has no column 'truth'"),
        (("a=resnet_0", "b=dense", "--labels", "scar=1"), "--references, --labels and --run are of label maps"),
    ],
)
def test_what_can_not_be_compared_is_one_line(runs, run_compare, options, message):
    write_part(runs / "stopped", drawn(0))
    write_part(runs / "stopped_2", drawn(0))
    write_run(runs / "other", drawn(0, subjects=25))
    table = write_run(runs / "torn", drawn(0)) / "test" / "predictions.csv"
    table.write_text(table.read_text().replace("truth", "class", 1))
    (runs / "segmenter" / "test").mkdir(parents=True)
    (runs / "segmenter" / "config.yaml").write_text("network: {name: unet}\n")
    (runs / "segmenter" / "test" / "cases.csv").write_text("case,label,dice\na,scar,0.5\n")
    done = run_compare("--methods", *options)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.data is None


def test_a_folder_with_the_table_alone_gives_its_figures(tmp_path):
    (tmp_path / "run" / "test").mkdir(parents=True)
    save_answers(drawn(0), tmp_path / "run" / "test" / "predictions.csv", notes=("one", "two"))
    found = read_classifier(tmp_path / "run")
    assert is_classifier(tmp_path / "run")
    assert (found.model, found.facts.training_minutes, found.notes, found.pool) == (None, None, ("one", "two"), "mean")
    np.testing.assert_array_equal(found.answers.logits, drawn(0).logits)

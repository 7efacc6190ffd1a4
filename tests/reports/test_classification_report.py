"""From logits of test images to figures, tables, pictures and the page; what validation decides, and notes."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_classifiers import encoder_classifier
from small_networks import ENCODERS

from segmed.config.classification import ClassEvaluateConfig
from segmed.errors import RunError
from segmed.evaluate.answers import Answers, read_answers, save_answers, save_predictions
from segmed.evaluate.class_summary import summarise_classification
from segmed.evaluate.decisions import by_image
from segmed.evaluate.explanations import explain, explain_images, shown_images, worst_first
from segmed.networks.classifiers import ClassificationModel
from segmed.reports.classification.figures import (
    confusion_figure,
    curves_figure,
    gallery_figure,
    learning_curves,
    reliability_figure,
)
from segmed.reports.classification.files import draw_classification, write_classification
from segmed.reports.classification.maps import maps_figure, write_maps
from segmed.reports.classification.page import write_classification_page
from segmed.reports.classification.text import classification_text
from segmed.runs import read_history

CONFIG = ClassEvaluateConfig(bootstrap=40, gallery=4, maps=2)
NOTE = "LEAKING SPLIT, allowed: 127 test images <stand> in training"
TWO = ("no", "yes")
PICTURES = ("confusion", "curves", "reliability", "gallery", "maps", "learning_curves")
TABLES = ("predictions", "predictions_validation", "figures", "confusion", "roc", "precision_recall", "reliability")


def classified(truth, probabilities, *, subjects=None, classes=TWO, prefix="test"):
    """Images with known probabilities; a single number is that of the second of two classes."""
    rows = np.array([[1 - p, p] if isinstance(p, float) else p for p in probabilities], dtype=float)
    ids = tuple(f"{prefix}/{number}.png" for number in range(len(truth)))
    return Answers(classes, ids, tuple(subjects or ids), np.array(truth), np.log(rows), 0.5)


def drawn(*, classes=TWO, subjects=12, slices=3, seed=0, prefix="test"):
    """Subjects with several images, most of them classified well."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(subjects) % len(classes), slices)
    logits = 2 * np.eye(len(classes))[truth] + generator.normal(0, 1.5, (len(truth), len(classes)))
    names = [f"{prefix}{number}" for number in range(subjects) for _ in range(slices)]
    ids = [f"{name}_{number}.png" for number, name in enumerate(names)]
    return Answers(classes, tuple(ids), tuple(names), truth, logits)


def load(name):
    return np.random.default_rng(len(name)).normal(size=(1, 16, 12)).astype(np.float32)


def summary_of(test, validation=None, **options):
    return summarise_classification(test, validation, config=CONFIG.model_copy(update=options), title="run")


# ---------------------------------------------------------------- figures by hand

# yes: 4 of 5 right, no: 3 of 5; three subjects, each with one label
HAND = classified(
    [1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
    [0.9, 0.8, 0.6, 0.7, 0.2, 0.1, 0.3, 0.6, 0.7, 0.4],
    subjects=["a"] * 5 + ["b"] * 3 + ["c"] * 2,
)


def value(figure):
    return figure["value"]


def test_figures_by_image_of_ten_images_by_hand():
    found = summary_of(HAND)["image"]
    assert found["confusion"] == [[3, 2], [1, 4]]
    assert value(found["overall"]["accuracy"]) == pytest.approx(0.7)
    assert value(found["per_class"]["yes"]["precision"]) == pytest.approx(4 / 6)
    assert value(found["per_class"]["yes"]["recall"]) == pytest.approx(4 / 5)
    pairs = [(p > n) + 0.5 * (p == n) for p in (0.9, 0.8, 0.6, 0.7, 0.2) for n in (0.1, 0.3, 0.6, 0.7, 0.4)]
    assert value(found["overall"]["auc"]) == pytest.approx(sum(pairs) / 25)
    assert (found["majority_share"], found["cases"], found["subjects"]) == (0.5, 10, 3)
    wrong = [0.1, 0.2, 0.4, 0.3, 0.8, 0.1, 0.3, 0.6, 0.7, 0.4]  # distances of the probabilities from the truth
    before = found["calibration"]["before"]
    assert value(before["brier"]) == pytest.approx(np.mean(np.square(wrong)))
    assert value(before["log_loss"]) == pytest.approx(-np.mean(np.log(1 - np.array(wrong))))
    assert value(before["log_loss"]) == pytest.approx(value(found["overall"]["log_loss"]))


def test_figures_by_subject_are_those_of_the_mean_probabilities():
    found = summary_of(HAND)["subject"]
    assert found["confusion"] == [[1, 1], [0, 1]]  # a 0.64, b 0.33, c 0.55
    assert (found["cases"], found["majority_class"], found["majority_share"]) == (3, "no", pytest.approx(2 / 3))
    assert value(found["overall"]["auc"]) == 1


def test_intervals_hold_the_figure_and_are_by_subject():
    one = classified([0, 1, 1], [0.1, 0.8, 0.7], subjects=["a", "a", "a"])
    assert summary_of(one)["image"]["overall"]["accuracy"] == {
        "value": 1.0,
        "ci95": None,
        "ci95_method": "none below 6 subjects",
    }
    found = summary_of(drawn(subjects=24))["image"]["overall"]
    for key in ("accuracy", "auc", "log_loss"):
        low, high = found[key]["ci95"]
        assert low < value(found[key]) < high


def test_temperature_makes_sure_errors_less_sure():
    sure = drawn(subjects=30)
    sure = Answers(sure.classes, sure.ids, sure.subjects, sure.truth, 5 * sure.logits)
    found = summary_of(sure, sure)
    assert found["temperature"]["value"] > 2
    before, after = (found["image"]["calibration"][when] for when in ("before", "after"))
    assert value(after["log_loss"]) < value(before["log_loss"])
    assert value(after["ece"]) < value(before["ece"])
    assert summary_of(sure, sure, calibrate=False)["temperature"] is None


# ---------------------------------------------------------------- what validation decides

VALIDATION = drawn(seed=5, prefix="validation")


@pytest.mark.parametrize("rule", ["best_accuracy", "youden", "sensitivity", "specificity"])
def test_neither_threshold_nor_temperature_change_with_the_labels_of_the_test_part(rule):
    first = drawn(seed=1)
    other = Answers(first.classes, first.ids, first.subjects, 1 - first.truth, first.logits)
    found, swapped = (summary_of(test, VALIDATION, rule=rule, least=0.8) for test in (first, other))
    assert found["image"]["overall"] != swapped["image"]["overall"]
    assert found["temperature"] == swapped["temperature"]
    for unit in ("image", "subject"):
        for key in ("value", "rule", "chosen_on"):
            assert found[unit]["threshold"][key] == swapped[unit]["threshold"][key]


def test_a_threshold_is_applied_as_validation_chose_it():
    validation = classified([0, 0, 1, 1], [0.05, 0.1, 0.2, 0.3], prefix="validation")
    found = summary_of(classified([0, 0, 1, 1], [0.1, 0.18, 0.12, 0.9]), validation)["image"]["threshold"]
    assert found["value"] == pytest.approx(0.15)
    assert found["chosen_on"] == {"cases": 4, "sensitivity": 1.0, "specificity": 1.0, "accuracy": 1.0}
    counts = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    assert [found[key] for key in counts] == [1, 1, 1, 1]


def test_without_validation_there_is_no_temperature_and_the_threshold_is_a_half():
    found = summary_of(HAND)
    assert found["temperature"] is None
    assert found["image"]["calibration"]["after"] is None
    assert (found["image"]["threshold"]["value"], found["image"]["threshold"]["chosen_on"]) == (0.5, None)
    said = "no validation part: no temperature is fitted and the threshold is 0.5"
    assert said in found["remarks"]
    assert said in classification_text(found)


def test_validation_of_one_class_leaves_the_threshold_at_a_half_and_says_so():
    found = summary_of(HAND, classified([1, 1], [0.4, 0.6], prefix="validation"))
    assert found["image"]["threshold"]["value"] == 0.5
    assert any("threshold by image is 0.5: no case of another class" in remark for remark in found["remarks"])


def test_more_than_two_classes_have_no_threshold():
    found = summary_of(drawn(classes=("a", "b", "c")), drawn(classes=("a", "b", "c"), seed=3))
    assert (found["positive"], found["image"]["threshold"]) == (None, None)
    assert "threshold of" not in classification_text(found)


def test_validation_of_another_model_is_refused():
    with pytest.raises(RunError, match="validation has the classes a, b, test no, yes"):
        summary_of(HAND, drawn(classes=("a", "b")))


# ---------------------------------------------------------------- subjects and classes that are not there


def test_a_subject_with_images_of_two_classes_is_not_pooled():
    found = summary_of(classified([0, 1, 0, 1], [0.1, 0.8, 0.7, 0.9], subjects=["a", "a", "b", "b"]))
    assert found["units"] == ["image"]
    assert any("no figures by subject: subject a has images of the labels 0, 1" in line for line in found["remarks"])


def test_images_that_are_their_own_subjects_are_not_counted_twice():
    found = summary_of(classified([0, 1, 0, 1], [0.1, 0.8, 0.7, 0.9]))
    assert found["units"] == ["image"]
    assert "every image counts as a subject of its own" in "\n".join(found["remarks"])


ABSENT = classified(
    [0, 0, 1, 1], [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.3, 0.5, 0.2]], classes=("a", "b", "rare")
)


def test_figures_of_an_absent_class_are_dashes_and_counted(tmp_path):
    found = write_classification(ABSENT, None, tmp_path, config=CONFIG, title="run", notes=[], load=None)
    own = found["image"]["per_class"]["rare"]
    assert (own["recall"], own["support"]) == ({"value": None, "ci95": None, "ci95_method": "none"}, 0)
    names = [f"{key} of rare" for key in ("precision", "recall", "f1", "auc", "average_precision")]
    assert found["image"]["undefined"] == names
    text = classification_text(found)
    assert re.search(r"^rare +(– +){5}0 +0$", text, re.MULTILINE)
    assert "–: 5 figures by image undefined: precision of rare" in text
    assert any("class rare has no case in the truth" in remark for remark in found["remarks"])
    assert ["image", "rare", "recall", "", "", "", "none"] in list(csv.reader((tmp_path / "figures.csv").open()))
    assert "rare" not in {row[1] for row in csv.reader((tmp_path / "roc.csv").open())}
    page = write_classification_page(tmp_path).read_text()
    assert "<td>rare</td>" + "<td>–</td>" * 5 + "<td>0</td>" in page
    shares = [text.get_text() for text in confusion_figure(found).axes[0].texts]
    assert shares[-3:] == ["0\n–"] * 3


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with everything in it, and its summary."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "history.csv").write_text("step,loss,accuracy,validation/auc\n1,2.0,0.5,\n2,1.0,0.6,0.7\n")
    common = {"config": CONFIG, "title": "a <run>", "notes": [NOTE], "load": load}
    summary = write_classification(drawn(), VALIDATION, folder / "test", **common)
    model = encoder_classifier(ENCODERS[0], 2, 2, channels=1)
    write_maps(drawn(), explain_images(model, drawn(), load, most=2), folder / "test", title="a <run>", notes=[NOTE])
    write_classification_page(folder)
    return folder, summary


def test_every_file_is_there_and_begins_with_the_notes(run):
    folder, summary = run
    written = {path.name for path in (folder / "test").iterdir()}
    expected = {f"{name}.csv" for name in TABLES} | {f"{name}.png" for name in PICTURES}
    assert written == expected | {"figures.json"}
    for name in TABLES:
        assert (folder / "test" / f"{name}.csv").read_text().splitlines()[0] == f"# {NOTE}"
    data = json.loads((folder / "test" / "figures.json").read_text())
    assert (next(iter(data)), data["notes"]) == ("notes", [NOTE])
    assert data == summary
    assert classification_text(summary).startswith(f"NOTE: {NOTE}\n")


def test_leaks_stand_above_a_picture_and_other_notes_below():
    figure = learning_curves({"loss": [(1.0, 2.0)]}, title="a title", notes=["nobody says who was scanned", NOTE])
    assert " ".join(figure.get_suptitle().split()) == f"{NOTE} a title"
    assert figure.get_supxlabel() == "nobody says who was scanned"


def test_every_picture_and_every_table_of_the_page_begins_with_a_leak(run):
    folder, summary = run
    figures = list(draw_classification(drawn(), summary, config=CONFIG, load=load).values())
    figures.append(learning_curves(read_history(folder / "history.csv"), title="a", notes=[NOTE]))
    figures.append(maps_figure(drawn(), explain_images(Corner(2), drawn(), load, most=1), notes=[NOTE]))
    for figure in figures:
        assert " ".join(figure.get_suptitle().split()).startswith(NOTE)
    page = (folder / "report.html").read_text()
    shown = NOTE.replace("<", "&lt;").replace(">", "&gt;")
    assert page.count("<table>") == page.count(f'<table><caption class="notes">{shown}</caption>') == 4
    assert page.index(shown) < page.index("<h1>")


def test_the_page_loads_nothing_shows_every_picture_and_escapes_names(run):
    page = (run[0] / "report.html").read_text()
    sources = re.findall(r"<[^>]*(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", page)
    assert len(sources) == len(PICTURES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<run>" not in page
    assert "<stand>" not in page


def test_what_an_earlier_test_wrote_does_not_stay(tmp_path):
    old = {"predictions_validation.csv", "gallery.png", "maps.png"}
    for name in old:
        (tmp_path / name).touch()
    right, config = classified([0, 1], [0.1, 0.9]), CONFIG.model_copy(update={"maps": 0})
    write_classification(right, None, tmp_path, config=config, title="", notes=[], load=load)
    write_maps(right, explain_images(Corner(2), right, load, most=config.maps), tmp_path, title="", notes=[])
    assert not old & {path.name for path in tmp_path.iterdir()}


def test_a_folder_without_figures_has_no_page(tmp_path):
    with pytest.raises(RunError, match=r"holds no figures\.json"):
        write_classification_page(tmp_path)


def test_points_of_the_curves_give_the_areas(run):
    folder, summary = run
    lines = (folder / "test" / "roc.csv").read_text().splitlines()[1:]
    points = [row for row in csv.DictReader(lines) if (row["unit"], row["class"]) == ("image", "yes")]
    area = np.trapezoid([float(p["sensitivity"]) for p in points], [float(p["false_positive_rate"]) for p in points])
    assert area == pytest.approx(value(summary["image"]["overall"]["auc"]), abs=1e-4)


# ---------------------------------------------------------------- predictions.csv

WORDS = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), min_size=1, max_size=6)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, min_size=2, max_size=3, unique=True), st.lists(WORDS, min_size=1, max_size=4, unique=True))
@example(["a,b", 'c"d'], ["# x\n", "\x1c,", "\u2028 "])
def test_a_table_gives_back_what_went_in(tmp_path, classes, ids):
    generator = np.random.default_rng(len(ids))
    truth = generator.integers(0, len(classes), len(ids))
    logits = generator.normal(0, 50, (len(ids), len(classes)))
    test = Answers(tuple(classes), tuple(ids), tuple(reversed(ids)), truth, logits, 3.0)
    path = tmp_path / "predictions.csv"
    save_answers(test, path, temperature=1.7, notes=["one\nnote", "# another"])
    found = read_answers(path)
    assert (found.classes, found.ids, found.subjects) == (test.classes, test.ids, test.subjects)
    assert np.array_equal(found.truth, test.truth)
    assert np.array_equal(found.logits, test.logits)


def test_columns_of_the_table_are_probabilities_then_calibrated_ones(tmp_path):
    save_answers(HAND, tmp_path / "p.csv", temperature=2.0)
    row = next(csv.DictReader((tmp_path / "p.csv").open()))
    assert (row["id"], row["subject"], row["truth"], row["predicted"]) == ("test/0.png", "a", "yes", "yes")
    assert float(row["probability yes"]) == pytest.approx(0.9)
    assert float(row["calibrated yes"]) == pytest.approx(0.75)  # odds of 9 become 3
    assert float(row["logit yes"]) == math.log(0.9)


def test_images_without_truth_have_a_table_too(tmp_path):
    save_predictions(tmp_path / "p.csv", TWO, ["x.png"], np.log([[0.8, 0.2]]))
    assert next(csv.DictReader((tmp_path / "p.csv").open()))["predicted"] == "no"
    with pytest.raises(RunError, match="no column 'subject'"):
        read_answers(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,subject,truth\n1,1,a\n", "no column of logits"),
        ("id,subject,truth,logit a,logit b\n1,1,c,0,0\n", "truth 'c' of '1' is no class"),
        ("id,subject,truth,logit a,logit b\n1,1,a,0,x\n", "a logit that is no number"),
        ("id,subject,truth,logit a,logit b\n1,1,a,0\n", "a logit that is no number"),
        ("id,subject,truth,logit a,logit b\n", "no image was classified"),
        ("", "no column 'id'"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, words):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(RunError, match=words):
        read_answers(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"logits": np.array([[0.0, math.nan], [0, 1]])}, "logits of image 'x' are not finite"),
        ({"logits": np.zeros((2, 3))}, r"logits \(2, 3\)"),
        ({"ids": ("x", "x")}, "image 'x' was classified 2 times"),
        ({"truth": np.array([0, 2])}, "image 'y' is of class 2, the model has 2"),
        ({"subjects": ("s",)}, "1 subjects do not fit 2 images"),
    ],
)
def test_images_that_do_not_fit_together_are_refused(changed, words):
    good = {"classes": TWO, "ids": ("x", "y"), "subjects": ("s", "t"), "truth": [0, 1], "logits": np.zeros((2, 2))}
    with pytest.raises(RunError, match=words):
        Answers(**{**good, **changed})


# ---------------------------------------------------------------- pictures


def test_the_gallery_begins_with_the_worst_and_counts_the_rest():
    assert [HAND.ids[index] for index in worst_first(HAND)] == ["test/4.png", "test/8.png", "test/7.png"]
    figure = gallery_figure(HAND, load, most=2)
    shown = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert shown == ["truth yes 0.200\nanswer no 0.800", "truth no 0.300\nanswer yes 0.700"]
    assert "2 of 3 misclassified images of 10" in figure.get_suptitle()
    assert gallery_figure(HAND, load, most=0) is None


def test_curves_name_areas_and_mark_the_threshold():
    summary = summary_of(HAND)
    roc, _, legend, _ = curves_figure([by_image(HAND)], summary).axes
    texts = [text.get_text() for text in legend.get_legend().get_texts()]
    assert re.fullmatch(r"yes  0\.760", texts[0])
    assert texts[1] == "threshold 0.5 (default)"
    point = next(line for line in roc.lines if line.get_marker() == "D")
    assert point.get_xydata().tolist() == [[pytest.approx(2 / 5), pytest.approx(4 / 5)]]


def test_reliability_shows_frequencies_before_and_after():
    summary = summary_of(HAND, drawn(seed=2))
    level = by_image(HAND, 2.0)
    before, after = reliability_figure(level, summary).axes[:2]
    for axes, probabilities in ((before, level.probabilities), (after, level.calibrated)):
        drawn_points = next(line for line in axes.lines if line.get_marker() == "o").get_xydata()
        sure = probabilities.max(axis=1)
        assert drawn_points[:, 0].min() >= sure.min()
        assert drawn_points[:, 0].max() <= sure.max()
    assert "temperature" in after.get_title()


def test_confusion_shows_counts_and_shares_of_the_truth():
    image, subject = confusion_figure(summary_of(HAND)).axes
    assert [text.get_text() for text in image.texts] == ["3\n60 %", "2\n40 %", "1\n20 %", "4\n80 %"]
    assert subject.get_title() == "by subject, n = 3"


def test_learning_curves_take_losses_and_shares_apart():
    points = [(1.0, 0.5), (2.0, 0.7)]
    names = ("loss", "accuracy", "gradient_norm", "validation/log_loss", "balanced_accuracy", "validation/auc")
    loss, share = learning_curves(dict.fromkeys(names, points)).axes
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in (loss, share)]
    assert legends == [
        ["training loss", "validation log loss"],
        ["accuracy", "validation balanced accuracy", "validation AUC"],
    ]
    assert learning_curves({"gradient_norm": points}) is None


# ---------------------------------------------------------------- maps


class Corner(ClassificationModel):
    """The second class where the corner of an image is bright; it looks nowhere else."""

    def __init__(self, dims):
        super().__init__(1, 2, dims=dims, map_layer="seen")
        self.seen = torch.nn.ReLU(inplace=True)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def classify(self, image):
        seen = self.seen(image * self.weight)
        bright = seen[(slice(None), 0, *[slice(0, 4)] * self.dims)].flatten(1).mean(1)
        return torch.stack([torch.ones_like(bright), 4 * bright], dim=1)


@pytest.mark.parametrize("dims", [2, 3])
def test_maps_show_where_a_model_looks_and_leave_it_as_it_is(dims):
    model = Corner(dims).train()
    image = np.full((1, *[16] * dims), 0.1, np.float32)
    corner = (slice(0, 4),) * dims
    image[(0, *corner)] = 1.0
    found = explain(model, image)
    for values in (found.attention, found.drop):
        assert values.shape == image.shape[1:]
        assert np.unravel_index(values.argmax(), values.shape) < (4,) * dims
    far = (slice(8, None),) * dims
    assert np.allclose(found.drop[far], 0, atol=1e-6)
    assert 0 < found.drop.max() <= 1
    assert found.attention.max() == pytest.approx(1)
    assert model.training
    assert model.seen.inplace
    assert not model.seen._forward_hooks
    assert model.weight.grad is None


def test_a_model_without_a_feature_map_has_occlusion_alone():
    model = Corner(2)
    model.map_layer = ""
    with torch.inference_mode():
        figure = maps_figure(HAND, explain_images(model, HAND, load, most=1))
    assert [axes.get_title() for axes in figure.axes] == ["image", "no feature map", "occlusion"]


@pytest.mark.parametrize(("most", "wrong", "right"), [(4, 2, 2), (1, 0, 1), (8, 3, 5), (20, 3, 7)])
def test_maps_are_of_errors_and_of_right_answers(most, wrong, right):
    found = shown_images(HAND, most)
    errors = set(worst_first(HAND))
    assert [index in errors for index in found] == [True] * wrong + [False] * right
    assert len(set(found)) == len(found)


def test_volumes_are_shown_in_three_planes():
    figure = maps_figure(HAND, explain_images(Corner(3), HAND, lambda name: np.ones((1, 8, 10, 6), np.float32), most=1))
    assert [axes.images[0].get_array().shape for axes in figure.axes[::3]] == [(10, 8), (6, 8), (6, 10)]


def test_the_table_of_few_subjects_names_its_intervals_and_what_the_calibration_error_is_by_chance():
    few = drawn(subjects=14, slices=1)
    summary = summary_of(few)
    text = classification_text(summary)
    said = next(line for line in text.splitlines() if line.startswith("95 % intervals by image"))
    assert "Clopper-Pearson (accuracy" in said
    assert "none below 20 subjects (balanced accuracy" in said
    chance = summary["image"]["calibration"]["before"]["ece_if_calibrated"]
    assert f"{chance['value']:.3f} [{chance['ci95'][0]:.3f}, {chance['ci95'][1]:.3f}]" in text
    assert summary["image"]["calibration"]["before"]["ece"]["ci95"] is None

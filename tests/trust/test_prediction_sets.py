"""Sets of classes that hold the true one: exact coverage by enumeration, abstention, folds, subjects."""

import csv
import math

import numpy as np
import pytest
from tiny_classes import config_of, write_classes

from segmed.classify import run as classify_run
from segmed.classify.calibrate import calibrate, read_class_evidence
from segmed.classify.predict import ABSTAINS, classify, find_images, write_answers
from segmed.errors import MetricError
from segmed.runs import open_run, read_class_config
from segmed.trust.prediction_sets import ClassEvidence, ClassEvidenceCase, PredictionSets, set_words

CLASSES = ("tumour", "none", "other")


def evidence_of(probabilities, truth, members=None) -> ClassEvidence:
    """One image a subject."""
    members = [0] * len(truth) if members is None else members
    cases = tuple(
        ClassEvidenceCase(
            subject=number, member=members[number], truth=int(label), probabilities=tuple(map(float, row))
        )
        for number, (row, label) in enumerate(zip(probabilities, truth, strict=True))
    )
    return ClassEvidence(weights=("w",) * (max(members) + 1), classes=CLASSES, drawn_from="made", cases=cases)


@pytest.mark.parametrize(("images", "level"), [(20, 0.9), (13, 0.8), (31, 0.95)])
def test_sets_hold_the_true_class_exactly_as_often_as_promised(images, level):
    """Each of n + 1 exchangeable images is the new one in turn."""
    rng = np.random.default_rng(0)
    probabilities, truth = rng.dirichlet(np.ones(3), images), rng.integers(0, 3, images)
    hits = 0
    for new in range(images):
        others = np.arange(images) != new
        sets = PredictionSets(evidence_of(probabilities[others], truth[others]), level)
        hits += CLASSES[truth[new]] in sets.classes(probabilities[new][None])
    assert hits == math.ceil(level * images - 1e-9)


def test_a_sure_image_has_one_class_and_an_unsure_one_several():
    right = np.tile([0.9, 0.06, 0.04], (20, 1))
    right[0] = [0.4, 0.35, 0.25]
    sets = PredictionSets(evidence_of(right, [0] * 20), 0.9)
    assert sets.classes(np.array([[0.95, 0.03, 0.02]])) == ("tumour",)
    assert sets.classes(np.array([[0.34, 0.33, 0.33]])) == ()  # like no image of calibration
    wide = PredictionSets(evidence_of(right, [0] * 20), 0.95)
    assert wide.classes(np.array([[0.5, 0.45, 0.05]])) == ("tumour", "none")
    assert [set_words(each) for each in (("tumour", "none"), ())] == ["tumour | none", "none"]


def test_an_image_of_a_fold_is_compared_with_what_its_own_fold_says():
    """The second fold is always less sure by half: with its own answer the set is that of one fold."""
    first = np.tile([0.8, 0.1, 0.1], (10, 1))
    second = np.tile([0.4, 0.3, 0.3], (10, 1))
    both = evidence_of(np.concatenate([first, second]), [0] * 20, [0] * 10 + [1] * 10)
    sets = PredictionSets(both, 0.9)
    assert sets.classes(np.array([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3]])) == ("tumour",)
    assert sets.classes(np.array([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3]])) == ("tumour", "none")


def test_three_subjects_bear_no_set():
    with pytest.raises(MetricError, match=r"^3 subjects bear a level of 75 % at most, 90 % needs 9: "):
        PredictionSets(evidence_of(np.full((3, 3), 1 / 3), [0, 1, 2]))


@pytest.mark.slow
def test_a_trained_classifier_gives_sets_and_abstains(tmp_path):
    data = write_classes(tmp_path / "data", subjects=6, images=1)
    changes = {"train": {"epochs": 4, "validations": 1}, "evaluate": {"bootstrap": 10, "maps": 0, "gallery": 0}}
    classify_run.run(config_of(tmp_path, data, **changes), tmp_path / "run")
    new = write_classes(tmp_path / "new", subjects=8, images=1)
    for path in sorted(new.rglob("*.png")):
        path.rename(path.with_name(f"{path.name[0]}9{path.name[1:]}"))
    assert read_class_evidence([tmp_path / "run"]) is None
    lines = calibrate(tmp_path / "run", new, device="cpu")
    assert lines[0].startswith("calibrated by 16 images of 16 subjects: images of new: ")
    evidence = read_class_evidence([tmp_path / "run"])
    images = find_images(new, read_class_config(open_run(tmp_path / "run")).image)
    sets = PredictionSets(evidence, 0.9)
    write_answers(classify([tmp_path / "run"], images, device="cpu"), tmp_path / "a.csv", sets)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("# ")))
    held = [row["id"].split("/")[0] in row["set at 0.9"].split(" | ") for row in rows]
    assert sum(held) >= math.ceil(0.9 * 17 - 1e-9) - 1  # on what calibrated it: all but at most one of sixteen
    for row in rows:
        several = row["set at 0.9"] == "none" or " | " in row["set at 0.9"]
        assert row["answer"] == (ABSTAINS if several else row["set at 0.9"])

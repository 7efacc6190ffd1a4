"""A case is read once and seen once, whatever is asked of it: label map, class, figures, picture."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_data import make_balls, names, tiny, training_of

from segmed.builders.trained import load_run
from segmed.compose.run import run, start
from segmed.data.inputs import find_inputs
from segmed.data.splits import Split
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.runs import Run, read_config
from segmed.segment import plan as planning
from segmed.segment import test as segment_test
from segmed.segment.predict import predict_cases
from segmed.segmenters.case_class import CaseClassifier
from segmed.training.tracking import Tracker
from segmed.volumes import Source, read_volume

COUNT = 8
OF_A_CASE = 27  # windows of 8³ with half overlap in 16³


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    """Balls of two kinds, which the manifest tells apart."""
    folder = make_balls(tmp_path_factory.mktemp("kinds"), cases=COUNT)
    rows = [f"{name}.nii.gz,{name}_label.nii.gz,s{n},{'ab'[n % 2]}" for n, name in enumerate(names(COUNT))]
    (folder / "manifest.csv").write_text("\n".join(["image,label,subject,kind", *rows, ""]))
    Split(tuple(names(COUNT)[:4]), tuple(names(COUNT)[4:6]), tuple(names(COUNT)[6:])).save(folder / "split.json")
    return folder


@pytest.fixture(scope="module")
def two_heads(balls, tmp_path_factory) -> Run:
    """A tested run of a network that segments and classifies."""
    folder = tmp_path_factory.mktemp("runs")
    config = tiny(
        balls,
        folder,
        data={"layout": {"name": "manifest", "file": "manifest.csv"}},
        split={"file": balls / "split.json"},
        classification={"column": "kind"},
        inference={"windows": 4, "largest_component": ["core"]},
    )
    run(config, folder / "run")
    return Run(folder / "run")


@pytest.fixture
def windows(monkeypatch) -> list[int]:
    """Windows of each pass through an encoder."""
    seen: list[int] = []
    whole = PlainEncoder.forward

    def counted(self, image):
        if image.device.type != "meta":  # of an estimate of memory
            seen.append(len(image))
        return whole(self, image)

    monkeypatch.setattr(PlainEncoder, "forward", counted)
    return seen


@pytest.fixture
def reads(monkeypatch) -> Counter:
    """How often each case of a test is read from its files."""
    counts: Counter = Counter()
    whole = segment_test.read_case

    def counted(case, dataset):
        counts[case.id] += 1
        return whole(case, dataset)

    monkeypatch.setattr(segment_test, "read_case", counted)
    return counts


def test_a_test_reads_each_file_once_and_passes_each_window_once(two_heads, windows, reads):
    training = training_of(two_heads)
    config, split = training.config, training.split
    before = {path: path.read_bytes() for path in two_heads.test.glob("classes.csv")}
    segment_test.run_test(two_heads, config, training.dataset, split, device="cpu")
    assert reads == Counter([*split.test, *split.validation])
    assert sum(windows) == OF_A_CASE * len(reads)
    assert before == {path: path.read_bytes() for path in before}


def test_a_validation_passes_each_window_once(two_heads, windows):
    training = training_of(two_heads)
    validator = training._validator(Tracker())
    windows.clear()
    result = validator(training.network)
    assert sum(windows) == OF_A_CASE * len(training.split.validation)
    assert {"accuracy", "log_loss", "dice/core"} <= result.metrics.keys()


def test_a_prediction_tells_the_class_by_the_same_pass_and_keeps_it(two_heads, balls, windows, tmp_path):
    segmenter = load_run(two_heads.path, device="cpu")
    config = read_config(two_heads)
    inputs = [i for i in find_inputs(balls, config.data, output=tmp_path) if i.case.id in names(COUNT)[6:]]
    given = {"modalities": config.data.images, "classes": config.classification.classes}
    reports = list(predict_cases(segmenter, inputs, tmp_path, **given))
    assert sum(windows) == OF_A_CASE * len(reports) == OF_A_CASE * 2
    alone = CaseClassifier(segmenter.segmenter)(read_volume(Source(balls / f"{reports[0].case}.nii.gz")))
    np.testing.assert_allclose(list(reports[0].classes.values()), alone, atol=1e-6)
    windows.clear()
    again = list(predict_cases(segmenter, inputs, tmp_path, **given, done={str(r.output): r for r in reports}))
    assert not windows
    assert [(r.status, r.classes) for r in again] == [("kept", r.classes) for r in reports]


def test_mirrored_copies_do_not_count_for_the_class(two_heads, balls):
    config = read_config(two_heads)
    volume = read_volume(Source(balls / f"{names(COUNT)[6]}.nii.gz"))
    told = []
    for mirror in (False, True):
        inference = config.inference.model_copy(update={"mirror": mirror})
        segmenter = load_run(two_heads.path, device="cpu", inference=inference)
        segmenter(volume)
        told.append(segmenter.class_probabilities)
    np.testing.assert_array_equal(*told)


def test_an_image_of_one_value_has_a_class_too(two_heads):
    segmenter = load_run(two_heads.path, device="cpu")
    volume = MetaTensor(torch.zeros(1, 16, 16, 16), affine=torch.eye(4, dtype=torch.float64))
    assert (segmenter(volume) == 0).all()
    assert segmenter.class_probabilities.sum() == pytest.approx(1)


def test_a_composed_run_finds_its_plane_without_planning_a_network(balls, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(planning, "fit_batch", lambda *given: asked.append(given))
    composed = tiny(make_balls(tmp_path / "balls"), tmp_path, ensemble={}, patches={"dims": 2, "size": [8, 8]})
    made = start(composed, tmp_path / "run")
    assert not asked
    assert read_config(made).ensemble.views == ("axial", "coronal", "sagittal")

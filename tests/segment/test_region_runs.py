"""A run whose network learns regions: plan, training, resume, prediction and evaluation."""

import json
import os
import signal
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_data import ADVERSARY, Stop, make_balls, names, tiny, trained

from segmed.builders.trained import load_run
from segmed.commands.predict import main as predict
from segmed.compose import run as compose_run
from segmed.config import InferenceConfig, SegmentationConfig
from segmed.data.splits import Split
from segmed.errors import NetworkError, VolumeError
from segmed.metrics.mask_metrics import overlaps
from segmed.runs import Run, read_config
from segmed.segmenters.combine import LargestComponent, Mean, Tidied, Vote
from segmed.segmenters.segmenter import decide
from segmed.training.checkpoint import read_weights
from segmed.training.interruption import Interrupted
from segmed.volumes import read_volume

BALL = {"regions": {"ball": ["shell", "core"]}, "targets": "regions"}
LEARNING = {
    "train": {"epochs": 20, "learning_rate": 0.01, "ema": 0.0},
    "patches": {"size": [16, 16, 16]},
    "network": {"encoder": {"channels": [8, 16]}},
}


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return make_balls(tmp_path_factory.mktemp("regions") / "data")


@pytest.fixture(scope="module")
def run(balls, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    config = tiny(balls, folder, data=BALL, **LEARNING)
    compose_run.run(config, folder / "run")
    return Run(folder / "run")


def image_of(balls, name: str):
    return read_volume(balls / f"{name}.nii.gz")


def test_the_plan_says_what_the_channels_are(run):
    config, plan = read_config(run), json.loads((run.path / "plan.json").read_text())
    assert config.data.targets == ("ball", "core")
    assert "sigmoid" in plan["reasons"]["data.targets"]
    heads = [value for name, value in read_weights(run.weights("best")).items() if name.startswith("heads.0")]
    assert {len(value) for value in heads} == {2}


def test_a_network_of_regions_learns_them(run, balls):
    (case,) = Split.load(run.split).test
    result = load_run(run.path)(image_of(balls, case)).numpy()[0]
    truth = np.asarray(nib.load(balls / f"{case}_label.nii.gz").dataobj)
    assert set(np.unique(result)) == {0, 1, 2}
    assert overlaps(result > 0, truth > 0)["dice"] > 0.7
    assert overlaps(result == 2, truth == 2)["dice"] > 0.5


def test_its_test_scores_labels_and_regions(run):
    summary = json.loads((run.test / "summary.json").read_text())
    assert set(summary["labels"]) == {"shell", "core", "ball"}
    assert summary["labels"]["ball"]["dice"]["mean"] > 0.7


@pytest.mark.parametrize("mirror", [False, True])
def test_its_probabilities_sum_to_one_and_decide_the_label_map(run, balls, mirror):
    segmenter = load_run(run.path, inference=InferenceConfig(mirror=mirror, largest_component=()))
    image = image_of(balls, "ball_00")
    probabilities = segmenter.probabilities(image).as_tensor()
    assert probabilities.shape == (3, 16, 16, 16)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(16, 16, 16))
    ball, core = probabilities[1:].sum(0) > 0.5, probabilities[2] > 0.5
    assert torch.equal(segmenter(image).as_tensor()[0], ball.to(torch.uint8) + core)


def test_the_tool_writes_label_maps_probabilities_and_uncertainty(run, balls, tmp_path, monkeypatch):
    extras = ["--probabilities", "--uncertainty"]
    files = ["--input", str(balls / "ball_01.nii.gz"), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["predict.py", "--run", str(run.path), *files, *extras])
    assert predict() == 0
    written = np.asarray(nib.load(tmp_path / "ball_01.nii.gz").dataobj)
    probabilities = np.asarray(nib.load(next((tmp_path / "probabilities").iterdir())).dataobj)
    assert set(np.unique(written)) == {0, 1, 2}
    assert probabilities.shape == (16, 16, 16, 3)
    np.testing.assert_array_equal(written > 0, probabilities[..., 1:].sum(-1) > 0.5)
    assert len(list((tmp_path / "uncertainty").iterdir())) == 1


@pytest.mark.parametrize("sections", [{}, {"adversary": ADVERSARY}], ids=["supervised", "adversarial"])
def test_a_stopped_run_goes_on_to_the_weights_of_one_never_stopped(balls, tmp_path, sections):
    config = tiny(balls, tmp_path, data=BALL, **sections)
    whole = trained(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(config, tmp_path / "stopped", Stop(3, signal.SIGTERM))
    stopped = trained(None, tmp_path / "stopped")
    for weights in ("best", "last"):
        assert stopped.weights(weights).read_bytes() == whole.weights(weights).read_bytes()


@pytest.mark.parametrize("name", ["none", "soften", "straight_through", "noise"])
def test_every_disguise_shows_a_discriminator_regions(balls, tmp_path, name):
    disguised = {**ADVERSARY, "warmup": 0.0, "disguise": {"name": name}}
    judged = trained(tiny(balls, tmp_path, data=BALL, adversary=disguised), tmp_path / "run")
    weights = read_weights(judged.weights("last"))
    assert all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize(
    ("sections", "error", "said"),
    [
        ({"data": {**BALL, "targets": ["core", "ball"]}}, VolumeError, "name 'ball' first"),
        ({"data": {**BALL, "targets": ["ball", "rim"]}}, VolumeError, "no label and no region"),
        ({"data": BALL, "loss": {"name": "generalised_dice"}}, NetworkError, "data.targets are regions"),
    ],
)
def test_regions_that_can_not_be_learned_are_refused_before_a_folder_is_made(balls, tmp_path, sections, error, said):
    with pytest.raises(error, match=said):
        compose_run.start(tiny(balls, tmp_path, **sections), tmp_path / "run")
    assert not os.path.exists(tmp_path / "run")


def test_labels_that_no_target_tells_are_in_the_notes_of_the_run(balls, tmp_path):
    rim = {"labels": {"shell": 1, "core": 2, "rim": 3}, "regions": {"ball": ["shell", "core", "rim"]}}
    run = compose_run.start(tiny(balls, tmp_path, data={**rim, "targets": ["ball", "core"]}), tmp_path / "run")
    notes = json.loads((run.path / "plan.json").read_text())["notes"]
    assert "labels shell, rim are in the same targets: all are written as shell" in notes


def test_the_coarse_stage_of_a_cascade_may_learn_nested_regions(balls, tmp_path):
    labels = {"shell": ["shell"], "core": ["core"]}
    coarse = {"labels": labels, "regions": {"ball": ["shell", "core"]}, "targets": ["ball", "core"]}
    stages = {
        "coarse": {**coarse, "views": ["volume"], "fuse": "mean"},
        "fine": {"labels": {"core": ["core"]}, "views": ["volume"]},
        "region": ["ball"],
        "rest": "shell",
        "margin_mm": 1.0,
        "folds": 2,
    }
    compose_run.run(tiny(balls, tmp_path, cascade=stages, **LEARNING), tmp_path / "run")
    cascade = load_run(tmp_path / "run")
    assert cascade.coarse.labels.targets == ("ball", "core")
    (case,) = Split.load(tmp_path / "run" / "split.json").test
    truth = np.asarray(nib.load(balls / f"{case}_label.nii.gz").dataobj)
    result = cascade(image_of(balls, case)).numpy()[0]
    assert overlaps(result > 0, truth > 0)["dice"] > 0.7
    wrong = {**stages, "coarse": {**stages["coarse"], "targets": ["core", "ball"]}}
    with pytest.raises(VolumeError, match="name 'ball' first"):
        compose_run.start(tiny(balls, tmp_path, cascade=wrong, **LEARNING), tmp_path / "wrong")


def test_segmenters_around_it_decide_by_its_regions(run, balls):
    plain = load_run(run.path, inference=InferenceConfig(largest_component=()))
    image = image_of(balls, "ball_02")
    twice = Mean([plain, plain])
    assert torch.equal(twice(image).as_tensor(), plain(image).as_tensor())
    for around in (twice, LargestComponent(plain, ["core", "ball"]), Tidied(plain, smallest_ml=0.01, closing_mm=1)):
        decided = decide(around.probabilities(image).as_tensor(), around.labels)
        assert torch.equal(around(image).as_tensor()[0], decided)
    votes = Vote([plain, plain, plain])
    assert torch.equal(votes(image).as_tensor(), plain(image).as_tensor())


def test_regions_of_an_nnunet_dataset_json_are_targets_in_their_order(balls, tmp_path):
    raw = tmp_path / "raw"
    for folder, ending in (("imagesTr", "_0000"), ("labelsTr", "")):
        (raw / folder).mkdir(parents=True)
        for name in names():
            source = balls / (f"{name}.nii.gz" if ending else f"{name}_label.nii.gz")
            (raw / folder / f"{name}{ending}.nii.gz").symlink_to(source)
    described = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "ball": [1, 2], "core": [2]},
        "regions_class_order": [1, 2],
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(described))
    data = {"layout": {"name": "nnunet"}, "labels": "auto", "targets": "regions"}
    config = SegmentationConfig.model_validate(
        {**tiny(raw, tmp_path).model_dump(exclude={"data"}), "data": {"root": raw, **data}}
    )
    resolved = read_config(compose_run.start(config, tmp_path / "run")).data
    assert resolved.targets == ("ball", "core")
    assert resolved.labels == {"label_1": [1], "core": [2]}

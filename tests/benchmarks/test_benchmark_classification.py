"""Row of classification of python -m benchmarks: what is measured, how shares and the time of a run are made of it."""

import time
from itertools import count

import numpy as np
import pytest
import torch

from benchmarks.classification import (
    DENSENET,
    ENCODER,
    FILES,
    MEMORY,
    MODELS,
    OURS,
    QUICK_MODELS,
    RESNET,
    Loop,
    Size,
    built,
    classification_row,
    inference_loops,
    plain_batches,
    speeds,
    training_loops,
    whole_run,
    write_images,
)
from benchmarks.timing import Setting, Timing
from segmed.config.images import ImageConfig
from segmed.data.images.image_cache import ImageCache
from segmed.training.precision import Choice

SMALL = Size(stored=40, edge=32, images=8, batch=4)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return classification_row(Setting(quick=True, threads=1, rounds=2, scratch=tmp_path_factory.mktemp("scratch")))


def test_every_model_trains_and_classifies_beside_both_plain_loops(outcome):
    tasks = [f"{model}, {task}: {who}" for model in QUICK_MODELS for task in ("training", "inference") for who in
             (OURS, FILES, MEMORY)]  # fmt: skip
    assert list(outcome.timings) == tasks
    assert all(len(timing.seconds) == 2 for timing in outcome.timings.values())
    assert outcome.ours == f"{ENCODER}, training: {OURS}"


def test_the_data_of_every_model_is_judged_against_ten_percent(outcome):
    shares = [target for target in outcome.targets if "data of a training step" in target.what]
    assert [target.what.split(":")[0] for target in shares] == list(QUICK_MODELS)
    assert all((target.bound, target.limit, target.unit) == ("below", 10, "%") for target in shares)
    assert all(0 < target.value < 100 for target in shares)


def test_one_of_our_encoders_and_two_published_networks_are_measured():
    assert list(MODELS) == [ENCODER, RESNET, DENSENET]
    assert [config.name for config in MODELS.values()] == ["encoder", "resnet", "densenet"]
    assert (Size().edge, Size().batch) == (128, 32)


def test_the_share_of_the_data_is_that_of_the_time_of_a_turn():
    def slow():
        for number in count():
            time.sleep(0.03)
            yield number

    loop = Loop(slow(), lambda batch: time.sleep(0.01))
    whole = loop()
    assert whole >= 0.04
    assert loop.processor_s[0] < whole  # it slept
    assert 0.03 / whole <= loop.shares[0] <= 1 - 0.01 / whole


def test_a_run_of_default_length_is_counted_in_steps_and_batches():
    target, note = whole_run({"training": (0.2, 0.3), "inference": (0.1, 0.1)}, threads=2)
    steps = 30 * 22  # 680 of 1,000 slices train, 32 a step, 30 epochs
    batches = 10 * 4 + 7  # 120 validate ten times, 200 test
    assert target.value == pytest.approx((0.2 * steps + 0.1 * batches) / 60)
    assert note.startswith(f"the run: {steps} steps and {batches} batches")
    assert f"{(0.3 * steps + 0.1 * batches) / 120:.3g} min of it on each of the threads, 2 in all" in note
    assert (target.bound, target.limit, target.unit) == ("below", 5, "min")


def test_speeds_are_images_per_second_and_times_of_ours():
    assert speeds({OURS: Timing((0.5, 0.5)), FILES: Timing((2.0, 1.0))}, Size()) == (
        "segmed 64 images/s (1.00 ×), plain loop on the files 21.3 images/s (3.00 ×)"
    )


def test_the_plain_loop_from_memory_gets_the_pictures_of_the_files(tmp_path):
    items = write_images(tmp_path, SMALL)
    assert [item.label for item in items] == [0] * 4 + [1] * 4
    shown = []
    for memory in (False, True):
        torch.manual_seed(0)
        shown.append(next(plain_batches(items, SMALL, memory=memory)))
    images, labels = shown[0]
    assert images.shape == SMALL.shape
    assert -1 <= images.min() < images.max() <= 1
    assert torch.equal(images, shown[1][0])
    assert torch.equal(labels, shown[1][1])


def test_all_loops_of_a_model_begin_with_the_same_weights_and_only_training_changes_them(tmp_path):
    items = write_images(tmp_path / "images", SMALL)
    arrays = ImageCache(tmp_path / "cache").get(items, ImageConfig(size=(32, 32)), workers=1)
    network = built(QUICK_MODELS[RESNET], SMALL)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    training = training_loops(network, Choice(), arrays, items, SMALL)
    classifying = inference_loops(network, arrays, items, SMALL)
    for loop in (*training.values(), *classifying.values()):
        loop()
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    logits = classifying[OURS].work(next(classifying[OURS].batches))
    assert logits.shape == (4, 2)
    assert np.isfinite(logits).all()

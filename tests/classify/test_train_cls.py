"""Classification from images to a tested run, and from the run to new images."""

import csv
import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_classes import CLASSES, config_of, picture, write_classes

from segmed.builders.architectures import build_classifier
from segmed.builders.first_weights import start_weights
from segmed.builders.trained import load_classifier
from segmed.classify import run as classify_run
from segmed.classify.plan import planned_network
from segmed.classify.predict import classify, find_images
from segmed.classify.prepare import prepare
from segmed.commands.command_line import run_tool
from segmed.config.classification import ClassificationConfig
from segmed.config.classifier import EncoderClassifierConfig
from segmed.config.reading import load_as
from segmed.data.images.image_splits import ClassSplit
from segmed.errors import ConfigError, DatasetError, NetworkError, RunError, SegmenterError
from segmed.evaluate.answers import read_answers
from segmed.jobs.fold_jobs import plan_of_folds
from segmed.jobs.job import Needs
from segmed.runs import Folds, Run, read_config, read_history
from segmed.runs.run_state import status_of
from segmed.training import classification_step, pretrained
from segmed.training.checkpoint import read_weights
from segmed.training.interruption import Interrupted
from segmed.training.precision import Choice
from segmed.training.pretrained import Published

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "cls").glob("*.yaml"))
TOOLS = ROOT / "tools"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run that is trained and tested."""
    folder = tmp_path_factory.mktemp("finished")
    classify_run.run(config_of(folder, data), folder / "run")
    return Run(folder / "run")


# ---------------------------------------------------------------- a run


def test_a_run_of_the_other_kind_is_told_where_it_belongs(finished, tmp_path):
    with pytest.raises(RunError, match=r"run .* classifies: segmed classify .*; here one that segments is needed"):
        read_config(finished)
    (tmp_path / "config.yaml").write_text("data: {}\nnetwork: {name: unet}\n")
    with pytest.raises(RunError, match=r"run .* segments: segmed predict .*; here one that classifies is needed"):
        load_classifier(tmp_path)


def test_a_run_learns_what_is_plain_and_reports_its_test_part_alone(finished):
    summary = json.loads((finished.test / "figures.json").read_text())
    tested = read_answers(finished.test / "predictions.csv")
    split = ClassSplit.load(finished.split)
    assert tested.ids == split.test
    assert summary["image"]["overall"]["accuracy"]["value"] >= 0.9
    assert summary["test"]["subjects"] == len({name.split("/")[1][:3] for name in split.test})
    subjects = {part: {name.split("/")[1][:3] for name in getattr(split, part)} for part in ("train", "test")}
    assert not subjects["train"] & subjects["test"]


def test_a_run_folder_holds_what_one_looks_at(finished):
    names = {path.name for path in finished.test.iterdir()}
    assert {"figures.csv", "confusion.png", "curves.png", "reliability.png", "roc.csv", "maps.png"} <= names
    assert (finished.path / "report.html").stat().st_size > 10_000
    board = EventAccumulator(str(finished.path / "tensorboard"), size_guidance={"images": 0})
    board.Reload()
    assert {"test/confusion", "test/curves", "test/maps"} <= set(board.Tags()["images"])
    assert {"train/patches"} <= set(board.Tags()["images"])
    scalars = {tag: [event.step for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    assert {"train/loss", "train/accuracy", "train/learning_rate", "test/accuracy"} <= set(scalars)
    history = read_history(finished.path / "history.csv")
    validated = [step for step, _ in history["score"]]
    assert len(validated) > 1
    for name in ("score", "loss", "balanced_accuracy", "auc", "log_loss"):
        assert scalars[f"validation/{name}"] == validated, name
    losses, plain = (dict(history[f"validation/{name}"]) for name in ("loss", "log_loss"))
    assert losses == pytest.approx(plain, rel=1e-4), "cross-entropy without weights"


def test_what_was_auto_stands_in_the_config_with_its_reason(finished):
    text = finished.config.read_text()
    assert "steps_per_epoch: 2  # 14 images" in text or "steps_per_epoch:" in text
    config = load_as(ClassificationConfig, finished.config)
    assert config.train.learning_rate == 0.02
    assert config.data.classes == {name: name for name in CLASSES}


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_never_was(finished, data, tmp_path, monkeypatch):
    whole = classification_step.ClassificationStep.step
    steps = []

    def interrupted(self, batch, progress):
        steps.append(progress)
        if len(steps) == 15:
            raise KeyboardInterrupt
        return whole(self, batch, progress)

    monkeypatch.setattr(classification_step.ClassificationStep, "step", interrupted)
    with pytest.raises(Interrupted, match=r"segmed train-cls --resume"):
        classify_run.run(config_of(tmp_path, data), tmp_path / "run")
    monkeypatch.undo()
    classify_run.resume(tmp_path / "run")
    expected, found = (read_weights(run.weights("last")) for run in (finished, Run(tmp_path / "run")))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_folds_test_every_image_once_by_a_model_that_never_saw_it(data, tmp_path):
    config = config_of(tmp_path, data, split={"folds": 2}, train={"epochs": 1}, evaluate={"maps": 0, "gallery": 0})
    classify_run.cross_validate(config, tmp_path / "folds")
    assert all(job.done for job in plan_of_folds(config, Folds(tmp_path / "folds"), Needs()).jobs)
    assert status_of(tmp_path / "folds").state == "done"
    together = read_answers(tmp_path / "folds" / "test" / "predictions.csv")
    assert len(together.ids) == len(set(together.ids)) == 40
    for fold in range(2):
        split = ClassSplit.load(Run(tmp_path / "folds" / f"fold_{fold}").split)
        assert not {name.split("/")[1][:3] for name in split.train} & {name.split("/")[1][:3] for name in split.test}


def test_mixup_learns_from_shares_of_two_images(data, tmp_path):
    config = config_of(tmp_path, data)
    seen = {}

    def spy(logits, target):
        seen["target"] = target
        return torch.nn.functional.cross_entropy(logits, target)

    torch.manual_seed(0)
    network = build_classifier(config.network, in_channels=1, classes=2, size=(24, 24))
    loss = torch.nn.Module()
    loss.forward = spy
    step = classification_step.ClassificationStep(
        network, loss, config.train, fabric=Fabric(accelerator="cpu"), choice=Choice("fp32", "contiguous"), mixup=0.4
    )
    batch = {"image": torch.randn(6, 1, 24, 24), "target": torch.tensor([0, 1, 0, 1, 0, 1])}
    figures = step.step(batch, 0.5)
    assert "accuracy" not in figures
    assert seen["target"].shape == (6, 2)
    torch.testing.assert_close(seen["target"].sum(1), torch.ones(6))
    mixed = (seen["target"] > 0).all(1)
    assert mixed.any()


# ---------------------------------------------------------------- leaks


@pytest.fixture
def leaking(tmp_path):
    """A subject's image under another subject's name, five times."""
    folder = write_classes(tmp_path / "images", subjects=6)
    for number in range(5):
        Image.fromarray(picture("disc", 100 * number)).save(folder / "disc" / f"d{50 + number}_0.png")
    return folder


def test_a_split_that_leaks_is_refused_in_one_line(leaking, tmp_path):
    config = config_of(tmp_path, leaking, split={"by": "image"})
    with pytest.raises(DatasetError, match=r"the split leaks: .*leaks.allow_leakage") as caught:
        prepare(config)
    assert "\n" not in str(caught.value)


def test_twins_stay_together_unless_one_says_otherwise(leaking, tmp_path):
    ready = prepare(config_of(tmp_path, leaking))
    place = {name: part for part in ("train", "validation", "test") for name in getattr(ready.split, part)}
    for number in range(5):
        assert place[f"disc/d{number:02}_0.png"] == place[f"disc/d{50 + number}_0.png"]
    assert not ready.leakage.leaks


def test_what_test_knows_already_can_be_left_out_of_training(leaking, tmp_path):
    """Of published parts that leak: the copies go, and the line that says so stands in every table."""
    loose = prepare(config_of(tmp_path, leaking, split={"by": "image"}, leaks={"allow_leakage": True}))
    clean = prepare(config_of(tmp_path, leaking, split={"by": "image"}, leaks={"remove_twins": True}))
    assert clean.split.test == loose.split.test
    gone = {*loose.split.train, *loose.split.validation} - {*clean.split.train, *clean.split.validation}
    subjects = {name.split("/")[1][:3] for name in clean.split.test}
    assert {name for name in gone if name.split("/")[1][:3] in subjects}
    assert not subjects & {name.split("/")[1][:3] for name in (*clean.split.train, *clean.split.validation)}
    assert not clean.leakage.leaks
    assert any(note.startswith(f"{len(gone)} images left out") for note in clean.notes)


def test_an_allowed_leak_stands_in_every_table_of_the_run(leaking, tmp_path):
    config = config_of(
        tmp_path, leaking, split={"by": "image"}, leaks={"allow_leakage": True}, train={"epochs": 1},
        evaluate={"maps": 0, "gallery": 0},
    )  # fmt: skip
    classify_run.run(config, tmp_path / "run")
    tables = [path for path in (tmp_path / "run" / "test").iterdir() if path.suffix in (".csv", ".json")]
    assert len(tables) >= 6
    assert all("LEAKING SPLIT" in path.read_text() for path in tables)
    assert "LEAKING SPLIT" in (tmp_path / "run" / "report.html").read_text()


# ---------------------------------------------------------------- new images


def test_new_images_get_the_probabilities_that_the_test_gave(finished, data):
    tested = read_answers(finished.test / "predictions.csv")
    images = {name: data / name for name in tested.ids}
    answers = classify([finished.path], images, device="cpu")
    found = np.array([answer.probabilities for answer in answers.answers])
    np.testing.assert_allclose(found, tested.probabilities, atol=1e-4)  # of images kept as float16
    assert answers.classes == CLASSES
    assert answers.positive == "frame"


def test_the_tool_reports_what_it_cannot_read_and_classifies_the_rest(finished, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "new"
    folder.mkdir()
    Image.fromarray(picture("frame", 999)).save(folder / "good.png")
    (folder / "broken.png").write_bytes(b"no picture")
    spec = importlib.util.spec_from_file_location("classify_tool", TOOLS / "classify.py")
    tool = sys.modules["classify_tool"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(
        "sys.argv",
        ["classify", "--run", str(finished.path), "--input", str(folder), "--output", str(tmp_path / "a.csv")],
    )
    with pytest.raises(SystemExit) as stop:
        run_tool(tool.main)
    assert stop.value.code == 1
    assert "not classified: broken.png" in capsys.readouterr().out
    with (tmp_path / "a.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["broken.png"]["error"]
    assert not rows["broken.png"]["predicted"]
    assert rows["good.png"]["predicted"] == "frame"
    assert float(rows["good.png"]["probability frame"]) + float(rows["good.png"]["probability disc"]) == pytest.approx(
        1
    )
    (tmp_path / "a.csv").write_text("my notes\n")
    with pytest.raises(SystemExit) as stop:
        run_tool(tool.main)
    assert stop.value.code == 2
    assert "is there, and no table of segmed classify: name another --output" in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_text() == "my notes\n"


def test_a_folder_without_images_is_one_line(finished, tmp_path):
    with pytest.raises(SegmenterError, match="holds no image"):
        find_images(tmp_path, load_as(ClassificationConfig, finished.config).image)


# ---------------------------------------------------------------- weights and configs


def test_an_encoder_starts_with_the_weights_of_another_run_bit_for_bit(finished, data, tmp_path):
    config = config_of(tmp_path, data, init_encoder=finished.path, network={"pooling": "max"})
    network = build_classifier(config.network, in_channels=1, classes=3, size=(24, 24))
    moved = start_weights(network, config)
    source = read_weights(finished.weights())
    own = {f"encoder.{name}": tensor for name, tensor in network.encoder.state_dict().items()}
    assert set(moved.taken) == set(own)
    assert all(torch.equal(source[name], tensor) for name, tensor in own.items())


SLIM_RESNET = {"name": "resnet", "depth": 18, "width": 4, "colour": True}


def test_published_weights_that_can_not_be_had_are_random_where_that_is_allowed_and_the_log_says_so(
    data, tmp_path, monkeypatch, caplog
):
    closed = Published("http://127.0.0.1:1/resnet18-00000000.pth", "00000000")
    monkeypatch.setattr(pretrained, "HUB", {"resnet18": closed})
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def started(source):
        config = config_of(tmp_path, data, network={**SLIM_RESNET, "pretrained": source})
        network = build_classifier(config.network, in_channels=1, classes=2, size=(24, 24))
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        moved = start_weights(network, config)
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
        return moved

    assert started("hub_or_random") is None
    assert "resnet18 begins with random weights: " in caplog.text
    with pytest.raises(NetworkError, match="fetch it yourself and give the file as `pretrained`"):
        started("hub")


def test_the_model_of_a_run_comes_back(finished):
    model = load_classifier(finished.path, device="cpu")
    assert not model.training
    assert model(torch.zeros(2, 1, 24, 24)).shape == (2, 2)


def test_large_images_are_halved_from_the_start_and_small_ones_are_not():
    def planned(*size, **given):
        model, reasons = planned_network(EncoderClassifierConfig(encoder=given), size=size, device="cpu")
        return model.encoder.strides, model.encoder.channels, reasons

    strides, channels, reasons = planned(128, 128)
    assert strides == ((2, 2),) * 5
    assert channels == (16, 32, 64, 128, 256)
    assert "first level" in reasons["network.encoder.strides"]
    assert planned(24, 24)[0] == ((1, 1), (2, 2), (2, 2))
    assert planned(128, 128, strides=((1, 1), (2, 2)))[:2] == (((1, 1), (2, 2)), (16, 32))
    assert len(planned(64, 64, 64)[0][0]) == 3


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_and_answers(path):
    config = load_as(ClassificationConfig, path)
    model, _ = planned_network(config.network, size=config.image.size, device="cpu")
    classes = 2 if config.data.classes == "auto" else len(config.data.classes)
    torch.manual_seed(0)
    network = build_classifier(model, in_channels=config.image.channels, classes=classes, size=config.image.size)
    with torch.no_grad():
        logits = network.eval()(torch.randn(1, config.image.channels, *config.image.size))
    assert logits.shape == (1, classes)
    assert logits.isfinite().all()
    if path.stem == "contrast_cnn":
        assert sum(weight.numel() for weight in network.parameters()) == 109_073


@pytest.mark.parametrize("field", ["devices", "validation_cases", "accumulate"])
def test_what_a_classifier_would_not_use_is_refused_in_one_line(data, tmp_path, field):
    with pytest.raises(ConfigError, match=f"{field} 2: ") as caught:
        config_of(tmp_path, data, train={field: 2})
    assert "\n" not in str(caught.value)

"""Vessels of the retina, from the files of DRIVE to figures: a short training on the phantom learns them."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from segmed.builders.trained import load_run
from segmed.commands.program import main
from segmed.compose.run import run
from segmed.config import SegmentationConfig
from segmed.config.reading import load_config
from segmed.config.shipped import find_config
from segmed.data.cases import read_dataset
from segmed.data.preprocess import read_case
from segmed.data.vessel_phantom import make_vessel_phantom
from segmed.errors import DatasetError
from segmed.labels import IGNORE
from segmed.runs import Run, read_history
from segmed.segment.prepare import prepare
from segmed.volumes import read_volume

SMALL = {
    "patches.size": [64, 64], "network.encoder.channels": [8, 16, 32],
    "network.encoder.strides": [[1, 1], [2, 2], [2, 2]],
    "train.budget_minutes": None, "train.epochs": 1, "train.steps_per_epoch": 60, "train.validations": 1,
    "train.workers": 0, "train.batch_size": 4, "train.precision": "fp32", "train.memory_format": "contiguous",
    "train.learning_rate": 5e-3, "train.ema": 0.8, "inference.mirror": False, "inference.overlap": 0.25,
    "evaluate.bootstrap": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drive")
    make_vessel_phantom(folder, cases=8, seed=0, size=(160, 164))
    return folder


def small(root, runs, name="drive") -> SegmentationConfig:
    return load_config(find_config(name), {**SMALL, "data.root": str(root), "runs": str(runs)})


@pytest.fixture(scope="module")
def trained(drive, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    run(small(drive, runs), runs / "one")
    return Run(runs / "one")


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L")).astype(int)


def command(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["segmed", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def summary_of(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_a_short_training_learns_vessels(trained):
    figures = summary_of(trained.test)["labels"]["vessel"]
    assert figures["dice"]["n"] == 4
    assert figures["dice"]["mean"] > 0.45
    assert figures["auc_roc"]["mean"] > 0.85
    assert figures["auc_pr"]["mean"] > 0.45


def test_the_published_folder_is_the_test(trained):
    parts = json.loads(trained.split.read_text())
    assert parts["test"] == ["01", "02", "03", "04"]
    assert len(parts["validation"]) == 1


def test_areas_are_over_the_pixels_of_the_field_of_view(trained, drive):
    config = small(drive, drive)
    dataset, segmenter = read_dataset(config.data), load_run(trained.path, device="cpu")
    truth, probability = [], []
    for case in dataset.cases[:4]:
        image, label = read_case(case, dataset)
        counted = label.numpy()[0] != IGNORE
        truth.append(label.numpy()[0][counted])
        probability.append(segmenter.probabilities(image).numpy()[1][counted])
    with (trained.test / "cases.csv").open() as table:
        rows = list(csv.DictReader(table))
    for row, true, likely in zip(rows, truth, probability, strict=True):
        assert float(row["auc_roc"]) == pytest.approx(roc_auc_score(true, likely), abs=1e-4)
        assert float(row["auc_pr"]) == pytest.approx(average_precision_score(true, likely), abs=1e-4)
    pooled = summary_of(trained.test)["pixels"]["vessel"]
    true, likely = np.concatenate(truth), np.concatenate(probability)
    assert pooled["auc_roc"] == pytest.approx(roc_auc_score(true, likely), abs=1e-4)
    assert pooled["auc_pr"] == pytest.approx(average_precision_score(true, likely), abs=1e-4)
    assert pooled["dice"] == pytest.approx(2 * (true * (likely > 0.5)).sum() / (true.sum() + (likely > 0.5).sum()))
    assert "all pixels of all cases together: Dice" in (trained.test / "summary.md").read_text()


def test_nothing_is_found_outside(trained, drive):
    for name in ("01", "02", "03", "04"):
        seen = pixels(drive / f"test/mask/{name}_test_mask.gif") > 0
        label_map = read_volume(next(trained.predictions.glob(f"{name}.*"))).numpy()[0, :, :, 0].T
        assert not label_map[~seen].any()
        assert label_map[seen].any()


def test_predictions_with_and_without_masks_agree_inside(trained, drive, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    bare.mkdir()
    for image in (drive / "test/images").iterdir():
        (bare / image.name).write_bytes(image.read_bytes())
    assert (
        command(
            monkeypatch, "predict", "--run", trained.path, "--input", drive / "test/images", "--output", tmp_path / "a"
        )
        == 0
    )
    assert command(monkeypatch, "predict", "--run", trained.path, "--input", bare, "--output", tmp_path / "b") == 0
    masked, whole = (sorted(folder.rglob("*.png")) for folder in (tmp_path / "a", tmp_path / "b"))
    assert len(masked) == len(whole) == 4
    for number, (with_mask, without) in enumerate(zip(masked, whole, strict=True), 1):
        seen = pixels(drive / f"test/mask/{number:02d}_test_mask.gif") > 0
        assert np.array_equal(pixels(with_mask)[seen], pixels(without)[seen])
        assert not pixels(with_mask)[~seen].any()
    assert "no mask of its field of view" not in str(warnings_in(tmp_path / "a"))
    assert all("it has no mask of its field of view" in said for said in warnings_in(tmp_path / "b").values())


def warnings_in(folder) -> dict[str, str]:
    """Case -> what predict says of it."""
    report = json.loads((folder / "prediction.json").read_text())
    return {Path(case["output"]).stem: case.get("warning") or "" for case in report["cases"]}


def test_predict_names_a_picture_without_colours(trained, drive, tmp_path, monkeypatch):
    there, grey = tmp_path / "in", drive / "test/images/01_test.tif"
    there.mkdir()
    Image.open(grey).convert("L").save(there / "grey.png")
    Image.open(grey).save(there / "colours.png")
    assert command(monkeypatch, "predict", "--run", trained.path, "--input", there, "--output", tmp_path / "out") == 0
    said = warnings_in(tmp_path / "out")
    assert "its channels (red, green, blue) hold the same values, theirs did not" in said["grey"]
    assert "its channels" not in said["colours"]


def test_evaluate_scores_inside_alone(trained, drive, tmp_path, monkeypatch):
    for name in ("01", "02", "03", "04"):  # everything outside is called a vessel: it must not count
        label_map = read_volume(next(trained.predictions.glob(f"{name}.*"))).numpy()[0, :, :, 0].T
        label_map[pixels(drive / f"test/mask/{name}_test_mask.gif") == 0] = 255
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(label_map.astype(np.uint8)).save(tmp_path / "p" / f"{name}.png")
    code = command(
        monkeypatch, "evaluate", "--run", trained.path, "--predictions", tmp_path / "p", "--references", drive,
        "--output", tmp_path / "scores", "--test-only",
    )  # fmt: skip
    assert code == 0
    own, of_run = (
        summary_of(folder)["labels"]["vessel"]["dice"]["mean"] for folder in (tmp_path / "scores", trained.test)
    )
    assert own == pytest.approx(of_run, abs=1e-6)


def test_the_adversarial_twin_differs_in_its_adversary_alone(drive, tmp_path):
    plain, twin = (small(drive, tmp_path, name) for name in ("drive", "drive_gan"))
    assert twin.adversary is not None
    assert twin.model_copy(update={"adversary": None}) == plain


def test_a_mask_that_does_not_fit_stops_a_run_with_one_line(drive, tmp_path):
    make_vessel_phantom(tmp_path / "other", cases=4, seed=0, size=(64, 66))
    Image.fromarray(np.full((60, 64), 255, np.uint8)).save(tmp_path / "other/training/mask/03_training_mask.gif")
    with pytest.raises(DatasetError, match=r"first: case 03: the field of view .* is not on the image's grid") as error:
        prepare(small(tmp_path / "other", tmp_path))
    assert "\n" not in str(error.value)


def test_the_adversarial_twin_trains_on_what_is_seen(drive, tmp_path):
    few = {"train.steps_per_epoch": 12, "adversary.warmup": 0.0, "split.validation": 0.0}
    config = load_config(find_config("drive_gan"), {**SMALL, **few, "data.root": str(drive), "runs": str(tmp_path)})
    run(config, tmp_path / "twin")
    history = read_history(tmp_path / "twin" / "history.csv")
    losses = {name: values for name, values in history.items() if name.startswith("loss")}
    assert {"loss/discriminator"} <= losses.keys()
    assert all(np.isfinite(value) for values in losses.values() for _, value in values)

"""The main job from end to end, small: run folder, resume, folds, prediction, and what bad input gets."""

import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from tiny_data import make_balls, tiny

from segmed.builders.trained import load_run
from segmed.commands import evaluate, predict, train_seg
from segmed.commands.command_line import run_tool
from segmed.compose import run as compose_run
from segmed.config import SegmentationConfig
from segmed.config.reading import load_config
from segmed.data.phantoms import make_phantom
from segmed.data.splits import Split
from segmed.errors import ConfigError
from segmed.runs import Run, new_run
from segmed.segment.prepare import prepare
from segmed.volumes import read_volume

ROOT = Path(__file__).resolve().parents[2]
CASES = 6


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    make_phantom(folder, cases=CASES, seed=1)
    return folder


def small(root: Path, runs: Path, **sections) -> SegmentationConfig:
    """A config that trains two steps of a tiny 2D network."""
    data = {
        "name": "small",
        "runs": str(runs),
        "data": {
            "root": str(root),
            "layout": {"name": "phantom", "cases": CASES, "seed": 1},
            "labels": {"myocardium": 1, "blood_pool": 2, "rv": 3, "scar": 4},
            "regions": {"wall": ["myocardium", "scar"]},
        },
        "split": {"test": 0.34, "validation": 0.25},
        "patches": {"size": [32, 32]},
        "network": {"name": "unet", "encoder": {"channels": [4, 8]}},
        "train": {
            "batch_size": 2, "epochs": 2, "steps_per_epoch": 1, "workers": 0, "validations": 1,
            "precision": "fp32", "memory_format": "contiguous",
        },
    }  # fmt: skip
    for name, section in sections.items():
        data[name] = {**data[name], **section} if isinstance(section, dict) else section
    return SegmentationConfig.model_validate(data)


@pytest.fixture(scope="module")
def finished(phantom, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    compose_run.run(small(phantom, runs), runs / "one")
    return Run(runs / "one")


def pattern(root: Path, **sections) -> dict:
    layout = {"name": "pattern", "images": {"LGE": "{case}/{case}_LGE.nii.gz"}, "label": "{case}/{case}_label.nii.gz"}
    return {**sections, "data": {"root": str(root), "layout": layout}}


@pytest.fixture
def copied(phantom, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(phantom, folder)
    return folder


# ---------------------------------------------------------------- what a run leaves


def test_a_run_folder_holds_everything_that_is_promised(finished):
    names = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if path.is_file()}
    promised = {
        "config.yaml", "plan.json", "split.json", "environment.json", "weights/best.safetensors",
        "weights/last.safetensors", "checkpoint.pt", "history.csv", "log.txt", "test/summary.json", "test/cases.csv",
        "test/summary.md", "report.html",
    }  # fmt: skip
    assert promised <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert not [name for name in names if "/." in f"/{name}"], "temporary files were left"


def test_the_test_part_was_never_trained_on_and_is_scored_whole(finished):
    split = Split.load(finished.split)
    assert not set(split.test) & {*split.train, *split.validation}
    summary = json.loads((finished.test / "summary.json").read_text())
    assert summary["cases"] == len(split.test)
    for label in ("myocardium", "blood_pool", "rv", "scar", "wall"):
        for metric in ("dice", "hd_mm", "hd95_mm", "assd_mm", "surface_dice", "avd_ml"):
            figure = summary["labels"][label][metric]
            assert {"mean", "sd", "ci95", "n", "missed"} <= set(figure)


def test_predictions_lie_on_the_grids_of_their_images(finished, phantom):
    for name in Split.load(finished.split).test:
        found = nib.load(finished.predictions / f"{name}.nii.gz")
        image = nib.load(phantom / name / f"{name}_LGE.nii.gz")
        assert found.shape == image.shape
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
        assert set(np.unique(np.asarray(found.dataobj))) <= {0, 1, 2, 3, 4}


def test_the_resolved_config_has_nothing_auto_left_and_gives_reasons(finished):
    text = finished.config.read_text()
    config = load_config(finished.config)
    assert config.inference.largest_component != "auto"
    assert config.train.precision == "fp32"
    assert "spacing_mm: [" in text
    assert "# median of the cases" in text
    assert config.data.root.is_absolute()


def test_a_loaded_run_is_a_segmenter_of_native_volumes(finished, phantom):
    segmenter = load_run(finished.path, device="cpu")
    volume = read_volume(phantom / "phantom_000" / "phantom_000_LGE.nii.gz")
    probabilities = segmenter.probabilities(volume)
    assert probabilities.shape == (5, *volume.shape[1:])
    torch.testing.assert_close(probabilities.sum(0), torch.ones(volume.shape[1:]), atol=1e-4, rtol=0)


def test_the_same_config_gives_the_same_weights(finished, phantom, tmp_path):
    compose_run.run(small(phantom, tmp_path), tmp_path / "again")
    assert Run(tmp_path / "again").weights("last").read_bytes() == finished.weights("last").read_bytes()


def test_resuming_a_finished_run_repeats_its_test_and_keeps_its_weights(finished, tmp_path):
    copy = Run(tmp_path / "copy")
    shutil.copytree(finished.path, copy.path)
    shutil.rmtree(copy.test)
    compose_run.resume(copy.path)
    assert copy.weights("last").read_bytes() == finished.weights("last").read_bytes()
    assert (copy.test / "cases.csv").read_text() == (finished.test / "cases.csv").read_text()


def test_folds_test_every_case_once_and_are_summed_up(phantom, tmp_path):
    compose_run.cross_validate(small(phantom, tmp_path, split={"folds": 2}), tmp_path / "folds")
    parts = [Split.load(tmp_path / "folds" / f"fold_{fold}" / "split.json").test for fold in range(2)]
    assert sorted(parts[0] + parts[1]) == [f"phantom_{number:03d}" for number in range(CASES)]
    summary = tmp_path / "folds" / "test" / "summary.json"
    whole = summary.read_text()
    assert json.loads(whole)["cases"] == CASES
    together = (tmp_path / "folds" / "ensemble.json").read_text()
    shutil.rmtree(tmp_path / "folds" / "fold_1")  # as if it had been stopped after the first fold
    summary.unlink()
    compose_run.resume(tmp_path / "folds")
    assert summary.read_text() == whole
    assert (tmp_path / "folds" / "ensemble.json").read_text() == together


def test_the_plan_can_be_seen_without_training(phantom, tmp_path, capsys):
    compose_run.show_plan(small(phantom, tmp_path))
    printed = capsys.readouterr().out
    assert "preprocess.spacing_mm" in printed
    assert "GiB needed" in printed
    assert not list(tmp_path.glob("*"))


def called(monkeypatch, command, *options) -> int:
    """Exit code of a command, called in this process with options as its tool gets them."""
    monkeypatch.setattr(sys, "argv", ["tool", *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        run_tool(command.main)
    return stop.value.code


def test_a_run_predicts_and_is_evaluated_with_the_tools(finished, phantom, tmp_path, monkeypatch):
    images, references = tmp_path / "images", tmp_path / "references"
    images.mkdir()
    references.mkdir()
    for name in Split.load(finished.split).test:
        shutil.copy(phantom / name / f"{name}_LGE.nii.gz", images / f"{name}.nii.gz")
        shutil.copy(phantom / name / f"{name}_label.nii.gz", references / f"{name}.nii.gz")
    code = called(
        monkeypatch, predict, "--run", finished.path, "--input", images, "--output", tmp_path / "out", "--device", "cpu"
    )
    assert code == 0
    for path in images.iterdir():
        ours = np.asarray(nib.load(tmp_path / "out" / path.name).dataobj)
        np.testing.assert_array_equal(ours, np.asarray(nib.load(finished.predictions / path.name).dataobj))
    code = called(
        monkeypatch, evaluate, "--predictions", tmp_path / "out", "--references", references, "--run", finished.path,
        "--output", tmp_path / "scores",
    )  # fmt: skip
    assert code == 0
    ours = json.loads((tmp_path / "scores" / "summary.json").read_text())["labels"]
    theirs = json.loads((finished.test / "summary.json").read_text())["labels"]
    assert {name: figures["dice"]["mean"] for name, figures in ours.items()} == pytest.approx(
        {name: figures["dice"]["mean"] for name, figures in theirs.items()}
    )


# ---------------------------------------------------------------- bad input


def refused(config: SegmentationConfig, folder: Path) -> str:
    """The one line with which an experiment is refused; nothing may be left behind."""
    with pytest.raises((ValueError, OSError)) as error:
        compose_run.run(config, folder)
    assert "\n" not in str(error.value).strip()
    return str(error.value)


def test_a_run_folder_that_exists_is_never_overwritten(finished, phantom):
    before = finished.config.read_text()
    assert "--resume" in refused(small(phantom, finished.path.parent), finished.path)
    assert finished.config.read_text() == before


def test_a_missing_folder_is_named(tmp_path):
    config = SegmentationConfig.model_validate(pattern(tmp_path / "nowhere", runs=str(tmp_path)))
    assert "nowhere" in refused(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    config = SegmentationConfig.model_validate(pattern(tmp_path / "empty", runs=str(tmp_path)))
    assert "empty" in refused(config, tmp_path / "run")


def harmed(copied: Path, tmp_path: Path, harm) -> str:
    """Refusal of a data set one of whose images was harmed."""
    harm(copied / "phantom_002" / "phantom_002_LGE.nii.gz")
    data = pattern(copied, runs=str(tmp_path / "runs"))
    data["data"]["labels"] = {"myocardium": 1, "blood_pool": 2, "rv": 3, "scar": 4}
    message = refused(SegmentationConfig.model_validate(data), tmp_path / "run")
    assert "phantom_002" in message
    assert "segmed audit" in message
    assert not (tmp_path / "run").exists()
    return message


def test_a_truncated_file_is_named(copied, tmp_path):
    def harm(path):
        path.write_bytes(path.read_bytes()[:3000])

    harmed(copied, tmp_path, harm)


def test_a_text_file_named_nifti_is_named(copied, tmp_path):
    harmed(copied, tmp_path, lambda path: path.write_bytes(gzip.compress(b"hello")))


def test_nan_voxels_are_named(copied, tmp_path):
    def harm(path):
        image = nib.load(path)
        data = image.get_fdata()
        data[3, 3, 3] = np.nan
        nib.save(nib.Nifti1Image(data.astype(np.float32), image.affine), path)

    assert "NaN" in harmed(copied, tmp_path, harm)


def test_an_image_on_another_grid_than_its_label_is_named(copied, tmp_path):
    def harm(path):
        image = nib.load(path)
        affine = image.affine.copy()
        affine[:3, 3] += 20
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)

    harmed(copied, tmp_path, harm)


def test_an_unknown_label_value_is_named(phantom, tmp_path):
    config = small(phantom, tmp_path)
    data = config.data.model_copy(update={"labels": {"myocardium": 1, "blood_pool": 2}, "regions": {}})
    message = refused(config.model_copy(update={"data": data}), tmp_path / "run")
    assert re.search(r"\b3\b.*\b4\b.*data\.labels", message), message


def test_a_cross_validation_whose_first_fold_is_refused_leaves_no_folder(phantom, tmp_path):
    config = small(phantom, tmp_path, split={"folds": 2})
    data = config.data.model_copy(update={"labels": {"myocardium": 1, "blood_pool": 2}, "regions": {}})
    config = config.model_copy(update={"data": data})
    with pytest.raises(ValueError, match=r"data\.labels"):
        compose_run.cross_validate(config, tmp_path / "folds")
    assert not (tmp_path / "folds").exists()
    folds = compose_run.begin_folds(config, tmp_path / "folds")
    with pytest.raises(ValueError, match=r"data\.labels"):
        compose_run.resume(tmp_path / "folds")
    assert folds.begun  # what was there before stays


def test_more_folds_than_subjects_are_refused(phantom, tmp_path):
    assert "7" in refused(small(phantom, tmp_path, split={"folds": 7, "fold": 0}), tmp_path / "run")


def test_a_patch_larger_than_every_case_is_refused(phantom, tmp_path):
    message = refused(small(phantom, tmp_path, patches={"size": [512, 512]}), tmp_path / "run")
    assert "exceeds every case" in message


def test_a_patch_that_the_strides_do_not_divide_is_refused(phantom, tmp_path):
    message = refused(small(phantom, tmp_path, patches={"size": [33, 32]}), tmp_path / "run")
    assert "33" in message


def test_a_folder_that_cannot_be_written_is_named(phantom, tmp_path):
    (tmp_path / "file").write_text("")
    assert "run folder" in refused(small(phantom, tmp_path), tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("full", "full exists: name another --run-dir"),
        ("file", "file exists: name another --run-dir"),
        ("file/run", "file/run: Not a directory"),
        ("n" * 256, "File name too long"),
    ],
    ids=["full", "file", "below a file", "long name"],
)
def test_a_run_folder_that_can_not_be_is_told_before_data_are_read(tmp_path, place, said):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    nowhere = SegmentationConfig(data={"root": tmp_path / "no data", "layout": {"name": "nnunet"}})
    assert said in refused(nowhere, tmp_path / place)


def test_a_name_of_any_length_names_a_run_folder(tmp_path):
    run = new_run(None, runs=tmp_path, name="ü" * 400 + "n" * 400)
    assert run.path.is_dir()
    assert len(run.path.name.encode()) <= 255


def test_weights_of_another_network_are_refused_by_name(finished, tmp_path):
    copy = Run(tmp_path / "copy")
    shutil.copytree(finished.path, copy.path)
    copy.config.write_text(copy.config.read_text().replace("channels: [4, 8]", "channels: [4, 6]"))
    with pytest.raises(ValueError, match="another network"):
        load_run(copy.path, device="cpu")


@pytest.mark.parametrize("missing", ["config.yaml", "weights/best.safetensors"])
def test_a_run_without_a_part_says_which(finished, tmp_path, missing):
    shutil.copytree(finished.path, tmp_path / "copy")
    (tmp_path / "copy" / missing).unlink()
    with pytest.raises(ValueError, match=missing.split("/")[-1].split(".")[0]):
        load_run(tmp_path / "copy", device="cpu")


def test_resume_takes_no_other_option(monkeypatch, capsys):
    assert called(monkeypatch, train_seg, "--resume", "x", "--train.epochs", "3") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--folds", "1"), "--folds, --fold: 'folds' is 1: give 2 or more"),
        (("--folds", "3", "--fold", "7"), "--folds, --fold: fold 7 does not exist: 3 folds are counted from 0 to 2"),
        (("--fold", "-1"), "--folds, --fold: 'fold' is -1: give 0 or more"),
    ],
)
def test_folds_that_do_not_exist_are_refused_before_anything_is_made(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert called(monkeypatch, train_seg, *options) == 2
    assert capsys.readouterr().err == f"error: {words}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "files", "whole"),
    [
        ("runs/a", (), "runs/a"),
        ("runs/a", ("config.yaml", "runs/config.yaml"), "runs/a"),  # anybody's
        ("runs/cv/fold_1", ("runs/cv/folds.yaml",), "runs/cv"),
        ("runs/a/fine/axial", ("runs/a/config.yaml", "runs/a/split.json"), "runs/a"),
        (
            "cv/fold_0/coarse/axial",
            ("cv/folds.yaml", "cv/fold_0/config.yaml", "cv/fold_0/split.json"),
            "cv",
        ),
    ],
)
def test_a_part_goes_on_with_its_whole(place, files, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in (*files, f"{place}/config.yaml", f"{place}/split.json"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    assert Run(Path(place)).whole == Path(whole)
    assert Run(tmp_path / place).whole == tmp_path / whole


def test_evaluating_a_part_against_all_references_counts_no_training_case_as_missed(
    finished, phantom, tmp_path, monkeypatch
):
    code = called(
        monkeypatch, evaluate, "--predictions", finished.predictions, "--references", phantom, "--run", finished.path,
        "--output", tmp_path,
    )  # fmt: skip
    assert code == 0
    ours = json.loads((tmp_path / "summary.json").read_text())
    theirs = json.loads((finished.test / "summary.json").read_text())
    assert ours["cases"] == theirs["cases"]
    assert ours["labels"]["rv"]["dice"]["mean"] == pytest.approx(theirs["labels"]["rv"]["dice"]["mean"])


def test_evaluating_cases_that_trained_the_run_says_so(finished, phantom, tmp_path, monkeypatch, capsys):
    learned = Split.load(finished.split).train[0]
    shutil.copytree(finished.predictions, tmp_path / "predictions")
    shutil.copy(phantom / learned / f"{learned}_label.nii.gz", tmp_path / "predictions" / f"{learned}.nii.gz")
    called(
        monkeypatch, evaluate, "--predictions", tmp_path / "predictions", "--references", phantom,
        "--run", finished.path, "--output", tmp_path / "out",
    )  # fmt: skip
    assert f"trained or selected the run, no test: {learned}" in capsys.readouterr().err


# ---------------------------------------------------------------- the tool as a process


def written(config: SegmentationConfig, path: Path) -> Path:
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def train(*options, launcher=()) -> list[str]:
    return [sys.executable, *launcher, str(ROOT / "tools" / "train_seg.py"), *map(str, options)]


@pytest.mark.slow
def test_a_stopped_tool_says_how_to_go_on_and_ends_with_the_weights_of_one_never_stopped(phantom, tmp_path):
    steps = {"epochs": 20, "steps_per_epoch": 5, "workers": 1}
    config = written(small(phantom, tmp_path, train=steps), tmp_path / "c.yaml")
    stopped, whole = Run(tmp_path / "stopped"), Run(tmp_path / "whole")
    process = subprocess.Popen(
        train("--config", config, "--run-dir", stopped.path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    history = stopped.path / "history.csv"
    while process.poll() is None and not (history.is_file() and len(history.read_text().splitlines()) > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert f"--resume {stopped.path}" in said
    assert not stopped.weights("last").exists()
    compose_run.resume(stopped.path)
    compose_run.run(load_config(config), whole.path)
    assert stopped.weights("last").read_bytes() == whole.weights("last").read_bytes()
    assert (stopped.test / "cases.csv").read_text() == (whole.test / "cases.csv").read_text()


@pytest.mark.slow
def test_two_processes_under_torchrun_train_and_test_one_run(phantom, tmp_path):
    config = written(small(phantom, tmp_path), tmp_path / "c.yaml")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    made = subprocess.run(
        train("--config", config, "--run-dir", tmp_path / "run", launcher=launcher),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    assert (tmp_path / "run" / "test" / "summary.json").is_file()
    assert made.stdout.count("Mean ± SD over") == 1, "both processes printed"


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        ({"smallest_ml": {"shel": 0.1}}, "inference.smallest_ml names 'shel': did you mean 'shell'?"),
        ({"smallest_ml": {"ball": 0.1}}, "inference.smallest_ml names 'ball': known are shell, core"),  # a region
        ({"largest_component": ["cor"]}, "inference.largest_component names 'cor': did you mean 'core'?"),
    ],
)
def test_what_is_to_be_cleaned_but_is_no_label_is_told_before_the_training(tmp_path, inference, message):
    root = make_balls(tmp_path / "data", cases=6)
    data = {"labels": {"shell": 1, "core": 2}, "regions": {"ball": ["shell", "core"]}}
    with pytest.raises(ConfigError, match=re.escape(message)):
        prepare(tiny(root, tmp_path, data=data, inference=inference))
    prepare(tiny(root, tmp_path, data=data, inference={"largest_component": ["ball"], "smallest_ml": {"core": 1}}))

"""A run that is killed right after a file that it writes goes on to what an unbroken one leaves."""

import shutil
import sys
from pathlib import Path

import pytest
from tiny_data import make_balls, tiny, trained, training_of

from segmed.commands.train_seg import Arguments
from segmed.commands.training import read_training
from segmed.compose import run as experiment
from segmed.config import SegmentationConfig
from segmed.errors import ConfigError, RunError
from segmed.files import atomic, write_json
from segmed.reports.segmentation import files, page
from segmed.runs import BEFORE_CONFIG, Run, holding, open_run, read_config
from segmed.training.tracking import RunTracker, Tracker

SAME = ("weights/best.safetensors", "weights/last.safetensors", "split.json", "test/cases.csv", "test/summary.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_balls(tmp_path_factory.mktemp("kills") / "data")


@pytest.fixture
def quick(monkeypatch):
    """Without the pictures, which take most of the time of a tiny run."""
    for module, name in (
        (files, "save_figure"), (files, "box_plots"), (files, "bland_altman"), (files, "montage"),
        (page, "training_curves"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(RunTracker, "pictures", lambda *_: None)


def crash_images(monkeypatch, run: Path, kept: Path, begin) -> list[tuple[str, Path]]:
    """Each file that a run writes, in that order, and the run folder as a kill right after it leaves it."""
    images: list[tuple[str, Path]] = []
    put = atomic.put

    def watched(temporary: Path, target: Path) -> None:
        put(temporary, target)
        if target.is_relative_to(run):
            images.append((target.relative_to(run).as_posix(), kept / f"{len(images):02d}"))
            shutil.copytree(run, images[-1][1])

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "put", watched)
        begin()
    return images


def test_a_run_killed_after_any_of_its_files_ends_as_one_never_killed(data, tmp_path, quick, monkeypatch):
    run = tmp_path / "run"
    config = tiny(data, tmp_path, train={"validations": 2})
    images = crash_images(monkeypatch, run, tmp_path / "images", lambda: experiment.run(config, run))
    whole = {name: (run / name).read_bytes() for name in SAME}
    written = [name for name, _ in images]
    assert len(images) > 20
    assert [Run(image).finished for _, image in images] == [False] * (len(images) - 1) + [True]
    begun = written.index("config.yaml")
    for _, image in images[:begun]:
        with pytest.raises(RunError, match=r"nothing was trained in .* yet.*start it again"):
            experiment.resume(image)
    last = {name: number for number, name in enumerate(written)}
    telling = [begun - 1, begun, written.index("checkpoint.pt"), written.index(SAME[0]), last[SAME[1]]]
    for number in (*telling, last["checkpoint.pt"], last["test/cases.csv"], len(images) - 1):
        image = images[number][1]
        if number < begun:
            experiment.run(config, image)
        else:
            experiment.resume(image)
        found = {name: (image / name).read_bytes() for name in SAME}
        assert found == whole, f"killed after {written[number]}, file {number} of {len(images)}"
        assert Run(image).finished


def test_a_folder_with_anything_else_is_no_run_that_was_being_made(data, tmp_path):
    for name in BEFORE_CONFIG:
        write_json(tmp_path / "run" / name, {})
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists: name another --run-dir"):
        experiment.start(tiny(data, tmp_path), tmp_path / "run")
    with pytest.raises(RunError, match="is no run"):
        open_run(tmp_path / "run")
    assert (tmp_path / "run" / "plan.json").is_file()


def test_a_finished_run_says_so_and_is_left_alone(data, tmp_path, quick, capsys):
    config = tiny(data, tmp_path, split={"test": 0.0})
    experiment.run(config, tmp_path / "run")
    assert "no test part: nothing is tested" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    experiment.resume(tmp_path / "run")
    assert "is finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert not Run(tmp_path / "run").test.exists()
    shutil.rmtree(tmp_path / "run" / "weights")
    with pytest.raises(RunError, match="is finished, but its weights are gone: copy them back"):
        experiment.resume(tmp_path / "run")


def test_a_config_that_was_cut_off_is_no_config_of_a_run(data, tmp_path):
    run = experiment.start(tiny(data, tmp_path), tmp_path / "run")
    text = run.config.read_text()
    for end in (0, text.index("\nnetwork:"), text.index("\ninference:")):
        run.config.write_text(text[:end])
        with pytest.raises(RunError, match=r"config\.yaml is cut off, it lacks inference"):
            read_config(run)


def test_a_second_process_that_goes_on_with_a_run_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr("segmed.runs.run_lock.WAIT_S", 0.1)
    experiment.start(tiny(data, tmp_path), tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.startswith("plan: ")
    with holding(tmp_path / "run"), pytest.raises(RunError, match="is being trained by another process"):
        experiment.resume(tmp_path / "run")
    assert (tmp_path / "run" / "log.txt").read_text() == log
    with holding(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_run_whose_data_have_moved_says_where_their_place_is_written(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    experiment.start(tiny(tmp_path / "data", tmp_path), tmp_path / "run")
    (tmp_path / "data").rename(tmp_path / "moved")
    config = tmp_path / "run" / "config.yaml"
    with pytest.raises(RunError, match=rf"data, the data of run .*write where it is now as data\.root into {config}"):
        experiment.resume(tmp_path / "run")


def test_an_image_that_was_replaced_between_kill_and_resume_is_noticed(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    made = trained(tiny(tmp_path / "data", tmp_path), tmp_path / "run")
    first, second = training_of(made).split.train[:2]
    shutil.copy(tmp_path / "data" / f"{first}.nii.gz", tmp_path / "data" / f"{second}.nii.gz")
    with pytest.raises(ValueError, match=rf"{second} is not what it was when the run began \(1 of"):
        training_of(made).fit(Tracker(), resume=True)
    made.content.unlink()  # as of a run of an earlier version
    training_of(made).fit(Tracker(), resume=True)


def test_epochs_beside_a_budget_in_minutes_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_seg.py", "--train.epochs", "3", "--train.budget-minutes", "2"])
    with pytest.raises(ConfigError, match=r"--train\.epochs means nothing beside train\.budget_minutes 2"):
        read_training(SegmentationConfig, Arguments, description=None)

"""The folds of a cross-validation as one model: the mean of all, with settings that were chosen on validation alone."""

import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_data import make_balls, tiny

import segmed
from segmed.builders.trained import NOT_CLEANED, load_run, load_run_config
from segmed.commands import evaluate as evaluate_command
from segmed.commands import predict as predict_command
from segmed.commands.command_line import run_tool
from segmed.compose import run as compose_run
from segmed.config import InferenceConfig
from segmed.data.learned import learned_split
from segmed.data.splits import Split
from segmed.errors import RunError
from segmed.evaluate.case_rows import SEEN
from segmed.runs import Folds
from segmed.segment import ensemble
from segmed.segment.settings_choice import AS_TRAINED, Choice, Pieces, SettingsChoice
from segmed.segmenters.combine import LargestComponent, Mean
from segmed.volumes import read_volume

CASES = 12  # two folds of 6: 3 train, 3 validate
PLAIN = InferenceConfig(**NOT_CLEANED, overlap=0.5)


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return make_balls(tmp_path_factory.mktemp("balls"), cases=CASES)


def settings(balls: Path, runs: Path):
    """What the folds have in common."""
    return tiny(balls, runs, split={"folds": 2, "validation": 0.5}, evaluate={"bootstrap": 10})


@pytest.fixture(scope="module")
def done(balls, tmp_path_factory):
    """A cross-validation that is done."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for drawing in ("save_figure", "box_plots", "bland_altman", "montage"):  # which take most of the time
            patch.setattr(f"segmed.reports.segmentation.files.{drawing}", lambda *_, **__: None)
        compose_run.cross_validate(settings(balls, runs), runs / "folds")
    return Folds(runs / "folds")


@pytest.fixture
def folds(done, tmp_path):
    """A copy of it, in another folder."""
    shutil.copytree(done.path, tmp_path / "moved")
    return Folds(tmp_path / "moved")


def record_of(folds: Folds) -> dict:
    return json.loads(folds.ensemble.read_text())


def set_chosen(folds: Folds, **chosen) -> None:
    folds.ensemble.write_text(json.dumps(record_of(folds) | {"chosen": chosen}))


def volume_of(balls: Path):
    return read_volume(balls / "ball_00.nii.gz")


def tool(module, *options) -> int | str | None:
    """Exit code of a command, run in this process."""
    before = sys.argv
    sys.argv = [f"{module.__name__.rpartition('.')[2]}.py", *map(str, options)]
    try:
        with pytest.raises(SystemExit) as stop:
            run_tool(module.main)
    finally:
        sys.argv = before
    return stop.value.code


# ---------------------------------------------------------------- prediction


def test_folds_as_one_give_the_mean_of_their_probabilities(folds, balls):
    set_chosen(folds, **NOT_CLEANED)
    volume = volume_of(balls)
    parts = [load_run(run.path, inference=PLAIN).probabilities(volume).as_tensor() for run in folds.runs()]
    assert not torch.equal(*parts)
    torch.testing.assert_close(load_run(folds.path).probabilities(volume).as_tensor(), (parts[0] + parts[1]) / 2)


def test_what_was_chosen_is_used_on_the_mean(folds, balls):
    set_chosen(folds, overlap=0.25, largest_component=["shell"], smallest_ml={"core": 0.02})
    own = load_run_config(folds.path).inference
    assert (own.overlap, own.largest_component, own.smallest_ml) == (0.25, ("shell",), {"core": 0.02})
    set_chosen(folds, largest_component=["shell"], smallest_ml={})
    volume = volume_of(balls)
    hand = LargestComponent(Mean([load_run(run.path, inference=PLAIN) for run in folds.runs()]), ["shell"])
    np.testing.assert_array_equal(load_run(folds.path)(volume).numpy(), hand(volume).numpy())


def test_the_tool_and_the_package_predict_as_one(folds, balls, tmp_path):
    set_chosen(folds, largest_component=["shell"], smallest_ml={})
    image = balls / "ball_00.nii.gz"
    assert tool(predict_command, "--run", folds.path, "--input", image, "--output", tmp_path / "out") == 0
    written = np.asarray(nib.load(tmp_path / "out" / "ball_00.nii.gz").dataobj)
    np.testing.assert_array_equal(written, segmed.predict(folds.path, image))
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert [Path(run["run"]).name for run in record["runs"]] == ["fold_0", "fold_1"]
    assert len({run["sha256"] for run in record["runs"]}) == 2
    assert record["settings"]["largest_component"] == ["shell"]


def test_a_fold_that_is_missing_is_one_line(folds, balls, tmp_path, capsys):
    shutil.rmtree(folds.path / "fold_1")
    with pytest.raises(RunError, match=r"fold 2 of 2 of .* is not done: end it with segmed train --resume"):
        load_run(folds.path)
    options = ("--run", folds.path, "--input", balls / "ball_00.nii.gz", "--output", tmp_path / "out")
    assert tool(predict_command, *options) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"chosen": {"overlap": "wide"}}'])
def test_a_choice_that_can_not_be_read_is_one_line(folds, text):
    folds.ensemble.write_text(text)
    with pytest.raises(RunError, match=r"ensemble\.json can't be read: delete it"):
        load_run(folds.path)


def test_folds_for_which_nothing_was_chosen_predict_as_their_own_validations_say(folds):
    folds.ensemble.unlink()
    own = [load_run_config(run.path).inference for run in folds.runs()]
    assert load_run_config(folds.path).inference == own[0]


# ---------------------------------------------------------------- choosing


class Speckled(segmed.Segmenter):
    """The reference of the case, with a stray piece of the shell until that is cleaned; remembers what it has seen."""

    def __init__(self, members, changes, dataset, seen):
        self.labels, self.seen = dataset.labels, seen
        self.fold, self.changes = members[0].run.name, changes
        self.by_image = {case.id: case for case in dataset.cases}

    def probabilities(self, volume):
        raise NotImplementedError

    def __call__(self, volume):
        name = self.seen.reading
        self.seen.of.append((self.fold, name, tuple(self.changes["largest_component"])))
        label = read_volume(self.by_image[name].label.path)
        if "shell" not in self.changes["largest_component"]:
            label[0, 0:2, 0:2, 0:2] = 1
        return label


class Seen:
    def __init__(self):
        self.reading, self.of = "", []


@pytest.fixture
def seen(monkeypatch):
    """What was segmented while settings were chosen: fold, case and the pieces that were cleaned."""
    seen, read, build = Seen(), ensemble.read_case, ensemble.build_dataset

    def reading(case, dataset):
        seen.reading = case.id
        return read(case, dataset)

    def load(members, *, device, changes):
        return Speckled(members, changes, build(members[0].config), seen)

    monkeypatch.setattr(ensemble, "read_case", reading)
    monkeypatch.setattr(ensemble, "load_together", load)
    return seen


def choose(folds: Folds, balls: Path) -> dict:
    folds.ensemble.unlink(missing_ok=True)
    ensemble.choose_together(settings(balls, folds.path), folds, [[], []], device="cpu")
    return record_of(folds)


def test_settings_are_chosen_on_validation_cases_by_their_own_folds(folds, balls, seen, monkeypatch):
    monkeypatch.setattr(ensemble._Choosing, "_out_of_fold", lambda *_: {"own_settings": {}})
    record = choose(folds, balls)
    splits = {run.path.name: Split.load(run.split) for run in folds.runs()}
    assert {(fold, case) for fold, case, _ in seen.of} == {
        (name, case) for name, split in splits.items() for case in split.validation
    }
    assert record["chosen"] == {"largest_component": ["all labels"], "smallest_ml": {}}
    assert (record["networks"], record["chosen_on"]["cases"]) == (2, 6)


def test_chosen_settings_are_measured_on_test_cases_by_their_own_folds(folds, balls, seen, monkeypatch):
    choice = Choice(AS_TRAINED, Pieces(("shell",), (("core", 0.002),)))  # no fold alone removes small pieces
    monkeypatch.setattr(SettingsChoice, "choose", lambda *_: choice)
    figures = choose(folds, balls)["out_of_fold"]["chosen_without_the_folds_test_cases"]
    assert figures["mean"] == {"dice": 1.0, "hd95_mm": 0.0}
    splits = {run.path.name: Split.load(run.split) for run in folds.runs()}
    assert sorted((fold, case) for fold, case, cleaned in seen.of if cleaned) == sorted(
        (name, case) for name, split in splits.items() for case in split.test
    )


def test_no_case_has_a_part_in_the_settings_that_it_is_tested_with(folds, balls, seen, monkeypatch):
    asked = []
    whole = SettingsChoice.choose

    def noted(self, trials):
        asked.append({trial.case for trial in trials})
        return whole(self, trials)

    monkeypatch.setattr(SettingsChoice, "choose", noted)
    choose(folds, balls)
    tests = [set(Split.load(run.split).test) for run in folds.runs()]
    everyone, *without = asked
    assert [cases & test for cases, test in zip(without, tests, strict=True)] == [set(), set()]
    assert without == [everyone - test for test in tests]


def test_figures_of_unseen_cases_are_of_single_networks_and_no_case_is_unseen_by_all(done):
    record = record_of(done)
    figures = record["out_of_fold"]
    assert figures["cases"] == CASES
    summary = json.loads((done.test / "summary.json").read_text())
    assert figures["own_settings"]["mean"]["dice"] == pytest.approx(summary["mean"]["dice"]["mean"])
    assert figures["own_settings"]["labels"].keys() == summary["labels"].keys()
    assert "single networks" in figures["note"]
    assert "learnt from every case" in record["seen"]
    one, times = record["seconds_a_case"]["one_network"], record["seconds_a_case"]
    assert times["all_networks"] == pytest.approx(2 * one["as trained"], abs=0.01)


def test_settings_are_chosen_once_for_the_same_weights(folds, balls, monkeypatch):
    before = folds.ensemble.read_bytes()
    monkeypatch.setattr(ensemble, "_Choosing", lambda *_: pytest.fail("chosen again"))
    ensemble.choose_together(settings(balls, folds.path), folds, [[], []], device="cpu")
    assert folds.ensemble.read_bytes() == before


def test_other_weights_are_chosen_for_anew(folds, balls, seen):
    folds.ensemble.write_text(json.dumps(record_of(folds) | {"weights": {"fold_0": "others"}, "chosen": {}}))
    ensemble.choose_together(settings(balls, folds.path), folds, [[], []], device="cpu")
    assert record_of(folds)["chosen"]["largest_component"] == ["all labels"]


def test_too_few_validation_subjects_choose_nothing_and_say_so(folds, balls, seen, monkeypatch, capsys):
    monkeypatch.setattr(ensemble, "FEWEST_SUBJECTS", 7)
    record = choose(folds, balls)
    assert (record["chosen"], record["tried"], seen.of) == ({}, [], [])
    assert "nothing is chosen on 6 validation subjects: 7 are needed" in capsys.readouterr().out


# ---------------------------------------------------------------- what it has learnt


def test_as_one_model_the_folds_have_learnt_from_every_case(done):
    learned = learned_split(done.path)
    assert learned.test == ()
    assert len({*learned.train, *learned.validation}) == CASES
    assert set(learned.train).isdisjoint(learned.validation)
    fold = done.runs()[0]
    assert learned_split(fold.path) == Split.load(fold.split)


def test_scoring_the_folds_as_one_on_their_own_data_says_that_nothing_is_unseen(folds, balls, tmp_path, capsys):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for number in range(2):
        shutil.copy(balls / f"ball_{number:02d}_label.nii.gz", predictions / f"ball_{number:02d}.nii.gz")
    options = ("--predictions", predictions, "--references", balls, "--output", tmp_path / "out", "--run", folds.path)
    assert tool(evaluate_command, *options) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["scope"] == SEEN
    err = capsys.readouterr().err
    assert "2 of the cases trained or selected the run" in err
    assert f"each fold's own test is in {folds.test}" in err
    assert tool(evaluate_command, *options, "--test-only") == 2
    assert "has no test case among the references" in capsys.readouterr().err

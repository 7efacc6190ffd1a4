"""Runs that know how far their cases can be trusted: folds by their own cases, single runs by others, in every tool."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
from tiny_data import make_balls, tiny

from segmed.commands import calibrate as calibrate_command
from segmed.commands import predict as predict_command
from segmed.commands.command_line import run_tool
from segmed.compose import run as compose_run
from segmed.runs import Folds
from segmed.trust.evidence import FILE, read_evidence

CASES = 12


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return make_balls(tmp_path_factory.mktemp("balls"), cases=CASES)


@pytest.fixture(scope="module")
def folds(balls, tmp_path_factory):
    """A cross-validation of two folds that is done, and calibrated with it."""
    runs = tmp_path_factory.mktemp("runs")
    config = tiny(balls, runs, split={"folds": 2, "validation": 0.5}, evaluate={"bootstrap": 10})
    with pytest.MonkeyPatch.context() as patch:
        for drawing in ("save_figure", "box_plots", "bland_altman", "montage"):  # which take most of the time
            patch.setattr(f"segmed.reports.segmentation.files.{drawing}", lambda *_, **__: None)
        compose_run.cross_validate(config, runs / "folds")
    return Folds(runs / "folds")


@pytest.fixture
def tool(monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def run(module, *options: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tool", *map(str, options)])
        with pytest.raises(SystemExit) as stop:
            run_tool(module.main)
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_case_of_folds_calibrates_by_the_fold_that_never_saw_it(folds):
    evidence = read_evidence(folds.path)
    assert evidence.predictor == "members"
    assert [case.member for case in evidence.cases].count(0) == CASES // 2
    assert evidence.subjects == len(evidence.cases) == CASES
    assert evidence.structures == ("shell", "core")
    truth = [case.structures["core"].volume for case in evidence.cases]
    assert all(0.04 < volume < 0.09 for volume in truth)  # ml of balls of radius 2.5 mm: 0.065
    assert "ball" not in (folds.path / FILE).read_text()  # no name of a case


def test_predictions_of_folds_have_intervals_flags_and_reasons(folds, balls, tmp_path, tool):
    case = balls / "ball_00.nii.gz"
    code, out, _ = tool(predict_command, "--run", folds.path, "--input", case, "--output", tmp_path, "--device", "cpu")
    assert code == 0
    record = json.loads((tmp_path / "prediction.json").read_text())["cases"][0]
    rows = rows_of(tmp_path / "trust.csv")
    assert [row["label"] for row in rows] == ["shell", "core"]
    for row in rows:
        assert row["flag"] in ("good", "look at it", "do not use")
        assert row["reason"] == record["trust"]["reason"]
        assert 0 <= float(row["volume_low_ml"]) < float(row["volume_high_ml"])
        assert float(row["volume_ml"]) == pytest.approx(record["volume_ml"][row["label"]], rel=1e-3, abs=1e-4)
        assert float(row["dice_lower_bound"]) <= float(row["expected_dice"]) <= 1
        assert float(row["level"]) == 0.9
    assert f", {rows[0]['flag']}" in out
    assert "trust: " in out
    again = tool(predict_command, "--run", folds.path, "--input", case, "--output", tmp_path, "--device", "cpu")
    assert "done before" in again[1]
    other = balls / "ball_01.nii.gz"
    tool(predict_command, "--run", folds.path, "--input", other, "--output", tmp_path, "--device", "cpu")
    assert [row["case"] for row in rows_of(tmp_path / "trust.csv")] == ["ball_00"] * 2 + ["ball_01"] * 2


def test_a_level_that_few_cases_do_not_bear_is_one_line(folds, balls, tmp_path, tool):
    case = balls / "ball_00.nii.gz"
    given = ("--run", folds.path, "--input", case, "--output", tmp_path, "--device", "cpu")
    code, _, err = tool(predict_command, *given, "--level", "0.95")
    assert code == 2
    assert err.startswith("error: 12 subjects bear a level of 92.3 % at most, 95 % needs 19: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_other_settings_than_those_of_calibration_give_no_intervals(folds, balls, tmp_path, tool):
    given = ("--run", folds.path, "--input", balls / "ball_00.nii.gz", "--output", tmp_path, "--device", "cpu")
    code, _, err = tool(predict_command, *given, "--overlap", "0.1")
    assert code == 0
    assert "was calibrated with another overlap" in err
    assert not (tmp_path / "trust.csv").exists()


def test_a_damaged_calibration_stops_predict_with_one_line(folds, balls, tmp_path, tool):
    shutil.copytree(folds.path, tmp_path / "run")
    (tmp_path / "run" / FILE).write_text("{")
    given = ("--run", tmp_path / "run", "--input", balls / "ball_00.nii.gz", "--output", tmp_path / "out")
    code, _, err = tool(predict_command, *given)
    assert code == 2
    assert err.startswith(f"error: {tmp_path / 'run' / FILE} is damaged: calibrate anew")


@pytest.mark.parametrize(("cases", "code"), [(3, 2), (9, 0)])
def test_a_single_run_is_calibrated_by_cases_that_it_never_saw(folds, tmp_path, tool, cases, code):
    """Balls of other names count; those that the fold learned from are left out."""
    shutil.copytree(folds.path / "fold_0", tmp_path / "run")
    data = make_balls(tmp_path / "data", cases=cases)
    learned = json.loads((tmp_path / "run" / "split.json").read_text())
    for path in sorted(data.iterdir()):
        if path.name[:7] in {*learned["train"], *learned["validation"]}:
            path.rename(data / path.name.replace("ball", "new"))
    given = ("--run", tmp_path / "run", "--data", data, "--device", "cpu")
    assert tool(calibrate_command, *given)[0] == code
    if code:
        code, _, err = tool(calibrate_command, *given)
        assert err.startswith("error: 3 subjects with labels bear a level of 75 % at most: calibrate with 5 or more")
        assert not (tmp_path / "run" / FILE).exists()
    else:
        evidence = read_evidence(tmp_path / "run")
        assert (evidence.predictor, len(evidence.cases)) == ("whole", cases)


def test_data_that_are_not_there_are_named_by_their_option(folds, tmp_path, tool):
    code, _, err = tool(calibrate_command, "--run", folds.path / "fold_0", "--data", tmp_path / "nowhere")
    assert code == 2
    assert err == f"error: {tmp_path / 'nowhere'} is not a folder: give --data the folder of labelled cases\n"

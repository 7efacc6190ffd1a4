"""A model that was handed over, calibrated by somebody's own cases into a new file."""

import sys

import pytest
from tiny_data import make_balls
from untrained_runs import untrained_run

from segmed.builders.model_file import opened, read_card
from segmed.commands.program import main_of
from segmed.errors import ConfigError, MetricError
from segmed.export.card import Words
from segmed.export.write_model import write_model
from segmed.trust.evidence import read_evidence


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    run = untrained_run(tmp_path_factory.mktemp("there") / "run")
    return write_model([run.path], run.path.parent / "balls.segmed", Words("Balls."))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return make_balls(tmp_path_factory.mktemp("here"), cases=9)


def call(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", ["segmed", command, *map(str, arguments)])
    return main_of(command)()


def test_a_calibrated_model_is_a_new_file_that_gives_intervals(model, own, tmp_path, monkeypatch, capsys):
    before = model.read_bytes()
    new = tmp_path / "calibrated.segmed"
    given = ("--model", model, "--data", own, "--output", new, "--device", "cpu")
    assert call(monkeypatch, "calibrate", *given) == 0
    said = capsys.readouterr().out
    assert "the model withholds which cases it has learnt from" in said
    assert f"9 subjects bear levels up to 90 %: {new}" in said
    assert model.read_bytes() == before
    assert "Balls." in read_card(new)
    assert "A calibration is part of it" in read_card(new)
    assert "No calibration" not in read_card(new)
    with opened((), [new]) as runs:
        evidence = read_evidence(runs.folders[0])
    assert (evidence.predictor, len(evidence.cases)) == ("whole", 9)

    image = own / "ball_00.nii.gz"
    assert call(monkeypatch, "predict", "--model", new, "--input", image, "--output", tmp_path / "out") == 0
    assert (tmp_path / "out" / "trust.csv").is_file()


def test_a_calibrated_model_is_not_the_given_one(model, own, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="is there already: name another file; the model given is never changed"):
        call(monkeypatch, "calibrate", "--model", model, "--data", own, "--output", model)


def test_too_few_cases_leave_no_file(model, tmp_path, monkeypatch):
    data = make_balls(tmp_path / "few", cases=3)
    with pytest.raises(MetricError, match="3 subjects with labels bear a level of 75 % at most"):
        call(monkeypatch, "calibrate", "--model", model, "--data", data, "--output", tmp_path / "new.segmed")
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give --run RUN, or --model FILE"),
        (("--model", "m.segmed"), "holds no cases: give --data"),
        (("--model", "m.segmed", "--data", "d"), "needs --output NAME.segmed"),
        (("--run", "r", "--output", "o.segmed"), "--output is of --model"),
    ],
)
def test_what_is_missing_is_said_in_one_line(options, message, monkeypatch):
    with pytest.raises(ConfigError, match=message):
        call(monkeypatch, "calibrate", *options)

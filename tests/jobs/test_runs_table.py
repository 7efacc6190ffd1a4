"""`segmed runs`: the runs below a folder, read from their folders alone."""

import json
import sys

import pytest

from segmed.commands.list_runs import bytes_text, duration, main, table_of
from segmed.errors import RunError
from segmed.runs import holding
from segmed.runs.run_state import status_of

CONFIG = "train: {epochs: 10, steps_per_epoch: 20, budget_minutes: null}\n"


def make(folder, *, history="", finished=False):
    """A run's folder with what its state is read from."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "split.json").write_text('{"train": ["a"], "validation": [], "test": ["b"]}')
    if history:
        (folder / "history.csv").write_text(history)
    if finished:
        (folder / "test").mkdir()
        (folder / "test" / "summary.json").write_text(json.dumps({"mean": {"dice": {"mean": 0.75}}}))
        (folder / "report.html").touch()
    return folder


def test_states_scores_and_the_time_left(tmp_path):
    half = "step,minutes,loss,score\n50,1.5,0.4,\n100,3,0.3,0.6\n"
    runs = {
        "a": make(tmp_path / "a", history="step,minutes,score\n200,6,0.8\n", finished=True),
        "b": make(tmp_path / "deep" / "b", history=half),
        "c": make(tmp_path / "c"),
    }
    assert status_of(runs["a"]).state == "done"
    assert (status_of(runs["a"]).score, status_of(runs["a"]).test_dice) == (0.8, 0.75)
    assert status_of(runs["b"]).state == "stopped"
    assert status_of(runs["b"]).share == 0.5
    assert status_of(runs["b"]).minutes_left == 3.0
    assert status_of(runs["c"]).state == "planned"
    with holding(runs["b"]):
        assert status_of(runs["b"]).state == "training"
        lines = table_of(tmp_path)
    assert [line.split()[0] for line in lines] == ["run", "a", "c", "deep/b"]
    assert lines[1].split()[1:8] == ["done", "10", "epochs", "100", "%", "0.800", "0.750"]
    assert lines[3].split()[1:9] == ["training", "10", "epochs", "50", "%", "0.600", "3", "min"]
    assert [line.split()[0] for line in table_of(tmp_path, "score")] == ["run", "a", "deep/b", "c"]


def test_one_damaged_run_hides_no_other(tmp_path):
    make(tmp_path / "a", history="step,minutes,score\n200,6,0.8\n", finished=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "folds.yaml").write_text("train: {epochs: [")
    run = make(tmp_path / "c", history="step,minutes,score\n100,3,0.6\n")
    with (run / "history.csv").open("ab") as file:
        file.write(b"\xff\xfe torn\n")
    assert [line.split()[:2] for line in table_of(tmp_path)[1:]] == [["a", "done"], ["b", "stopped"], ["c", "stopped"]]


def test_what_is_inside_a_run_belongs_to_it(tmp_path):
    make(make(tmp_path / "cascade") / "coarse" / "axial")
    assert [line.split()[0] for line in table_of(tmp_path)] == ["run", "cascade"]


def test_a_run_of_several_networks_says_how_many_are_trained(tmp_path):
    run = make(tmp_path / "cascade")
    (run / "config.yaml").write_text("cascade: {margin_mm: 10}\n" + CONFIG)
    assert status_of(run).state == "planned"
    make(run / "fine" / "axial", history="step,minutes,score\n100,3,0.6\n")
    coarse = make(run / "coarse" / "axial", history="step,minutes,score\n200,6,0.8\n")
    (coarse / "weights").mkdir()
    (coarse / "weights" / "last.safetensors").touch()
    found = status_of(run)
    assert (found.state, found.budget) == ("stopped", "1 network trained, each 10 epochs")
    assert (found.step, found.share, found.minutes_left) == (300, None, None)
    with holding(run / "fine" / "axial"):
        assert status_of(run).state == "training"


def test_trials_that_a_search_gave_up_are_named(tmp_path, monkeypatch, capsys):
    for number, end in enumerate(({"state": "pruned"}, {"state": "failed", "error": "no memory"}, None)):
        run = make(tmp_path / "search" / "trials" / f"{number:04d}" / "run", history="step,score\n100,0.6\n")
        if end is not None:
            (run.parent / "ended.json").write_text(json.dumps(end))
    monkeypatch.setattr(sys, "argv", ["runs.py", str(tmp_path)])
    assert main() == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in table] == ["state", "pruned", "failed", "stopped"]
    assert last == f"trial {tmp_path}/search/trials/0001/run failed: no memory"


def test_a_folder_that_is_not_there_is_one_line_and_one_without_runs_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["runs.py", str(tmp_path)])
    assert main() == 0
    assert capsys.readouterr().out == f"no runs below {tmp_path}\n"
    monkeypatch.setattr(sys, "argv", ["runs.py", str(tmp_path / "nowhere")])
    with pytest.raises(RunError, match="is not there"):
        main()


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (130, "2 min"), (7300, "2 h"), (400_000, "5 d")])
def test_ages_are_in_units_that_say_enough(seconds, text):
    assert duration(seconds) == text


def test_sizes_are_in_megabytes_or_gigabytes():
    assert [bytes_text(size) for size in (1_500_000, 2_500_000_000)] == ["1.5 MB", "2.5 GB"]

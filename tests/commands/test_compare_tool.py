"""Figures of runs, evaluations and folders of label maps as they are read; tools/compare.py from end to end."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from compared_runs import TOOL, load_tool, names, write_part, write_table
from monai.data import MetaTensor

from segmed.commands.command_line import run_tool
from segmed.config import SegmentationConfig
from segmed.data.case import Case
from segmed.data.cases import Dataset
from segmed.data.splits import Split
from segmed.errors import RunError
from segmed.evaluate.results import read_cases, read_result
from segmed.labels import LabelSet
from segmed.runs import Run
from segmed.segment import test as segment_test
from segmed.volumes import Source, write_volume

BASE = [0.5, 0.6, 0.7, 0.8, 0.65, 0.55]
GAINS = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
BETTER = [value + gain for value, gain in zip(BASE, GAINS, strict=True)]


def write_run(folder, dice, *, first=0, missed="diagonal", **part):
    """A finished run, whose test part is cases `first` and following."""
    write_part(folder, names(len(dice), first), **part)
    write_table(folder / "test", dice, first=first, missed=missed)
    return folder


def write_folds(folder, dice, *, folds=2):
    """A finished cross-validation."""
    write_table(folder / "test", dice)
    (folder / "folds.yaml").write_text(json.dumps({"split": {"folds": folds}}))
    cases = names(len(dice))
    for fold in range(folds):
        own = cases[fold::folds]
        write_part(folder / f"fold_{fold}", own, seconds=1.0 + fold, training=[c for c in cases if c not in own])
    return folder


# ---------------------------------------------------------------- what is read


def test_a_run_gives_its_figures_and_what_they_cost(tmp_path):
    found = read_result(write_run(tmp_path / "run", BASE, seed=3))
    assert [row["dice"] for row in found.rows] == BASE
    assert found.rows[0]["iou"] is None  # a column that the table does not have
    assert found.subjects["case_1"] == "s_case_1"
    assert (found.training_minutes, found.inference_seconds) == (20, 0.5)
    assert (found.budget, found.seed, found.missed) == ("50 steps of 4 patches", 3, "diagonal")
    assert found.training == (frozenset({"t_1", "t_2"}),)
    assert found.device == "CPU, 2 cores"


def test_a_budget_in_minutes_is_said_in_minutes(tmp_path):
    found = read_result(write_run(tmp_path / "run", BASE, train={"budget_minutes": 7.5}))
    assert found.budget == "7.5 minutes, steps of 4 patches"


def test_a_cross_validation_costs_what_its_folds_cost_together(tmp_path):
    found = read_result(write_folds(tmp_path / "folds", BASE))
    assert len(found.rows) == 6
    assert found.training_minutes == 40
    assert found.inference_seconds == pytest.approx(1.5)  # three cases of 1 s, three of 2 s
    assert [len(part) for part in found.training] == [3, 3]


def test_several_networks_cost_what_they_cost_together(tmp_path):
    run = write_run(tmp_path / "run", BASE)
    (run / "history.csv").unlink()
    (run / "config.yaml").write_text(json.dumps({"ensemble": {"views": ["axial", "coronal"]}}))
    for view, minutes in (("axial", 3.0), ("coronal", 4.0)):
        write_part(run / view, [], minutes=minutes)
    found = read_result(run)
    assert (found.training_minutes, found.budget) == (7, "2 networks, each 50 steps of 4 patches")


@pytest.mark.parametrize("path", ["out", "out/cases.csv"])
def test_an_evaluation_gives_figures_alone(tmp_path, path):
    write_table(tmp_path / "out", BASE, missed="skip")
    found = read_result(tmp_path / path)
    assert [row["dice"] for row in found.rows] == BASE
    assert (found.training_minutes, found.budget, found.missed) == (None, None, "skip")


def test_a_run_of_before_times_were_written_has_none(tmp_path):
    run = write_run(tmp_path / "run", BASE)
    (run / "test" / "timing.json").unlink()
    (run / "history.csv").unlink()
    found = read_result(run)
    assert (found.training_minutes, found.inference_seconds) == (None, None)


@pytest.mark.parametrize("lost", ["test/cases.csv", "test/summary.json"])
def test_a_run_without_a_finished_test_says_how_to_finish_it(tmp_path, lost):
    run = write_run(tmp_path / "run", BASE)
    (run / lost).unlink()
    with pytest.raises(RunError, match=r"run .*run has no finished test: .*--resume"):
        read_result(run)


def test_a_test_that_lacks_cases_of_its_split_names_them(tmp_path):
    run = write_run(tmp_path / "run", BASE)
    write_table(run / "test", BASE[:4])
    with pytest.raises(RunError, match=r"lacks 2 of its cases, case_4, case_5: .*--resume"):
        read_result(run)


@pytest.mark.parametrize("text", ["\ufeffcase,label,dice\na,scar,0.5\n", "\ufeffcase;label;dice\r\na;scar;0.5\r\n"])
def test_a_table_that_a_spreadsheet_has_saved_is_read(tmp_path, text):
    (tmp_path / "cases.csv").write_bytes(text.encode())
    ((row,), _) = read_cases(tmp_path / "cases.csv")
    assert (row["case"], row["label"], row["dice"]) == ("a", "scar", 0.5)


def test_folds_of_which_one_was_not_begun_are_no_finished_test(tmp_path):
    folds = write_folds(tmp_path / "folds", BASE)
    shutil.rmtree(folds / "fold_1")
    with pytest.raises(RunError, match="no finished test"):
        read_result(folds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no table with case, label and dice"),
        ("case,label\na,b\n", "no table with case, label and dice"),
        ("case,label,dice\n", "or is empty"),
        ("case,label,dice\na,scar,high\n", "line 2 that is no number"),
        ("case,label,dice\na,scar,0.5\na,scar,0.6\n", "two rows for 'scar' of case a"),
        ("case,label,dice\na,scar,0.5\nb,sc\n", "cut off in line 3"),
        ("case,label,dice\na,scar,\xff\n", "no table of figures"),
        ("case,label,dice\na,scar,1.7\n", "has dice 1.7 in line 2, which can't be"),
        ("case,label,dice,hd95_mm\na,scar,0.7,inf\n", "has hd95_mm inf in line 2, which can't be"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, text, message):
    (tmp_path / "cases.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=message) as error:
        read_cases(tmp_path / "cases.csv")
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- the test of a run writes its times


class Threshold:
    """A segmenter of one label: what is bright."""

    class_probabilities = None

    def __call__(self, volume):
        return MetaTensor((volume.as_tensor() > 0.5).to(torch.uint8), affine=volume.affine)


def test_the_test_of_a_run_writes_the_seconds_of_each_case(tmp_path, monkeypatch):
    cases = []
    for name in ("p1", "p2"):
        block = np.zeros((8, 8, 4), np.float32)
        block[2:6, 2:6, 1:3] = 1
        for kind in ("image", "label"):
            write_volume(
                tmp_path / f"{name}_{kind}.nii.gz", MetaTensor(torch.from_numpy(block)[None], affine=np.eye(4))
            )
        cases.append(
            Case(
                name,
                name,
                {"LGE": Source(tmp_path / f"{name}_image.nii.gz")},
                Source(tmp_path / f"{name}_label.nii.gz"),
            )
        )
    dataset = Dataset("blocks", tmp_path, tuple(cases), ("LGE",), LabelSet.from_config({"scar": 1}))
    monkeypatch.setattr(segment_test, "load_run", lambda *given, **options: Threshold())
    config = SegmentationConfig.model_validate({"evaluate": {"bootstrap": 10}})
    made = Run(tmp_path / "run")
    rows, *_ = segment_test.run_test(made, config, dataset, Split((), (), ("p1", "p2")), device="cpu")
    assert [row["dice"] for row in rows] == [1, 1]
    timing = json.loads(made.timing.read_text())
    assert list(timing["seconds"]) == ["p1", "p2"]
    assert all(0 < seconds < 60 for seconds in timing["seconds"].values())
    assert timing["seconds_a_case"] == pytest.approx(sum(timing["seconds"].values()) / 2)
    assert timing["device"] == "cpu"


# ---------------------------------------------------------------- the tool


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Run the tool in this process, without drawing: exit code, standard output, standard error, comparison.json."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segmed.reports.comparison.text.comparison_figure", lambda *given, **options: None)
    monkeypatch.setattr("segmed.reports.comparison.document.save_figure", lambda *given, **options: None)

    def call(*options):
        monkeypatch.setattr(sys, "argv", ["compare.py", *options, "--output", "out", "--bootstrap", "50"])
        with pytest.raises(SystemExit) as stop:
            run_tool(load_tool().main)
        printed = capsys.readouterr()
        path = tmp_path / "out" / "comparison.json"
        data = json.loads(path.read_text()) if path.exists() else None
        return SimpleNamespace(code=stop.value.code, out=printed.out, err=printed.err, data=data)

    return call


def figure(data, method, metric="dice"):
    return next(f for f in data["figures"] if (f["method"], f["metric"], f["label"]) == (method, metric, "scar"))


@pytest.fixture
def runs(tmp_path):
    """Two seeds of a supervised method and two of another one, whose second seed is 0.02 better."""
    for seed in range(2):
        write_run(tmp_path / "runs" / f"supervised_{seed}", BASE, seed=seed)
        write_run(tmp_path / "runs" / f"patch_{seed}", [value + 0.02 * seed for value in BETTER], seed=seed)
    return tmp_path / "runs"


def test_the_tool_as_it_is_called_writes_tables_and_figure(runs, tmp_path):
    done = subprocess.run(
        [
            sys.executable, str(TOOL), "--methods", f"supervised={runs}/supervised_0,{runs}/supervised_1",
            f"patch={runs}/patch_*", "--reference", "supervised", "--output", "out",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# patch against supervised\n")
    assert "| supervised (reference) | 2    | 20             | 0.5" in done.stdout
    assert "| patch                  | 0.678 ± " in done.stdout
    assert "| +0.045     |" in done.stdout  # 0.035, and half of 0.02
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.md", "comparison.csv", "comparison.json", "comparison.png", "report.html",
    }  # fmt: skip
    assert (tmp_path / "out" / "comparison.md").read_text().strip() in done.stdout


def test_patterns_are_expanded_and_the_first_method_is_the_reference(runs, compare):
    done = compare("--methods", "supervised=runs/supervised_*", "patch=runs/patch_*")
    assert done.code == 0
    assert done.data["reference"] == "supervised"
    assert [len(method["runs"]) for method in done.data["methods"]] == [2, 2]
    own = figure(done.data, "patch")
    assert (own["n"], own["seeds"], own["p"]) == (6, 2, 2 / 64)
    assert own["difference"] == pytest.approx(0.045)
    assert own["seed_sd"] == pytest.approx(0.02 / 2**0.5)
    assert figure(done.data, "patch", "hd95_mm")["difference"] == pytest.approx(-0.45)
    (runs / "patch_0").rename(runs / "patch, first")
    again = compare("--methods", "supervised=runs/supervised_*", "patch=runs/patch, first")
    assert figure(again.data, "patch")["seeds"] == 1


def test_runs_folds_evaluations_and_tables_are_compared_with_each_other(runs, tmp_path, compare):
    write_folds(tmp_path / "folds", BETTER)
    write_table(tmp_path / "scored", BASE)
    write_table(tmp_path / "other", BASE)
    done = compare("--methods", "run=runs/supervised_0", "cv=folds", "nnunet=scored", "table=other/cases.csv")
    assert done.code == 0
    assert figure(done.data, "cv")["difference"] == pytest.approx(0.035)
    assert figure(done.data, "table")["p"] == 1
    assert any("not trained on the same cases: run 2, cv 3" in note for note in done.data["notes"])


def test_other_budgets_and_numbers_of_seeds_are_said_on_the_terminal_and_in_the_files(runs, tmp_path, compare):
    write_run(tmp_path / "long", BETTER, train={"epochs": 100, "steps_per_epoch": 5})
    done = compare("--methods", "supervised=runs/supervised_*", "long=long")
    for text in (done.err, done.out, " ".join(done.data["notes"])):
        assert "different numbers of runs: supervised 2, long 1" in text
        assert "50 steps of 4 patches; long: 500 steps of 4 patches" in text


def test_common_cases_are_compared_when_asked_for(runs, tmp_path, compare):
    write_run(tmp_path / "shifted", BETTER, first=2)
    methods = ("--methods", "a=runs/supervised_0", "b=shifted")
    refused = compare(*methods)
    assert refused.code == 2
    assert refused.data is None
    done = compare(*methods, "--common-cases")
    assert (done.code, done.data["cases"]) == (0, 4)
    assert "only 4 of 8 cases" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("a=runs/supervised_0",), "one method alone"),
        (("a=runs/supervised_0", "a=runs/patch_0"), "method 'a' is given twice"),
        (("a=runs/supervised_0", "b=runs/patch_0", "--reference", "c"), "--reference c is no method: choose one of"),
        (("a=runs/supervised_0", "b=runs/supervised_0"), "supervised_0 is given twice, in 'a' and in 'b'"),
        (("a=runs/supervised_0,runs/supervised_*", "b=runs/patch_0"), "supervised_0 is given twice, in 'a'"),
        (("a=runs/supervised_0", "b=runs/supervised_0/test/cases.csv"), "is given twice"),
        (("a=runs/supervised_0", "b=runs/none_*"), "method 'b': no folder fits the pattern runs/none_*"),
        (("a=runs/supervised_0", "b=nowhere"), "method 'b': there is no nowhere"),
        (("a=runs/supervised_0", "runs/patch_0"), "runs/patch_0 is not NAME=FOLDER"),
        (("a=runs/supervised_0", "b="), "b= is not NAME=FOLDER"),
        (("a=runs/supervised_0", "b=runs/shifted"), "not tested on 2 of 8 cases, case_6, case_7, as runs/shifted was"),
        (("a=runs/supervised_0,runs/shifted", "b=runs/patch_0"), "method 'a': runs/supervised_0 was not tested on 2"),
        (("a=runs/supervised_0", "b=runs/stopped"), "run runs/stopped has no finished test"),
        (("a=runs/supervised_0", "b=runs/empty"), "if it holds label maps, give --references"),
        (("a=runs/supervised_0", "b=runs/skipping"), "'diagonal' in runs/supervised_0 and 'skip' in runs/skipping"),
    ],
)  # fmt: skip
def test_what_can_not_be_compared_is_one_line_and_exit_code_two(runs, compare, options, message):
    write_run(runs / "shifted", BETTER, first=2)
    write_run(runs / "skipping", BETTER, missed="skip")
    shutil.rmtree(write_run(runs / "stopped", BETTER) / "test")
    (runs / "empty").mkdir()
    done = compare("--methods", *options)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.data is None


# ---------------------------------------------------------------- folders of label maps


def write_maps(folder, lengths):
    """Label maps with a bar of so many voxels of value 7."""
    for case, length in enumerate(lengths):
        voxels = np.zeros((24, 4, 4), np.int32)
        voxels[:length, 1:3, 1:3] = 7
        folder.mkdir(parents=True, exist_ok=True)
        write_volume(folder / f"case_{case}.nii.gz", MetaTensor(torch.from_numpy(voxels)[None], affine=np.eye(4)))


def test_folders_of_label_maps_are_scored_and_compared(tmp_path, compare):
    write_maps(tmp_path / "references", [20] * 7)  # the last was predicted by nobody
    write_maps(tmp_path / "short", [10] * 6)
    write_maps(tmp_path / "long", [10, 11, 12, 13, 14, 15])
    record = {"cases": [{"case": "case_0", "seconds": 2.0}, {"case": "case_1", "seconds": 4.0}]}
    (tmp_path / "long" / "prediction.json").write_text(json.dumps(record))
    done = compare("--methods", "short=short", "long=long", "--references", "references", "--labels", "scar=7")
    assert done.code == 0, done.err
    assert done.data["cases"] == 6
    assert figure(done.data, "short")["mean"] == pytest.approx(2 * 10 / 30, rel=1e-5)
    gains = [2 * own / (own + 20) - 2 / 3 for own in range(10, 16)]
    assert figure(done.data, "long")["difference"] == pytest.approx(np.mean(gains), rel=1e-4)
    assert done.data["methods"][1]["inference_seconds"] == 3
    assert "include reading and writing" in done.err


def test_labels_of_a_folder_are_those_of_the_run_that_it_is_compared_with(tmp_path, compare):
    write_maps(tmp_path / "references", [20] * 6)
    write_maps(tmp_path / "maps", [10] * 6)
    run = write_run(tmp_path / "run", BASE)
    config = json.loads((run / "config.yaml").read_text())
    config["data"] = {"labels": {"scar": 7}, "layout": {"name": "pattern", "images": {"LGE": "{case}.nii.gz"}}}
    (run / "config.yaml").write_text(json.dumps(config))
    done = compare("--methods", "run=run", "maps=maps", "--references", "references")
    assert done.code == 0, done.err
    assert figure(done.data, "maps")["mean"] == pytest.approx(2 / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--references", "references"), "no labels: give --labels"),
        (("--references", "references", "--labels", "scar"), "not NAME=VALUE"),
        (("--references", "nowhere", "--labels", "scar=7"), "nowhere is not a folder"),
        (("--references", "references", "--labels", "scar=7", "--run", "nowhere"), "nowhere is no run"),
        (("--references", "strangers", "--labels", "scar=7"), "no prediction fits a reference"),
        (("--references", "references", "--labels", "scar=7", "--common"), "--common"),
    ],
)
def test_folders_that_can_not_be_scored_are_one_line(tmp_path, compare, options, message):
    for folder in ("references", "one", "two"):
        write_maps(tmp_path / folder, [5, 6])
    write_maps(tmp_path / "strangers" / "x", [5])
    (tmp_path / "strangers" / "x" / "case_0.nii.gz").rename(tmp_path / "strangers" / "x" / "heart.nii.gz")
    done = compare("--methods", "a=one", "b=two", *options)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_label_map_that_can_not_be_read_stops_the_comparison(tmp_path, compare):
    for folder in ("references", "one", "two"):
        write_maps(tmp_path / folder, [5, 6])
    (tmp_path / "two" / "case_1.nii.gz").write_bytes(b"torn")
    done = compare("--methods", "a=one", "b=two", "--references", "references", "--labels", "scar=7")
    assert done.code == 2
    assert "1 label maps of two can't be scored, first of case case_1" in done.err

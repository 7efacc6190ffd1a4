"""A comparison whose rows are trained first: each run, seed and fold a job, and the comparison after all of them."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from compared_runs import names, write_part, write_table
from tiny_data import tiny

from segmed.commands import compare
from segmed.commands.compare_jobs import _command_of
from segmed.compose import run as compose_run
from segmed.config.compare import CompareConfig
from segmed.config.reading import load_yaml, validate
from segmed.errors import ConfigError, JobError, RunError
from segmed.jobs import pool
from segmed.jobs.child import start_child
from segmed.jobs.job import Needs, Plan
from segmed.jobs.job_records import JobRecords
from segmed.machine import GIB

ROOT = Path(__file__).resolve().parents[2]
DICE = {"plain": [0.5, 0.6, 0.7, 0.65], "better": [0.6, 0.7, 0.8, 0.7]}


@pytest.fixture(autouse=True)
def looked_at(monkeypatch):
    """Experiments that were looked at; nothing is read of their data."""
    seen = []

    def look_ahead(config):
        seen.append(config)
        return "", config, GIB

    monkeypatch.setattr(compose_run, "look_ahead", look_ahead)
    monkeypatch.setattr(pool, "here", lambda: Needs(2, 8 * GIB, 0))
    return seen


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a comparison of two trainings and go to its folder; its path."""
    monkeypatch.chdir(tmp_path)
    described = tiny(tmp_path / "data", tmp_path / "runs").model_dump(mode="json")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(described))

    def write(*, rows=None, folds="", **changes):
        usual = {
            name: {"run": f"runs/{name}", "command": f"segmed train --config tiny.yaml {folds} --run-dir runs/{name}"}
            for name in DICE
        }
        given = {"name": "two", "output": "out", "reference": "plain", "rows": rows or usual, **changes}
        (tmp_path / "two.yaml").write_text(yaml.safe_dump({**given, "evaluate": {"bootstrap": 20}}))
        return tmp_path / "two.yaml"

    return write


@pytest.fixture
def segmed(monkeypatch):
    """Call `segmed compare` in this process; its exit code."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["segmed", "compare", *map(str, words)])
        return compare.main()

    return call


@pytest.fixture
def children(monkeypatch, segmed):
    """Jobs are carried out by the local pool; instead of a training a finished run is written. Their command lines."""
    lines = []

    def start(command, log, *, environ):
        lines.append(list(command))
        if command[1] == "compare":
            segmed(*command[2:])
        else:
            options = dict(zip(command[2::2], command[3::2], strict=False))
            path, config = Path(options["--run-dir"]), yaml.safe_load(Path(options["--config"]).read_text())
            run = write_part(path, names(4), seed=config["seed"])
            write_table(run / "test", [value + 0.001 * config["seed"] for value in DICE[path.name.split("-")[0]]])
            (run / "report.html").touch()
        return start_child(["true"], log, environ=environ)

    monkeypatch.setattr(pool, "start_child", start)
    return lines


# ---------------------------------------------------------------- the plan


def test_every_seed_and_fold_of_every_row_is_a_job_and_the_comparison_waits_for_all(written, segmed, looked_at, capsys):
    path = written(folds="--folds 3", seeds=[0, 1])
    assert segmed("--config", path, "--plan-only") == 0
    shown = capsys.readouterr().out
    assert "jobs: 17, of which 17 are left to do and 12 could run at once" in shown
    assert "  better-seed1/fold_2    to do  any number of cores, 1.0 GiB\n" in shown
    assert "  better-seed1/together  to do  any number of cores, 1.0 GiB  after better-seed1/fold_0, " in shown
    assert "  comparison             to do  any number of cores  after 4 jobs\n" in shown
    assert len(looked_at) == 2  # once a row: its seeds need the same
    assert not (path.parent / "runs").exists()
    assert not (path.parent / "out").exists()


def test_folds_are_begun_with_their_seed_on_the_same_split(written, segmed, monkeypatch):
    monkeypatch.setattr("segmed.jobs.carriers.run_plan", lambda *_, **__: 0)
    path = written(folds="--folds 3", seeds=[4, 7])
    assert segmed("--config", path, "--on", "local") == 0
    made = {run.name: yaml.safe_load((run / "folds.yaml").read_text()) for run in (path.parent / "runs").iterdir()}
    assert {name: folds["seed"] for name, folds in made.items()} == {
        "plain-seed4": 4, "plain-seed7": 7, "better-seed4": 4, "better-seed7": 7,
    }  # fmt: skip
    assert {folds["split"]["seed"] for folds in made.values()} == {0}
    assert all(Path(folds["data"]["root"]).is_absolute() for folds in made.values())


def test_rows_are_trained_and_compared_and_nothing_is_done_twice(written, segmed, children, capsys):
    path = written(seeds=[0, 1])
    assert segmed("--config", path, "--on", "local") == 0
    assert [line[1] for line in children] == ["train"] * 4 + ["compare"]
    out = path.parent / "out"
    assert f"look: {out / 'report.html'}" in capsys.readouterr().out
    compared = json.loads((out / "comparison.json").read_text())
    assert [len(method["runs"]) for method in compared["methods"]] == [2, 2]
    assert segmed("--config", path, "--on", "local") == 0
    assert len(children) == 5
    assert segmed("--config", path, "--on", "local", "--title", "another") == 0  # it is compared anew, not trained
    assert [line[1] for line in children[5:]] == ["compare"]
    (path.parent / "runs" / "better-seed1" / "report.html").unlink()  # a run is to be tested again: so is what follows
    assert segmed("--config", path, "--plan-only", "--title", "another") == 0
    shown = capsys.readouterr().out
    assert "  better-seed1  to do" in shown
    assert "  plain-seed1   done" in shown
    assert "  comparison    to do" in shown


def test_a_training_that_fails_is_named_and_the_comparison_is_left_out(written, segmed, children, monkeypatch, capsys):
    path = written()
    usual = pool.start_child

    def start(command, log, *, environ):
        if "better" in " ".join(command):
            return start_child(["sh", "-c", "echo 'error: no such volume'; exit 2"], log, environ=environ)
        return usual(command, log, environ=environ)

    monkeypatch.setattr(pool, "start_child", start)
    assert segmed("--config", path, "--on", "local") == 1
    assert "better failed (exit code 2): error: no such volume" in capsys.readouterr().err
    records = JobRecords(plan := Plan.load(path.parent / "out"))
    assert records.attempt(plan.by_name["plain"]).state == "done"
    assert records.attempt(plan.by_name["comparison"]) is None


def test_two_comparisons_in_one_folder_at_once_are_refused(written, segmed, children):
    path = written()
    plan = Plan("two", path.parent / "out", ())
    with JobRecords(plan).holding(), pytest.raises(JobError, match="another process carries out the jobs of"):
        segmed("--config", path, "--on", "local")
    assert not children


# ---------------------------------------------------------------- what is refused

OTHER = {"run": "runs/better", "command": "segmed train --config tiny.yaml"}


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("rm -rf runs", r"row 'plain': its command begins with 'rm -rf', which --on does not run: write segmed train"),
        ("bash -c 'segmed train'", "begins with 'bash -c'"),
        ("python evil/run.py --config tiny.yaml", "begins with 'python evil/run.py'"),
        ("segmed predict --run a", "begins with 'segmed predict'"),
        ("segmed train --config 'tiny.yaml", "can't be read"),
        ("segmed train --config tiny.yaml; rm -rf runs", r"row 'plain', command: "),
        ("segmed train --config tiny.yaml --train.epochz 3", r"row 'plain', command: .*--train.epochs"),
        ("segmed train --config nowhere.yaml", r"row 'plain', command: cannot read config nowhere.yaml"),
        ("segmed train --config tiny.yaml --on ray", "leave --on out of its command"),
        ("segmed train --config tiny.yaml --jobs.cores 3", "leave --jobs.cores out of its command"),
        ("segmed train --config tiny.yaml --run-dir runs/other", "its command makes runs/other, the row takes"),
    ],
)
def test_a_command_that_is_no_training_is_one_line(written, segmed, tmp_path, command, problem):
    path = written(rows={"plain": {"run": "runs/plain", "command": command}, "better": OTHER})
    with pytest.raises(ConfigError, match=problem) as error:
        segmed("--config", path, "--on", "local")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "compare").glob("*.yaml")), ids=lambda path: path.stem)
def test_commands_of_shipped_comparisons_make_the_runs_of_their_rows(path):
    rows = validate(CompareConfig, load_yaml(path), where=path.name).rows
    for name, row in ((name, row) for name, row in rows.items() if row.command):
        command, words = _command_of(row.command, where=name)
        options = dict(zip(words[::2], words[1::2], strict=False))
        assert command == "train"
        assert (ROOT / options["--config"]).is_file()
        assert Path(options["--run-dir"]) == Path(row.run)


def test_a_run_that_nothing_makes_is_one_line_or_left_out(written, segmed, capsys):
    plain = {"run": "runs/plain", "command": "segmed train --config tiny.yaml"}
    path = written(rows={"plain": plain, "better": OTHER, "gone": {"run": "runs/gone"}})
    with pytest.raises(RunError, match=r"row 'gone': no run fits .*runs/gone: train it with segmed train"):
        segmed("--config", path, "--plan-only")
    assert segmed("--config", path, "--plan-only", "--skip-missing") == 0
    assert "jobs: 3," in capsys.readouterr().out


def test_several_runs_of_one_command_are_its_seeds(written, segmed):
    rows = {"plain": {"run": ["a", "b"], "command": "segmed train"}, "better": OTHER}
    with pytest.raises(ConfigError, match=r"row 'plain' names several runs and one command: .*seeds: \[0, 1, 2\]"):
        segmed("--config", written(rows=rows), "--plan-only")
    with pytest.raises(ConfigError, match="with seeds it names one folder"):
        segmed("--config", written(rows=rows, seeds=[0]), "--plan-only")


@pytest.mark.parametrize(
    ("run", "changes", "problem"),
    [
        ("out", {}, "its run and the comparison's output are both .*out: give two folders"),
        ("runs/../out", {}, "are both"),
        ("ou", {"seeds": [0], "output": "ou-seed0"}, "are both .*ou-seed0"),
        ("", {}, "a run has an empty name"),
        ([], {}, "a run has an empty name"),
    ],
)
def test_a_run_has_a_folder_of_its_own(written, segmed, run, changes, problem):
    plain = {"run": run, "command": "segmed train --config tiny.yaml"}
    with pytest.raises(ConfigError, match=problem):  # else the run's page would prove the comparison done
        segmed("--config", written(rows={"plain": plain, "better": OTHER}, **changes), "--plan-only")


@pytest.mark.parametrize("words", [("--on", "local"), ("--plan-only",), ("--submit",)])
def test_without_a_config_nothing_is_trained(segmed, words):
    with pytest.raises(ConfigError, match="are of rows that have commands: give --config"):
        segmed("--methods", "a=x", "b=y", *words)


def test_a_single_run_where_folds_are_asked_for_is_one_line(written, segmed, tmp_path):
    path = written(folds="--folds 3")
    write_part(tmp_path / "runs" / "plain", names(4))
    with pytest.raises(
        ConfigError, match="plain is a single run, its command makes a cross-validation: name another run"
    ):
        segmed("--config", path, "--plan-only")


def test_walls_of_a_run_with_seeds_are_those_of_its_first(tmp_path):
    data = {"labels": {"myocardium": 1, "scar": 2}, "regions": {"lv_wall": ["myocardium", "scar"]}}
    rows = {
        "net": {"run": "runs/net", "command": "segmed train"},
        "given": {"run": "runs/net", "region": "reference"},
        "old": {"run": "runs/old"},
        "otsu": {"region": "runs/net", "method": {"name": "otsu"}},
    }
    config = validate(CompareConfig, {"data": data, "reference": "net", "rows": rows, "seeds": [3, 5]}, where="x")
    assert config.runs_of(config.rows["given"]) == ("runs/net-seed3", "runs/net-seed5")
    assert config.runs_of(config.rows["old"]) == ("runs/old",)
    assert config.walls_of(config.rows["otsu"]) == "runs/net-seed3"

"""`segmed train --folds` as jobs: its plan, and the scripts that it leaves for SLURM."""

import sys

import pytest
import yaml
from tiny_data import make_balls, tiny

from segmed.commands import train_seg
from segmed.jobs.job import Plan


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A call of the command with three folds of balls."""
    config = tiny(make_balls(tmp_path / "balls"), tmp_path / "runs")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))

    def call(*options: object) -> int:
        words = ["--config", tmp_path / "my.yaml", "--folds", 3, *options]
        monkeypatch.setattr(sys, "argv", ["segmed", "train", *map(str, words)])
        return train_seg.main()

    return call


def test_the_plan_of_folds_names_the_jobs_and_makes_nothing(train, tmp_path, capsys):
    assert train("--plan-only") == 0
    shown = capsys.readouterr().out
    for job in ("fold_0", "fold_1", "fold_2", "together"):
        assert job in shown
    assert not (tmp_path / "runs").exists()


def test_folds_for_slurm_are_scripts_with_what_each_job_needs(train, tmp_path, capsys):
    needs = ("--jobs.cores", 8, "--jobs.gpus", 1, "--jobs.time-limit", "12:00:00", "--jobs.partition", "gpu")
    assert train("--run-dir", tmp_path / "folds", "--on", "slurm", *needs, "--jobs.options=--account=lab") == 0
    folder = tmp_path / "folds" / "jobs" / "slurm"
    script = (folder / "01_fold.sh").read_text()
    for line in (
        "--array=0-2",
        "--cpus-per-task=8",
        "--gres=gpu:1",
        "--time=12:00:00",
        "--partition=gpu",
        "--account=lab",
    ):
        assert f"#SBATCH {line}\n" in script
    assert f"submit: bash {folder}/submit.sh" in capsys.readouterr().out
    assert len(Plan.load(tmp_path / "folds").left()) == 4

"""The prediction of a folder in shards: the same label maps and the same record as in one piece."""

import json
import signal
import sys
from pathlib import Path

import pytest
from untrained_run import noise, untrained_run

from segmed.commands.predict import Arguments, main
from segmed.commands.predict_shards import command_of
from segmed.config.jobs import JobsConfig
from segmed.errors import ConfigError, JobError
from segmed.jobs.carriers import live_engine
from segmed.jobs.job import Plan


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def predict(monkeypatch):
    """Call `segmed predict` in this process; its exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, words)])
        return main()

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def carried(monkeypatch, predict):
    """Carry out plans in this process, command by command; the plans."""
    plans: list[Plan] = []

    def carry(plan: Plan, on: str, given: JobsConfig, *, submit: bool) -> int:
        plans.append(plan)
        for job in plan.left():
            predict(*job.command[2:])
            assert job.done, job.name
        return 0

    monkeypatch.setattr("segmed.jobs.carriers.run_plan", carry)
    return plans


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.nii.gz"))}


def cases(folder: Path) -> list[dict]:
    """Of the record, without what differs from run to run."""
    record = json.loads((folder / "prediction.json").read_text())
    return [{key: value for key, value in case.items() if key not in ("seconds", "output")} for case in record["cases"]]


def test_shards_write_what_one_process_writes(run, predict, carried, tmp_path):
    folder = noise(tmp_path / "in", 5)
    (folder / "case_03.nii.gz").write_bytes(b"no volume")
    assert predict("--run", run, "--input", folder, "--output", tmp_path / "whole") == 1
    shards = ("--run", run, "--input", folder, "--output", tmp_path / "out", "--on", "local", "--shards", 2)
    assert predict(*shards) == 1
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert len(files(tmp_path / "out")) == 4
    assert cases(tmp_path / "out") == cases(tmp_path / "whole")
    assert [job.name for job in carried[0].jobs] == ["shard_0", "shard_1", "merge"]
    noise(tmp_path / "again", 5)
    (folder / "case_03.nii.gz").write_bytes((tmp_path / "again" / "case_03.nii.gz").read_bytes())
    assert predict(*shards) == 0  # the shard that had a bad case is done again, its good ones are kept
    assert [job.name for job in carried[1].left()] == []
    assert [case["status"] for case in cases(tmp_path / "out")] == ["done", "kept", "done", "done", "done"]


def test_an_input_that_vanished_is_one_line_and_the_others_are_predicted(run, predict, monkeypatch, tmp_path, capsys):
    folder, output = noise(tmp_path / "in", 4), tmp_path / "out"
    monkeypatch.setattr("segmed.jobs.carriers.run_plan", lambda *_, **__: 0)  # they are planned, nothing runs
    given = ("--run", run, "--input", folder, "--output", output)
    predict(*given, "--on", "local", "--shards", 2)
    (folder / "case_02.nii.gz").unlink()
    assert [predict(*given, "--shard", number) for number in (0, 1)] == [0, 0]
    assert predict(*given, "--merge") == 0
    assert [(case["case"], case["status"]) for case in cases(output)] == [
        ("case_00", "done"), ("case_01", "done"), ("case_02", "failed"), ("case_03", "done"),
    ]  # fmt: skip
    gone = f"{folder}/case_02.nii.gz vanished after the shards were planned: put it back"
    assert gone in cases(output)[2]["error"]
    assert gone in capsys.readouterr().err


def test_a_plan_of_other_shards_keeps_what_is_done(run, predict, carried, tmp_path):
    folder, output = noise(tmp_path / "in", 3), tmp_path / "out"
    given = ("--run", run, "--input", folder, "--output", output, "--on", "local")
    predict(*given, "--shards", 3)
    predict(*given, "--shards", 2)
    assert [case["status"] for case in cases(output)] == ["kept"] * 3


def test_the_command_of_a_shard_is_that_of_the_user_without_its_engine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = Arguments(
        run=(Path("a"), Path("b")), input=Path("in"), output=Path("out"), mirror=True, largest_component=("scar",),
        on="slurm", shards=8, jobs=JobsConfig(cores=2),
    )  # fmt: skip
    assert command_of(arguments) == (
        "segmed", "predict", "--run", f"{tmp_path}/a", "--run", f"{tmp_path}/b", "--input", f"{tmp_path}/in",
        "--output", f"{tmp_path}/out", "--mirror", "--largest-component", "scar",
    )  # fmt: skip


def test_a_shard_or_a_merge_without_a_plan_is_refused(run, predict, tmp_path):
    given = ("--run", run, "--input", noise(tmp_path / "in", 1), "--output", tmp_path / "out")
    with pytest.raises(JobError, match=r"cases\.json is missing or damaged"):
        predict(*given, "--shard", 0)
    with pytest.raises(ConfigError, match="has no shards to merge"):
        predict(*given, "--merge")


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(JobError, match=r'pip install "segmed-mri\[ray\]"'):
        live_engine("ray", JobsConfig())

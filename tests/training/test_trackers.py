"""Weights & Biases and MLflow beside TensorBoard: the same figures, one run after a resume, no training lost."""

import io
import json
import os
import struct
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_resume import same_weights
from tiny_classes import config_of, write_classes
from tiny_data import make_balls, tiny
from tiny_run import train_tiny

from segmed.classify import run as classify_run
from segmed.compose import run as compose_run
from segmed.errors import ConfigError
from segmed.training import services
from segmed.training.checkpoint import Checkpoints
from segmed.training.hyper_parameters import telling_settings
from segmed.training.interruption import Interrupted
from segmed.training.ranks import Ranks
from segmed.training.services import ServiceTracker, check_services, with_services
from segmed.training.tracking import RunTracker, Tracker

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("wandb")
HALFWAY = 7


@pytest.fixture(scope="module", autouse=True)
def no_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_NAME"):
            patch.delenv(name, raising=False)
        yield


def tracked(folder: Path, *, step: int = 0, names=("wandb", "mlflow")) -> Tracker:
    board = RunTracker(folder, step=step, console=Console(file=io.StringIO(), width=200))
    return with_services(board, names, folder)


def drawn(batch, views) -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().imshow(batch["image"][0, 0, 0])
    return figure


class StopsHalfway(RunTracker):
    """Asks the training to end, as a signal does."""

    def progress(self, share, step):
        if step == HALFWAY:
            os.kill(os.getpid(), 15)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of 12 steps that was stopped halfway and went on."""
    folder = tmp_path_factory.mktemp("trackers") / "run"
    board = StopsHalfway(folder, console=Console(file=io.StringIO(), width=200))
    with pytest.raises(Interrupted), with_services(board, ("wandb", "mlflow"), folder) as tracker:
        train_tiny(folder, steps=12, tracker=tracker, draw=drawn)
    names = [(folder / kind / "run_id.txt").read_text() for kind in ("wandb", "mlflow")]
    step = Checkpoints(folder, ranks=Ranks()).last_step()
    with tracked(folder, step=step) as tracker:
        tracker.text("config", "name: tiny\nseed: 5")
        state = train_tiny(folder, steps=12, tracker=tracker, draw=drawn, resume=True)
        tracker.test(state.step, {"dice/left": 0.25})
        tracker.hyper_parameters(state.step, {"train.learning_rate": 0.01}, {"test/dice": 0.25})
    return folder, names


def client_and_run(folder: Path):
    client = mlflow.tracking.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    return client, client.get_run((folder / "mlflow" / "run_id.txt").read_text().strip())


def wandb_records(folder: Path) -> list:
    """Records of the offline runs in a run folder, in the order of time: LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    records = []
    for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb")):
        data, at, whole = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
            whole += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):
                records.append(Record.FromString(whole))
                whole = b""
    return records


def wandb_summary(folder: Path) -> dict[str, object]:
    summary: dict[str, object] = {}
    for record in wandb_records(folder):
        if record.WhichOneof("record_type") == "summary":
            summary |= {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
    return summary


def test_mlflow_has_the_tags_and_steps_of_tensorboard_after_a_resume(resumed):
    folder, _ = resumed
    client, run = client_and_run(folder)
    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    tags = [tag for tag in board.Tags()["scalars"] if not tag.startswith("_")]
    assert {"train/loss", "validation/score", "test/dice/left", "test/dice"} <= set(tags)
    for tag in tags:
        points = sorted(client.get_metric_history(run.info.run_id, tag), key=lambda point: point.step)
        assert [point.step for point in points] == [event.step for event in board.Scalars(tag)], tag
        if tag != "train/patches_per_second" and "share" not in tag:
            assert [point.value for point in points] == pytest.approx([e.value for e in board.Scalars(tag)]), tag


def test_mlflow_has_hyper_parameters_the_config_pictures_and_its_end(resumed):
    folder, _ = resumed
    client, run = client_and_run(folder)
    assert run.data.params == {"train.learning_rate": "0.01"}
    assert run.info.status == "FINISHED"
    assert (folder / "mlflow" / "artifacts" / run.info.run_id / "artifacts" / "config.yaml").read_text().endswith("5")
    pictures = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    steps = {int(path.split("+")[2]) for path in pictures if "train~patches" in path and path.endswith(".png")}
    assert max(steps) == 12
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_a_resume_goes_on_in_the_same_run_of_each_service(resumed):
    folder, names = resumed
    assert names == [(folder / kind / "run_id.txt").read_text() for kind in ("wandb", "mlflow")]
    runs = [path.name for path in sorted((folder / "wandb").glob("offline-run-*"))]
    assert len(runs) == 2
    assert {name.rsplit("-", 1)[1] for name in runs} == {names[0].strip()}


def test_wandb_offline_holds_history_summary_config_and_pictures(resumed):
    folder, _ = resumed
    records = wandb_records(folder)
    steps: list[int] = []
    settings: dict[str, object] = {}
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            steps += [record.history.step.num] if "train/loss" in row else []
        elif kind == "config":
            settings |= {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.config.update}
    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    assert steps == [event.step for event in board.Scalars("train/loss")]
    assert wandb_summary(folder)["test/dice/left"] == 0.25
    assert settings["train.learning_rate"] == 0.01
    assert settings["config"] == {"name": "tiny", "seed": 5}
    assert list((folder / "wandb").rglob("media/images/train/patches*.png"))


def test_weights_do_not_depend_on_trackers(resumed, tmp_path):
    train_tiny(tmp_path, steps=12, draw=drawn)
    assert same_weights(tmp_path, resumed[0])


# ---------------------------------------------------------------- whole runs, on a store that several share


@pytest.mark.parametrize("kind", ["segmentation", pytest.param("classification", marks=pytest.mark.slow)])
def test_a_whole_run_is_recorded_with_its_test_and_its_hyper_parameters(resumed, tmp_path, monkeypatch, kind):
    uri = f"sqlite:///{resumed[0] / 'mlflow' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    both = {"trackers": ["wandb", "mlflow"]}
    if kind == "segmentation":
        compose_run.run(tiny(make_balls(tmp_path / "data"), tmp_path, train=both), tmp_path / "run")
        curve, final = "validation/dice/shell", "test/dice"
    else:
        config = config_of(tmp_path, write_classes(tmp_path / "data"), train={**both, "epochs": 2})
        classify_run.run(config, tmp_path / "run")
        curve, final = "validation/accuracy", "test/accuracy"
    name = (tmp_path / "run" / "mlflow" / "run_id.txt").read_text().strip()
    run = mlflow.tracking.MlflowClient(tracking_uri=uri).get_run(name)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    assert {curve, final} <= set(run.data.metrics)
    assert set(run.data.metrics) == {tag for tag in board.Tags()["scalars"] if not tag.startswith("_")}
    assert run.data.params["network.name"] == ("unet" if kind == "segmentation" else "encoder")
    assert run.info.status == "FINISHED"
    summary = wandb_summary(tmp_path / "run")
    assert summary[final] == pytest.approx(run.data.metrics[final])
    assert "wandb" in (tmp_path / "run" / "log.txt").read_text()


# ---------------------------------------------------------------- what goes wrong


class Recorder:
    """Works until a step, then as the test says."""

    def __init__(self, fails_at: int = 10**9, seconds: float = 0.0) -> None:
        self.fails_at, self.seconds = fails_at, seconds
        self.steps: list[int] = []

    def connect(self) -> str:
        if self.fails_at == 0:
            raise ConnectionError("no\nnetwork")
        time.sleep(self.seconds)
        return "here"

    def scalars(self, step, values):
        if step >= self.fails_at:
            raise ConnectionError("no\nnetwork")
        self.steps.append(step)

    def picture(self, step, name, picture): ...

    def text(self, name, text): ...

    def settings(self, settings): ...

    def close(self, *, failed): ...


def record(tracker: Tracker) -> None:
    with tracker:
        for step in range(1, 6):
            tracker.scalars(step, {"loss": 1.0}, minutes=0.0)


@pytest.mark.parametrize(("fails_at", "steps"), [(0, []), (3, [1, 2])])
def test_a_service_that_fails_is_one_warning(fails_at, steps, caplog):
    recorder = Recorder(fails_at)
    record(ServiceTracker("Weights & Biases", recorder))
    assert recorder.steps == steps
    assert [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"] == [
        "Weights & Biases records no more of this run, which goes on: no network"
    ]


def test_a_service_without_an_answer_is_not_waited_for(caplog, monkeypatch):
    monkeypatch.setattr(services, "CONNECT_SECONDS", 0.05)
    began = time.monotonic()
    record(ServiceTracker("MLflow", Recorder(seconds=30)))
    assert time.monotonic() - began < 5
    assert [entry.getMessage() for entry in caplog.records] == [
        "MLflow records no more of this run, which goes on: no answer in 0 s"
    ]


def test_an_mlflow_server_that_is_not_there_is_one_warning_and_the_training_ends_well(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with tracked(tmp_path, names=("mlflow",)) as tracker:
        assert train_tiny(tmp_path, steps=4, tracker=tracker).step == 4
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert len([line for line in log if "WARNING" in line]) == 1
    assert any("WARNING MLflow records no more of this run, which goes on: " in line for line in log)


def test_an_extra_that_is_missing_is_named_and_a_folder_of_its_name_is_no_package(tmp_path, monkeypatch):
    monkeypatch.setitem(services.PACKAGES, "wandb", ("wandb_that_is_only_a_folder",))
    (tmp_path / "wandb_that_is_only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    line = r'^train\.trackers: Weights & Biases is not installed: pip install "segmed-mri\[wandb\]"$'
    with pytest.raises(ConfigError, match=line):
        check_services(("wandb",))
    check_services(("mlflow",))


def test_trackers_are_no_hyper_parameter(tmp_path):
    config = config_of(tmp_path, tmp_path, train={"trackers": ["wandb"]})
    assert config.train.trackers == ("wandb",)
    assert "train.trackers" not in telling_settings(config)

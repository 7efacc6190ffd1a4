"""Files of strangers and of other versions end in one line, and in time: configs, records, pipes, odd names."""

import errno
import json
import os
import socket
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_resume import STEPS, StopAt, train_tiny
from torch import nn

from segmed.build import build_network
from segmed.cli import ConfigError, load_yaml, run_tool, validate
from segmed.config import ExperimentConfig, UNetConfig
from segmed.data.case import DatasetError
from segmed.data.content import ContentHashes
from segmed.data.expressions import found_in
from segmed.data.inputs import find_inputs
from segmed.files import DiskError, atomic_write_text, write_json
from segmed.runs import RunError
from segmed.segmenters.prediction import PredictionError, Record
from segmed.training.checkpoint import CheckpointError, check_weights, load_state, save_state
from segmed.training.history import History
from segmed.training.interruption import Interrupted
from segmed.training.tracking import RunTracker
from segmed.volumes import VolumeError, is_dicom_folder, read_volume

# ---------------------------------------------------------------- configs

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "m0: &m0 {k: 1}\n" + "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [LAUGHS, MERGES, "a: &a [*a]", "[" * 5000, "x" * 2_000_000],
    ids=["laughs", "merges", "itself", "deep", "long"],
)
def test_a_yaml_bomb_is_one_line_at_once(text, tmp_path):
    (tmp_path / "bomb.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"bomb\.yaml") as error:
        load_yaml(tmp_path / "bomb.yaml")
    assert time.process_time() - began < 4
    assert "\n" not in str(error.value)


def test_aliases_and_merges_of_a_usual_config_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("base: &base {epochs: 3, ema: 0.5}\ntrain: {<<: *base, epochs: 4}\nother: *base\n")
    assert load_yaml(tmp_path / "a.yaml")["train"] == {"epochs": 4, "ema": 0.5}


@pytest.mark.parametrize(
    "section",
    [
        {"network": {"name": "unet", "blocks": 10**9}},
        {"network": {"name": "unet", "channels": [10**9, 10**9]}},
        {"network": {"name": "unet", "channels": [8] * 1000}},
        {"patches": {"size": [0, 64, 64]}},
        {"patches": {"size": [64]}},
        {"inference": {"overlap": 0.9999999}},
        {"split": {"folds": 10**9}},
    ],
    ids=str,
)
def test_a_config_that_would_never_end_or_fit_is_refused(section):
    with pytest.raises(ConfigError, match=next(iter(section))):
        validate(ExperimentConfig, section, where="config")


def test_a_network_larger_than_its_weights_is_refused_before_it_takes_memory(tmp_path):
    shape = {"in_channels": 1, "out_channels": 2, "dims": 3, "device": "meta"}
    vast = build_network(UNetConfig(channels=(60000, 60000), strides=((1, 1, 1), (2, 2, 2))), **shape)
    assert sum(tensor.numel() for tensor in vast.state_dict().values()) > 10**11
    save_file({"a": torch.zeros(3)}, tmp_path / "best.safetensors")
    with pytest.raises(CheckpointError, match="holds another network"):
        check_weights(tmp_path / "best.safetensors", vast)
    save_file(nn.Linear(2, 1).state_dict(), tmp_path / "best.safetensors")
    check_weights(tmp_path / "best.safetensors", nn.Linear(2, 1, device="meta"))


def test_an_expression_that_backtracks_without_end_is_stopped():
    began = time.monotonic()
    with pytest.raises(
        DatasetError, match=r"data\.subject '\(a\+\)\+\$' takes more than 2 s on 'a+!': .*write it simpler"
    ):
        found_in(r"(a+)+$", "a" * 60 + "!", key="data.subject")
    assert time.monotonic() - began < 4
    assert found_in(r"(s\d+)_", "s12_3", key="x")[1] == "s12"
    with pytest.raises(DatasetError, match="no regular expression"):
        found_in("(", "x", key="data.subject")


# ---------------------------------------------------------------- what is no file


def test_pipes_and_sockets_among_the_inputs_are_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    os.mkfifo("pipe.nii.gz")
    os.mkfifo("slice.dcm")
    os.mkfifo("config.yaml")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.nii.gz")
    for name in ("pipe.nii.gz", "socket.nii.gz"):
        with pytest.raises(VolumeError, match="is a pipe, a socket or a device"):
            read_volume(Path(name))
    with pytest.raises(OSError, match="no file"):
        ContentHashes(tmp_path / "hashes").of(Path("pipe.nii.gz"))
    with pytest.raises(ConfigError, match="pipe"):
        load_yaml("config.yaml")
    assert not is_dicom_folder(tmp_path)


# ---------------------------------------------------------------- other versions, and damage


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        train_tiny(folder, steps=STEPS, tracker=StopAt(7))
    return load_state(folder / "checkpoint.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"fit": None}, {"fit": {"step": 7, "strange": 1}}, {"fit": {}, "random": None}, {"step": {}}, {"step": None},
        {"budget": None}, {"budget": {}}, {"random": None},
        {"random": [None]},
    ],
    ids=str,
)  # fmt: skip
def test_a_checkpoint_of_another_version_is_one_line(change, stopped, tmp_path):
    save_state(tmp_path / "checkpoint.pt", {**stopped, **change})
    with pytest.raises(CheckpointError, match="checkpoint") as error:
        train_tiny(tmp_path, steps=STEPS, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"epoch,loss\n1,2\n"])
def test_a_history_of_another_version_is_one_line(content, tmp_path):
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(RunError, match=r"history\.csv is damaged or of another version: move it away"):
        History(tmp_path / "history.csv", step=3)


RECORD = {"runs": [], "settings": {}}
CASE = {"case": "a", "inputs": ["a.nii.gz"], "stamp": "0", "status": "done", "output": "out/a.nii.gz"}


@pytest.mark.parametrize(
    "cases",
    [None, [None], [{}], [{**CASE, "strange": 1}], [{**CASE, "status": "new"}], [{**CASE, "inputs": None}],
     [{**CASE, "output": None}], [{**CASE, "case": ["a"]}], {"a": 1}],
    ids=str,
)  # fmt: skip
def test_a_record_of_another_version_asks_for_another_folder(cases, tmp_path):
    write_json(tmp_path / Record.NAME, {**RECORD, "cases": cases})
    with pytest.raises(PredictionError, match="choose another output folder, or replace them with --overwrite"):
        Record(tmp_path, RECORD)
    assert Record(tmp_path, RECORD, overwrite=True).done == {}
    write_json(tmp_path / Record.NAME, {**RECORD, "cases": [CASE]})
    assert list(Record(tmp_path, RECORD).done) == ["out/a.nii.gz"]


# ---------------------------------------------------------------- names and disks


def test_names_that_are_not_utf8_are_found_written_down_and_printed(tmp_path, capsys, monkeypatch):
    from segmed.config import DataConfig, PatternLayout

    name = os.fsdecode(b"M\xfcller\x1b[2J.nii.gz")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"no volume")
    data = DataConfig(images=("MR",), layout=PatternLayout(images={"MR": "{case}_MR.nii.gz"}))
    (found,) = find_inputs(tmp_path / "in", data)
    write_json(tmp_path / "record.json", {"case": found.case.id})
    assert json.loads((tmp_path / "record.json").read_text())["case"] == found.case.id
    atomic_write_text(tmp_path / "table.csv", found.case.id)

    def fail() -> None:
        read_volume(found.paths[0])

    with pytest.raises(SystemExit) as stop:
        run_tool(fail)
    complaint = capsys.readouterr().err
    assert stop.value.code == 2
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1
    assert "\\udcfc" in complaint
    assert "\x1b" not in complaint


def test_a_disk_that_is_full_while_tensorboard_writes_is_one_line(tmp_path, monkeypatch, capsys):
    from tensorboard.summary.writer import record_writer

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with RunTracker(tmp_path) as tracker:
            monkeypatch.setattr(record_writer.RecordWriter, "write", full)
            for step in range(100):
                tracker.scalars(step, {"loss": 1.0}, minutes=0.0)
                time.sleep(0.01)

    with pytest.raises(DiskError, match=r"no space left for .*tensorboard: free some space"):
        write()
    assert "Traceback" not in capsys.readouterr().err

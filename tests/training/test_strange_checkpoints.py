"""Checkpoints, weights and histories of strangers, of other versions and of full disks end in one line."""

import errno
import signal
import time

import pytest
import torch
from safetensors.torch import save_file
from tiny_data import Stop
from tiny_run import train_tiny
from torch import nn

from segmed.builders.architectures import build_network
from segmed.config import UNetConfig
from segmed.errors import DiskError, RunError
from segmed.training.checkpoint import check_weights, load_state, save_state
from segmed.training.history import History
from segmed.training.interruption import Interrupted
from segmed.training.tracking import RunTracker

STEPS = 10


def test_a_network_larger_than_its_weights_is_refused_before_it_takes_memory(tmp_path):
    shape = {"in_channels": 1, "out_channels": 2, "dims": 3, "device": "meta"}
    vast = build_network(UNetConfig(encoder={"channels": (60000, 60000), "strides": ((1, 1, 1), (2, 2, 2))}), **shape)
    assert sum(tensor.numel() for tensor in vast.state_dict().values()) > 10**11
    save_file({"a": torch.zeros(3)}, tmp_path / "best.safetensors")
    with pytest.raises(RunError, match="holds another network"):
        check_weights(tmp_path / "best.safetensors", vast)
    save_file(nn.Linear(2, 1).state_dict(), tmp_path / "best.safetensors")
    check_weights(tmp_path / "best.safetensors", nn.Linear(2, 1, device="meta"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        train_tiny(folder, steps=STEPS, tracker=Stop(7, signal.SIGTERM))
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
    with pytest.raises(RunError, match="checkpoint") as error:
        train_tiny(tmp_path, steps=STEPS, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"epoch,loss\n1,2\n"])
def test_a_history_of_another_version_is_one_line(content, tmp_path):
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(RunError, match=r"history\.csv is damaged or of another version: move it away"):
        History(tmp_path / "history.csv", step=3)


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

"""Names, expressions and files of strangers: nothing leads out of the folder, nothing is waited for."""

import json
import os
import socket
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.commands.command_line import run_tool
from segmed.config import DataConfig, PatternLayout
from segmed.config.reading import load_yaml
from segmed.data.cases import read_dataset
from segmed.data.content import ContentHashes
from segmed.data.expressions import first_match
from segmed.data.inputs import find_inputs
from segmed.data.repair import fix_geometry
from segmed.errors import ConfigError, DatasetError, VolumeError
from segmed.files import atomic_write_text, write_json
from segmed.volumes import is_dicom_folder, read_volume


def test_a_case_id_that_leads_out_of_the_folder_is_refused(tmp_path):
    for name in ("../../evil", "a\x1b[2J"):
        table = [{"case": name, "image": "ball_00.nii.gz"}]
        (tmp_path / "dataset.json").write_text(
            json.dumps({"dataset": {name: {"images": [table[0]["image"]], "label": "x.nii.gz"}}})
        )
        with pytest.raises(DatasetError, match="give the case a plain name") as error:
            read_dataset(DataConfig(root=tmp_path, layout={"name": "nnunet"}, labels={"a": 1}), complete=False)
        assert "\x1b" not in str(error.value)


def test_fix_geometry_rewrites_nothing_outside_the_audited_folder(tmp_path):
    inside, outside = tmp_path / "set", tmp_path / "else"
    for folder in (inside, outside):
        folder.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), inside / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.diag([2, 2, 2, 1])), outside / "a.nii.gz")
    before = (outside / "a.nii.gz").read_bytes()
    (inside / "link.nii.gz").symlink_to(outside / "a.nii.gz")
    for label in ("../else/a.nii.gz", str(outside / "a.nii.gz"), "link.nii.gz"):
        (inside / "manifest.csv").write_text(f"image,label\na.nii.gz,{label}\n")
        dataset = read_dataset(DataConfig(root=inside, layout={"name": "manifest"}), complete=False)
        with pytest.raises(DatasetError, match="lies outside"):
            fix_geometry(dataset, log=tmp_path / "log.json")
    assert (outside / "a.nii.gz").read_bytes() == before


def test_an_expression_that_backtracks_without_end_is_stopped():
    began = time.monotonic()
    with pytest.raises(
        DatasetError, match=r"data\.subject '\(a\+\)\+\$' takes more than 2 s on 'a+!': .*write it simpler"
    ):
        first_match(r"(a+)+$", "a" * 60 + "!", key="data.subject")
    assert time.monotonic() - began < 4
    assert first_match(r"(s\d+)_", "s12_3", key="x")[1] == "s12"
    with pytest.raises(DatasetError, match="no regular expression"):
        first_match("(", "x", key="data.subject")


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


def test_names_that_are_not_utf8_are_found_written_down_and_printed(tmp_path, capsys):
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

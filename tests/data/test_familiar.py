"""What predict tells apart: label maps from images, strange scans from known ones, what is done from what is not."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.config import DataConfig, PatternLayout
from segmed.data.audit import audit_dataset
from segmed.data.cases import read_dataset
from segmed.data.familiar import familiar_with
from segmed.data.inputs import find_inputs, label_maps
from segmed.data.splits import Split
from segmed.segment.record import CaseReport, Record, place_of
from segmed.volumes import write_volume


def scan(seed=0, *, shape=(20, 18, 8), spacing_mm=(1.5, 1.5, 3.0), shift=0.0):
    voxels = np.random.default_rng(seed).gamma(2.0, 60.0, shape) + shift
    affine = torch.diag(torch.tensor([*spacing_mm, 1.0])).double()
    return MetaTensor(torch.from_numpy(voxels.astype(np.float32))[None], affine=affine)


@pytest.fixture
def run(tmp_path):
    """A run folder with what it knows of its two training images."""
    for n in range(3):
        write_volume(tmp_path / "data" / f"c{n}.nii.gz", scan(n))
    data = DataConfig(root=tmp_path / "data", layout=PatternLayout(images={"MR": "{case}.nii.gz"}), labels={"a": 1})
    folder = tmp_path / "run"
    folder.mkdir()
    audit_dataset(read_dataset(data)).save_json(folder / "audit.json")
    Split(train=("c0",), validation=("c1",), test=("c2",)).save(folder / "split.json")
    return folder


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (scan(9), None),
        (scan(9, shape=(26, 24, 10)), None),
        (scan(9, shape=(90, 80, 60)), "it shows"),
        (scan(9, spacing_mm=(0.3, 0.3, 14.0)), "its voxels"),
        (scan(9, shift=-300), "below 0"),
    ],
)
def test_a_scan_unlike_all_training_scans_is_named_and_one_like_them_is_not(run, image, why):
    said = familiar_with(run).unlike(image)
    assert said is None if why is None else (said.startswith("unlike all 2 training scans") and why in said)


def test_a_run_that_says_nothing_of_its_images_knows_none(tmp_path):
    assert familiar_with(tmp_path) is None


def test_files_that_are_label_maps_by_their_names_are_no_inputs(tmp_path):
    names = ["a", "a_seg", "b_T1", "b_mask", "c_seg", "segment_study", "p/t1", "p/seg", "labelsTr/a", "q/mask"]
    for name in names:
        write_volume(tmp_path / f"{name}.nii.gz", scan())
    files = sorted(tmp_path.rglob("*.gz"))
    left_out = {path.relative_to(tmp_path).as_posix().removesuffix(".nii.gz") for path in label_maps(files, tmp_path)}
    assert left_out == {"a_seg", "b_mask", "p/seg", "labelsTr/a"}
    inputs = find_inputs(tmp_path, DataConfig(images=("MR",)))
    assert len(inputs) == len(names) - len(left_out)


def test_the_output_folder_is_told_by_its_place_not_by_its_text(tmp_path, monkeypatch):
    write_volume(tmp_path / "in" / "a.nii.gz", scan())
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    (only,) = find_inputs(tmp_path.joinpath("out", "..", "in"), DataConfig(images=("MR",)), output=tmp_path / "out")
    assert only.case.id == "a"
    write_volume(tmp_path / "out" / "a.nii.gz", scan())
    (only,) = find_inputs(tmp_path, DataConfig(images=("MR",)), output=tmp_path / "in" / ".." / "out")
    assert only.paths == (tmp_path / "in" / "a.nii.gz",)


def test_what_is_done_is_known_from_another_folder_and_after_the_folder_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_volume(tmp_path / "out" / "x" / "a.nii.gz", scan())
    about = {"runs": [{"run": "/one/run", "sha256": "1"}], "settings": {}}
    record = Record(tmp_path.joinpath("out").relative_to(tmp_path), about)
    record.add(CaseReport("a", ("in/a.nii.gz",), "stamp", "done", output="out/x/a.nii.gz"))
    monkeypatch.chdir(tmp_path / "out")
    assert set(Record(tmp_path / "out", about).done) == {place_of(tmp_path / "out" / "x" / "a.nii.gz")}
    (tmp_path / "out").rename(tmp_path / "moved")
    elsewhere = {"runs": [{"run": "/another/place", "sha256": "1"}], "settings": {}}
    assert set(Record(tmp_path / "moved", elsewhere).done) == {place_of(tmp_path / "moved" / "x" / "a.nii.gz")}

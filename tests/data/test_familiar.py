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


def coloured(seed, *, channels=3):
    """A picture whose three colours differ, or are all the same."""
    colours = [scan(seed + 100 * n).as_tensor() for n in range(channels)] * (3 // channels)
    return MetaTensor(torch.cat(colours), affine=scan().affine)


@pytest.fixture
def colour_run(tmp_path, request):
    """A run folder with what it knows of its training images of so many different channels."""
    root = tmp_path / "data"
    for n, channels in enumerate(request.param):
        for name, channel in zip("rgb", coloured(n, channels=channels), strict=True):
            write_volume(root / f"c{n}_{name}.nii.gz", MetaTensor(channel.as_tensor()[None], affine=scan().affine))
    layout = PatternLayout(images={name: f"{{case}}_{name}.nii.gz" for name in "rgb"})
    dataset = read_dataset(DataConfig(root=root, layout=layout, labels={"a": 1}))
    audit_dataset(dataset).save_json(tmp_path / "audit.json")
    Split(train=("c0", "c1"), validation=(), test=()).save(tmp_path / "split.json")
    return tmp_path


@pytest.mark.parametrize(
    ("colour_run", "channels", "why"),
    [
        ((3, 3), 3, None),
        ((3, 3), 1, "its channels (r, g, b) hold the same values, theirs did not"),
        ((3, 1), 1, None),
        ((1, 1), 1, None),
    ],
    indirect=["colour_run"],
)
def test_a_grey_picture_is_named_where_all_that_was_learnt_from_has_colours(colour_run, channels, why):
    said = familiar_with(colour_run).unlike(coloured(9, channels=channels))
    assert said == (why if why is None else f"unlike all 2 training scans: {why}")


@pytest.mark.parametrize("colour_run", [(3, 3)], indirect=True)
def test_channels_that_a_case_lacks_are_not_the_same_as_others(colour_run):
    lacking = coloured(9)
    lacking[1:] = 0
    assert familiar_with(colour_run).unlike(lacking) is None


@pytest.mark.parametrize(("learnt", "has", "named"), [(True, False, True), (True, True, False), (False, False, False)])
def test_a_case_without_its_field_of_view_is_named_where_training_had_them(run, learnt, has, named):
    said = familiar_with(run, masked=learnt).unlike(scan(9), has)
    what = "unlike all 2 training scans: it has no mask of its field of view, they have"
    assert said == (what if named else None)


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

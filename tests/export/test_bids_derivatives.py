"""BIDS derivatives: what the validator of the standard says of them, and what they refuse to replace."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_bids import make_bids, put_volume
from monai.data import MetaTensor

from segmed.config import BidsLayout, DataConfig, PatternLayout
from segmed.data.inputs import find_inputs
from segmed.errors import SegmenterError
from segmed.export.bids_derivatives import BidsWriter, with_bids_names
from segmed.labels import LabelSet
from segmed.volumes import read_volume

LABELS = LabelSet.from_config({"wall": [200, 1220], "scar": 2221})
DATA = DataConfig(layout=BidsLayout(), images=("T1w", "T2w"))


def predicted(root: Path, output: Path) -> list[Path]:
    inputs = with_bids_names(find_inputs(root, DATA, output=output))
    write = BidsWriter(output, LABELS, inputs)
    for item in inputs:
        volume = read_volume(item.paths[0])
        values = torch.where(volume.as_tensor() > 500, 2221, 200).int()
        write(output / item.output, MetaTensor(values, affine=volume.affine), item)
    return [output / item.output for item in inputs]


def test_names_tables_and_sources_are_those_of_bids(tmp_path):
    output = tmp_path / "raw/derivatives/segmed"
    first, *others = predicted(make_bids(tmp_path / "raw", subjects=("01", "02")), output)
    assert len(others) == 3
    assert first == output / "sub-01/ses-1/anat/sub-01_ses-1_desc-segmed_dseg.nii.gz"
    assert (output / "dseg.tsv").read_text() == "index\tname\n200\twall\n2221\tscar\n"
    about = json.loads((first.parent / "sub-01_ses-1_desc-segmed_dseg.json").read_text())
    stem = "bids:raw:sub-01/ses-1/anat/sub-01_ses-1_"
    assert about["Sources"] == [f"{stem}T1w.nii.gz", f"{stem}T2w.nii.gz"]
    description = json.loads((output / "dataset_description.json").read_text())
    assert (description["DatasetType"], description["DatasetLinks"]) == ("derivative", {"raw": "../.."})
    assert description["GeneratedBy"][0]["Name"] == "segmed"


def test_the_validator_has_nothing_against_them(tmp_path):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.is_file():
        pytest.skip("the BIDS validator is not installed: pip install bids-validator-deno")
    output = tmp_path / "segmed"
    predicted(make_bids(tmp_path / "raw", subjects=("01",), sessions=("1",)), output)
    (output / "prediction.json").write_text("{}")
    command = [str(validator), str(output), "--format", "json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    issues = json.loads(result.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_a_data_set_of_somebody_else_is_not_replaced(tmp_path):
    root = make_bids(tmp_path / "raw")
    before = (root / "dataset_description.json").read_text()
    with pytest.raises(SegmenterError, match="a BIDS data set that segmed did not write: choose another output"):
        predicted(root, root)
    assert (root / "dataset_description.json").read_text() == before


def test_images_with_other_names_or_with_one_label_map_are_refused(tmp_path):
    plain = DataConfig(layout=PatternLayout(), images=("image",))
    strange = find_inputs(put_volume(tmp_path / "a" / "heart.nii.gz"), plain)
    with pytest.raises(SegmenterError, match=r"heart\.nii\.gz is not named as BIDS asks"):
        with_bids_names(strange)
    both = find_inputs(make_bids(tmp_path / "raw", subjects=("01",)), plain)
    with pytest.raises(SegmenterError, match=r"T1w.* and .*T2w.* would both be written as sub-01"):
        with_bids_names(both)

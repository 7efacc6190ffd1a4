"""The phantom of beating hearts: volumes that are proportional to what is ejected, and the files of ACDC."""

import json
import sys

import nibabel as nib
import numpy as np
import pytest

from segmed.commands import make_phantom
from segmed.config import DataConfig
from segmed.data.cases import read_dataset
from segmed.data.cine_phantom import CINE_VALUES, make_cine_phantom
from segmed.data.moving_hearts import Beat, contracted, contraction, draw_moving_heart
from segmed.errors import ConfigError, DatasetError

BEAT = Beat(ejection=0.6, shortening=0.12, systole=0.36, cycle_ms=900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cine")
    make_cine_phantom(folder, cases=1, seed=2, phases=3)
    return folder


def truth(folder):
    return json.loads((folder / "phantom_000" / "truth.json").read_text())


@pytest.mark.parametrize(("time", "amount"), [(0.0, 0.0), (0.18, 0.5), (0.36, 1.0), (0.61, 0.25), (0.85, 0.2), (1, 0)])
def test_a_heart_contracts_to_end_systole_and_relaxes(time, amount):
    assert contraction(BEAT, time) == pytest.approx(amount)


def test_the_cavity_loses_what_is_ejected_and_the_wall_keeps_its_volume():
    heart = draw_moving_heart(np.random.default_rng(0))[0].heart
    smaller, descent_mm = contracted(heart, BEAT, 1.0)
    assert smaller.radius_mm**2 * smaller.length_mm == pytest.approx(0.4 * heart.radius_mm**2 * heart.length_mm)
    assert descent_mm == pytest.approx(0.12 * heart.length_mm)
    assert smaller.wall_mm > heart.wall_mm

    def wall(one):
        inner = 1 - one.apex_wall_mm / one.length_mm
        return ((one.radius_mm + one.wall_mm) ** 2 - inner * one.radius_mm**2) * one.length_mm

    assert wall(smaller) == pytest.approx(wall(heart))
    same, none_mm = contracted(heart, BEAT, 0.0)
    assert (same.radius_mm, same.wall_mm, none_mm) == pytest.approx((heart.radius_mm, heart.wall_mm, 0.0))


def test_true_volumes_are_those_of_the_beat(folder):
    known = truth(folder)
    beat, left = known["beat"], np.array(known["volumes_ml"]["lv_cavity"])
    amounts = np.array([contraction(Beat(**beat), phase / 3) for phase in range(3)])
    assert left / left[0] == pytest.approx(1 - beat["ejection"] * amounts, abs=0.02)  # rendered three planes a slice
    wall = np.array(known["volumes_ml"]["myocardium"])
    assert wall == pytest.approx(wall.mean(), rel=0.03)
    assert known["ef_percent"] == pytest.approx(100 * (1 - left[known["end_systole"]] / left[0]), abs=0.01)
    assert known["labelled_ml"]["lv_cavity"] == pytest.approx(left, rel=0.1)


def test_files_are_called_as_those_of_acdc_and_the_steps_are_in_the_header(folder):
    known = truth(folder)
    data = DataConfig.model_validate(
        {"root": folder, "layout": {"name": "pattern", "images": {"cine": "{subject}/{subject}_frame{case}.nii.gz"},
         "label": "{subject}/{subject}_frame{case}_gt.nii.gz"}, "labels": CINE_VALUES}
    )  # fmt: skip
    assert len(read_dataset(data).cases) == 2
    cine = nib.load(folder / "phantom_000" / "phantom_000_4d.nii.gz")
    assert cine.shape[3] == 3
    assert cine.header.get_xyzt_units() == ("mm", "msec")
    assert cine.header["pixdim"][4] == pytest.approx(known["step_ms"])
    frame = folder / "phantom_000" / f"phantom_000_frame{known['end_systole'] + 1:02d}_gt.nii.gz"
    labels = np.asarray(nib.load(folder / "phantom_000" / "phantom_000_4d_gt.nii.gz").dataobj)
    assert np.array_equal(np.asarray(nib.load(frame).dataobj), labels[..., known["end_systole"]])
    image = np.asarray(cine.dataobj)
    blood, muscle = (image[labels == CINE_VALUES[name]].mean() for name in ("lv_cavity", "myocardium"))
    assert blood > 1.5 * muscle


def test_a_folder_is_complete_or_of_other_settings(folder, tmp_path, monkeypatch):
    before = (folder / "phantom_000" / "truth.json").stat().st_mtime_ns
    make_cine_phantom(folder, cases=1, seed=2, phases=3)
    assert (folder / "phantom_000" / "truth.json").stat().st_mtime_ns == before
    with pytest.raises(DatasetError, match="other settings"):
        make_cine_phantom(folder, cases=1, seed=2, phases=4)
    with pytest.raises(ValueError, match="two or more"):
        make_cine_phantom(tmp_path, phases=1)
    monkeypatch.setattr(sys, "argv", ["phantom", str(tmp_path), "--kind", "cine", "--hard"])
    with pytest.raises(ConfigError, match="of hearts in LGE"):
        make_phantom.main()

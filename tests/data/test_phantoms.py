"""Facts about the phantom: truth, determinism, geometry, and that it takes more than a threshold."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from segmed.cardiac.heart import HeartLabels
from segmed.cardiac.scar import scar_report
from segmed.data.anatomy import LABEL_VALUES, MYOCARDIUM, SCAR, _contours, draw_heart
from segmed.data.drawn_hearts import CLEAR, HARD, draw_anatomy
from segmed.data.phantoms import make_phantom
from segmed.errors import DatasetError
from segmed.volumes import orientation, read_label_volume, read_volume, spacing_mm

CASES = 8
TOOL = Path(__file__).parents[2] / "tools" / "make_phantom.py"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    make_phantom(folder, cases=CASES, seed=3)
    return folder


@pytest.fixture(scope="module")
def isotropic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("isotropic")
    make_phantom(folder, cases=1, seed=6, isotropic=True)
    return folder


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def image(folder, name):
    return read_volume(folder / name / f"{name}_LGE.nii.gz")


def label(folder, name):
    return read_label_volume(folder / name / f"{name}_label.nii.gz")


def truth(folder, name) -> dict:
    return json.loads((folder / name / "truth.json").read_text())


def volume_ml(label_map, value) -> float:
    return float((label_map == value).sum()) * np.prod(spacing_mm(np.asarray(label_map.affine))) / 1000


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- truth


def test_label_volumes_agree_with_the_truth(phantom):
    for value, name in ((value, name) for name, value in LABEL_VALUES.items()):
        measured = np.array([volume_ml(label(phantom, case), value) for case in names(phantom)])
        true = np.array([truth(phantom, case)["volumes_ml"][name] for case in names(phantom)])
        assert measured.sum() == pytest.approx(true.sum(), rel=0.04), name
        if value != SCAR:
            np.testing.assert_allclose(measured, true, rtol=0.08)


def test_volumes_of_an_isotropic_phantom_agree_closely(isotropic):
    label_map, true = label(isotropic, "phantom_000"), truth(isotropic, "phantom_000")["volumes_ml"]
    np.testing.assert_allclose(spacing_mm(np.asarray(label_map.affine)), 1.3, rtol=1e-5)
    for name, value in LABEL_VALUES.items():
        assert volume_ml(label_map, value) == pytest.approx(true[name], rel=0.03)


def test_volumes_are_those_of_hearts(phantom):
    for case in names(phantom):
        volumes = truth(phantom, case)["volumes_ml"]
        assert 50 < volumes["myocardium"] + volumes["scar"] < 220
        assert 40 < volumes["blood_pool"] < 260
        assert 40 < volumes["rv"] < 260
        assert 0 <= volumes["scar"] < 0.5 * volumes["myocardium"]


def test_some_subjects_have_a_scar_and_some_have_none(phantom):
    scarred = [truth(phantom, case)["volumes_ml"]["scar"] > 0 for case in names(phantom)]
    assert any(scarred)
    assert not all(scarred)
    for case, has_scar in zip(names(phantom), scarred, strict=True):
        assert bool(truth(phantom, case)["scars"]) == has_scar


def test_about_a_third_of_subjects_has_no_scar():
    free = [not draw_anatomy(np.random.default_rng([0, index])).heart.scars for index in range(400)]
    assert np.mean(free) == pytest.approx(0.3, abs=0.06)


# ---------------------------------------------------------------- anatomy


def planes(case_label) -> np.ndarray:
    """Short-axis slices of a label map: (slices, rows, columns)."""
    values = case_label.numpy()[0]
    return np.moveaxis(values, int(np.argmax(spacing_mm(np.asarray(case_label.affine)))), 0)


def test_a_scar_takes_its_place_from_the_wall_and_from_nothing_else():
    axis = np.linspace(-70, 70, 120, dtype=np.float32)
    u, v = np.meshgrid(axis, axis, indexing="ij")
    scarred = 0
    for seed in range(6):
        anatomy = draw_anatomy(np.random.default_rng(seed))
        healthy = replace(anatomy, heart=replace(anatomy.heart, scars=()))
        for level in (0.1, 0.4, 0.7, 0.95):
            w = np.full_like(u, level * anatomy.heart.length_mm)
            with_scar, without = (draw_heart(each, u, v, w, np.zeros_like(u)) for each in (anatomy, healthy))
            assert (without[with_scar == SCAR] == MYOCARDIUM).all()
            np.testing.assert_array_equal(with_scar[with_scar != SCAR], without[with_scar != SCAR])
            scarred += (with_scar == SCAR).any()
    assert scarred > 4


def test_a_scar_starts_at_the_blood_pool(phantom):
    touching = []
    for case in names(phantom):
        for plane in planes(label(phantom, case)):
            pieces, count = ndimage.label(plane == SCAR)
            near_blood = ndimage.binary_dilation(plane == 2, iterations=2)
            touching += [
                near_blood[pieces == piece].any() for piece in range(1, count + 1) if (pieces == piece).sum() > 5
            ]
    assert np.mean(touching) > 0.85


def test_the_wall_is_a_ring_that_closes_around_the_blood_pool(phantom):
    closed = 0
    for case in names(phantom):
        stack = planes(label(phantom, case))
        middle = [plane for plane in stack if (plane == 2).sum() > 0.5 * max((p == 2).sum() for p in stack)][1:-1]
        for plane in middle:
            ring = ndimage.binary_fill_holes(np.isin(plane, (MYOCARDIUM, SCAR)))
            assert ring[plane == 2].all()
            closed += 1
    assert closed >= 2 * CASES


def test_the_wall_goes_on_below_the_cavity_and_the_cavity_is_open_at_the_base(phantom):
    for case in names(phantom):
        stack = planes(label(phantom, case))
        wall = [index for index, plane in enumerate(stack) if np.isin(plane, (MYOCARDIUM, SCAR)).sum() > 10]
        sizes = [(stack[index] == 2).sum() for index in (wall[0], wall[-1])]
        widest = max((plane == 2).sum() for plane in stack)
        assert min(sizes) < 0.25 * widest


# ---------------------------------------------------------------- the scan


def test_files_lie_on_one_grid_with_odd_spacing_in_many_orientations(phantom):
    orientations = set()
    for case in names(phantom):
        lge, segmentation = image(phantom, case), label(phantom, case)
        np.testing.assert_allclose(np.asarray(lge.affine), np.asarray(segmentation.affine), atol=1e-5)
        assert lge.shape == segmentation.shape
        in_plane, again, across = sorted(spacing_mm(np.asarray(lge.affine)))
        assert 1.4 <= in_plane <= again <= 1.6
        assert 7 <= across <= 10
        axes = np.asarray(lge.affine)[:3, :3] / spacing_mm(np.asarray(lge.affine))
        assert np.abs(axes).max(axis=0).min() < 0.99  # oblique
        orientations.add(orientation(np.asarray(lge.affine)))
    assert len(orientations) >= 4


def test_intensities_are_those_of_late_enhancement(phantom):
    for case in names(phantom):
        lge, segmentation = image(phantom, case).numpy()[0], label(phantom, case).numpy()[0]
        muscle, blood = np.median(lge[segmentation == 1]), np.median(lge[segmentation == 2])
        assert muscle < 0.65 * blood
        if (segmentation == SCAR).sum() > 300 and not truth(phantom, case)["scars"][0]["obstructed"]:
            assert np.median(lge[segmentation == SCAR]) > 1.2 * muscle
        assert lge.min() >= 0
        assert lge.max() < 32767


def test_no_threshold_finds_the_heart(phantom):
    best = {value: [] for value in (1, 2, 3)}
    for case in names(phantom):
        lge, segmentation = image(phantom, case).numpy()[0], label(phantom, case).numpy()[0]
        levels = np.quantile(lge, np.linspace(0, 1, 21))
        for value, scores in best.items():
            inside = segmentation == value
            bands = [(lge >= low) & (lge <= high) for i, low in enumerate(levels) for high in levels[i + 1 :]]
            scores.append(max(2 * (band & inside).sum() / (band.sum() + inside.sum()) for band in bands))
    assert all(np.mean(scores) < 0.5 for scores in best.values())


def test_slices_are_displaced_by_breathing(phantom):
    jumps = []
    for case in names(phantom):
        segmentation = label(phantom, case)
        centres = [ndimage.center_of_mass(plane == 2) for plane in planes(segmentation) if (plane == 2).sum() > 300]
        jumps.append(np.abs(np.diff(centres, n=2, axis=0)).mean())
    assert np.mean(jumps) > 0.7


# Middles of the segments, counted from the middle of the septum over the anterior wall.
FROM_SEPTUM_DEG = {
    **{first + step: 90 - 60 * step for first in (1, 7) for step in range(6)},
    **{13 + step: 90 - 90 * step for step in range(4)},
}


def segments_of(folder, name):
    label_map = label(folder, name)
    values = label_map.numpy()[0]
    heart = HeartLabels(np.isin(values, (MYOCARDIUM, SCAR)), np.asarray(label_map.affine), values == 2, values == 3)
    return scar_report(heart, values == SCAR).segments


@pytest.mark.parametrize(("kind", "least"), [("phantom", 2), ("isotropic", 1)])
def test_scars_lie_in_the_segments_of_their_angles(request, kind, least):
    """The labels and the header of a file say the same of a heart: its segments are found, and not mirrored."""
    folder = request.getfixturevalue(kind)
    compared = 0
    for case in names(folder):
        segments, true = segments_of(folder, case), truth(folder, case)
        assert segments is not None, case
        if len(true["scars"]) != 1:
            continue
        away = [one.scar_ml * np.exp(1j * np.radians(FROM_SEPTUM_DEG.get(one.number, 0))) for one in segments[:16]]
        expected_rad = true["scars"][0]["angle_rad"] - true["rv_angle_rad"]
        apart_deg = np.degrees(np.angle(np.sum(away) * np.exp(-1j * expected_rad)))
        assert abs(apart_deg) < 20, case
        compared += 1
    assert compared >= least


# ---------------------------------------------------------------- folders


def test_the_same_seed_gives_the_same_bytes_and_a_case_does_not_depend_on_how_many(phantom, tmp_path):
    make_phantom(tmp_path / "p", cases=2, seed=3)
    again, before = files(tmp_path / "p"), files(phantom)
    for name, content in again.items():
        if name != "phantom.json":
            assert before[name] == content, name
    make_phantom(tmp_path / "q", cases=1, seed=4)
    assert files(tmp_path / "q")["phantom_000/phantom_000_LGE.nii.gz"] != before["phantom_000/phantom_000_LGE.nii.gz"]


def test_a_complete_folder_is_left_as_it_is(phantom):
    before = {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
    make_phantom(phantom, cases=CASES, seed=3)
    assert {path: path.stat().st_mtime_ns for path in phantom.rglob("*")} == before


@pytest.mark.parametrize("other", [{"cases": 9}, {"seed": 4}, {"isotropic": True}])
def test_a_folder_of_other_settings_is_refused(phantom, other):
    with pytest.raises(DatasetError, match="holds a phantom of other settings") as caught:
        make_phantom(phantom, **{"cases": CASES, "seed": 3, **other})
    assert "\n" not in str(caught.value)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"other files \(thesis\.txt\)"):
        make_phantom(tmp_path, cases=1, seed=0)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(DatasetError, match="is a file"):
        make_phantom(tmp_path / "thesis.txt", cases=1, seed=0)


def test_a_making_that_was_stopped_is_finished(tmp_path):
    make_phantom(tmp_path / "whole", cases=2, seed=5)
    half = tmp_path / "half"
    (half / "phantom_000").mkdir(parents=True)
    (half / "phantom_000" / "phantom_000_LGE.nii.gz").write_bytes(b"half a fi")
    make_phantom(half, cases=2, seed=5)
    assert files(half) == files(tmp_path / "whole")
    (half / "phantom.json").unlink()
    with pytest.raises(DatasetError, match=r"cases of another phantom \(phantom_001\)"):
        make_phantom(half, cases=1, seed=5)


def run_tool(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(TOOL), run_name="__main__")
    return left.value.code


def test_the_tool_makes_it_and_says_where(tmp_path, monkeypatch, capsys):
    folder = str(tmp_path / "p")
    assert run_tool(monkeypatch, folder, "--cases", "1", "--seed", "2") == 0
    assert "holds 1 cases" in capsys.readouterr().out
    assert names(tmp_path / "p") == ["phantom_000"]
    assert run_tool(monkeypatch, folder, "--cases", "1", "--seed", "7") == 2
    assert "error: " + folder in capsys.readouterr().err


@pytest.fixture(scope="module")
def diseases():
    return [[draw_anatomy(np.random.default_rng([1, n]), disease) for n in range(60)] for disease in (CLEAR, HARD)]


def test_hard_hearts_have_scar_as_bright_as_blood_in_thin_walls_and_more_of_them_none(diseases):
    clear, hard = diseases
    above = [[one.contrast.scar - one.contrast.blood for one in kind] for kind in diseases]
    assert min(above[0]) >= 0.1
    assert -0.08 <= min(above[1]) < 0 < max(above[1]) <= 0.12
    assert max(one.heart.wall_mm for one in hard) <= 10.5
    assert sum(not one.heart.scars for one in hard) > sum(not one.heart.scars for one in clear)


def test_a_wall_is_thinner_where_its_scar_lies_and_nowhere_else(diseases):
    heart = next(one.heart for one in diseases[1] if one.heart.scars and one.heart.scars[0].transmurality > 1)
    scar = heart.scars[0]
    angles = np.array([scar.angle_rad, scar.angle_rad + np.pi], np.float32)
    level = np.full(2, scar.level, np.float32)
    lone = replace(heart, scars=(replace(scar, half_width_rad=0.9),))
    epi, endo = _contours(lone, angles, level)
    epi_before, endo_before = _contours(replace(lone, thinning=0.0), angles, level)
    assert np.array_equal(epi, epi_before)
    assert (epi - endo) / (epi_before - endo_before) == pytest.approx([0.65, 1], abs=0.01)


def test_a_hard_data_set_is_another_than_a_clear_one(tmp_path):
    make_phantom(tmp_path / "hard", cases=1, seed=3, hard=True)
    assert json.loads((tmp_path / "hard" / "phantom.json").read_text())["hard"] is True
    with pytest.raises(DatasetError, match="other settings"):
        make_phantom(tmp_path / "hard", cases=1, seed=3)

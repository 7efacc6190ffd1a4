"""Fine stages of cascaded runs inside the reference's wall: which fold, which voxels, what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from compared_rows import (
    CASES,
    MYOCARDIUM,
    SCAR,
    TWO,
    config_of,
    label_of,
    make_walls,
    rows_of,
    run,
    shifted,
    write_folds_of_maps,
)
from compared_runs import names
from monai.data import MetaTensor
from small_wall import dice, wall
from tiny_data import LAYOUT, make_balls, tiny

from segmed.builders.trained import load_run
from segmed.compare import fine_stage
from segmed.compare.finished_cases import folder_of
from segmed.compare.prepare import prepare_comparison
from segmed.compare.reference_region import ReferenceRegionRow
from segmed.compare.rows import run_rows
from segmed.compose import run as compose_run
from segmed.config.compare import CompareConfig
from segmed.config.reading import validate
from segmed.data.splits import Split
from segmed.errors import RunError
from segmed.labels import LabelSet
from segmed.segmenters.cascade import Cascade
from segmed.segmenters.region import Known
from segmed.segmenters.segmenter import Segmenter, on_grid_of
from segmed.volumes import read_label_volume, read_volume

CASCADE = {
    "coarse": {"labels": {"lv_wall": ["myocardium", "scar"], "pool": ["blood_pool"]}, "views": ["axial"]},
    "fine": {"labels": {"scar": ["scar"]}, "views": ["axial"]},
    "region": ["lv_wall"],
    "rest": "myocardium",
}


class Bright(Segmenter):
    """Scar is what is brighter than 2.5; notes which run it is of, and what it is shown."""

    labels = LabelSet(("scar",), ((SCAR,),))

    def __init__(self, folder, seen):
        self.folder, self.seen = folder, seen

    def probabilities(self, volume):
        self.seen.append((self.folder, volume.as_tensor()[0].numpy()))
        scar = (volume.as_tensor()[0] > 2.5).float()
        return on_grid_of(volume, torch.stack([1 - scar, scar]))


@pytest.fixture
def walls(tmp_path):
    return make_walls(tmp_path)


@pytest.fixture
def seen(monkeypatch):
    """What networks are shown, each with the folder that it is loaded from."""
    shown = []
    monkeypatch.setattr(fine_stage, "load_run", lambda folder: Bright(folder, shown))
    return shown


def write_cascade(walls, name="net", *, labels=None, **changes):
    """A finished cross-validation of cascades that have found shifted walls; returns its folder."""
    folder = write_folds_of_maps(walls / "runs" / name, walls, shifted)
    data = config_of(walls, TWO).data.model_dump(mode="json") | ({"labels": labels} if labels else {})
    for fold in folder.glob("fold_*"):
        (fold / "config.yaml").write_text(json.dumps({"data": data, "cascade": {**CASCADE, **changes}}))
        view = fold / "fine" / "axial"
        (view / "weights").mkdir(parents=True)
        (view / "config.yaml").write_text("{}")
        (view / "weights" / "best.safetensors").write_text("weights")
    return folder


def given(folder):
    return {"given": {"run": str(folder), "region": "reference"}, **TWO}


def map_of(comparison, case, row="given", seed=0):
    path = folder_of(comparison, row) / f"run_{seed}" / "predictions" / f"{case}.nii.gz"
    return read_label_volume(path).as_tensor().numpy()[0]


def test_the_fine_stage_of_the_fold_that_tested_a_case_sees_the_wall_of_the_reference_alone(walls, seen):
    folder = write_cascade(walls)
    comparison = prepare_comparison(config_of(walls, given(folder)))
    found = run_rows(comparison, say=lambda line: None)[0]
    tested = {case: path.parent for path in folder.glob("fold_*/split.json") for case in Split.load(path).test}
    assert len(seen) == CASES
    for number, name in enumerate(names(CASES)):
        scene, scar = wall(seed=number)
        own = [path for path, image in seen if np.array_equal(image, np.where(scene.region, scene.image, 0))]
        assert own == [tested[name] / "fine" / "axial"]
        label, values = label_of(scene, scar), map_of(comparison, name)
        assert np.array_equal(values == SCAR, scene.region & (scene.image > 2.5))
        assert np.array_equal(values == MYOCARDIUM, scene.region & (scene.image <= 2.5))
        assert np.array_equal(np.where(scene.region, 0, values), np.where(scene.region, 0, label))
        assert rows_of(found)[name]["dice"] == pytest.approx(dice(values == SCAR, scar))
        share = 100 * (np.count_nonzero(values == SCAR) - scar.sum()) / scene.region.sum()
        assert rows_of(found)[name]["share_difference_pp"] == pytest.approx(share)
    assert all(np.isnan(row["dice"]) and not row["missed"] for row in rows_of(found, "lv_wall").values())


def test_a_row_beside_it_has_the_runs_own_label_maps(walls, seen):
    folder = write_cascade(walls)
    found = {m.name: m for m in run(walls, {**given(folder), "whole": {"run": str(folder)}})}
    for name in names(CASES):
        assert rows_of(found["given"])[name]["dice"] > rows_of(found["whole"])[name]["dice"] + 0.1
    one, other = found["given"].results[0], found["whole"].results[0]
    assert (one.training_minutes, one.budget, one.training) == (other.training_minutes, other.budget, other.training)
    assert 0 < one.inference_seconds < other.inference_seconds == 0.5  # measured, and as its run's folder says


@pytest.mark.parametrize("roi", ["mask", "crop"])
def test_what_is_found_in_a_margin_beyond_the_wall_does_not_count(walls, seen, roi):
    comparison = prepare_comparison(config_of(walls, given(write_cascade(walls, margin_mm=5.0, roi=roi))))
    run_rows(comparison, say=lambda line: None)
    for number, name in enumerate(names(CASES)):
        scene, _ = wall(seed=number)
        assert np.array_equal(map_of(comparison, name) == SCAR, scene.region & (scene.image > 2.5))
    beyond = [np.count_nonzero(image > 2.5) for _, image in seen]
    within = [np.count_nonzero(map_of(comparison, name) == SCAR) for name in names(CASES)]
    assert sum(beyond) > sum(within)  # the blood pool is as bright, and was shown


def test_a_fine_stage_of_the_whole_ventricle_sees_it_and_decides_within_the_wall(walls, seen):
    folder = write_cascade(walls, region=["lv_wall", "pool"])
    comparison = prepare_comparison(config_of(walls, given(folder)))
    run_rows(comparison, say=lambda line: None)
    for number, name in enumerate(names(CASES)):
        scene, scar = wall(seed=number)
        label = label_of(scene, scar)
        ventricle = scene.region | (label == 2)
        assert any(np.array_equal(image, np.where(ventricle, scene.image, 0)) for _, image in seen)
        expected = np.where(scene.region & (scene.image > 2.5), SCAR, np.where(scene.region, MYOCARDIUM, label))
        assert np.array_equal(map_of(comparison, name), expected)


class BrightAsBlood(Segmenter):
    """What is brighter than 2.5 looks like blood most of all, and like scar before muscle."""

    labels = LabelSet(("myocardium", "blood_pool", "scar"), ((MYOCARDIUM,), (2,), (SCAR,)))

    def probabilities(self, volume):
        bright = volume.as_tensor()[0] > 2.5
        shares = [(0.1, 0.1), (0.1, 0.8), (0.5, 0.05), (0.3, 0.05)]  # background, muscle, blood, scar
        return on_grid_of(volume, torch.stack([torch.where(bright, high, low) for high, low in shares]))


@pytest.mark.parametrize("smallest_ml", [0.0, 1000.0])
def test_pieces_that_come_up_where_blood_is_ruled_out_are_dropped_as_the_stage_drops_them(
    walls, monkeypatch, smallest_ml
):
    monkeypatch.setattr(fine_stage, "load_run", lambda folder: BrightAsBlood())
    labels = {name: [name] for name in BrightAsBlood.labels.names}
    fine = {"labels": labels, "views": ["axial"], "smallest_ml": smallest_ml}
    folder = write_cascade(walls, region=["lv_wall", "pool"], fine=fine, rest=None)
    comparison = prepare_comparison(config_of(walls, given(folder)))
    run_rows(comparison, say=lambda line: None)
    for number, name in enumerate(names(CASES)):
        scene, _ = wall(seed=number)
        bright = scene.region & (scene.image > 2.5)
        assert bright.any()
        assert np.array_equal(map_of(comparison, name) == SCAR, bright & (smallest_ml == 0))


def test_labels_of_a_run_may_come_in_another_order(walls, seen):
    folder = write_cascade(walls, labels={"scar": SCAR, "rv": 3, "blood_pool": 2, "myocardium": MYOCARDIUM})
    comparison = prepare_comparison(config_of(walls, given(folder)))
    run_rows(comparison, say=lambda line: None)
    scene, scar = wall(seed=0)
    expected = np.where(scene.region, MYOCARDIUM, label_of(scene, scar))
    assert np.array_equal(map_of(comparison, "case_0"), np.where(scene.region & (scene.image > 2.5), SCAR, expected))


def test_seeds_are_runs_that_fit_the_pattern_and_keep_their_own_maps(walls, seen):
    for seed in range(2):
        write_cascade(walls, f"net_{seed}")
    comparison = prepare_comparison(config_of(walls, given(walls / "runs" / "net_*")))
    assert len(run_rows(comparison, say=lambda line: None)[0].results) == 2
    assert len(seen) == 2 * CASES
    assert np.array_equal(map_of(comparison, "case_0", seed=0), map_of(comparison, "case_0", seed=1))


# ---------------------------------------------------------------- what is done


@pytest.mark.parametrize("change", ["nothing", "a label map", "weights"])
def test_what_is_done_is_not_done_again(walls, seen, change):
    folder = write_cascade(walls)
    first = run(walls, given(folder))[0]
    seen.clear()
    comparison = prepare_comparison(config_of(walls, given(folder)))
    again = 0
    if change == "a label map":
        (folder_of(comparison, "given") / "run_0" / "predictions" / "case_3.nii.gz").unlink()
        again = 1
    elif change == "weights":
        (folder / "fold_1" / "fine" / "axial" / "weights" / "best.safetensors").write_text("other weights")
        again = len(Split.load(folder / "fold_1" / "split.json").test)
    second = run_rows(comparison, say=lambda line: None)[0]
    assert len(seen) == again
    assert [row["dice"] for row in second.results[0].rows] == pytest.approx(
        [row["dice"] for row in first.results[0].rows], nan_ok=True
    )


def test_a_killed_row_goes_on_where_it_was(walls, seen, monkeypatch):
    folder, whole = write_cascade(walls), ReferenceRegionRow._case
    done = []

    def killed(row, case, *rest):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(case.id)
        return whole(row, case, *rest)

    monkeypatch.setattr(ReferenceRegionRow, "_case", killed)
    with pytest.raises(KeyboardInterrupt):
        run(walls, given(folder))
    monkeypatch.setattr(ReferenceRegionRow, "_case", whole)
    assert sorted(rows_of(run(walls, given(folder))[0])) == names(CASES)
    assert len(seen) == CASES


# ---------------------------------------------------------------- what is refused


def spoil_cascade(folder):
    for fold in folder.glob("fold_*"):
        config = json.loads((fold / "config.yaml").read_text())
        (fold / "config.yaml").write_text(json.dumps({"data": config["data"]}))


def spoil_region(folder):
    for fold in folder.glob("fold_*"):
        config = json.loads((fold / "config.yaml").read_text())
        config["cascade"]["coarse"]["labels"]["lv_wall"].remove("scar")
        (fold / "config.yaml").write_text(json.dumps(config))


def spoil_labels(folder):
    for fold in folder.glob("fold_*"):
        config = json.loads((fold / "config.yaml").read_text())
        config["data"]["labels"]["rv"] = 30
        (fold / "config.yaml").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_cascade, "is no cascade, so it has no fine stage to look in a given region: leave region out"),
        (spoil_region, r"looks in myocardium, the comparison's region is myocardium \+ scar"),
        (spoil_labels, "their values differ: give data.labels as the run has them"),
        (lambda folder: shutil.rmtree(folder / "fold_2" / "fine"), r"lacks .*fold_2/fine/axial.*: bring it back"),
    ],
)
def test_a_run_that_can_not_look_there_is_refused_before_anything_is_run(walls, spoil, said):
    folder = write_cascade(walls)
    spoil(folder)
    with pytest.raises(RunError, match=rf"^row 'given': .*{said}") as error:
        prepare_comparison(config_of(walls, given(folder)))
    assert "\n" not in str(error.value)
    assert not (walls / "out").exists()


# ---------------------------------------------------------------- a trained cascade


def test_a_trained_fine_stage_finds_what_it_finds_in_the_reference(tmp_path):
    balls = make_balls(tmp_path / "balls")
    stages = {
        "coarse": {"labels": {"ball": ["shell", "core"]}, "views": ["axial"]},
        "fine": {"labels": {"core": ["core"]}, "views": ["axial"]},
        "region": ["ball"], "rest": "shell", "learn_from": "reference",
    }  # fmt: skip
    flat = {"patches": {"dims": 2, "size": [8, 8], "foreground": 1.0}, "train": {"epochs": 8, "learning_rate": 0.02}}
    compose_run.run(tiny(balls, tmp_path, cascade=stages, **flat), tmp_path / "run")
    labels = {"shell": 1, "core": 2}
    data = {"root": balls, "layout": LAYOUT, "labels": labels, "regions": {"ball": ["shell", "core"]}}
    rows = {"given": {"run": str(tmp_path / "run"), "region": "reference"}, "otsu": {"method": {"name": "otsu"}}}
    config = validate(
        CompareConfig,
        {"output": tmp_path / "out", "data": data, "split_of": tmp_path / "run", "reference": "otsu", "rows": rows,
         "target": "core", "rest": "shell", "region": "ball", "evaluate": {"bootstrap": 20}},
        where="test",
    )  # fmt: skip
    comparison = prepare_comparison(config)
    run_rows(comparison, say=lambda line: None)
    case = comparison.tested[0]
    label = read_label_volume(balls / f"{case}_label.nii.gz").as_tensor()
    ball = Known(MetaTensor((label > 0).to(torch.uint8), affine=torch.eye(4)), LabelSet(("ball",), ((1,),)))
    network = load_run(tmp_path / "run" / "fine" / "axial", device="cpu")
    whole = Cascade(ball, network, region=["ball"], rest="shell", labels=LabelSet(("shell", "core"), ((1,), (2,))))
    expected = whole(read_volume(balls / f"{case}.nii.gz")).numpy()[0]
    found = map_of(comparison, case)
    assert np.array_equal(found, expected)
    assert np.array_equal(found > 0, label.numpy()[0] > 0)
    assert {1, 2} <= set(np.unique(found))

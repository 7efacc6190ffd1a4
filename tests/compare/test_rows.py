"""Rows of a comparison: run once, on the same cases, blind to the reference's scar; the tool from end to end."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
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
    write,
    write_folds_of_maps,
)
from compared_runs import load_tool, names
from small_wall import dice, wall

from segmed.commands.command_line import run_tool
from segmed.compare import classical_row
from segmed.compare.finished_cases import folder_of
from segmed.compare.prepare import prepare_comparison
from segmed.compare.rows import run_rows
from segmed.data.splits import make_split
from segmed.errors import RunError, SegmenterError
from segmed.metrics.published import zabihollahy2020_dice
from segmed.segmenters.region import TissueMethod
from segmed.volumes import read_label_volume

TREES = {"name": "random_forest", "voxels": 400, "trees": 5}


@pytest.fixture
def walls(tmp_path):
    return make_walls(tmp_path)


# ---------------------------------------------------------------- classical rows


def test_every_case_is_tested_once_and_its_label_map_is_that_of_its_figures(walls):
    config = config_of(walls, TWO)
    comparison = prepare_comparison(config)
    methods = run_rows(comparison, say=lambda line: None)
    assert [method.name for method in methods] == ["otsu", "strm"]
    figures = rows_of(methods[0])
    assert sorted(figures) == names(CASES)
    for number, name in enumerate(names(CASES)):
        scene, scar = wall(seed=number)
        values = (
            read_label_volume(folder_of(comparison, "otsu") / "predictions" / f"{name}.nii.gz").as_tensor().numpy()[0]
        )
        assert np.array_equal(values > 0, label_of(scene, scar) > 0)  # the given wall and what lies beside it
        assert figures[name]["dice"] == pytest.approx(dice(values == SCAR, scar))
        assert figures[name]["dice"] > 0.85
        share = 100 * (np.count_nonzero(values == SCAR) - scar.sum()) / scene.region.sum()
        assert figures[name]["share_difference_pp"] == pytest.approx(share)
        assert figures[name]["share_error_pp"] == pytest.approx(abs(share))
    assert methods[0].inference_seconds > 0
    assert methods[0].training_minutes is None


def test_a_wall_that_was_given_is_not_scored(walls):
    method = run(walls, TWO)[0]
    assert all(np.isnan(row["dice"]) and not row["missed"] for row in rows_of(method, "lv_wall").values())


def test_folds_are_those_of_training_with_the_same_split(walls):
    comparison = prepare_comparison(config_of(walls, TWO))
    strata = dict.fromkeys(comparison.cases, "myocardium+blood_pool+rv+scar")
    for fold, split in enumerate(comparison.splits):
        config = comparison.config.split.model_copy(update={"fold": fold})
        assert split == make_split(comparison.dataset.cases, config, strata=strata)


def test_what_is_done_is_not_done_again(walls, monkeypatch):
    first = run(walls, TWO)
    monkeypatch.setattr(classical_row, "build_method", lambda *given: pytest.fail("built again"))
    second = run(walls, TWO)
    for one, other in zip(first, second, strict=True):
        assert [tuple(map(str, row.values())) for row in one.results[0].rows] == [
            tuple(map(str, row.values())) for row in other.results[0].rows
        ]


@pytest.mark.parametrize("lost", ["cases/case_3.json", "predictions/case_3.nii.gz"])
def test_a_killed_comparison_goes_on_where_it_was(walls, monkeypatch, lost):
    run(walls, TWO)
    (folder_of(prepare_comparison(config_of(walls, TWO)), "strm") / lost).unlink()
    done = []
    whole = classical_row.ClassicalRow._case
    monkeypatch.setattr(
        classical_row.ClassicalRow,
        "_case",
        lambda row, case, *rest: done.append((row.name, case.id)) or whole(row, case, *rest),
    )
    run(walls, TWO)
    assert done == [("strm", "case_3")]


@pytest.mark.parametrize("change", ["options", "image"])
def test_other_options_or_files_are_run_again(walls, monkeypatch, change):
    run(walls, TWO)
    rows = TWO
    if change == "options":
        rows = {"otsu": {"method": {"name": "otsu", "classes": 3}}, "strm": TWO["strm"]}
    else:
        write(walls / "data" / "case_0" / "case_0_LGE.nii.gz", wall(seed=0, noise=0.4)[0].image)
    done = []
    whole = classical_row.ClassicalRow._case
    monkeypatch.setattr(
        classical_row.ClassicalRow,
        "_case",
        lambda row, case, *rest: done.append((row.name, case.id)) or whole(row, case, *rest),
    )
    run(walls, rows)
    expected = (
        {("otsu", name) for name in names(CASES)} if change == "options" else {("otsu", "case_0"), ("strm", "case_0")}
    )
    assert set(done) == expected


def test_a_method_learns_from_the_training_cases_of_its_fold_alone(walls, monkeypatch):
    seen = []
    build = classical_row.build_method
    monkeypatch.setattr(
        classical_row, "build_method",
        lambda config, scenes=None: seen.append([case.id for case in scenes._cases]) or build(config, scenes),
    )  # fmt: skip
    rows = {"trees": {"method": TREES}, "again": {"method": TREES}}
    comparison = prepare_comparison(config_of(walls, rows))
    methods = run_rows(comparison, say=lambda line: None)
    assert seen == [list(split.train) for split in comparison.splits] * 2
    assert all(not set(split.train) & set(split.test) for split in comparison.splits)
    assert methods[0].results[0].training == tuple(frozenset(split.train) for split in comparison.splits)
    assert methods[0].training_minutes > 0
    assert np.mean([row["dice"] for row in rows_of(methods[0]).values()]) > 0.8


class Spy(TissueMethod):
    """Remembers what it was shown."""

    def __init__(self):
        self.scenes = []

    def probability(self, scene):
        self.scenes.append(scene)
        return np.zeros(scene.image.shape, np.float32)


def test_no_method_is_shown_where_the_reference_has_scar(walls, monkeypatch):
    spy = Spy()
    monkeypatch.setattr(classical_row, "build_method", lambda *given: spy)
    run(walls, TWO)
    assert all(set(scene.masks) == {"lv_wall", "blood_pool", "rv"} for scene in spy.scenes)
    assert all(np.array_equal(scene.masks["lv_wall"], scene.region) for scene in spy.scenes)


def test_a_method_that_fails_on_a_case_misses_there_and_says_why(walls):
    scene, _ = wall(seed=2)
    write(walls / "data" / "case_2" / "case_2_LGE.nii.gz", np.full(scene.image.shape, 7, np.float32))
    found = run(walls, TWO)[0]
    row = rows_of(found)["case_2"]
    assert (row["dice"], row["missed"]) == (0, 1)
    assert row["share_difference_pp"] < 0
    assert "otsu has no result in 1 of 6 cases, which count as misses: case_2 (" in found.results[0].remarks[0]
    assert sum(row["missed"] for row in rows_of(found).values()) == 1
    again = run(walls, TWO)[0]
    assert again.results[0].remarks == found.results[0].remarks


def test_slices_in_which_a_method_fails_do_not_cost_the_others(walls):
    scene, scar = wall(seed=2)
    image = scene.image.copy()
    image[..., 1:3] = 7
    write(walls / "data" / "case_2" / "case_2_LGE.nii.gz", image)
    rows = {"slices": {"method": {"name": "otsu"}, "slices": True}, **TWO}
    as_found = {"cleaning": {"candidates": "none"}}
    comparison = prepare_comparison(config_of(walls, rows, **as_found))
    found = run_rows(comparison, say=lambda line: None)[0]
    assert [row["case"] for row in rows_of(found).values() if row["missed"]] == []
    path = folder_of(comparison, "slices") / "predictions" / "case_2.nii.gz"
    values = read_label_volume(path).as_tensor().numpy()[0] == SCAR
    assert not values[..., 1:3].any()
    assert dice(values[..., [0, 3]], scar[..., [0, 3]]) > 0.85
    said = "slices has no result in 2 slices of 1 cases, in which nothing counts as found: case_2 ("
    assert said in found.results[0].remarks[0]
    assert run(walls, rows, **as_found)[0].results[0].remarks == found.results[0].remarks


def test_a_method_that_can_not_learn_names_its_row(walls):
    for name in names(CASES):
        scene, scar = wall(seed=0)
        write(walls / "data" / name / f"{name}_gd.nii.gz", label_of(scene, scar & False))
    with pytest.raises(SegmenterError, match=r"row 'trees': no voxel of scar"):
        run(walls, {"trees": {"method": TREES}, **TWO})


def test_slices_and_cleaning_are_options_of_a_row(walls):
    for number, name in enumerate(names(CASES)):
        scene, _ = wall(seed=number)
        drifting = scene.image + 6 * np.arange(scene.image.shape[2], dtype=np.float32)
        write(walls / "data" / name / f"{name}_LGE.nii.gz", drifting)
    rows = {
        "otsu": TWO["otsu"],
        "slices": {"method": {"name": "otsu"}, "slices": True},
        "clean": {"method": {"name": "otsu"}, "smallest_ml": 1000.0, "fill_obstruction": True, "cavity": "blood_pool"},
        "everywhere": {"method": {"name": "otsu"}, "region": "everywhere"},
    }
    found = {method.name: rows_of(method) for method in run(walls, rows)}
    assert all(found["slices"][name]["dice"] > found["otsu"][name]["dice"] + 0.2 for name in names(CASES))
    assert all(row["missed"] for row in found["clean"].values())
    assert all(np.isnan(row["share_error_pp"]) for row in found["everywhere"].values())
    assert all(0 < row["dice"] < 0.8 for row in found["everywhere"].values())  # blood is as bright


def test_a_phantom_is_compared_with_its_true_volume_too(walls):
    for number, name in enumerate(names(CASES)):
        (walls / "data" / name / "truth.json").write_text(json.dumps({"volumes_ml": {"scar": number}}))
    for number, row in enumerate(rows_of(run(walls, TWO)[0])[name] for name in names(CASES)):
        assert row["true_difference_ml"] == pytest.approx(row["prediction_ml"] - number)
        assert row["true_avd_ml"] == pytest.approx(abs(row["prediction_ml"] - number))


def test_nothing_is_in_ml_where_the_spacing_is_not_known(walls):
    data = config_of(walls, TWO).data.model_copy(update={"spacing_known": False})
    row = rows_of(run(walls, TWO, data=data.model_dump())[0])["case_0"]
    assert np.isnan([row["avd_ml"], row["hd_mm"], row["prediction_ml"]]).all()
    assert row["share_error_pp"] >= 0


# ---------------------------------------------------------------- rows of runs, and walls of runs


def test_label_maps_of_a_run_are_scored_as_they_are(walls):
    cv = write_folds_of_maps(walls / "runs" / "net", walls, shifted)
    found = {m.name: m for m in run(walls, {**TWO, "net": {"run": str(cv)}})}["net"]
    for number, name in enumerate(names(CASES)):
        scene, scar = wall(seed=number)
        label = label_of(scene, scar)
        assert rows_of(found)[name]["dice"] == pytest.approx(dice(shifted(label) == SCAR, scar))
        whole = dice(np.isin(shifted(label), (MYOCARDIUM, SCAR)), scene.region)
        assert rows_of(found, "lv_wall")[name]["dice"] == pytest.approx(whole)
    assert found.training_minutes == 60
    assert found.inference_seconds == 0.5
    assert len(found.results[0].training) == 3


def test_a_method_in_the_walls_of_a_run_finds_nothing_outside_them(walls):
    cv = write_folds_of_maps(walls / "runs" / "net", walls, shifted)
    rows = {**TWO, "in net": {"method": {"name": "otsu"}, "region": str(cv)}}
    comparison = prepare_comparison(config_of(walls, rows))
    found = run_rows(comparison, say=lambda line: None)[2]
    for number, name in enumerate(names(CASES)):
        label = shifted(label_of(*wall(seed=number)))
        values = (
            read_label_volume(folder_of(comparison, "in net") / "predictions" / f"{name}.nii.gz").as_tensor().numpy()[0]
        )
        assert np.array_equal(np.isin(values, (MYOCARDIUM, SCAR)), np.isin(label, (MYOCARDIUM, SCAR)))
    assert any("looks in walls of" in remark for remark in found.results[0].remarks)
    changed = read_label_volume(cv / "fold_0" / "predictions" / f"{comparison.splits[0].test[0]}.nii.gz")
    assert changed.shape[1:] == (44, 44, 4)


def test_seeds_are_runs_that_fit_the_pattern(walls):
    for seed in range(2):
        write_folds_of_maps(walls / "runs" / f"net_{seed}", walls, shifted)
    found = run(walls, {**TWO, "net": {"run": str(walls / "runs" / "net_*")}})[2]
    assert len(found.results) == 2


def test_parts_can_be_those_of_a_run(walls):
    cv = write_folds_of_maps(walls / "runs" / "net", walls, shifted)
    comparison = prepare_comparison(config_of(walls, TWO, split={"folds": 2, "seed": 5}, split_of=cv))
    assert [split.test for split in comparison.splits] == [
        s.test for s in prepare_comparison(config_of(walls, TWO)).splits
    ]


def test_a_run_of_other_cases_is_refused_before_anything_is_run(walls):
    cv = write_folds_of_maps(walls / "runs" / "net", walls, shifted)
    rows = {**TWO, "net": {"run": str(cv)}}
    with pytest.raises(RunError, match=r"row 'net': run .* tested on 6 cases, the comparison has 1; in one alone"):
        prepare_comparison(config_of(walls, rows, each_fold=False))
    assert not (walls / "out").exists()


def test_a_run_that_has_lost_label_maps_says_which(walls):
    cv = write_folds_of_maps(walls / "runs" / "net", walls, shifted)
    next((cv / "fold_1" / "predictions").iterdir()).unlink()
    with pytest.raises(RunError, match="no label maps of 1 cases, case_"):
        prepare_comparison(config_of(walls, {**TWO, "net": {"run": str(cv)}}))


def test_a_run_whose_test_is_not_finished_says_how_to_go_on_or_is_left_out(walls):
    cv = write_folds_of_maps(walls / "runs" / "net", walls, shifted)
    (cv / "test" / "summary.json").unlink()
    rows = {**TWO, "net": {"run": str(cv)}, "in net": {"method": {"name": "otsu"}, "region": str(cv)}}
    with pytest.raises(RunError, match=r"row 'net': run .* has no finished test: go on with .*--resume"):
        prepare_comparison(config_of(walls, rows))
    assert list(prepare_comparison(config_of(walls, rows), skip_missing=True).missing) == ["net", "in net"]


def test_a_run_that_is_not_there_names_its_command_or_is_left_out(walls):
    absent = str(walls / "runs" / "cmpu")
    rows = {**TWO, "CMPU": {"run": absent, "command": "python train"},
            "in CMPU": {"method": {"name": "otsu"}, "region": absent}}  # fmt: skip
    with pytest.raises(RunError, match=r"row 'CMPU': no run fits .*cmpu: make it with `python train`; or leave"):
        prepare_comparison(config_of(walls, rows))
    comparison = prepare_comparison(config_of(walls, rows), skip_missing=True)
    assert list(comparison.missing) == ["CMPU", "in CMPU"]
    assert all("`python train`" in line for line in comparison.missing.values())
    assert [method.name for method in run_rows(comparison, say=lambda line: None)] == ["otsu", "strm"]
    with pytest.raises(RunError, match="row 'CMPU'"):
        prepare_comparison(config_of(walls, rows, reference="CMPU"), skip_missing=True)


# ---------------------------------------------------------------- the published convention


def disc(radius, middle=32.0):
    x, y = np.indices((64, 64)) - middle
    return np.repeat((np.hypot(x, y) < radius)[..., None], 4, axis=2)


def test_the_released_scoring_lifts_a_dice_of_three_quarters_far_above():
    reference, prediction = disc(10), disc(12.6)
    assert dice(prediction, reference) == pytest.approx(0.77, abs=0.02)
    assert zabihollahy2020_dice(prediction, reference) > 0.95
    shift = disc(10, middle=34.3)
    assert dice(shift, reference) == pytest.approx(0.77, abs=0.03)
    assert zabihollahy2020_dice(shift, reference) > dice(shift, reference) + 0.08


def test_the_released_scoring_by_hand():
    reference, prediction = np.zeros((2, 40, 40, 3), bool)
    reference[10:20, 10:20, 0] = True  # 100 pixels, and after three dilations by a cross 100 + 40 + 44 + 48
    prediction[10:20, 10:20, 0] = True  # after one: 140
    prediction[30:35, 30:35, 1] = True  # 25 pixels are removed, and nothing is left to compare: 1
    figure = (2 * 140 / (140 + 232) + 2 * (1600 - 232) / (3200 - 140 - 232)) / 2
    assert zabihollahy2020_dice(prediction, reference) == pytest.approx((figure + 1 + 1) / 3)


def test_slices_of_the_released_scoring_lie_across_the_axis_that_is_named():
    reference, prediction = disc(10), disc(13)
    turned = zabihollahy2020_dice(np.moveaxis(prediction, 2, 0), np.moveaxis(reference, 2, 0), axis=0)
    assert turned == zabihollahy2020_dice(prediction, reference)


# ---------------------------------------------------------------- the tool


@pytest.fixture
def compare(walls, monkeypatch, capsys):
    monkeypatch.chdir(walls)

    def call(rows, *options):
        config = config_of(walls, rows)
        (walls / "compare.yaml").write_text(json.dumps(config.model_dump(mode="json")))
        monkeypatch.setattr(sys, "argv", ["compare.py", "--config", "compare.yaml", *options])
        with pytest.raises(SystemExit) as stop:
            run_tool(load_tool().main)
        printed = capsys.readouterr()
        return SimpleNamespace(code=stop.value.code, out=printed.out, err=printed.err, files=walls / "out")

    return call


def test_the_tool_writes_one_table_and_figures(compare):
    done = compare(TWO)
    assert done.code == 0, done.err
    assert "2 rows on 6 test cases in 3 folds" in done.out
    assert "| otsu " in done.out
    assert "| strm " in done.out
    assert {path.name for path in done.files.iterdir() if path.is_file()} == {
        "overview.md", "overview.csv", "comparison.md", "comparison.csv", "comparison.json", "comparison.png",
        "bland_altman.png", "agreement.csv", "report.html",
    }  # fmt: skip
    head, *lines = (done.files / "overview.csv").read_text().splitlines()
    assert len(lines) == 10  # two rows and three constants, of scar and of the wall, which has no figures
    assert "dice_mean" in head
    assert "share_error_pp_mean" in head
    assert "zabihollahy" not in head


def test_the_published_convention_has_files_and_columns_of_its_own(compare):
    compare(TWO)
    before = (compare(TWO).files / "overview.csv").read_text()
    done = compare(TWO, "--convention", "zabihollahy2020")
    assert done.code == 0, done.err
    assert "convention zabihollahy2020" in done.out
    head = (done.files / "overview_zabihollahy2020.csv").read_text().splitlines()[0].split(",")
    assert "dice_zabihollahy2020_mean" in head
    assert not {"dice_mean", "avd_ml_mean"} & set(head)
    data = json.loads((done.files / "comparison_zabihollahy2020.json").read_text())
    assert {figure["metric"] for figure in data["figures"]} == {"dice_zabihollahy2020"}
    assert (done.files / "overview.csv").read_text() == before


def test_rows_without_a_run_are_refused_or_loudly_left_out(compare):
    rows = {**TWO, "net": {"run": "runs/net", "command": "python train"}}
    refused = compare(rows)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "make it with `python train`" in refused.err
    done = compare(rows, "--skip-missing")
    assert done.code == 0
    assert "LEFT OUT: row 'net'" in done.err
    assert "left out: row 'net'" in (done.files / "comparison.md").read_text().replace("\\", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--methods", "a=b"), "exclude each other"),
        (("--reference", "x"), "--reference x is no row"),
        (("--data-root", "nowhere"), "nowhere is not a folder"),
    ],
)
def test_what_can_not_be_done_is_one_line_and_exit_code_two(compare, options, said):
    done = compare(TWO, *options)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1

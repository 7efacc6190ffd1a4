"""Loose pieces in a comparison: one rule for all rows, never chosen on test cases; walls in which methods learn."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from compared_rows import (
    CASES,
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
from compared_runs import names
from small_wall import dice, wall

from segmed.builders.classical import REST, TISSUE
from segmed.commands.compare_rows import write_rows
from segmed.compare import classical_row, cleaning_choice
from segmed.compare.baselines import constant_rows
from segmed.compare.classical_row import ClassicalRow
from segmed.compare.cleaning_choice import Cleaning, Judged, best_rule, cleaning_of_run
from segmed.compare.finished_cases import folder_of
from segmed.compare.method_inputs import TrainingScenes
from segmed.compare.prepare import prepare_comparison
from segmed.compare.rows import run_rows
from segmed.compare.tested_runs import TestedRun
from segmed.config.compare import CompareConfig
from segmed.config.reading import validate
from segmed.errors import ConfigError
from segmed.runs import Run
from segmed.volumes import read_label_volume

FOREST = {"name": "random_forest", "voxels": 400, "trees": 5}
CUBE_MM = (10.0, 10.0, 10.0)  # a voxel is 1 ml
SPOTS = ((22, 8, 0), (22, 8, 1))  # in the wall, far from its scar, a voxel each: 0.018 ml


@pytest.fixture
def walls(tmp_path):
    return make_walls(tmp_path)


def spotted(walls, cases):
    """Bright voxels in the healthy wall of some cases; the reference has no scar there."""
    for number in cases:
        scene, _ = wall(seed=number)
        image = scene.image.copy()
        for spot in SPOTS:
            assert scene.region[spot]
            image[spot] = 6.0
        write(walls / "data" / f"case_{number}" / f"case_{number}_LGE.nii.gz", image)


def scar_of(comparison, row, case):
    path = folder_of(comparison, row) / "predictions" / f"{case}.nii.gz"
    return read_label_volume(path).as_tensor().numpy()[0] == SCAR


# ---------------------------------------------------------------- the rule


def pieces(*lengths):
    """Rows of voxels of these lengths, none touching another."""
    mask = np.zeros((max(lengths), 2 * len(lengths), 1), bool)
    for number, length in enumerate(lengths):
        mask[:length, 2 * number] = True
    return mask


@pytest.mark.parametrize(
    ("rule", "kept"),
    [(None, [1, 5, 3]), ("largest", [0, 5, 0]), (3.0, [0, 5, 3]), (6.0, [0, 0, 0])],
)
def test_a_rule_drops_what_it_says(rule, kept):
    mask = pieces(1, 5, 3)
    left = mask & ~Cleaning(rule).dropped(mask, CUBE_MM)
    assert left.sum(axis=(0, 2))[::2].tolist() == kept


def judged(tissue, true):
    return Judged(tissue, np.where(true, 1, 0).astype(np.uint8), CUBE_MM)


def test_the_rule_with_the_largest_mean_gain_is_taken_and_none_where_nothing_gains():
    mask = pieces(1, 5, 3)
    two_true = mask.copy()
    two_true[:, 0] = False  # the pieces of 5 and 3 are true
    one_true = two_true.copy()
    one_true[:, 4] = False  # that of 5 alone
    rules = ("largest", 2.0, 6.0)
    assert best_rule(rules, [judged(mask, two_true)] * 2, 1) == 2.0
    assert best_rule(rules, [judged(mask, one_true)] * 2, 1) == "largest"
    assert best_rule(rules, [judged(mask, mask)] * 2, 1) is None
    assert best_rule(rules, [], 1) is None
    assert best_rule(("largest",), [judged(mask, one_true), judged(mask, mask)], 1) is None  # as many lose


# ---------------------------------------------------------------- rows


def test_what_gains_in_training_cases_is_done_to_test_cases_and_stands_in_every_table(walls):
    spotted(walls, range(CASES))
    config = config_of(walls, TWO, cleaning={"candidates": [0.1]})
    comparison = prepare_comparison(config)
    methods = run_rows(comparison, say=lambda line: None)
    text = "pieces below 0.1 ml dropped, on 4 training cases"
    assert methods[0].cleaning == text
    for number, name in enumerate(names(CASES)):
        _, true = wall(seed=number)
        found = scar_of(comparison, "otsu", name)
        assert not any(found[spot] for spot in SPOTS)
        assert rows_of(methods[0])[name]["dice"] == pytest.approx(dice(found, true))
    again = run(walls, TWO, cleaning={"candidates": [0.1]})
    assert again[0].cleaning == text  # of what is done
    write_rows(methods, constant_rows(comparison), config, "standard", [])
    for file in ("overview.csv", "comparison.csv"):
        lines = list(csv.DictReader((walls / "out" / file).open()))
        assert {line["cleaning"] for line in lines if line["method"] == "otsu"} == {text}
    data = json.loads((walls / "out" / "comparison.json").read_text())
    assert [method["cleaning"] for method in data["methods"] if method["name"] == "otsu"] == [text]
    assert text in (walls / "out" / "comparison.md").read_text()
    assert text in (walls / "out" / "report.html").read_text()


def test_nothing_is_done_where_the_config_says_so_or_the_row_has_its_own_rule(walls):
    spotted(walls, range(CASES))
    rows = {**TWO, "own": {"method": {"name": "otsu"}, "smallest_ml": 0.1}}
    comparison = prepare_comparison(config_of(walls, rows, cleaning={"candidates": "none"}))
    methods = run_rows(comparison, say=lambda line: None)
    assert [method.cleaning for method in methods[::2]] == [
        "none, as configured", "pieces below 0.1 ml dropped, as configured",
    ]  # fmt: skip
    assert all(scar_of(comparison, "otsu", name)[spot] for name in names(CASES) for spot in SPOTS)
    assert not any(scar_of(comparison, "own", name)[spot] for name in names(CASES) for spot in SPOTS)


def test_no_test_case_decides(walls, monkeypatch):
    shown = []
    monkeypatch.setattr(classical_row, "best_rule", lambda rules, cases, target: shown.append(cases))
    comparison = prepare_comparison(config_of(walls, TWO, split={"folds": 3, "validation": 0.3}))
    method = run_rows(comparison, say=lambda line: None)[0]
    for split, cases in zip(comparison.splits, shown, strict=False):
        truths = [label_of(*wall(seed=int(id.removeprefix("case_")))) for id in split.validation]
        assert all(np.array_equal(case.reference, truth) for case, truth in zip(cases, truths, strict=True))
        assert not set(split.validation) & set(split.test)
    assert method.cleaning.startswith("none, on ")
    assert "validation case" in method.cleaning


def test_other_candidates_are_another_figure(walls):
    comparison = prepare_comparison(config_of(walls, TWO))
    row = ClassicalRow(comparison, "otsu", comparison.config.rows["otsu"])
    other = replace(comparison, config=config_of(walls, TWO, cleaning={"candidates": "none"}))
    split = comparison.splits[0]
    assert row.settings(split) != replace(row, comparison=other).settings(split)


def test_without_a_spacing_nothing_is_judged_in_ml(walls):
    data = config_of(walls, TWO).data.model_copy(update={"spacing_known": False})
    comparison = prepare_comparison(config_of(walls, TWO, data=data.model_dump()))
    assert ClassicalRow(comparison, "otsu", comparison.config.rows["otsu"])._candidates == ("largest",)


def test_a_rule_that_is_not_known_is_refused(walls):
    given = {**config_of(walls, TWO).model_dump(mode="json"), "cleaning": {"candidates": ["smallest"]}}
    with pytest.raises(ConfigError, match="candidates"):
        validate(CompareConfig, given, where="test")


# ---------------------------------------------------------------- runs


def test_a_run_says_what_its_training_chose_in_each_fold(walls):
    folder = write_folds_of_maps(walls / "runs" / "net", walls, shifted)
    validated = {"reasons": {"inference.largest_component": "validation: the largest piece alone scores better"}}
    for fold, (chosen, plan) in enumerate([(["lv_wall"], validated), (["lv_wall"], validated), ([], {})]):
        part = folder / f"fold_{fold}"
        config = json.loads((part / "config.yaml").read_text())
        (part / "config.yaml").write_text(json.dumps({**config, "inference": {"largest_component": chosen}}))
        (part / "plan.json").write_text(json.dumps(plan))
    expected = "largest piece of lv_wall, on validation (2 of 3 folds); none, as configured (1 of 3 folds)"
    assert cleaning_of_run(TestedRun.open(folder)) == expected
    assert run(walls, {**TWO, "net": {"run": str(folder)}})[2].cleaning == expected


def test_a_run_says_which_pieces_its_config_names_of_each_stage_and_of_the_result(tmp_path):
    stage = {"labels": {"scar": ["scar"]}, "views": ["axial"]}
    pieces = {"largest_component": ["scar"], "smallest_ml": {"scar": 0.3}}
    alone, composed = tmp_path / "alone", tmp_path / "composed"
    for folder, more in (
        (alone, {}),
        (composed, {"cascade": {"region": ["scar"], "coarse": stage, "fine": {**stage, "smallest_ml": 0.1}}}),
    ):
        folder.mkdir()
        (folder / "config.yaml").write_text(json.dumps({"inference": pieces, **more}))
    named = "largest piece of scar, as configured"
    small = "pieces of scar below 0.3 ml dropped, as configured"
    assert cleaning_choice._of_part(Run(alone)) == f"{named}; {small}"
    assert cleaning_choice._of_part(Run(composed)) == (
        "coarse stage: not known; fine stage: not known, pieces below 0.1 ml dropped, as configured; "
        f"result: {named}; result: {small}"
    )


# ---------------------------------------------------------------- walls of training cases


def test_voxel_classifiers_learn_in_the_walls_of_the_run_in_which_they_are_applied(walls, monkeypatch):
    folder = write_folds_of_maps(walls / "runs" / "net", walls, shifted)
    seen = []
    build = classical_row.build_method
    monkeypatch.setattr(
        classical_row, "build_method",
        lambda config, scenes=None: seen.append(scenes) or build(config, scenes),
    )  # fmt: skip
    rows = {**TWO, "in net": {"method": FOREST, "region": str(folder)}, "given": {"method": FOREST}}
    comparison = prepare_comparison(config_of(walls, rows))
    methods = {method.name: method for method in run_rows(comparison, say=lambda line: None)}
    scenes = [one for one in seen if one is not None]
    for split, learned in zip(comparison.splits, scenes[: len(comparison.splits)], strict=True):
        assert [case.id for case in learned._cases] == list(split.train)
        assert not set(split.train) & set(split.test)
        for number, id in enumerate(split.train):
            scene, scar = wall(seed=int(id.removeprefix("case_")))
            region = np.isin(shifted(label_of(scene, scar)), (1, SCAR))
            one = learned[number]
            assert np.array_equal(one.region, region)
            assert np.array_equal(one.masks[TISSUE], scar & region)
            assert np.array_equal(one.masks[REST], region & ~scar)
            assert np.array_equal(one.masks["blood_pool"], shifted(label_of(scene, scar)) == 2)
    assert methods["in net"].learned_in == f"out-of-fold walls of {folder}"
    assert methods["given"].learned_in == "reference walls"
    assert methods["otsu"].learned_in is None


def test_where_no_network_has_left_a_wall_the_row_says_that_it_learned_in_reference_walls(walls):
    folder = write_folds_of_maps(walls / "runs" / "net", walls, shifted)
    first = folder / "fold_0"
    tested = json.loads((first / "split.json").read_text())["test"]
    table = (folder / "test" / "cases.csv").read_text().splitlines()
    own = [table[0], *(line for line in table[1:] if line.split(",")[0] in tested)]
    (first / "test" / "cases.csv").write_text("\n".join(own) + "\n")
    (first / "test" / "summary.json").write_text((folder / "test" / "summary.json").read_text())
    rows = {**TWO, "in net": {"method": FOREST, "region": str(first)}}
    found = run(walls, rows, split_of=first, cleaning={"candidates": ["largest"]})[2]
    assert found.learned_in == "reference walls"
    assert any("in net learned in reference walls" in remark for remark in found.results[0].remarks)
    assert found.cleaning.endswith("on 4 training cases, in reference walls")


def test_a_case_whose_wall_no_network_found_teaches_nothing(walls, tmp_path):
    comparison = prepare_comparison(config_of(walls, TWO))
    write(tmp_path / "empty.nii.gz", np.zeros((44, 44, 4), np.uint8))
    scenes = TrainingScenes(comparison, ("case_0", "case_1"), {"case_0": tmp_path / "empty.nii.gz"})
    assert [case.id for case in scenes._cases] == ["case_1"]

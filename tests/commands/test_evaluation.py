"""From label maps to rows, summaries, tables and files; tools/evaluate.py on folders of files."""

import csv
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.commands.command_line import run_tool
from segmed.commands.evaluate import Arguments
from segmed.config import DataConfig, EvaluateConfig, MsdLayout, PatternLayout
from segmed.data.naming import plain_name
from segmed.data.pairs import pair
from segmed.data.references import find_references
from segmed.errors import DatasetError, VolumeError
from segmed.evaluate.case_rows import absent_case, evaluate_case, ranked_cases, summarise_cases
from segmed.evaluate.results import read_cases, read_result
from segmed.evaluate.scoring import Scoring, load_volumes, pair_folder, score_cases
from segmed.evaluate.structures import Structures, encode_known, parse_structures
from segmed.labels import IGNORE, LabelSet
from segmed.metrics.mask_metrics import METRICS
from segmed.reports.segmentation.files import write_evaluation
from segmed.reports.segmentation.tables import table_text
from segmed.volumes import write_volume

CONFIG = EvaluateConfig(bootstrap=200)
HEART = LabelSet.from_config({"wall": [200, 1220], "pool": 500, "scar": 2221}, regions={"lv": ["wall", "scar"]})
TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate.py"


def heart(shift=0, *, scar=True):
    """Label indices: a block of wall around a pool, with a scar at its side."""
    indices = np.zeros((24, 20, 8), np.uint8)
    indices[4 + shift : 16 + shift, 4:16, 1:7] = 1
    indices[7 + shift : 13 + shift, 7:13, 1:7] = 2
    if scar:
        indices[4 + shift : 7 + shift, 7:13, 2:6] = 3
    return indices


def rows_of(*shifts, spacing_mm=(1.0, 1.0, 2.0), **options):
    return [
        row
        for number, shift in enumerate(shifts)
        for row in evaluate_case(
            heart(shift), heart(), HEART, case=f"case{number}", spacing_mm=spacing_mm, config=CONFIG, **options
        )
    ]


# ---------------------------------------------------------------- rows


def test_a_case_has_a_row_a_label_then_a_row_a_region():
    rows = rows_of(1)
    assert [(row["label"], row["kind"]) for row in rows] == [
        ("wall", "label"), ("pool", "label"), ("scar", "label"), ("lv", "region"),
    ]  # fmt: skip
    assert all(list(row) == ["case", "label", "kind", *METRICS, "missed"] for row in rows)


def test_figures_are_those_of_the_masks_on_the_whole_volume():
    row = next(row for row in rows_of(1) if row["label"] == "pool")
    assert row["dice"] == pytest.approx(5 / 6)
    assert row["hd_mm"] == 1
    assert row["reference_ml"] == pytest.approx(6 * 6 * 6 * 2 / 1000)


def test_a_region_is_the_union_of_its_labels():
    predicted = heart()
    predicted[predicted == 3] = 1  # scar taken for wall: wrong for both, right for their union
    rows = evaluate_case(predicted, heart(), HEART, case="a", spacing_mm=(1, 1, 1), config=CONFIG)
    by_name = {row["label"]: row for row in rows}
    assert by_name["lv"]["dice"] == 1
    assert by_name["scar"]["missed"] == 1


def test_a_missed_label_is_as_far_as_the_diagonal_of_the_whole_image():
    rows = evaluate_case(
        heart(scar=False), heart(), HEART, case="a", spacing_mm=(1.0, 1.0, 2.0), config=CONFIG
    )  # fmt: skip
    assert rows[2]["hd95_mm"] == pytest.approx(math.sqrt(24**2 + 20**2 + 16**2))


def test_what_the_reference_ignores_counts_neither_for_nor_against():
    reference, predicted = heart(), heart()
    reference[:, 4:8] = IGNORE
    predicted[0:3, 4:8] = 3
    rows = evaluate_case(predicted, reference, HEART, case="a", spacing_mm=(1, 1, 1), config=CONFIG)
    assert all(row["dice"] == 1 and row["hd_mm"] == 0 for row in rows)
    assert predicted.max() == 3  # the arrays of the caller are left as they were
    assert reference.max() == IGNORE


def test_memory_order_makes_no_difference():
    mixed = evaluate_case(
        np.asfortranarray(heart(1)), heart(), HEART, case="case0", spacing_mm=(1.0, 1.0, 2.0), config=CONFIG
    )
    assert mixed == rows_of(1)


def test_two_empty_maps_are_perfect():
    empty = np.zeros((5, 6, 7), np.uint8)
    rows = evaluate_case(empty, empty, HEART, case="a", spacing_mm=(1, 1, 1), config=CONFIG)
    assert all(row["dice"] == 1 and row["missed"] == 0 for row in rows)


def test_without_a_known_spacing_no_figure_in_mm_or_ml_is_given():
    for row in rows_of(1, spacing_known=False):
        assert all(row[metric] is None for metric in METRICS if METRICS[metric].needs_spacing)
        assert 0 < row["dice"] < 1


def test_maps_of_different_shapes_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"case a differ in shape: bring"):
        evaluate_case(heart(), heart()[1:], HEART, case="a", spacing_mm=(1, 1, 1), config=CONFIG)


def test_no_prediction_misses_every_structure_even_an_absent_one():
    rows = absent_case(heart(scar=False), HEART, case="a", spacing_mm=(1, 1, 1), config=CONFIG)
    assert all((row["dice"], row["missed"]) == (0, 1) for row in rows)
    assert rows[2]["avd_ml"] is None or math.isnan(rows[2]["avd_ml"])
    unknown = absent_case(heart(), HEART, case="a", spacing_mm=(1, 1, 1), config=CONFIG, spacing_known=False)
    assert unknown[0]["hd_mm"] is None


# ---------------------------------------------------------------- summaries


def test_summary_gives_mean_sd_interval_number_and_misses():
    rows = rows_of(0, 1, 2)
    pool = summarise_cases(rows, CONFIG)["labels"]["pool"]["dice"]
    values = [row["dice"] for row in rows if row["label"] == "pool"]
    assert pool["mean"] == pytest.approx(np.mean(values))
    assert pool["sd"] == pytest.approx(np.std(values, ddof=1))
    assert pool["ci95"] is None  # of three cases
    assert (pool["n"], pool["missed"]) == (3, 0)


def test_the_mean_is_over_labels_not_regions():
    rows = rows_of(1, 2)
    summary = summarise_cases(rows, CONFIG)
    expected = np.mean([row["dice"] for row in rows if row["label"] != "lv"])
    assert summary["mean"]["dice"]["mean"] == pytest.approx(expected)
    assert (summary["mean"]["dice"]["n"], summary["cases"], summary["regions"]) == (2, 2, ["lv"])


def test_a_miss_worsens_every_mean_and_is_counted():
    good = summarise_cases(rows_of(1), CONFIG)["labels"]["scar"]
    missed = evaluate_case(heart(scar=False), heart(), HEART, case="b", spacing_mm=(1, 1, 2), config=CONFIG)
    worse = summarise_cases(rows_of(1) + missed, CONFIG)["labels"]["scar"]
    assert worse["dice"]["mean"] < good["dice"]["mean"]
    assert worse["hd95_mm"]["mean"] > good["hd95_mm"]["mean"]
    assert (worse["hd95_mm"]["missed"], worse["hd95_mm"]["n"]) == (1, 2)


def test_with_skip_a_miss_leaves_the_distances_but_stays_counted():
    skip = EvaluateConfig(missed="skip", bootstrap=50)
    rows = [
        *evaluate_case(heart(1), heart(), HEART, case="a", spacing_mm=(1, 1, 2), config=skip),
        *evaluate_case(heart(scar=False), heart(), HEART, case="b", spacing_mm=(1, 1, 2), config=skip),
    ]
    scar = summarise_cases(rows, skip)["labels"]["scar"]
    assert (scar["hd95_mm"]["n"], scar["hd95_mm"]["missed"], scar["dice"]["n"]) == (1, 1, 2)


def test_intervals_draw_whole_subjects():
    rows = rows_of(*[0] * 9, *[3] * 9)
    by_case = summarise_cases(rows, CONFIG)
    subjects = {f"case{n}": str(n // 3) for n in range(18)}
    by_subject = summarise_cases(rows, CONFIG, subjects=subjects)
    assert (by_subject["cases"], by_subject["subjects"]) == (18, 6)
    narrow, wide = (s["labels"]["pool"]["dice"]["ci95"] for s in (by_case, by_subject))
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_cases_are_ranked_by_their_mean_over_labels():
    assert [case for case, _ in ranked_cases(rows_of(1, 3, 0, 2))] == ["case1", "case3", "case0", "case2"]


def test_no_rows_make_no_summary():
    with pytest.raises(ValueError, match="nothing to summarise"):
        summarise_cases([], CONFIG)


# ---------------------------------------------------------------- table and files


def test_table_is_aligned_and_fits_a_terminal():
    table = table_text(summarise_cases(rows_of(0, 1, 2), CONFIG))
    lines = table.splitlines()
    assert max(map(len, lines)) <= 108
    place = lines[0].index("Dice")
    rows = [line for line in lines if line.startswith(("wall", "pool", "scar", "lv", "mean of labels"))]
    assert len(rows) == 5
    assert all(line[place - 1] == " " and line[place].isdigit() for line in rows)
    assert all(word in lines[0] for word in ("cases", "missed", "HD95 (mm)", "HD (mm)", "AVD (ml)"))
    assert "leaves out what overlaps them: lv" in table


def test_the_tolerance_of_surface_dice_is_stated_where_it_is_shown(tmp_path):
    rows = rows_of(0, 1)
    summary = write_evaluation(
        rows, tmp_path, title="t", config=EvaluateConfig(surface_dice_tolerance_mm=2.5, bootstrap=9)
    )
    assert "within 2.5 mm" in (tmp_path / "summary.md").read_text()
    assert "within 2.5 mm" not in table_text(summary)


def test_figures_of_an_earlier_evaluation_do_not_stay(tmp_path):
    write_evaluation(rows_of(0, 1), tmp_path, title="known", config=CONFIG)
    write_evaluation(rows_of(0, 1, spacing_known=False), tmp_path, title="nominal", config=CONFIG)
    assert not (tmp_path / "bland_altman.png").exists()


def test_table_says_why_there_are_no_distances():
    table = table_text(summarise_cases(rows_of(0, 1, spacing_known=False), CONFIG))
    assert "the true spacing of these files is not known" in table
    assert "(mm)" not in table.splitlines()[0]


def test_table_says_what_a_miss_counts():
    rows = evaluate_case(heart(scar=False), heart(), HEART, case="b", spacing_mm=(1, 1, 2), config=CONFIG)
    table = table_text(summarise_cases(rows, CONFIG))
    assert "counts Dice 0 and the image's diagonal as distance" in table
    assert "±" not in next(line for line in table.splitlines() if line.startswith("wall"))  # one case has no SD


def test_files_hold_what_the_issue_promises(tmp_path):
    rows = rows_of(0, 1, 2)
    write_evaluation(rows, tmp_path / "test", title="three | hearts", config=CONFIG, notes=["one was left out"])
    summary = json.loads((tmp_path / "test" / "summary.json").read_text())
    for name in ("wall", "pool", "scar", "lv"):
        for metric in METRICS:
            assert {"mean", "sd", "ci95", "n", "missed"} <= set(summary["labels"][name][metric])
    assert summary["notes"] == ["one was left out"]
    table = list(csv.DictReader((tmp_path / "test" / "cases.csv").open()))
    assert [(row["case"], row["label"]) for row in table] == [(row["case"], row["label"]) for row in rows]
    assert float(table[5]["dice"]) == pytest.approx(rows[5]["dice"], rel=1e-5)
    text = (tmp_path / "test" / "summary.md").read_text()
    assert "three \\| hearts" in text
    assert "one was left out" in text
    assert (tmp_path / "test" / "box_plots.png").stat().st_size > 1000
    assert (tmp_path / "test" / "bland_altman.png").stat().st_size > 1000


def test_what_is_not_known_is_null_in_json_and_empty_in_csv(tmp_path):
    write_evaluation(rows_of(1, spacing_known=False), tmp_path, title="nominal", config=CONFIG)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["spacing_known"] is False
    assert summary["labels"]["pool"]["hd_mm"] == {
        "mean": None, "sd": None, "ci95": None, "ci95_method": "none below 6", "n": 0, "missed": 0, "median": None,
    }  # fmt: skip
    assert next(csv.DictReader((tmp_path / "cases.csv").open()))["hd_mm"] == ""
    assert not (tmp_path / "bland_altman.png").exists()


# ---------------------------------------------------------------- names and values of structures


def test_names_and_values_of_a_command_line():
    given = parse_structures(["wall=200,1220", "pool=500", "7"], ignore=[9])
    assert given.labels.to_dict() == {
        "labels": {"wall": [200, 1220], "pool": [500], "7": [7]},
        "ignore": [9],
        "regions": {},
        "background": [],
    }
    assert given.shown == ("wall", "pool", "7")


def test_what_holds_another_is_a_region():
    given = parse_structures(["myocardium=200,1220,2221", "scar=2221"])
    values = np.array([0, 200, 1220, 2221], np.int32)
    masks = given.labels.masks(given.labels.encode(values, where="here"))
    assert masks["myocardium"].tolist() == [False, True, True, True]
    assert masks["scar"].tolist() == [False, False, False, True]
    assert "scar" in given.labels.names
    assert "myocardium" in given.labels.regions


def test_nested_and_crossing_names_each_cover_their_values():
    texts = ["whole=1,2,3,4", "core=1,3,4", "enhancing=4", "crossing=2,3"]
    given = parse_structures(texts)
    values = np.arange(5)
    masks = given.labels.masks(given.labels.encode(values, where="here"))
    for text in texts:
        name, numbers = text.split("=")
        assert np.flatnonzero(masks[name]).tolist() == [int(number) for number in numbers.split(",")]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["scar"], "not NAME=VALUE"),
        (["scar=2.5"], "whole numbers"),
        (["scar="], "not NAME=VALUE"),
        (["a=1", "b=1"], "same values"),
        (["a=1", "a=2"], "given twice"),
        (["a=0"], "background"),
        ([], "give --labels"),
    ],
)
def test_labels_that_make_no_sense_are_refused(texts, message):
    with pytest.raises(VolumeError, match=message):
        parse_structures(texts)


def test_values_without_a_label_become_background_and_are_named():
    indices, strange = encode_known(np.array([0, 200, 77, -3]), HEART, where="here")
    assert indices.tolist() == [0, 1, 0, 0]
    assert strange == (-3, 77)


# ---------------------------------------------------------------- pairs


def save(path, indices, *, spacing_mm=(1.0, 1.0, 2.0), origin=(0.0, 0.0, 0.0), values=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = origin
    voxels = torch.from_numpy(HEART.decode(indices).astype(np.int32) if values else indices)
    write_volume(path, MetaTensor(voxels[None], affine=torch.from_numpy(affine)))
    return path


def names(folder, *paths):
    for path in paths:
        save(folder / path, heart())
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("case_1.nii.gz", "case_1.nii.gz"),
        ("case_1.mha", "case_1.nii.gz"),
        ("case_1_0000.nii.gz", "case_1.nii.gz"),
        ("case_1.nii.gz", "case_1_gt.nii.gz"),
        ("case_1_seg.nrrd", "deep/down/case_1_label.nii"),
        ("site/case_1.nii.gz", "case_1.nii.gz"),
        ("case_1.nii.gz", "case_1/annotation.nii.gz"),
        ("case_1/result_of_a_network.nii.gz", "case_1/annotation.nii.gz"),
    ],
)
def test_a_prediction_finds_its_reference_whoever_named_it(tmp_path, prediction, reference):
    names(tmp_path / "references", reference, "another/case_2.nii.gz")
    found, _ = find_references(tmp_path / "references")
    paths = names(tmp_path / "predictions", prediction)
    pairing = pair(paths, found, folder=tmp_path / "predictions")
    (case,) = pairing.predictions
    assert case.startswith(("case_1", "deep/down/case_1"))
    assert len(pairing.missing) == 1
    assert not pairing.unused


def test_files_called_alike_are_told_apart_by_their_folders(tmp_path):
    names(tmp_path / "references", "a/label.nii.gz", "b/label.nii.gz")
    found, _ = find_references(tmp_path / "references")
    paths = names(tmp_path / "predictions", "a/label.nii.gz", "b/label.nii.gz")
    pairing = pair(paths, found, folder=tmp_path / "predictions")
    assert {case: path.parent.name for case, path in pairing.predictions.items()} == {"a/label": "a", "b/label": "b"}


def test_the_name_that_fits_best_wins_and_the_rest_is_unused(tmp_path):
    names(tmp_path / "references", "case_1.nii.gz")
    found, _ = find_references(tmp_path / "references")
    paths = names(tmp_path / "predictions", "case_1.nii.gz", "case_1_seg.nii.gz", "other.nii.gz")
    pairing = pair(paths, found, folder=tmp_path / "predictions")
    assert pairing.predictions["case_1"].name == "case_1.nii.gz"
    assert sorted(path.name for path in pairing.unused) == ["case_1_seg.nii.gz", "other.nii.gz"]


def test_what_predict_keeps_beside_label_maps_is_no_prediction(tmp_path):
    names(tmp_path / "references", "case_1.nii.gz")
    found, _ = find_references(tmp_path / "references")
    kept = ("probabilities/case_1_probabilities.nii.gz", "uncertainty/case_1_uncertainty.nii.gz")
    names(tmp_path / "predictions", "case_1.nii.gz", "probabilities/other.nii.gz", *kept)
    pairing = pair_folder(tmp_path / "predictions", found)
    assert [path.name for path in pairing.unused] == ["other.nii.gz"]
    assert pairing.predictions["case_1"].parent.name == "predictions"


def test_two_predictions_that_fit_equally_well_are_refused(tmp_path):
    names(tmp_path / "references", "case_1.nii.gz")
    found, _ = find_references(tmp_path / "references")
    paths = names(tmp_path / "predictions", "case_1_seg.nii.gz", "case_1_pred.nii.gz")
    with pytest.raises(DatasetError, match=r"both fit the reference 'case_1'"):
        pair(paths, found, folder=tmp_path / "predictions")


def test_a_prediction_that_fits_two_references_is_refused(tmp_path):
    names(tmp_path / "references", "a/case_1.nii.gz", "b/case_1.nii.gz")
    found, _ = find_references(tmp_path / "references")
    paths = names(tmp_path / "predictions", "case_1.nii.gz")
    with pytest.raises(DatasetError, match=r"fits the references 'a/case_1' and 'b/case_1'"):
        pair(paths, found, folder=tmp_path / "predictions")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("case_1_0000", "case_1_0000"),
        ("p_frame01_gt", "p_frame01"),
        ("x-label", "x"),
        ("seg", "seg"),
        ("a_0001_pred", "a_0001"),
        ("label0007", "0007"),
    ],
)
def test_plain_names(name, plain):
    assert plain_name(name) == plain


def test_references_of_a_data_set_know_case_image_and_labels(tmp_path):
    save(tmp_path / "imagesTr" / "heart_1.nii.gz", heart())
    save(tmp_path / "labelsTr" / "heart_1.nii.gz", heart())
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {
                "name": "hearts",
                "modality": {"0": "LGE"},
                "labels": {"0": "background", "1": "wall"},
                "training": [{"image": "./imagesTr/heart_1.nii.gz", "label": "./labelsTr/heart_1.nii.gz"}],
            }
        )
    )
    (reference,), labels = find_references(tmp_path)
    assert reference.label.path == tmp_path / "labelsTr" / "heart_1.nii.gz"
    assert reference.image.path == tmp_path / "imagesTr" / "heart_1.nii.gz"
    assert labels.names == ("wall",)


def test_images_beside_label_maps_are_not_taken_for_references(tmp_path):
    rng = np.random.default_rng(0)
    for case in ("p1", "p2"):
        save(tmp_path / case / f"{case}_LGE.nii.gz", rng.integers(0, 900, (24, 20, 8)).astype(np.int32), values=False)
        save(tmp_path / case / f"{case}_gd.nii.gz", heart())
    data = DataConfig(
        root=Path("elsewhere"),
        layout=PatternLayout(images={"LGE": "{case}/{case}_LGE.nii.gz"}, label="{case}/{case}_gd.nii.gz"),
        labels={"wall": 200},
    )
    for options in ({}, {"data": data}, {"pattern": "{case}/{case}_gd.nii.gz"}):
        references, _ = find_references(tmp_path, **options)
        assert [reference.label.path.name for reference in references] == ["p1_gd.nii.gz", "p2_gd.nii.gz"]
        prediction = tmp_path / "out" / "p2_LGE.nii.gz"
        if "pattern" not in options:
            assert pair([prediction], references, folder=tmp_path / "out").predictions == {"p2": prediction}


def test_a_run_of_another_layout_does_not_hide_a_folder_of_files(tmp_path):
    save(tmp_path / "case_1.nii.gz", heart())
    (reference,), labels = find_references(tmp_path, data=DataConfig(layout=MsdLayout()))
    assert (reference.id, labels) == ("case_1", None)


def test_subjects_are_found_in_the_names_of_cases(tmp_path):
    names(tmp_path, "patient1_frame01.nii.gz", "patient1_frame02.nii.gz")
    references, _ = find_references(tmp_path, subject="patient[0-9]+")
    assert {reference.subject for reference in references} == {"patient1"}
    with pytest.raises(DatasetError, match="not found in case"):
        find_references(tmp_path, subject="volunteer")


# ---------------------------------------------------------------- scoring of files


@pytest.fixture
def drawn_folders(tmp_path):
    """Three references and their predictions, the second of them shifted, the third without scar."""
    for number, (shift, scar) in enumerate([(0, True), (2, True), (0, False)], 1):
        save(tmp_path / "references" / f"case_{number}.nii.gz", heart())
        save(tmp_path / "predictions" / f"case_{number}.nii.gz", heart(shift, scar=scar))
    return tmp_path


@pytest.fixture
def folders(drawn_folders, monkeypatch):
    """The same, for tests that are not about pictures, which take most of the time."""
    for drawing in ("save_figure", "box_plots", "bland_altman", "montage"):
        monkeypatch.setattr(f"segmed.reports.segmentation.files.{drawing}", lambda *args, **options: None)
    return drawn_folders


LABELS = ("--labels", "lv=200,1220,2221", "pool=500", "scar=2221")


def load_tool():
    spec = importlib.util.spec_from_file_location("evaluate_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tool
    spec.loader.exec_module(tool)
    return tool


def evaluate(folder, *options, labels=LABELS):
    """Run the tool within this process; (exit code, summary)."""
    before = sys.argv
    sys.argv = [
        "evaluate.py", "--predictions", str(folder / "predictions"), "--references", str(folder / "references"),
        "--output", str(folder / "out"), *labels, *options,
    ]  # fmt: skip
    try:
        with pytest.raises(SystemExit) as stop:
            run_tool(load_tool().main)
    finally:
        sys.argv = before
    summary = folder / "out" / "summary.json"
    return stop.value.code, json.loads(summary.read_text()) if summary.exists() else None


def test_the_tool_scores_a_folder(drawn_folders, capsys):
    folders = drawn_folders
    code, summary = evaluate(folders)
    assert code == 0
    assert list(summary["labels"]) == ["lv", "pool", "scar"]
    assert summary["labels"]["pool"]["dice"]["mean"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert summary["labels"]["scar"]["dice"]["missed"] == 1
    assert summary["regions"] == ["lv"]
    printed = capsys.readouterr().out
    assert "mean of labels" in printed
    assert str(folders / "out") in printed
    written = {path.name for path in (folders / "out").iterdir()}
    assert written == {
        "cases.csv", "summary.json", "summary.md", "box_plots.png", "bland_altman.png", "montage.png", "report.html",
    }  # fmt: skip


def test_the_number_of_workers_changes_nothing(folders):
    evaluate(folders, "--workers", "1")
    first = (folders / "out" / "cases.csv").read_bytes(), (folders / "out" / "summary.json").read_bytes()
    evaluate(folders, "--workers", "3")
    assert first == ((folders / "out" / "cases.csv").read_bytes(), (folders / "out" / "summary.json").read_bytes())


def test_a_prediction_on_another_grid_costs_its_case_and_the_exit_code(folders, capsys):
    save(folders / "predictions" / "case_2.nii.gz", heart(), spacing_mm=(1.5, 1.0, 2.0))
    code, summary = evaluate(folders)
    assert code == 1
    assert summary["cases"] == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "case_2" in line]
    assert "another grid" in line
    assert "spacing (1.5, 1, 2) against (1, 1, 2)" in line
    assert any("case_2 is left out" in note for note in summary["notes"])


def test_resampling_brings_a_cropped_prediction_home(folders):
    whole = heart(2)
    save(folders / "predictions" / "case_2.nii.gz", whole[3:20, 2:18, 1:7], origin=(3.0, 2.0, 2.0))
    code, summary = evaluate(folders, "--resample")
    assert code == 0
    save(folders / "predictions" / "case_2.nii.gz", whole)
    assert evaluate(folders)[1]["labels"] == summary["labels"]


@pytest.mark.parametrize("damage", ["truncated", "not a volume", "two components", "not whole numbers"])
def test_a_file_that_is_no_label_map_costs_its_case_only(folders, damage, capsys):
    path = folders / "predictions" / "case_2.nii.gz"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "not a volume":
        path.write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    elif damage == "two components":
        write_volume(path, MetaTensor(torch.zeros(2, 24, 20, 8), affine=torch.eye(4, dtype=torch.float64)))
    else:
        write_volume(path, MetaTensor(torch.full((1, 24, 20, 8), 0.5), affine=torch.eye(4, dtype=torch.float64)))
    code, summary = evaluate(folders)
    assert (code, summary["cases"]) == (1, 2)
    assert len([line for line in capsys.readouterr().err.splitlines() if "case_2" in line]) == 1


def test_a_missing_prediction_is_listed_and_counts_as_a_miss(folders, capsys):
    (folders / "predictions" / "case_1.nii.gz").unlink()
    code, summary = evaluate(folders)
    assert code == 0
    assert (summary["cases"], summary["labels"]["pool"]["dice"]["missed"]) == (3, 1)
    assert "1 references have no prediction" in capsys.readouterr().err
    code, summary = evaluate(folders, "--allow-missing")
    assert (summary["cases"], summary["labels"]["pool"]["dice"]["missed"]) == (2, 0)


def test_values_that_only_predictions_have_are_named(folders, capsys):
    save(folders / "predictions" / "case_1.nii.gz", heart(), values=False)  # indices instead of values
    _, summary = evaluate(folders)
    assert "1 (in 1 cases), 2 (in 1 cases), 3 (in 1 cases)" in capsys.readouterr().err
    assert summary["labels"]["pool"]["dice"]["missed"] == 1


def test_a_label_that_no_reference_has_is_named(folders, capsys):
    evaluate(folders, labels=("--labels", "pool=500", "oedema=1221"))
    assert "in no reference: oedema" in capsys.readouterr().err


def test_nothing_in_mm_where_the_spacing_is_nominal(folders):
    _, summary = evaluate(folders, "--spacing-unknown")
    assert summary["labels"]["pool"]["hd95_mm"]["mean"] is None
    assert summary["labels"]["pool"]["dice"]["n"] == 3


def run_folder(folder, **changes):
    """A run's config and split, with the labels of the heart."""
    config = {
        "data": {
            "root": str(folder / "references"),
            "layout": {"name": "pattern", "images": {"LGE": "{case}.nii.gz"}},
            "labels": {"wall": [200, 1220], "pool": 500, "scar": 2221},
            "regions": {"lv": ["wall", "scar"]},
            **changes,
        },
        "evaluate": {"bootstrap": 123, "missed": "skip"},
    }
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    split = {"train": ["case_1"], "validation": [], "test": ["case_2", "case_3"], "seed": 0, "by": "subject"}
    (folder / "run" / "split.json").write_text(json.dumps(split))
    return ("--run", str(folder / "run"))


def test_a_run_gives_labels_regions_policy_and_test_part(folders):
    run = run_folder(folders)
    _, summary = evaluate(folders, *run, labels=())
    assert (list(summary["labels"]), summary["missed"], summary["cases"]) == (["wall", "pool", "scar", "lv"], "skip", 2)
    _, summary = evaluate(folders, *run, "--test-only", "--missed", "diagonal", labels=())
    assert (summary["missed"], summary["cases"]) == ("diagonal", 2)


def test_cases_that_the_run_learned_from_have_a_table_of_their_own(folders, capsys):
    """case_1 trained the run and is perfect, case_2 is shifted: their mean would be (1 + 2/3) / 2 with case_3 apart."""
    _, summary = evaluate(folders, *run_folder(folders), labels=())
    assert summary["labels"]["pool"]["dice"]["mean"] == pytest.approx((2 / 3 + 1) / 2)
    assert summary["scope"] == "Cases that the run never saw"
    assert (summary["learned"]["cases"], summary["learned"]["labels"]["pool"]["dice"]["mean"]) == (1, 1)
    table = csv.DictReader((folders / "out" / "cases.csv").open())
    assert {(row["case"], row["part"]) for row in table} == {
        ("case_1", "train"), ("case_2", "test"), ("case_3", "test"),
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.index("Cases that the run never saw") < printed.index("Cases that trained or selected the run")
    for name in ("summary.md", "report.html"):
        assert "Cases that trained or selected the run: no test" in (folders / "out" / name).read_text()
    rows, _ = read_cases(folders / "out" / "cases.csv")
    assert {row["case"] for row in rows} == {"case_2", "case_3"}


def test_a_table_of_learned_cases_alone_says_so(folders):
    run = run_folder(folders)
    split = {"train": ["case_1", "case_2"], "validation": ["case_3"], "test": [], "seed": 0, "by": "subject"}
    (folders / "run" / "split.json").write_text(json.dumps(split))
    _, summary = evaluate(folders, *run, labels=())
    assert (summary["scope"], summary["cases"]) == ("Cases that trained or selected the run: no test", 3)
    assert "learned" not in summary
    assert "Cases that trained or selected the run: no test" in read_result(folders / "out").remarks


def test_a_run_whose_spacing_is_nominal_gives_no_mm(folders):
    _, summary = evaluate(folders, *run_folder(folders, spacing_known=False), labels=())
    assert summary["spacing_known"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--predictions", "nowhere"), "nowhere is not a folder"),
        (("--references", "nowhere"), "nowhere is not a folder"),
        (("--labels", "scar:2221"), "is not NAME=VALUE"),
        (("--test-only",), "needs --run"),
        (("--run", "nowhere"), "is no run"),
        (("--label", "scar=1"), "--label"),
        (("--reference-pattern", "{case}_nothing.nii.gz"), "_nothing"),
    ],
)
def test_bad_options_give_one_line_and_exit_code_2(folders, options, message, capsys):
    code, summary = evaluate(folders, *options, labels=() if "--labels" in options else LABELS)
    assert (code, summary) == (2, None)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (folders / "out").exists()


def test_an_output_that_is_a_file_or_lies_among_the_predictions(folders, capsys):
    assert evaluate(folders, "--output", str(folders / "predictions" / "scores"))[0] == 0
    assert evaluate(folders, "--output", str(folders / "predictions" / "scores"))[0] == 0
    assert "no reference" not in capsys.readouterr().err
    (folders / "taken").write_text("")
    assert evaluate(folders, "--output", str(folders / "taken"))[0] == 2
    assert "a file is in the way" in capsys.readouterr().err


def test_no_common_name_is_one_line_that_names_both_sides(folders, capsys):
    for path in (folders / "predictions").iterdir():
        path.rename(path.with_name(f"other_{path.name}"))
    assert evaluate(folders)[0] == 2
    line = capsys.readouterr().err
    assert "other_case_1.nii.gz" in line
    assert "case_1, case_2, case_3" in line


def test_help_comes_without_torch_and_documents_every_option():
    script = f"""
import runpy, sys
sys.argv = ["evaluate.py", "--help-all"]
try:
    runpy.run_path({str(TOOL)!r}, run_name="__main__")
finally:
    print({{"torch", "monai", "matplotlib"}} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip().splitlines()[-1] == "set()"
    options = Arguments.model_fields
    assert all(f"--{name.replace('_', '-')} " in result.stdout for name in options)
    assert all(field.description for field in options.values())


def test_volumes_for_figures_are_canonical_on_the_grid_of_the_reference(tmp_path):
    reference = save(tmp_path / "references" / "a.nii.gz", heart(), spacing_mm=(1.0, 1.0, 2.0))
    flipped = np.ascontiguousarray(heart()[::-1])
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = 23.0
    write_volume(
        tmp_path / "b.nii.gz",
        MetaTensor(torch.from_numpy(HEART.decode(flipped).astype(np.int32))[None], affine=torch.from_numpy(affine)),
    )
    (found,), _ = find_references(reference.parent)
    scoring = Scoring(Structures.of(HEART), CONFIG)
    volumes = load_volumes(found, tmp_path / "b.nii.gz", scoring)
    assert np.array_equal(volumes.prediction, heart())
    assert np.array_equal(volumes.reference, heart())
    assert volumes.spacing_mm == (1.0, 1.0, 2.0)


def test_real_label_maps_against_themselves_are_perfect(real_data):
    root = real_data("hippocampus")
    references, labels = find_references(root)
    references = references[:4]
    scores = score_cases(
        references, {r.id: r.label.path for r in references}, Scoring(Structures.of(labels), CONFIG), workers=2
    )
    assert not scores.failed
    assert len(scores.rows) == 8
    assert all(row["dice"] == 1 and row["hd_mm"] == 0 for row in scores.rows)

"""`tools/quantify_scar.py`: hearts whose scar is known, what can't be known, and files that can't be used."""

import csv
import json
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from heart_phantom import Phantom, Sector, make, stored
from monai.data import MetaTensor
from PIL import Image
from scipy import ndimage

from segmed.builders.observed import CaseJudge, Judged
from segmed.cardiac.heart import HeartLabels, HeartPosition
from segmed.cardiac.heart_labels import HeartValues, doubts, heart_of, heart_values
from segmed.cardiac.scar import scar_report
from segmed.config import SegmentationConfig
from segmed.errors import VolumeError
from segmed.labels import LabelSet
from segmed.reports.scar.figures import montage_tiles
from segmed.reports.scar.files import OWN_FILES
from segmed.segmenters.region import Known
from segmed.trust.evidence import CaseEvidence, Evidence, StructureEvidence
from segmed.trust.observer import Observer
from segmed.trust.signs import scan_signs, structure_signs
from segmed.trust.verdict import Judge
from segmed.volumes import read_volume, write_volume

TOOL = Path(__file__).resolve().parents[2] / "tools" / "quantify_scar.py"
VALUES = ("--wall", "1,4", "--scar", "4", "--pool", "2", "--rv", "3")


@dataclass(frozen=True)
class Files:
    """A heart as files, and what it holds."""

    image: Path
    labels: Path
    values: np.ndarray
    affine: np.ndarray

    @property
    def given(self) -> tuple[str, ...]:
        return "--image", str(self.image), "--labels", str(self.labels)

    def ml(self, *values: int) -> float:
        return float(np.isin(self.values, values).sum()) * abs(np.linalg.det(self.affine[:3, :3])) / 1000


@pytest.fixture(scope="module")
def heart() -> Phantom:
    return make((1.5, 1.5, 8.0), sectors=(Sector((215, 265), (0.3, 0.55), (0.0, 0.75)),))


def values_of(phantom: Phantom) -> np.ndarray:
    values = np.zeros(phantom.scar.shape, np.int32)
    for value, mask in ((1, phantom.heart.wall), (2, phantom.heart.pool), (3, phantom.heart.rv), (4, phantom.scar)):
        values[mask] = value
    return values


def enhanced(values: np.ndarray) -> np.ndarray:
    """Nulled muscle, grey blood, bright scar."""
    noise = np.random.default_rng(0).normal(0, 8, values.shape)
    return (np.array([60.0, 80.0, 250.0, 250.0, 500.0])[values] + noise).astype(np.float32)


def put(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    write_volume(path, MetaTensor(torch.from_numpy(np.ascontiguousarray(array))[None], affine=torch.from_numpy(affine)))
    return path


def files(folder: Path, phantom: Phantom, *, name="heart", values=None, image=None) -> Files:
    values = values_of(phantom) if values is None else values
    affine = np.asarray(phantom.heart.affine)
    image = put(folder / "images" / f"{name}.nii.gz", enhanced(values) if image is None else image, affine)
    return Files(image, put(folder / "labels" / f"{name}.nii.gz", values, affine), values, affine)


def run_tool(*arguments) -> int:
    before = sys.argv
    sys.argv = [str(TOOL), *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(TOOL), run_name="__main__")
    finally:
        sys.argv = before
    return left.value.code


def refused(capsys, *arguments) -> str:
    """The one line of a call that can't be done."""
    capsys.readouterr()
    assert run_tool(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def numbers(folder: Path) -> dict:
    return json.loads((folder / "scar.json").read_text())


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def measured(heart, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heart")
    made = files(folder, heart)
    assert run_tool(*made.given, *VALUES, "--output", folder / "report") == 0
    return made, folder / "report"


# ---------------------------------------------------------------- what is written


def test_volumes_are_those_of_the_label_map(measured):
    made, folder = measured
    found = numbers(folder)
    assert found["wall_ml"] == pytest.approx(made.ml(1, 4))
    assert found["scar_ml"] == pytest.approx(made.ml(4))
    assert found["wall_g"] == pytest.approx(1.05 * made.ml(1, 4))
    assert found["scar_percent"] == pytest.approx(100 * made.ml(4) / made.ml(1, 4))
    assert (found["error"], found["unknown"]) == (None, {})


def test_the_core_of_an_even_scar_is_the_scar_and_remote_muscle_is_found(measured):
    made, folder = measured
    found = numbers(folder)
    assert found["core_ml"] == pytest.approx(made.ml(4))
    assert found["grey_zone_ml"] == 0
    assert found["remote"]["mean"] == pytest.approx(80, abs=6)
    assert found["remote"]["sd"] == pytest.approx(8, abs=2)
    assert found["remote"]["found_from"] == "darkest sector"


def test_the_json_says_how_it_was_made(measured):
    made, folder = measured
    found = numbers(folder)
    assert found["label_values"] == {"wall": [1, 4], "scar": [4], "pool": [2], "rv": [3]}
    assert (found["image"], found["labels"]) == (str(made.image), str(made.labels))
    assert found["command"][1:5] == list(made.given)
    assert "segmed" in found["versions"]
    assert found["options"]["density_g_per_ml"] == 1.05


def test_segments_add_up_and_most_of_the_scar_lies_where_it_was_put(measured):
    made, folder = measured
    table = rows(folder / "segments.csv")
    assert [int(row["segment"]) for row in table] == list(range(1, 18))
    assert sum(float(row["wall_ml"]) for row in table) == pytest.approx(made.ml(1, 4), abs=0.01)
    assert sum(float(row["scar_ml"]) for row in table) == pytest.approx(made.ml(4), abs=0.01)
    most = max(table, key=lambda row: float(row["scar_ml"]))
    assert most["name"] == "mid inferolateral"
    assert float(most["transmurality_mean_percent"]) == pytest.approx(75 * 50 / 60, abs=5)  # in 50 of its 60 degrees


def test_the_summary_has_one_row_with_the_numbers_of_the_json(measured):
    _, folder = measured
    (row,) = rows(folder / "summary.csv")
    found = numbers(folder)
    assert row["case"] == "heart"
    for name in ("wall_ml", "scar_g", "scar_percent", "core_ml"):
        assert float(row[name]) == pytest.approx(found[name], abs=1e-4)
    shares = [float(value) for name, value in row.items() if name.startswith("chords_")]
    assert sum(shares) == pytest.approx(100)


def test_the_page_holds_its_pictures_and_the_numbers_and_loads_nothing(measured):
    _, folder = measured
    page, found = (folder / "report.html").read_text(), numbers(folder)
    assert page.count('src="data:image/png;base64,') == 3
    assert not re.search(r'(src|href)="(?!data:)|https?://', page)
    assert f"<strong>{found['scar_g']:.1f}&#160;" in page
    assert "size: A4" in page
    assert "seen from the apex; anterior wall above" in page
    for segment in found["segments"]:
        assert f"<td>{segment['number']} {segment['name']}</td><td>{segment['wall_ml']:.1f}</td>" in page


def test_pictures_can_be_read_and_the_contours_have_their_colours(measured):
    _, folder = measured
    for name in ("bullseye_extent", "bullseye_transmurality", "montage"):
        with Image.open(folder / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        if name == "montage":
            for colour in ((0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00)):
                assert (np.abs(pixels.astype(int) - colour).max(axis=1) < 12).sum() > 50
        assert pixels.std() > 10


# ---------------------------------------------------------------- slices


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_slices_are_seen_from_the_apex_with_the_anterior_wall_above_and_the_septum_left(heart, order, flips):
    turned = stored(heart, order, flips)
    report = scar_report(turned.heart, turned.scar)
    tiles = montage_tiles(turned.heart.rv.astype(np.float32), turned.heart, report)
    basal = tiles.image[1]
    middle = (basal.shape[1] - 1) / 2
    assert ndimage.center_of_mass(basal)[1] < 0.35 * basal.shape[1]
    scarred = tiles.masks["scar"].any(axis=0)  # inferolateral: below, and not on the side of the septum
    row, column = ndimage.center_of_mass(scarred)
    assert row > (basal.shape[0] - 1) / 2
    assert column > middle
    areas = tiles.masks["LV wall"].sum(axis=(1, 2))
    assert areas[0] > areas[-1]
    assert tiles.masks["scar"].sum() == turned.scar.sum()


def test_a_thin_volume_is_shown_in_a_choice_of_slices():
    thin = make((2.0, 2.0, 2.0))
    report = scar_report(thin.heart, thin.scar)
    tiles = montage_tiles(np.zeros(thin.scar.shape, np.float32), thin.heart, report)
    assert len(tiles.image) == 12
    assert "12 of" in tiles.told


def test_labels_that_are_no_short_axis_are_shown_as_they_are_stored():
    """A wall without cavity: nothing tells a centre, so every stored slice with wall is shown, unturned."""
    wall = np.zeros((40, 30, 6), bool)
    wall[10:30, 8:20, 1:5] = True
    solid = HeartLabels(wall, np.diag([1.0, 1.0, 8.0, 1.0]))
    report = scar_report(solid, np.zeros_like(wall))
    assert report.segments is None
    tiles = montage_tiles(np.arange(wall.size, dtype=np.float32).reshape(wall.shape), solid, report)
    assert tiles.titles == ("slice 2", "slice 3", "slice 4", "slice 5")
    assert "no short axis" in tiles.told
    assert tiles.masks["LV wall"].sum() == wall.sum()
    assert tiles.image[0, 0, 0] < tiles.image[0, 0, 1] < tiles.image[0, 1, 0]


def test_one_slice_is_one_tile_whose_level_is_the_given_one(heart):
    part = [mask[..., 5:6] for mask in (heart.heart.wall, heart.heart.pool, heart.heart.rv, heart.scar)]
    alone = HeartLabels(part[0], heart.heart.affine, part[1], part[2])
    for level, title in ((None, "slice 1"), ("mid", "slice 1, mid")):
        position = HeartPosition(level=level)
        report = scar_report(alone, part[3], position=position)
        tiles = montage_tiles(part[0].astype(np.float32), alone, report, position=position)
        assert tiles.titles == (title,)
        assert tiles.masks["scar"].sum() == part[3].sum()
        assert (report.segments is None) == (level is None)


# ---------------------------------------------------------------- what can't be known


def test_without_an_rv_there_are_volumes_and_no_segments_and_no_files_of_an_earlier_call(measured, tmp_path, capsys):
    made, _ = measured
    (tmp_path / "segments.csv").write_text("of an earlier call")
    (tmp_path / "bullseye_extent.png").write_bytes(b"")
    assert run_tool(*made.given, *VALUES[:6], "--output", tmp_path) == 0
    found = numbers(tmp_path)
    assert found["segments"] is None
    assert "RV is not labelled" in found["unknown"]["segments"]
    assert found["scar_ml"] == pytest.approx(made.ml(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "montage.png",
        "report.html",
        "scar.json",
        "summary.csv",
    ]
    assert "RV is not labelled" in (tmp_path / "report.html").read_text()
    assert "RV is not labelled" in rows(tmp_path / "summary.csv")[0]["unknown"]
    assert "not known: segments" in capsys.readouterr().out


def test_given_insertions_stand_for_the_rv(measured, heart, tmp_path):
    made, folder = measured
    frame = np.asarray(heart.heart.affine)[:3, :3] / np.array(heart.heart.spacing_mm)
    centre = np.argwhere(heart.heart.pool).mean(axis=0)
    middle = np.asarray(heart.heart.affine) @ [*centre, 1]
    points = {}
    for name, angle_deg in (("--anterior-mm", 30), ("--inferior-mm", 150)):
        away = frame[:, 0] * np.cos(np.radians(angle_deg)) + frame[:, 1] * np.sin(np.radians(angle_deg))
        points[name] = middle[:3] + 30 * away
    extra = [text for name, point in points.items() for text in (name, *(f"{value:.3f}" for value in point))]
    assert run_tool(*made.given, *VALUES[:6], *extra, "--segments", 16, "--output", tmp_path) == 0
    found, with_rv = numbers(tmp_path), numbers(folder)
    assert found["septum_from"] == "points"
    assert len(found["segments"]) == 16
    for one, other in zip(found["segments"][:12], with_rv["segments"], strict=False):
        assert one["scar_ml"] == pytest.approx(other["scar_ml"], abs=0.3)


def test_intensities_without_remote_muscle_give_no_core(heart, tmp_path):
    values = values_of(heart)
    made = files(tmp_path, heart, values=values, image=np.full(values.shape, 100, np.float32))
    assert run_tool(*made.given, *VALUES, "--output", tmp_path / "r") == 0
    found = numbers(tmp_path / "r")
    assert (found["core_ml"], found["remote"]) == (None, None)
    assert "no remote region" in found["unknown"]["core"]
    assert found["scar_ml"] == pytest.approx(made.ml(4))


# ---------------------------------------------------------------- what can't be used


def test_values_are_never_guessed(measured, tmp_path, capsys):
    made, _ = measured
    assert "give --wall and --scar" in refused(capsys, *made.given, "--output", tmp_path)
    assert "give --wall and --scar" in numbers(tmp_path)["error"]
    assert "give --labels FILE" in refused(capsys, "--image", made.image, "--output", tmp_path)


def test_an_error_leaves_nothing_of_an_earlier_report(measured, tmp_path, capsys):
    made, _ = measured
    for name in OWN_FILES:
        (tmp_path / name).write_text("of an earlier call")
    line = refused(capsys, *made.given, "--wall", "7,8", "--scar", "8", "--output", tmp_path)
    assert "none of the wall's values 7, 8; there are 0, 1, 2, 3, 4" in line
    assert [path.name for path in tmp_path.iterdir()] == ["scar.json"]
    assert numbers(tmp_path)["error"] in line


def test_most_of_a_scar_outside_the_wall_is_refused(heart, tmp_path, capsys):
    values = values_of(heart)
    values[values == 4] = 1
    values[2:9, 2:9, 4:6] = 4
    made = files(tmp_path, heart, values=values)
    assert "100 % of the scar lies outside" in refused(capsys, *made.given, *VALUES, "--output", tmp_path / "r")


def test_a_label_map_on_another_grid_is_refused(measured, tmp_path, capsys):
    made, _ = measured
    moved = made.affine.copy()
    moved[0, 3] += 3
    labels = put(tmp_path / "moved.nii.gz", made.values, moved)
    line = refused(capsys, "--image", made.image, "--labels", labels, *VALUES, "--output", tmp_path / "r")
    assert "another grid" in line
    assert "3 mm apart" in line


def test_a_picture_without_spacing_is_refused(measured, tmp_path, capsys):
    made, _ = measured
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    line = refused(capsys, "--image", tmp_path / "a.png", "--labels", made.labels, *VALUES, "--output", tmp_path / "r")
    assert "without spacing" in line


@pytest.mark.parametrize(
    ("wall", "scar", "pool", "message"),
    [
        ("200,1220", "2221", None, "--wall 200,1220,2221"),
        ("1,4", "4", "1", "stands for wall and pool"),
        ("1,four", "4", None, "is no whole number"),
        ("0,4", "4", None, "0 is background"),
        (None, "4", None, "of the wall are missing"),
    ],
)
def test_values_that_cannot_be_are_refused(wall, scar, pool, message):
    with pytest.raises(VolumeError, match=re.escape(message)) as caught:
        heart_values(wall, scar, pool, None)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- label values


def test_a_run_names_its_labels():
    labels = LabelSet.from_config({"myocardium": (200, 1220), "blood_pool": 500, "rv": 600, "scar": 2221})
    assert heart_values(None, None, None, None, labels=labels) == HeartValues(
        (200, 1220, 2221), (2221,), (500,), (600,)
    )
    assert heart_values("blood_pool,scar", "scar", "rv", "7", labels=labels).wall == (500, 2221)
    strange = LabelSet.from_config({"muscle": 1, "scar": 4})
    with pytest.raises(VolumeError, match="give --wall of muscle, scar"):
        heart_values(None, None, None, None, labels=strange)
    assert heart_values("muscle,scar", None, None, None, labels=strange).wall == (1, 4)


def test_scar_that_touches_no_muscle_is_no_wall(heart):
    values = values_of(heart)
    values[2:5, 2:5, 4] = 4
    found, scar = heart_of(values, np.asarray(heart.heart.affine), HeartValues((1, 4), (4,), (2,)))
    assert scar.sum() == heart.scar.sum() + 9
    np.testing.assert_array_equal(found.wall, heart.heart.wall)


def obstructed(heart: Phantom) -> np.ndarray:
    values = values_of(heart)
    inner = np.stack([ndimage.binary_erosion(plane) for plane in np.moveaxis(heart.scar, 2, 0)], axis=2)
    values[inner] = 1
    return values


@pytest.mark.parametrize("bright", [False, True])
def test_obstruction_as_bright_as_the_scar_is_doubted(heart, bright):
    values = obstructed(heart)
    labels = HeartLabels(np.isin(values, (1, 4)), heart.heart.affine, values == 2, values == 3)
    report = scar_report(labels, values == 4)
    assert report.obstruction_ml > 0
    image = np.where(report.maps.obstruction, 600.0 if bright else 50.0, 500.0)
    assert any("a gap in the label map" in line for line in doubts(report, image)) == bright


# ---------------------------------------------------------------- several cases, and runs


def test_a_bad_case_is_reported_and_the_others_are_measured(heart, tmp_path, capsys):
    made = files(tmp_path, heart, name="good")
    files(tmp_path, heart, name="nothing", values=np.zeros_like(made.values))
    (tmp_path / "labels" / "broken.nii.gz").write_bytes(b"no volume")
    folders = ("--image", tmp_path / "images", "--labels", tmp_path / "labels")
    assert run_tool(*folders, *VALUES, "--output", tmp_path / "r") == 1
    table = {row["case"]: row for row in rows(tmp_path / "r" / "summary.csv")}
    assert set(table) == {"good", "nothing", "broken"}
    assert float(table["good"]["scar_ml"]) == pytest.approx(made.ml(4), abs=1e-4)
    assert table["good"]["error"] == table["nothing"]["scar_ml"] == ""
    assert "no LV myocardium" in table["nothing"]["error"]
    assert "no image belongs" in numbers(tmp_path / "r" / "broken")["error"]
    assert (tmp_path / "r" / "good" / "report.html").is_file()
    assert "2 of 3 cases can't be measured" in capsys.readouterr().err
    assert "is a point of one case" in refused(
        capsys, *folders, *VALUES, "--apex-mm", 0, 0, 0, "--output", tmp_path / "p"
    )


def test_folders_without_any_good_case_end_with_2(heart, tmp_path, capsys):
    files(tmp_path, heart, name="nothing", values=np.zeros(heart.scar.shape, np.int32))
    folders = ("--image", tmp_path / "images", "--labels", tmp_path / "labels")
    assert "none of 1 cases" in refused(capsys, *folders, *VALUES, "--output", tmp_path / "r")
    assert "none of 1 cases" in numbers(tmp_path / "r")["error"]
    assert "no LV myocardium" in rows(tmp_path / "r" / "summary.csv")[0]["error"]


def test_a_run_segments_the_image_and_counts_obstruction_when_asked(heart, tmp_path, monkeypatch):
    values = obstructed(heart)
    made = files(tmp_path, heart, values=values)
    names = {"myocardium": 1, "blood_pool": 2, "rv": 3, "scar": 4}
    config = SegmentationConfig.model_validate(
        {"data": {"layout": {"name": "pattern", "images": {"LGE": "{case}.nii.gz"}}, "labels": names,
                  "images": ("LGE",)}}
    )  # fmt: skip
    known = Known(
        MetaTensor(torch.from_numpy(values.astype(np.uint8))[None], affine=torch.from_numpy(made.affine)),
        LabelSet.from_config(names),
    )
    monkeypatch.setattr("segmed.builders.trained.load_run_config", lambda folder: config)
    monkeypatch.setattr("segmed.builders.ensembles.members_of", lambda folder: ())
    monkeypatch.setattr("segmed.builders.observed.load_judged", lambda *_, **__: Judged(known))
    output = tmp_path / "r"
    assert run_tool("--run", tmp_path, "--image", made.image, "--count-obstruction", "--output", output) == 0
    found = numbers(output)
    assert found["obstruction_counted"]
    assert found["obstruction_ml"] > 0
    assert found["scar_ml"] == pytest.approx(made.ml(4) + found["obstruction_ml"])
    assert found["label_values"]["wall"] == [1, 4]
    assert (output / "labels.nii.gz").is_file()


def scar_evidence(image, values, labels: LabelSet, affine) -> Evidence:
    """Twelve hearts like this one, whose true volumes lie up to 10 % above or below the counted ones."""
    hot = np.stack([values == index for index in range(labels.classes)]).astype(np.float32)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0))
    unit = float(np.prod(spacing)) / 1000
    signs = structure_signs(hot, values.astype(np.uint8), image[None], labels, spacing_mm=spacing, voxel_ml=unit)
    scan = scan_signs(MetaTensor(torch.from_numpy(image[None]), affine=torch.from_numpy(affine)))
    cases = []
    for number, change in enumerate(np.linspace(-0.1, 0.1, 12)):
        # scar alone is wrong: the wall keeps its volume, so that the extent is wrong by as much
        volumes = {name: each["volume"] * (1 + change * (name == "scar")) for name, each in signs.items()}
        volumes["myocardium"] -= volumes["scar"] - signs["scar"]["volume"]
        structures = {
            name: StructureEvidence(signs=each, volume=volumes[name], dice=0.9) for name, each in signs.items()
        }
        cases.append(CaseEvidence(subject=number, member=0, scan=scan, structures=structures))
    return Evidence(
        predictor="whole", weights=("w",), settings={}, drawn_from="made", images=("LGE",), volume_unit="ml",
        failure_dice=0.7, cases=tuple(cases),
    )  # fmt: skip


def test_a_calibrated_run_gives_the_scar_intervals(heart, tmp_path, monkeypatch):
    values = values_of(heart)
    made = files(tmp_path, heart, values=values)
    names, regions = {"myocardium": 1, "blood_pool": 2, "rv": 3, "scar": 4}, {"lv_wall": ["myocardium", "scar"]}
    config = SegmentationConfig.model_validate(
        {"data": {"layout": {"name": "pattern", "images": {"LGE": "{case}.nii.gz"}}, "labels": names,
                  "regions": regions, "images": ("LGE",)}}
    )  # fmt: skip
    labels = LabelSet.from_config(names, regions=regions)
    known = Known(
        MetaTensor(torch.from_numpy(values.astype(np.uint8))[None], affine=torch.from_numpy(made.affine)), labels
    )
    image = read_volume(made.image).numpy()[0]
    observer = Observer("whole", clean=lambda segmenter: segmenter)
    judge = CaseJudge(observer, Judge(scar_evidence(image, values, labels, made.affine)))
    judged = Judged(observer.watch(known), judge)
    monkeypatch.setattr("segmed.builders.trained.load_run_config", lambda folder: config)
    monkeypatch.setattr("segmed.builders.ensembles.members_of", lambda folder: ())
    monkeypatch.setattr("segmed.builders.observed.load_judged", lambda *_, **__: judged)
    output = tmp_path / "r"
    assert run_tool("--run", tmp_path, "--image", made.image, "--output", output) == 0
    numbers_of = numbers(output)
    intervals, (row,) = numbers_of["intervals"], rows(output / "summary.csv")
    assert (intervals["level"], intervals["flag"]) == (0.9, "good")
    for name in ("scar_ml", "scar_g", "scar_percent", "wall_ml", "wall_g"):
        own, value = intervals[name], numbers_of[name]
        assert own["low"] <= value * (1 + 1e-6), name
        assert own["high"] >= value * (1 - 1e-6), name
        assert float(row[f"{name}_low"]) == pytest.approx(own["low"], abs=1e-3)
    for name in ("scar_ml", "scar_g", "scar_percent"):  # errors of 10 %, 1 % more as the fits leave out
        assert intervals[name]["high"] / numbers_of[name] == pytest.approx(1.1, abs=0.035)
    assert intervals["wall_ml"]["high"] / numbers_of["wall_ml"] == pytest.approx(1, abs=1e-3)
    page = (output / "report.html").read_text()
    assert "90 % intervals: scar " in page
    assert f'<span class="flag good">good</span> {intervals["reason"]}.' in page


# ---------------------------------------------------------------- real data


def test_a_real_heart_with_little_scar(real_data, tmp_path):
    case = real_data("myops_lge") / "Case3010"
    given = ("--image", case / "Case3010_LGE.nii.gz", "--labels", case / "Case3010_gd.nii.gz")
    values = ("--wall", "200,1220,2221", "--scar", "2221", "--pool", "500", "--rv", "600")
    assert run_tool(*given, *values, "--output", tmp_path) == 0
    found = numbers(tmp_path)
    assert found["scar_ml"] == pytest.approx(3.311, abs=0.01)
    assert found["scar_percent"] == pytest.approx(3.03, abs=0.01)
    scarred = [one["number"] for one in found["segments"] if one["scar_percent"] and one["scar_percent"] > 5]
    assert scarred == [1, 16]

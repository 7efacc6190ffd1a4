"""Facts about the scar report: volumes, mass, transmurality, obstruction, core and grey zone."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from heart_phantom import EPI_MM, WALL_ML, Phantom, Sector, make, oblique, scar_ml
from scipy.spatial.transform import Rotation

from segmed.cardiac.aha import segment_numbers
from segmed.cardiac.chords import class_shares_percent, radial_chords, transmurality_class
from segmed.cardiac.heart import HeartLabels, HeartPosition
from segmed.cardiac.scar import ScarOptions, scar_report
from segmed.cardiac.septum import find_septum
from segmed.cardiac.short_axis import short_axis_view
from segmed.cardiac.tissue import GreyZone, obstruction, scar_zones
from segmed.data.anatomy import BLOOD_POOL, MYOCARDIUM, RV, SCAR, Scar, draw_heart
from segmed.data.drawn_hearts import draw_anatomy
from segmed.data.scan import FRAME
from segmed.errors import CardiacError

# one scar a segment, none next to another: segment -> (sector, true transmurality in per cent)
DEPTHS = {
    7: (Sector((-25, 25), (0.32, 0.57), (0.0, 0.25)), 25),
    9: (Sector((95, 145), (0.32, 0.57), (0.0, 0.5)), 50),
    11: (Sector((215, 265), (0.32, 0.57), (0.0, 0.75)), 75),
    2: (Sector((35, 85), (0.05, 0.28), (0.0, 1.01)), 100),
    5: (Sector((215, 265), (0.05, 0.28), (0.3, 0.7)), 40),
    15: (Sector((140, 220), (0.62, 0.86), (0.5, 1.01)), 50),
}
SECTORS = tuple(sector for sector, _ in DEPTHS.values())


@pytest.fixture(scope="module")
def millimetre() -> Phantom:
    return make((1.0, 1.0, 1.0), turn=oblique(2), sectors=SECTORS)


@pytest.fixture(scope="module")
def report(millimetre):
    return scar_report(millimetre.heart, millimetre.scar)


@pytest.fixture(scope="module")
def thick() -> Phantom:
    return make((1.5, 1.5, 8.0), sectors=(Sector((215, 265), (0.36, 0.5), (0.0, 0.5)),))


# ---------------------------------------------------------------- volumes and segments


def test_volumes_at_a_millimetre_are_within_three_per_cent(report):
    assert report.wall_ml == pytest.approx(WALL_ML, rel=0.03)
    assert report.scar_ml == pytest.approx(scar_ml(SECTORS), rel=0.03)
    assert report.wall_g == pytest.approx(1.05 * report.wall_ml)
    assert report.scar_g == pytest.approx(1.05 * report.scar_ml)
    assert report.scar_percent == pytest.approx(100 * scar_ml(SECTORS) / WALL_ML, rel=0.03)


def test_the_segments_with_scar_are_those_of_the_sectors(report):
    assert report.unknown == {"core": "core and grey zone need the image and the mean and SD of remote muscle"}
    by_number = {one.number: one for one in report.segments}
    scarred = {number for number, one in by_number.items() if one.scar_percent > 0.5}
    assert scarred == set(DEPTHS)
    assert sum(one.scar_ml for one in report.segments) == pytest.approx(report.scar_ml)
    assert sum(one.wall_ml for one in report.segments) == pytest.approx(report.wall_ml)


def test_transmurality_along_scarred_chords_is_the_depth_within_four_points(millimetre, report):
    view = short_axis_view(millimetre.heart)
    share = radial_chords(view, view.cut.bring(millimetre.scar, millimetre.heart.affine)).share
    slices, rays = np.indices(share.shape)
    angles = (rays + 0.5) * 2 * np.pi / 100
    numbers = segment_numbers(view, find_septum(view), slices.ravel(), angles.ravel()).reshape(share.shape)
    heights = np.array([one.position_mm for one in view.slices])[slices] / EPI_MM[1]
    for number, (sector, depth_percent) in DEPTHS.items():
        inner = (heights > sector.levels[0] + 0.04) & (heights < sector.levels[1] - 0.04)
        chords = 100 * share[inner & (numbers == number)]
        assert np.median(chords) == pytest.approx(depth_percent, abs=4), number
        segment = report.segments[number - 1]
        assert segment.transmurality_max_percent == pytest.approx(depth_percent, abs=15), number
        assert 0 < segment.transmurality_mean_percent < segment.transmurality_max_percent


def test_a_scar_through_half_of_the_wall_has_half_of_the_transmurality_in_a_thick_stack(thick):
    segment = scar_report(thick.heart, thick.scar).segments[11 - 1]
    classes = segment.chords_percent
    assert segment.transmurality_max_percent == pytest.approx(50, abs=15)
    assert classes["76-100"] == 0
    assert classes["26-50"] + classes["51-75"] == pytest.approx(100 - classes["0"], abs=10)


def test_a_ventricle_without_scar_has_none_of_it(thick):
    report = scar_report(thick.heart, np.zeros_like(thick.scar))
    assert (report.scar_ml, report.scar_percent, report.obstruction_ml) == (0, 0, 0)
    assert report.wall_ml > 0
    assert all(one.transmurality_mean_percent in (0, None) for one in report.segments)
    assert report.chords_percent == {"0": 100, "1-25": 0, "26-50": 0, "51-75": 0, "76-100": 0}


def test_the_cap_of_the_apex_has_extent_and_no_transmurality(thick):
    whole = scar_report(thick.heart, thick.heart.wall)
    apex = whole.segments[16]
    assert apex.wall_ml > 0
    assert apex.scar_percent == pytest.approx(100)
    assert apex.transmurality_mean_percent is None
    assert all(one.transmurality_class == "76-100" for one in whole.segments[:16])
    assert [one.transmurality_mean_percent for one in whole.slices if one.level == "apex"] == [None]


def test_the_projects_phantom_gives_its_truth_back():
    """Scar in the inferior wall, at mid level, of a heart that is less than round."""
    heart = draw_anatomy(np.random.default_rng(8)).heart
    scar = Scar(np.pi / 2, 0.45, 0.42, 0.12, 1.4, False)
    anatomy = replace(
        draw_anatomy(np.random.default_rng(8)), heart=replace(heart, scars=(scar,), rv_angle_rad=float(np.pi))
    )

    def labels(spacing_mm: float) -> np.ndarray:
        axis = np.arange(-58, 58, spacing_mm, dtype=np.float32) + np.float32(spacing_mm / 2)
        along = np.arange(-6, 98, spacing_mm, dtype=np.float32) + np.float32(spacing_mm / 2)
        u, v, w = np.meshgrid(axis, axis, along, indexing="ij")
        return draw_heart(anatomy, u, v, w, np.zeros(u.shape, np.float32))

    turn, stretch = np.linalg.qr(FRAME)
    affine = np.eye(4)
    affine[:3, :3] = turn * np.sign(np.diag(stretch)) * 1.5
    own, true = labels(1.5), labels(0.8)
    wall = np.isin(own, (MYOCARDIUM, SCAR))
    report = scar_report(HeartLabels(wall, affine, own == BLOOD_POOL, own == RV), own == SCAR)
    assert report.scar_ml == pytest.approx((true == SCAR).sum() * 0.8**3 / 1000, rel=0.03)
    assert report.wall_ml == pytest.approx(np.isin(true, (MYOCARDIUM, SCAR)).sum() * 0.8**3 / 1000, rel=0.03)
    most = max(report.segments, key=lambda one: one.scar_ml)
    assert most.name == "mid inferior"
    assert most.scar_ml > 0.6 * report.scar_ml
    assert most.transmurality_max_percent == pytest.approx(100)


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize(
    ("percent", "name"),
    [
        (0, "0"),
        (0.4, "0"),
        (1, "1-25"),
        (25.4, "1-25"),
        (25.6, "26-50"),
        (50, "26-50"),
        (75.5, "76-100"),
        (100, "76-100"),
    ],
)
def test_the_class_of_a_transmurality_is_that_of_its_whole_number(percent, name):
    assert transmurality_class(percent) == name
    assert class_shares_percent(np.array([percent / 100, np.nan]))[name] == 100


def test_no_chord_has_no_class():
    assert class_shares_percent(np.array([np.nan])) is None


# ---------------------------------------------------------------- obstruction


def ring_slice(size: int = 60) -> tuple[HeartLabels, np.ndarray, np.ndarray]:
    """One slice: a ring of radii 14 and 24 pixels; radius and angle in degrees of each pixel."""
    x, y = np.meshgrid(*(np.arange(size) - size / 2 + 0.5 for _ in "xy"), indexing="ij")
    radius, angle_deg = np.hypot(x, y)[..., None], np.degrees(np.arctan2(y, x))[..., None]
    heart = HeartLabels((radius >= 14) & (radius < 24), np.diag([1.0, 1.0, 8.0, 1.0]), radius < 14)
    return heart, radius, angle_deg


def test_a_dark_core_inside_a_scar_is_obstruction_and_counts_when_asked():
    heart, radius, angle_deg = ring_slice()
    dark = (radius > 17) & (radius < 20) & (np.abs(angle_deg) < 12)
    scar = heart.wall & (np.abs(angle_deg) < 40) & ~dark
    np.testing.assert_array_equal(obstruction(heart, scar), dark & heart.wall)
    left, counted = (scar_report(heart, scar, options=ScarOptions(count_obstruction=count)) for count in (False, True))
    assert left.obstruction_ml == counted.obstruction_ml == pytest.approx(dark.sum() * 8 / 1000)
    assert counted.scar_ml == pytest.approx(left.scar_ml + left.obstruction_ml)
    assert (left.obstruction_counted, counted.obstruction_counted) == (False, True)


def test_a_dark_core_against_the_endocardium_is_obstruction():
    heart, radius, angle_deg = ring_slice()
    dark = heart.wall & (radius < 19) & (np.abs(angle_deg) < 15)
    scar = heart.wall & (np.abs(angle_deg) < 40) & ~dark
    np.testing.assert_array_equal(obstruction(heart, scar), dark)


def test_healthy_wall_beside_outside_and_within_a_ring_of_scar_is_no_obstruction():
    heart, radius, angle_deg = ring_slice()
    assert not obstruction(heart, heart.wall & (np.abs(angle_deg) < 40) & (radius < 20)).any()
    outer = heart.wall & (radius >= 20)
    epicardial_with_a_gap = outer & (np.abs(angle_deg) < 175)
    assert not obstruction(heart, epicardial_with_a_gap).any()


# ---------------------------------------------------------------- core and grey zone


def graded() -> tuple[HeartLabels, np.ndarray, np.ndarray]:
    """Remote muscle of 100 ± 10, and a sector of scar in three grades: 500, 300 and 200."""
    heart, _, angle_deg = ring_slice()
    rng = np.random.default_rng(0)
    image = np.where(heart.wall, 100.0 + 10 * np.clip(rng.standard_normal(heart.wall.shape), -3, 3), 400.0)
    scar = heart.wall & (np.abs(angle_deg) < 40)
    for below_deg, value in ((40, 200.0), (30, 300.0), (10, 500.0)):
        image[scar & (np.abs(angle_deg) < below_deg)] = value
    return heart, scar, image


@pytest.mark.parametrize(
    ("grey", "core_from", "grey_from", "core_values", "grey_values"),
    [
        (GreyZone(100, 10), 250, 120, {300, 500}, {200}),
        (GreyZone(100, 50, sd_count=3), 250, 250, None, None),
        (GreyZone(100, 10, "roes"), 250, 175, {300, 500}, {200}),
        (GreyZone(100, 90, "yan"), 370, 280, {500}, {300}),
        (GreyZone(100, 10, core_share=0.7), 350, 120, {500}, {200, 300}),
    ],
)
def test_core_and_grey_zone_are_those_of_their_definition(grey, core_from, grey_from, core_values, grey_values):
    heart, scar, image = graded()
    if core_values is None:
        with pytest.raises(CardiacError, match="can't be told apart: the core would begin at 250"):
            scar_zones(image, heart, scar, grey)
        return
    zones = scar_zones(image, heart, scar, grey)
    assert (zones.core_from, zones.grey_zone_from) == (core_from, grey_from)
    assert set(image[zones.core]) == core_values
    assert {value for value in image[zones.grey_zone] if value >= 200} == grey_values
    assert not (zones.core & zones.grey_zone).any()


def test_bright_muscle_far_from_the_scar_is_no_grey_zone():
    heart, scar, image = graded()
    far = np.argwhere(heart.wall & ~scar)[0]
    image[tuple(far)] = 180
    zones = scar_zones(image, heart, scar, GreyZone(100, 10))
    assert not zones.grey_zone[tuple(far)]


def test_the_definition_by_sd_does_not_depend_on_the_scale_of_the_image():
    heart, scar, image = graded()
    one = scar_zones(image, heart, scar, GreyZone(100, 20, "yan"))
    other = scar_zones(3 * image + 50, heart, scar, GreyZone(350, 60, "yan"))
    np.testing.assert_array_equal(one.core, other.core)
    np.testing.assert_array_equal(one.grey_zone, other.grey_zone)


def test_volumes_of_core_and_grey_zone_stand_in_the_report():
    heart, scar, image = graded()
    report = scar_report(heart, scar, image=image, options=ScarOptions(grey=GreyZone(100, 10)))
    assert report.core_ml == pytest.approx((image[scar] >= 300).sum() * 8 / 1000)
    assert report.core_g == pytest.approx(1.05 * report.core_ml)
    assert report.grey_zone_ml >= (image[scar] == 200).sum() * 8 / 1000
    none = scar_report(heart, np.zeros_like(scar), image=image, options=ScarOptions(grey=GreyZone(100, 10)))
    assert (none.core_ml, none.grey_zone_ml, none.core_from_intensity) == (0, 0, None)


def test_a_remote_region_without_spread_is_refused():
    with pytest.raises(CardiacError, match="100 ± 0 gives no threshold"):
        GreyZone(100, 0)


# ---------------------------------------------------------------- what can't be known


def test_scar_outside_the_wall_is_refused_and_a_little_of_it_is_told(thick):
    with pytest.raises(CardiacError, match="100 % of the scar lies outside the LV wall"):
        scar_report(thick.heart, thick.heart.pool)
    more = thick.scar.copy()
    more[tuple(np.argwhere(thick.heart.pool)[0])] = True
    report = scar_report(thick.heart, more)
    assert report.scar_outside_percent == pytest.approx(100 / more.sum())
    assert report.scar_ml == scar_report(thick.heart, thick.scar).scar_ml
    assert any("outside the LV wall and is not counted" in note for note in report.notes)


def test_without_a_septum_there_are_volumes_and_chords_and_no_segments(thick):
    report = scar_report(replace(thick.heart, rv=None), thick.scar)
    assert report.segments is None
    assert "RV is not labelled" in report.unknown["segments"]
    assert report.scar_ml > 0
    assert report.chords_percent["26-50"] > 0
    assert report.maps.segments is None


def test_a_stack_along_the_long_axis_has_volumes_only():
    along = make((1.5, 1.5, 8.0), turn=Rotation.from_euler("x", 90, degrees=True), sectors=SECTORS)
    report = scar_report(along.heart, along.scar)
    assert report.scar_ml > 0
    assert (report.segments, report.chords_percent, report.slices) == (None, None, ())
    assert "no short axis" in report.unknown["transmurality"]


def test_one_slice_has_transmurality_and_says_what_is_unknown():
    heart, radius, angle_deg = ring_slice()
    report = scar_report(heart, heart.wall & (np.abs(angle_deg) < 90) & (radius < 19))
    assert report.slices[0].transmurality_mean_percent == pytest.approx(25, abs=2)
    assert report.segments is None
    assert any("one slice: base, apex and length can't be known" in note for note in report.notes)
    with_level = scar_report(
        heart,
        heart.wall & (np.abs(angle_deg) < 30),
        position=HeartPosition(level="mid", anterior_mm=(50.0, 40.0, 0.0), inferior_mm=(50.0, 20.0, 0.0)),
    )
    assert {one.number for one in with_level.segments if one.wall_ml > 0} == set(range(7, 13))


def test_the_report_is_ready_for_json_with_units_in_its_names(report):
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert "maps" not in values
    assert values["options"]["density_g_per_ml"] == 1.05
    assert len(values["segments"]) == 17
    units = ("ml", "g", "percent", "mm", "mm2", "intensity")
    numbers = [name for name, value in values.items() if isinstance(value, float)]
    assert all(name.rsplit("_", 1)[-1] in units for name in numbers)


def test_a_real_stack_adds_up(real_data):
    folder = real_data("myops_lge") / "Case3001"
    image = nib.load(folder / "Case3001_gd.nii.gz")
    labels = np.asarray(image.dataobj)
    heart = HeartLabels(np.isin(labels, (200, 1220, 2221)), image.affine, labels == 500, labels == 600)
    report = scar_report(heart, labels == 2221)
    assert report.segments is not None
    assert sum(one.scar_ml for one in report.segments) == pytest.approx(report.scar_ml)
    assert [one.level for one in report.slices] == ["basal", "basal", "mid", "apical", "apical"]
    assert any("segment 17" in note for note in report.notes)
    assert report.segments[16].wall_ml == 0

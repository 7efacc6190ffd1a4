"""Features of a wall's voxels: each is what its name says, in mm, in any units, however the volume is stored."""

import numpy as np
import pytest
from small_wall import changed, line, wall

from segmed.errors import SegmenterError
from segmed.segmenters.region import Scene
from segmed.segmenters.voxel_features import FeatureSettings, features

FULL = FeatureSettings(pool="pool", rv="rv", oriented=True)


def column(scene: Scene, name: str, settings: FeatureSettings = FULL) -> np.ndarray:
    return features(scene, settings)[:, settings.names.index(name)]


def on_grid(scene: Scene, name: str, settings: FeatureSettings = FULL) -> np.ndarray:
    """A feature at its voxel, NaN elsewhere."""
    grid = np.full(scene.image.shape, np.nan)
    grid[scene.region] = column(scene, name, settings)
    return grid


def flipped(scene: Scene, axis: int) -> Scene:
    masks = {name: np.flip(mask, axis) for name, mask in scene.masks.items()}
    return Scene(np.flip(scene.image, axis), np.flip(scene.region, axis), scene.spacing_mm, masks)


def ramp(shape, spacing, axis=0) -> Scene:
    """Intensity that rises by 1 a mm along an axis, the region everywhere."""
    image = (np.indices(shape)[axis] * spacing[axis]).astype(np.float32)
    return Scene(image, np.ones(shape, bool), spacing)


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        (FeatureSettings(), 11),
        (FeatureSettings(pool="pool"), 12),
        (FeatureSettings(pool="pool", rv="rv"), 13),
        (FULL, 14),
        (FeatureSettings(scales_mm=(), position=False), 1),
    ],
    ids=str,
)
def test_there_is_a_column_a_name_and_a_row_a_voxel(settings, columns):
    scene, _ = wall()
    rows = features(scene, settings)
    assert rows.dtype == np.float32
    assert rows.shape == (np.count_nonzero(scene.region), columns)
    assert len(set(settings.names)) == columns
    assert np.isfinite(rows).all()


@pytest.mark.parametrize(("factor", "offset"), [(300.0, 20.0), (0.004, -3.0)])
def test_units_of_the_intensity_do_not_matter(factor, offset):
    scene, _ = wall()
    again = features(changed(scene, factor=factor, offset=offset), FULL)
    assert again == pytest.approx(features(scene, FULL), abs=3e-3)


def test_intensity_has_median_0_and_quartiles_1_apart():
    values = column(wall()[0], "intensity")
    assert np.median(values) == pytest.approx(0, abs=1e-6)
    assert np.subtract(*np.percentile(values, (75, 25))) == pytest.approx(1, abs=1e-5)


def test_intensity_to_the_pool_is_0_at_the_pools_median():
    scene, _ = wall()
    image = scene.image.copy()
    first = tuple(np.argwhere(scene.region)[0])
    image[first] = np.median(image[scene.masks["pool"]])
    values = on_grid(Scene(image, scene.region, scene.spacing_mm, scene.masks), "intensity_to_pool")
    assert values[first] == pytest.approx(0, abs=1e-6)
    assert np.nanmedian(values) < -1


# ---------------------------------------------------------------- neighbourhood


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_on_a_ramp_mean_and_median_are_the_intensity_and_the_gradient_is_its_slope_a_mm(axis):
    settings = FeatureSettings(scales_mm=(3.0,), position=False)
    scene = ramp((41, 31, 27), (1.0, 1.5, 2.0), axis)
    middle = (20, 15, 13)
    spread = np.subtract(*np.percentile(scene.values, (75, 25)))
    middle_values = {name: on_grid(scene, name, settings)[middle] * spread for name in settings.names}
    assert middle_values["mean_3mm"] == pytest.approx(middle_values["intensity"], abs=0.02)
    assert middle_values["median_3mm"] == pytest.approx(middle_values["intensity"], abs=0.02)
    assert middle_values["gradient_3mm"] == pytest.approx(1, rel=0.02)
    assert middle_values["sd_3mm"] == pytest.approx(3, rel=0.02)


def test_neighbours_outside_the_region_do_not_count():
    scene, _ = wall()
    brighter = Scene(np.where(scene.region, scene.image, 1e3), scene.region, scene.spacing_mm, scene.masks)
    own = FeatureSettings(rv="rv")
    assert np.array_equal(features(scene, own), features(brighter, own))


def test_a_median_passes_over_a_lone_voxel_that_draws_the_mean():
    values = np.tile([0.0, 1.0], 20)
    values[20], values[1] = 50.0, 0.0  # the median of all stays between 0 and 1
    settings = FeatureSettings(scales_mm=(3.0,), position=False)
    calm = features(line(np.tile([0.0, 1.0], 20)), settings)[20]
    changes = dict(zip(settings.names, features(line(values), settings)[20] - calm, strict=True))
    assert changes["median_3mm"] == pytest.approx(0, abs=1e-6)
    assert changes["mean_3mm"] > 5


@pytest.mark.parametrize(("thickness_mm", "alone"), [(10.0, True), (1.5, False)])
def test_a_neighbourhood_stays_in_a_thick_slice_and_crosses_thin_ones(thickness_mm, alone):
    image = np.zeros((12, 12, 6), np.float32)
    image[..., ::2] = 1.0
    scene = Scene(image, np.ones(image.shape, bool), (1.5, 1.5, thickness_mm))
    for name in ("sd_3mm", "gradient_1.5mm"):
        values = column(scene, name, FeatureSettings())
        assert (values.max() < 1e-3) == alone


# ---------------------------------------------------------------- position


def test_depth_rises_from_the_endocardium_to_the_epicardium():
    scene, _ = wall()
    x, y = np.indices(scene.image.shape)[:2] - 22
    share = (np.hypot(x, y)[..., 0] - 8.5) / 7  # of the first slice's wall, from 9 to 16 pixels
    values = on_grid(scene, "depth")[..., 0]
    there = scene.region[..., 0]
    assert np.abs(values - share)[there].max() < 0.2  # a pixel is a seventh of it
    assert np.array_equal(column(scene, "depth"), column(scene, "depth", FeatureSettings()))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_place_in_the_wall_does_not_depend_on_how_the_volume_is_stored(axis):
    scene, _ = wall()
    other = flipped(scene, axis)
    for name in ("depth", "septal", "height"):
        assert np.flip(on_grid(other, name), axis)[scene.region] == pytest.approx(column(scene, name), abs=1e-5)


def test_turn_tells_the_two_sides_of_the_septum_apart():
    scene, _ = wall()
    values = on_grid(scene, "turn")
    assert np.nanmin(values[:, :10]) * np.nanmax(values[:, 34:]) < 0
    mirrored = np.flip(on_grid(flipped(scene, 1), "turn"), 1)
    assert mirrored[scene.region] == pytest.approx(-values[scene.region], abs=1e-5)


def test_septal_is_1_toward_the_rv_and_minus_1_across_the_lv():
    values = on_grid(wall()[0], "septal")
    assert values[8:12, 22, :2] == pytest.approx(1, abs=0.01)
    assert values[33:36, 22, :2] == pytest.approx(-1, abs=0.01)
    assert values[22, 9, 0] == pytest.approx(0, abs=0.02)


def test_height_runs_from_the_broad_end_to_the_narrow_one():
    values = on_grid(wall()[0], "height")
    assert [np.nanmax(values[..., z]) for z in range(4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_volume_of_thin_voxels_finds_its_own_long_axis():
    x, y, z = np.indices((50, 24, 24)) - 12
    region = (np.hypot(y, z) < 9) & (np.hypot(y, z) >= 5) & (x < 32) & (x > -8)
    pool, rv = np.hypot(y, z) < 5, (y > 9) & (np.abs(z) < 4)
    image = np.random.default_rng(0).normal(size=region.shape).astype(np.float32)
    scene = Scene(image, region, (1.0, 1.0, 1.0), {"pool": pool & (x < 32) & (x > -8), "rv": rv})
    height, septal = on_grid(scene, "height"), on_grid(scene, "septal")
    assert abs(np.nanmean(height[5]) - np.nanmean(height[43])) > 0.95
    assert np.nanmax(np.nanstd(height[6:43], axis=(1, 2))) < 0.02
    assert np.nanmin(septal[:, 19, 12]) > 0.98


def test_what_the_volume_does_not_show_is_nan_and_nothing_else():
    scene, _ = wall()
    nothing = np.zeros_like(scene.region)
    rows = features(Scene(scene.image, scene.region, scene.spacing_mm, {"pool": nothing, "rv": nothing}), FULL)
    unknown = {name for name, values in zip(FULL.names, rows.T, strict=True) if np.isnan(values).all()}
    assert unknown == {"intensity_to_pool", "depth", "septal", "turn"}
    assert np.isfinite(rows[:, [name not in unknown for name in FULL.names]]).all()


def test_an_open_ring_encloses_nothing_and_one_slice_is_of_middle_height():
    scene, _ = wall(shape=(44, 44, 1))
    scene.region[:, 21:24] = False
    half = Scene(scene.image, scene.region, scene.spacing_mm)
    assert np.isnan(column(half, "depth", FeatureSettings())).all()
    assert (column(half, "height", FeatureSettings()) == 0.5).all()


def test_place_counts_from_the_centre_of_each_slice():
    scene, _ = wall(shape=(60, 60, 4))
    moved = [np.roll(scene.region, 6, axis=1), np.roll(scene.masks["pool"], 6, axis=1)]
    region, pool = scene.region.copy(), scene.masks["pool"].copy()
    region[..., 2], pool[..., 2] = moved[0][..., 2], moved[1][..., 2]
    shifted = Scene(scene.image, region, scene.spacing_mm, {"pool": pool, "rv": scene.masks["rv"]})
    before, after = on_grid(scene, "septal")[..., 2], np.roll(on_grid(shifted, "septal")[..., 2], -6, axis=1)
    there = scene.region[..., 2]
    assert np.abs(before - after)[there].max() < 0.1


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("values", [[7.0], [7.0] * 50], ids=["one voxel", "constant"])
def test_a_region_of_one_intensity_is_refused(values):
    with pytest.raises(SegmenterError, match="at least two intensities"):
        features(line(values))


def test_intensities_of_which_most_are_equal_are_scaled_by_their_sd():
    values = np.zeros(100)
    values[:10] = 5.0
    rows = features(line(values), FeatureSettings(scales_mm=(), position=False))[:, 0]
    assert rows[:10] == pytest.approx(5 / values.std())


def test_a_label_that_is_not_there_is_named_with_those_that_are():
    scene, _ = wall()
    with pytest.raises(SegmenterError, match=r"no mask is called 'lv'.*\(pool, rv\)"):
        features(scene, FeatureSettings(pool="lv"))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_a_length(scale):
    with pytest.raises(SegmenterError, match="mm: give lengths"):
        FeatureSettings(scales_mm=(scale,))

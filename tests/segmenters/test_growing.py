"""Region growing: from seeds to what is connected and alike, and no further."""

import numpy as np
import pytest
import SimpleITK as sitk
from late_enhancement import changed, sector, stack

from segmed.errors import SegmenterError
from segmed.segmenters.growing import RegionGrowing, connected_to
from segmed.segmenters.region import Scene, SliceBySlice
from segmed.segmenters.thresholds import FullWidthHalfMaximum, Otsu, StandardDeviations

LARGE, SMALL = sector(100, 80), sector(280, 30)
SEED = tuple(int(place) for place in np.argwhere(LARGE)[len(np.argwhere(LARGE)) // 2])
EVERY = {
    "otsu": RegionGrowing(),
    "half of the maximum": RegionGrowing(lower=FullWidthHalfMaximum()),
    "number": RegionGrowing(lower=300.0),
    "likeness": RegionGrowing(lower=None, deviations=4),
}
named = pytest.mark.parametrize("method", EVERY.values(), ids=EVERY.keys())


def with_seeds(method: RegionGrowing, seeds) -> RegionGrowing:
    options = {"lower": method.lower, "deviations": method.deviations, "seeds": seeds}
    return RegionGrowing(**options)


@named
def test_from_a_seed_grows_the_scar_that_it_lies_in_and_no_other(method):
    probabilities = with_seeds(method, (SEED,)).probability(stack(LARGE | SMALL))
    assert probabilities.dtype == np.float32
    assert np.array_equal(probabilities, LARGE)


@named
def test_seeds_can_be_a_mask_and_then_go_slice_by_slice(method):
    scene = stack(LARGE | SMALL)
    scene = changed(scene, masks={"dots": sector(280, 4)})
    assert np.array_equal(with_seeds(method, "dots").probability(scene), SMALL)
    assert np.array_equal(SliceBySlice(with_seeds(method, "dots")).probability(scene), SMALL)


@named
def test_without_seeds_it_starts_at_the_brightest_voxels(method):
    scene = stack(LARGE)
    image = np.where(SMALL, 0.6 * 500, scene.image).astype(np.float32)
    assert np.array_equal(method.probability(changed(scene, image=image)) * ~SMALL, LARGE)


@pytest.mark.parametrize("name", ["otsu", "likeness"])
@pytest.mark.parametrize(("a", "b"), [(0.02, -3.0), (3.0, 500.0)])
def test_the_scale_and_offset_of_the_image_do_not_matter(name, a, b):
    scene = stack(LARGE | SMALL, noise=60)
    scaled = changed(scene, image=(scene.image * a + b).astype(np.float32))
    assert (EVERY[name].probability(scene) != EVERY[name].probability(scaled)).sum() <= 1


def test_likeness_agrees_with_itk_where_the_region_is_the_whole_image():
    rng = np.random.default_rng(3)
    x, y, z = np.meshgrid(*[np.arange(24)] * 3, indexing="ij")
    ball = (x - 12) ** 2 + (y - 11) ** 2 + (z - 13) ** 2 < 64
    image = (np.where(ball, 300, 100) + rng.normal(0, 10, ball.shape)).astype(np.float32)
    scene = Scene(image, np.ones(image.shape, bool), (1.0, 1.0, 1.0))
    ours = RegionGrowing(lower=None, deviations=3.5, stop_above=True, seeds=((12, 11, 13),), iterations=10)
    theirs = sitk.ConfidenceConnected(
        sitk.GetImageFromArray(image),
        seedList=[(13, 11, 12)],  # ITK's x is numpy's last axis
        numberOfIterations=9,
        multiplier=3.5,
        initialNeighborhoodRadius=1,
    )
    assert (ours.probability(scene) != sitk.GetArrayFromImage(theirs)).sum() <= 2
    assert ours.probability(scene)[ball].mean() > 0.99


def test_voxels_too_bright_for_the_interval_stay_out_only_when_told():
    scene = stack(LARGE)
    image = scene.image.copy()
    image[SEED[0], SEED[1] + 2, SEED[2]] = 3000
    bright = changed(scene, image=image)
    options = {"lower": None, "deviations": 4, "seeds": ((SEED[0], SEED[1] - 3, SEED[2]),)}
    assert np.array_equal(RegionGrowing(**options).probability(bright), LARGE)
    assert RegionGrowing(stop_above=True, **options).probability(bright).sum() == LARGE.sum() - 1


def test_in_a_healthy_heart_nothing_grows_above_a_threshold_that_nothing_exceeds():
    healthy = stack(np.zeros_like(LARGE))
    assert not RegionGrowing(lower=FullWidthHalfMaximum()).probability(healthy).any()
    assert not RegionGrowing(lower=StandardDeviations(n=6)).probability(healthy).any()


def test_pieces_without_a_seed_are_not_connected():
    mask = np.zeros((5, 5, 1), bool)
    mask[0, 0], mask[1, 1], mask[4, 4] = True, True, True
    seeds = np.zeros_like(mask)
    seeds[0, 0] = seeds[2, 2] = True
    assert np.argwhere(connected_to(seeds, mask)).tolist() == [[0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (RegionGrowing(seeds=((0, 0, 0),)), r"seed \(0, 0, 0\) is outside the region"),
        (RegionGrowing(seeds=((10, 10, 99),)), r"seed \(10, 10, 99\) is outside the region"),
        (RegionGrowing(seeds=((-20, 32, 0),)), "outside the region"),
        (RegionGrowing(seeds=()), "no seed in the region"),
        (RegionGrowing(seeds="pool"), "no seed in the region"),
        (
            RegionGrowing(seeds="dots"),
            "no mask is called 'dots': choose one of those beside the region \\(pool, scar\\)",
        ),
        (RegionGrowing(seeds=(SEED,), lower=5000.0), "no seed is above 5000"),
    ],
)
def test_seeds_that_can_not_grow_are_refused_in_one_line(method, says):
    with pytest.raises(SegmenterError, match=says) as error:
        method.probability(stack(LARGE))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lower", [None, Otsu(), 3.0])
def test_one_intensity_has_no_brightest_voxels(lower):
    flat = Scene(np.full((4, 4, 1), 7, np.float32), np.ones((4, 4, 1), bool), (1.0, 1.0, 1.0))
    with pytest.raises(SegmenterError):
        RegionGrowing(lower=lower).probability(flat)


def test_a_region_of_one_voxel_grows_from_a_seed_to_itself():
    one = Scene(np.full((1, 1, 1), 7, np.float32), np.ones((1, 1, 1), bool), (1.0, 1.0, 1.0))
    assert RegionGrowing(lower=3.0, seeds=((0, 0, 0),)).probability(one).tolist() == [[[1.0]]]


@pytest.mark.parametrize("options", [{"deviations": 0}, {"iterations": 0}, {"brightest": 0}, {"brightest": 1.5}])
def test_options_without_meaning_are_refused(options):
    with pytest.raises(SegmenterError, match="give numbers above 0"):
        RegionGrowing(**options)


def test_scar_of_a_real_heart_grows_from_its_brightest_voxels(real_data):
    import nibabel as nib

    folder = real_data("myops_lge") / "Case3001"
    file = nib.load(folder / "Case3001_LGE.nii.gz")
    labels = np.asarray(nib.load(folder / "Case3001_gd.nii.gz").dataobj)
    wall = np.isin(labels, (200, 1220, 2221))
    scene = Scene(np.asarray(file.dataobj, np.float32), wall, tuple(map(float, file.header.get_zooms()[:3])))
    tissue, truth = RegionGrowing().probability(scene) > 0.5, labels == 2221
    assert 2 * (tissue & truth).sum() / (tissue.sum() + truth.sum()) > 0.5

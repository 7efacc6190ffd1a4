"""Thresholds: known scars come back, thresholds have the values of their formulas, nonsense is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from late_enhancement import MUSCLE, SCAR, changed, sector, stack
from monai.data import MetaTensor
from scipy import ndimage
from skimage.filters import threshold_otsu

from segmed.errors import SegmenterError
from segmed.labels import LabelSet
from segmed.metrics.surfaces import bounding_box
from segmed.segmenters.region import Inside, Known, Scene, SliceBySlice
from segmed.segmenters.remote import RemoteMask, RemoteSector
from segmed.segmenters.thresholds import FullWidthHalfMaximum, Otsu, StandardDeviations

TRUTH = sector(200, 100)
ANY_SCALE = {
    "otsu": Otsu(),
    "5 SD": StandardDeviations(n=5),
    "FWHM, core, remote": FullWidthHalfMaximum(baseline="remote"),
    "FWHM, core, minimum": FullWidthHalfMaximum(baseline="minimum", percentile=95),
    "FWHM, maximum, minimum": FullWidthHalfMaximum(reference="maximum", baseline="minimum"),
}
FROM_ZERO = {
    "FWHM, core": FullWidthHalfMaximum(),
    "FWHM, maximum": FullWidthHalfMaximum(reference="maximum"),
}
EVERY = ANY_SCALE | FROM_ZERO


def named(methods: dict):
    return pytest.mark.parametrize("method", methods.values(), ids=methods.keys())


def line(*numbers: float, remote: int = 4) -> Scene:
    """Voxels in a row, all of them the region; the first ones are remote."""
    image = np.array(numbers, np.float32).reshape(-1, 1, 1)
    return Scene(image, np.ones(image.shape, bool), (1, 1, 1), {"far": np.arange(len(numbers))[:, None, None] < remote})


FAR = RemoteMask(name="far", smallest_voxels=2)


@named(EVERY)
def test_every_threshold_finds_exactly_the_scar(method):
    probabilities = method.probability(stack(TRUTH))
    assert probabilities.dtype == np.float32
    assert np.array_equal(probabilities, TRUTH)


@named(EVERY)
def test_so_it_does_in_each_slice_and_in_one(method):
    scene = stack(TRUTH)
    assert np.array_equal(SliceBySlice(method).probability(scene), TRUTH)
    place, slice_ = next(iter(scene.slices(2)))
    assert np.array_equal(method.probability(slice_), TRUTH[place])


@named(ANY_SCALE)
@pytest.mark.parametrize(("a", "b"), [(3.0, 0.0), (0.01, -2.0), (2.0, 700.0)])
def test_the_scale_and_offset_of_the_image_do_not_matter(method, a, b):
    scene = stack(TRUTH, noise=90)
    changed_scale = changed(scene, image=(scene.image * a + b).astype(np.float32))
    differ = method.probability(scene) != method.probability(changed_scale)
    assert differ.sum() <= 1  # a voxel may lie on the threshold


@named(FROM_ZERO)
def test_half_of_the_maximum_from_zero_follows_the_scale_but_not_the_offset(method):
    scene = stack(TRUTH, noise=60)
    plain = method.probability(scene)
    assert np.array_equal(plain, method.probability(changed(scene, image=scene.image * 4)))
    assert method.probability(changed(scene, image=scene.image + 1000)).sum() > 2 * plain.sum()


@named(EVERY)
def test_what_lies_outside_the_region_changes_nothing(method):
    scene = stack(TRUTH)
    image = np.where(scene.region, scene.image, 1e4).astype(np.float32)
    assert np.array_equal(method.probability(changed(scene, image=image)), TRUTH)


def test_otsu_of_two_classes_is_that_of_scikit_image():
    scene = stack(TRUTH, noise=80)
    assert Otsu().threshold(scene) == pytest.approx(threshold_otsu(scene.values), abs=float(np.ptp(scene.values)) / 256)


def test_of_three_classes_the_brightest_is_scar():
    grey = sector(200, 160)
    scene = stack(TRUTH)
    image = np.where(grey & ~TRUTH & scene.region, 300, scene.image).astype(np.float32)
    assert np.array_equal(Otsu(classes=3).probability(changed(scene, image=image)), TRUTH)


def test_n_sd_is_mean_and_n_sd_of_the_given_voxels():
    assert StandardDeviations(n=3, remote=FAR).threshold(line(1, 2, 3, 6, 50)) == pytest.approx(
        3 + 3 * math.sqrt(14 / 3)
    )


@settings(max_examples=15, deadline=None)
@given(low=st.floats(1, 6), more=st.floats(0.1, 3), seed=st.integers(0, 99))
def test_more_sd_never_find_more_scar(low, more, seed):
    scene = stack(TRUTH, noise=60, seed=seed)
    few, many = (StandardDeviations(n=n).probability(scene) for n in (low, low + more))
    assert (many <= few).all()


@pytest.mark.parametrize(
    ("options", "threshold"),
    [
        ({"reference": "maximum"}, 450),
        ({"reference": "maximum", "baseline": "minimum"}, 455),
        ({"reference": "maximum", "baseline": "remote"}, 456),
        ({"reference": "maximum", "fraction": 0.4}, 360),
        ({"core_sd": 5}, 200),  # 900 stands alone, 400 in the larger piece
        ({"core_sd": 5, "baseline": "remote"}, 206),
        ({"core_sd": 5, "percentile": 50}, 190),
        ({"core_sd": 1000}, math.inf),
    ],
)
def test_half_of_the_maximum_is_half_of_the_maximum(options, threshold):
    scene = line(10, 11, 13, 14, 900, 12, 380, 400, 360)
    assert FullWidthHalfMaximum(remote=FAR, **options).threshold(scene) == pytest.approx(threshold)


def test_a_single_bright_voxel_moves_the_maximum_but_hardly_a_percentile():
    scene = stack(TRUTH)
    image = scene.image.copy()
    image[tuple(np.argwhere(TRUTH)[7])] = 5000
    bright = changed(scene, image=image)
    assert FullWidthHalfMaximum().threshold(bright) == pytest.approx(2500)
    assert FullWidthHalfMaximum(percentile=95).threshold(bright) == pytest.approx(SCAR / 2, rel=0.05)


def test_half_way_between_two_tissues_keeps_the_volume_under_partial_volume():
    scene = stack(TRUTH, noise=0)
    blurred = ndimage.gaussian_filter(np.where(TRUTH, SCAR, MUSCLE), (1.5, 1.5, 0), mode="nearest")
    noisy = blurred + np.random.default_rng(1).normal(0, 2, blurred.shape)
    half = FullWidthHalfMaximum(baseline="remote", percentile=95).probability(changed(scene, image=noisy))
    five = StandardDeviations(n=5).probability(changed(scene, image=noisy))
    assert half.sum() == pytest.approx(TRUTH.sum(), rel=0.03)
    assert five.sum() > 1.08 * TRUTH.sum()


def test_in_a_healthy_heart_there_is_no_scar_unless_a_method_must_find_some():
    healthy = stack(np.zeros_like(TRUTH))
    assert not StandardDeviations(n=5).probability(healthy).any()
    assert not FullWidthHalfMaximum().probability(healthy).any()
    assert FullWidthHalfMaximum(reference="maximum", baseline="minimum").probability(healthy).any()
    assert Otsu().probability(healthy).any()


@named(EVERY)
@pytest.mark.parametrize("voxels", [1, 50])
def test_a_region_of_one_intensity_is_refused_in_one_line(method, voxels):
    with pytest.raises(SegmenterError) as error:
        method.probability(line(*[7.0] * voxels))
    assert "\n" not in str(error.value)
    assert "one intensity" in str(error.value) or "no remote region" in str(error.value)


def test_more_classes_than_intensities_are_refused():
    with pytest.raises(SegmenterError, match="3 classes of Otsu"):
        Otsu(classes=3).threshold(line(1, 1, 2, 2))


def test_a_maximum_below_zero_is_refused():
    with pytest.raises(SegmenterError, match="-2 is not above the baseline 0"):
        FullWidthHalfMaximum(reference="maximum").threshold(line(-9, -2, -4))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Otsu, {"classes": 1}),
        (Otsu, {"bins": 1}),
        (StandardDeviations, {"n": 0}),
        (FullWidthHalfMaximum, {"fraction": 1.0}),
        (FullWidthHalfMaximum, {"percentile": 0.0}),
        (FullWidthHalfMaximum, {"reference": "seed"}),
        (FullWidthHalfMaximum, {"baseline": "blood"}),
    ],
)
def test_options_without_meaning_are_refused(kind, options):
    with pytest.raises(SegmenterError) as error:
        kind(**options)
    assert "\n" not in str(error.value)


@named(EVERY)
def test_inside_a_known_wall_probabilities_sum_to_one_on_the_volumes_grid(method):
    scene = stack(TRUTH)
    affine = torch.from_numpy(np.diag([-1.0, 1.0, 8.0, 1.0]))
    map = scene.region + 2 * scene.masks["pool"].astype(np.uint8)
    volume, wall = (MetaTensor(torch.from_numpy(each)[None], affine=affine) for each in (scene.image, map))
    labels = LabelSet(("myocardium", "scar", "pool"), ((1,), (2,), (3,)))
    known = Known(wall, LabelSet(("wall", "pool"), ((1,), (2,))))
    segmenter = Inside(method, known, within=("wall",), target="scar", rest="myocardium", labels=labels)
    probabilities = segmenter.probabilities(volume)
    assert torch.equal(probabilities.affine, affine)
    assert torch.equal(probabilities.as_tensor().sum(0), torch.ones(scene.image.shape))
    assert np.array_equal(segmenter(volume).numpy()[0] == 2, TRUTH)
    nothing = Known(MetaTensor(torch.zeros_like(wall.as_tensor()), affine=affine), known.labels)
    empty = Inside(method, nothing, within=("wall",), target="scar", rest="myocardium", labels=labels)
    assert not empty(volume).any()


def test_a_large_volume_costs_little_beside_its_region():
    import tracemalloc

    scene = stack(TRUTH)
    far = np.pad(scene.image, ((90, 90), (90, 90), (0, 40)))
    large = Scene(far, np.pad(scene.region, ((90, 90), (90, 90), (0, 40))), scene.spacing_mm)
    assert bounding_box(large.region)[2] == slice(0, 3)
    tracemalloc.start()
    StandardDeviations().probability(large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * far.nbytes


@pytest.mark.parametrize(
    ("method", "floor"),
    [(Otsu(), 0.5), (StandardDeviations(n=5), 0.45), (FullWidthHalfMaximum(percentile=95), 0.5)],
    ids=["otsu", "5 SD", "FWHM"],
)
def test_scar_of_a_real_heart_is_found_inside_the_references_wall(method, floor, real_data):
    from segmed.volumes import read_label_volume, read_volume

    folder = real_data("myops_lge") / "Case3001"
    volume, labels = read_volume(folder / "Case3001_LGE.nii.gz"), read_label_volume(folder / "Case3001_gd.nii.gz")
    codes = LabelSet(("wall", "pool"), ((200, 1220, 2221), (500,)), ignore=(600,))
    wall = MetaTensor(torch.from_numpy(codes.encode(labels.numpy(), where="Case3001")), affine=labels.affine)
    result = LabelSet(("myocardium", "scar"), ((1,), (2,)))
    segmenter = Inside(method, Known(wall, codes), within=("wall",), target="scar", rest="myocardium", labels=result)
    scar, truth = segmenter(volume).numpy() == 2, labels.numpy() == 2221
    assert 2 * (scar & truth).sum() / (scar.sum() + truth.sum()) > floor


@pytest.mark.parametrize("slices", [1, 10])
def test_two_sd_flag_as_much_of_an_even_healthy_wall_as_a_normal_distribution_has_there(slices):
    """2.28 %; measured in the voxels that choose the darkest sector it is 4.4 %."""
    away = np.hypot(*(np.indices((56, 56)) - 27.5))
    wall = np.repeat(((away >= 14) & (away < 20))[:, :, None], slices, axis=2)
    flagged = []
    for seed in range(60 // slices + 10):
        image = 100 + 10 * np.random.default_rng(seed).standard_normal(wall.shape)
        remote = RemoteSector().find(Scene(image, wall, (1.5, 1.5, 8.0), {}))
        flagged.append((image[wall] > remote.above(2)).mean())
    assert 100 * np.mean(flagged) == pytest.approx(2.28, abs=0.35)

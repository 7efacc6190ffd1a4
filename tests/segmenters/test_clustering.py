"""Clusters of intensity inside a wall: the brightest is scar, whatever the units, the widths and the noise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from small_wall import changed, dice, line, real_wall, wall

from segmed.errors import SegmenterError
from segmed.labels import LabelSet
from segmed.segmenters.clustering import GaussianMixture, KMeans
from segmed.segmenters.region import Inside, Known, Scene, SliceBySlice

METHODS = [
    KMeans(),
    KMeans(neighbourhood_mm=1.5),
    KMeans(position_weight=0.5),
    SliceBySlice(KMeans()),
    GaussianMixture(),
    GaussianMixture(3),
]
MIXED = pytest.mark.parametrize(
    "method", METHODS, ids=lambda method: "k-means, each slice" if isinstance(method, SliceBySlice) else str(method)
)


@MIXED
def test_scar_of_a_noisy_ring_is_found(method):
    scene, scar = wall()
    assert dice(method.probability(scene) > 0.5, scar) > 0.9


@MIXED
def test_probability_lies_in_the_region_between_0_and_1_and_is_the_same_again(method):
    scene, _ = wall()
    probabilities = method.probability(scene)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == scene.image.shape
    assert probabilities.min() == 0
    assert 0.5 < probabilities.max() <= 1
    assert not probabilities[~scene.region].any()
    assert np.array_equal(probabilities, method.probability(scene))


@MIXED
@pytest.mark.parametrize(("factor", "offset"), [(300.0, 20.0), (0.004, -3.0)])
def test_units_of_the_intensity_do_not_matter(method, factor, offset):
    scene, _ = wall()
    again = method.probability(changed(scene, factor=factor, offset=offset))
    assert again == pytest.approx(method.probability(scene), abs=1e-3)


@MIXED
def test_inside_a_known_wall_probabilities_sum_to_one_and_scar_is_named(method):
    scene, scar = wall()
    affine = torch.diag(torch.tensor([*scene.spacing_mm, 1.0], dtype=torch.float64))
    labels = torch.from_numpy(scene.region + 2 * scene.masks["pool"]).to(torch.uint8)
    known = Known(MetaTensor(labels[None], affine=affine), LabelSet(("wall", "pool"), ((1,), (2,))))
    result = LabelSet(("myocardium", "scar", "pool"), ((1,), (2,), (3,)))
    segmenter = Inside(method, known, within=("wall",), target="scar", rest="myocardium", labels=result)
    probabilities = segmenter.probabilities(MetaTensor(torch.from_numpy(scene.image)[None], affine=affine)).as_tensor()
    assert torch.allclose(probabilities.sum(0), torch.ones(scene.image.shape), atol=1e-6)
    assert dice(probabilities.argmax(0).numpy() == 2, scar) > 0.9


@MIXED
@pytest.mark.parametrize("values", [[7.0], [7.0] * 50], ids=["one voxel", "constant"])
def test_a_region_of_one_intensity_is_refused(method, values):
    with pytest.raises(SegmenterError, match="1 intensities"):
        method.probability(line(values))


def test_a_constant_region_is_refused_in_any_units():
    for factor in (1.0, 0.1, 1e6):
        with pytest.raises(SegmenterError, match="1 intensities"):
            KMeans().probability(changed(line([3.3] * 40), factor=factor, offset=0.1))


@pytest.mark.parametrize("method", [KMeans, GaussianMixture])
@pytest.mark.parametrize("options", [{"bright": 0}, {"bright": 2}, {"restarts": 0}, {"sample": 10}], ids=str)
def test_options_without_meaning_are_refused(method, options):
    with pytest.raises(SegmenterError, match="give at least"):
        method(**options)


def test_lengths_and_weights_are_not_negative():
    with pytest.raises(SegmenterError, match="numbers from 0"):
        KMeans(neighbourhood_mm=-1.0)


# ---------------------------------------------------------------- k-means


@pytest.mark.parametrize(
    ("options", "scar"),
    [
        ({"clusters": 2}, [0, 0, 0, 0, 1, 1]),
        ({"clusters": 3}, [0, 0, 0, 0, 1, 1]),
        ({"clusters": 3, "bright": 2}, [0, 0, 1, 1, 1, 1]),
    ],
    ids=str,
)
def test_the_brightest_clusters_of_six_voxels(options, scar):
    assert KMeans(**options).probability(line([0, 1, 10, 11, 40, 41])).ravel().tolist() == scar


def test_a_neighbourhood_withstands_noise():
    scene, scar = wall(noise=1.5)
    plain, smooth = (dice(KMeans(neighbourhood_mm=s).probability(scene) > 0, scar) for s in (0.0, 2.0))
    assert smooth > plain + 0.1


def test_a_neighbourhood_is_of_the_region_alone():
    scene, _ = wall()
    brighter = Scene(np.where(scene.region, scene.image, 1e4), scene.region, scene.spacing_mm)
    method = KMeans(neighbourhood_mm=3.0)
    assert np.array_equal(method.probability(scene), method.probability(brighter))


def test_place_sets_a_lone_bright_voxel_apart_from_the_scar():
    values = np.zeros(40)
    values[30:], values[2] = 10.0, 8.0
    assert KMeans().probability(line(values))[2] == 1
    near = KMeans(position_weight=2.0).probability(line(values)).ravel()
    assert near[2] == 0
    assert near[30:].all()


@pytest.mark.parametrize("method", [KMeans(), GaussianMixture()], ids=str)
def test_slices_of_different_gain_are_told_apart_one_by_one(method):
    scene, scar = wall()
    uneven = Scene(scene.image * np.array([1, 4, 1, 4], np.float32), scene.region, scene.spacing_mm)
    assert dice(SliceBySlice(method).probability(uneven) > 0.5, scar) > 0.9
    assert dice(method.probability(uneven) > 0.5, scar) < 0.8


@pytest.mark.parametrize("method", [KMeans, GaussianMixture])
def test_a_sample_is_enough(method):
    scene, _ = wall(shape=(44, 44, 10))
    whole = method().probability(scene)[scene.region]
    assert np.mean((whole > 0.5) == (method(sample=1000).probability(scene)[scene.region] > 0.5)) > 0.99


# ---------------------------------------------------------------- mixtures


def two_tissues(rest: tuple[float, float, int], scar: tuple[float, float, int], seed=0) -> tuple[Scene, np.ndarray]:
    """Voxels of two Gaussians (mean, SD, number), and which are of the second."""
    random = np.random.default_rng(seed)
    values = np.concatenate([random.normal(mean, sd, number) for mean, sd, number in (rest, scar)])
    return line(values), np.arange(len(values)) >= rest[2]


def test_the_posterior_of_two_known_gaussians_is_that_of_bayes():
    scene, _ = two_tissues((0.0, 1.0, 6000), (5.0, 1.0, 2000))
    probabilities, x = GaussianMixture().probability(scene).ravel(), scene.values.astype(float)
    between = (x > 0.5) & (x < 4.5)
    bayes = 1 / (1 + 3 * np.exp((x - 5) ** 2 / 2 - x**2 / 2))
    assert np.abs(probabilities - bayes)[between].max() < 0.06


def test_the_darkest_voxels_are_no_scar_where_scar_is_the_wide_component():
    scene, scar = two_tissues((0.0, 0.3, 3000), (3.0, 1.5, 1000))
    probabilities = GaussianMixture().probability(scene).ravel()
    dark = scene.values < -0.9  # so far below the narrow one that the wide one is the likelier
    assert dark.any()
    assert probabilities[dark].max() < 0.1
    assert dice(probabilities > 0.5, scar) > 0.9


def test_the_brightest_voxels_are_scar_where_the_rest_is_the_wide_component():
    scene, _ = two_tissues((0.0, 2.0, 3000), (4.0, 0.2, 1000))
    probabilities = GaussianMixture().probability(scene).ravel()
    bright = scene.values > 5.5
    assert bright.any()
    assert probabilities[bright].min() > 0.5


@settings(max_examples=15, deadline=None)
@given(
    sds=st.tuples(st.floats(0.05, 3), st.floats(0.05, 3), st.floats(0.05, 3)),
    components=st.sampled_from([(2, 1), (3, 1), (3, 2)]),
    seed=st.integers(0, 100),
)
def test_the_posterior_never_falls_as_the_intensity_rises(sds, components, seed):
    random = np.random.default_rng(seed)
    scene = line(np.concatenate([random.normal(mean, sd, 150) for mean, sd in zip((0, 2, 5), sds, strict=True)]))
    probabilities = GaussianMixture(components[0], bright=components[1], restarts=1).probability(scene).ravel()
    assert (np.diff(probabilities[np.argsort(scene.values)]) >= 0).all()


@pytest.mark.parametrize("method", [KMeans(), KMeans(neighbourhood_mm=1.5), GaussianMixture()], ids=str)
def test_scar_of_a_real_case_is_found_in_the_reference_wall(real_data, method):
    scene, scar = real_wall(real_data("myops_lge"), "Case3001")
    assert dice(method.probability(scene) > 0.5, scar) > 0.55

"""Graph cut: exactly the best of all labellings, surfaces in mm, scar in a made ring and in a real wall."""

import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rings import SPACING_MM, dice, heart_segmenter, ring, wall_of

from segmed.errors import SegmenterError
from segmed.segmenters.graphcut import GraphCut, minimum_cut, neighbour_pairs
from segmed.segmenters.intensities import Mixture
from segmed.segmenters.region import Scene, SliceBySlice

SCAR_DICE_FLOOR = 0.45  # it has 0.62


def scene_of(shape: tuple[int, ...], spacing_mm=(1.0, 1.0, 1.0), image: np.ndarray | None = None) -> Scene:
    image = np.zeros(shape, np.float32) if image is None else image
    return Scene(image, np.ones(shape, bool), spacing_mm)


def cut_energy(labels: np.ndarray, costs: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> float:
    parted = labels[pairs[:, 0]] != labels[pairs[:, 1]]
    return float(np.where(labels, costs[1], costs[0]).sum() + weights[parted].sum())


@given(seed=st.integers(0, 10_000), smoothness=st.floats(0, 2), neighbours=st.sampled_from([6, 26]))
@settings(max_examples=25, deadline=None)
def test_the_cut_is_the_best_of_all_labellings_of_a_small_grid(seed, smoothness, neighbours):
    generator = np.random.default_rng(seed)
    costs = generator.normal(size=(2, 9))
    scene = scene_of((3, 3, 1), (1.0, 1.5, 5.0), generator.normal(size=(3, 3, 1)).astype(np.float32))
    pairs, weights = neighbour_pairs(scene, neighbours=neighbours, contrast=1.0)
    energy = cut_energy(minimum_cut(costs, pairs, smoothness * weights), costs, pairs, smoothness * weights)
    every = [np.array(labels, bool) for labels in product((False, True), repeat=9)]
    best = min(cut_energy(labels, costs, pairs, smoothness * weights) for labels in every)
    assert energy <= best + (9 + len(pairs)) * 2**-20 * max(3.0, smoothness)


def test_without_smoothness_every_voxel_takes_its_cheaper_label():
    costs = np.random.default_rng(0).normal(size=(2, 1000))
    pairs, weights = neighbour_pairs(scene_of((10, 10, 10)))
    assert np.array_equal(minimum_cut(costs, pairs, 0 * weights), costs[1] < costs[0])


def test_much_smoothness_leaves_one_label():
    costs = np.random.default_rng(0).normal(size=(2, 1000))
    pairs, weights = neighbour_pairs(scene_of((10, 10, 10)))
    assert len(set(minimum_cut(costs, pairs, 100 * weights))) == 1


def test_costs_that_are_all_the_same_give_label_0():
    pairs, weights = neighbour_pairs(scene_of((3, 3, 3)))
    assert not minimum_cut(np.zeros((2, 27)), pairs, weights).any()


def test_infinite_costs_are_refused():
    with pytest.raises(SegmenterError, match="finite"):
        minimum_cut(np.full((2, 1), np.inf), np.zeros((0, 2), int), np.zeros(0))


# ---------------------------------------------------------------- surfaces


def area_mm2(inside: np.ndarray, spacing_mm: tuple[float, float, float], neighbours) -> float:
    """Of a mask's surface, as the weights count it."""
    pairs, weights = neighbour_pairs(scene_of(inside.shape, spacing_mm), neighbours=neighbours)
    flat = inside.ravel()
    return float(weights[flat[pairs[:, 0]] != flat[pairs[:, 1]]].sum() * np.prod(spacing_mm))


def grid_mm(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> list[np.ndarray]:
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, spacing_mm, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij"))


@pytest.mark.parametrize(("neighbours", "tolerance"), [(26, 0.02), (6, 0.02)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.25)])
def test_a_sphere_has_its_area(spacing_mm, neighbours, tolerance):
    x, y, z = grid_mm((50, 50, 50), spacing_mm)
    sphere = x**2 + y**2 + z**2 < 15**2
    assert area_mm2(sphere, spacing_mm, neighbours) == pytest.approx(4 * np.pi * 15**2, rel=tolerance)


def test_a_disc_in_a_slice_has_its_length():
    x, y, _ = grid_mm((64, 64, 1), (1.0, 1.0, 8.0))
    disc = x**2 + y**2 < 20**2
    assert area_mm2(disc, (1.0, 1.0, 8.0), 26) / 8 == pytest.approx(2 * np.pi * 20, rel=0.02)


def test_twenty_six_neighbours_tell_directions_less_than_six():
    straight, diagonal = np.zeros((40, 40, 40), bool), np.zeros((40, 40, 40), bool)
    straight[:20] = True
    x, y, _ = grid_mm((40, 40, 40), (1, 1, 1))
    diagonal[x + y < 0] = True
    ratios = {
        n: area_mm2(diagonal, (1.0, 1.0, 1.0), n) / area_mm2(straight, (1.0, 1.0, 1.0), n) / np.sqrt(2) for n in (6, 26)
    }
    assert abs(ratios[26] - 1) < abs(ratios[6] - 1) / 3


def test_a_surface_is_cheaper_where_intensities_differ():
    image = np.zeros((4, 4, 4), np.float32)
    image[2:] = 5
    pairs, weights = neighbour_pairs(scene_of((4, 4, 4), image=image), neighbours=6, contrast=1.0)
    _, plain = neighbour_pairs(scene_of((4, 4, 4), image=image), neighbours=6)
    across = image.ravel()[pairs[:, 0]] != image.ravel()[pairs[:, 1]]
    assert np.allclose(weights[~across], plain[~across])
    mean = 25 * across.mean()
    assert np.allclose(weights[across], plain[across] * np.exp(-25 / (2 * mean)))


def test_neighbours_outside_the_region_do_not_count():
    scene = Scene(np.zeros((3, 3, 3), np.float32), np.zeros((3, 3, 3), bool), (1.0, 1.0, 1.0))
    assert len(neighbour_pairs(scene)[0]) == 0
    scene.region[0, 0, 0] = scene.region[2, 2, 2] = True
    assert len(neighbour_pairs(scene)[0]) == 0
    scene.region[1, 1, 1] = True
    assert neighbour_pairs(scene)[0].tolist() == [[0, 1], [1, 2]]


# ---------------------------------------------------------------- scar


@pytest.mark.parametrize("neighbours", [6, 26])
def test_scar_in_a_noisy_ring_is_found_better_than_without_smoothness(neighbours):
    scene, scar = ring(noise=50)
    probabilities = GraphCut(neighbours=neighbours).probability(scene)
    assert set(np.unique(probabilities)) == {0, 1}
    assert not probabilities[~scene.region].any()
    plain = GraphCut(neighbours=neighbours, smoothness=0.0).probability(scene)
    assert dice(probabilities, scar) > 0.9
    assert dice(probabilities, scar) > dice(plain, scar) + 0.05


def test_gain_and_offset_of_the_scanner_do_not_matter():
    scene, _ = ring(noise=50)
    other = Scene(scene.image * 3.5 + 1000, scene.region, scene.spacing_mm)
    assert dice(GraphCut().probability(scene), GraphCut().probability(other)) > 0.995


def test_slices_can_be_cut_one_by_one():
    scene, scar = ring(noise=30)
    assert dice(SliceBySlice(GraphCut()).probability(scene), scar) > 0.9


def test_inside_a_known_wall_probabilities_sum_to_one():
    segmenter, volume, scar = heart_segmenter(GraphCut())
    probabilities = segmenter.probabilities(volume).as_tensor()
    assert (probabilities.sum(0) == 1).all()
    assert dice(probabilities[2].numpy(), scar) > 0.9


def test_twenty_thousand_voxels_take_less_than_two_seconds():
    scene, _ = ring(shape=(64, 64, 16), noise=50)
    scene.region[:] |= np.random.default_rng(0).random(scene.region.shape) < 0.1
    start = time.process_time()
    GraphCut(model=Mixture()).probability(scene)
    assert np.count_nonzero(scene.region) > 20_000
    assert time.process_time() - start < 2


@pytest.mark.parametrize("options", [{"smoothness": -1.0}, {"contrast": -1.0}, {"neighbours": 18}])
def test_options_without_meaning_are_refused(options):
    with pytest.raises(SegmenterError, match="neighbours"):
        GraphCut(**options)


def test_scar_in_a_real_wall(real_data):
    scene, scar = wall_of(real_data("myops_lge"), "Case3001")
    assert dice(GraphCut().probability(scene), scar) > SCAR_DICE_FLOOR
    assert SPACING_MM[2] > SPACING_MM[0]

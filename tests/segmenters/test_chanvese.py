"""Chan-Vese keeps what is larger than its smoothness, in mm, and finds two means in noise."""

import numpy as np
import pytest
from made_shapes import ball, dice, distances_mm, radius_mm, wall

from segmed.errors import SegmenterError
from segmed.segmenters.chanvese import ChanVese
from segmed.segmenters.region import Scene


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [((64, 64, 1), (1.0, 1.0, 8.0)), ((64, 32, 1), (1.0, 2.0, 8.0)), ((48, 48, 12), (1.25, 1.25, 5.0))],
    ids=str,
)
def test_a_ball_in_noise_comes_back_with_its_radius(shape, spacing_mm):
    scene = ball(shape, spacing_mm, 17.0, noise=100.0)  # half the contrast
    tissue = ChanVese(smoothness_mm=1.5).probability(scene) > 0.5
    assert radius_mm(tissue, spacing_mm) == pytest.approx(17.0, abs=0.5)
    assert dice(tissue, distances_mm(shape, spacing_mm) < 17) > 0.96


@pytest.mark.parametrize("spacing_mm", [(0.5, 0.5, 9.0), (0.5, 1.0, 9.0)])
@pytest.mark.parametrize(("smoothness_mm", "kept"), [(2.2, True), (2.8, False)])
def test_a_disc_is_kept_if_its_radius_is_above_twice_the_smoothness(spacing_mm, smoothness_mm, kept):
    shape = (round(24 / spacing_mm[0]), round(24 / spacing_mm[1]), 1)
    scene = ball(shape, spacing_mm, 5.0)
    assert (ChanVese(smoothness_mm=smoothness_mm, iterations=3000).probability(scene) > 0.5).any() == kept


@pytest.mark.parametrize(("smoothness_mm", "kept"), [(1.4, True), (2.0, False)])
def test_a_ball_is_kept_if_its_radius_is_above_three_times_the_smoothness(smoothness_mm, kept):
    scene = ball((24, 24, 12), (0.75, 0.75, 1.5), 5.0)
    assert (ChanVese(smoothness_mm=smoothness_mm, iterations=3000).probability(scene) > 0.5).any() == kept


def test_without_smoothness_the_border_is_halfway_between_the_means():
    scene = ball((64, 64, 1), (1.0, 1.0, 8.0), 20.0, noise=50.0)
    tissue = ChanVese(smoothness_mm=0.0).probability(scene) > 0.5
    halfway = (scene.image[tissue].mean() + scene.image[~tissue].mean()) / 2
    wrong = tissue != (scene.image > halfway)
    assert np.abs(scene.image[wrong] - halfway).max(initial=0) < 2  # of a contrast of 200


def test_the_darker_tissue_is_what_the_brighter_leaves():
    scene, _ = wall(noise=60)
    bright = ChanVese().probability(scene) > 0.5
    dark = ChanVese(tissue="dark").probability(scene) > 0.5
    assert (bright ^ dark)[scene.region].mean() > 0.995


def test_a_named_start_gives_the_first_means():
    """Three tissues, two means: the start decides whether the middle one goes with the bright or with the dark."""
    image = np.repeat(np.repeat([0.0, 4.0, 10.0], 8)[:, None, None], 8, axis=1).astype(np.float32)
    brightest, upper = image > 9, image > 3
    scene = Scene(image, np.ones_like(upper), (1.0, 1.0, 1.0), {"all": upper, "core": brightest})
    assert np.array_equal(ChanVese(start="core").probability(scene) > 0.5, brightest)
    with pytest.raises(SegmenterError, match="no mask is called 'rim'"):
        ChanVese(start="rim").probability(scene)


def test_thick_slices_are_hardly_bound_to_each_other():
    """A speck in one of three slices: smoothing across thin slices takes it away, across thick ones leaves it."""
    image = np.zeros((20, 20, 3), np.float32)
    image[5:15, 5:15, 1] = 1.0
    region = np.ones_like(image, bool)
    thin = ChanVese(smoothness_mm=0.6).probability(Scene(image, region, (1.0, 1.0, 0.5)))
    thick = ChanVese(smoothness_mm=0.6).probability(Scene(image, region, (1.0, 1.0, 12.0)))
    assert not thin.any()
    assert dice(thick > 0.5, image > 0.5) > 0.95


@pytest.mark.parametrize("options", [{"smoothness_mm": -1.0}, {"iterations": 0}, {"tolerance": 0.0}], ids=str)
def test_an_option_without_meaning_is_refused(options):
    with pytest.raises(SegmenterError, match=next(iter(options))):
        ChanVese(**options)

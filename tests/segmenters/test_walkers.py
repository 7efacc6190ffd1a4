"""The random walker's probabilities where they can be worked out, and against skimage where skimage applies."""

import numpy as np
import pytest
from made_shapes import ball, dice, distances_mm
from skimage.segmentation import random_walker

from segmed.errors import SegmenterError
from segmed.segmenters.region import Scene
from segmed.segmenters.walkers import RandomWalker

GIVEN = RandomWalker(tissue_seeds="yes", rest_seeds="no")


def bar(shape=(11, 4, 1), spacing_mm=(1.0, 1.0, 5.0)) -> Scene:
    """Bright and dark stripes along a bar, seeds of the two kinds at its ends."""
    image = np.zeros(shape, np.float32)
    image[:, ::2] = 1.0
    yes, no = np.zeros(shape, bool), np.zeros(shape, bool)
    yes[0], no[-1] = True, True
    return Scene(image, np.ones(shape, bool), spacing_mm, {"yes": yes, "no": no})


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 5.0), (2.0, 1.0, 5.0), (0.5, 3.0, 1.0)])
def test_between_two_ends_the_probability_falls_evenly(spacing_mm):
    probabilities = GIVEN.probability(bar(spacing_mm=spacing_mm))
    assert probabilities == pytest.approx(np.broadcast_to(np.linspace(1, 0, 11)[:, None, None], (11, 4, 1)), abs=1e-4)


def test_an_edge_takes_the_drop_that_its_weight_gives():
    """A chain with one step of d = 2 SD: resistances 1, ..., 1, 1 / (exp(-4 beta) + floor), 1, ..., 1 in series."""
    image = np.repeat([0.0, 1.0], 3).astype(np.float32)[:, None, None]
    yes, no = np.arange(6) == 5, np.arange(6) == 0
    scene = Scene(image, np.ones_like(image, bool), (1.0,) * 3, {"yes": yes[:, None, None], "no": no[:, None, None]})
    probabilities = RandomWalker(tissue_seeds="yes", rest_seeds="no", beta=0.5).probability(scene).ravel()
    resistances = np.array([1, 1, 1 / ((np.exp(-2) + 1e-4) / (1 + 1e-4)), 1, 1])
    assert probabilities == pytest.approx(np.r_[0, np.cumsum(resistances)] / resistances.sum(), abs=1e-4)


@pytest.mark.parametrize("shape", [(24, 20, 1), (12, 10, 8)])
def test_on_a_whole_box_of_cubes_it_is_skimages_random_walker(shape):
    scene = ball(shape, (1.0, 1.0, 1.0), 4.0, noise=60.0)
    distance = distances_mm(shape, (1.0, 1.0, 1.0))
    scene.masks.update(yes=distance < 2, no=distance > 6)
    beta = 0.5
    labels = np.where(distance < 2, 1, np.where(distance > 6, 2, 0))
    standard = ((scene.image - scene.image.mean()) / scene.image.std()).astype(np.float64)
    theirs = random_walker(standard, labels, 10 * beta, mode="cg_j", tol=1e-8, return_full_prob=True)[0]
    ours = RandomWalker(tissue_seeds="yes", rest_seeds="no", beta=beta).probability(scene)
    assert np.abs(ours - theirs).max() < 2e-3


def test_a_disc_in_noise_comes_back():
    scene = ball((64, 64, 1), (1.0, 1.0, 8.0), 17.0, noise=60.0)
    tissue = RandomWalker().probability(scene) > 0.5
    assert dice(tissue, distances_mm((64, 64, 1), (1.0, 1.0, 8.0)) < 17) > 0.97


def test_walks_between_thick_slices_are_rare():
    """Seeds of the tissue in one slice, of the rest in the next: open voxels go with their slice, thick ones more."""
    image = np.zeros((9, 9, 2), np.float32)
    image[4, 4] = 0.01
    yes, no = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    yes[::8, ::8, 0], no[::8, ::8, 1] = True, True
    means = []
    for thickness in (1.0, 4.0, 32.0):
        scene = Scene(image, np.ones_like(yes), (1.0, 1.0, thickness), {"yes": yes, "no": no})
        means.append(RandomWalker(tissue_seeds="yes", rest_seeds="no", beta=1e-6).probability(scene)[..., 0].mean())
    assert means == sorted(means)
    assert means[0] < 0.75
    assert means[2] > 0.95


def test_pieces_without_a_seed_are_not_found_and_pieces_of_one_kind_are_of_that_kind():
    image = np.tile([0.0, 1.0], 8).reshape(16, 1, 1).repeat(4, axis=1).astype(np.float32)
    region = np.ones_like(image, bool)
    region[[4, 8]] = False
    yes, no = np.zeros_like(region), np.zeros_like(region)
    yes[0], no[9], yes[15] = True, True, True
    probabilities = GIVEN.probability(Scene(image, region, (1.0,) * 3, {"yes": yes, "no": no}))
    assert probabilities[:4] == pytest.approx(1.0)
    assert (probabilities[4:10] == 0).all()
    assert (np.diff(probabilities[9:, 0, 0]) > 0).all()


def test_a_seed_by_itself_leaves_the_other_pieces_alone():
    scene = bar((11, 5, 1))
    region = scene.region.copy()
    region[:, 0] = False
    region[3, 0] = True
    region[:, 1] = False
    seeds = {name: mask.copy() for name, mask in scene.masks.items()}
    seeds["yes"][3, 0] = True
    probabilities = GIVEN.probability(Scene(scene.image, region, scene.spacing_mm, seeds))
    assert probabilities[3, 0, 0] == 1
    assert probabilities[:, 2:, 0] == pytest.approx(np.broadcast_to(np.linspace(1, 0, 11)[:, None], (11, 3)), abs=1e-4)


def test_given_seeds_keep_their_kind_against_those_from_intensities():
    scene = ball((32, 32, 1), (1.0, 1.0, 8.0), 8.0, noise=10.0)
    corner = np.zeros(scene.region.shape, bool)
    corner[:3, :3] = True
    scene.masks["scar"] = corner
    assert (RandomWalker(tissue_seeds="scar").probability(scene)[corner] == 1).all()
    scene.masks["remote"] = distances_mm(corner.shape, scene.spacing_mm) < 3
    assert (RandomWalker(rest_seeds="remote").probability(scene)[scene.masks["remote"]] == 0).all()


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ({}, "no mask is called 'yes'"),
        ({"yes": np.zeros((11, 4, 1), bool), "no": np.ones((11, 4, 1), bool)}, "'yes' has no voxel"),
        ({"yes": np.ones((11, 4, 1), bool), "no": np.ones((11, 4, 1), bool)}, "44 voxels are seeds of the tissue and"),
    ],
    ids=["none", "empty", "both"],
)
def test_seeds_that_are_none_are_refused(masks, said):
    scene = bar()
    with pytest.raises(SegmenterError, match=said):
        GIVEN.probability(Scene(scene.image, scene.region, scene.spacing_mm, masks))


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"certain": 0.0}, {"certain": 1.5}, {"sigma_mm": -1.0}], ids=str)
def test_an_option_without_meaning_is_refused(options):
    with pytest.raises(SegmenterError, match=next(iter(options))):
        RandomWalker(**options)

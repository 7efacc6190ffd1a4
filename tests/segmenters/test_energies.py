"""Max-flow as methods: scar in a made ring and in a real wall, a tree of tissues inside regions, histograms."""

import numpy as np
import pytest
import torch
from made_rings import HEART, SPACING_MM, dice, heart_segmenter, heart_volume, ring, wall_of
from monai.data import MetaTensor

from segmed.errors import SegmenterError, VolumeError
from segmed.labels import LabelSet
from segmed.segmenters.energies import HierarchicalFlow, PottsFlow
from segmed.segmenters.intensities import FromHistograms, Histograms, Mixture
from segmed.segmenters.region import Known, Scene, SliceBySlice
from segmed.segmenters.segmenter import Segmenter

TREE = {"background": None, "heart": {"blood": None, "wall": {"myocardium": None, "scar": None}}}
TISSUES = LabelSet(("blood", "myocardium", "scar"), ((1,), (2,), (3,)))
SCAR_DICE_FLOOR = 0.45  # it has 0.64


def whole(noise: float) -> tuple[Scene, Scene]:
    """A made ring as it is, and with all of the image as its region."""
    scene, _ = ring(noise=noise)
    masks = {"blood": scene.masks["pool"], "myocardium": scene.masks["myocardium"], "scar": scene.masks["scar"]}
    return scene, Scene(scene.image, np.ones_like(scene.region), scene.spacing_mm, masks)


def in_wall() -> Histograms:
    return Histograms.fit([ring(noise=40)[0]], ("myocardium", "scar"))


# ---------------------------------------------------------------- scar against the rest


def test_scar_in_a_noisy_ring_is_found_better_than_without_smoothness():
    scene, scar = ring(noise=50)
    probabilities = PottsFlow().probability(scene)
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert not probabilities[~scene.region].any()
    assert dice(probabilities, scar) > 0.9
    assert dice(probabilities, scar) > dice(PottsFlow(smoothness=0.0).probability(scene), scar) + 0.05


@pytest.mark.parametrize("method", [PottsFlow(), PottsFlow(model=FromHistograms(in_wall()))], ids=["mixture", "cases"])
def test_gain_and_offset_of_the_scanner_do_not_matter(method):
    scene, _ = ring(noise=50)
    other = Scene(scene.image * 3.5 + 1000, scene.region, scene.spacing_mm)
    assert dice(method.probability(scene), method.probability(other)) > 0.995


def test_histograms_of_cases_take_the_place_of_the_mixture():
    scene, scar = ring(noise=50)
    assert dice(PottsFlow(model=FromHistograms(in_wall())).probability(scene), scar) > 0.9


def test_slices_can_be_parted_one_by_one():
    scene, scar = ring(noise=30)
    assert dice(SliceBySlice(PottsFlow()).probability(scene), scar) > 0.9


def test_one_that_stops_too_early_says_so(caplog):
    scene, _ = ring(noise=50)
    PottsFlow().probability(scene)
    assert not caplog.records
    PottsFlow(iterations=2).probability(scene)
    assert "max-flow stopped after 2 iterations" in caplog.text


def test_it_is_the_same_each_time():
    scene, _ = ring(noise=50)
    assert np.array_equal(PottsFlow().probability(scene), PottsFlow().probability(scene))


def test_inside_a_known_wall_probabilities_sum_to_one():
    segmenter, volume, scar = heart_segmenter(PottsFlow())
    probabilities = segmenter.probabilities(volume).as_tensor()
    assert torch.allclose(probabilities.sum(0), torch.ones(probabilities.shape[1:]))
    assert dice(probabilities[2].numpy(), scar) > 0.9


@pytest.mark.parametrize(
    ("voxels", "value", "said"), [(0, 1.0, "0 voxels"), (1, 1.0, "1 voxels"), (50, 7.0, "7 throughout")]
)
def test_a_region_without_two_tissues_is_refused_in_one_line(voxels, value, said):
    region = np.zeros((10, 10, 1), bool)
    region.ravel()[:voxels] = True
    scene = Scene(np.full(region.shape, value, np.float32), region, SPACING_MM)
    with pytest.raises(SegmenterError, match=said):
        Mixture().costs(scene)


def test_brighter_never_fits_the_scar_less():
    generator = np.random.default_rng(0)
    image = np.concatenate((generator.normal(100, 40, 500), generator.normal(200, 5, 200))).astype(np.float32)
    scene = Scene(image.reshape(-1, 1, 1), np.ones((700, 1, 1), bool), SPACING_MM)
    costs = Mixture().costs(scene)
    surplus = (costs[0] - costs[1])[np.argsort(image)]
    assert (np.diff(surplus) >= -1e-4).all()
    assert surplus[0] < 0 < surplus[-1]


def test_scar_in_a_real_wall(real_data):
    scene, scar = wall_of(real_data("myops_lge"), "Case3001")
    assert dice(PottsFlow().probability(scene), scar) > SCAR_DICE_FLOOR


# ---------------------------------------------------------------- histograms


def test_histograms_come_back_from_their_file(tmp_path):
    histograms = in_wall()
    histograms.save(tmp_path / "model.npz")
    read = Histograms.load(tmp_path / "model.npz")
    assert read.names == histograms.names
    assert np.array_equal(read.probability, histograms.probability)


def test_what_is_no_file_of_histograms_is_refused(tmp_path):
    np.savez(tmp_path / "pickled.npz", names=np.array([{}], dtype=object), probability=np.ones((1, 2)))
    (tmp_path / "text.npz").write_text("none")
    np.savez(tmp_path / "odd.npz", names=np.array(["a"]), probability=np.ones((2, 2)))
    for path in (*tmp_path.iterdir(), tmp_path / "absent.npz"):
        with pytest.raises(SegmenterError, match="holds no histograms"):
            Histograms.load(path)


def test_a_histogram_tells_how_often_a_label_has_an_intensity():
    image = np.repeat(np.arange(10, dtype=np.float32), 10).reshape(100, 1, 1)
    low = image < 5
    scene = Scene(image, np.ones(image.shape, bool), SPACING_MM, {"low": low})
    histograms = Histograms.fit([scene], ("low", "background"), blur_bins=0)
    assert histograms.probability.sum(1) == pytest.approx([1, 1])
    costs = histograms.costs(scene, ("low", "background"))
    assert np.allclose(np.exp(-costs[0][low]), 0.2, atol=1e-3)
    assert np.array_equal(costs.argmin(0) == 0, low)


@pytest.mark.parametrize(
    ("names", "said"),
    [(("myocardium", "oedema"), "no mask of 'oedema'"), (("myocardium", "pool"), "no voxel of 'pool'")],
)
def test_a_label_that_no_case_holds_is_refused(names, said):
    with pytest.raises(SegmenterError, match=said):
        Histograms.fit([ring(noise=10)[0]], names)


def test_histograms_of_no_case_are_refused():
    with pytest.raises(SegmenterError, match="at least one case"):
        Histograms.fit([], ("scar",))


def test_a_label_that_has_no_histogram_is_refused():
    with pytest.raises(SegmenterError, match="no 'oedema'"):
        in_wall().costs(ring(noise=10)[0], ("oedema",))


# ---------------------------------------------------------------- a tree of tissues


def label_with_tree(
    region: Segmenter | None, confined, histograms: Histograms, image: MetaTensor, **options
) -> MetaTensor:
    segmenter = HierarchicalFlow(histograms, TREE, labels=TISSUES, region=region, confined=confined, **options)
    return segmenter.probabilities(image)


def test_inside_the_heart_wall_and_pool_hold_their_tissues():
    scene, _ = whole(40)
    image, labels = heart_volume(ring(noise=40)[0])
    confined = {"background": ("background",), "blood": ("pool",), "wall": ("wall",)}
    probabilities = label_with_tree(Known(labels, HEART), confined, in_wall(), image).as_tensor()
    assert torch.allclose(probabilities.sum(0), torch.ones(probabilities.shape[1:]))
    assert np.array_equal(probabilities[1].numpy() > 0.5, scene.masks["pool"])
    assert not probabilities[2:, torch.from_numpy(~scene.region)].any()
    assert dice(probabilities[3].numpy(), scene.masks["scar"]) > 0.9


def test_without_a_region_the_tree_is_held_by_intensities_and_smoothness_alone():
    _, scene = whole(10)
    names = ("background", "blood", "myocardium", "scar")
    image, _ = heart_volume(ring(noise=10)[0])
    probabilities = label_with_tree(None, None, Histograms.fit([scene], names), image, smoothness=0.5).as_tensor()
    assert torch.allclose(probabilities.sum(0), torch.ones(probabilities.shape[1:]), atol=1e-5)
    wall = probabilities[2].numpy() > 0.5
    assert dice(wall, scene.masks["myocardium"]) > 0.9


def test_where_the_region_is_empty_all_is_background():
    image, labels = heart_volume(ring(noise=10)[0])
    empty = Known(MetaTensor(torch.zeros_like(labels.as_tensor()), affine=labels.affine), HEART)
    probabilities = label_with_tree(
        empty, {"heart": ("wall", "pool"), "background": ("background",)}, in_blood_too(), image
    )
    assert (probabilities[0] == 1).all()


def in_blood_too() -> Histograms:
    _, scene = whole(40)
    return Histograms.fit([scene], ("blood", "myocardium", "scar"))


def test_gain_and_offset_do_not_matter_to_the_tree():
    image, labels = heart_volume(ring(noise=40)[0])
    confined = {"background": ("background",), "blood": ("pool",), "wall": ("wall",)}
    other = MetaTensor(image.as_tensor() * 2 + 500, affine=image.affine)
    probabilities = [label_with_tree(Known(labels, HEART), confined, in_wall(), volume) for volume in (image, other)]
    assert (probabilities[0].argmax(0) != probabilities[1].argmax(0)).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"confined": None}, SegmenterError, "go together"),
        ({"confined": {"atrium": ("wall",)}}, SegmenterError, "no node"),
        ({"confined": {"heart": ("atrium",)}}, VolumeError, "atrium"),
        ({"confined": {"background": ("background",)}}, SegmenterError, "nothing is confined"),
        ({"confined": {"heart": ("wall",)}}, SegmenterError, "leaf 'background' has no histogram"),
        ({"labels": LabelSet(("wall",), ((1,),))}, SegmenterError, "no leaf"),
    ],
)
def test_names_that_do_not_fit_together_are_refused(changes, error, said):
    _, labels = heart_volume(ring(noise=10)[0])
    options = {"labels": TISSUES, "region": Known(labels, HEART), "confined": {"heart": ("wall", "pool")}, **changes}
    with pytest.raises(error, match=said):
        HierarchicalFlow(in_blood_too(), TREE, **options)

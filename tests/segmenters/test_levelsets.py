"""Geodesic active contours stop at the edges of discs, balls and rings of known size."""

import numpy as np
import pytest
import torch
from made_shapes import ball, dice, distances_mm, radius_mm, wall
from monai.data import MetaTensor

from segmed.errors import SegmenterError, VolumeError
from segmed.labels import LabelSet
from segmed.metrics.surfaces import surface_distances
from segmed.segmenters.levelsets import Around, GeodesicActiveContour
from segmed.segmenters.region import Inside, Known, Scene

SHAPES = [
    ((64, 64, 1), (1.0, 1.0, 10.0)),
    ((96, 96, 1), (0.6, 0.6, 10.0)),
    ((64, 32, 1), (1.0, 2.0, 10.0)),
    ((1, 64, 64), (10.0, 1.0, 1.0)),
    ((48, 48, 48), (1.25, 1.25, 1.25)),
    ((60, 60, 15), (1.0, 1.0, 4.0)),
]


@pytest.mark.parametrize(("shape", "spacing_mm"), SHAPES, ids=str)
@pytest.mark.parametrize(
    ("start_mm", "balloon"), [(8.0, 1.0), (23.0, -1.0), (14.5, 0.0)], ids=["grow", "shrink", "pull"]
)
def test_a_contour_ends_on_the_edge_of_a_ball(shape, spacing_mm, start_mm, balloon):
    true = 17.0
    scene = ball(shape, spacing_mm, true, noise=5.0)
    distance = distances_mm(shape, spacing_mm)
    scene.masks["rough"] = distance < start_mm
    tissue = GeodesicActiveContour(start="rough", balloon=balloon).probability(scene) > 0.5
    used = [length for length, n in zip(spacing_mm, shape, strict=True) if n > 1]
    mean_mm = np.mean(np.concatenate(surface_distances(tissue, distance < true, spacing_mm)))
    assert mean_mm < 0.35 * max(used)
    assert max(map(np.max, surface_distances(tissue, distance < true, spacing_mm))) <= 1.5 * max(used)


def test_without_a_mask_it_starts_from_the_brightest_voxels():
    scene = ball((64, 64, 1), (1.0, 1.0, 8.0), 17.0, noise=10.0)
    tissue = GeodesicActiveContour().probability(scene) > 0.5
    assert radius_mm(tissue, scene.spacing_mm) == pytest.approx(17.0, abs=0.5)


def test_a_rough_wall_moves_onto_both_its_borders():
    scene, _ = wall(noise=5.0, slices=1)
    across = distances_mm(scene.image.shape, scene.spacing_mm)
    true = (across >= 20) & (across <= 30)
    image = np.where(across < 20, 300.0, np.where(true, 100.0, 200.0)).astype(np.float32)
    rough = (across >= 22) & (across <= 32.5)
    moved = GeodesicActiveContour(start="rough", balloon=0).probability(
        Scene(image, np.ones_like(true), scene.spacing_mm, {"rough": rough})
    )
    assert dice(rough, true) < 0.83
    assert dice(moved > 0.5, true) > 0.95


@pytest.mark.parametrize(("start_mm", "survives"), [(4.0, False), (9.0, True)])
def test_a_contour_of_radius_below_smoothness_over_balloon_shrinks_away(start_mm, survives):
    scene = ball((64, 64, 1), (1.0, 1.0, 8.0), 26.0)
    scene.masks["seed"] = distances_mm((64, 64, 1), (1.0, 1.0, 8.0)) < start_mm
    method = GeodesicActiveContour(start="seed", smoothness_mm=6.0, attraction_mm=0.0, reach_mm=30.0)
    tissue = method.probability(scene) > 0.5
    assert tissue.any() == survives
    assert (radius_mm(tissue, scene.spacing_mm) > start_mm) == survives


def test_reach_bounds_how_far_a_contour_moves():
    scene = ball((64, 64, 1), (1.0, 1.0, 8.0), 26.0)
    scene.masks["seed"] = distances_mm((64, 64, 1), (1.0, 1.0, 8.0)) < 8
    method = GeodesicActiveContour(start="seed", smoothness_mm=0.0, attraction_mm=0.0, reach_mm=6.0)
    assert 12 < radius_mm(method.probability(scene) > 0.5, scene.spacing_mm) <= 14.2


def test_a_start_is_narrowed_and_widened_in_mm():
    scene = ball((64, 64, 1), (0.5, 0.5, 8.0), 8.0)
    scene.masks["rough"] = distances_mm((64, 64, 1), (0.5, 0.5, 8.0)) < 10
    for margin_mm in (-4.0, 3.0):
        method = GeodesicActiveContour(
            start="rough", start_margin_mm=margin_mm, balloon=0, smoothness_mm=0, attraction_mm=0, reach_mm=0.01
        )
        tissue = method.probability(scene) > 0.5
        assert radius_mm(tissue, scene.spacing_mm) == pytest.approx(10 + margin_mm, abs=0.3)


def test_a_contour_stays_in_its_region():
    scene, _ = wall(noise=5.0)
    method = GeodesicActiveContour(edge_sd_per_mm=50.0, attraction_mm=0.0, reach_mm=80.0)  # edges hold nothing
    open_wall = method.probability(scene) > 0.5
    assert dice(open_wall, scene.region) > 0.95
    assert not (open_wall & ~scene.region).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "atrium"}, "no mask is called 'atrium': choose one of those beside the region \\(pool\\)"),
        ({"start": "pool"}, "'pool' has no voxel in the region"),
        ({"start_margin_mm": -50.0}, "nothing is left of the start"),
        ({"start_margin_mm": 500.0}, "the start fills the region"),
    ],
    ids=str,
)
def test_a_start_that_is_none_is_refused(options, said):
    scene, _ = wall()
    with pytest.raises(SegmenterError, match=said):
        GeodesicActiveContour(**options).probability(scene)


@pytest.mark.parametrize(
    "options", [{"reach_mm": 0.0}, {"edge_sd_per_mm": -1.0}, {"sigma_mm": -1.0}, {"seed_share": 1.0}], ids=str
)
def test_an_option_without_meaning_is_refused(options):
    with pytest.raises(SegmenterError, match=next(iter(options))):
        GeodesicActiveContour(**options)


# ---------------------------------------------------------------- surroundings

HEART = LabelSet(("wall", "pool"), ((1,), (5,)))


def rough_heart() -> MetaTensor:
    """A rough pool of 6 mm with a wall on one side of it, in voxels of 2 mm."""
    across = distances_mm((32, 32, 1), (2.0, 2.0, 8.0))
    labels = np.where(across < 8, 2, 0).astype(np.uint8)
    labels[:8] = 1
    return MetaTensor(torch.from_numpy(labels)[None], affine=torch.diag(torch.tensor([2.0, 2.0, 8.0, 1.0])).double())


def test_surroundings_reach_as_far_as_the_margin_and_spare_other_labels():
    map = rough_heart()
    around = Around(Known(map, HEART), "pool", margin_mm=16.0)
    indices = around(map)[0].numpy()
    before = map.numpy()[0]
    across = distances_mm((32, 32, 1), (2.0, 2.0, 8.0))
    assert np.array_equal(indices == 2, before == 2)
    assert np.array_equal(indices == 1, before == 1)
    assert across[indices == 3].max() <= 8 + 16
    assert across[(indices == 0) & (before == 0)].min() > 8 + 16 - 2
    giving = Around(Known(map, HEART), "pool", margin_mm=16.0, others=("wall",))(map)[0].numpy()
    assert (giving[7, 12:20] == 3).all()
    assert around.labels.values == ((1,), (5,), (6,))


def test_a_rough_pool_of_a_segmenter_moves_onto_the_edges_of_the_image():
    map = rough_heart()
    map[map == 1] = 0
    scene = ball((32, 32, 1), (2.0, 2.0, 8.0), 14.0, noise=5.0)
    pool = LabelSet(("pool",), ((1,),))
    segmenter = Inside(
        GeodesicActiveContour(start="pool"),
        Around(Known(map, HEART), "pool", margin_mm=14.0),
        within=("pool", "around"),
        target="pool",
        rest=None,
        labels=pool,
    )
    moved_pool = segmenter(MetaTensor(torch.from_numpy(scene.image)[None], affine=map.affine))[0].numpy() == 1
    assert radius_mm(moved_pool, scene.spacing_mm) == pytest.approx(14.0, abs=1.0)


def test_surroundings_of_nothing_are_none_and_bad_ones_are_refused():
    map = rough_heart()
    map[...] = 0
    assert (Around(Known(map, HEART), "pool", margin_mm=5.0)(map) == 0).all()
    with pytest.raises(SegmenterError, match="margin_mm is 0"):
        Around(Known(map, HEART), "pool", margin_mm=0.0)
    with pytest.raises(VolumeError, match="atrium"):
        Around(Known(map, HEART), "atrium", margin_mm=1.0)


def test_the_blood_pool_of_a_real_heart_grows_back_from_half_its_radius(real_data):
    from segmed.volumes import read_label_volume, read_volume, spacing_mm

    case = sorted(real_data("acdc").rglob("*_gt.nii.gz"))[0]
    label = read_label_volume(case).numpy()[0]
    image = read_volume(case.with_name(case.name.replace("_gt", "")))
    middle = [label.shape[2] // 2]
    spacing = spacing_mm(image.affine.numpy())
    pool = label[..., middle] == 3
    scene = Scene(image.numpy()[0][..., middle], np.ones_like(pool), spacing, {"pool": pool})
    tissue = GeodesicActiveContour(start="pool", start_margin_mm=-6.0, reach_mm=20.0).probability(scene) > 0.5
    assert dice(tissue, pool) > 0.8

"""What every contour and walker keeps to: the region, the scale of MR, spacing, and errors of one line."""

import numpy as np
import pytest
import torch
from made_shapes import dice, wall
from monai.data import MetaTensor

from segmed.errors import SegmenterError
from segmed.labels import LabelSet
from segmed.segmenters.chanvese import ChanVese
from segmed.segmenters.levelsets import GeodesicActiveContour
from segmed.segmenters.livewire import LiveWire
from segmed.segmenters.region import Inside, Known, Scene, SliceBySlice
from segmed.segmenters.walkers import RandomWalker
from segmed.volumes import read_label_volume, read_volume, spacing_mm

SCAR_CONTOUR = [(46, 24), (43, 36), (36, 43), (24, 46), (24, 37), (30, 35), (35, 30), (37, 24)]
METHODS = {
    "geodesic": GeodesicActiveContour(),
    "chan-vese": ChanVese(),
    "random walker": RandomWalker(),
    "live wire": LiveWire(points_voxels=dict.fromkeys(range(3), SCAR_CONTOUR)),
}
AUTOMATIC = {name: method for name, method in METHODS.items() if name != "live wire"}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_automatic_method = pytest.mark.parametrize("method", AUTOMATIC.values(), ids=AUTOMATIC)


@every_method
def test_the_scar_of_a_noisy_wall_comes_back(method):
    scene, scar = wall()
    assert dice(method.probability(scene) > 0.5, scar) > 0.93


@every_automatic_method
def test_slice_by_slice_the_scar_comes_back_too(method):
    scene, scar = wall(seed=1)
    assert dice(SliceBySlice(method).probability(scene) > 0.5, scar) > 0.93


@every_method
def test_probabilities_are_float32_in_0_to_1_and_0_outside_the_region(method):
    scene, _ = wall(noise=80)
    probabilities = method.probability(scene)
    assert probabilities.shape == scene.image.shape
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert (probabilities[~scene.region] == 0).all()


@every_method
@pytest.mark.parametrize(("factor", "offset"), [(4.0, 0.0), (0.25, 500.0), (3.7, -120.0)])
def test_the_scale_of_the_intensities_means_nothing(method, factor, offset):
    scene, _ = wall(noise=60)
    changed = Scene(scene.image * np.float32(factor) + np.float32(offset), scene.region, scene.spacing_mm, scene.masks)
    difference = np.abs(method.probability(changed) - method.probability(scene))[scene.region]
    assert difference.mean() < 1e-3  # rounding may turn a voxel that stood on the edge


@every_method
def test_the_same_scene_gives_the_same_bits(method):
    scene, _ = wall(noise=60)
    assert np.array_equal(method.probability(scene), method.probability(scene))


@every_automatic_method
def test_what_lies_outside_the_region_means_nothing(method):
    scene, _ = wall(noise=60)
    other = np.where(scene.region, scene.image, -1e4).astype(np.float32)
    changed = Scene(other, scene.region, scene.spacing_mm, scene.masks)
    assert np.array_equal(method.probability(changed), method.probability(scene))


@every_method
def test_a_segmenter_of_it_gives_probabilities_that_sum_to_one(method):
    scene, scar = wall()
    affine = torch.diag(torch.tensor([*scene.spacing_mm, 1.0], dtype=torch.float64))
    map = MetaTensor(torch.from_numpy(scene.region.astype(np.uint8))[None], affine=affine)
    segmenter = Inside(
        method,
        Known(map, LabelSet(("wall",), ((1,),))),
        within=("wall",),
        target="scar",
        rest="myocardium",
        labels=LabelSet(("myocardium", "scar"), ((1,), (2,))),
    )
    probabilities = segmenter.probabilities(MetaTensor(torch.from_numpy(scene.image)[None], affine=affine)).as_tensor()
    assert torch.allclose(probabilities.sum(0), torch.ones(scene.image.shape), atol=1e-6)
    assert dice(probabilities.argmax(0).numpy() == 2, scar) > 0.93


@every_automatic_method
@pytest.mark.parametrize(
    ("region", "value", "said"),
    [
        (np.zeros((4, 4, 2), bool), 1.0, "the region is empty"),
        (np.ones((4, 4, 2), bool), 7.0, "all 32 voxels of the region have the intensity 7"),
        (np.arange(32).reshape(4, 4, 2) == 5, 7.0, "all 1 voxels"),
        (np.ones((4, 4, 2), bool), np.nan, "NaN or infinite"),
    ],
    ids=["empty", "constant", "one voxel", "NaN"],
)
def test_a_region_without_meaning_is_refused_in_one_line(method, region, value, said):
    scene = Scene(np.full((4, 4, 2), value, np.float32), region, (1.0, 1.0, 5.0))
    with pytest.raises(SegmenterError, match=said) as error:
        method.probability(scene)
    assert "\n" not in str(error.value)


@every_automatic_method
@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 12, 1), (1, 1, 3), (12, 9, 1), (1, 12, 9), (12, 9, 2)])
def test_lines_slices_and_pairs_of_voxels_are_told_apart(method, shape):
    """The half of larger index is bright: all of it is found, but that a contour has round corners and no line."""
    numbers = np.arange(np.prod(shape)).reshape(shape)
    bright = numbers >= numbers.size / 2
    probabilities = method.probability(
        Scene(np.where(bright, 9, 1).astype(np.float32), np.ones(shape, bool), (1.0, 1.0, 1.0))
    )
    if isinstance(method, GeodesicActiveContour):
        assert (probabilities[bright] > 0.5).mean() > 0.85 if sorted(shape)[1] > 1 else not probabilities.any()
        assert not probabilities[~bright].any()
    else:
        assert np.array_equal(probabilities > 0.5, bright)


@pytest.mark.parametrize(
    ("method", "floor"),
    [
        (SliceBySlice(GeodesicActiveContour()), 0.5),
        (SliceBySlice(ChanVese()), 0.55),
        (SliceBySlice(RandomWalker()), 0.55),
    ],
    ids=AUTOMATIC,
)
def test_scar_inside_a_real_wall(real_data, method, floor):
    case = sorted(real_data("myops_lge").glob("Case*"))[0]
    image, label = read_volume(case / f"{case.name}_LGE.nii.gz"), read_label_volume(case / f"{case.name}_gd.nii.gz")
    values = label.numpy()[0]
    scene = Scene(image.numpy()[0], np.isin(values, (200, 1220, 2221)), spacing_mm(image.affine.numpy()))
    assert dice(method.probability(scene) > 0.5, values == 2221) > floor

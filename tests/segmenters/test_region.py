"""Classical methods as segmenters: the region decides where, the method what."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.errors import SegmenterError, VolumeError
from segmed.labels import LabelSet
from segmed.segmenters.region import Everywhere, Inside, Known, Scene, SliceBySlice, TissueMethod

HEART = LabelSet(("wall", "pool"), ((1,), (2,)))
RESULT = LabelSet(("myocardium", "scar", "pool"), ((1,), (2,), (3,)))
AFFINE = np.diag([1.5, 1.5, 8.0, 1.0])


class Brighter(TissueMethod):
    """Scar is what is brighter than the region's mean; remembers what it saw."""

    def __init__(self):
        self.seen = []

    def probability(self, scene: Scene) -> np.ndarray:
        self.seen.append(scene)
        return ((scene.image > scene.values.mean()) & scene.region).astype(np.float32)


def heart() -> tuple[MetaTensor, MetaTensor]:
    """An image of 4 x 4 x 2 with a wall in the first two rows, of which the first is bright; a pool in the third."""
    image = torch.zeros(1, 4, 4, 2)
    image[0, 0], image[0, 1], image[0, 2], image[0, 3] = 9.0, 1.0, 9.0, 9.0
    labels = torch.zeros(1, 4, 4, 2, dtype=torch.uint8)
    labels[0, :2], labels[0, 2] = 1, 2
    return MetaTensor(image, affine=torch.from_numpy(AFFINE)), MetaTensor(labels, affine=torch.from_numpy(AFFINE))


def inside(method: TissueMethod, map: MetaTensor, **changes) -> Inside:
    options = {"within": ("wall",), "target": "scar", "rest": "myocardium", "labels": RESULT, **changes}
    return Inside(method, Known(map, HEART), **options)


def test_scar_is_sought_in_the_wall_alone_and_the_rest_of_it_is_myocardium():
    image, map = heart()
    result = inside(Brighter(), map)(image)[0]
    assert (result[0] == 2).all()
    assert (result[1] == 1).all()
    assert (result[2] == 3).all()
    assert (result[3] == 0).all()


def test_the_method_sees_the_region_the_spacing_and_the_other_labels():
    image, map = heart()
    method = Brighter()
    inside(method, map).probabilities(image)
    scene = method.seen[0]
    assert scene.spacing_mm == pytest.approx((1.5, 1.5, 8.0))
    assert scene.slice_axis == 2
    assert np.array_equal(scene.region, map.numpy()[0] == 1)
    assert np.array_equal(scene.masks["pool"], map.numpy()[0] == 2)


def test_probabilities_of_a_doubtful_region_are_shared_out_and_sum_to_one():
    image, map = heart()

    class Doubtful(Known):
        def probabilities(self, volume):
            certain = super().probabilities(volume)
            return MetaTensor(0.8 * certain.as_tensor() + 0.2 / 3, affine=certain.affine)

    segmenter = Inside(
        Brighter(), Doubtful(map, HEART), within=("wall",), target="scar", rest="myocardium", labels=RESULT
    )
    probabilities = segmenter.probabilities(image).as_tensor()
    assert torch.allclose(probabilities.sum(0), torch.ones(4, 4, 2))
    assert torch.allclose(probabilities[2, 0], torch.tensor(0.8 + 0.2 / 3))
    assert torch.allclose(probabilities[1, 3], torch.tensor(0.2 / 3))


def test_without_a_region_there_is_no_scar_and_the_method_is_not_asked():
    image, map = heart()
    method = Brighter()
    empty = MetaTensor(torch.zeros_like(map.as_tensor()), affine=map.affine)
    assert (inside(method, empty)(image) == 0).all()
    assert not method.seen


def test_a_label_that_the_region_lacks_is_refused():
    _, map = heart()
    with pytest.raises(VolumeError, match="atrium"):
        inside(Brighter(), map, within=("atrium",))


def test_everywhere_lets_a_method_work_on_the_whole_volume():
    image, _ = heart()
    scar = LabelSet(("scar",), ((1,),))
    labels = Inside(Brighter(), Everywhere(), within=("volume",), target="scar", rest=None, labels=scar)(image)[0]
    assert torch.equal(labels, (image.as_tensor()[0] > image.as_tensor().mean()).to(torch.uint8))


def test_slice_by_slice_looks_at_slices_of_the_thickest_axis_that_hold_some_region():
    image, map = heart()
    map[0, :, :, 1] = 0
    method = Brighter()
    inside(SliceBySlice(method), map).probabilities(image)
    assert [scene.image.shape for scene in method.seen] == [(4, 4, 1)]


class Fails(Brighter):
    """Has no meaning in slices whose first voxel is one of these."""

    def __init__(self, *values):
        super().__init__()
        self.values = values

    def probability(self, scene):
        if scene.image[0, 0, 0] in self.values:
            raise SegmenterError(f"no meaning at {scene.image[0, 0, 0]:g}")
        return super().probability(scene)


def stack():
    """Three slices whose first voxels are 0, 1 and 2, a bright one in each."""
    image = np.zeros((2, 2, 3), np.float32)
    image[0, 0], image[1, 1] = [0, 1, 2], 9
    return Scene(image, np.ones(image.shape, bool), (1.0, 1.0, 8.0))


def test_a_slice_without_a_result_is_empty_and_said_and_the_others_are_kept():
    method = SliceBySlice(Fails(1))
    probabilities = method.probability(stack())
    assert probabilities[1, 1].tolist() == [1, 0, 1]
    assert not probabilities[..., 1].any()
    assert method.failed == {1: "no meaning at 1"}
    method.method.values = ()
    assert method.probability(stack())[1, 1].tolist() == [1, 1, 1]
    assert method.failed == {}


def test_no_slice_with_a_result_is_an_error_that_counts_them():
    method = SliceBySlice(Fails(0, 1, 2))
    with pytest.raises(SegmenterError, match="none of 3 slices has a result; of the first: no meaning at 0"):
        method.probability(stack())
    assert list(method.failed) == [0, 1, 2]


def test_a_label_map_on_another_grid_is_refused():
    image, map = heart()
    moved = MetaTensor(map.as_tensor(), affine=torch.from_numpy(AFFINE + np.eye(4)[:, :1] @ np.eye(4)[3:]))
    with pytest.raises(SegmenterError, match="grid"):
        inside(Brighter(), moved).probabilities(image)


def test_ignored_voxels_of_a_known_map_are_background():
    image, map = heart()
    map[0, 0] = 255
    assert (Known(map, HEART)(image)[0, 0] == 0).all()

"""Two stages: what the second one sees, and how the two results become one."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.errors import VolumeError
from segmed.labels import LabelSet
from segmed.segmenters.cascade import Cascade, restrict
from segmed.segmenters.segmenter import Segmenter, on_grid_of

HEART = LabelSet(("wall", "pool"), ((1,), (2,)))
SCAR = LabelSet(("scar",), ((3,),))
RESULT = LabelSet(("myocardium", "pool", "scar"), ((1,), (2,), (3,)))
AFFINE = np.array([[0.0, -1.0, 0.0, 5.0], [2.0, 0.0, 0.0, -3.0], [0.0, 0.0, 8.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


class Fixed(Segmenter):
    """Gives a map, sure to a degree."""

    def __init__(self, indices: torch.Tensor, labels: LabelSet, sure: float = 1.0) -> None:
        self.labels, self.indices, self.sure = labels, indices, sure

    def probabilities(self, volume):
        hot = torch.nn.functional.one_hot(self.indices.long(), self.labels.classes).movedim(-1, 0).float()
        return on_grid_of(volume, self.sure * hot + (1 - self.sure) / self.labels.classes)


class Bright(Segmenter):
    """Scar is what is brighter than 5; remembers what it saw."""

    labels = SCAR

    def __init__(self) -> None:
        self.seen: list[MetaTensor] = []

    def probabilities(self, volume):
        self.seen.append(volume)
        scar = (volume.as_tensor()[0] > 5).float()
        return on_grid_of(volume, torch.stack([1 - scar, scar]))


def image() -> MetaTensor:
    """6 x 6 x 3, all 1, two bright voxels: one in the wall, one far from it."""
    data = torch.ones(1, 6, 6, 3)
    data[0, 1, 1, 1] = data[0, 5, 5, 2] = 9.0
    return MetaTensor(data, affine=torch.from_numpy(AFFINE))


def heart() -> torch.Tensor:
    indices = torch.zeros(6, 6, 3)
    indices[0:2, 0:3] = 1
    indices[2, 0:3] = 2
    return indices


def cascade(fine: Segmenter | None = None, **changes) -> Cascade:
    options = {"region": ["wall"], "rest": "myocardium", "labels": RESULT, **changes}
    return Cascade(options.pop("coarse", Fixed(heart(), HEART)), fine or Bright(), **options)


@pytest.mark.parametrize("roi", ["mask", "crop"])
def test_scar_is_what_the_fine_stage_finds_in_the_region_alone(roi):
    labels = cascade(roi=roi)(image())[0]
    expected = torch.where(heart() == 1, 1, 0) + torch.where(heart() == 2, 2, 0)
    expected[1, 1, 1] = 3
    assert torch.equal(labels.as_tensor().long(), expected.long())


def test_a_mask_leaves_zeros_outside_and_a_crop_leaves_the_box_in_its_place_in_the_world():
    fine = Bright()
    cascade(fine).probabilities(image())
    assert fine.seen[0].shape == (1, 6, 6, 3)
    assert torch.equal(fine.seen[0].as_tensor()[0] > 0, heart() == 1)
    cascade(fine, roi="crop").probabilities(image())
    assert torch.equal(fine.seen[1].as_tensor(), image().as_tensor()[:, 0:2, 0:3])
    assert np.allclose(fine.seen[1].affine, AFFINE)
    shifted = heart().roll((2, 1), (0, 1))
    cascade(fine, roi="crop", coarse=Fixed(shifted, HEART)).probabilities(image())
    assert np.allclose(fine.seen[2].affine.numpy() @ [0, 0, 0, 1], AFFINE @ [2, 1, 0, 1])


@pytest.mark.parametrize(("margin_mm", "rows", "columns"), [(0.0, 2, 3), (1.0, 2, 4), (2.0, 3, 5), (3.9, 3, 6)])
def test_a_margin_is_in_mm_along_each_axis(margin_mm, rows, columns):
    mask = heart().numpy() == 1
    _, box, inside = restrict(image(), mask, margin_mm=margin_mm, roi="crop")
    assert (box[0].stop, box[1].stop, box[2]) == (rows, columns, slice(0, 3))
    assert inside.shape == (rows, columns, 3)
    assert inside[:2, :3].all()


def test_the_corner_of_a_margin_is_round():
    mask = np.zeros((9, 9, 1), bool)
    mask[4, 4] = True
    volume = MetaTensor(torch.ones(1, 9, 9, 1), affine=torch.eye(4, dtype=torch.float64))
    _, _, inside = restrict(volume, mask, margin_mm=3.0, roi="mask")
    assert inside[4, 7, 0]
    assert not inside[7, 7, 0]


def test_doubt_of_the_first_stage_stays_where_the_second_finds_nothing():
    coarse = Fixed(heart(), HEART, sure=0.7)
    probabilities = cascade(coarse=coarse).probabilities(image()).as_tensor()
    torch.testing.assert_close(probabilities.sum(0), torch.ones(6, 6, 3))
    torch.testing.assert_close(probabilities[:, 0, 0, 0], torch.tensor([0.1, 0.8, 0.1, 0.0]))
    torch.testing.assert_close(probabilities[:, 1, 1, 1], torch.tensor([0.0, 0.0, 0.0, 1.0]))


def test_without_a_region_the_fine_stage_is_not_asked():
    fine = Bright()
    labels = cascade(fine, coarse=Fixed(torch.zeros(6, 6, 3), HEART))(image())
    assert not fine.seen
    assert (labels == 0).all()


def test_cascades_nest():
    inner = cascade()
    outer = Cascade(
        Fixed(torch.ones(6, 6, 3), LabelSet(("chest",), ((1,),))), inner, region=["chest"], rest=None, labels=RESULT
    )
    assert torch.equal(outer(image()).as_tensor(), inner(image()).as_tensor())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region": ["atrium"]}, "atrium"),
        ({"rest": "muscle"}, "muscle"),
        ({"labels": LabelSet(("myocardium", "pool"), ((1,), (2,)))}, "scar"),
    ],
)
def test_unknown_names_are_refused(changes, message):
    with pytest.raises(VolumeError, match=message):
        cascade(**changes)


def test_a_negative_margin_and_no_region_are_refused():
    for changes in ({"margin_mm": -1.0}, {"region": []}):
        with pytest.raises(ValueError, match="name a label, and 0 mm or more"):
            cascade(**changes)
    with pytest.raises(ValueError, match="the region is empty"):
        restrict(image(), np.zeros((6, 6, 3), bool), margin_mm=0.0, roi="mask")

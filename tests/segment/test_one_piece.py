"""Labels and regions that are one connected piece in the references."""

import numpy as np

from segmed.labels import LabelSet
from segmed.segment.one_piece import in_one_piece

LABELS = LabelSet.from_config({"wall": 1, "scar": 2}, regions={"heart": ("wall", "scar")})


def label_map(*, pieces: int = 1, stray: int = 0) -> np.ndarray:
    """A bar of wall with pieces of scar on it, and stray voxels of wall away from it."""
    indices = np.zeros((20, 12, 4), np.uint8)
    indices[2:18, 2:6, 1:3] = 1
    for number in range(pieces):
        indices[2 + 4 * number : 4 + 4 * number, 2:4, 1:3] = 2
    indices[2 : 2 + stray, 10, 0] = 1
    return indices


def test_a_region_may_be_one_piece_where_its_labels_are_not():
    assert in_one_piece([label_map() for _ in range(5)], LABELS) == ("all labels", "heart", "wall", "scar")
    several = [label_map(), *(label_map(pieces=2) for _ in range(4))]
    assert in_one_piece(several, LABELS) == ("all labels", "heart", "wall")


def test_pieces_that_touch_by_a_corner_are_one():
    indices = np.zeros((4, 4, 4), np.uint8)
    indices[0, 0, 0] = indices[1, 1, 1] = 2
    assert in_one_piece([indices] * 5, LABELS) == ("all labels", "heart", "scar")


def test_a_single_label_is_not_all_labels_together():
    wall = LabelSet.from_config({"wall": 1})
    assert in_one_piece([np.ones((4, 4, 4), np.uint8)] * 5, wall) == ("wall",)


def test_a_stray_voxel_is_no_second_piece_and_several_are():
    assert in_one_piece([label_map(stray=1)] * 5, LABELS) == ("all labels", "heart", "wall", "scar")
    assert in_one_piece([label_map(stray=8)] * 5, LABELS) == ("scar",)


def test_with_few_references_one_piece_may_be_chance():
    without = np.where(label_map() == 2, 1, label_map())
    assert in_one_piece([label_map()] * 4, LABELS) == ()
    assert in_one_piece([*[label_map()] * 4, without, without], LABELS) == ("all labels", "heart", "wall")
    assert in_one_piece([], LABELS) == ()

"""Training patches are drawn as validation and test cases are: upright, sides named, each label in its colour."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet
from monai.data import MetaTensor

from segmed.evaluate.case_volumes import shown_case
from segmed.labels import IGNORE
from segmed.reports.drawing.label_colours import PALETTE, label_colours
from segmed.reports.drawing.patches import PatchGrid, patches_figure
from segmed.reports.drawing.slices import contour_figure, montage
from segmed.reports.scar.figures import COLOURS

NAMES = ("pool", "scar", "myocardium")


def outlines(axes) -> set[str]:
    return {to_hex(drawn.get_edgecolor()[0]).upper() for drawn in axes.collections if isinstance(drawn, QuadContourSet)}


def letters(axes) -> set[str]:
    return {text.get_text() for text in axes.texts}


def labelled_batch(shape=(12, 10)):
    label = np.zeros((2, *shape), np.uint8)
    label[0, 2:6, 2:6] = 2
    label[1, 2:6, 2:6] = 3
    return {"image": np.random.default_rng(0).random((2, 1, *shape), np.float32), "label": label, "case": ["a", "b"]}


def test_a_label_has_one_colour_in_training_validation_test_and_scar_pages():
    batch = labelled_batch()
    tiles = patches_figure(batch, {}, grid=PatchGrid((1.0, 1.0, 8.0), 2, names=NAMES)).axes
    image, label = batch["image"][:, 0][..., None], batch["label"][..., None]
    for number, colour in ((0, COLOURS["scar"]), (1, COLOURS["LV wall"])):
        validation = contour_figure(image[number], label[number], None, (1, 1, 8), names=NAMES).axes[0]
        case = shown_case(
            MetaTensor(torch.from_numpy(image[number][None])),
            reference=MetaTensor(torch.from_numpy(label[number][None])),
        )
        test = montage([("a", case)], names=NAMES).axes[0]
        assert outlines(tiles[number]) == outlines(validation) == outlines(test) == {colour}


def test_colours_differ_and_have_no_end():
    assert len(set(label_colours(NAMES, 12))) == 12
    assert len(label_colours((), 40)) == 40
    assert label_colours(("scar", "wall", "myo", "a"))[:2] == [COLOURS["scar"], COLOURS["LV wall"]]
    assert len(set(label_colours(("scar", "wall", "myo", "a")))) == 4, "two names of one muscle"
    assert len(set(PALETTE)) == len(PALETTE)


@pytest.mark.parametrize(
    ("axis", "expected"), [(2, {"R", "L", "A", "P"}), (1, {"R", "L", "S", "I"}), (0, {"A", "P", "S", "I"})]
)
def test_slices_of_volumes_name_the_patients_sides_and_lie_as_in_reports(axis, expected):
    axes = patches_figure(labelled_batch(), {}, grid=PatchGrid((2.0, 2.0, 2.0), axis)).axes[0]
    assert letters(axes) == expected
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    assert left > right, "the patient's right, or front, on the left"
    assert bottom < top, "the front, or the head, above"


def test_pictures_stand_as_they_are_stored_and_name_no_sides():
    image = np.zeros((1, 1, 4, 6), np.float32)
    image[0, 0, 0, 5] = 1  # the first row, the last column
    axes = patches_figure({"image": image, "case": ["a"]}, {}, grid=PatchGrid(pictures=True, rows_first=True)).axes[0]
    assert not letters(axes)
    assert axes.images[0].get_array().shape == (4, 6)
    assert np.argwhere(axes.images[0].get_array() == 1).tolist() == [[0, 5]]
    bottom, top = axes.get_ylim()
    left, right = axes.get_xlim()
    assert (left, right, bottom, top) == (-0.5, 5.5, 3.5, -0.5)


def test_views_have_a_row_each_and_a_column_a_viewed_patch():
    batch = labelled_batch()
    believes = np.full((1, 12, 10), 0.5, np.float32)
    result = np.full((1, 12, 10), 2, np.uint8)
    figure = patches_figure(batch, {"result": result, "D(result)": believes}, grid=PatchGrid((1, 1, 8), 2, names=NAMES))
    patch, answer, confidence = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["patch", "result", "D(result)"]
    assert outlines(patch) == outlines(answer) == {COLOURS["scar"]}
    assert to_hex(answer.images[1].get_array()[0, 0, :3]).upper() == COLOURS["scar"]
    assert confidence.images[0].get_clim() == (0, 1), "one half is grey"
    assert len(patch.images) == len(confidence.images) == 1


def test_eight_patches_lie_in_two_rows():
    image, label = np.zeros((10, 1, 4, 3), np.float32), np.zeros((10, 4, 3), np.uint8)
    shown = [
        axes for axes in patches_figure({"image": image, "label": label}, {}, grid=PatchGrid()).axes if axes.images
    ]
    assert len(shown) == 8
    assert len({round(axes.get_position().y0, 2) for axes in shown}) == 2


def test_the_slice_of_a_3d_patch_is_that_with_most_labels_for_all_rows():
    image = np.arange(60, dtype=np.float32).reshape(1, 1, 4, 3, 5)
    label = np.zeros((1, 4, 3, 5), np.uint8)
    label[0, :2, 0, 3], label[0, :, :, 1] = 1, IGNORE  # what nobody annotated is no label
    figure = patches_figure({"image": image, "label": label}, {"D": image[:, 0] / 60}, grid=PatchGrid((1, 1, 8)))
    first, second = (axes.images[0].get_array() for axes in figure.axes)
    assert np.array_equal(first, image[0, 0, :, :, 3].T)
    assert np.allclose(second, first / 60)


def test_slices_have_the_numbers_of_the_file_whichever_way_it_counts():
    values = torch.arange(8.0).expand(1, 4, 5, 8).clone()
    label = torch.zeros(1, 4, 5, 8, dtype=torch.uint8)
    label[..., 2:5] = 1
    for affine in (np.diag([1.0, 1, 3, 1]), np.diag([-1.0, -1, -3, 1])):
        case = shown_case(MetaTensor(values, affine=affine), reference=MetaTensor(label, affine=affine))
        shown = [axes for axes in montage([("a", case)]).axes if axes.images]
        assert [axes.get_xlabel() for axes in shown] == ["slice 3", "4", "5"], "from 1, in the order of the file"
        assert [float(axes.images[0].get_array().mean()) for axes in shown] == [2, 3, 4]

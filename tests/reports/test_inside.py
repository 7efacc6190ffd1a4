"""Figures of what a network sees and makes: each shows what it says, in 2D and 3D."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from torch import nn

from segmed.evaluate.case_volumes import shown_case
from segmed.labels import IGNORE, LabelSet
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.models import SegmentationNet
from segmed.reports.drawing.panels import contours, fullest_slice, plane_of
from segmed.reports.drawing.slices import contour_figure, volume_figure
from segmed.reports.segmentation.inside import (
    error_figure,
    feature_figure,
    intensity_figure,
    logits_figure,
    patch_figure,
)
from segmed.reports.segmentation.windows import blending_figure
from segmed.segmenters.sliding import blending_weights, window_starts

LABELS = LabelSet(("wall", "pool"), ((1,), (2,)))
RNG = np.random.default_rng(0)


def images(figure: Figure) -> list[np.ndarray]:
    """What is drawn as an image, first axis first, without the bars of the colour scales."""
    return [np.asarray(image.get_array()).T for axes in panels(figure) for image in axes.images]


def panels(figure: Figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def box(shape=(16, 16, 8), *, low=4, high=12, number=5) -> np.ndarray:
    """A label map with a wall around a pool in one slice, and a single voxel in another."""
    labels = np.zeros(shape, np.uint8)
    labels[low:high, low:high, number] = 1
    labels[low + 2 : high - 2, low + 2 : high - 2, number] = 2
    labels[0, 0, 1] = 1
    return labels


def sample(index=0, *, shift=0.0, number=5, dims=3) -> dict:
    label = box(number=number)
    image = RNG.normal(size=label.shape).astype(np.float32) + shift
    if dims == 2:
        label, image = label[..., number], image[..., number]
    return {"image": torch.from_numpy(image[None]), "label": torch.from_numpy(label), "case": "a", "index": index}


def network(dims: int, classes: int = 3) -> SegmentationNet:
    strides = ((1,) * dims, (2,) * dims, (2,) * dims)
    return SegmentationNet(PlainEncoder(1, (4, 6, 8), strides, dims=dims), classes).eval()


# ---------------------------------------------------------------- panels


def test_the_slice_with_most_labels_is_chosen_and_what_is_ignored_does_not_count():
    labels = box()
    labels[..., 7] = IGNORE
    assert fullest_slice(labels) == 5
    assert fullest_slice(np.zeros((4, 4, 9), np.uint8)) == 4


def test_contours_of_neighbours_lie_side_by_side_and_stay_open_where_the_patch_ends():
    plane = np.ones((8, 6), np.uint8)
    plane[4:] = 2
    axes = Figure().subplots()
    contours(axes, plane, ["red", "blue"])
    lines = [np.concatenate([path.vertices for path in drawn.get_paths()]) for drawn in axes.collections]
    assert [set(line[:, 0].round(6)) for line in lines] == [{3.25}, {3.75}]


# ---------------------------------------------------------------- intensities and patches


def test_a_distribution_peaks_where_the_intensities_are():
    figure = intensity_figure(
        {"left": {"a": RNG.normal(100, 5, 9999), "b": RNG.normal(150, 5, 9999)}, "right": {"c": [1, 2]}}
    )
    left, right = figure.axes
    peaks = {line.get_label(): line.get_xdata()[line.get_ydata().argmax()] for line in left.lines}
    assert peaks["a"] == pytest.approx(100, abs=5)
    assert peaks["b"] == pytest.approx(150, abs=5)
    assert [line.get_label() for line in right.lines] == ["c"]


@pytest.mark.parametrize("panels", [{}, {"left": {}}, {"left": {"a": []}}])
def test_a_distribution_of_nothing_is_refused(panels):
    with pytest.raises(ValueError, match="needs voxels"):
        intensity_figure(panels)


def test_patches_of_one_number_are_cut_at_one_slice_and_share_one_range_of_grey():
    plain, changed = sample(3), sample(3, shift=5.0, number=2)
    figure = patch_figure({"none": [plain], "full": [changed]}, LABELS)
    drawn = images(figure)
    np.testing.assert_array_equal(drawn[0], plain["image"][0, ..., 5])
    np.testing.assert_array_equal(drawn[1], changed["image"][0, ..., 5])
    (window,) = {axes.images[0].get_clim() for axes in panels(figure)}
    assert window == pytest.approx(np.percentile(plain["image"], (0.5, 99.5)))


def test_patches_name_rows_columns_and_labels():
    figure = patch_figure({"none": [sample(0), sample(1)], "full": [sample(0)]}, LABELS, columns=["one", "two"])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["one", "two"]
    assert [figure.axes[0].get_ylabel(), figure.axes[2].get_ylabel()] == ["none", "full"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(LABELS.names)
    assert "sample 0\na" in patch_figure({"none": [sample(0)]}, LABELS).axes[0].get_title()


def test_slices_are_patches_too():
    flat = sample(dims=2)
    np.testing.assert_array_equal(images(patch_figure({"none": [flat]}, LABELS))[0], flat["image"][0])


def test_no_patch_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        patch_figure({"none": []}, LABELS)


# ---------------------------------------------------------------- inside the network


@pytest.mark.parametrize("dims", [2, 3])
def test_feature_maps_are_those_of_the_encoder(dims):
    net, image = network(dims), torch.randn(1, *(16,) * dims)
    figure = feature_figure(net, image, maps=5)
    picture, *maps = images(figure)
    np.testing.assert_array_equal(picture, plane_of(image[0].numpy(), 8))
    with torch.no_grad():
        features = [level[0].numpy() for level in net.encoder(image[None])]
    assert [len(drawn) for drawn in maps] == [16] * 4 + [8] * 5 + [4] * 5  # the first level has four maps
    for level in features:
        planes = [plane_of(one, one.shape[-1] // 2) for one in level]
        shown = [drawn for drawn in maps if drawn.shape == planes[0].shape]
        varied = sorted(range(len(planes)), key=lambda index: -planes[index].std())[: len(shown)]
        for drawn, index in zip(shown, sorted(varied), strict=True):
            np.testing.assert_array_equal(drawn, planes[index])


def test_each_level_says_how_many_maps_of_which_size():
    texts = [axes.get_ylabel() for axes in feature_figure(network(3), torch.randn(1, 16, 16, 8)).axes]
    assert [text for text in texts if text] == [
        "level 1\n4 maps of\n16 × 16 × 8", "level 2\n6 maps of\n8 × 8 × 4", "level 3\n8 maps of\n4 × 4 × 2"
    ]  # fmt: skip


def test_a_network_without_levels_is_refused():
    with pytest.raises(ValueError, match="Conv3d has no encoder"):
        feature_figure(nn.Conv3d(1, 2, 3), torch.randn(1, 8, 8, 8))


@pytest.mark.parametrize("dims", [2, 3])
def test_logits_and_their_probabilities_are_shown_a_class(dims):
    net, given = network(dims), sample(dims=dims)
    figure = logits_figure(net, given["image"], LABELS, reference=given["label"])
    with torch.no_grad():
        logits = net(given["image"][None])[0]
    picture, *shown = images(figure)
    np.testing.assert_array_equal(picture, plane_of(given["image"][0].numpy(), 5))
    for drawn, one in zip(shown[:3], logits.numpy(), strict=True):
        np.testing.assert_allclose(drawn, plane_of(one, 5), rtol=1e-6)
    for drawn, one in zip(shown[4:], logits.softmax(0).numpy(), strict=True):
        np.testing.assert_allclose(drawn, plane_of(one, 5), rtol=1e-5)
    assert [axes.get_title() for axes in panels(figure)[1:4]] == ["background", *LABELS.names]


def test_logits_of_other_labels_are_refused():
    with pytest.raises(ValueError, match="gives 4 classes, the labels are 3"):
        logits_figure(network(3, classes=4), torch.randn(1, 16, 16, 8), LABELS)


# ---------------------------------------------------------------- errors


def test_when_the_uncertain_voxels_are_the_wrong_ones_looking_at_them_finds_all_errors():
    reference, uncertainty = np.zeros((10, 10, 10), np.uint8), np.zeros((10, 10, 10))
    prediction = reference.copy()
    prediction[:2] = 1  # a fifth of the volume is wrong
    uncertainty[:2] = 1.0
    rates, found = error_figure(uncertainty, prediction, reference).axes
    assert [bar.get_height() for bar in rates.patches] == [0.0] * 9 + [1.0]
    looked, share = found.lines[0].get_data()
    np.testing.assert_allclose(share, np.minimum(looked / 0.2, 1))


def test_what_is_to_be_ignored_is_no_error():
    reference, prediction = box(), box()
    reference[..., 5] = IGNORE
    rates, _ = error_figure(RNG.random(reference.shape), prediction, reference).axes
    assert not any(bar.get_height() for bar in rates.patches)
    with pytest.raises(ValueError, match="to be ignored"):
        error_figure(RNG.random(reference.shape), prediction, np.full_like(reference, IGNORE))


def test_errors_on_different_grids_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        error_figure(np.zeros((4, 4, 4)), np.zeros((4, 4, 5)), np.zeros((4, 4, 4)))


# ---------------------------------------------------------------- windows


def test_shares_of_the_windows_sum_to_one_in_every_voxel():
    window, size = (16, 8, 8), (40, 20, 12)
    figure = blending_figure(np.zeros(size), window_starts(size, window, 0.5), blending_weights(window).numpy())
    total = np.zeros(size[0])
    for line in figure.axes[3].lines:
        voxels, share = line.get_data()
        total[np.asarray(voxels)] += share
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert len(figure.axes[3].lines) == 4  # windows start at 0, 8, 16 and 24


def test_one_window_alone_has_the_whole_result():
    figure = blending_figure(np.zeros((8, 8, 8)), [(0, 0, 0)], blending_weights((8, 8, 8)).numpy())
    share = np.asarray(figure.axes[2].images[-1].get_array())
    np.testing.assert_allclose(share, 1)


@pytest.mark.parametrize(("starts", "message"), [([], "at least one"), ([(4, 0, 0)], "reach out of the image")])
def test_windows_that_do_not_fit_are_refused(starts, message):
    with pytest.raises(ValueError, match=message):
        blending_figure(np.zeros((8, 8, 8)), starts, np.ones((6, 6, 6)))


# ---------------------------------------------------------------- volumes as they are read


def volume(flipped: bool) -> tuple[MetaTensor, MetaTensor]:
    """One and the same volume with its labels, stored in RAS, or with two axes reversed."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    image, label = np.arange(16 * 16 * 8.0).reshape(1, 16, 16, 8), box()[None]
    if flipped:
        image, label = image[:, ::-1, ::-1].copy(), label[:, ::-1, ::-1].copy()
        affine = np.array([[-1.0, 0, 0, 15], [0, -1, 0, 15], [0, 0, 2, 0], [0, 0, 0, 1]])
    return tuple(MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(affine)) for array in (image, label))


def test_a_volume_is_drawn_alike_however_it_is_stored():
    stored, turned = (volume_figure(image, reference=label) for image, label in (volume(False), volume(True)))
    for a, b in zip(images(stored), images(turned), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_shown_case_is_canonical_with_its_spacing():
    image, label = volume(True)
    case = shown_case(image, reference=label)
    np.testing.assert_array_equal(case.reference, box())
    assert case.spacing_mm == (1.0, 1.0, 2.0)
    assert case.prediction is None


def test_an_overlay_is_clear_at_zero_and_its_scale_begins_there():
    overlay = np.zeros((16, 16, 8))
    overlay[8:, :, 5] = 1.5
    figure = contour_figure(RNG.random((16, 16, 8)), box(), None, (1.0, 1.0, 1.0), overlay=overlay)
    grey, heat = panels(figure)[0].images
    assert heat.get_clim() == (0.0, 1.5)
    np.testing.assert_array_equal(np.asarray(heat.get_alpha()).T > 0, overlay[..., 5] > 0)
    assert grey.get_alpha() is None
    assert len(figure.axes) == 4  # three planes and the scale


def test_an_overlay_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        contour_figure(np.zeros((4, 4, 4)), None, None, (1.0, 1.0, 1.0), overlay=np.zeros((4, 4, 5)))

"""Metrics of two masks against hand-checked masks, a brute-force implementation, and MONAI."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from monai.metrics.utils import get_edge_surface_distance
from scipy.ndimage import binary_erosion, gaussian_filter

from segmed.metrics import surfaces
from segmed.metrics.mask_metrics import METRICS, image_diagonal_mm, measure, measure_absent, overlaps
from segmed.metrics.surfaces import bounding_box, element_distances, surface, surface_distances

SPACINGS = [(1.0, 1.0, 1.0), (0.75, 0.75, 12.0), (1.3, 0.7, 2.1)]


def cube(shape=(20, 20, 20), start=(5, 5, 5), size=(6, 6, 6)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))] = True
    return mask


def blobs(seed, shape=(30, 34, 20), *, width=3.0, threshold=0.6):
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), width)
    return field > threshold * field.std()


def brute_force(prediction, reference, spacing_mm):
    """HD and HD95 from definitions alone: loops over voxels, every pair of surface voxels."""

    def outline(mask):
        for place in np.argwhere(mask):
            for axis, step in itertools.product(range(3), (-1, 1)):
                beside = place.copy()
                beside[axis] += step
                if not 0 <= beside[axis] < mask.shape[axis] or not mask[tuple(beside)]:
                    yield place * np.array(spacing_mm)
                    break

    a, b = np.array(list(outline(prediction))), np.array(list(outline(reference)))
    pairs = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    forth, back = pairs.min(axis=1), pairs.min(axis=0)

    def rank_95(distances):
        place = 0.95 * (len(distances) - 1)
        low, high = np.sort(distances)[[math.floor(place), math.ceil(place)]]
        return low + (high - low) * (place - math.floor(place))

    return {"hd_mm": max(forth.max(), back.max()), "hd95_mm": max(rank_95(forth), rank_95(back))}


def monai(prediction, reference, spacing_mm, tolerance_mm):
    a, b = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference))
    options = {"include_background": True, "spacing": spacing_mm}
    framed = [torch.nn.functional.pad(mask[0, 0], (1,) * 6).bool() for mask in (a, b)]  # else no area at the border
    edges, distances, maps = get_edge_surface_distance(*framed, spacing=spacing_mm, use_subvoxels=True, symmetric=True)
    areas = [of_side[edge] for of_side, edge in zip(maps, edges, strict=True)]
    weighted = sum((of_side * area).sum() for of_side, area in zip(distances, areas, strict=True))
    framed = [mask[None, None].float() for mask in framed]
    return {
        "hd_mm": compute_hausdorff_distance(a, b, **options).item(),
        "hd95_mm": compute_hausdorff_distance(a, b, percentile=95, **options).item(),
        "assd_mm": (weighted / sum(area.sum() for area in areas)).item(),
        "surface_dice": compute_surface_dice(*framed, [tolerance_mm], use_subvoxels=True, **options).item(),
    }


# ---------------------------------------------------------------- overlap and volume


def test_a_cube_shifted_by_half_overlaps_by_half():
    result = measure(cube(start=(8, 5, 5)), cube(), spacing_mm=(1, 1, 1))
    assert result["dice"] == 0.5
    assert result["iou"] == pytest.approx(1 / 3)
    assert result["sensitivity"] == result["precision"] == 0.5


def test_sensitivity_falls_with_what_is_left_out_and_precision_with_what_is_invented():
    inner, outer = cube(size=(3, 6, 6)), cube()
    assert measure(inner, outer, spacing_mm=(1, 1, 1))["sensitivity"] == 0.5
    assert measure(inner, outer, spacing_mm=(1, 1, 1))["precision"] == 1
    assert measure(outer, inner, spacing_mm=(1, 1, 1))["precision"] == 0.5


def test_volumes_are_in_ml_and_the_difference_has_a_sign():
    result = measure(cube(size=(5, 5, 5)), cube(size=(10, 10, 10)), spacing_mm=(2, 1, 0.5))
    assert result["reference_ml"] == pytest.approx(1.0)
    assert result["prediction_ml"] == pytest.approx(0.125)
    assert result["volume_difference_ml"] == pytest.approx(-0.875)
    assert result["avd_ml"] == pytest.approx(0.875)
    assert result["relative_volume_error"] == pytest.approx(0.875)


def test_overlaps_alone_are_those_of_measure_and_none_needs_a_spacing():
    prediction, reference = blobs(0), blobs(1)
    alone = overlaps(prediction, reference)
    whole = measure(prediction, reference, spacing_mm=(1, 2, 3))
    assert alone == {name: whole[name] for name in alone}
    assert set(METRICS) - set(alone) == {name for name, metric in METRICS.items() if metric.needs_spacing}


# ---------------------------------------------------------------- surfaces


@pytest.mark.parametrize(("axis", "spacing_mm"), itertools.product(range(3), SPACINGS))
def test_hd_of_a_shifted_cube_is_the_shift(axis, spacing_mm):
    start = [5, 5, 5]
    start[axis] += 3
    result = measure(cube(start=tuple(start)), cube(), spacing_mm=spacing_mm)
    assert result["hd_mm"] == result["hd95_mm"] == pytest.approx(3 * spacing_mm[axis])


def test_two_voxels_are_as_far_apart_as_they_are():
    a, b = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    a[1, 1, 1] = b[4, 5, 1] = True
    result = measure(a, b, spacing_mm=(1, 1, 5))
    assert result["hd_mm"] == result["hd95_mm"] == 5
    assert result["surface_dice"] == 0


def test_assd_weighs_the_surfaces_of_both_masks_by_their_area():
    reference, prediction = cube(size=(1, 1, 1)), cube(size=(1, 1, 1)) | cube(start=(15, 5, 5), size=(1, 1, 1))
    result = measure(prediction, reference, spacing_mm=(1, 1, 1))
    assert result["assd_mm"] == pytest.approx(9.5 / 3)  # 0 and, between corners, 9 or 10 forth, 0 back
    assert result["hd_mm"] == 10
    assert result["hd95_mm"] == pytest.approx(9.5)  # interpolated between 0 and 10


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.5, 1, 1), (1, 1, 4)])
def test_the_areas_of_the_elements_of_a_sphere_add_up_to_its_surface(spacing_mm):
    """And to at most a fifth more, for the steps between voxels."""
    axes = [(np.arange(round(60 / step)) + 0.5) * step - 30 for step in spacing_mm]
    sphere = sum(x**2 for x in np.meshgrid(*axes, indexing="ij")) < 22**2
    (distances, areas), _ = element_distances(sphere, sphere, spacing_mm)
    assert 1 <= areas.sum() / (4 * math.pi * 22**2) < 1.2
    assert not distances.any()


def test_in_thick_slices_a_surface_counts_by_its_area_and_not_by_its_voxels():
    """Slices of 10 mm: a disc whose end is missed loses the area of that end, though it has few of the voxels."""
    reference, prediction = np.zeros((40, 40, 8), bool), np.zeros((40, 40, 8), bool)
    disc = np.hypot(*(np.indices((40, 40)) - 19.5)) < 14
    reference[disc, 2:6] = True
    prediction[disc, 2:5] = True
    result = measure(prediction, reference, spacing_mm=(1, 1, 10), tolerance_mm=1)
    end, rim = math.pi * 14**2, 2 * math.pi * 14 * 10
    right = (end + 3.5 * rim) + (end + 3 * rim)  # one end each is wrong, and half a slice of rim
    assert result["surface_dice"] == pytest.approx(right / (4 * end + 7 * rim), abs=0.05)


def test_one_far_voxel_moves_hd_but_not_hd95():
    far = cube()
    far[19, 19, 19] = True
    result = measure(far, cube(), spacing_mm=(1, 1, 1))
    assert result["hd_mm"] == pytest.approx(math.sqrt(3 * 9**2))
    assert result["hd95_mm"] == 0


def test_surface_dice_counts_what_lies_within_the_tolerance_and_on_it():
    steps = {
        tolerance: measure(
            cube(start=(8, 5, 5)), cube(), spacing_mm=(0.7, 50, 50), tolerance_mm=tolerance
        )["surface_dice"]
        for tolerance in (0.1, 2.0, 2.1)
    }  # fmt: skip
    assert steps[0.1] < steps[2.0] < steps[2.1] == 1  # 3 * 0.7 is a little more than 2.1 in floating point


def test_surface_of_a_cube_is_its_shell_and_the_border_of_the_image_is_outside():
    assert np.count_nonzero(surface(cube())) == 6**3 - 4**3
    assert np.count_nonzero(surface(np.ones((6, 6, 6), bool))) == 6**3 - 4**3


def test_distances_in_one_slice_are_those_of_outlines():
    shifted = np.zeros((12, 6, 1), bool)
    shifted[4:10] = True
    original = np.zeros((12, 6, 1), bool)
    original[2:8] = True
    mine = measure(shifted, original, spacing_mm=(1, 1, 8))
    edges = [torch.from_numpy(np.pad(mask[..., 0], 1)) for mask in (shifted, original)]
    edges, distances, maps = get_edge_surface_distance(*edges, spacing=(1, 1), use_subvoxels=True, symmetric=True)
    lengths = [of_side[edge] for of_side, edge in zip(maps, edges, strict=True)]
    weighted = sum((of_side * length).sum() for of_side, length in zip(distances, lengths, strict=True))
    assert mine["assd_mm"] == pytest.approx((weighted / sum(length.sum() for length in lengths)).item())


def test_a_structure_in_one_slice_of_many_is_all_surface():
    flat = cube((9, 9, 5), (2, 2, 2), (5, 5, 1))
    assert len(surface_distances(flat, flat, (1, 1, 1))[0]) == 25


def test_distances_in_an_image_of_one_voxel_are_zero():
    voxel = np.ones((1, 1, 1), bool)
    assert measure(voxel, voxel, spacing_mm=(1, 1, 1))["hd_mm"] == 0


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7)))
def test_surface_is_what_erosion_takes_away(mask):
    before = mask.copy()
    assert np.array_equal(surface(mask), mask ^ binary_erosion(mask))
    assert np.array_equal(mask, before)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_bounding_box_is_the_smallest(mask):
    box = bounding_box(mask)
    assert np.count_nonzero(mask[box]) == np.count_nonzero(mask)
    places = np.argwhere(mask)
    if len(places):
        assert [s.start for s in box] == places.min(axis=0).tolist()
        assert [s.stop for s in box] == (places.max(axis=0) + 1).tolist()
    else:
        assert mask[box].size == 0


@given(
    hnp.arrays(bool, (5, 6, 4)),
    hnp.arrays(bool, (5, 6, 4)),
    st.sampled_from(SPACINGS),
)
@settings(deadline=None, max_examples=60)
def test_distances_equal_brute_force_on_any_small_masks(prediction, reference, spacing_mm):
    prediction[0, 0, 0] = reference[-1, -1, -1] = True
    mine = measure(prediction, reference, spacing_mm=spacing_mm)
    truth = brute_force(prediction, reference, spacing_mm)
    assert {name: mine[name] for name in truth} == pytest.approx(truth, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_distances_equal_monai_on_random_blobs(seed, spacing_mm):
    prediction, reference = blobs(seed), blobs(seed + 100, width=2 + seed / 2)
    mine = measure(prediction, reference, spacing_mm=spacing_mm, tolerance_mm=1.9)
    theirs = monai(prediction, reference, spacing_mm, 1.9)
    assert {name: mine[name] for name in theirs} == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(("near", "dense"), [(1, 2.0), (1, 0.0), (5, 2.0), (5, 0.0)], ids=str)
def test_neighbours_tree_and_transform_give_the_same_distances(near, dense, monkeypatch):
    prediction, reference = blobs(7), blobs(8)
    expected = [np.sort(distances) for distances in surface_distances(prediction, reference, (1.3, 0.7, 2.1))]
    monkeypatch.setattr(surfaces, "NEAR_OFFSETS", near)
    monkeypatch.setattr(surfaces, "DENSE_FRACTION", dense)
    surfaces._near_offsets.cache_clear()
    got = [np.sort(distances) for distances in surface_distances(prediction, reference, (1.3, 0.7, 2.1))]
    surfaces._near_offsets.cache_clear()
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)


def test_distances_do_not_depend_on_memory_order_or_on_empty_space_around():
    prediction, reference = blobs(1), blobs(2)
    first = measure(prediction, reference, spacing_mm=(1, 2, 3))
    assert measure(np.asfortranarray(prediction), np.asfortranarray(reference), spacing_mm=(1, 2, 3)) == first
    wider = measure(np.pad(prediction, 4), np.pad(reference, 4), spacing_mm=(1, 2, 3))
    assert wider == first


@given(st.integers(0, 50), st.sampled_from(SPACINGS))
@settings(deadline=None, max_examples=20)
def test_swapping_prediction_and_reference_keeps_distances_and_turns_the_volume_difference(seed, spacing_mm):
    a, b = blobs(seed, (12, 13, 8)), blobs(seed + 1, (12, 13, 8))
    forth, back = measure(a, b, spacing_mm=spacing_mm), measure(b, a, spacing_mm=spacing_mm)
    for name in ("dice", "iou", "hd_mm", "hd95_mm", "assd_mm", "surface_dice", "avd_ml"):
        assert forth[name] == pytest.approx(back[name])
    assert forth["volume_difference_ml"] == -back["volume_difference_ml"]
    assert forth["sensitivity"] == back["precision"]


# ---------------------------------------------------------------- misses


def test_nothing_found_where_nothing_is_is_perfect():
    nothing = np.zeros((4, 5, 6), bool)
    result = measure(nothing, nothing, spacing_mm=(1, 1, 1))
    for name in ("dice", "iou", "surface_dice", "sensitivity", "precision"):
        assert result[name] == 1
    for name in ("hd_mm", "hd95_mm", "assd_mm", "avd_ml", "relative_volume_error", "missed"):
        assert result[name] == 0


@pytest.mark.parametrize("invented", [False, True], ids=["missed", "invented"])
def test_a_missed_or_invented_structure_scores_nothing_and_is_as_far_as_the_image_is_large(invented):
    nothing, something = np.zeros((20, 20, 20), bool), cube()
    pair = (something, nothing) if invented else (nothing, something)
    result = measure(*pair, spacing_mm=(1, 1, 2))
    for name in ("dice", "iou", "surface_dice", "sensitivity", "precision"):
        assert result[name] == 0
    for name in ("hd_mm", "hd95_mm", "assd_mm"):
        assert result[name] == pytest.approx(math.sqrt(20**2 + 20**2 + 40**2))
    assert result["missed"] == 1
    assert math.isnan(result["relative_volume_error"]) == invented


def test_with_skip_the_distances_of_a_miss_are_left_out_but_its_dice_is_not():
    result = measure(np.zeros((20, 20, 20), bool), cube(), spacing_mm=(1, 1, 1), missed="skip")
    assert all(math.isnan(result[name]) for name in ("hd_mm", "hd95_mm", "assd_mm"))
    assert (result["dice"], result["surface_dice"], result["missed"]) == (0, 0, 1)


def test_no_prediction_at_all_is_a_miss_even_where_nothing_is():
    for reference in (cube(), np.zeros((20, 20, 20), bool)):
        result = measure_absent(reference, spacing_mm=(1, 1, 1))
        assert (result["dice"], result["missed"]) == (0, 1)
        assert result["hd95_mm"] == pytest.approx(20 * math.sqrt(3))
    assert math.isnan(result["avd_ml"])
    assert result["reference_ml"] == 0


@given(hnp.arrays(bool, (4, 5, 3)), hnp.arrays(bool, (4, 5, 3)), st.sampled_from(SPACINGS))
@settings(deadline=None)
def test_no_metric_of_two_structures_is_worse_than_that_of_a_miss(prediction, reference, spacing_mm):
    result = measure(prediction, reference, spacing_mm=spacing_mm)
    assert result["hd95_mm"] <= result["hd_mm"] <= image_diagonal_mm((4, 5, 3), spacing_mm)
    assert all(0 <= result[name] <= 1 for name in ("dice", "iou", "surface_dice", "sensitivity", "precision"))
    assert list(result) == [*METRICS, "missed"]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("prediction", "spacing_mm", "message"),
    [
        (np.zeros((4, 4, 5), bool), (1, 1, 1), "differ in shape"),
        (np.zeros((4, 4, 4), np.uint8), (1, 1, 1), "must be bool"),
        (np.zeros((4, 4, 4), bool), (1, 1, 0), "positive"),
        (np.zeros((4, 4, 4), bool), (1, 1, math.nan), "positive"),
        (np.zeros((4, 4, 4), bool), (1, 1), "an axis"),
    ],
)
def test_what_cannot_be_measured_is_refused(prediction, spacing_mm, message):
    with pytest.raises(ValueError, match=message):
        measure(prediction, np.zeros((4, 4, 4), bool), spacing_mm=spacing_mm)


def test_distances_of_an_empty_mask_are_refused():
    with pytest.raises(ValueError, match="empty mask has no surface"):
        surface_distances(np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool), (1, 1, 1))

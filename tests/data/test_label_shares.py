"""Label maps from grid to grid: no shift where voxels double, the volume kept up to four times, both ways."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.config import PreprocessConfig
from segmed.data.label_shares import resample_labels
from segmed.data.preprocess import prepare

BASE = {
    "orientation": "ras", "crop": "none", "intensity": "none", "interpolation": "linear", "clip_percentiles": (0, 100),
}  # fmt: skip


def label_map(values, affine) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(values, np.uint8))[None], affine=torch.as_tensor(affine))


def respaced(values, spacing_mm, target_mm, *, separate_z: bool = False) -> MetaTensor:
    volume = label_map(values, np.diag([*spacing_mm, 1.0]))
    image = MetaTensor(volume.as_tensor().float(), affine=volume.affine)
    config = PreprocessConfig(**BASE, spacing_mm=tuple(target_mm), separate_z=separate_z)
    label = prepare(image, volume, config)[1]
    assert label is not None
    return label


def centre_mm(values, affine) -> np.ndarray:
    affine = np.asarray(affine)
    return affine[:3, :3] @ np.argwhere(np.asarray(values) > 0).mean(0) + affine[:3, 3]


def shift_mm(label: MetaTensor, values, spacing_mm) -> np.ndarray:
    return centre_mm(label.numpy()[0], label.affine) - centre_mm(values, np.diag([*spacing_mm, 1.0]))


def volume_ratio(label: MetaTensor, values, spacing_mm) -> float:
    target = np.linalg.norm(np.asarray(label.affine)[:3, :3], axis=0)
    return (label.numpy() > 0).sum() * np.prod(target) / (np.count_nonzero(values) * np.prod(spacing_mm))


def ellipsoid(spacing_mm, *, centre_mm=(31.5, 31.5, 31.5), radii_mm=(19.0, 16.0, 14.0), size_mm=64) -> np.ndarray:
    axes = [(np.arange(round(size_mm / step)) + 0.5) * step - 0.5 for step in spacing_mm]
    grid = np.meshgrid(*axes, indexing="ij")
    return sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre_mm, radii_mm, strict=True)) < 1


@pytest.mark.parametrize(
    ("size", "start", "within_mm"), [(20, 20, 0.01), (20, 21, 0.01), (23, 20, 0.05), (23, 21, 0.05)]
)
def test_the_centre_of_a_box_stays_where_voxels_double(size, start, within_mm):
    """Faces halve voxels on no side, on both, or on one: half of such a face is taken."""
    values = np.zeros((64, 64, 64), bool)
    values[(slice(start, start + size),) * 3] = True
    label = respaced(values, (1, 1, 1), (2, 2, 2))
    assert np.abs(shift_mm(label, values, (1, 1, 1))).max() < within_mm
    assert volume_ratio(label, values, (1, 1, 1)) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("centre", [(31.5, 31.5, 31.5), (29.5, 33.5, 27.5), (30.5, 30.5, 30.5)], ids=str)
def test_the_centre_of_an_ellipsoid_stays_within_a_hundredth_of_a_mm_where_voxels_double(centre):
    values = ellipsoid((1, 1, 1), centre_mm=centre)
    label = respaced(values, (1, 1, 1), (2, 2, 2))
    assert np.abs(shift_mm(label, values, (1, 1, 1))).max() < 0.01
    assert volume_ratio(label, values, (1, 1, 1)) == pytest.approx(1, abs=0.01)


def test_over_many_places_nothing_shifts_on_average_where_voxels_double():
    shifts = []
    for centre in np.random.default_rng(0).uniform(27, 36, (40, 3)):
        values = ellipsoid((1, 1, 1), centre_mm=centre)
        shifts.append(shift_mm(respaced(values, (1, 1, 1), (2, 2, 2)), values, (1, 1, 1)))
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.02  # it was 0.125


@pytest.mark.parametrize(
    ("spacing_mm", "target_mm"),
    [
        ((1, 1, 1), (4, 4, 4)),
        ((4, 4, 4), (1, 1, 1)),
        ((1, 1, 1), (3, 3, 3)),
        ((1, 1, 8), (4, 4, 8)),
        ((1, 1, 4), (2, 2, 2)),
        ((2, 2, 8), (1, 1, 2)),
        ((1, 1, 2), (1.5, 1.5, 8)),
    ],
)
@pytest.mark.parametrize("centre", [(31.5, 31.5, 31.5), (29.8, 32.4, 30.1)], ids=str)
def test_the_volume_of_a_label_is_kept_within_one_percent_up_to_four_times_both_ways(spacing_mm, target_mm, centre):
    values = ellipsoid(spacing_mm, centre_mm=centre)
    label = respaced(values, spacing_mm, target_mm)
    eight = 8 / (label.numpy() > 0).sum()  # of a symmetric map all mirror images of a voxel are taken, or none
    assert volume_ratio(label, values, spacing_mm) == pytest.approx(1, abs=max(0.01, eight / 2))


def test_a_thick_axis_that_gets_coarser_is_not_shifted_by_nearest_slices():
    values = ellipsoid((1, 1, 4))
    label = respaced(values, (1, 1, 4), (1, 1, 8), separate_z=True)
    assert np.abs(shift_mm(label, values, (1, 1, 4))).max() < 0.1  # half a slice is 2 mm
    assert volume_ratio(label, values, (1, 1, 4)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_map_gives_the_mirrored_result(axis):
    values = (np.random.default_rng(0).random((20, 18, 22)) < 0.5).astype(np.uint8)
    values[4:13, 5:12, 3:16] = 2
    target = np.diag([2.0, 2.0, 2.0, 1.0])
    target[:3, 3] = 0.5

    def halved(array):
        return resample_labels(label_map(array, np.eye(4)), affine=target, shape=(10, 9, 11)).numpy()[0]

    np.testing.assert_array_equal(halved(np.flip(values, axis)), np.flip(halved(values), axis))


def test_a_sure_majority_wins_and_no_value_is_invented():
    values = np.kron(np.random.default_rng(1).integers(0, 4, (6, 6, 6)), np.ones((4, 4, 4))).astype(np.uint8) * 40
    target = np.diag([4.0, 4.0, 4.0, 1.0])
    target[:3, 3] = 1.5
    resampled = resample_labels(label_map(values, np.eye(4)), affine=target, shape=(6, 6, 6))
    assert resampled.dtype == torch.uint8
    np.testing.assert_array_equal(resampled.numpy()[0], values[::4, ::4, ::4])


def test_the_same_grid_gives_the_same_map_and_oblique_grids_the_nearest_voxel():
    values = np.random.default_rng(2).integers(0, 3, (5, 6, 7))
    same = resample_labels(label_map(values, np.eye(4)), affine=np.eye(4), shape=(5, 6, 7))
    np.testing.assert_array_equal(same.numpy()[0], values)
    turned = np.eye(4)
    turned[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    oblique = resample_labels(label_map(values, np.eye(4)), affine=turned, shape=(5, 6, 7))
    assert set(np.unique(oblique.numpy())) <= {0, 1, 2}


def test_axes_may_be_permuted_and_flipped_on_the_way():
    values = ellipsoid((2, 2, 2), centre_mm=(29.8, 32.4, 26.1)).astype(np.uint8)
    plain = respaced(values, (2, 2, 2), (4, 4, 4))
    target = np.asarray(plain.affine) @ np.array([[0, 0, 1, 0], [-1, 0, 0, 15], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    turned = resample_labels(label_map(values, np.diag([2.0, 2, 2, 1])), affine=target, shape=(16, 16, 16))
    expected = np.flip(plain.numpy()[0].transpose(1, 2, 0), 0)
    assert np.mean(turned.numpy()[0] != expected) < 1e-3
    assert (turned.numpy() > 0).sum() == pytest.approx((expected > 0).sum(), abs=2)


def test_real_label_maps_do_not_shift_where_voxels_double(real_data):
    """Nominal spacing 0.625 mm; the nearest of two equal voxels moved them by up to 0.34 mm."""
    for path in sorted(real_data("la2018").glob("*/laendo.nii.gz")):
        image = nib.load(path)
        values = np.asarray(image.dataobj) > 0
        spacing_mm = np.asarray(image.header.get_zooms()[:3], float)
        label = respaced(values, spacing_mm, 2 * spacing_mm)
        assert np.abs(shift_mm(label, values, spacing_mm)).max() < 0.05
        assert volume_ratio(label, values, spacing_mm) == pytest.approx(1, abs=0.01)

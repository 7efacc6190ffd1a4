"""Remote myocardium: found far from scar, with its mean and SD, or refused in one line."""

import numpy as np
import pytest
from late_enhancement import ENDO_MM, EPI_MM, MUSCLE, changed, polar, sector, stack

from segmed.errors import SegmenterError
from segmed.segmenters.region import Scene
from segmed.segmenters.remote import RemoteMask, RemoteSector


def values(*numbers: float) -> Scene:
    image = np.array(numbers, np.float32).reshape(-1, 1, 1)
    return Scene(
        image, np.ones(image.shape, bool), (1.0, 1.0, 1.0), {"far": np.arange(len(numbers))[:, None, None] < 4}
    )


@pytest.mark.parametrize("middle", [0, 77, 180, 355])
@pytest.mark.parametrize("extent", [0, 90, 270])
def test_the_sector_found_has_the_mean_and_sd_of_muscle_and_no_scar(middle, extent):
    scar = sector(middle, extent)
    scene = stack(scar)
    remote = RemoteSector().find(scene)
    assert not (remote.mask & scar).any()
    assert not (remote.mask & ~scene.region).any()
    assert remote.mean == pytest.approx(MUSCLE, abs=2)
    assert remote.sd == pytest.approx(10, rel=0.15)
    assert remote.voxels == remote.mask.sum() > 300
    assert remote.mean == pytest.approx(scene.image[remote.mask].mean())
    assert remote.sd == pytest.approx(scene.image[remote.mask].std(ddof=1))


def test_a_dark_core_of_obstruction_is_not_taken_for_remote_muscle():
    core = sector(90, 70, inner_mm=ENDO_MM, outer_mm=EPI_MM - 2)
    remote = RemoteSector().find(stack(sector(90, 100), obstruction=core))
    assert not (remote.mask & core).any()
    assert remote.mean == pytest.approx(MUSCLE, abs=2)


def test_a_slice_that_is_scar_all_round_has_no_say():
    scar = sector(0, 60)
    scar[:, :, 1] = sector(0, 360)[:, :, 1]
    remote = RemoteSector().find(stack(scar))
    assert remote.mask.any(axis=(0, 1)).tolist() == [True, False, True]
    assert remote.mean == pytest.approx(MUSCLE, abs=2)


def test_a_slice_filled_with_zeros_has_no_say():
    scene = stack(sector(0, 60))
    scene.image[:, :, 2] = 0
    remote = RemoteSector().find(scene)
    assert remote.mask.any(axis=(0, 1)).tolist() == [True, True, False]
    assert remote.mean == pytest.approx(MUSCLE, abs=2)


def test_blood_and_fat_in_the_border_of_the_wall_are_left_out():
    scene = stack(sector(0, 60))
    radius, _ = polar()
    border = scene.region & ((radius < ENDO_MM + 1) | (radius >= EPI_MM - 1))
    image = np.where(border, scene.image + 30, scene.image).astype(np.float32)
    remote = RemoteSector().find(changed(scene, image=image))
    assert remote.mean == pytest.approx(MUSCLE, abs=3)  # corners of the border that are deeper than 1 mm stay
    assert RemoteSector(border_mm=0).find(changed(scene, image=image)).mean > MUSCLE + 3


def test_a_wall_of_two_voxels_keeps_its_border():
    scene = stack(sector(0, 60))
    radius, _ = polar()
    thin = scene.region & (radius < ENDO_MM + 2)
    remote = RemoteSector(border_mm=3).find(changed(scene, region=thin))
    assert (remote.mask & ~thin).sum() == 0
    assert remote.voxels > 60


def test_in_an_open_ring_the_window_goes_round_the_middle_of_the_cavity():
    scene = stack(sector(180, 100))
    half = changed(scene, region=scene.region & sector(180, 200))
    remote = RemoteSector(arc_deg=45, cavity="pool").find(half)
    _, angle = polar()
    for number in range(
        3
    ):  # each half of the voxels is measured in the window that the other chose: one or two windows
        angles = np.sort(angle[:, :, number][remote.mask[:, :, number]])
        windows = np.split(angles, np.flatnonzero(np.diff(angles) > 45) + 1)
        assert 1 <= len(windows) <= 2
        assert all(np.ptp(window) <= 90 / len(windows) for window in windows)
    assert remote.mean == pytest.approx(MUSCLE, abs=2)


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)])
def test_slices_are_those_of_the_thickest_axis(order):
    scene = stack(sector(30, 90))
    turned = Scene(
        scene.image.transpose(order), scene.region.transpose(order), tuple(scene.spacing_mm[axis] for axis in order)
    )
    assert RemoteSector().find(turned).mean == pytest.approx(RemoteSector().find(scene).mean, abs=1)


def test_mean_and_sd_follow_the_scale_of_the_image():
    scene = stack(sector(30, 90))
    plain = RemoteSector().find(scene)
    scaled = RemoteSector().find(changed(scene, image=scene.image * 0.5 - 40))
    assert np.array_equal(scaled.mask, plain.mask)
    assert scaled.mean == pytest.approx(plain.mean * 0.5 - 40, rel=1e-4)
    assert scaled.sd == pytest.approx(plain.sd * 0.5, rel=1e-4)


def test_a_given_mask_has_the_statistics_of_its_voxels():
    remote = RemoteMask(name="far", smallest_voxels=4).find(values(1, 2, 3, 6, 50, 60))
    assert remote.mean == 3
    assert remote.sd == pytest.approx(np.sqrt(14 / 3))
    assert remote.above(3) == pytest.approx(3 + 3 * np.sqrt(14 / 3))
    assert remote.voxels == 4


def patchy() -> Scene:
    radius, angle = polar()
    return stack((angle // 15 % 2 == 0) & (radius < EPI_MM))


@pytest.mark.parametrize(
    ("remote", "scene", "says"),
    [
        (RemoteMask(name="far"), values(1, 2, 3, 6, 50), "4 voxels, fewer than 20"),
        (
            RemoteMask(name="remote"),
            values(1, 2, 3, 6, 50),
            "no mask is called 'remote': choose one of those beside the region \\(far\\)",
        ),
        (RemoteMask(name="far", smallest_voxels=2), values(3, 3, 3, 3, 50), "no spread"),
        (RemoteSector(), values(1, 2, 3, 6, 50), "no remote region"),
        (RemoteSector(), stack(sector(0, 0), noise=0), "different intensities"),
        (RemoteSector(), stack(sector(0, 90), noise=0), "no remote region"),
        (RemoteSector(), patchy(), "two tissues"),
        (RemoteSector(darker_than="pool"), stack(sector(0, 360)), "not darker than 'pool'"),
        (RemoteSector(cavity="hole"), stack(sector(0, 90)), "no mask is called 'hole'"),
    ],
)
def test_without_a_remote_region_one_line_says_why(remote, scene, says):
    with pytest.raises(SegmenterError, match=says) as error:
        remote.find(scene)
    assert "\n" not in str(error.value)


def test_muscle_darker_than_blood_passes():
    assert RemoteSector(darker_than="pool").find(stack(sector(0, 90))).mean == pytest.approx(MUSCLE, abs=2)


@pytest.mark.parametrize("arc", [0, 361])
def test_a_sector_of_no_or_of_more_than_all_degrees_is_refused(arc):
    with pytest.raises(SegmenterError, match="give 5 to 360"):
        RemoteSector(arc_deg=arc)


def test_the_remote_sector_of_a_real_heart_holds_hardly_any_scar(real_data):
    import nibabel as nib

    folder = real_data("myops_lge") / "Case3017"
    file = nib.load(folder / "Case3017_LGE.nii.gz")
    labels = np.asarray(nib.load(folder / "Case3017_gd.nii.gz").dataobj)
    image = np.asarray(file.dataobj, np.float32)
    scene = Scene(image, np.isin(labels, (200, 1220, 2221)), tuple(map(float, file.header.get_zooms()[:3])))
    remote = RemoteSector().find(scene)
    assert (labels[remote.mask] == 2221).mean() < 0.02
    assert remote.mean < image[labels == 200].mean()

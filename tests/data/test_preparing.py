"""From a file to the network's input: sizes and aspects by hand, intensities that compare, and lines where it fails."""

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segmed.config.image_filters import GaussianConfig, MedianConfig
from segmed.config.images import ImageConfig
from segmed.data.image_filters import filtered
from segmed.data.images.prepare_image import axis_weights, prepared
from segmed.errors import VolumeError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (20, 30)).astype(np.uint8)


def put(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def put_volume(path, voxels, spacing=(1.0, 1.0, 1.0)):
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.diag([*spacing, 1.0])), path)
    return path


def config(**fields) -> ImageConfig:
    return ImageConfig(**{"size": (20, 30), "intensity": "unit", **fields})


# ---------------------------------------------------------------- size


@settings(max_examples=50, deadline=None)
@given(before=st.integers(1, 40), after=st.integers(1, 40))
def test_area_weights_keep_the_mean(before, after):
    weights = axis_weights(before, after, area=True)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    if after <= before:
        np.testing.assert_allclose(weights.sum(axis=0), after / before, rtol=1e-4)


@pytest.mark.parametrize("after", [7, 13, 20, 33])
def test_linear_weights_are_those_of_torch(after):
    row = RNG.random(20).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(row)[None, None], after, mode="linear", align_corners=False)[0, 0]
    np.testing.assert_allclose(axis_weights(20, after, area=False) @ row, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_half_the_size_by_area_is_the_mean_of_four(tmp_path):
    small = prepared(put(tmp_path / "a.png", NOISE), config(size=(10, 15)))
    expected = NOISE.reshape(10, 2, 15, 2).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(small[0], expected, atol=1e-6)


def test_the_same_size_changes_nothing(tmp_path):
    same = prepared(put(tmp_path / "a.png", NOISE), config())
    np.testing.assert_array_equal(same[0], (NOISE / 255).astype(np.float32))
    assert same.dtype == np.float32


def test_padding_keeps_the_aspect_on_black(tmp_path):
    white = put(tmp_path / "a.png", np.full((10, 20), 255, np.uint8))
    padded = prepared(white, config(size=(40, 40), fit="pad"))[0]
    np.testing.assert_array_equal(padded[10:30], 1)
    assert padded[:10].max() == padded[30:].max() == 0


def test_cropping_keeps_the_aspect_of_the_middle(tmp_path):
    ramp = np.tile(np.arange(30, dtype=np.uint8) * 8, (10, 1))
    cropped = prepared(put(tmp_path / "a.png", ramp), config(size=(10, 10), fit="crop"))[0]
    np.testing.assert_allclose(cropped, ramp[:, 10:20] / 255, atol=1e-6)


def test_stretching_fills_the_size(tmp_path):
    ramp = np.tile(np.arange(30, dtype=np.uint8) * 8, (10, 1))
    stretched = prepared(put(tmp_path / "a.png", ramp), config(size=(20, 15), fit="stretch"))[0]
    np.testing.assert_allclose(stretched[7], ramp[0].reshape(15, 2).mean(axis=1) / 255, atol=1e-6)


def test_a_single_pixel_can_be_prepared(tmp_path):
    pixel = put(tmp_path / "a.png", np.full((1, 1), 51, np.uint8))
    np.testing.assert_allclose(prepared(pixel, config(size=(4, 4))), 0.2, atol=1e-6)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_a_ball_of_thick_slices_becomes_a_ball(tmp_path, fit):
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 40, 10)), indexing="ij")
    volume = put_volume(tmp_path / "a.nii.gz", np.sqrt(x**2 + y**2 + z**2) < 0.6, spacing=(1, 1, 4))
    ball = prepared(volume, ImageConfig(dims=3, size=(20, 20, 20), fit=fit, intensity="unit"))[0]
    widths = [np.any(ball > 0.5, axis=tuple({0, 1, 2} - {axis})).sum() for axis in range(3)]
    assert max(widths) - min(widths) <= 2
    assert widths[0] in range(10, 14)


# ---------------------------------------------------------------- colours and intensities


def test_grey_is_tripled_and_colour_kept(tmp_path):
    grey = prepared(put(tmp_path / "a.png", NOISE), config(channels=3))
    assert grey.shape == (3, 20, 30)
    np.testing.assert_array_equal(grey[0], grey[2])
    colour = np.stack([NOISE, NOISE[::-1], NOISE[:, ::-1]], axis=-1)
    kept = prepared(put(tmp_path / "b.png", colour), config(channels=3))
    np.testing.assert_allclose(kept, np.moveaxis(colour, -1, 0) / 255, atol=1e-6)
    assert prepared(tmp_path / "b.png", config(channels=1)).shape == (1, 20, 30)


@pytest.mark.parametrize("deep", [False, True])
def test_zscore_is_of_mean_0_and_sd_1_whatever_the_type(tmp_path, deep):
    pixels = NOISE.astype(np.uint16) * 16 if deep else NOISE
    values = prepared(put(tmp_path / "a.png", pixels), config(intensity="zscore"))
    np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-5)


def test_black_around_a_zscored_image_is_its_black(tmp_path):
    image = NOISE[:10].copy()
    image[0, 0] = 0
    values = prepared(put(tmp_path / "a.png", image), config(size=(30, 30), intensity="zscore"))[0]
    np.testing.assert_allclose(values[0], values[10, 0], rtol=1e-5)


def test_percentiles_go_to_0_and_1(tmp_path):
    image = np.arange(200, dtype=np.uint8).reshape(10, 20)
    values = prepared(
        put(tmp_path / "a.png", image), config(size=(10, 20), intensity="percentile", clip_percentiles=(5, 95))
    )
    assert (values.min(), values.max()) == (0, 1)
    assert (values == 0).sum() == pytest.approx(10, abs=1)
    spot = np.zeros((30, 30), np.uint8)
    spot[3, 4] = 200
    shown = prepared(put(tmp_path / "b.png", spot), config(size=(30, 30), intensity="percentile"))
    assert shown[0, 3, 4] == 1


@pytest.mark.parametrize("intensity", ["zscore", "percentile"])
def test_a_constant_image_is_zero(tmp_path, intensity):
    flat = put(tmp_path / "a.png", np.full((20, 30), 77, np.uint8))
    np.testing.assert_array_equal(prepared(flat, config(intensity=intensity)), 0)


def test_filters_come_before_the_resizing(tmp_path):
    filters = (MedianConfig(), GaussianConfig())
    values = prepared(put(tmp_path / "a.png", NOISE), config(size=(10, 15), filters=filters))[0]
    before = filtered(NOISE / np.float32(255), filters)
    np.testing.assert_allclose(values, before.reshape(10, 2, 15, 2).mean(axis=(1, 3)), atol=1e-6)


# ---------------------------------------------------------------- what does not fit


def test_dimensions_must_fit_the_file(tmp_path):
    picture, volume = put(tmp_path / "a.png", NOISE), put_volume(tmp_path / "a.nii.gz", np.ones((4, 4, 4)))
    with pytest.raises(VolumeError, match=r"a\.nii\.gz is a volume: set images\.dims to 3"):
        prepared(volume, config())
    with pytest.raises(VolumeError, match=r"a\.png is a 2D image: set images\.dims to 2"):
        prepared(picture, ImageConfig(dims=3, size=(4, 4, 4)))


def test_several_time_points_are_one_line(tmp_path):
    volume = put_volume(tmp_path / "a.nii.gz", RNG.random((4, 4, 4, 2)))
    with pytest.raises(VolumeError, match="has 2 channels or time points"):
        prepared(volume, ImageConfig(dims=3, size=(4, 4, 4)))


def test_a_filter_in_mm_names_the_picture(tmp_path):
    with pytest.raises(VolumeError, match=r"a\.png: filter 'gaussian' has lengths in mm"):
        prepared(put(tmp_path / "a.png", NOISE), config(filters=(GaussianConfig(unit="mm"),)))


@pytest.mark.parametrize(
    "fields",
    [
        {"size": (3, 4, 5)},
        {"dims": 3, "size": (3, 4)},
        {"clip_percentiles": (9, 3)},
        {"dims": 3, "size": (2, 2, 2), "channels": 3},
    ],
)
def test_configs_that_contradict_themselves_are_refused(fields):
    with pytest.raises(ValueError, match=r"size|clip_percentiles|channels"):
        ImageConfig(**fields)

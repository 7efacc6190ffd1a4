"""Intensities capped and scaled slice by slice, as the multi-planar U-Nets take them."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from segmed.config import PreprocessConfig
from segmed.data.preprocess import normalise, prepare

BASE = {
    "orientation": "ras", "spacing_mm": "native", "crop": "none", "interpolation": "linear", "separate_z": False,
    "intensity": "median_minmax",
}  # fmt: skip


def scaled(values, *, cap: float = 100.0, affine=None) -> np.ndarray:
    """(X, Y, Z) or (C, X, Y, Z) -> the same, prepared."""
    values = np.asarray(values, np.float32)
    data = torch.from_numpy(values if values.ndim == 4 else values[None])
    config = PreprocessConfig(**BASE, clip_percentiles=(0.0, cap))
    volume = MetaTensor(data.clone(), affine=torch.eye(4, dtype=torch.float64) if affine is None else affine)
    image = normalise(volume, config) if affine is None else prepare(volume, None, config)[0]
    assert image.dtype == torch.float32
    return image.numpy() if values.ndim == 4 else image.numpy()[0]


def stacked(*slices) -> np.ndarray:
    """Slices (X, Y) -> a volume (X, Y, Z)."""
    return np.stack([np.asarray(one, np.float32) for one in slices], axis=-1)


def noise(shape=(12, 10, 5), *, low: int = 1, high: int = 2000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.float32)


def test_what_is_brighter_than_the_cap_takes_the_median_of_its_slice_before_it_is_scaled():
    """Of 18 voxels only the 1000 is above the 95th percentile; the median of its slice, 1000 among it, is 5."""
    volume = stacked([[1, 2, 3], [4, 5, 6], [7, 8, 1000]], [[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    result = scaled(volume, cap=95.0)
    first = (np.array([[1, 2, 3], [4, 5, 6], [7, 8, 5]]) - 1) / 7
    second = (volume[..., 1] - 10) / 80
    np.testing.assert_allclose(result, stacked(first, second), atol=1e-6)


def test_the_cap_is_one_of_the_volume_and_the_scale_one_of_the_slice():
    dim, bright = noise(high=100), noise(high=100) + 1000
    volume = np.concatenate([dim, bright], axis=-1)
    result = scaled(volume, cap=50.0)  # every bright slice lies above it
    np.testing.assert_array_equal(result[..., 5:], 0)
    assert (result[..., :5].max(axis=(0, 1)) == 1).all()


def test_without_a_cap_each_slice_runs_from_zero_to_one():
    volume = noise()
    low, high = volume.min(axis=(0, 1)), volume.max(axis=(0, 1))
    result = scaled(volume)
    np.testing.assert_allclose(result, (volume - low) / (high - low), atol=1e-6)
    assert (result.min(axis=(0, 1)) == 0).all()
    assert (result.max(axis=(0, 1)) == 1).all()


@settings(max_examples=30, deadline=None)
@given(cap=st.floats(1, 100), seed=st.integers(0, 99), low=st.sampled_from([-500, 0, 1]))
def test_slices_lie_between_zero_and_one_whatever_the_cap(cap, seed, low):
    result = scaled(noise(seed=seed, low=low), cap=cap)
    assert result.min() >= 0
    assert result.max() <= 1


def test_zeros_of_a_masked_volume_stay_zero_and_count_for_nothing():
    """The mask leaves 3 of 9 voxels; neither its zeros nor how many there are change what these become."""
    masked = np.zeros((3, 3, 1))
    masked[0, :, 0] = 100, 200, 5000
    result = scaled(masked, cap=60.0)
    np.testing.assert_allclose(result[0, :, 0], [0, 1, 1], atol=1e-6)  # the cap is 760, the median of the three 200
    assert not result[1:].any()
    wider = np.zeros((20, 20, 1))
    wider[:3, :3] = masked
    np.testing.assert_array_equal(scaled(wider, cap=60.0)[:3, :3], result)


def test_a_slice_without_anything_stays_empty_beside_others():
    volume = noise()
    volume[..., 2] = 0
    result = scaled(volume, cap=99.0)
    assert not result[..., 2].any()
    rest = [0, 1, 3, 4]
    np.testing.assert_array_equal(result[..., rest], scaled(volume[..., rest], cap=99.0))


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0, 1e30])
def test_a_constant_volume_becomes_zero(value):
    assert not scaled(np.full((4, 4, 3), value), cap=99.0).any()


def test_a_constant_slice_becomes_zero_and_the_others_do_not_notice():
    volume = noise()
    volume[..., 1] = 900
    result = scaled(volume)
    assert not result[..., 1].any()
    assert (result.max(axis=(0, 1)) == [1, 0, 1, 1, 1]).all()


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.01, 100), offset=st.floats(0, 5000), seed=st.integers(0, 99), cap=st.integers(80, 99))
def test_gain_and_offset_change_nothing_where_no_voxel_is_zero(gain, offset, seed, cap):
    volume = np.random.default_rng(seed).permutation(np.arange(1.0, 481)).reshape(12, 10, 4)  # no two are alike
    other = (gain * volume + offset).astype(np.float32)
    assume(np.ptp(other) > 0.05 * offset)  # else float32 has no digits left for the image
    np.testing.assert_allclose(scaled(other, cap=cap), scaled(volume, cap=cap), atol=1e-4)


def test_channels_are_scaled_apart():
    one, two = noise(seed=1), 10 * noise(seed=2) + 7
    result = scaled(np.stack([one, two]), cap=99.0)
    np.testing.assert_array_equal(result, np.stack([scaled(one, cap=99.0), scaled(two, cap=99.0)]))


def test_slices_are_those_of_the_last_axis_of_the_prepared_volume():
    """Stored with its slices first, a stack comes out as if it had been stored with them last."""
    volume = noise((6, 5, 4))
    stored = np.moveaxis(volume, -1, 0)
    affine = torch.eye(4, dtype=torch.float64)[:, [2, 0, 1, 3]]
    np.testing.assert_array_equal(scaled(stored, cap=98.0, affine=affine), scaled(volume, cap=98.0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_those_of_the_view_that_is_trained(axis):
    volume = noise()
    config = PreprocessConfig(**BASE, clip_percentiles=(0.0, 100.0), slices_across=axis)
    given_volume = MetaTensor(torch.from_numpy(volume.copy())[None], affine=torch.eye(4, dtype=torch.float64))
    result = normalise(given_volume, config).numpy()[0]
    others = tuple(other for other in range(3) if other != axis)
    low, high = (edge(axis=others, keepdims=True) for edge in (volume.min, volume.max))
    np.testing.assert_allclose(result, (volume - low) / (high - low), atol=1e-6)

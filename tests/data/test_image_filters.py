"""Filters: noise goes, edges and scale stay, coil shading is divided out, and odd images give one line."""

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import ndimage

from segmed.config.image_filters import (
    ClaheConfig,
    Filter,
    GaussianConfig,
    MeanConfig,
    MedianConfig,
    N4Config,
    SigmaConfig,
    WienerConfig,
)
from segmed.data.image_filters import filtered, noise_sd
from segmed.errors import DatasetError

SMOOTHING = (MeanConfig(), GaussianConfig(), MedianConfig(), SigmaConfig(), WienerConfig())
EDGE_KEEPING = (MedianConfig(), SigmaConfig(), WienerConfig())
ALL = (*SMOOTHING, ClaheConfig(), N4Config())


def name_of(config) -> str:
    return config.name


def disc(shape=(64, 64), *, noise=0.05, seed=0) -> np.ndarray:
    """A bright ball in the dark with noise everywhere."""
    away = np.linalg.norm(np.indices(shape) - np.array(shape).reshape(-1, *[1] * len(shape)) / 2, axis=0)
    rng = np.random.default_rng(seed)
    return (0.2 + 0.6 * (away < shape[0] / 3) + rng.normal(0, noise, shape)).astype(np.float32)


@pytest.mark.parametrize("config", ALL, ids=name_of)
@pytest.mark.parametrize("shape", [(40, 48), (20, 24, 16)])
def test_shape_and_type_are_kept_in_two_and_three_dimensions(config, shape):
    result = filtered(disc(shape), [config])
    assert (result.shape, result.dtype) == (shape, np.float32)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("config", SMOOTHING, ids=name_of)
def test_noise_gets_less_where_the_image_is_flat(config):
    image = disc()
    flat = (slice(28, 36), slice(28, 36))
    assert filtered(image, [config])[flat].std() < 0.7 * image[flat].std()


@pytest.mark.parametrize("config", EDGE_KEEPING, ids=name_of)
def test_the_edge_stays_sharper_than_under_a_mean_of_that_size(config):
    step = np.zeros((32, 32), np.float32)
    step[:, 16:] = 1
    step += np.random.default_rng(0).normal(0, 0.02, step.shape).astype(np.float32)
    mean = MeanConfig(size=getattr(config, "size", 3.0))
    rise = {each.name: np.abs(np.diff(filtered(step, [each])[:, 15:17], axis=1)).mean() for each in (config, mean)}
    assert rise[config.name] > 0.9
    assert rise["mean"] < 0.5


@pytest.mark.parametrize("config", ALL, ids=name_of)
def test_the_scale_of_the_intensities_does_not_matter(config):
    image = np.maximum(disc(), 0)
    np.testing.assert_allclose(filtered(image * 512, [config]), filtered(image, [config]) * 512, rtol=2e-3, atol=1)


@pytest.mark.parametrize("config", ALL, ids=name_of)
def test_a_constant_image_stays_as_it_is(config):
    image = np.full((24, 24), 0.3, np.float32)
    np.testing.assert_array_equal(filtered(image, [config]), image)


@pytest.mark.parametrize("config", ALL, ids=name_of)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_one_line(config, value):
    image = disc()
    image[3, 4] = value
    with pytest.raises(DatasetError, match="1 voxels are NaN or infinite"):
        filtered(image, [config])


def test_clahe_widens_a_narrow_range_and_stays_in_the_images_own():
    dark = np.tile(np.linspace(0.1, 0.2, 64, dtype=np.float32), (64, 1))
    dark[:4, :4] = 1.0
    dark[-4:, -4:] = 0.0
    result = filtered(dark, [ClaheConfig(clip_limit=0.5)])
    assert np.ptp(result[20:40, 20:40]) > 3 * np.ptp(dark[20:40, 20:40])
    assert result.min() >= 0
    assert result.max() <= 1


def test_n4_takes_the_shading_away():
    image = np.zeros((64, 64), np.float32)
    image[8:56, 8:56] = 1 + 0.02 * np.random.default_rng(0).standard_normal((48, 48))
    shading = np.exp(np.linspace(-0.5, 0.5, 64, dtype=np.float32))[None]
    inside = (slice(12, 52), slice(12, 52))
    before = (image * shading)[inside]
    after = filtered(image * shading, [N4Config(iterations=(30, 30))])[inside]
    assert after.std() / after.mean() < 0.35 * before.std() / before.mean()


def test_n4_leaves_an_image_without_tissue():
    image = np.zeros((32, 32), np.float32)
    image[4, 4] = 1
    np.testing.assert_array_equal(filtered(image, [N4Config()]), image)


@pytest.mark.parametrize("sd", [0.01, 0.1])
@pytest.mark.parametrize("shape", [(96, 96), (24, 24, 24)])
def test_the_noise_is_estimated_in_spite_of_edges(sd, shape):
    assert noise_sd(disc(shape, noise=sd)) == pytest.approx(sd, rel=0.15)


def test_lees_filter_removes_a_spot_that_no_neighbour_resembles():
    image = np.full((16, 16), 0.5, np.float32)
    image[8, 8], image[0, 0] = 1.0, 0.0
    result = filtered(image, [SigmaConfig(noise_sd=0.05)])
    assert result[8, 8] == pytest.approx(0.5, abs=1e-6)


def test_wiener_with_known_noise_comes_closer_to_the_truth_than_the_mean():
    truth = disc(noise=0)
    image = disc(noise=0.08)
    error = {
        each.name: float(np.square(filtered(image, [each]) - truth).mean())
        for each in (WienerConfig(size=5, noise_sd=0.08), MeanConfig(size=5))
    }
    assert error["wiener"] < 0.6 * error["mean"]


def test_lengths_in_mm_follow_the_spacing():
    point = np.zeros((15, 15), np.float32)
    point[7, 7] = 1
    wide = filtered(point, [MeanConfig(size=6, unit="mm")], spacing_mm=(2.0, 6.0))
    np.testing.assert_array_equal(np.argwhere(wide > 0.1), [[6, 7], [7, 7], [8, 7]])
    blurred = filtered(point, [GaussianConfig(sd=2, unit="mm")], spacing_mm=(2.0, 2.0))
    np.testing.assert_allclose(blurred, ndimage.gaussian_filter(point, 1.0), atol=1e-6)


def test_lengths_in_mm_need_a_spacing():
    with pytest.raises(DatasetError, match="filter 'mean' has lengths in mm"):
        filtered(disc(), [MeanConfig(unit="mm")])


def test_filters_follow_each_other():
    image = disc()
    both = filtered(image, [MedianConfig(), GaussianConfig()])
    np.testing.assert_array_equal(both, filtered(filtered(image, [MedianConfig()]), [GaussianConfig()]))
    assert not np.array_equal(both, filtered(image, [GaussianConfig(), MedianConfig()]))


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2, 2), (0, 4)])
def test_other_shapes_are_one_line(shape):
    with pytest.raises(DatasetError, match="two or three axes"):
        filtered(np.zeros(shape, np.float32), [MeanConfig()])


def test_every_filter_says_what_its_fields_mean():
    for config in ALL:
        assert all(field.description for name, field in type(config).model_fields.items() if name != "name")
        assert TypeAdapter(Filter).validate_python({"name": config.name}) == config

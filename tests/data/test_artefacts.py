"""Artefacts: contract of all of them, and what each one keeps. Intensities change, geometry does not."""

from functools import partial

import numpy as np
import pytest
import torch
import torchio as tio

from segmed.data import artefacts

CASES = {  # name: size, spacing_mm, acquired axes
    "3D": ((20, 24, 22), (1.0, 1.0, 1.0), (0, 1, 2)),
    "3D, unequal spacing": ((20, 12, 22), (1.0, 2.0, 1.2), (0, 1, 2)),
    "thick slices": ((24, 20, 6), (1.0, 1.0, 8.0), (0, 1)),
    "sagittal slice": ((1, 24, 22), (1.0, 1.5, 1.0), (1, 2)),
    "axial slice": ((24, 22, 1), (1.0, 1.5, 8.0), (0, 1)),
}
each_case = pytest.mark.parametrize(("size", "spacing_mm", "axes"), CASES.values(), ids=CASES)

NEUTRAL = {
    "bias": partial(artefacts.bias, coefficient=0),
    "gamma": partial(artefacts.gamma, log=0),
    "ghosting": partial(artefacts.ghosting, intensity=0),
    "motion": partial(artefacts.motion, deg=0, mm=0),
    "spike": partial(artefacts.spike, intensity=0),
    "blur": partial(artefacts.blur, sd_voxels=0),
    "low_resolution": partial(artefacts.low_resolution, factor=1),
    "noise": partial(artefacts.noise, sd=0),
}
STRONG = {
    "synthetic": partial(artefacts.synthetic, clusters=4, noise=0.15, blur_sd_voxels=1, bias=0.3),
    "contrast": partial(artefacts.contrast, points=5),
    "bias": partial(artefacts.bias, coefficient=0.5),
    "gamma": partial(artefacts.gamma, log=0.5),
    "histogram": partial(artefacts.histogram, points=4),
    "ghosting": partial(artefacts.ghosting, intensity=1),
    "motion": partial(artefacts.motion, deg=5, mm=4),
    "spike": partial(artefacts.spike, intensity=0.5),
    "blur": partial(artefacts.blur, sd_voxels=2),
    "low_resolution": partial(artefacts.low_resolution, factor=3),
    "noise": partial(artefacts.noise, sd=0.5),
}


def coordinates(size) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, size), indexing="ij")).astype(np.float32)


def smooth(size, channels=2) -> torch.Tensor:
    """A z-scored image with structure: a ball on a slope."""
    offset = coordinates(size) - (np.array(size)[:, None, None, None] - 1) / 2
    ball = (offset**2).sum(axis=0) < (max(size) / 4) ** 2
    image = np.stack([ball * (channel + 1) + 0.03 * offset.sum(axis=0) for channel in range(channels)])
    image = (image - image.mean(axis=(1, 2, 3), keepdims=True)) / image.std(axis=(1, 2, 3), keepdims=True)
    return torch.from_numpy(image.astype(np.float32))


def frame(image, spacing_mm=(1.0, 1.0, 1.0), axes=(0, 1, 2)) -> artefacts.Frame:
    return artefacts.Frame(spacing_mm, axes, image.flatten(1).amin(dim=1) - 0.5)


@each_case
@pytest.mark.parametrize("name", NEUTRAL)
def test_an_artefact_of_no_strength_changes_nothing(name, size, spacing_mm, axes):
    image = smooth(size)
    result = NEUTRAL[name](image.clone(), frame(image, spacing_mm, axes), generator=np.random.default_rng(0))
    assert torch.allclose(result, image, atol=1e-4)


@each_case
@pytest.mark.parametrize("name", STRONG)
def test_an_artefact_changes_intensities_only_and_leaves_its_input(name, size, spacing_mm, axes):
    image = smooth(size)
    given_image = image.clone()
    results = [
        STRONG[name](image, frame(image, spacing_mm, axes), generator=np.random.default_rng(seed)) for seed in range(4)
    ]
    for result in results:
        assert result.shape == image.shape
        assert result.dtype == torch.float32
        assert torch.isfinite(result).all()
    assert any(not torch.allclose(result, image, atol=0.05) for result in results)
    assert torch.equal(image, given_image)


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("value", [0.0, -1.5])
def test_an_artefact_of_a_constant_patch_is_finite(name, value):
    image = torch.full((1, 8, 8, 8), value)
    where = artefacts.Frame((1.0, 1.0, 1.0), (0, 1, 2), torch.tensor([value]))
    result = STRONG[name](image, where, generator=np.random.default_rng(0))
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("name", ["ghosting", "motion", "blur", "low_resolution"])
@each_case
def test_the_picture_does_not_leave_its_label(name, size, spacing_mm, axes):
    image = smooth(tuple(2 * n if n > 1 else 1 for n in size), channels=1)
    weight = lambda x: (x - x.min()).double() ** 2  # noqa: E731
    where = torch.from_numpy(coordinates(image.shape[1:]))
    middle = [float((weight(image)[0] * where[axis]).sum() / weight(image).sum()) for axis in range(3)]
    for seed in range(4):
        moderate = partial(artefacts.motion, deg=2, mm=2) if name == "motion" else STRONG[name]
        result = moderate(image.clone(), frame(image, spacing_mm, axes), generator=np.random.default_rng(seed))
        moved = [float((weight(result)[0] * where[axis]).sum() / weight(result).sum()) for axis in range(3)]
        assert np.allclose(moved, middle, atol=1.0)


@pytest.mark.parametrize("size", [(10, 12, 8), (9, 1, 11)])
def test_the_bias_field_is_torchios(size):
    coefficients = np.random.default_rng(0).uniform(-0.3, 0.3, 20)
    ours = artefacts.polynomial_field(size, coefficients)
    theirs = tio.BiasField.generate_bias_field(torch.zeros(1, *size), 3, coefficients.tolist())
    assert np.allclose(ours, theirs, rtol=1e-4)


def test_a_bias_field_keeps_the_floor_and_the_order_of_neighbours_above_it():
    image = torch.rand(2, 12, 12, 12)
    floor = torch.tensor([0.0, -3.0])
    where = artefacts.Frame((1.0, 1.0, 1.0), (0, 1, 2), floor)
    image[:, 3] = floor[:, None, None]
    result = artefacts.bias(image, where, coefficient=0.5, generator=np.random.default_rng(0))
    assert torch.allclose(result[:, 3], image[:, 3], atol=1e-5)
    ratio = (result - floor[:, None, None, None])[:, 4:] / (image - floor[:, None, None, None])[:, 4:]
    assert (ratio > 0).all()


@pytest.mark.parametrize("change", [partial(artefacts.gamma, log=0.4), STRONG["histogram"]], ids=["gamma", "histogram"])
def test_an_intensity_map_keeps_order_mean_and_deviation_of_negative_intensities(change):
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 12, 12, 12)).astype(np.float32))
    for seed in range(8):
        result = change(image, frame(image), generator=np.random.default_rng(seed))
        assert torch.allclose(result.mean(dim=(1, 2, 3)), image.mean(dim=(1, 2, 3)), atol=1e-4)
        assert torch.allclose(result.std(dim=(1, 2, 3)), image.std(dim=(1, 2, 3)), atol=1e-4)
        assert torch.equal(result[0].flatten()[image[0].flatten().argsort()].diff() >= -1e-6, torch.ones(1727) > 0)


def striped(size=(24, 24, 24)) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of four slabs (1, X, Y, Z), of which the second is label 1 and the third is ignored; and its labels."""
    slab = torch.arange(size[0])[:, None, None].expand(size) * 4 // size[0]
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[slab == 1], labels[slab == 2] = 1, 255
    return slab[None].float() + 0.001 * torch.rand(1, *size), labels


def test_a_synthetic_contrast_draws_each_label_and_each_step_of_intensity_outside_of_them():
    image, labels = striped()
    tissue = artefacts.tissues(image[0].numpy(), labels.numpy(), clusters=4)
    assert np.unique(tissue[labels == 1]).tolist() == [4]
    assert [np.unique(tissue[6 * slab : 6 * slab + 6]).tolist() for slab in (0, 2, 3)] == [[0], [2], [3]]
    where = artefacts.Frame((1.0, 1.0, 1.0), (0, 1, 2), torch.zeros(1), labels)
    plain = partial(artefacts.synthetic, clusters=4, noise=0.0, blur_sd_voxels=0.0, bias=0.0)
    orders = set()
    for seed in range(20):
        result = plain(image, where, generator=np.random.default_rng(seed))[0]
        values = [result[tissue == kind] for kind in (0, 2, 3, 4)]
        assert all(float(each.max() - each.min()) < 1e-4 for each in values)
        orders.add(tuple(np.argsort([float(each.mean()) for each in values])))
        assert float(result.mean()) == pytest.approx(float(image.mean()), abs=1e-3)
        assert float(result.std()) == pytest.approx(float(image.std()), abs=1e-3)
    assert len(orders) > 10  # of the 24 orders of brightness


def test_a_synthetic_contrast_blurs_borders_and_never_across_thick_slices():
    image, labels = striped()
    across = artefacts.Frame((8.0, 1.0, 1.0), (1, 2), torch.zeros(1), labels)
    along = artefacts.Frame((1.0, 1.0, 1.0), (0, 1, 2), torch.zeros(1), labels)
    draw = partial(artefacts.synthetic, clusters=4, noise=0.0, blur_sd_voxels=2.0, bias=0.0)
    kept, blurred = (draw(image, where, generator=np.random.default_rng(1))[0] for where in (across, along))
    assert all(float(kept[x].max() - kept[x].min()) < 1e-4 for x in range(24))
    assert len(kept[:, 0, 0].mul(1e4).round().unique()) == 4 < len(blurred[:, 0, 0].mul(1e4).round().unique())


def test_a_random_contrast_rises_and_falls_and_is_one_curve():
    image = torch.linspace(-2, 3, 1000).reshape(1, 10, 10, 10)
    falling = 0
    for seed in range(10):
        result = STRONG["contrast"](image, frame(image), generator=np.random.default_rng(seed)).flatten()
        falling += bool((result.diff() < 0).any()) and bool((result.diff() > 0).any())
        assert result.diff().abs().max() < 0.1  # no jump
    assert falling >= 8


def test_noise_has_the_deviation_drawn_at_most():
    image = torch.zeros(1, 20, 20, 20)
    deviations = [
        float(artefacts.noise(image, frame(image), sd=0.4, generator=np.random.default_rng(n)).std()) for n in range(20)
    ]
    assert 0 < min(deviations) < 0.15
    assert 0.25 < max(deviations) <= 0.41


def test_thick_slices_are_not_blurred_into_each_other():
    image = torch.zeros(1, 12, 12, 6)
    image[..., 3] = 1
    place = frame(image, (1.0, 1.0, 8.0), (0, 1))
    for name in ("blur", "low_resolution"):
        result = STRONG[name](image, place, generator=np.random.default_rng(1))
        assert torch.allclose(result, image, atol=1e-5)

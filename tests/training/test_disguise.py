"""Disguises: softness alone gives a result away, a disguise hides it, and wrong shapes are seen all the same."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.errors import TrainingError
from segmed.labels import IGNORE
from segmed.losses.adversarial import adversarial_loss
from segmed.targets import LabelTargets
from segmed.training.disguise import (
    DISGUISES,
    Disguise,
    InstanceNoise,
    Softened,
    StraightThrough,
    Undisguised,
    disguise,
    reference_maps,
)

CLASSES = 3


def targets(classes: int) -> LabelTargets:
    return LabelTargets([str(index) for index in range(1, classes)])


TARGETS = targets(CLASSES)
SIZE = 32
NAMES = list(DISGUISES)


def soft_maps(labels: Tensor, *, least: float, generator: torch.Generator) -> Tensor:
    """Softmax maps whose likeliest class is the label, with `least` to 0.99, and the others sharing at random."""
    one_hot, _ = reference_maps(labels, TARGETS)
    confidence = least + (0.99 - least) * torch.rand(labels[:, None].shape, generator=generator)
    rest = (torch.rand(one_hot.shape, generator=generator) + 0.01) * (1 - one_hot)
    return confidence * one_hot + (1 - confidence) * rest / rest.sum(1, keepdim=True)


def random_case(*, dims: int = 2, seed: int = 0, least: float = 0.9) -> tuple[Tensor, Tensor]:
    """A reference and a perfect soft map of it, (2, CLASSES, *spatial)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (2, *[5] * dims), generator=generator, dtype=torch.uint8)
    return reference_maps(labels, TARGETS)[0], soft_maps(labels, least=least, generator=generator)


# ---------------------------------------------------------------- maps of references


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64])
def test_reference_maps_are_one_hot_and_0_where_nobody_annotated(kind):
    labels = torch.tensor([[[0, 1], [2, IGNORE]]], dtype=torch.uint8).to(kind)
    maps, counted = reference_maps(labels, targets(3))
    expected = torch.tensor([[[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]], dtype=torch.float32)
    assert maps.dtype == torch.float32
    assert torch.equal(maps, expected)
    assert torch.equal(counted, torch.tensor([[[[True, True], [True, False]]]]))


def test_reference_maps_of_a_volume_sum_to_the_mask():
    labels = torch.randint(0, 4, (2, 3, 4, 5), dtype=torch.uint8)
    labels[:, 1] = IGNORE
    maps, counted = reference_maps(labels, targets(4))
    assert maps.shape == (2, 4, 3, 4, 5)
    assert torch.equal(maps.sum(1, keepdim=True), counted.float())
    assert torch.equal(maps.argmax(1)[counted[:, 0]], labels[counted[:, 0]].long())


# ---------------------------------------------------------------- the contract of all


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_disguise_keeps_the_shape_and_leads_gradients_to_the_result_alone(name, dims):
    reference, probabilities = random_case(dims=dims)
    probabilities.requires_grad_()
    weights = torch.randn(probabilities.shape)
    chosen = disguise(name)
    real = chosen.real(reference, probabilities, 0.0)
    fake = chosen.fake(probabilities, 0.0)
    assert real.shape == fake.shape == reference.shape
    assert not real.requires_grad
    (fake * weights).sum().backward()
    torch.testing.assert_close(probabilities.grad, weights)


@pytest.mark.parametrize("name", NAMES)
def test_a_disguise_shows_fp32_and_leaves_its_arguments_as_they_are(name):
    reference, probabilities = random_case()
    probabilities = probabilities.bfloat16()
    before = reference.clone(), probabilities.clone()
    chosen = disguise(name)
    assert chosen.fake(probabilities, 0.5).dtype == torch.float32
    assert chosen.real(reference, probabilities, 0.5).dtype == torch.float32
    assert torch.equal(reference, before[0])
    assert torch.equal(probabilities, before[1])


# ---------------------------------------------------------------- each by itself


def test_undisguised_maps_are_as_they_are():
    reference, probabilities = random_case()
    assert torch.equal(Undisguised().fake(probabilities, 0.0), probabilities)
    assert torch.equal(Undisguised().real(reference, probabilities, 0.0), reference)


def test_a_softened_reference_has_the_values_worked_out_by_hand():
    reference = torch.tensor([[0.0, 1.0, 0.0]] * 4).T[None]  # 4 voxels of class 1
    probabilities = torch.tensor([[0.03, 0.95, 0.02], [0.3, 0.6, 0.1], [0.75, 0.0, 0.25], [0.0, 1.0, 0.0]]).T[None]
    expected = torch.tensor([[0.03, 0.95, 0.02], [0.075, 0.9, 0.025], [0.075, 0.9, 0.025], [0.0, 1.0, 0.0]]).T[None]
    softened = Softened(0.9).real(reference, probabilities, 0.0)
    torch.testing.assert_close(softened, expected)
    assert torch.equal(softened[..., 0], probabilities[..., 0])
    assert torch.equal(softened[..., 3], probabilities[..., 3])


@pytest.mark.parametrize("least", [0.34, 0.6, 0.9])
def test_a_softened_reference_sums_to_1_and_keeps_its_labels(least):
    reference, probabilities = random_case(dims=3, least=least)
    softened = Softened().real(reference, probabilities.roll(1, dims=2), 0.0)
    torch.testing.assert_close(softened.sum(1), torch.ones_like(softened[:, 0]))
    assert torch.equal(softened.argmax(1), reference.argmax(1))
    assert ((softened * reference).sum(1) >= 0.9 - 1e-6).all()


def test_a_softened_reference_is_finite_where_a_network_is_certain_of_the_wrong_or_right_class():
    reference, _ = random_case()
    for certain in (reference, reference.roll(1, dims=1)):
        softened = Softened().real(reference, certain, 0.0)
        assert softened.isfinite().all()
        torch.testing.assert_close(softened.sum(1), torch.ones_like(softened[:, 0]))


def test_a_straight_result_is_0_and_1_to_the_bit_where_its_likeliest_class_is():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn((2, 4, 9, 9, 9), generator=generator).softmax(1).requires_grad_()
    shown = StraightThrough().fake(probabilities, 0.0)
    assert torch.equal(shown, F.one_hot(probabilities.argmax(1), 4).movedim(-1, 1).float())
    assert not torch.signbit(shown).any()


def test_a_straight_result_moves_a_network_as_its_probabilities_would():
    logits = torch.randn(1, 3, 6, 6, requires_grad=True)
    weights = torch.randn(1, 3, 6, 6)
    straight = torch.autograd.grad((StraightThrough().fake(logits.softmax(1), 0.0) * weights).sum(), logits)
    soft = torch.autograd.grad((logits.softmax(1) * weights).sum(), logits)
    torch.testing.assert_close(straight, soft)


@pytest.mark.parametrize(
    ("until", "progress", "expected"),
    [(1.0, 0.0, 2.0), (1.0, 0.25, 1.5), (1.0, 1.0, 0.0), (0.5, 0.25, 1.0), (0.5, 0.5, 0.0), (0.5, 0.9, 0.0)],
)
def test_noise_falls_on_a_straight_line(until, progress, expected):
    noise = InstanceNoise(2.0, until)
    assert noise.sd_at(progress) == pytest.approx(expected)
    reference, probabilities = torch.zeros(4, 2, 64, 64), torch.full((4, 2, 64, 64), 0.5)
    torch.manual_seed(0)
    real, fake = noise.real(reference, probabilities, progress), noise.fake(probabilities, progress) - 0.5
    assert real.std().item() == pytest.approx(expected, rel=0.02)
    assert fake.std().item() == pytest.approx(expected, rel=0.02)
    assert abs(real.mean().item()) <= 0.03 * expected
    if expected:
        assert abs((real * fake).mean().item()) < 0.03 * expected**2  # each side has a noise of its own


def test_noise_comes_from_the_global_generator_and_draws_nothing_once_it_is_gone():
    reference, probabilities = random_case()
    noise = InstanceNoise(1.0, 0.5)
    torch.manual_seed(3)
    first = noise.fake(probabilities, 0.1)
    torch.manual_seed(3)
    assert torch.equal(noise.fake(probabilities, 0.1), first)
    state = torch.get_rng_state()
    assert torch.equal(noise.real(reference, probabilities, 0.5), reference)
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- the trap


def discs(count: int, generator: torch.Generator) -> Tensor:
    """Labels (count, SIZE, SIZE): a disc of label 2 inside a ring of label 1, at random places and sizes."""
    axis = torch.arange(SIZE).float()
    centre = torch.rand((count, 2, 1, 1), generator=generator) * 12 + 10
    radius = torch.rand((count, 1, 1), generator=generator) * 4 + 5
    distance = ((axis[:, None] - centre[:, 0]) ** 2 + (axis - centre[:, 1]) ** 2).sqrt()
    return (distance < radius).long() + (distance < 0.55 * radius).long()


def eroded(labels: Tensor) -> Tensor:
    """Two pixels are gone all around."""
    inside = -F.max_pool2d(-(labels > 0).float()[:, None], 5, 1, 2)[:, 0]
    return torch.where(inside > 0, labels, 0)


def holed(labels: Tensor) -> Tensor:
    """A hole of radius 2 in the middle."""
    axis = torch.arange(SIZE).float()
    mass = (labels > 0).float() / (labels > 0).sum((1, 2), keepdim=True)
    row, column = (mass * axis[:, None]).sum((1, 2), keepdim=True), (mass * axis).sum((1, 2), keepdim=True)
    return torch.where((axis[:, None] - row) ** 2 + (axis - column) ** 2 < 4, 0, labels)


def unharmed(labels: Tensor) -> Tensor:
    return labels


def accuracy(
    chosen: Disguise, *, shapes: Callable[[Tensor], Tensor] = unharmed, least: float = 0.9, progress: float = 0.0
) -> float:
    """How often a small discriminator is right on 256 references and 256 maps that it has not seen.

    60 Adam steps of 16 fresh references and 16 results, whose labels are `shapes` of the reference's.
    """
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    discriminator = nn.Sequential(
        nn.Conv2d(CLASSES, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 1, 3, 1, 1), nn.AdaptiveAvgPool2d(1),
    )  # fmt: skip
    optimiser = torch.optim.Adam(discriminator.parameters(), 5e-3, betas=(0.5, 0.999))
    loss = adversarial_loss("non_saturating")

    def shown(count: int) -> tuple[Tensor, Tensor]:
        labels = discs(count, generator)
        probabilities = soft_maps(shapes(labels), least=least, generator=generator)
        reference, _ = reference_maps(labels, TARGETS)
        return chosen.real(reference, probabilities, progress), chosen.fake(probabilities, progress)

    for _ in range(60):
        real, fake = shown(16)
        optimiser.zero_grad()
        loss.discriminator(discriminator(real), discriminator(fake)).backward()
        optimiser.step()
    with torch.no_grad():
        real, fake = shown(256)
        return loss.accuracy(discriminator(real), discriminator(fake)).item()


def ideal_accuracy(sd: float) -> float:
    """No discriminator tells a map from its reference under noise more often: the mean of Φ(distance / 2 sd)."""
    generator = torch.Generator().manual_seed(1)
    labels = discs(256, generator)
    apart = reference_maps(labels, TARGETS)[0] - soft_maps(labels, least=0.9, generator=generator)
    return torch.special.ndtr(apart.flatten(1).norm(dim=1) / (2 * sd)).mean().item()


def test_without_a_disguise_perfect_maps_are_told_from_references_at_a_glance():
    assert accuracy(Undisguised()) > 0.98


@pytest.mark.parametrize("least", [0.5, 0.9])
def test_straight_through_leaves_nothing_to_tell_perfect_maps_by(least):
    """Both are the same to the bit, however unsure the map is, so no discriminator does better than a coin."""
    generator = torch.Generator().manual_seed(0)
    labels = discs(64, generator)
    reference, _ = reference_maps(labels, TARGETS)
    perfect = soft_maps(labels, least=least, generator=generator)
    chosen = StraightThrough()
    assert torch.equal(chosen.fake(perfect, 0.0), chosen.real(reference, perfect, 0.0))
    assert accuracy(chosen, least=least) == 0.5


def test_soften_leaves_nothing_to_tell_perfect_maps_by_where_they_are_sure():
    reference, perfect = random_case(dims=3, least=0.9)
    assert torch.equal(Softened(0.9).fake(perfect, 0.0), Softened(0.9).real(reference, perfect, 0.0))
    assert accuracy(Softened(0.9)) == 0.5


def test_soften_gives_perfect_maps_away_that_are_less_sure_than_its_references():
    """The price of this disguise: at 0.6 a pixel is still right, but no reference is ever shown like that."""
    assert accuracy(Softened(0.9), least=0.6) > 0.95


def test_noise_of_its_default_sd_nearly_hides_perfect_maps_at_the_start():
    """0.58 with each of five seeds; an ideal observer is held to 0.66 by arithmetic."""
    assert accuracy(InstanceNoise()) < 0.62
    assert ideal_accuracy(InstanceNoise().sd) == pytest.approx(0.66, abs=0.01)


def test_noise_that_hides_softness_hides_small_holes_too():
    """The price of this disguise; what is eroded all around is still seen 3 times in 4."""
    assert accuracy(InstanceNoise(), shapes=holed) < 0.62
    assert accuracy(InstanceNoise(), shapes=eroded) > 0.7


def test_noise_hides_nothing_any_more_once_it_is_weak_or_gone():
    assert accuracy(InstanceNoise(), progress=0.9) > 0.8  # sd 0.3
    assert accuracy(InstanceNoise(), progress=1.0) > 0.98


@pytest.mark.parametrize("shapes", [eroded, holed])
@pytest.mark.parametrize("name", ["straight_through", "soften"])
def test_wrong_shapes_are_seen_through_the_disguise(name, shapes):
    assert accuracy(disguise(name), shapes=shapes) > 0.85


def test_a_discriminator_of_straight_maps_draws_a_result_towards_the_reference():
    """One disc pixel is taken for background: raising the disc there raises a linear decision for discs."""
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[:, 1:3, 1:3] = 1
    reference, _ = reference_maps(labels, targets(2))
    probabilities = (0.8 * reference + 0.1).clone()
    probabilities[0, :, 1, 1] = torch.tensor([0.7, 0.3])
    probabilities.requires_grad_()
    decision = (StraightThrough().fake(probabilities, 0.0) * (2 * reference - 1)).sum().view(1, 1)
    adversarial_loss("non_saturating").generator(decision).backward()
    assert probabilities.grad is not None
    assert probabilities.grad[0, 1, 1, 1] < 0 < probabilities.grad[0, 0, 1, 1]


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("blur", {}, "no disguise 'blur': choose none, soften, straight_through, noise"),
        ("none", {"sd": 1.0}, "disguise 'none': takes no arguments"),
        ("straight_through", {"sd": 1.0}, "disguise 'straight_through': takes no arguments"),
        ("soften", {"confidence": 0.5}, "confidence 0.5"),
        ("soften", {"confidence": 1.0}, "confidence 1.0"),
        ("noise", {"sd": 0.0}, "sd 0.0"),
        ("noise", {"sd": math.inf}, "sd inf"),
        ("noise", {"sd": math.nan}, "sd nan"),
        ("noise", {"until": 0.0}, "until 0.0"),
        ("noise", {"until": 1.5}, "until 1.5"),
        ("noise", {"confidence": 0.9}, "unexpected keyword argument 'confidence'"),
    ],
)
def test_a_disguise_that_cannot_be_built_says_why_in_one_line(name, options, message):
    with pytest.raises(TrainingError, match=message) as caught:
        disguise(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("none", Undisguised), ("soften", Softened), ("straight_through", StraightThrough), ("noise", InstanceNoise)],
)
def test_a_name_of_the_config_gives_its_disguise(name, kind):
    assert type(disguise(name)) is kind

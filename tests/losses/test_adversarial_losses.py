"""Adversarial losses: each against a value worked out by hand, and penalties against a slope that is known."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segmed.errors import NetworkError
from segmed.losses import adversarial as losses
from segmed.losses.adversarial import (
    ADVERSARIAL,
    WITH_TARGETS,
    adversarial_loss,
    feature_l1,
    feature_matching_loss,
    gradient_penalty,
    r1_penalty,
    segan_critic_loss,
    segan_generator_loss,
)

NAMES = list(ADVERSARIAL)
THREE = math.log(3)  # sigmoid(log 3) is 3/4
REAL = torch.tensor([[THREE], [0.0]])  # 3/4 and 1/2
FAKE = torch.tensor([[-THREE], [THREE]])  # 1/4 and 3/4


def decisions(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("name", "real", "fake", "expected"),
    [
        # -(log 3/4 + log 1/2) / 2 - (log 3/4 + log 1/4) / 2
        ("non_saturating", REAL, FAKE, math.log(8 / 3) / 2 + math.log(16 / 3) / 2),
        ("least_squares", torch.tensor([[0.5], [2.0]]), torch.tensor([[1.0], [-2.0]]), (1.25 / 2 + 5 / 2) / 2),
        ("hinge", torch.tensor([[0.5], [2.0]]), torch.tensor([[-3.0], [1.0]]), 0.5 / 2 + 2 / 2),
        ("wasserstein", torch.tensor([[0.5], [2.5]]), torch.tensor([[-3.0], [1.0]]), -1.0 - 1.5),
    ],
)
def test_the_discriminators_loss_has_the_value_worked_out_by_hand(name, real, fake, expected):
    assert adversarial_loss(name).discriminator(real, fake).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "fake", "expected"),
    [
        ("non_saturating", FAKE, math.log(16 / 3) / 2),
        ("least_squares", torch.tensor([[1.0], [-2.0]]), 9 / 2 / 2),
        ("hinge", torch.tensor([[-3.0], [1.0]]), 1.0),
        ("wasserstein", torch.tensor([[-3.0], [1.0]]), 1.0),
    ],
)
def test_the_generators_loss_has_the_value_worked_out_by_hand(name, fake, expected):
    assert adversarial_loss(name).generator(fake).item() == pytest.approx(expected, abs=1e-6)


def test_an_undecided_discriminator_pays_two_bits_of_cross_entropy():
    undecided = torch.zeros(4, 1, 2, 2)
    assert adversarial_loss("non_saturating").discriminator(undecided, undecided).item() == pytest.approx(
        2 * math.log(2)
    )


@pytest.mark.parametrize(("name", "best"), [("non_saturating", math.log(9)), ("least_squares", 0.9)])
def test_with_smoothing_references_are_best_at_its_target_and_results_as_far_off_as_ever(name, best):
    loss = adversarial_loss(name, smoothing=0.1)
    real = torch.full((1, 1), best, requires_grad=True)  # sigmoid(log 9) is 0.9
    fake = torch.full((1, 1), -0.3, requires_grad=True)
    loss.discriminator(real, fake).backward()
    assert real.grad is not None
    assert real.grad.item() == pytest.approx(0, abs=1e-6)
    smoothed = fake.grad.clone()
    fake.grad = None
    adversarial_loss(name).discriminator(real, fake).backward()
    assert torch.equal(smoothed, fake.grad)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("non_saturating", -0.9 * math.log(0.75) - 0.1 * math.log(0.25) + math.log(2)),
        ("least_squares", (THREE - 0.9) ** 2 / 2),
    ],
)
def test_smoothing_moves_the_discriminators_loss_and_not_the_generators(name, expected):
    loss = adversarial_loss(name, smoothing=0.1)
    real, fake = torch.tensor([[THREE]]), torch.tensor([[0.0]])
    assert loss.discriminator(real, fake).item() == pytest.approx(expected, abs=1e-6)
    assert loss.generator(fake) == adversarial_loss(name).generator(fake)


# ---------------------------------------------------------------- the contract of all


@pytest.mark.parametrize("shape", [(3, 1), (3, 1, 4, 4), (2, 1, 3, 4, 5)], ids=["image", "2D", "3D"])
@pytest.mark.parametrize("name", NAMES)
def test_each_side_is_the_mean_over_all_elements(name, shape):
    loss = adversarial_loss(name)
    real, fake = decisions(*shape), decisions(*shape, seed=1)
    pairs = list(zip(real.flatten(), fake.flatten(), strict=True))
    single = torch.stack([loss.discriminator(r.view(1, 1), f.view(1, 1)) for r, f in pairs])
    torch.testing.assert_close(loss.discriminator(real, fake), single.mean())
    torch.testing.assert_close(
        loss.generator(fake), torch.stack([loss.generator(f.view(1, 1)) for _, f in pairs]).mean()
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(value=st.floats(-0.9, 0.9))
def test_the_two_sides_pull_apart(name, value):
    """Inside the margins the discriminator raises references and lowers results; the generator raises its results."""
    loss = adversarial_loss(name)
    real = torch.full((2, 1), value, requires_grad=True)
    fake = torch.full((2, 1), max(value, 0.01), requires_grad=True)
    loss.discriminator(real, fake).backward()
    assert real.grad is not None
    assert (real.grad < 0).all()
    assert fake.grad is not None
    assert (fake.grad > 0).all()
    fake.grad = None
    loss.generator(fake).backward()
    assert (fake.grad < 0).all()


def test_the_generators_slope_stays_where_the_discriminator_is_sure():
    fake = torch.full((1, 1), -50.0, requires_grad=True)
    adversarial_loss("non_saturating").generator(fake).backward()
    assert fake.grad is not None
    assert fake.grad.item() == pytest.approx(-1)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_at_extreme_decisions(name):
    real, fake = torch.full((2, 1), -1e4), torch.full((2, 1), 1e4)
    assert adversarial_loss(name).discriminator(real, fake).isfinite()
    assert adversarial_loss(name).generator(-fake).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_fp32_on_bf16_decisions_under_autocast(name):
    loss = adversarial_loss(name)
    real, fake = decisions(2, 1, 5, 5).bfloat16(), decisions(2, 1, 5, 5, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        values = loss.discriminator(real, fake), loss.generator(fake)
    assert [value.dtype for value in values] == [torch.float32] * 2
    assert values == (loss.discriminator(real.float(), fake.float()), loss.generator(fake.float()))


# ---------------------------------------------------------------- probability and accuracy


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("non_saturating", [0.25, 0.5, 0.75]),
        ("hinge", [0.25, 0.5, 0.75]),
        ("least_squares", [0.0, 0.0, 1.0]),
    ],
)
def test_probability_is_the_confidence_that_a_map_is_a_reference(name, expected):
    decision = torch.tensor([-THREE, 0.0, THREE]).view(3, 1, 1, 1)
    probability = adversarial_loss(name).probability(decision.bfloat16())
    assert probability.shape == decision.shape
    assert probability.dtype == torch.float32
    torch.testing.assert_close(probability.flatten(), torch.tensor(expected), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "real", "fake", "expected"),
    [
        ("non_saturating", [1.0, -1.0], [-1.0, -2.0], 0.75),
        ("non_saturating", [0.0, 0.0], [0.0, 0.0], 0.5),
        ("non_saturating", [1.0, 0.0], [-1.0, -2.0], 0.875),
        ("hinge", [0.1, 0.2], [0.1, 0.2], 0.5),
        ("least_squares", [0.6, 0.4], [0.4, 0.1], 0.75),
        ("least_squares", [0.5, 0.5], [0.1, 0.6], 0.5),
        ("wasserstein", [10.0, 12.0], [6.0, 8.0], 1.0),  # the boundary is 9
        ("wasserstein", [3.0, 3.0], [3.0, 3.0], 0.5),
        ("wasserstein", [0.0, 2.0], [10.0, 12.0], 0.0),
    ],
)
def test_accuracy_is_the_mean_of_both_sides_and_half_on_the_boundary(name, real, fake, expected):
    real, fake = torch.tensor(real)[:, None], torch.tensor(fake)[:, None]
    assert adversarial_loss(name).accuracy(real, fake).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_on_the_same_decisions_is_a_half(name):
    same = decisions(5, 1, 3, 3)
    assert adversarial_loss(name).accuracy(same, same.clone()).item() == 0.5


def test_accuracy_weighs_both_sides_alike_and_has_no_gradient():
    real = torch.ones(1, 1, requires_grad=True)
    accuracy = adversarial_loss("hinge").accuracy(real, torch.ones(9, 1))
    assert accuracy.item() == 0.5
    assert not accuracy.requires_grad


# ---------------------------------------------------------------- penalties


class Linear(nn.Module):
    """Decision = weight . map, at every one of `positions`: its gradient is the weight, wherever it is asked for."""

    def __init__(self, shape: tuple[int, ...], *, norm: float, positions: int = 1) -> None:
        super().__init__()
        weight = decisions(*shape, seed=7)
        self.weight = nn.Parameter(weight * norm / weight.norm())
        self.positions = positions

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        dot = (maps * self.weight).flatten(1).sum(1)
        return dot[:, None, None].expand(-1, 1, self.positions)


SHAPES = [(3, 4, 4), (2, 3, 4, 4)]


@pytest.mark.parametrize("positions", [1, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
def test_penalties_of_a_linear_discriminator_follow_from_its_slope(shape, positions):
    decide = Linear(shape, norm=3.0, positions=positions)
    real, fake = decisions(4, *shape), decisions(4, *shape, seed=1)
    assert gradient_penalty(decide, real, fake).item() == pytest.approx((3 - 1) ** 2, rel=1e-5)
    assert r1_penalty(decide, real).item() == pytest.approx(3**2 / 2, rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
def test_penalties_train_the_discriminators_weights(shape):
    """d/dw of (|w| - 1)^2 is 2 (|w| - 1) w / |w|, of |w|^2 / 2 it is w."""
    decide = Linear(shape, norm=3.0)
    real, fake = decisions(4, *shape), decisions(4, *shape, seed=1)
    gradient_penalty(decide, real, fake).backward()
    torch.testing.assert_close(decide.weight.grad, decide.weight.detach() * 4 / 3)
    decide.weight.grad = None
    r1_penalty(decide, real).backward()
    torch.testing.assert_close(decide.weight.grad, decide.weight.detach())


def test_a_slope_of_one_is_free_and_a_flat_discriminator_has_finite_gradients():
    shape = (2, 4, 4)
    real, fake = decisions(3, *shape), decisions(3, *shape, seed=1)
    assert gradient_penalty(Linear(shape, norm=1.0), real, fake).item() == pytest.approx(0, abs=1e-6)
    flat = Linear(shape, norm=0.0)
    penalty = gradient_penalty(flat, real, fake)
    penalty.backward()
    assert penalty.item() == 1
    assert flat.weight.grad is not None
    assert flat.weight.grad.isfinite().all()


def test_the_gradient_penalty_looks_between_real_and_fake_and_r1_at_the_real():
    seen = []

    def decide(maps):
        seen.append(maps.detach().clone())
        return maps.square().flatten(1).sum(1, keepdim=True)

    real, fake = torch.zeros(6, 2, 3, 3), torch.ones(6, 2, 3, 3)
    torch.manual_seed(0)
    gradient_penalty(decide, real, fake)
    shares = seen[0].flatten(1)
    assert (shares == shares[:, :1]).all()  # one mix a sample
    assert ((shares > 0) & (shares < 1)).all()
    assert len(shares[:, 0].unique()) == 6
    torch.manual_seed(0)
    gradient_penalty(decide, real, fake)
    assert torch.equal(seen[0], seen[1])
    r1_penalty(decide, fake)
    assert torch.equal(seen[2], fake)


def test_penalties_of_a_curved_discriminator_are_means_over_samples():
    """The slope of |x|^2 / 2 is x, so sample i has its own norm."""

    def decide(maps):
        return maps.square().flatten(1).sum(1, keepdim=True) / 2

    maps = torch.zeros(2, 1, 2, 2)
    maps[0, 0, 0, 0] = 2.0
    maps[1, 0, 1, 1] = 4.0
    assert r1_penalty(decide, maps).item() == pytest.approx((4 + 16) / 2 / 2)
    assert gradient_penalty(decide, maps, maps).item() == pytest.approx((1**2 + 3**2) / 2)


@pytest.mark.parametrize("penalty", [gradient_penalty, lambda decide, real, fake: r1_penalty(decide, real)])
def test_penalties_are_fp32_under_autocast_and_leave_the_maps_without_gradient(penalty):
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    types = []
    network[0].register_forward_hook(lambda module, inputs, features: types.append(features.dtype))
    real = decisions(2, 2, 6, 6).bfloat16().requires_grad_()
    fake = decisions(2, 2, 6, 6, seed=1).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = penalty(network, real, fake)
    value.backward()
    assert types == [torch.float32]
    assert value.dtype == torch.float32
    assert real.grad is None
    assert fake.grad is None
    assert network[0].weight.grad is not None
    assert network[0].weight.grad.abs().sum() > 0


# ---------------------------------------------------------------- features

FEATURES = (
    [torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]]), torch.tensor([[[[1.0]]], [[[1.0]]]])],
    [torch.tensor([[[[2.0, 2.0]]], [[[1.0, 4.0]]]]), torch.tensor([[[[3.0]]], [[[0.0]]]])],
)


def test_feature_l1_is_the_mean_over_levels_of_the_mean_difference():
    expected = ((1 + 0 + 2 + 0) / 4 + (2 + 1) / 2) / 2
    assert feature_l1(*FEATURES).item() == pytest.approx(expected)
    assert segan_generator_loss(*FEATURES).item() == pytest.approx(expected)
    assert segan_critic_loss(*FEATURES).item() == pytest.approx(-expected)


def test_feature_matching_compares_the_means_of_the_batch():
    # level 1: (2, 3) against (1.5, 3); level 2: 1 against 1.5
    assert feature_matching_loss(*FEATURES).item() == pytest.approx((0.25 + 0.5) / 2)
    swapped = [level.flip(0) for level in FEATURES[1]]
    assert feature_matching_loss(FEATURES[0], swapped) == feature_matching_loss(*FEATURES)


@pytest.mark.parametrize("loss", [segan_generator_loss, feature_matching_loss])
def test_the_generators_feature_losses_draw_results_to_references_and_not_the_reverse(loss):
    real = [decisions(2, 3, 4, 4).requires_grad_(), decisions(2, 5, 2, 2).requires_grad_()]
    fake = [level.detach() + 1 for level in real]
    fake = [level.requires_grad_() for level in fake]
    loss(real, fake).backward()
    assert all(level.grad is None for level in real)
    assert all(level.grad is not None and (level.grad > 0).all() for level in fake)


def test_the_critic_drives_both_sides_apart():
    real, fake = torch.zeros(1, 2, 3, 3, requires_grad=True), torch.ones(1, 2, 3, 3, requires_grad=True)
    segan_critic_loss([real], [fake]).backward()
    assert real.grad is not None
    assert (real.grad > 0).all()
    assert fake.grad is not None
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("loss", [feature_l1, segan_critic_loss, segan_generator_loss, feature_matching_loss])
def test_feature_losses_are_fp32_on_bf16(loss):
    real, fake = [decisions(2, 3, 4, 4).bfloat16()], [decisions(2, 3, 4, 4, seed=1).bfloat16()]
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(real, fake)
    assert value.dtype == torch.float32
    assert value == loss([real[0].float()], [fake[0].float()])


# ---------------------------------------------------------------- faults

LEVEL = torch.zeros(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: adversarial_loss("vanilla"), "no adversarial loss 'vanilla': choose non_saturating"),
        (lambda: adversarial_loss("non_saturating", smoothing=0.5), "smoothing 0.5"),
        (lambda: adversarial_loss("non_saturating", smoothing=-0.1), "smoothing -0.1"),
        (lambda: adversarial_loss("least_squares", smoothing=math.nan), "smoothing nan"),
        (lambda: adversarial_loss("hinge", smoothing=0.1), "smoothing with hinge"),
        (lambda: adversarial_loss("wasserstein", smoothing=0.1), "smoothing with wasserstein"),
        (lambda: adversarial_loss("wasserstein").probability(LEVEL), "no probability"),
        (lambda: feature_l1([], []), "do not fit"),
        (lambda: feature_l1([LEVEL], [LEVEL, LEVEL]), "do not fit"),
        (lambda: feature_matching_loss([LEVEL], [LEVEL[..., :1]]), "do not fit"),
        (lambda: gradient_penalty(torch.sum, LEVEL, LEVEL[..., :1]), "give both in one shape"),
    ],
)
def test_what_cannot_be_says_why_in_one_line(build, message):
    with pytest.raises(NetworkError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_by_name_is_its_two_functions(name):
    loss = adversarial_loss(name)
    assert loss.name == name
    assert loss.discriminator is getattr(losses, f"{name}_discriminator_loss")
    assert loss.generator is getattr(losses, f"{name}_generator_loss")


@pytest.mark.parametrize("name", WITH_TARGETS)
def test_smoothing_of_zero_changes_nothing(name):
    real, fake = decisions(4, 1), decisions(4, 1, seed=1)
    smoothed = partial(getattr(losses, f"{name}_discriminator_loss"), smoothing=0.0)
    assert smoothed(real, fake) == adversarial_loss(name, smoothing=0.0).discriminator(real, fake)

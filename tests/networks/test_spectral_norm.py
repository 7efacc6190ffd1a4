"""Spectral normalisation of discriminators: bounds, copies, bf16, and second derivatives through it."""

import copy

import pytest
import torch
from small_discriminators import every_kind, every_network, make, make_critic, maps_of
from small_networks import LAYOUTS, every_dims, every_encoder, image_of
from torch import nn

from segmed.networks.encoders.mednext import MedNextEncoder


def bounded_layers(network):
    return [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d, nn.Linear))]


def largest_singular_values(network):
    return [torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2).item() for m in bounded_layers(network)]


# spectral normalisation


@pytest.mark.parametrize("kind", ["pixel", "patch", "image", "critic"])
@every_encoder
@every_dims
def test_spectral_normalisation_bounds_every_layer_by_1(kind, encoder_type, dims):
    network = make_critic(dims, encoder_type) if kind == "critic" else make(kind, dims, encoder_type)
    image, maps = image_of(dims, size=4), maps_of(dims, size=4)
    with torch.no_grad():
        for weight in network.parameters():  # as a step of training that went far
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
        for _ in range(60):
            network(image, maps)
    values = largest_singular_values(network.eval())
    assert len(values) == len(bounded_layers(network)) > 0
    assert all(0.98 < value < 1.02 for value in values)


@every_kind
@every_dims
def test_without_spectral_normalisation_weights_are_plain(kind, dims):
    discriminator = make(kind, dims, spectral_norm=False)
    assert not any("parametrizations" in name for name in discriminator.state_dict())
    assert max(largest_singular_values(discriminator)) > 1.1


@every_kind
@every_dims
def test_singular_vectors_move_in_training_and_rest_in_evaluation(kind, dims):
    discriminator = make(kind, dims)
    image, maps = image_of(dims), maps_of(dims)
    discriminator.eval()
    before = copy.deepcopy(discriminator.state_dict())
    discriminator(image, maps)
    assert all(torch.equal(value, before[name]) for name, value in discriminator.state_dict().items())
    discriminator.train()(image, maps)
    moved = {name for name, value in discriminator.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.endswith(("_u", "_v")) for name in moved)


@every_network
@every_dims
def test_the_same_seed_draws_the_same_weights(kind, encoder_type, dims):
    first, same, other = (make(kind, dims, encoder_type, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


@every_network
@every_dims
def test_copies_and_restored_states_go_on_alike_and_apart(kind, encoder_type, dims):
    discriminator = make(kind, dims, encoder_type)
    image, maps = image_of(dims), maps_of(dims)
    discriminator(image, maps)
    twin = copy.deepcopy(discriminator)
    restored = make(kind, dims, encoder_type, seed=9)
    restored.load_state_dict(discriminator.state_dict())
    expected = [discriminator(image, maps).decision for _ in range(2)]
    for other in (twin, restored):
        assert all(torch.equal(other(image, maps).decision, decision) for decision in expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not torch.allclose(discriminator(image, maps).decision, torch.zeros(()), atol=1e-6)


@every_network
@every_dims
def test_bf16_changes_a_decision_by_rounding_and_the_singular_vectors_not_at_all(kind, encoder_type, dims):
    discriminator = make(kind, dims, encoder_type)
    exact = copy.deepcopy(discriminator)
    image, maps = image_of(dims, size=16), maps_of(dims, size=16)
    with torch.autocast("cpu", torch.bfloat16):
        low = discriminator(image, maps)
    high = exact(image, maps)
    assert low.decision.dtype == torch.bfloat16
    for rounded, feature in zip([low.decision, *low.features], [high.decision, *high.features], strict=True):
        allowed = 0.04 if encoder_type is MedNextEncoder else 0.02  # twice the layers in which rounding adds up
        assert (rounded.float() - feature).abs().mean() < allowed * feature.abs().mean()
    assert all(torch.equal(value, exact.state_dict()[name]) for name, value in discriminator.state_dict().items())
    low.decision.float().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.abs().max() > 0 for p in discriminator.parameters())


# second derivatives, for penalties of a gradient


def penalty(discriminator, image, maps):
    """Half the squared gradient of the decisions with respect to the maps."""
    maps = maps.detach().requires_grad_()
    decision = discriminator(image, maps).decision.sum()
    (gradient,) = torch.autograd.grad(decision, maps, create_graph=True)
    return 0.5 * gradient.square().sum() / len(maps)


def penalty_gradients(discriminator, image, maps):
    discriminator.zero_grad()
    penalty(discriminator, image, maps).backward()
    return {name: p.grad.clone() for name, p in discriminator.named_parameters() if p.grad is not None}


@every_network
@every_dims
@pytest.mark.parametrize("norm", ["none", "instance"])
def test_the_gradient_of_a_gradient_penalty_is_its_slope(kind, encoder_type, dims, norm):
    discriminator = make(kind, dims, encoder_type, norm=norm).double().eval()
    image, maps = image_of(dims).double(), maps_of(dims).double()
    gradients = penalty_gradients(discriminator, image, maps)
    generator = torch.Generator().manual_seed(2)
    direction = {n: torch.randn(g.shape, generator=generator, dtype=g.dtype) for n, g in gradients.items()}
    weights = dict(discriminator.named_parameters())
    step, values = 1e-7, []
    for sign in (1, -1):
        with torch.no_grad():
            for name, towards in direction.items():
                weights[name].add_(towards, alpha=step * (1 if sign == 1 else -2))
        values.append(penalty(discriminator, image, maps).item())
    slope = sum((gradients[name] * towards).sum().item() for name, towards in direction.items())
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-7)


@every_network
@every_dims
@pytest.mark.parametrize("norm", ["none", "instance"])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_penalties_agree_in_fp32_and_in_both_layouts(kind, encoder_type, dims, norm, layout):
    discriminator = make(kind, dims, encoder_type, norm=norm).eval()
    image, maps = image_of(dims), maps_of(dims)
    expected = penalty_gradients(copy.deepcopy(discriminator).double(), image.double(), maps.double())
    if layout == "channels last":
        discriminator = discriminator.to(memory_format=LAYOUTS[dims])
        image, maps = (t.contiguous(memory_format=LAYOUTS[dims]) for t in (image, maps))
    own_gradients = penalty_gradients(discriminator, image, maps)
    assert own_gradients.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in own_gradients.items():
        assert (gradient - expected[name]).abs().max() < 1e-4 * largest

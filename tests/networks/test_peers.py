"""MONAI's networks: they keep the contract of ours, and compute what MONAI computes."""

import copy

import pytest
import torch
from small_networks import PEERS, every_dims, gradients, image_of, make_peer

from segmed.errors import NetworkError
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.models import SegmentationNet
from segmed.networks.peers import monai_network
from segmed.networks.summary import summarise


@every_dims
@pytest.mark.parametrize("name", list(PEERS))
def test_a_network_of_monai_keeps_our_contract(name, dims):
    net = make_peer(name, dims).train()
    assert (net.dims, net.in_channels, net.out_channels, len(net.divisor)) == (dims, 2, 3, dims)
    size = (*net.divisor[:-1], 2 * net.divisor[-1])
    image = torch.randn(1, 2, *size)
    logits = net.all_logits(image)
    assert len(logits) == net.supervised_levels
    assert logits[0].shape == (1, 3, *size)
    assert torch.equal(logits[0], net(image))
    assert torch.equal(copy.deepcopy(net).eval()(image), logits[0])
    gradient = gradients(net, image)
    reached = [name for name, value in gradient.items() if value.isfinite().all() and value.abs().max() > 0]
    assert len(reached) > 0.9 * len(gradient)


@pytest.mark.parametrize("name", list(PEERS))
def test_a_network_of_monai_names_the_sizes_that_fit(name):
    net = make_peer(name, 3)
    with pytest.raises(NetworkError, match="sizes must be multiples of") as caught:
        net(torch.zeros(1, 2, 31, 32, 32))
    assert str((32, 32, 32)) in str(caught.value)


def test_dynunet_gives_the_logits_of_monais_own_forward():
    net = make_peer("dynunet", 3)
    image = image_of(3, batch=1, size=16)
    coarse = net.all_logits(image)[1]
    stacked = net.body.train()(image)
    assert torch.equal(stacked[:, 0], net(image))
    assert torch.equal(stacked[:, 1], torch.nn.functional.interpolate(coarse, stacked.shape[3:]))
    assert torch.equal(net.body.eval()(image), net(image))


def test_dynunet_has_as_many_parameters_as_our_plain_unet_of_the_same_plan():
    plan = {"channels": (4, 6, 8, 8), "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))}
    net = monai_network("dynunet", in_channels=2, out_channels=3, dims=3, **plan)
    ours = SegmentationNet(PlainEncoder(2, **plan, dims=3), 3)
    up_biases = sum(level.up.bias.numel() for level in ours.decoder.levels)
    assert summarise(net, (16, 16, 16)).multiply_adds == summarise(ours, (16, 16, 16)).multiply_adds
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in ours.parameters()) - up_biases


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unetr", {}, "no MONAI network 'unetr': choose dynunet"),
        ("segresnet", {"feature_size": 12}, "unexpected keyword argument 'feature_size'"),
        ("segresnet", {"init_filters": 12}, "multiple of 8"),
        ("swinunetr", {"feature_size": 10}, "multiple of 12"),
        ("dynunet", {"channels": (4, 8), "strides": ((1, 1, 1), (2, 2, 2))}, "at least 3 levels"),
        ("dynunet", {"channels": (4, 8, 8), "strides": ((2, 1, 1), (2, 2, 2), (2, 2, 2))}, "the first with stride 1"),
    ],
)
def test_a_network_of_monai_that_cannot_be_built_says_why(name, options, message):
    with pytest.raises(NetworkError, match=message) as caught:
        monai_network(name, in_channels=1, out_channels=2, dims=3, **options)
    assert "\n" not in str(caught.value)

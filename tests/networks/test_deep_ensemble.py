"""Several networks as one: what they answer, how they learn, what can't stand beside them."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from small_networks import image_of
from tiny_data import Lines, make_balls, tiny, trained, training_of

from segmed.builders.architectures import build_network
from segmed.builders.losses import build_loss
from segmed.compose import run as compose_run
from segmed.config import DiceCELossConfig, EncoderConfig, UNetConfig
from segmed.errors import ConfigError, NetworkError
from segmed.networks.deep_ensemble import DeepEnsemble
from segmed.networks.summary import summarise
from segmed.networks.weight_transfer import of_one_network
from segmed.runs import read_config
from segmed.training.checkpoint import read_weights

SHAPE = EncoderConfig(channels=(4, 6, 8), strides=((1, 1), (2, 2), (2, 2)))
TWO = {"network": {"members": 2}}


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    return make_balls(tmp_path_factory.mktemp("balls"))


def network(members: int, *, classes: int = 3):
    torch.manual_seed(0)
    config = UNetConfig(encoder=SHAPE, members=members)
    return build_network(config, in_channels=2, out_channels=classes, dims=2).eval()


def test_it_answers_with_the_mean_logits_of_its_members():
    image, both = image_of(2), network(2)
    first, second = both.networks
    assert torch.allclose(both(image), (first(image) + second(image)) / 2)
    assert not torch.allclose(first(image), second(image))
    assert all(torch.equal(a, b) for a, b in zip(both.all_logits(image)[1:2], second.all_logits(image), strict=True))


def test_its_loss_is_the_mean_of_its_members_losses():
    image, both, labels = image_of(2), network(2), torch.randint(0, 3, (2, 8, 8))
    alone = [build_loss(DiceCELossConfig(), one)(one.all_logits(image), labels) for one in both.networks]
    whole = build_loss(DiceCELossConfig(), both)(both.all_logits(image), labels)
    assert whole.item() == pytest.approx(sum(loss.item() for loss in alone) / 2)


def test_the_first_member_begins_as_a_network_of_its_own_would():
    alone, both = network(1).state_dict(), network(2)
    assert not isinstance(network(1), DeepEnsemble)
    assert all(torch.equal(alone[name], tensor) for name, tensor in both.networks[0].state_dict().items())
    assert summarise(both, (8, 8)).parameters == 2 * summarise(network(1), (8, 8)).parameters
    assert summarise(both, (8, 8)).name == "2 x SegmentationNet (PlainEncoder)"


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_each_member_learns_as_it_would_alone(balls, tmp_path, optimiser):
    train = {"train": {"optimiser": optimiser, "clip": 1e9, "weight_decay": 0.01}}
    alone = trained(tiny(balls, tmp_path, **train), tmp_path / "alone")
    both = trained(tiny(balls, tmp_path, **train, **TWO), tmp_path / "both")
    first = of_one_network(read_weights(both.weights("last")))
    theirs = read_weights(alone.weights("last"))
    assert first.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-6)


def test_another_run_begins_with_its_first_member(balls, tmp_path):
    both = trained(tiny(balls, tmp_path, **TWO), tmp_path / "both")
    run = compose_run.start(tiny(balls, tmp_path, init_network=both.path), tmp_path / "run")
    assert read_config(run).network.members == 1
    training = training_of(run)
    training._take_weights(Lines())
    theirs = of_one_network(read_weights(both.weights("best")))
    assert theirs.keys() == training.network.state_dict().keys()
    assert all(torch.equal(theirs[name], own) for name, own in training.network.state_dict().items())


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"adversary": {"discriminator": {"name": "pixel"}}}, "adversary"),
        ({"classification": {"column": "class"}}, "classification"),
        ({"init_network": "runs/other"}, "init_network"),
        ({"init_encoder": "runs/other"}, "init_encoder"),
        ({"train": {"layer_decay": 0.5}}, "train.layer_decay"),
    ],
)
def test_what_can_not_stand_beside_members_is_said(balls, tmp_path, sections, named):
    with pytest.raises(ValidationError, match=f"network.members 2 and {named} exclude each other"):
        tiny(balls, tmp_path, **{**sections, **TWO})


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"later": {"epochs": 1}}, "network coronal: network.members 2 and init_network"),
        ({"train": {"layer_decay": 0.5}}, "network axial: network.members 2 and train.layer_decay"),
    ],
)
def test_members_in_a_stage_are_refused_before_anything_is_trained(balls, tmp_path, section, named):
    flat = {"network": {"members": 2, "encoder": {"channels": [4, 8]}}, "patches": {"dims": 2, "size": [8, 8]}}
    stage = {"views": ["axial", "coronal"], **section}
    with pytest.raises(ConfigError, match=named):
        compose_run.start(tiny(balls, tmp_path, **flat, ensemble=stage), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_networks_that_differ_are_refused():
    with pytest.raises(NetworkError, match="2 networks of 2 kinds"):
        DeepEnsemble([network(1), network(1, classes=4)])
    with pytest.raises(NetworkError, match="1 networks of 1 kinds"):
        DeepEnsemble([network(1)])

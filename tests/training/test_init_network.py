"""Runs that begin with the whole network of another: heads, frozen levels, rates by level, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_data import Lines, make_balls, tiny, trained, training_of

from segmed.builders.architectures import build_network
from segmed.builders.first_weights import first_weights
from segmed.compose import run as compose_run
from segmed.config import EncoderConfig, SegmentationConfig, SegResNetConfig, TrainConfig, UNetConfig
from segmed.config.reading import validate
from segmed.errors import ConfigError, RunError
from segmed.runs import Run, read_config
from segmed.training.checkpoint import read_weights, save_weights
from segmed.training.optimisation import freeze, make_optimiser, set_rate
from segmed.training.transfer_record import RECORD, record_transfer

LABELS = {"shell": 1, "core": 2}
OTHER = {"core": 2, "shell": 1}  # as many, but other channels of the heads
CLASS_HEAD = ("class_head.weight", "class_head.bias")
SHAPE = EncoderConfig(channels=(4, 6, 8), strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)))


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    return make_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture(scope="module")
def source(balls, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("source")
    return trained(tiny(balls, folder), folder / "run")


def network(*, classes: int = 3, dims: int = 3) -> torch.nn.Module:
    strides = tuple(level[:dims] for level in SHAPE.strides)
    config = UNetConfig(encoder=SHAPE.model_copy(update={"strides": strides}))
    return build_network(config, in_channels=1, out_channels=classes, dims=dims)


def test_every_weight_of_the_other_network_is_there_before_the_first_step(balls, source, tmp_path):
    config = tiny(balls, tmp_path, init_network=source.path, network={"encoder": {"channels": "auto"}})
    run = compose_run.start(config, tmp_path / "run")
    assert read_config(run).network.encoder.channels == (4, 8)  # the shape is taken over, too
    training, lines = training_of(run), Lines()
    training._take_weights(lines)
    theirs = read_weights(source.weights("best"))
    assert theirs.keys() == training.network.state_dict().keys()
    assert all(torch.equal(theirs[name], own) for name, own in training.network.state_dict().items())
    record = json.loads((run.path / RECORD).read_text())
    assert record["left"] == {}
    assert len(record["taken"]) == len(theirs)


def test_heads_of_other_labels_are_made_new_and_all_else_is_taken(balls, source, tmp_path):
    config = tiny(balls, tmp_path, init_network=source.path)
    config = config.model_copy(update={"data": config.data.model_copy(update={"labels": OTHER})})
    fresh = build_network(read_config(source).network, in_channels=1, out_channels=3, dims=3)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    moved = first_weights(fresh, config)
    heads = {name for name in before if name.startswith("heads.")}
    assert set(moved.left) == heads
    assert set(moved.left.values()) == {"a head of other labels"}
    assert all(torch.equal(before[name], fresh.state_dict()[name]) for name in heads)
    assert set(moved.taken) == before.keys() - heads


@pytest.mark.parametrize(
    ("mine", "theirs", "left"),
    [
        (("bright", "dark"), ("bright", "dark"), {}),
        (("bright", "dark"), ("dark", "bright"), dict.fromkeys(CLASS_HEAD, "a head of other classes")),
        (("grey", "dark"), ("bright", "dark"), dict.fromkeys(CLASS_HEAD, "a head of other classes")),
        (("bright", "dark", "grey"), ("bright", "dark"), dict.fromkeys(CLASS_HEAD, "a head of other classes")),
        (("bright", "dark"), None, dict.fromkeys(CLASS_HEAD, "not in the source")),
        (None, ("bright", "dark"), {}),
    ],
)
def test_the_head_of_the_classes_is_taken_where_they_are_the_same_in_the_same_order(
    balls, tmp_path, mine, theirs, left
):
    network = {"encoder": {"channels": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]]}}
    heads = [None if classes is None else {"classes": classes} for classes in (mine, theirs)]
    own, other = (tiny(balls, tmp_path, network=network, classification=head) for head in heads)
    source = Run(tmp_path / "source")
    source.path.mkdir()
    source.config.write_text(other.model_dump_json())  # JSON is YAML
    fresh, trained_there = (
        build_network(each.network, in_channels=1, out_channels=3, dims=3, class_head=each.classification)
        for each in (own, other)
    )
    save_weights(source.weights("best"), trained_there, {})
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    moved = first_weights(fresh, own.model_copy(update={"init_network": source.path}))
    record_transfer(moved, source=source.path, folder=tmp_path, tracker=(told := Lines()))
    assert json.loads((tmp_path / RECORD).read_text())["left"] == left
    assert f"begins with {len(before) - len(left)} of {len(before)} weights" in told.lines[0]
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, before[name] if name in left else trained_there.state_dict()[name]), name


def test_a_frozen_level_keeps_its_weights_and_the_others_learn(balls, source, tmp_path):
    config = tiny(balls, tmp_path, init_network=source.path, train={"frozen_levels": 1, "ema": 0.0})
    run = trained(config, tmp_path / "run")
    theirs, own = read_weights(source.weights("best")), read_weights(run.weights("last"))
    kept = {name for name in own if torch.equal(own[name], theirs[name])}
    frozen = {name for name in own if name.startswith("encoder.levels.0.")}
    assert frozen
    assert frozen <= kept
    assert not any(name.startswith(("encoder.levels.1.", "decoder.")) and own[name].ndim > 1 for name in kept)


def test_rates_fall_from_the_coarsest_level_to_the_finest_and_the_decoder_has_the_full_one():
    net = network()
    optimiser = make_optimiser(net, TrainConfig(layer_decay=0.5))
    set_rate(optimiser, 0.08)
    rates = {id(weight): group["lr"] for group in optimiser.param_groups for weight in group["params"]}
    wanted = {"encoder.levels.0.": 0.01, "encoder.levels.1.": 0.02, "encoder.levels.2.": 0.04}
    for name, weight in net.named_parameters():
        rate = next((rate for start, rate in wanted.items() if name.startswith(start)), 0.08)
        assert rates[id(weight)] == pytest.approx(rate), name
    assert len(rates) == len(list(net.parameters()))
    decayed = {group["weight_decay"] for group in optimiser.param_groups}
    assert decayed == {0.0, 1e-4}


def test_without_options_the_optimiser_has_two_groups_as_ever():
    groups = make_optimiser(network(), TrainConfig()).param_groups
    assert [sorted(group.keys() & {"share"}) for group in groups] == [[], []]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"patches": {"dims": 2, "plane": "axial", "size": [8, 8]}}, "is in 3D, this one in 2D: name a run in 2D$"),
        ({"network": {"encoder": {"channels": [6, 10]}}}, "no weight of"),
        ({"train": {"frozen_levels": 3}}, "the encoder has 2 levels: give 2 or less"),
        (
            {"network": {"encoder": {"channels": [4, 8, 16], "strides": "auto"}}},
            r"has 3 levels, network\.encoder\.strides 2 \(as in .*, whose weights this run begins with\): give",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_one_line_before_any_folder(balls, source, tmp_path, sections, message):
    config = tiny(balls, tmp_path, init_network=source.path, **sections)
    with pytest.raises((RunError, ConfigError), match=message) as error:
        compose_run.start(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"init_network": "a", "init_encoder": "b"}, "exclude each other"),
        ({"train": {"frozen_levels": 1}}, "would keep random weights"),
        ({"network": {"name": "dynunet"}, "train": {"layer_decay": 0.5}}, "choose the network unet, not dynunet"),
    ],
)
def test_options_without_meaning_are_refused(sections, message):
    with pytest.raises((ConfigError, ValidationError), match=message):
        validate(SegmentationConfig, sections, where="test")


def test_a_network_of_another_kind_can_not_begin_with_a_unet(source):
    other = build_network(SegResNetConfig(), in_channels=1, out_channels=3, dims=3)
    config = SegmentationConfig(init_network=source.path, data={"labels": LABELS})
    with pytest.raises(RunError, match=r"choose --network\.name unet"):
        first_weights(other, config)


def test_freezing_nothing_changes_nothing():
    net = network()
    freeze(net, 0)
    assert all(weight.requires_grad for weight in net.parameters())


def test_later_views_of_a_stage_begin_with_the_first_ones_weights(balls, tmp_path):
    config = tiny(balls, tmp_path)
    flat = {"dims": 2, "plane": "axial", "size": [8, 8]}
    later = {**config.train.model_dump(), "epochs": 1}
    stage = {"views": ["axial", "coronal"], "fuse": "mean", "later": later}
    config = tiny(balls, tmp_path, patches=flat, ensemble=stage)
    compose_run.run(config, tmp_path / "run")
    assert "1 network × 2 epochs + 1 network × 1 epochs = 3 epochs" in Run(tmp_path / "run").log.read_text()
    second = Run(tmp_path / "run" / "coronal")
    assert read_config(second).init_network == tmp_path / "run" / "axial"
    assert read_config(second).train.epochs == 1
    record = json.loads((second.path / RECORD).read_text())
    assert record["left"] == {}
    assert not (tmp_path / "run" / "axial" / RECORD).exists()

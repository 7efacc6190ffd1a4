"""Keys of old: a config that has them is refused with those of today, a run folder that has them is read."""

from pathlib import Path

import pytest
import yaml
from pydantic import Field
from tiny_classes import config_of
from tiny_data import ADVERSARY, tiny

from segmed.commands.command_line import parse_as
from segmed.config import Section, SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import classifies, load_as, load_written
from segmed.errors import ConfigError
from segmed.runs import Folds, Run, read_class_config, read_config


class Arguments(Section):
    config: Path | None = Field(None, description="YAML")


@pytest.fixture
def written(tmp_path):
    def write(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


OLD_UNET = "network: {name: unet, encoder: residual, channels: [4, 8], blocks: 1, norm: batch, deep_dropout: 0.5}"
OLD_CLASSIFIER = "model: {name: encoder, encoder: dense, channels: [4, 8], pooling: max, dropout: 0.25}"
KEYS = [
    (SegmentationConfig, "patches: {batch_size: 4}", "'patches.batch_size' is now 'train.batch_size'"),
    (SegmentationConfig, "train: {class_weights: [1, 2]}", "'train.class_weights' is now 'loss.class_weights'"),
    (SegmentationConfig, OLD_UNET, "'network.encoder' is now 'network.encoder.name'"),
    (SegmentationConfig, OLD_UNET, "'network.deep_dropout' is now 'network.encoder.deep_dropout'"),
    (
        SegmentationConfig,
        f"cascade: {{fine: {{{OLD_UNET}}}}}",
        "'cascade.fine.network.channels' is now 'cascade.fine.network.encoder.channels'",
    ),
    (
        SegmentationConfig,
        "adversary: {discriminator: {name: segan, channels: [4]}}",
        "'adversary.discriminator.channels' is now 'adversary.discriminator.encoder.channels'",
    ),
    (ClassificationConfig, "model: {name: vgg16}", "'model' is now 'network'"),
    (ClassificationConfig, OLD_CLASSIFIER, "'model.encoder' is now 'network.encoder.name'"),
    (
        ClassificationConfig,
        "model: {name: resnet18}",
        "'model.name: resnet18' is now 'network: {name: resnet, depth: 18}'",
    ),
    (
        ClassificationConfig,
        "network: {name: efficientnet_b3}",
        "'network.name: efficientnet_b3' is now 'network: {name: efficientnet, variant: b3}'",
    ),
]


@pytest.mark.parametrize(("schema", "text", "words"), KEYS, ids=[words for *_, words in KEYS])
def test_a_key_of_old_is_refused_in_one_line_that_names_that_of_today(written, schema, text, words):
    with pytest.raises(ConfigError) as error:
        load_as(schema, written(text))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


OPTIONS = [
    (SegmentationConfig, ["--patches.batch-size", "4"], "--patches.batch-size is now --train.batch-size"),
    (SegmentationConfig, ["--network.encoder", "dense"], "--network.encoder is now --network.encoder.name"),
    (SegmentationConfig, ["--network.channels", "4", "8"], "--network.channels is now --network.encoder.channels"),
    (
        SegmentationConfig,
        ["--adversary.discriminator.name", "image", "--adversary.discriminator.channels", "4"],
        "--adversary.discriminator.channels is now --adversary.discriminator.encoder.channels",
    ),
    (ClassificationConfig, ["--model.name", "vgg16"], "--model is now --network"),
    (
        ClassificationConfig,
        ["--model.name=resnet34"],
        "--model.name: resnet34 is now --network: {name: resnet, depth: 34}",
    ),
    (ClassificationConfig, ["--model.channels", "4"], "--model.channels is now --network.encoder.channels"),
]


@pytest.mark.parametrize(("schema", "argv", "words"), OPTIONS, ids=[words for *_, words in OPTIONS])
def test_an_option_of_old_is_refused_with_that_of_today(schema, argv, words):
    with pytest.raises(ConfigError) as error:
        parse_as(schema, Arguments, argv)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_of_today_is_no_name_of_old():
    made = parse_as(SegmentationConfig, Arguments, ["--network.name", "dynunet", "--network.channels", "4", "8", "8"])[
        1
    ]
    assert made.network.channels == (4, 8, 8)
    assert parse_as(ClassificationConfig, Arguments, ["--network.dropout", "0.5"])[1].network.dropout == 0.5
    assert (
        parse_as(SegmentationConfig, Arguments, ["--network.encoder.name", "dense"])[1].network.encoder.name == "dense"
    )


def old_segmentation(config: SegmentationConfig) -> dict:
    """A config as a run wrote it before its keys moved, whole."""
    data = config.model_dump(mode="json")
    encoder = data["network"].pop("encoder")
    data["network"] |= encoder | {"name": "unet", "encoder": encoder["name"]}
    data["patches"]["batch_size"] = data["train"].pop("batch_size")
    data["train"]["class_weights"] = data["loss"].pop("class_weights")
    if data["adversary"]:
        judge = data["adversary"]["discriminator"]
        encoder = judge.pop("encoder")
        judge |= {name: encoder[name] for name in ("channels", "strides", "blocks", "norm")} | {
            "encoder": encoder["name"]
        }
    return data


@pytest.mark.parametrize("adversary", [None, ADVERSARY], ids=["supervised", "adversarial"])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0]], ids=["plain", "weighted"])
def test_the_config_of_an_old_segmentation_run_is_read_as_one_of_today(written, tmp_path, adversary, weights):
    loss = {"name": "dice_ce", "class_weights": weights}
    config = tiny(tmp_path, tmp_path, adversary=adversary, loss=loss)
    path = written(yaml.safe_dump(old_segmentation(config)))
    assert read_config(Run(tmp_path)) == config
    assert classifies(path) is False


def test_the_config_of_an_old_classification_run_is_read_as_one_of_today(written, tmp_path):
    config = config_of(tmp_path, tmp_path)
    data = config.model_dump(mode="json")
    network = data.pop("network")
    encoder = network.pop("encoder")
    shape = {name: encoder[name] for name in ("channels", "strides", "blocks", "norm")}
    data["model"] = {**network, **shape, "encoder": encoder["name"]}
    data["train"]["class_weights"] = None
    path = written(yaml.safe_dump(data))
    assert read_class_config(Run(tmp_path)) == config
    assert classifies(path) is True
    path.rename(tmp_path / "folds.yaml")
    assert len(Folds(tmp_path).runs()) == config.split.folds


def test_a_stage_of_old_keeps_the_batch_and_the_weights_that_it_took_from_the_whole(written):
    stages = "coarse: {labels: {a: [a]}, train: {epochs: 3}}, fine: {labels: {a: [a]}, loss: {name: dice_focal}}"
    whole = "patches: {batch_size: 4}\ntrain: {epochs: 9, class_weights: [1, 2]}\nloss: {name: dice_ce}"
    read = load_written(SegmentationConfig, written(f"{whole}\ncascade: {{region: [a], {stages}}}"))
    assert read.train.batch_size == 4
    assert (read.cascade.coarse.train.batch_size, read.cascade.coarse.train.epochs) == (4, 3)
    assert read.cascade.fine.loss.class_weights == (1, 2)
    assert read.loss.class_weights == (1, 2)
    assert read.cascade.coarse.loss.class_weights is None  # its own training had none
    assert read.cascade.fine.train is None

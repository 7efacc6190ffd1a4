"""TensorBoard's table of runs shows what tells a run from others."""

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.training.hyper_parameters import telling_settings


def config(**sections) -> SegmentationConfig:
    data = {"root": "somewhere", "layout": {"name": "phantom", "cases": 3}, "labels": {"scar": 4}}
    return SegmentationConfig.model_validate({"data": data, **sections})


def test_settings_that_matter_and_those_that_differ_are_told_and_no_others():
    plain = telling_settings(config())
    assert plain["network.name"] == config().network.name
    assert plain["loss.name"] == config().loss.name
    assert "train.learning_rate" in plain
    other = telling_settings(config(train={"clip": 3.0, "learning_rate": 0.02, "workers": 1}, runs="elsewhere"))
    assert set(other) - set(plain) == {"train.clip"}, "neither paths nor what the machine decides"
    assert (other["train.clip"], other["train.learning_rate"]) == (3.0, 0.02)


def test_values_are_of_the_types_that_the_table_takes():
    told = telling_settings(config(patches={"dims": 2, "size": (32, 32)}))
    assert told["patches.size"] == "(32, 32)"
    assert all(isinstance(value, (bool, int, float, str)) for value in told.values())


def test_a_classifier_has_such_settings_too():
    assert telling_settings(ClassificationConfig())["network.name"] == ClassificationConfig().network.name

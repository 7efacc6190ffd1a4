"""What the planner of a classification makes of the augmentation that a config asks for."""

from types import SimpleNamespace

import pytest

from segmed.classify.plan import resolve
from segmed.config import AugmentConfig
from segmed.config.classification import ClassificationConfig
from segmed.errors import ConfigError
from segmed.machine import GIB, Machine

CPU = Machine("cpu", "CPU, 2 cores", 20 * GIB, 2)


def planned(augment, **train):
    data = {"root": "x", "layout": {"name": "folders"}}
    config = ClassificationConfig.model_validate({"data": data, "augment": augment, "train": train})
    config = ClassificationConfig.model_validate(config.model_dump())  # as a command line gives it: every field
    split = SimpleNamespace(train=["1", "2"], validation=["3"])
    return resolve(config, SimpleNamespace(classes=("a", "b")), split, machine=CPU)


def test_auto_brings_the_numbers_of_its_preset_and_keeps_those_that_are_given():
    config, reasons = planned({"name": "auto", "elastic_probability": 0.0, "scale": 0.5})
    assert config.augment == AugmentConfig(name="light", elastic_probability=0.0, scale=0.5, broaden=True)
    assert reasons["augment.broaden"] == "the preset was chosen by the plan"


@pytest.mark.parametrize(
    ("augment", "train", "why"),
    [
        ({"name": "full"}, {}, "the preset was given"),
        ({"name": "wide", "broaden": True}, {}, "no preset is broader than wide"),
        ({"name": "auto"}, {"validations": 2}, "train.validations 2: overfitting is seen in time from 4 on"),
    ],
)
def test_overfitting_that_can_not_be_answered_has_a_reason(augment, train, why):
    config, reasons = planned(augment, **train)
    assert config.augment.broaden is False
    assert reasons["augment.broaden"] == why


def test_nothing_to_broaden_is_refused():
    with pytest.raises(ConfigError, match=r"no preset to go on from beside augment\.name none"):
        planned({"name": "none", "broaden": True})

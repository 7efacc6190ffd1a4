"""Networks that the classifier's section names: each is built of its section alone, and answers."""

import pytest
import torch
from pydantic import TypeAdapter

from segmed.builders.architectures import build_classifier
from segmed.config.classifier import ClassifierNetwork


@pytest.mark.parametrize(
    ("section", "size", "parameters"),
    [
        ({"name": "lenet5"}, (32, 32), 61_706),  # LeCun et al. 1998, with full connections
        ({"name": "alexnet"}, (224, 224), 61_100_840 - 990 * 4097 - 2 * 64 * 11**2),
        ({"name": "vgg16"}, (224, 224), 138_357_544 - 990 * 4097 - 2 * 64 * 3**2),
        ({"name": "inception"}, (299, 299), 23_834_568 - 990 * 2049 - 2 * 32 * 3**2),
        ({"name": "vit"}, (224, 224), 86_567_656 - 768 - 990 * 769 - 2 * 768 * 16**2),
        ({"name": "resnet"}, (224, 224), 11_689_512 - 990 * 513 - 2 * 64 * 7**2),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_a_name_is_the_published_network_for_one_channel_and_ten_classes(section, size, parameters):
    config = TypeAdapter(ClassifierNetwork).validate_python(section)
    with torch.device("meta"):
        network = build_classifier(config, in_channels=1, classes=10, size=size)
        assert network.eval()(torch.empty(1, 1, *size)).shape == (1, 10)
    assert sum(weight.numel() for weight in network.parameters()) == parameters

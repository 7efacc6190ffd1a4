"""Backbones and baselines: the published sizes, what they are built of, and libraries that may be absent."""

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from small_classifiers import SLIM, encoder_classifier, published_model, small_model
from small_networks import ENCODERS
from torch import nn

from segmed.errors import NetworkError
from segmed.networks.backbones import backbone
from segmed.networks.blocks import Conv3d
from segmed.networks.classic import CONTRAST_SIZE, AlexNet, ContrastCnn, LeNet5, LogisticRegression, Vgg16

# ---------------------------------------------------------------- published sizes


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("densenet121", 7_978_856),
        ("densenet169", 14_149_480),
        ("densenet201", 20_013_928),
        ("efficientnet_b0", 5_288_548),
        ("efficientnet_b1", 7_794_184),
        ("efficientnet_b2", 9_109_994),
        ("efficientnet_b3", 12_233_232),
        ("efficientnet_b4", 19_341_616),
        ("vit", 86_567_656 - 768),  # the class token's position is part of the token here
        ("inception", 23_834_568),  # without the auxiliary classifier
        ("alexnet", 61_100_840),
        ("vgg16", 138_357_544),
    ],
)
def test_a_network_has_as_many_parameters_as_published(name, parameters):
    model = published_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    if "efficientnet" not in name and name != "resnet34":
        assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


def test_lenet5_has_61706_parameters_and_a_map_of_5_by_5():
    with torch.device("meta"):
        model = LeNet5(1, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_706
    assert model.features(torch.empty(1, 1, 32, 32, device="meta")).shape == (1, 16, 5, 5)
    assert model(torch.empty(2, 1, 128, 96, device="meta")).shape == (2, 10)


def test_the_maps_of_inception_are_those_of_the_paper():
    """Source: Szegedy et al. 2016, table 1."""
    model = published_model("inception")
    shapes = {}
    hooks = [
        model.body.get_submodule(name).register_forward_hook(
            lambda module, given, maps, name=name: shapes.update({name: tuple(maps.shape[1:])})
        )
        for name in ("Conv2d_2b_3x3", "Mixed_5b", "Mixed_5d", "Mixed_6a", "Mixed_6e", "Mixed_7a", "Mixed_7c")
    ]
    model(torch.empty(2, 3, 299, 299, device="meta"))
    for hook in hooks:
        hook.remove()
    assert shapes == {
        "Conv2d_2b_3x3": (64, 147, 147),
        "Mixed_5b": (256, 35, 35),
        "Mixed_5d": (288, 35, 35),
        "Mixed_6a": (768, 17, 17),
        "Mixed_6e": (768, 17, 17),
        "Mixed_7a": (1280, 8, 8),
        "Mixed_7c": (2048, 8, 8),
    }


def test_the_contrast_cnn_has_109073_parameters_and_one_output():
    with torch.device("meta"):
        model = ContrastCnn(3, 2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 109_073
    assert model.head.out_features == 1
    assert model.smallest == 190
    assert model(torch.empty(2, 3, *CONTRAST_SIZE, device="meta")).shape == (2, 2)


def test_a_colour_convolution_costs_its_own_weights_and_leaves_the_backbone_as_it_is():
    with torch.device("meta"):
        plain = backbone("resnet", depth=50, in_channels=3, classes=4, dims=2)
        grey = backbone("resnet", depth=50, in_channels=1, classes=4, dims=2, colour=True)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (plain, grey)]
    assert set(shapes[1]) - set(shapes[0]) == {"colour.weight", "colour.bias"}
    assert all(shapes[1][name] == shape for name, shape in shapes[0].items())


def test_a_colour_convolution_starts_as_three_copies_of_the_mean():
    model = backbone("resnet", in_channels=2, classes=3, dims=2, colour=True, **SLIM)
    image = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(model.colour(image), image.mean(1, keepdim=True).expand(1, 3, 4, 4))


def test_smaller_kernels_and_strides_keep_the_map_of_small_slices_large():
    with torch.device("meta"):
        wide = backbone("resnet", in_channels=1, classes=2, dims=2)
        slim = backbone("resnet", in_channels=1, classes=2, dims=2, **SLIM)
    sizes = []
    for model in (wide, slim):
        model.body.layer4.register_forward_hook(lambda module, given, maps: sizes.append(tuple(maps.shape[2:])))
        model(torch.empty(2, 1, 128, 128, device="meta"))
    assert sizes == [(4, 4), (16, 16)]
    assert (wide.smallest, slim.smallest) == (32, 8)


@pytest.mark.parametrize("name", ["densenet", "efficientnet"])
def test_backbones_exist_in_3d(name):
    with torch.device("meta"):
        model = backbone(name, in_channels=2, classes=3, dims=3)
    assert model(torch.empty(2, 2, 32, 48, 32, device="meta")).shape == (2, 3)
    assert any(isinstance(module, Conv3d) for module in model.modules())
    assert not any(type(module) is nn.Conv3d for module in model.modules())


def test_weight_gradients_of_a_3d_backbone_in_bf16_are_those_of_fp32_on_maps_of_two_voxels():
    """PyTorch's own convolution gives any number there on a CPU."""
    conv = copy.deepcopy(small_model("resnet18-slim-3d").body.layer4[1].conv2)
    maps = torch.randn(2, conv.in_channels, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    gradients = []
    for enabled in (False, True):
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            conv(maps).float().sum().backward()
        gradients.append(conv.weight.grad.clone())
    assert (gradients[1] - gradients[0]).norm() < 0.01 * gradients[0].norm()


# ---------------------------------------------------------------- libraries that may be absent


@pytest.fixture
def absent(monkeypatch):
    for module in ("timm", "torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, module, None)


def test_timm_that_is_absent_is_named_in_one_line(absent):
    line = "timm convnext_tiny needs timm, which is not installed: pip install timm"
    with pytest.raises(NetworkError, match=line) as caught:
        backbone("timm", in_channels=1, classes=2, dims=2, model="convnext_tiny")
    assert "\n" not in str(caught.value)


def test_inception_needs_no_other_library(absent):
    with torch.device("meta"):
        model = backbone("inception", in_channels=1, classes=4, dims=2)
    assert model(torch.empty(2, 1, 75, 75, device="meta")).shape == (2, 4)
    with pytest.raises(NetworkError, match="too small: give 75 voxels"):
        model(torch.empty(2, 1, 74, 75, device="meta"))


def test_a_timm_backbone_is_built_with_our_channels_and_classes(monkeypatch):
    """With a stand-in for timm: `create_model` and `feature_info` are all that is used of it."""

    def create_model(model: str, *, pretrained: bool, in_chans: int, num_classes: int) -> nn.Module:
        if model != "toy":
            raise RuntimeError(f"Unknown model ({model})\nand more lines")
        body = nn.Sequential(
            nn.Conv2d(in_chans, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
        )
        body.feature_info = [{"module": "0"}]
        return body

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    model = backbone("timm", in_channels=2, classes=3, dims=2, model="toy")
    assert model(torch.randn(2, 2, 8, 8)).shape == (2, 3)
    assert model.map_layer == "body.0"
    assert backbone("timm", in_channels=2, classes=3, dims=2, model="toy", colour=True).body[0].in_channels == 3
    with pytest.raises(NetworkError, match=r"timm model 'resnext' can't be built: Unknown model \(resnext\)$"):
        backbone("timm", in_channels=2, classes=3, dims=2, model="resnext")


# ---------------------------------------------------------------- what can't be built


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: encoder_classifier(ENCODERS[0], 2, classes=1), "1 classes: give at least 2"),
        (lambda: encoder_classifier(ENCODERS[0], 2, pooling="median"), "no pooling 'median': choose average, max"),
        (
            lambda: backbone("resnets", in_channels=1, classes=2, dims=2),
            "no backbone 'resnets': choose resnet",
        ),
        (lambda: backbone("resnet", in_channels=1, classes=2, dims=4), "2 or 3 dimensions, not 4"),
        (lambda: backbone("resnet", in_channels=1, classes=2, dims=2, size=(8, 8)), "unexpected keyword .*'size'"),
        (lambda: backbone("resnet", in_channels=1, classes=2, dims=2, first_kernel=4), "give an odd number"),
        (lambda: backbone("vit", in_channels=1, classes=2, dims=2), "missing .*'size'"),
        (lambda: backbone("vit", in_channels=1, classes=2, dims=2, size=(20, 16)), "give 2 multiples of the patch"),
        (lambda: backbone("vit", in_channels=1, classes=2, dims=3, size=(16, 16)), "give 3 multiples of the patch"),
        (lambda: backbone("vit", in_channels=1, classes=2, dims=2, size=(16, 16), heads=7), "width 768 with 7 heads"),
        (lambda: backbone("inception", in_channels=1, classes=2, dims=3), "inception has 2 dimensions, not 3"),
        (lambda: backbone("timm", in_channels=1, classes=2, dims=3, model="a"), "timm a has 2 dimensions, not 3"),
        (lambda: LeNet5(1, 2, dims=3), "lenet5 has 2 dimensions, not 3"),
        (lambda: AlexNet(1, 2, dims=3), "alexnet has 2 dimensions, not 3"),
        (lambda: Vgg16(1, 2, dims=3), "vgg16 has 2 dimensions, not 3"),
        (lambda: ContrastCnn(1, 2, size=(331, 331, 331), dims=3), "contrast_cnn has 2 dimensions, not 3"),
        (lambda: ContrastCnn(1, 2, size=(189, 331)), r"\(189, 331\): this network takes 2 axes of 190 voxels or more"),
        (lambda: ContrastCnn(1, 2, channels=()), "give one or more"),
        (lambda: LogisticRegression(0, 2, size=(4, 4)), "image of 0 channels"),
        (lambda: LogisticRegression(1, 2, size=(4,)), "2 or 3 dimensions, not 1"),
    ],
)
def test_what_can_not_be_built_says_why_in_one_line(build, message):
    with pytest.raises(NetworkError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)

"""Classification models: what every one of them promises, and the published sizes."""

import copy
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from monai.visualize import GradCAM
from pydantic import TypeAdapter, ValidationError
from small_classifiers import MODELS, SLIM, TINY_VIT, encoder_classifier, image_for, small_model
from small_networks import ENCODERS, every_dims, every_encoder
from torch import nn

from segmed.config.classifier import ClassifierModel, EncoderClassifierConfig
from segmed.networks.backbones import BACKBONES, backbone
from segmed.networks.blocks import Conv3d, NetworkError
from segmed.networks.classic import CONTRAST_SIZE, AlexNet, ContrastCnn, LogisticRegression, Vgg16
from segmed.networks.classifiers import POOLINGS, AttentionPooling, AveragePooling, Classifier, MaxPooling
from segmed.networks.models import SegmentationNet
from segmed.networks.summary import summarise

every_model = pytest.mark.parametrize("name", list(MODELS))
mapped = pytest.mark.parametrize("name", [name for name in MODELS if "logistic" not in name])


# ---------------------------------------------------------------- the contract of all models


@every_model
def test_logits_have_a_row_an_image_and_a_column_a_class(name):
    model = small_model(name)
    logits = model.train()(image_for(name))
    assert logits.shape == (4, model.classes)
    assert logits.isfinite().all()


@every_model
def test_gradients_reach_every_parameter(name):
    model = small_model(name).train()
    model.zero_grad()
    torch.manual_seed(0)
    logits = model(image_for(name))
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for weight, parameter in model.named_parameters():
        assert parameter.grad is not None, weight
        assert parameter.grad.isfinite().all(), weight
        assert parameter.grad.abs().max() > 0, weight


@every_model
def test_evaluation_gives_the_same_logits_each_time_and_from_a_copy(name):
    model = small_model(name).eval()
    image = image_for(name)
    with torch.no_grad():
        logits = model(image)
        assert torch.equal(model(image), logits)
        assert torch.equal(copy.deepcopy(model)(image), logits)


@every_model
def test_bf16_autocast_trains_and_gives_nearly_the_same_logits(name):
    model = copy.deepcopy(small_model(name)).eval()
    for head in [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]:
        nn.init.normal_(head.weight)
    image = image_for(name)
    with torch.no_grad():
        exact = model(image)
        with torch.autocast("cpu", torch.bfloat16):
            low = model(image)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).abs().mean() < 0.05 * exact.abs().mean()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(model.train()(image).float(), torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_model
def test_channels_last_images_give_the_same_logits(name):
    model = small_model(name).eval()
    image = image_for(name)
    last = image.contiguous(memory_format=torch.channels_last if model.dims == 2 else torch.channels_last_3d)
    with torch.no_grad():
        torch.testing.assert_close(model(last), model(image), rtol=1e-4, atol=1e-4)


@mapped
def test_the_map_of_grad_cam_is_spatial_and_explains_the_logit(name):
    model = copy.deepcopy(small_model(name)).eval()
    assert model.map_layer in dict(model.named_modules())
    image = image_for(name, batch=2)
    cam = GradCAM(model, model.map_layer)
    assert cam(image, class_idx=1).shape == (2, 1, *image.shape[2:])
    features, gradient = cam.nn_module.activations[model.map_layer], cam.nn_module.gradients[model.map_layer]
    assert features.dim() == model.dims + 2
    assert features.shape == gradient.shape
    assert gradient.abs().sum() > 0


@every_model
def test_other_channels_and_dimensions_are_refused_in_one_line(name):
    model, image = small_model(name), image_for(name)
    for wrong in (image[:, :1], image[0], image[..., None]):
        with pytest.raises(NetworkError, match=r"does not fit: give \(B, 2, X, Y") as caught:
            model(wrong)
        assert "\n" not in str(caught.value)


@every_model
def test_the_smallest_image_passes_and_a_smaller_one_is_refused_in_one_line(name):
    model = small_model(name).eval()
    size = model.size or (model.smallest,) * model.dims
    if name.split("-")[0].endswith("Encoder"):
        size = (2, *size[1:-1], 8)  # instance normalisation needs two voxels at the coarsest level
    with torch.no_grad():
        assert model(torch.randn(1, 2, *size)).isfinite().all()
        if (smaller := (*size[:-1], size[-1] - 1 if model.size or model.smallest > 1 else 4))[-1] != size[-1]:
            with pytest.raises(NetworkError, match=r"too small|does not fit|too few to be norm") as caught:
                model(torch.randn(1, 2, *smaller))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18-slim-2d", "resnet18-slim-3d"])
def test_one_image_that_leaves_one_voxel_trains_only_in_a_larger_batch(name):
    model = small_model(name).train()
    image = torch.randn(2, 2, *[model.smallest] * model.dims)
    with pytest.raises(NetworkError, match="too few to be normalised: give larger images or, with batch") as caught:
        model(image[:1])
    assert "\n" not in str(caught.value)
    assert model(image).isfinite().all()


@pytest.mark.parametrize("name", ["PlainEncoder-attention-2d", "resnet18-slim-3d", "vit-2d", "contrast_cnn"])
def test_the_cost_of_a_model_can_be_told_before_it_runs(name):
    model = small_model(name)
    summary = summarise(model, MODELS[name][1], batch=2)
    assert summary.outputs == ((2, model.classes),)
    assert summary.parameters == sum(parameter.numel() for parameter in model.parameters())


# ---------------------------------------------------------------- published sizes


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("densenet121", 7_978_856),
        ("efficientnet_b0", 5_288_548),
        ("efficientnet_b1", 7_794_184),
        ("efficientnet_b2", 9_109_994),
        ("efficientnet_b3", 12_233_232),
        ("efficientnet_b4", 19_341_616),
        ("vit", 86_567_656 - 768),  # the class token's position is part of the token here
    ],
)
def test_a_backbone_has_as_many_parameters_as_published(name, parameters):
    options = {"size": (224, 224)} if name == "vit" else {}
    with torch.device("meta"):
        model = backbone(name, in_channels=3, classes=1000, dims=2, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    if name in ("resnet18", "densenet121", "vit"):
        assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize(("kind", "parameters"), [(AlexNet, 61_100_840), (Vgg16, 138_357_544)])
def test_a_classic_has_as_many_parameters_as_published(kind, parameters):
    with torch.device("meta"):
        model = kind(3, 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


def test_the_contrast_cnn_has_109073_parameters_and_one_output():
    with torch.device("meta"):
        model = ContrastCnn(3, 2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 109_073
    assert model.head.out_features == 1
    assert model.smallest == 190
    assert model(torch.empty(2, 3, *CONTRAST_SIZE, device="meta")).shape == (2, 2)


def test_a_colour_convolution_costs_its_own_weights_and_leaves_the_backbone_as_it_is():
    with torch.device("meta"):
        plain = backbone("resnet50", in_channels=3, classes=4, dims=2)
        grey = backbone("resnet50", in_channels=1, classes=4, dims=2, colour=True)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (plain, grey)]
    assert set(shapes[1]) - set(shapes[0]) == {"colour.weight", "colour.bias"}
    assert all(shapes[1][name] == shape for name, shape in shapes[0].items())


def test_a_colour_convolution_starts_as_three_copies_of_the_mean():
    model = backbone("resnet18", in_channels=2, classes=3, dims=2, colour=True, **SLIM)
    image = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(model.colour(image), image.mean(1, keepdim=True).expand(1, 3, 4, 4))


def test_smaller_kernels_and_strides_keep_the_map_of_small_slices_large():
    with torch.device("meta"):
        wide = backbone("resnet18", in_channels=1, classes=2, dims=2)
        slim = backbone("resnet18", in_channels=1, classes=2, dims=2, **SLIM)
    sizes = []
    for model in (wide, slim):
        model.body.layer4.register_forward_hook(lambda module, given, maps: sizes.append(tuple(maps.shape[2:])))
        model(torch.empty(2, 1, 128, 128, device="meta"))
    assert sizes == [(4, 4), (16, 16)]
    assert (wide.smallest, slim.smallest) == (32, 8)


@pytest.mark.parametrize("name", ["densenet121", "efficientnet_b0", "resnet50"])
def test_backbones_exist_in_3d(name):
    with torch.device("meta"):
        model = backbone(name, in_channels=2, classes=3, dims=3)
    assert model(torch.empty(2, 2, 32, 48, 32, device="meta")).shape == (2, 3)
    assert any(isinstance(module, Conv3d) for module in model.modules())
    assert not any(type(module) is nn.Conv3d for module in model.modules())


# ---------------------------------------------------------------- one output, pooling


def test_the_softmax_of_one_output_is_its_sigmoid():
    model = LogisticRegression(1, 2, size=(4, 4))
    nn.init.normal_(model.head.weight)
    image = torch.randn(5, 1, 4, 4)
    logits = model(image)
    assert torch.equal(logits[:, 0], torch.zeros(5))
    torch.testing.assert_close(logits.softmax(1)[:, 1:], model.head(image.flatten(1)).sigmoid())


def test_logistic_regression_finds_the_weights_of_a_plane():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(400, 1, 3, 3, generator=generator)
    label = (image.sum((1, 2, 3)) > 0).long()
    model = LogisticRegression(1, 2, size=(3, 3))
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=30)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(image), label) + 1e-3 * model.head.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    weights = model.head.weight.detach().flatten()
    assert (model(image).argmax(1) == label).float().mean() > 0.98
    assert weights.std() < 0.1 * weights.mean()


@every_dims
def test_poolings_of_a_constant_map_are_its_value(dims):
    features = torch.randn(2, 6, *[1] * dims).expand(2, 6, *[3] * dims)
    for pooling in POOLINGS.values():
        torch.testing.assert_close(pooling(6)(features), features.flatten(2)[..., 0])


def test_average_and_max_pooling_are_mean_and_maximum():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[-4.0, -1.0], [-2.0, -1.0]]]])
    assert AveragePooling(2)(features).tolist() == [[3.0, -2.0]]
    assert MaxPooling(2)(features).tolist() == [[6.0, -1.0]]


@every_dims
def test_attention_shares_add_to_one_and_weigh_the_voxels(dims):
    torch.manual_seed(0)
    pooling, features = AttentionPooling(5), torch.randn(2, 5, *[6] * dims)
    shares = pooling.weights(features)
    assert shares.shape == (2, *[6] * dims)
    torch.testing.assert_close(shares.flatten(1).sum(1), torch.ones(2))
    torch.testing.assert_close(pooling(features), (features * shares[:, None]).flatten(2).sum(2))
    assert shares.flatten(1).std() > 0


def test_attention_pooling_ignores_where_a_voxel_stands():
    torch.manual_seed(0)
    pooling, features = AttentionPooling(5), torch.randn(2, 5, 4, 4)
    moved = features.flatten(2)[..., torch.randperm(16)].reshape(2, 5, 4, 4)
    torch.testing.assert_close(pooling(moved), pooling(features))


def test_attention_learns_to_look_at_the_one_bright_voxel_of_many():
    """The mean over 400 voxels hardly moves with one of them; the attention has to find it."""
    torch.manual_seed(0)
    pooling, head = AttentionPooling(2), nn.Linear(2, 2)
    optimiser = torch.optim.Adam([*pooling.parameters(), *head.parameters()], 0.05)
    for _ in range(80):
        features, label = torch.randn(32, 2, 20, 20), torch.randint(0, 2, (32,))
        features[torch.arange(32), 0, torch.randint(0, 20, (32,)), 3] = 8.0 * (2 * label - 1)
        loss = nn.functional.cross_entropy(head(pooling(features)), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    shares = pooling.weights(features)
    assert (head(pooling(features)).argmax(1) == label).float().mean() > 0.9
    assert shares[label == 1].flatten(1).amax(1).mean() > 0.5


@every_encoder
@every_dims
def test_a_classifier_uses_the_encoder_of_a_segmenter(encoder_type, dims):
    model = encoder_classifier(encoder_type, dims)
    segmenter = SegmentationNet(model.encoder, 3)
    assert segmenter.encoder is model.encoder
    image = torch.randn(2, 2, *[8] * dims)
    pooled = model.encoder(image)[-1].flatten(2).mean(2)
    torch.testing.assert_close(model(image), model.head(pooled))


def test_dropout_acts_on_the_pooled_features_in_training_alone():
    model = encoder_classifier(ENCODERS[0], 2, dropout=0.5)
    image = torch.randn(2, 2, 8, 8)
    assert not torch.equal(model.train()(image), model(image))
    assert torch.equal(model.eval()(image), model(image))


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


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("timm", {"model": "convnext_tiny"}, "timm convnext_tiny needs timm, which is not installed: pip install timm"),
        ("inception", {}, "inception needs torchvision, which is not installed: pip install torchvision"),
    ],
)
def test_a_library_that_is_absent_is_named_in_one_line(name, options, line, absent):
    with pytest.raises(NetworkError, match=line) as caught:
        backbone(name, in_channels=1, classes=2, dims=2, **options)
    assert "\n" not in str(caught.value)


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


def test_inception_reads_our_channels(monkeypatch):
    """With a stand-in for torchvision that has the first and the last convolution alone."""

    def inception_v3(*, weights: None, aux_logits: bool, init_weights: bool, num_classes: int) -> nn.Module:
        body = nn.Sequential()
        body.Conv2d_1a_3x3 = nn.Sequential()
        body.Conv2d_1a_3x3.conv = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        body.Mixed_7c = nn.AdaptiveAvgPool2d(1)
        body.fc = nn.Sequential(nn.Flatten(), nn.Linear(32, num_classes))
        return body

    models = ModuleType("torchvision.models")
    models.inception_v3 = inception_v3
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    model = backbone("inception", in_channels=1, classes=4, dims=2)
    assert model(torch.randn(2, 1, 75, 75)).shape == (2, 4)
    assert model.map_layer in dict(model.named_modules())
    with pytest.raises(NetworkError, match="too small: give 75 voxels"):
        model(torch.randn(2, 1, 74, 75))


# ---------------------------------------------------------------- what can't be built


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: encoder_classifier(ENCODERS[0], 2, classes=1), "1 classes: give at least 2"),
        (lambda: encoder_classifier(ENCODERS[0], 2, pooling="median"), "no pooling 'median': choose average, max"),
        (lambda: backbone("resnet19", in_channels=1, classes=2, dims=2), "no backbone 'resnet19': choose resnet18"),
        (lambda: backbone("resnet18", in_channels=1, classes=2, dims=4), "2 or 3 dimensions, not 4"),
        (lambda: backbone("resnet18", in_channels=1, classes=2, dims=2, size=(8, 8)), "unexpected keyword .*'size'"),
        (lambda: backbone("resnet18", in_channels=1, classes=2, dims=2, first_kernel=4), "give an odd number"),
        (lambda: backbone("vit", in_channels=1, classes=2, dims=2), "missing .*'size'"),
        (lambda: backbone("vit", in_channels=1, classes=2, dims=2, size=(20, 16)), "give 2 multiples of the patch"),
        (lambda: backbone("vit", in_channels=1, classes=2, dims=3, size=(16, 16)), "give 3 multiples of the patch"),
        (lambda: backbone("vit", in_channels=1, classes=2, dims=2, size=(16, 16), heads=7), "width 768 with 7 heads"),
        (lambda: backbone("inception", in_channels=1, classes=2, dims=3), "inception has 2 dimensions, not 3"),
        (lambda: backbone("timm", in_channels=1, classes=2, dims=3, model="a"), "timm a has 2 dimensions, not 3"),
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


# ---------------------------------------------------------------- config

SCHEMA = TypeAdapter(ClassifierModel)
SECTIONS = list(ClassifierModel.__origin__.__args__)  # of the union, name by name


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_of_a_section_says_what_it_means(section):
    assert all(field.description for name, field in section.model_fields.items() if name != "name")
    assert type(SCHEMA.validate_python({"name": section.model_fields["name"].default})) is section


def test_every_backbone_has_a_section_whose_options_it_takes():
    names = {section.model_fields["name"].default: section for section in SECTIONS}
    assert set(names) == {*BACKBONES, "encoder", "logistic", "alexnet", "vgg16", "contrast_cnn"}
    for name in set(BACKBONES) - {"inception", "timm"}:
        options = names[name]().model_dump(exclude={"name", "pretrained", "grey"})
        if name == "vit":
            options |= {**TINY_VIT, "size": (8, 8)}
        with torch.device("meta"):
            assert backbone(name, in_channels=1, classes=2, dims=2, **options).classes == 2


def test_every_encoder_and_pooling_of_the_schema_exists():
    for encoder in ENCODERS:
        for pooling in POOLINGS:
            config = EncoderClassifierConfig(encoder=encoder.__name__.removesuffix("Encoder").lower(), pooling=pooling)
            model = Classifier(encoder(1, (4, 6), ((1, 1), (2, 2)), dims=2), 2, pooling=config.pooling)
            assert model(torch.randn(2, 1, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize(("given", "kind"), [("hub", str), ("weights.pth", "path"), (None, type(None))])
def test_published_weights_are_a_file_or_the_hub(given, kind):
    config = SCHEMA.validate_python({"name": "resnet50", "pretrained": given})
    assert config.pretrained == given if kind != "path" else config.pretrained.name == given
    assert SCHEMA.validate_python(config.model_dump(mode="json")) == config


def test_logistic_regression_has_no_published_weights():
    with pytest.raises(ValidationError, match="pretrained"):
        SCHEMA.validate_python({"name": "logistic", "pretrained": "hub"})

"""Classification models: what every one of them promises, the poolings, and the sections of the config."""

import copy

import pytest
import torch
from monai.visualize import GradCAM
from pydantic import TypeAdapter, ValidationError
from small_classifiers import MODELS, TINY_VIT, encoder_classifier, image_for, small_model
from small_networks import ENCODERS, every_dims, every_encoder
from torch import nn

from segmed.config.base import Section
from segmed.config.classifier import ClassifierNetwork, EncoderClassifierConfig
from segmed.errors import NetworkError
from segmed.networks.backbones import BACKBONES, backbone
from segmed.networks.classic import LogisticRegression
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


# ---------------------------------------------------------------- config

SCHEMA = TypeAdapter(ClassifierNetwork)
SECTIONS = list(ClassifierNetwork.__origin__.__args__)  # of the union, name by name


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_of_a_section_says_what_it_means(section):
    fields = [field for name, field in section.model_fields.items() if name != "name"]
    assert all(field.description or issubclass(field.annotation, Section) for field in fields)
    assert type(SCHEMA.validate_python({"name": section.model_fields["name"].default})) is section


def test_every_backbone_has_a_section_whose_options_it_takes():
    names = {section.model_fields["name"].default: section for section in SECTIONS}
    assert set(names) == {*BACKBONES, "encoder", "logistic", "lenet5", "alexnet", "vgg16", "contrast_cnn"}
    for name in ("resnet", "densenet", "efficientnet", "vit", "inception"):
        options = names[name]().model_dump(exclude={"name", "pretrained", "grey"})
        if name == "vit":
            options |= {**TINY_VIT, "size": (8, 8)}
        with torch.device("meta"):
            assert backbone(name, in_channels=1, classes=2, dims=2, **options).classes == 2


def test_every_encoder_and_pooling_of_the_schema_exists():
    for encoder in ENCODERS:
        for pooling in POOLINGS:
            config = EncoderClassifierConfig(
                encoder={"name": encoder.__name__.removesuffix("Encoder").lower()}, pooling=pooling
            )
            model = Classifier(encoder(1, (4, 6), ((1, 1), (2, 2)), dims=2), 2, pooling=config.pooling)
            assert model(torch.randn(2, 1, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize(("given", "kind"), [("hub", str), ("weights.pth", "path"), (None, type(None))])
def test_published_weights_are_a_file_or_the_hub(given, kind):
    config = SCHEMA.validate_python({"name": "resnet", "depth": 50, "pretrained": given})
    assert config.pretrained == given if kind != "path" else config.pretrained.name == given
    assert SCHEMA.validate_python(config.model_dump(mode="json")) == config


def test_logistic_regression_has_no_published_weights():
    with pytest.raises(ValidationError, match="pretrained"):
        SCHEMA.validate_python({"name": "logistic", "pretrained": "hub"})

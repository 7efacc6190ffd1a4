"""Published weights: fetched from a server on the loopback, read, renamed, and put in."""

from __future__ import annotations

import hashlib
import io
import re

import pytest
import torch
from safetensors.torch import save_file
from small_classifiers import SLIM, TINY_VIT, published_model
from torch import nn

from segmed.errors import NetworkError
from segmed.networks.backbones import backbone
from segmed.networks.published_names import own_names
from segmed.networks.weight_transfer import adopt
from segmed.training import pretrained
from segmed.training.pretrained import HUB, Published, fetch_weights, load_pretrained


def renamed(weights: dict[str, torch.Tensor], *changes: tuple[str, str]) -> dict[str, torch.Tensor]:
    """Our weights by the names of a published file."""
    result = {}
    for name, tensor in weights.items():
        for pattern, replacement in changes:
            name = re.sub(pattern, replacement, name)
        result[name] = tensor
    return result


def slim(classes: int = 3, *, channels: int = 3, dims: int = 2, seed: int = 0, **options):
    torch.manual_seed(seed)
    return backbone("resnet", in_channels=channels, classes=classes, dims=dims, **(SLIM | options))


BODY = ("^body\\.", "")
RENAMED = {
    "resnet18": [BODY],
    "resnet50": [BODY],
    "densenet121": [
        BODY,
        (r"\.layers\.(norm|conv)(\d)", r".\1.\2"),  # as in the file of 2017
        (r"class_layers\.out", "classifier"),
    ],
    "efficientnet_b0": [BODY, (r"_blocks\.\d+\.", "_blocks.")],
    "inception": [BODY],
    "alexnet": [],
}
IN_THE_FILES = {
    "resnet18": ["conv1.weight", "bn1.running_var", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias", "fc.bias"],
    "resnet50": ["layer1.0.downsample.1.weight", "layer3.5.conv3.weight", "layer4.2.bn3.weight"],
    "densenet121": [
        "features.conv0.weight",
        "features.denseblock3.denselayer24.norm.2.running_mean",
        "features.denseblock3.denselayer24.norm2.running_var",
        "features.transition3.conv.weight",
        "features.norm5.weight",
        "classifier.weight",
    ],
    "efficientnet_b0": [
        "_conv_stem.weight",
        "_blocks.15._se_expand.bias",
        "_blocks.1._expand_conv.weight",
        "_bn1.bias",
        "_fc.weight",
    ],
    "inception": [
        "Conv2d_1a_3x3.conv.weight",
        "Conv2d_4a_3x3.bn.running_var",
        "Mixed_5b.branch5x5_2.conv.weight",
        "Mixed_5d.branch3x3dbl_3.bn.weight",
        "Mixed_5b.branch_pool.conv.weight",
        "Mixed_6a.branch3x3.conv.weight",
        "Mixed_6a.branch3x3dbl_3.conv.weight",
        "Mixed_6e.branch7x7_3.conv.weight",
        "Mixed_6b.branch7x7dbl_5.conv.weight",
        "Mixed_7a.branch3x3_2.conv.weight",
        "Mixed_7a.branch7x7x3_4.bn.bias",
        "Mixed_7b.branch3x3_2a.conv.weight",
        "Mixed_7c.branch3x3dbl_3b.conv.weight",
        "fc.weight",
    ],
    "alexnet": ["features.0.weight", "features.10.bias", "classifier.1.weight", "classifier.6.bias"],
}


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", list(RENAMED))
def test_published_names_become_ours_without_a_gap(name):
    own = published_model(name).state_dict()
    published = renamed(own, *RENAMED[name])
    assert len(published) == len(own)
    back = own_names(name, published, published_model(name))
    assert back.keys() == own.keys()
    assert all(back[key] is own[key] for key in own)


@pytest.mark.parametrize("name", list(IN_THE_FILES))
def test_names_that_stand_in_the_published_files_are_found(name):
    model = published_model(name)
    weights = {published: torch.zeros(1) for published in IN_THE_FILES[name]}
    assert set(own_names(name, weights, model)) <= set(model.state_dict())


def test_a_file_with_the_published_names_fills_the_whole_network():
    source, target = slim(), slim(seed=1)
    transfer = adopt(own_names("resnet18", renamed(source.state_dict(), BODY), target), target)
    assert (dict(transfer.left), transfer.unused) == ({}, ())
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in target.state_dict().items())


class TorchvisionViT(nn.Module):
    """The architecture and the names of torchvision's, with what torch itself has."""

    def __init__(
        self, *, side: int, patch: int, width: int, layers: int, heads: int, hidden: int, classes: int
    ) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.randn(1, side**2 + 1, width))
        self.encoder.layers = nn.Module()
        for number in range(layers):
            layer = nn.Module()
            layer.ln_1, layer.ln_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
            layer.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
            layer.mlp = nn.Module()
            layer.mlp.linear_1, layer.mlp.linear_2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
            setattr(self.encoder.layers, f"encoder_layer_{number}", layer)
        self.encoder.ln = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.Module()
        self.heads.head = nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.conv_proj(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(image), -1, -1), patches], 1) + self.encoder.pos_embedding
        for layer in self.encoder.layers.children():
            normal = layer.ln_1(tokens)
            tokens = tokens + layer.self_attention(normal, normal, normal, need_weights=False)[0]
            tokens = tokens + layer.mlp.linear_2(nn.functional.gelu(layer.mlp.linear_1(layer.ln_2(tokens))))
        return self.heads.head(self.encoder.ln(tokens)[:, 0])


@pytest.fixture
def reference() -> TorchvisionViT:
    torch.manual_seed(0)
    model = TorchvisionViT(side=3, classes=5, **TINY_VIT).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def test_a_vit_with_published_weights_gives_the_logits_of_the_published_architecture(reference):
    model = backbone("vit", in_channels=3, classes=5, dims=2, size=(24, 24), **TINY_VIT).eval()
    transfer = adopt(own_names("vit", reference.state_dict(), model), model)
    assert (dict(transfer.left), transfer.unused) == ({}, ())
    image = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(image), reference(image), rtol=1e-4, atol=1e-4)


def test_the_positions_of_a_vit_are_drawn_to_another_grid(reference):
    model = backbone("vit", in_channels=3, classes=5, dims=2, size=(48, 24), **TINY_VIT)
    with torch.no_grad():
        reference.encoder.pos_embedding[:] = torch.arange(10.0).clamp(min=1)[None, :, None] // 4 + 1
    adopt(own_names("vit", reference.state_dict(), model), model)
    grid = model.body.patch_embedding.position_embeddings[0, :, 0].reshape(6, 3)
    assert grid[0].mean() < grid[2].mean() < grid[3].mean() < grid[5].mean()


# ---------------------------------------------------------------- heads, channels, dimensions


def test_a_head_of_other_classes_is_left_by_name():
    target = slim(4, seed=1)
    head = target.body.fc.weight.clone()
    transfer = adopt(own_names("resnet18", renamed(slim(1000).state_dict(), BODY), target), target)
    assert dict(transfer.left) == {
        "body.fc.weight": "shape (1000, 32) there, (4, 32) here",
        "body.fc.bias": "shape (1000,) there, (4,) here",
    }
    assert torch.equal(target.body.fc.weight, head)


def test_a_grey_image_gets_by_sum_the_response_of_three_equal_colours():
    source, target = slim().eval(), slim(channels=1, seed=1).eval()
    adopt(source.state_dict(), target, grey="sum")
    image = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(target(image), source(image.expand(2, 3, 8, 8)), rtol=1e-4, atol=1e-4)


def test_five_equal_channels_get_by_sum_the_response_of_three_equal_colours():
    source, target = slim().eval(), slim(channels=5, seed=1).eval()
    adopt(source.state_dict(), target, grey="sum")
    image = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected = source(image.expand(2, 3, 8, 8))
        torch.testing.assert_close(target(image.expand(2, 5, 8, 8)), expected, rtol=1e-4, atol=1e-4)


def test_average_is_a_third_of_the_sum_on_a_grey_image():
    source, summed, averaged = slim(), slim(channels=1), slim(channels=1)
    adopt(source.state_dict(), summed, grey="sum")
    adopt(source.state_dict(), averaged, grey="average")
    torch.testing.assert_close(averaged.body.conv1.weight, source.body.conv1.weight.mean(1, keepdim=True))
    torch.testing.assert_close(3 * averaged.body.conv1.weight, summed.body.conv1.weight)


def test_behind_a_colour_convolution_the_first_kernel_is_taken_bit_for_bit():
    source, target = slim(), slim(channels=1, colour=True, seed=1)
    transfer = adopt(own_names("resnet18", renamed(source.state_dict(), BODY), target), target)
    assert torch.equal(target.body.conv1.weight, source.body.conv1.weight)
    assert set(transfer.left) == {"colour.weight", "colour.bias"}


def test_2d_weights_are_inflated_into_a_3d_backbone():
    source, target = slim(), slim(channels=1, dims=3, seed=1)
    transfer = adopt(source.state_dict(), target)
    assert (transfer.axis, dict(transfer.left)) == (2, {})
    torch.testing.assert_close(target.body.layer3[0].conv2.weight.sum(-1), source.body.layer3[0].conv2.weight)
    torch.testing.assert_close(
        target.body.conv1.weight.sum(-1), source.body.conv1.weight.sum(1, keepdim=True), rtol=1e-4, atol=1e-5
    )


def test_another_first_kernel_is_left_and_the_rest_taken():
    transfer = adopt(slim(first_kernel=7).state_dict(), slim())
    assert dict(transfer.left) == {"body.conv1.weight": "shape (4, 3, 7, 7) there, (4, 3, 3, 3) here"}


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("form", ["weights.safetensors", "weights.pth", "nested.pth", "parallel.pth", "legacy.pth"])
def test_weights_are_read_from_every_usual_form(form, tmp_path):
    source, target = slim(), slim(seed=1)
    weights = renamed(source.state_dict(), BODY)
    path = tmp_path / form
    if form == "weights.safetensors":
        save_file(source.state_dict(), path)  # as segmed itself names them
    elif form == "nested.pth":
        torch.save({"epoch": 3, "state_dict": weights}, path)
    elif form == "parallel.pth":
        torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form != "legacy.pth")
    transfer = load_pretrained(target, "resnet18", path, folder=tmp_path)
    assert not transfer.left
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in target.state_dict().items())


def test_what_was_taken_and_left_is_logged_by_name(tmp_path, caplog):
    torch.save(renamed(slim(7).state_dict(), BODY) | {"aux.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with caplog.at_level("INFO", logger="segmed"):
        load_pretrained(slim(), "resnet18", tmp_path / "w.pth", folder=tmp_path)
    assert "weights taken; body.fc.weight left: shape (7, 32) there, (3, 32) here" in caplog.text
    assert "unused: body.fc.weight, body.fc.bias, aux.weight" in caplog.text


class Hostile:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "are not there: correct the path"),
        ("hostile.pth", {"conv1.weight": Hostile()}, "more than tensors, numbers and text, or are damaged"),
        ("damaged.pth", b"PK\x03\x04 no archive", "are damaged or no file of weights|or are damaged"),
        ("damaged.safetensors", b"no tensors", "are damaged or no file of weights"),
        ("list.pth", [1, 2, 3], "hold no tensors by name"),
        ("empty.pth", {"state_dict": {}}, "hold no tensors by name"),
        ("other.pth", {"encoder.weight": torch.zeros(2, 2)}, r"for resnet18: no kernel fits .*not in the source"),
    ],
)
def test_a_file_that_can_not_be_used_is_one_line_and_changes_nothing(name, content, message, tmp_path, capsys):
    path, target = tmp_path / name, slim()
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(NetworkError, match=message) as caught:
        load_pretrained(target, "resnet18", path, folder=tmp_path)
    assert "\n" not in str(caught.value)
    assert "run" not in capsys.readouterr().out
    assert all(torch.equal(before[key], tensor) for key, tensor in target.state_dict().items())


# ---------------------------------------------------------------- the hub


def as_file(weights: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


SMALL = as_file({"conv1.weight": torch.zeros(64, 3, 7, 7)})
DIGEST = hashlib.sha256(SMALL).hexdigest()


def on(server, digest: str = DIGEST) -> Published:
    return Published(f"{server.url}/small-{digest[:8]}.pth", digest[:8])


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_hub_gives_weights_that_are_kept_for_the_next_time(loopback, tmp_path, monkeypatch):
    source = slim(1000)
    loopback.body = as_file(renamed(source.state_dict(), BODY))
    digest = hashlib.sha256(loopback.body).hexdigest()
    monkeypatch.setattr(pretrained, "HUB", {"resnet18": on(loopback, digest)})
    for target in (slim(seed=1), slim(seed=2)):
        transfer = load_pretrained(target, "resnet18", "hub", folder=tmp_path / "weights")
        assert set(transfer.left) == {"body.fc.weight", "body.fc.bias"}
        assert torch.equal(target.body.conv1.weight, source.body.conv1.weight)
    assert len(loopback.ranges) == 1
    assert names(tmp_path / "weights") == {f"small-{digest[:8]}.pth"}


def test_a_cut_connection_is_gone_on_with(loopback, tmp_path):
    loopback.body, loopback.cut_at = SMALL, [20_000]
    path = fetch_weights(on(loopback), tmp_path, wait_s=0.001)
    assert loopback.ranges == [None, "bytes=20000-"]
    assert path.read_bytes() == SMALL
    assert names(tmp_path) == {path.name}


def test_a_later_call_goes_on_from_what_had_come(loopback, tmp_path):
    loopback.body, loopback.cut_at = SMALL, [20_000]
    with pytest.raises(NetworkError, match=r"cut at .* 1 times in a row: run again, or fetch it yourself"):
        fetch_weights(on(loopback), tmp_path, attempts=1)
    assert not (tmp_path / on(loopback).file).exists()
    assert fetch_weights(on(loopback), tmp_path).read_bytes() == SMALL
    assert loopback.ranges[-1] == "bytes=20000-"


def test_a_wrong_checksum_leaves_nothing_and_says_so(loopback, tmp_path):
    loopback.body = SMALL
    with pytest.raises(NetworkError, match="instead of the published 00000000: it was removed, run again"):
        fetch_weights(on(loopback, "0" * 64), tmp_path)
    assert names(tmp_path) == set()


def test_a_kept_file_that_has_changed_is_not_used(loopback, tmp_path):
    (tmp_path / on(loopback).file).write_bytes(b"changed")
    with pytest.raises(NetworkError, match="remove it, and it is fetched again"):
        fetch_weights(on(loopback), tmp_path)
    assert loopback.ranges == []


def test_a_server_without_the_file_or_no_server_is_one_line_with_a_way_out(loopback, tmp_path):
    loopback.status = [404]
    for published in (on(loopback), Published("http://127.0.0.1:9/small-00000000.pth", "00000000")):
        with pytest.raises(NetworkError, match="fetch it yourself and give the file as `pretrained`") as caught:
            fetch_weights(published, tmp_path, attempts=1)
        assert "--base-url" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert published.url in str(caught.value)


def test_every_published_file_is_named_with_the_start_of_its_checksum():
    assert set(HUB) <= {"resnet18", "resnet34", "resnet50", "densenet121", "vit", "inception", "alexnet", "vgg16"} | {
        f"efficientnet_b{number}" for number in range(5)
    }
    for published in HUB.values():
        assert re.fullmatch(r"[0-9a-f]{8}", published.sha256)
        assert published.file.endswith(f"-{published.sha256}.pth")
        assert published.url.startswith("https://")


def test_a_network_without_published_weights_is_named_with_those_that_have_some(tmp_path):
    with pytest.raises(NetworkError, match="no weights of 'timm' are published: give a file, or one of resnet18"):
        load_pretrained(slim(), "timm", "hub", folder=tmp_path)

"""The patch CNN: one pass over an image gives what the CNN gives on the patch around every voxel."""

import copy
import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import every_dims, gradients, image_of
from tiny_data import make_balls, names, tiny, trained

from segmed.builders.architectures import build_network
from segmed.builders.trained import load_run
from segmed.config import PatchCnnConfig, SegmentationConfig
from segmed.config.reading import load_config
from segmed.errors import NetworkError
from segmed.networks.patchwise import PatchwiseNet
from segmed.networks.summary import summarise
from segmed.runs import read_config
from segmed.training.tracking import Tracker
from segmed.volumes import read_volume

CONVOLVE = {2: F.conv2d, 3: F.conv3d}


def patchwise(dims: int, *, patch: int = 17, channels=(3, 4), **options) -> PatchwiseNet:
    torch.manual_seed(0)
    net = PatchwiseNet(2, 3, dims=dims, patch=patch, channels=channels, hidden=5, **options)
    for name, weight in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)  # beyond the border zeros must be of the image, not of its maps
    return net


def on_patches(net: PatchwiseNet, patches: torch.Tensor) -> torch.Tensor:
    """The CNN as one would write it, with steps: patches (N, C, *patch) -> logits (N, classes)."""
    maps = patches
    convolutions = [layer for layer in net.body if hasattr(layer, "weight")]
    for number, layer in enumerate(convolutions):
        step = 2 if number % 2 else 1  # the second of each level
        maps = F.leaky_relu(CONVOLVE[net.dims](maps, layer.weight, layer.bias, stride=step), net.body[1].negative_slope)
    assert maps.shape[2:] == (1,) * net.dims
    return net.head(maps).flatten(1)


def patches_around(image: torch.Tensor, patch: int) -> torch.Tensor:
    """image (1, C, *spatial) -> the patch around each voxel, (voxels, C, *patch), zero beyond the border."""
    dims = image.dim() - 2
    windows = F.pad(image, (patch // 2,) * 2 * dims)
    for axis in range(2, dims + 2):
        windows = windows.unfold(axis, patch, 1)
    return windows[0].flatten(1, dims).transpose(0, 1)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_voxel_gets_what_the_strided_cnn_gives_on_the_patch_around_it(data):
    dims = data.draw(st.sampled_from([2, 3]), "dims")
    levels = data.draw(st.integers(1, 3 if dims == 2 else 2), "levels")
    left = data.draw(st.integers(0, 2), "voxels that the levels leave, but one")
    size = data.draw(st.lists(st.integers(1, 8 if dims == 2 else 4), min_size=dims, max_size=dims), "size")
    patch = 1 + 4 * (2**levels - 1) + 2**levels * left
    net = patchwise(dims, patch=patch, channels=(3, 4, 2)[:levels]).double()
    image = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(sum(size))).double()
    expected = on_patches(net, patches_around(image, patch))
    torch.testing.assert_close(net(image)[0].flatten(1).T, expected)


@every_dims
def test_a_decision_sees_its_patch_and_nothing_beyond_it(dims):
    net = patchwise(dims, patch=9, channels=(4,))
    image = image_of(dims, batch=1, size=13).requires_grad_()
    net(image)[(0, slice(None), *[6] * dims)].sum().backward()
    seen = (image.grad[0] != 0).any(0).nonzero()
    assert seen.amin(0).tolist() == [2] * dims
    assert seen.amax(0).tolist() == [10] * dims


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_patch_fits_its_levels_or_is_refused_with_sizes_that_fit(levels):
    smallest, step = 1 + 4 * (2**levels - 1), 2**levels
    fitting = set(range(smallest, 80, step))
    for patch in range(1, 42):
        if patch in fitting:
            assert patchwise(2, patch=patch, channels=(2,) * levels).patch == patch
            continue
        with pytest.raises(NetworkError, match=f"patch of {patch} voxels does not fit {levels} level") as caught:
            patchwise(2, patch=patch, channels=(2,) * levels)
        named = set(map(int, re.findall(r"\d+", str(caught.value).partition("such as")[2])))
        assert len(named) == 3
        assert named <= fitting


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ()}, "no level"),
        ({"dims": 4}, "2 or 3 dimensions, not 4"),
        ({"out_channels": 1}, "1 classes: give at least 2"),
    ],
)
def test_what_can_not_be_built_says_why_in_one_line(options, message):
    with pytest.raises(NetworkError, match=message) as caught:
        PatchwiseNet(**{"in_channels": 1, "out_channels": 2, "dims": 2, **options})
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- the contract of segmentation models


@every_dims
def test_it_keeps_the_contract_of_segmentation_models(dims):
    net = patchwise(dims)
    assert (net.dims, net.in_channels, net.out_channels, net.divisor) == (dims, 2, 3, (1,) * dims)
    image = image_of(dims, size=7)
    (logits,) = net.all_logits(image)
    assert net.supervised_levels == 1
    assert logits.shape == (2, 3, *[7] * dims)
    assert torch.equal(net(image), logits)
    assert torch.equal(copy.deepcopy(net).eval()(image), logits)
    for name, gradient in gradients(net, image).items():
        assert gradient.isfinite().all(), name
        assert (gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None]).abs().amax(1).min() > 1e-6, name


@settings(max_examples=15, deadline=None)
@given(size=st.lists(st.integers(1, 30), min_size=2, max_size=2))
def test_an_image_of_any_size_fits(size):
    assert patchwise(2)(torch.zeros(1, 2, *size)).shape == (1, 3, *size)


@every_dims
@pytest.mark.parametrize("shape", [(1, 1), (1, 3)])
def test_another_number_of_channels_or_axes_is_refused(dims, shape):
    for spatial in ((8,) * dims, (8,) * (dims - 1)):
        with pytest.raises(NetworkError, match=r"give \(B, 2, X, Y"):
            patchwise(dims)(torch.zeros(*shape, *spatial))


@every_dims
def test_its_summary_counts_the_multiply_adds_of_a_decision_a_voxel(dims):
    net = patchwise(dims, patch=9, channels=(4,))
    summary = summarise(net, (6,) * dims, training=False)
    levels = [(2 * 4, 3, 12), (4 * 4, 3, 10)]  # maps in and out, kernel, voxels that the padded image leaves
    levels += [(4 * 5, 3, 6), (5 * 3, 1, 6)]
    assert (summary.name, summary.channels, summary.outputs) == ("PatchwiseNet", (4,), ((1, 3, *[6] * dims),))
    assert summary.multiply_adds == sum(maps * kernel**dims * size**dims for maps, kernel, size in levels)
    assert summary.parameters == sum(maps * kernel**dims for maps, kernel, _ in levels) + 4 + 4 + 5 + 3


@every_dims
def test_bf16_autocast_gives_nearly_the_same_logits(dims):
    net, image = patchwise(dims), image_of(dims)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(image)
    assert low.dtype == torch.bfloat16
    assert (low.float() - net(image)).abs().mean() < 0.03 * net(image).std()


def test_dropout_acts_on_the_features_of_the_decision_in_training_alone():
    net, image = patchwise(2, dropout=0.5), image_of(2)
    assert isinstance(net.body[-1], torch.nn.Dropout2d)
    assert not torch.equal(net(image), net(image))
    assert torch.equal(net.eval()(image), patchwise(2)(image))


# ---------------------------------------------------------------- config and session


@every_dims
def test_a_config_builds_it(dims):
    config = SegmentationConfig.model_validate(
        {"network": {"name": "patch_cnn", "patch": 23, "channels": [2, 3, 4], "hidden": 6, "dropout": 0.25}}
    )
    assert "does not fit 3 levels" in _refusal(config.network, dims)
    net = build_network(config.network.model_copy(update={"patch": 29}), in_channels=2, out_channels=3, dims=dims)
    assert isinstance(net, PatchwiseNet)
    assert (net.dims, net.patch, net.channels) == (dims, 29, (2, 3, 4))
    assert net.head.weight.shape[:2] == (3, 6)
    assert net.body[-1].p == 0.25


def _refusal(config: PatchCnnConfig, dims: int) -> str:
    with pytest.raises(NetworkError) as caught:
        build_network(config, in_channels=2, out_channels=3, dims=dims)
    return str(caught.value)


class Losses(Tracker):
    """Keeps the loss of every row, and the last score."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.score = 0.0

    def scalars(self, step, values, *, minutes) -> None:
        self.losses.append(values["loss"])

    def validation(self, step, metrics, *, minutes, figures=None, note="") -> None:
        self.score = metrics["score"]


def test_a_session_trains_it_and_its_run_finds_what_it_learned(tmp_path):
    root = make_balls(tmp_path / "balls")
    config = tiny(
        root,
        tmp_path,
        network={"name": "patch_cnn", "patch": 9, "channels": [6], "hidden": 12},
        patches={"dims": 2, "size": [12, 12]},
        train={"batch_size": 8, "epochs": 5, "steps_per_epoch": 8, "learning_rate": 0.01},
    )
    path = tmp_path / "config.yaml"
    path.write_text(config.model_dump_json())
    tracker = Losses()
    run = trained(load_config(path), tmp_path / "run", tracker)
    assert read_config(run).network.name == "patch_cnn"
    assert all(math.isfinite(loss) for loss in tracker.losses)
    assert tracker.losses[-1] < 0.7 * tracker.losses[0]
    assert tracker.score > 0.3  # mean Dice of shell and core in whole volumes
    probabilities = load_run(run.path, device="cpu").probabilities(read_volume(root / f"{names()[0]}.nii.gz"))
    assert probabilities.shape == (3, 16, 16, 16)
    torch.testing.assert_close(probabilities.as_tensor().sum(0), torch.ones(16, 16, 16))

"""Encoders from one network to another: bit for bit, and from 2D to 3D by inflation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_classifiers import SLIM, encoder_classifier
from small_networks import CHANNELS, ENCODERS, STRIDES, every_dims, every_encoder, every_norm, image_of, make_net

from segmed.errors import NetworkError
from segmed.networks.backbones import backbone
from segmed.networks.classifiers import Classifier
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.encoders.residual import ResidualEncoder
from segmed.networks.models import SegmentationNet
from segmed.networks.weight_transfer import adopt, inflate, move_encoder


def classifier(encoder_type, dims: int, *, seed: int = 1, channels: int = 2, strides=None, widths=CHANNELS, **options):
    torch.manual_seed(seed)
    strides = strides or STRIDES["isotropic", dims]
    return Classifier(encoder_type(channels, widths, strides, dims=dims, **options), 3)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# ---------------------------------------------------------------- the same dimensions


@every_encoder
@every_dims
@every_norm
@pytest.mark.parametrize("to_segmenter", [True, False])
def test_encoder_weights_are_bit_identical_after_the_move(encoder_type, dims, norm, to_segmenter):
    segmenter, other = make_net(encoder_type, dims, norm=norm), classifier(encoder_type, dims, norm=norm)
    source, target = (other, segmenter) if to_segmenter else (segmenter, other)
    rest = {name: tensor.clone() for name, tensor in target.state_dict().items() if not name.startswith("encoder.")}
    assert not equal(source.encoder.state_dict(), target.encoder.state_dict())
    transfer = move_encoder(source.state_dict(), target)
    assert equal(source.encoder.state_dict(), target.encoder.state_dict())
    assert set(transfer.taken) == {f"encoder.{name}" for name in target.encoder.state_dict()}
    assert (dict(transfer.left), transfer.axis) == ({}, None)
    assert set(transfer.unused) == {name for name in source.state_dict() if not name.startswith("encoder.")}
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in rest.items())


@every_encoder
@every_dims
def test_the_moved_encoder_gives_the_maps_of_its_source_and_goes_its_own_way(encoder_type, dims):
    source, target = make_net(encoder_type, dims), classifier(encoder_type, dims)
    move_encoder(source.state_dict(), target)
    image = image_of(dims)
    assert all(torch.equal(a, b) for a, b in zip(source.encoder(image), target.encoder(image), strict=True))
    with torch.no_grad():
        next(target.encoder.parameters()).zero_()
    assert not torch.equal(source.encoder(image)[0], target.encoder(image)[0])


@every_encoder
def test_other_image_channels_leave_the_weights_that_read_the_image_and_only_these(encoder_type):
    source, target = make_net(encoder_type, 3), classifier(encoder_type, 3, channels=5)
    transfer = move_encoder(source.state_dict(), target)
    reading = {
        f"encoder.{name}" for name, tensor in target.encoder.state_dict().items() if tensor.shape[1:2] == (5,)
    } & {f"encoder.{name}" for name in target.encoder.state_dict() if name.startswith("levels.0.")}
    if encoder_type is ENCODERS[2]:  # a dense layer reads the image again beside the maps made of it
        reading = {f"encoder.levels.0.{part}.conv.weight" for part in ("layers.0", "layers.1", "compress")}
    assert set(transfer.left) == reading
    assert all("there" in reason and "here" in reason for reason in transfer.left.values())
    assert all(name in str(transfer) for name in reading)


def test_a_deeper_encoder_takes_the_levels_that_there_are():
    source = make_net(PlainEncoder, 2)
    target = classifier(PlainEncoder, 2, widths=(*CHANNELS, 8), strides=(*STRIDES["isotropic", 2], (2, 2)))
    transfer = move_encoder(source.state_dict(), target)
    assert {name.split(".")[2] for name in transfer.taken} == {"0", "1", "2"}
    assert {name.split(".")[2] for name in transfer.left} == {"3"}
    assert set(transfer.left.values()) == {"not in the source"}
    back = move_encoder(target.state_dict(), make_net(PlainEncoder, 2))
    assert {name for name in back.unused if name.startswith("encoder.")} == set(transfer.left)


def test_blocks_of_another_kind_are_left_though_some_names_and_shapes_agree():
    source, target = make_net(PlainEncoder, 2), make_net(ResidualEncoder, 2)
    shared = {
        name
        for name, tensor in source.encoder.state_dict().items()
        if name in target.encoder.state_dict() and target.encoder.state_dict()[name].shape == tensor.shape
    }
    assert any("conv" in name for name in shared)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(NetworkError, match="its block is built otherwise in the source"):
        move_encoder(source.state_dict(), target)
    assert equal(before, target.state_dict())


def test_running_statistics_of_batch_normalisation_move_too():
    source, target = make_net(PlainEncoder, 2, norm="batch"), classifier(PlainEncoder, 2, norm="batch")
    source(image_of(2))
    move_encoder(source.state_dict(), target)
    moved = target.encoder.levels[0][0].norm
    assert torch.equal(moved.running_mean, source.encoder.levels[0][0].norm.running_mean)
    assert moved.running_mean.abs().sum() > 0
    assert moved.num_batches_tracked == 1


# ---------------------------------------------------------------- 2D -> 3D


@settings(max_examples=10, deadline=None)
@given(axis=st.integers(0, 2), size=st.sampled_from([1, 3, 5]), seed=st.integers(0, 99))
def test_an_inflated_kernel_gives_the_2d_response_on_a_volume_that_is_constant_along_its_axis(axis, size, seed):
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(4, 2, 3, 3, generator=generator).double()
    image = torch.randn(1, 2, 7, 6, generator=generator).double()
    shape = [4, 2, 3, 3]
    shape.insert(axis + 2, size)
    solid = inflate(kernel, torch.Size(shape), axis)
    volume = image.unsqueeze(axis + 2).repeat_interleave(size + 2, axis + 2)
    response = torch.nn.functional.conv3d(volume, solid)
    expected = torch.nn.functional.conv2d(image, kernel).unsqueeze(axis + 2).expand_as(response)
    torch.testing.assert_close(response, expected)


@every_encoder
@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("thick", [True, False])
def test_an_inflated_encoder_gives_the_2d_maps_far_from_the_ends_of_a_constant_volume(encoder_type, axis, thick):
    flat = make_net(encoder_type, 2, norm="batch")
    flat(image_of(2, size=16))
    strides = ((1, 1), (2, 2), (2, 2))
    along = (1, 1, 2) if thick else (1, 2, 2)  # thick slices: the first kernels are 1 along the axis
    solid_strides = tuple((*s[:axis], a, *s[axis:]) for s, a in zip(strides, along, strict=True))
    target = classifier(encoder_type, 3, strides=solid_strides, norm="batch")
    transfer = move_encoder(flat.state_dict(), target, axis=None if thick or axis == 2 else axis)
    assert transfer.axis == axis
    assert not transfer.left
    image = image_of(2, size=16)
    volume = image.unsqueeze(axis + 2).repeat_interleave(128, axis + 2)
    with torch.no_grad():
        maps = zip(flat.encoder.eval()(image), target.encoder.eval()(volume), strict=True)
        for plane, solid in maps:
            middle = solid.select(axis + 2, solid.shape[axis + 2] // 2)
            torch.testing.assert_close(middle, plane, rtol=1e-4, atol=1e-4)


def test_vectors_are_bit_identical_after_inflation_and_kernels_of_one_plane_too():
    flat = make_net(PlainEncoder, 2)
    target = classifier(PlainEncoder, 3, strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)))
    move_encoder(flat.state_dict(), target)
    for name, tensor in flat.encoder.state_dict().items():
        moved = target.encoder.state_dict()[name]
        if moved.ndim == 1:
            assert torch.equal(moved, tensor)
        elif moved.shape[-1] == 1:
            assert torch.equal(moved[..., 0], tensor)
        else:
            torch.testing.assert_close(moved.sum(-1), tensor)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_axis_of_thick_slices_is_found_from_the_kernels(axis):
    flat = make_net(PlainEncoder, 2)
    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
    strides[1][axis] = 1
    target = classifier(PlainEncoder, 3, strides=strides)
    transfer = move_encoder(flat.state_dict(), target)
    assert (transfer.axis, dict(transfer.left)) == (axis, {})
    assert f"repeated along {'XYZ'[axis]}" in str(transfer)


def test_a_2d_segmenter_starts_a_3d_segmenter():
    target = make_net(ENCODERS[1], 3)
    transfer = move_encoder(make_net(ENCODERS[1], 2).state_dict(), target)
    assert not transfer.left
    assert isinstance(target, SegmentationNet)
    assert target(image_of(3)).isfinite().all()


# ---------------------------------------------------------------- faults


def other_architecture() -> dict[str, torch.Tensor]:
    return backbone("resnet", in_channels=1, classes=2, dims=2, **SLIM).state_dict()


def broken() -> dict[str, torch.Tensor]:
    weights = make_net(PlainEncoder, 2).state_dict()
    weights["encoder.levels.0.0.conv.weight"][0, 0] = float("nan")
    return weights


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (other_architecture, lambda: make_net(PlainEncoder, 2), r"no encoder \(they begin with body.conv1"),
        (dict, lambda: make_net(PlainEncoder, 2), r"no encoder \(they begin with nothing\)"),
        (lambda: make_net(PlainEncoder, 3).state_dict(), lambda: make_net(PlainEncoder, 2), "no kernel fits"),
        (broken, lambda: make_net(PlainEncoder, 2), "conv.weight are not finite: take those of another epoch"),
        (broken, lambda: torch.nn.Linear(2, 2), "Linear has no encoder"),
        (
            lambda: classifier(PlainEncoder, 2, widths=(5, 7, 9)).state_dict(),
            lambda: make_net(PlainEncoder, 2),
            r"no kernel fits .*shape \(5, 2, 3, 3\) there, \(4, 2, 3, 3\) here",
        ),
    ],
)
def test_a_move_that_can_not_be_made_says_why_and_changes_nothing(source, target, message):
    network, weights = target(), source()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(NetworkError, match=message) as caught:
        move_encoder(weights, network)
    assert "\n" not in str(caught.value)
    assert equal(before, network.state_dict())


def test_an_axis_that_a_volume_does_not_have_is_refused():
    with pytest.raises(NetworkError, match="along axis 3: choose 0, 1 or 2"):
        move_encoder(make_net(PlainEncoder, 2).state_dict(), make_net(PlainEncoder, 3), axis=3)


def test_no_other_way_from_colours_is_known():
    model = encoder_classifier(PlainEncoder, 2)
    with pytest.raises(NetworkError, match="no way 'median' from colours"):
        adopt(model.state_dict(), model, grey="median")

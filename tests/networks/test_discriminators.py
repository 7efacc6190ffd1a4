"""Discriminators: what they see, what they give, and what spectral normalisation holds them to."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_discriminators import (
    CLASSES,
    every_kind,
    every_network,
    every_spacing,
    make,
    make_critic,
    make_encoder,
    maps_of,
)
from small_networks import CHANNELS, every_dims, every_encoder, image_of
from torch import nn

from segmed.errors import NetworkError
from segmed.networks.blocks import SLOPE, ConvBlock, activation, normalisation
from segmed.networks.discriminators import (
    ImageDiscriminator,
    MultiScaleCritic,
    PatchDiscriminator,
    PixelDiscriminator,
    check_depth,
    fitting_depth,
    receptive_field,
)
from segmed.networks.encoders.convnext import ConvNextEncoder
from segmed.networks.encoders.dense import DenseEncoder
from segmed.networks.encoders.mednext import MedNextEncoder
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.encoders.residual import ResidualEncoder
from segmed.networks.models import SegmentationNet


def seen_by_one(discriminator, size):
    """Voxels of the maps, (*spatial) of bool, that the decision in the middle depends on."""
    image = image_of(discriminator.dims, batch=1, channels=discriminator.image_channels, size=size).double()
    maps = maps_of(discriminator.dims, batch=1, size=size).double().requires_grad_()
    decision = discriminator.double()(image, maps).decision
    middle = [n // 2 for n in decision.shape[2:]]
    decision[(0, 0, *middle)].backward()
    return maps.grad[0].abs().sum(dim=0) > 0


def extent(seen):
    """Voxels from the first to the last seen one, along each axis."""
    return tuple(int(places.max() - places.min()) + 1 for places in seen.nonzero().unbind(dim=1))


# what they give


@every_network
@every_dims
@every_spacing
def test_decisions_have_the_shape_of_their_kind_at_odd_sizes(kind, encoder_type, dims, spacing):
    size = (9, 14, 11)[:dims]
    coarsest = {
        ("isotropic", 2): (3, 4),
        ("isotropic", 3): (3, 4, 3),
        ("anisotropic", 2): (3, 7),
        ("anisotropic", 3): (3, 7, 6),
    }[spacing, dims]
    options = {} if kind == "pixel" else {"spacing": spacing}
    discriminator = make(kind, dims, encoder_type, **options)
    decision, features = discriminator(torch.randn(2, 2, *size), torch.rand(2, CLASSES, *size))
    assert decision.shape == (2, 1, *{"pixel": size, "patch": coarsest, "image": (1,) * dims}[kind])
    if kind == "pixel":
        assert [f.shape for f in features] == [(2, 4, *size), (2, 6, *size)]
    else:
        assert [f.shape[1] for f in features] == list(CHANNELS)
        assert features[0].shape[2:] == size
        assert features[-1].shape[2:] == coarsest


@every_dims
def test_an_image_decision_is_the_linear_layer_of_the_mean_feature(dims):
    discriminator = make("image", dims).eval()
    decision, features = discriminator(image_of(dims), maps_of(dims))
    mean = features[-1].mean(dim=tuple(range(2, dims + 2)))
    by_hand = mean @ discriminator.head.weight[0] + discriminator.head.bias
    torch.testing.assert_close(decision.flatten(), by_hand)


@every_kind
@every_dims
def test_images_of_a_batch_are_judged_apart(kind, dims):
    discriminator = make(kind, dims).eval()
    image, maps = image_of(dims), maps_of(dims)
    both = discriminator(image, maps).decision
    torch.testing.assert_close(both[1:], discriminator(image[1:], maps[1:]).decision)


# what they see


@pytest.mark.parametrize(
    ("encoder_type", "field"),
    [
        (PlainEncoder, 1 + 2 + 2 + 4),  # 3 x 3 at steps of 1, 1 and 2 voxels
        (ResidualEncoder, 1 + (2 + 2) + (2 + 4) + (4 + 8)),  # two convolutions a block, the second after the stride
        (ConvNextEncoder, 1 + 2 + 6 + (1 + 2 * 6) + (2 + 4 * 6)),  # 3 x 3 or 2 x 2 merged, then 7 x 7
        (MedNextEncoder, 1 + 2 + (2 + 4) + (4 + 8)),  # 1 x 1 or a strided 3 x 3, then 3 x 3
        (DenseEncoder, 1 + 2 + (1 + 4) + (2 + 8)),  # 2 x 2 merged at steps of 1 and 2, 3 x 3 after each
    ],
)
@every_dims
def test_receptive_field_by_hand(encoder_type, field, dims):
    assert receptive_field(make_encoder(2, dims, encoder_type, spacing="isotropic")) == (field,) * dims


def test_receptive_field_is_a_slice_where_kernels_are_1_across_thick_slices():
    encoder = PlainEncoder(4, (4, 6), ((1, 1, 1), (2, 2, 1)), dims=3, blocks=1, norm="none")
    assert receptive_field(encoder) == (5, 5, 3)  # the finest level has 3 x 3 x 1
    assert extent(seen_by_one(PatchDiscriminator(encoder, classes=CLASSES), 12)) == (5, 5, 3)


@every_encoder
@every_spacing
@pytest.mark.parametrize(
    ("dims", "blocks", "spectral_norm"), [(2, 1, True), (2, 1, False), (2, 2, False), (3, 1, True)]
)
def test_one_patch_decision_sees_exactly_the_stated_field(encoder_type, spacing, dims, blocks, spectral_norm):
    discriminator = make("patch", dims, encoder_type, spacing=spacing, blocks=blocks, spectral_norm=spectral_norm)
    size = 8 * math.ceil((max(discriminator.receptive_field) + 8) / 8)
    seen = seen_by_one(discriminator, size)
    assert extent(seen) == discriminator.receptive_field
    assert seen.sum() == math.prod(discriminator.receptive_field)


@pytest.mark.parametrize("strides", [((2, 2),) * 3, ((3, 1), (1, 2)), ((4, 4),), ((1, 1), (1, 3))])
@every_encoder
def test_the_field_holds_for_strides_of_any_width_and_from_the_first_level_on(encoder_type, strides):
    torch.manual_seed(0)
    encoder = encoder_type(5, CHANNELS[: len(strides)], strides, dims=2, blocks=2, norm="none")
    discriminator = PatchDiscriminator(encoder, classes=CLASSES)
    size = 24 * math.ceil((max(discriminator.receptive_field) + 24) / 24)
    assert extent(seen_by_one(discriminator, size)) == discriminator.receptive_field


@every_dims
def test_instance_normalisation_lets_the_whole_map_through(dims):
    discriminator = make("patch", dims, norm="instance")
    assert extent(seen_by_one(discriminator, 24)) == (24,) * dims
    assert max(discriminator.receptive_field) < 24


@every_dims
def test_a_pixel_decision_depends_on_one_voxel_alone(dims):
    discriminator = make("pixel", dims)
    assert discriminator.receptive_field == (1,) * dims
    seen = seen_by_one(discriminator, 8)
    assert seen.nonzero().tolist() == [[4] * dims]


@every_encoder
@every_dims
def test_an_image_decision_depends_on_every_voxel(encoder_type, dims):
    discriminator = make("image", dims, encoder_type)
    assert discriminator.receptive_field is None
    assert seen_by_one(discriminator, 13).all()


@every_kind
@every_dims
def test_an_unconditional_discriminator_ignores_the_image(kind, dims):
    discriminator = make(kind, dims, image_channels=0).eval()
    assert not discriminator.conditional
    assert discriminator.image_channels == 0
    image, maps = image_of(dims), maps_of(dims)
    decision = discriminator(image, maps).decision
    assert torch.equal(discriminator(image.flip(2) * 3, maps).decision, decision)
    assert torch.equal(discriminator(torch.zeros(1), maps).decision, decision)
    assert not torch.allclose(discriminator(image, maps.flip(2)).decision, decision)


@every_kind
@every_dims
def test_a_conditional_discriminator_depends_on_image_and_maps(kind, dims):
    discriminator = make(kind, dims).eval()
    assert discriminator.conditional
    assert discriminator.image_channels == 2
    image, maps = image_of(dims), maps_of(dims)
    decision = discriminator(image, maps).decision
    assert not torch.allclose(discriminator(image.flip(2), maps).decision, decision)
    assert not torch.allclose(discriminator(image, maps.flip(2)).decision, decision)


@every_network
@every_dims
def test_gradients_reach_every_map_and_every_weight(kind, encoder_type, dims):
    discriminator = make(kind, dims, encoder_type)
    maps = maps_of(dims).requires_grad_()
    discriminator(image_of(dims), maps).decision.square().mean().backward()
    assert (maps.grad.flatten(2).abs().amax(dim=2) > 0).all()
    assert all(p.grad.abs().max() > 0 for p in discriminator.parameters())


# SegAN's critic


@every_dims
def test_the_critic_compares_the_image_masked_by_each_label_without_background(dims):
    image, maps = image_of(dims), maps_of(dims)
    product, *features = make_critic(dims)(image, maps)
    by_hand = [maps[:, label] * image[:, channel] for label in (1, 2) for channel in (0, 1)]
    assert torch.equal(product, torch.stack(by_hand, dim=1))
    assert [f.shape[1] for f in features] == list(CHANNELS)
    assert features[0].shape[2:] == image.shape[2:]


@every_encoder
@every_dims
def test_the_critic_s_features_are_those_of_its_encoder(encoder_type, dims):
    critic = make_critic(dims, encoder_type).eval()
    product, *features = critic(image_of(dims), maps_of(dims))
    assert all(torch.equal(a, b) for a, b in zip(features, critic.encoder(product), strict=True))


@every_dims
def test_the_critic_is_blind_where_no_label_is(dims):
    critic = make_critic(dims).eval()
    maps = torch.zeros(2, CLASSES, *[8] * dims)
    maps[:, 0] = 1
    first, second = critic(image_of(dims), maps), critic(image_of(dims, seed=5), maps)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# depth


@pytest.mark.parametrize(
    ("size", "strides", "depth"),
    [
        ((32, 32, 8), ((2, 2, 2),) * 6, 2),  # 16 16 4, 8 8 2, 4 4 1
        ((32, 32, 8), ((1, 1, 1), *((2, 2, 2),) * 5), 3),
        ((32, 32, 8), ((2, 2, 1),) * 6, 4),
        ((33, 33, 9), ((2, 2, 2),) * 6, 3),  # 17 17 5, 9 9 3, 5 5 2
        ((32, 32, 1), ((2, 2, 1),) * 2, 2),  # one slice is not strided
        ((3, 3), ((2, 2), (1, 1), (2, 2)), 2),
        ((4, 4), ((4, 4),), 0),
    ],
)
def test_depth_that_fits_by_hand(size, strides, depth):
    assert fitting_depth(size, strides) == depth


@given(
    st.integers(2, 3).flatmap(
        lambda d: st.tuples(
            st.tuples(*[st.integers(1, 40)] * d),
            st.lists(st.tuples(*[st.integers(1, 3)] * d), min_size=1, max_size=6),
        )
    )
)
def test_what_fits_keeps_2_voxels_and_one_level_more_does_not(drawn):
    size, strides = drawn
    depth = fitting_depth(size, strides)

    def smallest(levels):
        """Of the axes that the last of these levels strides."""
        now = list(size)
        for stride in strides[:levels]:
            now = [math.ceil(n / s) for n, s in zip(now, stride, strict=True)]
        return min((n for n, s in zip(now, strides[levels - 1], strict=True) if s > 1), default=math.inf)

    assert all(smallest(levels) >= 2 for levels in range(1, depth + 1))
    assert depth == len(strides) or smallest(depth + 1) < 2
    if depth < len(strides):
        with pytest.raises(NetworkError, match="too deep"):
            check_depth(size, strides, where="adversary")
    else:
        assert check_depth(size, strides, where="adversary") is None


# without normalisation


@every_dims
def test_norm_none_is_a_block_of_convolution_bias_and_leaky_relu(dims):
    assert isinstance(normalisation("none", 4, dims), nn.Identity)
    block = ConvBlock(2, 4, (3,) * dims, (1,) * dims, norm="none")
    with torch.no_grad():
        block.conv.weight.zero_()
        block.conv.bias.copy_(torch.tensor([1.0, -1.0, 0.0, 2.0]))
    features = block(image_of(dims))
    assert torch.equal(features.amax(dim=tuple(range(2, dims + 2)))[0], torch.tensor([1.0, -SLOPE, 0.0, 2.0]))
    assert ConvBlock(2, 4, (3,) * dims, (1,) * dims, norm="instance").conv.bias is None


@every_encoder
@every_dims
def test_an_encoder_without_normalisation_scales_with_its_image_where_biases_are_0(encoder_type, dims):
    torch.manual_seed(0)
    encoder = make_encoder(2, dims, encoder_type, blocks=2)
    for block in encoder.modules():
        if isinstance(getattr(block, "act", None), nn.GELU):
            block.act = activation()  # which scales with what it is given, as GELU does not
    image = image_of(dims)
    for once, doubled in zip(encoder(image), encoder(2 * image), strict=True):
        assert torch.equal(doubled, 2 * once)
    assert not [name for name, _ in encoder.named_parameters() if "norm" in name]
    unbiased = [n for n, m in encoder.named_modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)) and m.bias is None]
    assert all("shortcut" in name for name in unbiased)  # beside a convolution that has one
    assert SegmentationNet(encoder, CLASSES)(image).shape == (2, CLASSES, *[8] * dims)


# bad input

ONE_LINE = {
    "fewer channels than classes": (
        lambda: PatchDiscriminator(make_encoder(2, 2), classes=3),
        "a discriminator of 2 channels can't see 3 classes: give image channels + classes, or 3 where it judges the "
        "maps alone",
    ),
    "pixel with fewer channels": (
        lambda: PixelDiscriminator(2, (4,), classes=3, dims=2),
        "a discriminator of 2 channels can't see 3 classes",
    ),
    "one class": (
        lambda: ImageDiscriminator(make_encoder(2, 2), classes=1),
        "1 classes: give at least 2, background included",
    ),
    "critic of one class": (
        lambda: MultiScaleCritic(make_encoder(2, 2), image_channels=2, classes=1),
        "1 classes: give at least 2, background included",
    ),
    "critic of other channels": (
        lambda: MultiScaleCritic(make_encoder(3, 2), image_channels=1, classes=3),
        "a critic of 3 channels does not fit: 1 image channels x 2 labels without background make 2",
    ),
    "pixel of no block": (lambda: PixelDiscriminator(5, (), classes=3, dims=2), "0 channels and 0 strides"),
    "pixel of 4 dimensions": (lambda: PixelDiscriminator(5, (4,), classes=3, dims=4), "2 or 3 dimensions, not 4"),
    "unknown norm": (
        lambda: PixelDiscriminator(5, (4,), classes=3, dims=2, norm="layer"),
        "no normalisation 'layer': choose instance, batch, group or none",
    ),
    "checkpointing": (
        lambda: PatchDiscriminator(make_encoder(5, 2, checkpointing=True), classes=3),
        "spectral normalisation and checkpointing do not go together: switch one of them off",
    ),
    "maps of other classes": (
        lambda: make("patch", 2)(image_of(2), image_of(2)),
        "maps: shape (2, 2, 8, 8) does not fit, give (B, 3, X, Y)",
    ),
    "maps of other dimensions": (
        lambda: make("image", 3)(image_of(3), maps_of(2)),
        "maps: shape (2, 3, 8, 8) does not fit, give (B, 3, X, Y, Z)",
    ),
    "image of other channels": (
        lambda: make("pixel", 2)(maps_of(2), maps_of(2)),
        "image: shape (2, 3, 8, 8) does not fit, give (B, 2, X, Y)",
    ),
    "image of another size": (
        lambda: make("patch", 2)(image_of(2, size=6), maps_of(2)),
        "image of shape (2, 2, 6, 6) and maps of shape (2, 3, 8, 8) differ in batch or size: give both on one grid",
    ),
    "image of another batch": (
        lambda: make("pixel", 2)(image_of(2, batch=1), maps_of(2)),
        "image of shape (1, 2, 8, 8) and maps of shape (2, 3, 8, 8) differ in batch or size",
    ),
    "critic's image of another size": (
        lambda: make_critic(2)(image_of(2, size=6), maps_of(2)),
        "image of shape (2, 2, 6, 6) and maps of shape (2, 3, 8, 8) differ in batch or size",
    ),
    "critic's maps": (
        lambda: make_critic(2)(image_of(2), image_of(2)),
        "maps: shape (2, 2, 8, 8) does not fit, give (B, 3, X, Y)",
    ),
    "one voxel to normalise": (
        lambda: make("patch", 2, norm="instance", spacing="isotropic")(image_of(2, size=4), maps_of(2, size=4)),
        "maps of size (4, 4) leave 1 voxel at the coarsest of 3 levels, too few to be normalised: give larger patches, "
        "fewer levels or norm none",
    ),
    "too deep": (
        lambda: check_depth((32, 32, 8), ((1, 1, 1), *((2, 2, 2),) * 5), where="adversary.discriminator"),
        "adversary.discriminator has 6 levels, too deep for a patch of 32 x 32 x 8: at most 3 levels fit; "
        "give 3 channels and strides, or larger patches",
    ),
    "too deep by all but one": (
        lambda: check_depth((4, 4), ((2, 2), (2, 2)), where="critic"),
        "critic has 2 levels, too deep for a patch of 4 x 4: at most 1 level fits; "
        "give 1 channel and stride, or larger patches",
    ),
    "too deep by all": (
        lambda: check_depth((4, 4), ((4, 4),), where="critic"),
        "critic has 1 level, too deep for a patch of 4 x 4: no level fits; give smaller strides, or larger patches",
    ),
}


@pytest.mark.parametrize("case", ONE_LINE)
def test_bad_input_is_told_in_one_line(case):
    wrong, message = ONE_LINE[case]
    with pytest.raises(NetworkError, match=re.escape(message)) as told:
        wrong()
    assert "\n" not in str(told.value)

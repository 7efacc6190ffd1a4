"""Networks: what every encoder, decoder and composition promises."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import (
    CHANNELS,
    ENCODERS,
    LAYOUTS,
    NORMS,
    STRIDES,
    every_dims,
    every_encoder,
    every_norm,
    every_stride,
    gradients,
    image_of,
    make_net,
)

from segmed.config import SegmentationConfig
from segmed.errors import NetworkError
from segmed.networks.blocks import CONVOLUTIONS, SLOPE, Merge, convolution, kernels_for, normalisation
from segmed.networks.decoders import UNetDecoder
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.models import SegmentationNet

# ---------------------------------------------------------------- the contract of all encoders


@every_encoder
@every_dims
@every_stride
@every_norm
def test_an_encoder_delivers_what_it_declares(encoder_type, dims, kind, norm):
    encoder = encoder_type(2, CHANNELS, STRIDES[kind, dims], dims=dims, norm=norm)
    for size in (8, 11):
        sizes = [size] * dims
        features = encoder(image_of(dims, size=size))
        assert len(features) == len(encoder.channels)
        for maps, channels, stride in zip(features, encoder.channels, encoder.strides, strict=True):
            sizes = [math.ceil(n / s) for n, s in zip(sizes, stride, strict=True)]
            assert maps.shape == (2, channels, *sizes)


@every_encoder
@every_dims
@every_stride
@every_norm
def test_gradients_reach_every_parameter(encoder_type, dims, kind, norm):
    net = make_net(encoder_type, dims, kind, norm=norm)
    for name, gradient in gradients(net, image_of(dims)).items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 1e-6, name


@every_encoder
@every_dims
@every_stride
@every_norm
def test_weights_make_the_round_trip_through_a_state_dict(encoder_type, dims, kind, norm):
    net = make_net(encoder_type, dims, kind, norm=norm)
    net.all_logits(image_of(dims))  # moves the running statistics of batch normalisation
    torch.manual_seed(1)
    other = SegmentationNet(encoder_type(2, CHANNELS, STRIDES[kind, dims], dims=dims, norm=norm), 3)
    image = image_of(dims, seed=2)
    assert not torch.equal(other.eval()(image), net.eval()(image))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(image), net(image))


@every_encoder
@every_dims
@every_stride
@every_norm
def test_bf16_autocast_gives_nearly_the_same_logits(encoder_type, dims, kind, norm):
    net = make_net(encoder_type, dims, kind, norm=norm)
    image = image_of(dims, size=16)
    with torch.autocast("cpu", torch.bfloat16):
        low = net.all_logits(image)
    for rounded, exact in zip(low, net.all_logits(image), strict=True):
        assert rounded.dtype == torch.bfloat16
        assert (rounded.float() - exact).abs().mean() < 0.03 * exact.std()


@every_encoder
@every_dims
@every_stride
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_training_and_evaluation_agree_and_images_of_a_batch_are_apart(encoder_type, dims, kind, norm):
    net = make_net(encoder_type, dims, kind, norm=norm)
    image = image_of(dims)
    trained = net.train()(image)
    assert torch.equal(net.eval()(image), trained)
    other = torch.stack([image[0], 5 * image[1].flip(1)])
    torch.testing.assert_close(net(other)[0], trained[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net(other)[1], trained[1], atol=0.1)


@every_encoder
@every_dims
def test_batch_normalisation_uses_its_running_statistics_in_evaluation(encoder_type, dims):
    net = make_net(encoder_type, dims, norm="batch")
    for step in range(60):
        net(image_of(dims, batch=4, seed=step))
    net.eval()
    image = image_of(dims, seed=100)
    torch.testing.assert_close(net(image)[:1], net(image[:1]), rtol=1e-4, atol=1e-4)
    assert (net(image) - net.train()(image)).abs().mean() < 0.5 * net(image).std()


@every_encoder
@every_dims
@every_norm
def test_channels_last_changes_the_layout_and_not_the_values(encoder_type, dims, norm):
    net = make_net(encoder_type, dims, norm=norm).double()
    image = image_of(dims).double()
    expected, expected_gradients = net(image), gradients(net, image)
    last = copy.deepcopy(net).to(memory_format=LAYOUTS[dims])
    image = image.contiguous(memory_format=LAYOUTS[dims])
    torch.testing.assert_close(last(image), expected)
    for name, gradient in gradients(last, image).items():
        torch.testing.assert_close(gradient, expected_gradients[name])
    with torch.autocast("cpu", torch.bfloat16):
        features = last.float().encoder(image.float())
    assert all(maps.is_contiguous(memory_format=LAYOUTS[dims]) for maps in features)


@every_encoder
@every_norm
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_gives_the_same_values_gradients_and_statistics(encoder_type, norm, dropout):
    plain = make_net(encoder_type, norm=norm, dropout=dropout)
    saving = make_net(encoder_type, norm=norm, dropout=dropout, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    results = []
    for net in (plain, saving):
        torch.manual_seed(5)
        results.append((gradients(net, image_of(3)), {name: tensor.clone() for name, tensor in net.named_buffers()}))
    for one, other in zip(*results, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], msg=name)
    assert [norm.momentum for norm in saving.modules() if hasattr(norm, "momentum")] == [
        norm.momentum for norm in plain.modules() if hasattr(norm, "momentum")
    ]


@every_encoder
def test_deep_dropout_is_in_the_two_coarsest_levels_alone(encoder_type):
    encoder = encoder_type(1, (4, 8, 8, 8), ((1, 1), (2, 2), (2, 2), (2, 2)), dims=2, deep_dropout=0.5)
    lost = [[m.p for m in level.modules() if isinstance(m, torch.nn.Dropout2d)] for level in encoder.levels]
    assert not lost[0]
    assert not lost[1]
    assert set(lost[2]) == set(lost[3]) == {0.5}
    assert encoder.dropout == 0.0


@every_encoder
def test_dropout_acts_in_training_and_drops_whole_maps(encoder_type):
    net = make_net(encoder_type, dropout=0.5)
    image = image_of(3)
    assert not torch.equal(net(image), net(image))
    net.eval()
    assert torch.equal(net(image), net(image))
    drop = next(m for m in net.modules() if isinstance(m, torch.nn.Dropout3d)).train()
    maps = drop(torch.ones(1, 64, 4, 4, 4)).flatten(2)[0]
    assert {tuple(one.unique().tolist()) for one in maps} == {(0.0,), (2.0,)}


@every_encoder
@every_dims
def test_one_level_is_enough(encoder_type, dims):
    net = SegmentationNet(encoder_type(2, (4,), ((1,) * dims,), dims=dims), 3)
    assert net.divisor == (1,) * dims
    assert [logits.shape for logits in net.all_logits(image_of(dims, size=5))] == [(2, 3, *[5] * dims)]


@every_encoder
def test_a_first_stride_still_gives_logits_at_the_size_of_the_image(encoder_type):
    net = SegmentationNet(encoder_type(2, (4, 6), ((2, 4), (2, 2)), dims=2), 3)
    assert net.divisor == (4, 8)
    image = image_of(2, size=16)
    assert net(image).shape == (2, 3, 16, 16)
    assert torch.equal(net.all_logits(image)[0], net(image))


@every_encoder
def test_a_gradient_penalty_can_be_taken_through_an_encoder(encoder_type):
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        encoder = encoder_type(2, (4, 6), STRIDES["isotropic", 3][:2], dims=3).to(memory_format=layout)
        image = image_of(3).contiguous(memory_format=layout).requires_grad_()
        (slope,) = torch.autograd.grad((encoder(image)[-1] ** 3).sum(), image, create_graph=True)
        slope.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@every_encoder
def test_an_encoder_draws_its_weights_as_he_et_al(encoder_type):
    torch.manual_seed(0)
    encoder = encoder_type(1, (32, 64), STRIDES["isotropic", 3][:2], dims=3)
    convolutions = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv3d) and m.weight.numel() > 5000]
    assert convolutions
    for layer in convolutions:
        expected = math.sqrt(2 / ((1 + SLOPE**2) * layer.weight[0].numel()))
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)


def test_thick_slices_are_not_mixed_before_a_stride_reaches_their_axis():
    strides = ((1, 1, 1), (2, 2, 1), (2, 2, 2))
    encoder = PlainEncoder(1, (4, 4, 4), strides, dims=3, norm="batch").eval()
    image = image_of(3, batch=1, channels=1)
    changed = image.clone()
    changed[..., 3] += 1
    before, after = encoder(image), encoder(changed)
    slices = [(a != b).any(dim=(0, 1, 2, 3)).tolist() for a, b in zip(before, after, strict=True)]
    assert slices[0] == [n == 3 for n in range(8)]  # a kernel of 1 across slices
    assert sum(slices[1]) == 5  # its two kernels of 3, once the next level halves that axis
    assert all(slices[2])


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize(
    ("strides", "kernels"),
    [
        (((1, 1, 1),), ((3, 3, 3),)),
        (((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (3, 3, 3))),
        # spacing 1.5 x 1.5 x 10 mm, as nnU-Net plans it
        (((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2)), ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3))),
        # an axis that was halved and is then too short keeps its 3
        (((1, 1, 1), (2, 2, 2), (2, 2, 1), (2, 2, 1)), ((3, 3, 3),) * 4),
        (((1, 1), (1, 2), (2, 2)), ((1, 3), (3, 3), (3, 3))),
        (((2, 1), (2, 1)), ((3, 1), (3, 3))),
    ],
)
def test_kernels_follow_from_strides(strides, kernels):
    assert kernels_for(strides) == kernels


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 40), stride=st.integers(1, 5), kernel=st.sampled_from([1, 3]))
def test_a_convolution_and_a_merge_deliver_one_voxel_a_step_and_see_them_all(size, stride, kernel):
    for layer in (convolution(1, 1, (kernel, 1), (stride, 1), bias=False), Merge(1, 1, (stride, 1))):
        torch.nn.init.ones_(next(layer.parameters()))
        image = torch.ones(1, 1, size, 2, requires_grad=True)
        result = layer(image)
        assert result.shape == (1, 1, math.ceil(size / stride), 2)
        result.sum().backward()
        assert image.grad is not None
        assert (image.grad > 0).all()


@every_dims
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_instance_normalisation_gives_mean_0_and_sd_1_in_both_layouts(dims, precision):
    norm = normalisation("instance", 3, dims)
    maps = (image_of(dims, channels=3, size=12) * 4 + 7).to(precision)
    for layout in (torch.contiguous_format, LAYOUTS[dims]):
        normal = norm(maps.contiguous(memory_format=layout))
        assert normal.is_contiguous(memory_format=layout)
        axes = tuple(range(2, dims + 2))
        torch.testing.assert_close(normal.float().mean(axes), torch.zeros(2, 3), atol=0.01, rtol=0)
        torch.testing.assert_close(normal.float().std(axes, correction=0), torch.ones(2, 3), atol=0.01, rtol=0)


# ---------------------------------------------------------------- decoder and composition


@every_dims
@every_stride
@pytest.mark.parametrize("upsampling", ["transposed", "interpolate"])
def test_a_decoder_mirrors_its_encoder(dims, kind, upsampling):
    encoder = PlainEncoder(2, CHANNELS, STRIDES[kind, dims], dims=dims)
    decoder = UNetDecoder(encoder.channels, encoder.strides, dims=dims, upsampling=upsampling)
    features = encoder(image_of(dims))
    decoded = decoder(features)
    assert [maps.shape for maps in decoded] == [maps.shape for maps in features[:-1]]


def test_interpolation_reaches_every_parameter_and_stays_in_bf16():
    net = make_net(upsampling="interpolate")
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients(net, image_of(3)).values())
    with torch.autocast("cpu", torch.bfloat16):
        decoded = net.decode(image_of(3))
    assert {maps.dtype for maps in decoded} == {torch.bfloat16}


@every_dims
def test_the_first_of_all_logits_is_what_forward_gives(dims):
    net = SegmentationNet(PlainEncoder(2, (4, 4, 4, 4), ((1,) * dims, *[(2,) * dims] * 3), dims=dims), 3)
    image = image_of(dims, size=16)
    logits = net.all_logits(image)
    assert torch.equal(logits[0], net(image))
    assert [level.shape[2] for level in logits] == [16, 8]
    assert net.supervised_levels == 2


def test_without_deep_supervision_there_is_one_head():
    net = make_net(deep_supervision=False)
    assert net.supervised_levels == len(net.heads) == len(net.all_logits(image_of(3))) == 1


@settings(max_examples=30, deadline=None)
@given(size=st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_a_size_fits_if_and_only_if_it_is_a_multiple_of_the_divisor(size):
    net = make_net(dims=2, kind="anisotropic", norm="group")
    assert net.divisor == (4, 2)
    image = torch.zeros(1, 2, *size)
    if all(n % d == 0 for n, d in zip(size, net.divisor, strict=True)):
        assert net(image).shape == (1, 3, *size)
    else:
        fitting = tuple(math.ceil(n / d) * d for n, d in zip(size, net.divisor, strict=True))
        with pytest.raises(NetworkError, match=r"multiples of \(4, 2\), such as ") as caught:
            net(image)
        assert str(fitting) in str(caught.value)
        assert net(torch.zeros(1, 2, *fitting)).shape == (1, 3, *fitting)


def test_one_voxel_at_the_coarsest_level_is_refused_with_a_size_that_fits():
    net = make_net()
    with pytest.raises(NetworkError, match=r"leaves 1 voxel at the coarsest level.*\(4, 4, 8\)"):
        net(image_of(3, size=4))
    assert net(torch.randn(1, 2, 4, 4, 8)).isfinite().all()


@every_encoder
@pytest.mark.parametrize("upsampling", ["transposed", "interpolate"])
def test_a_small_network_learns_to_find_an_edge(encoder_type, upsampling):
    torch.manual_seed(0)
    net = SegmentationNet(encoder_type(1, (6, 8), ((1, 1), (2, 2)), dims=2), 2, upsampling=upsampling)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)

    def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = image_of(2, batch=4, channels=1, size=16, seed=seed)
        return image, (image[:, 0] > image[:, 0].roll(1, dims=1)).long()

    for step in range(80):
        image, labels = batch(step)
        loss = torch.nn.functional.cross_entropy(net(image), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    image, labels = batch(1000)
    right = (net(image).argmax(1) == labels).float().mean()
    assert right > 0.9


# ---------------------------------------------------------------- faults of ours


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PlainEncoder(1, (), (), dims=3), "0 channels and 0 strides"),
        (lambda: PlainEncoder(1, (4, 8), ((1, 1),), dims=2), "2 channels and 1 strides"),
        (lambda: PlainEncoder(1, (4,), ((1, 1, 1),), dims=2), r"stride \(1, 1, 1\)"),
        (lambda: PlainEncoder(1, (4,), ((0, 1),), dims=2), r"stride \(0, 1\)"),
        (lambda: PlainEncoder(1, (0,), ((1, 1),), dims=2), "at least 1"),
        (lambda: PlainEncoder(1, (4,), ((1,),), dims=1), "2 or 3 dimensions, not 1"),
        (lambda: PlainEncoder(0, (4,), ((1, 1),), dims=2), "image of 0 channels"),
        (lambda: PlainEncoder(1, (4,), ((1, 1),), dims=2, blocks=0), "0 blocks"),
        (lambda: PlainEncoder(1, (4,), ((1, 1),), dims=2, norm="layer"), "no normalisation 'layer'"),
        (lambda: make_net(upsampling="nearest"), "no upsampling 'nearest'"),
        (lambda: SegmentationNet(PlainEncoder(1, (4,), ((1, 1),), dims=2), 1), "1 classes"),
        (lambda: make_net(dims=3)(torch.zeros(1, 1, 8, 8, 8)), r"give \(B, 2, X, Y, Z\)"),
        (lambda: make_net(dims=2)(torch.zeros(1, 2, 8, 8, 8)), r"give \(B, 2, X, Y\)"),
        (lambda: make_net(dims=2).encoder(torch.zeros(1, 3, 8, 8)), r"takes \(B, 2, X, Y\)"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(build, message):
    with pytest.raises(NetworkError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_every_encoder_and_option_of_the_schema_exists():
    for encoder in ENCODERS:
        name = encoder.__name__.removesuffix("Encoder").lower()
        for norm in NORMS:
            for upsampling in ("transposed", "interpolate"):
                fields = {"name": "unet", "encoder": {"name": name, "norm": norm}, "upsampling": upsampling}
                section = SegmentationConfig.model_validate({"network": fields}).network
                net = make_net(
                    encoder, norm=section.encoder.norm, upsampling=section.upsampling, blocks=section.encoder.blocks
                )
                assert net(image_of(3)).shape == (2, 3, 8, 8, 8)


@pytest.mark.parametrize("size", [(2, 8, 8), (8, 2, 8), (8, 8, 2), (2, 2, 2), (3, 8, 8)])
def test_weight_gradients_under_bf16_are_those_of_fp32_on_maps_of_two_voxels_too(size):
    torch.manual_seed(0)
    conv = CONVOLUTIONS[3](16, 16, 3, padding=1)
    image = torch.randn(2, 16, *size)
    gradients = []
    for enabled in (False, True):
        conv.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            conv(image).float().sum().backward()
        gradients.append(conv.weight.grad.clone())
    assert (gradients[1] - gradients[0]).norm() < 0.01 * gradients[0].norm()

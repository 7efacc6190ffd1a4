"""MedNeXt: its published size, its blocks and its decoder."""

import pytest
import torch
from small_networks import CHANNELS, LAYOUTS, STRIDES, every_dims, image_of, make_net
from torch import nn

from segmed.networks.blocks import normalisation
from segmed.networks.decoders import Interpolate
from segmed.networks.encoders.convnext import ConvNextEncoder
from segmed.networks.encoders.mednext import MedNextBlock, MedNextDecoder, MedNextEncoder, MedNextStart, MedNextUpBlock
from segmed.networks.models import SegmentationNet


def test_mednext_s_has_as_many_parameters_as_published():
    """Source: Roy et al. 2023: 5.6 million with kernels of 3; ours have no bias before a normalisation."""
    with torch.device("meta"):
        encoder = MedNextEncoder(1, (32, 64, 128, 256, 512), ((1, 1, 1), *[(2, 2, 2)] * 4), dims=3)
        network = SegmentationNet(encoder, 14)
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(5.6e6, rel=0.01)


@every_dims
def test_instance_normalisation_is_the_published_group_for_each_map(dims):
    maps = image_of(dims, channels=6)
    torch.testing.assert_close(normalisation("instance", 6, dims)(maps), nn.GroupNorm(6, 6)(maps))


def test_a_block_without_weights_in_its_last_convolution_is_its_shortcut():
    maps = image_of(3, channels=4)
    block = MedNextBlock(4, 4, (3, 3, 3), (1, 1, 1))
    nn.init.zeros_(block.compress.weight)
    nn.init.zeros_(block.compress.bias)
    assert torch.equal(block(maps), maps)
    assert (block.depthwise.groups, block.depthwise.weight.shape) == (4, (4, 1, 3, 3, 3))
    assert (block.expand.out_channels, type(block.act)) == (8, nn.GELU)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 3), (4, 1, 2)])
def test_a_down_block_divides_and_an_up_block_multiplies_the_size_by_its_stride(stride):
    maps = torch.randn(1, 4, 4, 6, 6)
    coarse = MedNextBlock(4, 8, (3, 3, 1), stride)(maps)
    assert coarse.shape[1:] == (8, *(-(-n // s) for n, s in zip((4, 6, 6), stride, strict=True)))
    fine = MedNextUpBlock(8, 4, (3, 3, 1), stride)(coarse)
    assert fine.shape[1:] == (4, *(n * s for n, s in zip(coarse.shape[2:], stride, strict=True)))


def test_the_transposed_shortcut_gives_one_voxel_of_a_step_its_value_and_the_others_the_bias():
    block = MedNextUpBlock(1, 1, (3, 3), (2, 2))
    nn.init.ones_(block.shortcut.weight)
    nn.init.constant_(block.shortcut.bias, 0.5)
    maps = torch.tensor([[[[3.0]]]])
    assert block.shortcut(maps).tolist() == [[[[3.5, 0.5], [0.5, 0.5]]]]


def test_an_image_of_one_channel_is_merged_and_feature_maps_go_through_a_down_block():
    kinds = [MedNextStart(inputs, 8, (3, 3), (2, 2))[0] for inputs in (1, 4)]
    assert [type(kind).__name__ for kind in kinds] == ["Merge", "MedNextBlock"]


@every_dims
def test_its_decoder_adds_what_the_others_join_and_is_made_of_its_blocks(dims):
    network = make_net(MedNextEncoder, dims)
    assert type(network.decoder) is MedNextDecoder
    level = network.decoder.levels[0]
    assert (type(level.up), {type(block) for block in level.convolve}) == (MedNextUpBlock, {MedNextBlock})
    level.convolve = nn.Identity()
    coarse, skip = image_of(dims, channels=CHANNELS[1], size=4), image_of(dims, channels=CHANNELS[0])
    assert torch.equal(level(coarse, skip), level.up(coarse) + skip)
    assert type(make_net(MedNextEncoder, dims, upsampling="interpolate").decoder.levels[0].up) is Interpolate


@pytest.mark.parametrize("encoder_type", [ConvNextEncoder, MedNextEncoder])
def test_convolutions_of_each_map_are_computed_in_fp32_where_bf16_is_slow_on_a_cpu(encoder_type):
    seen = {}
    for dims in (2, 3):
        encoder = encoder_type(2, CHANNELS, STRIDES["isotropic", dims], dims=dims).to(memory_format=LAYOUTS[dims])
        block = encoder.levels[1][1]
        block.depthwise.register_forward_hook(lambda module, given, maps: seen.update({module.weight.dim(): maps}))
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder(image_of(dims).contiguous(memory_format=LAYOUTS[dims]))
        assert {maps.dtype for maps in features} == {torch.bfloat16}
    assert {axes: maps.dtype for axes, maps in seen.items()} == {4: torch.bfloat16, 5: torch.float32}

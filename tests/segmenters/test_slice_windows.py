"""A 2D network that sees whole slices in place of patches."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from segmed.config import InferenceConfig, PatchConfig, PreprocessConfig
from segmed.errors import SegmenterError
from segmed.labels import LabelSet
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.models import SegmentationNet
from segmed.segmenters import trained_network as network_module
from segmed.segmenters.trained_network import NetworkSegmenter

NATIVE = PreprocessConfig(
    orientation="ras", spacing_mm="native", crop="none", intensity="none", interpolation="linear", separate_z=False
)


class Watched(nn.Module):
    """A network that notes the shapes of what it is shown."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.divisor, self.in_channels = network, network.divisor, network.in_channels
        self.shown: list[tuple[int, ...]] = []

    def forward(self, image):
        self.shown.append(tuple(image.shape))
        return self.network(image)


def unet(dims: int = 2) -> SegmentationNet:
    """Of batch norm with divisor 4."""
    torch.manual_seed(0)
    strides = ((1,) * dims, (2,) * dims, (2,) * dims)
    return SegmentationNet(PlainEncoder(1, (4, 4, 4), strides, dims=dims, norm="batch"), 2).eval()


def slice_segmenter(network: nn.Module, *, plane_axis: int | None = 2, patch=(16, 16), **inference) -> NetworkSegmenter:
    return NetworkSegmenter(
        network,
        labels=LabelSet(("organ",), ((1,),)),
        preprocess=NATIVE,
        patches=PatchConfig(dims=len(patch), size=patch),
        plane_axis=plane_axis,
        inference=InferenceConfig(**{"window": "slice", **inference}),
    )


def volume(*shape: int) -> MetaTensor:
    data = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    return MetaTensor(torch.from_numpy(data), affine=torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("plane_axis", "shape", "window"),
    [
        (2, (40, 33, 5), (40, 36)),  # rounded up to what the strides need
        (1, (40, 33, 5), (40, 16)),  # no smaller than a patch
        (0, (40, 33, 5), (36, 16)),
        (2, (3, 4, 5), (16, 16)),
    ],
)
def test_the_window_is_the_slice_but_no_smaller_than_a_patch(plane_axis, shape, window):
    watched = Watched(unet())
    segmenter = slice_segmenter(watched, plane_axis=plane_axis)
    assert segmenter.window_of(shape) == window
    assert slice_segmenter(watched, plane_axis=plane_axis, window="patch").window_of(shape) == (16, 16)
    segmenter(volume(*shape))
    assert {shown[2:] for shown in watched.shown} == {window}
    assert sum(shown[0] for shown in watched.shown) == shape[plane_axis]  # each slice once


def test_volumes_have_no_slices_to_be_seen_at_once():
    watched = Watched(unet(3))
    segmenter = slice_segmenter(watched, plane_axis=None, patch=(8, 8, 8))
    assert segmenter.window_of((40, 33, 20)) == (8, 8, 8)
    segmenter(volume(12, 8, 8))
    assert {shown[2:] for shown in watched.shown} == {(8, 8, 8)}


@pytest.mark.parametrize("plane_axis", [0, 1, 2])
def test_the_result_is_what_the_network_gives_for_the_slice(plane_axis):
    network, image = unet(), volume(24, 20, 28)
    probabilities = slice_segmenter(network, plane_axis=plane_axis).probabilities(image).as_tensor()
    slices = image.as_tensor().movedim(plane_axis + 1, 0)
    with torch.no_grad():
        expected = network(slices).softmax(1).movedim(0, plane_axis + 1)
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=1e-5)


def test_slices_no_larger_than_a_patch_give_the_same_to_the_bit():
    network, image = unet(), volume(16, 13, 4)
    one, other = (slice_segmenter(network, window=window).probabilities(image) for window in ("slice", "patch"))
    assert torch.equal(one.as_tensor(), other.as_tensor())


def test_batches_and_memory_are_those_of_slices(monkeypatch):
    segmenter = slice_segmenter(unet())
    assert segmenter.windows() == 8
    assert segmenter.windows((512, 512)) == 2  # fp32 never one alone
    monkeypatch.setattr(network_module, "free_ram_bytes", lambda: 10 * segmenter.window_bytes)
    assert segmenter.windows() == 4
    assert segmenter.windows((32, 32)) == 1  # four times the memory
    segmenter(volume(16, 16, 1))
    with pytest.raises(SegmenterError, match="GiB of RAM"):
        segmenter(volume(64, 64, 1))

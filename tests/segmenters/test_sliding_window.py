"""The sliding window against MONAI's, against networks whose result is known, and in what it costs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from segmed.errors import SegmenterError
from segmed.networks.summary import _MemoryMeter
from segmed.segmenters.sliding import (
    SLAB_VOXELS,
    Mirrored,
    collecting_bytes,
    pad_to,
    sliding_window,
    window_batch,
    window_starts,
)

SIZES = st.tuples(*[st.integers(1, 21)] * 3)
WINDOWS = st.tuples(*[st.integers(1, 12)] * 3)


class Constant(nn.Module):
    """The same logits everywhere; remembers the sizes of its batches."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)
        self.batches: list[int] = []

    def forward(self, image):
        self.batches.append(len(image))
        shape = [1, -1] + [1] * (image.ndim - 2)
        return self.logits.reshape(shape).expand(len(image), -1, *image.shape[2:])


def image_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def convolution(classes: int = 3, *, kernel: int = 5, dims: int = 3, channels: int = 1) -> nn.Module:
    torch.manual_seed(1)
    kind = nn.Conv3d if dims == 3 else nn.Conv2d
    return kind(channels, classes, kernel, padding=kernel // 2).eval()


# ---------------------------------------------------------------- right


@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [
        ((40, 24, 32), (16, 16, 16), 0.5),
        ((37, 29, 41), (16, 12, 20), 0.25),
        ((20, 16, 16), (16, 16, 16), 0.75),
        ((9, 30, 5), (16, 16, 16), 0.5),
        ((16, 16, 16), (16, 16, 16), 0.0),
    ],
)
def test_equals_monai_with_gaussian_weights(size, window, overlap):
    network, image = convolution(), image_of(1, *size)
    with torch.no_grad():
        theirs = sliding_window_inference(
            image[None], window, 4, network, overlap=overlap, mode="gaussian", padding_mode="replicate"
        )
    ours = sliding_window(network, image, window=window, classes=3, overlap=overlap)
    torch.testing.assert_close(ours, theirs[0].softmax(0), atol=1e-6, rtol=0)


def test_equals_monai_in_two_dimensions():
    network, image = convolution(dims=2, channels=2), image_of(2, 33, 20)
    with torch.no_grad():
        theirs = sliding_window_inference(
            image[None], (16, 24), 2, network, overlap=0.5, mode="gaussian", padding_mode="replicate"
        )
    ours = sliding_window(network, image, window=(16, 24), classes=3, overlap=0.5)
    torch.testing.assert_close(ours, theirs[0].softmax(0), atol=1e-6, rtol=0)


@given(size=SIZES, window=WINDOWS, overlap=st.floats(0, 0.8), batch=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_a_network_without_context_gives_what_it_gives_on_the_whole_volume(size, window, overlap, batch):
    network, image = convolution(kernel=1), image_of(1, *size)
    probabilities = sliding_window(network, image, window=window, classes=3, overlap=overlap, batch=batch)
    with torch.no_grad():
        torch.testing.assert_close(probabilities, network(image[None])[0].softmax(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(size), atol=1e-6, rtol=0)


@given(size=SIZES, window=WINDOWS, overlap=st.floats(0, 0.8))
@settings(max_examples=40, deadline=None)
def test_constant_logits_give_a_constant_result(size, window, overlap):
    even = sliding_window(Constant(0.3, 0.3), torch.zeros(1, *size), window=window, classes=2, overlap=overlap)
    assert (even == 0.5).all()
    probabilities = sliding_window(
        Constant(0.1, -1.7, 2.3), torch.zeros(1, *size), window=window, classes=3, overlap=overlap
    )
    one_bit = torch.finfo(torch.float32).eps
    expected = torch.tensor([0.1, -1.7, 2.3]).softmax(0).reshape(3, 1, 1, 1)
    torch.testing.assert_close(probabilities, expected.expand_as(probabilities), atol=0, rtol=one_bit)


@given(size=st.tuples(*[st.integers(12, 40)] * 3), window=WINDOWS, overlap=st.floats(0, 0.9))
@settings(max_examples=40, deadline=None)
def test_windows_cover_every_voxel_and_stay_inside(size, window, overlap):
    covered = torch.zeros(size, dtype=torch.bool)
    for start in window_starts(size, window, overlap):
        assert all(a >= 0 and a + w <= n for a, w, n in zip(start, window, size, strict=True))
        covered[tuple(slice(a, a + w) for a, w in zip(start, window, strict=True))] = True
    assert covered.all()


def test_slices_are_a_batch_of_2d_images():
    network, image = convolution(dims=2), image_of(1, 5, 20, 14)
    probabilities = sliding_window(network, image, window=(24, 24), classes=3, batch=3)
    for number in range(5):
        alone = sliding_window(network, image[:, number], window=(24, 24), classes=3)
        torch.testing.assert_close(probabilities[:, number], alone, atol=1e-6, rtol=0)


def test_slices_smaller_than_the_window_take_one_window_each():
    network = Constant(0.0, 1.0)
    sliding_window(network, torch.zeros(1, 10, 20, 14), window=(24, 24), classes=2, batch=4)
    assert network.batches == [4, 4, 2]


@pytest.mark.parametrize("batch", [1, 3, 8, 100])
def test_the_batch_does_not_matter(batch):
    network, image = convolution(), image_of(1, 30, 20, 25)
    alone = sliding_window(network, image, window=(12, 12, 12), classes=3, batch=2)
    probabilities = sliding_window(network, image, window=(12, 12, 12), classes=3, batch=batch)
    torch.testing.assert_close(probabilities, alone, atol=1e-5, rtol=0)


def test_padding_repeats_the_border():
    padded = pad_to(torch.arange(3.0)[None], (8,))
    assert padded.tolist() == [[0, 0, 0, 1, 2, 2, 2, 2]]
    assert pad_to(padded, (4,)) is padded


# ---------------------------------------------------------------- mirrored


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_mirroring_makes_a_network_symmetric(axes):
    network, image = convolution(), image_of(1, 16, 16, 16)
    options = {"window": (16, 16, 16), "classes": 3, "mirror_axes": axes}
    flip = [axis + 1 for axis in axes]
    straight = sliding_window(network, image, **options)
    flipped = sliding_window(network, image.flip(flip), **options)
    torch.testing.assert_close(flipped.flip(flip), straight, atol=1e-5, rtol=0)
    assert not torch.allclose(straight, sliding_window(network, image, window=(16, 16, 16), classes=3), atol=1e-3)


def test_labels_with_a_side_swap_when_left_and_right_are_mirrored():
    class LeftAndRight(nn.Module):
        """Class 1 in the first half of the image, class 2 in the second, whatever is shown."""

        def forward(self, image):
            side = torch.linspace(-1, 1, image.shape[2]).reshape(1, 1, -1, 1, 1).expand(len(image), 1, *image.shape[2:])
            return torch.cat([torch.zeros_like(side), -side, side], 1)

    image = torch.zeros(1, 1, 8, 4, 4)
    alone = LeftAndRight()(image)
    torch.testing.assert_close(Mirrored(LeftAndRight(), [0], swapped=[(1, 2)])(image), alone)
    assert (Mirrored(LeftAndRight(), [0])(image) == 0).all()
    torch.testing.assert_close(Mirrored(LeftAndRight(), [0, 1], swapped=[(1, 2)])(image), alone)


# ---------------------------------------------------------------- cost


def test_windows_without_foreground_are_left_out_and_are_background():
    network = Constant(-5.0, 5.0)
    foreground = torch.zeros(64, 16, 16, dtype=torch.bool)
    foreground[40, 8, 8] = True
    options = {"window": (16, 16, 16), "classes": 2, "overlap": 0.5, "batch": 1}
    probabilities = sliding_window(network, torch.zeros(1, 64, 16, 16), foreground=foreground, **options)
    assert len(network.batches) == 2  # windows from 32 and from 40 hold voxel 40; that from 24 ends before it
    assert (probabilities[1, 32:56] > 0.99).all()
    assert (probabilities[:, :32] == torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1)).all()


def test_a_volume_without_foreground_is_background_and_the_network_is_not_asked():
    network = Constant(-5.0, 5.0)
    nothing = torch.zeros(20, 20, 20, dtype=torch.bool)
    probabilities = sliding_window(network, torch.zeros(1, 20, 20, 20), window=(8, 8, 8), classes=2, foreground=nothing)
    assert (probabilities[0] == 1).all()
    assert not network.batches


def test_memory_is_what_was_estimated():
    """Beside the windows there are the result and one map of weights."""
    image, window = image_of(1, 96, 96, 96), (8, 96, 96)
    with _MemoryMeter() as meter:
        sliding_window(Constant(*range(6)), image, window=window, classes=6, overlap=0.0, batch=1)
    estimate = collecting_bytes(image.shape[1:], channels=1, classes=6, window=window)
    slab = 2 * 4 * SLAB_VOXELS * 6
    assert meter.peak <= estimate + slab
    assert meter.peak >= 4 * 96**3 * 7


@pytest.mark.parametrize(
    ("window", "precision", "batch"),
    [
        ((64, 64, 64), "bf16", 4),
        ((64, 64, 64), "fp32", 4),
        ((128, 128, 128), "bf16", 1),
        ((128, 128, 128), "fp32", 2),
        ((96, 96), "bf16", 8),
        ((256, 256), "bf16", 2),
        ((1, 192, 192), "fp32", 4),
        ((512, 512), "bf16", 1),
    ],
)
def test_a_call_takes_a_million_voxels_or_fewer_pixels_and_in_fp32_never_one_window(window, precision, batch):
    assert window_batch(window, precision=precision) == batch


def test_bf16_segments_as_fp32_does():
    """A network trained on noisy balls: Dice within 0.001 of fp32."""
    torch.manual_seed(0)
    grid = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))

    def balls(seed):
        generator = torch.Generator().manual_seed(seed)
        centres = torch.rand(2, 3, 1, 1, 1, generator=generator) * 14 + 5
        label = ((grid - centres).square().sum(1) < 30).any(0).long()
        return (label + 0.3 * torch.randn(label.shape, generator=generator))[None], label

    network = nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv3d(8, 2, 1),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(40):
        image, label = balls(step)
        loss = nn.functional.cross_entropy(network(image[None]), label[None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    dice = {"fp32": [], "bf16": []}
    for seed in range(1000, 1004):
        image, label = balls(seed)
        for precision, scores in dice.items():
            inside = sliding_window(network, image, window=(16,) * 3, classes=2, precision=precision).argmax(0) == 1
            scores.append((2 * (inside & (label == 1)).sum() / (inside.sum() + label.sum())).item())
    means = {precision: sum(scores) / len(scores) for precision, scores in dice.items()}
    assert means["fp32"] > 0.85
    assert abs(means["bf16"] - means["fp32"]) < 1e-3


# ---------------------------------------------------------------- wrong


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": (8,)}, "does not fit an image of shape"),
        ({"window": (8, 8, 8, 8)}, "does not fit an image of shape"),
        ({"window": (8, 8, 8), "classes": 4}, "not 4 classes"),
        ({"window": (8, 8, 8), "overlap": 1.0}, "overlap 1.0"),
    ],
)
def test_what_does_not_fit_is_one_line(options, words):
    with pytest.raises(SegmenterError, match=words) as error:
        sliding_window(Constant(0.0, 1.0), torch.zeros(1, 9, 9, 9), **{"classes": 2, **options})
    assert "\n" not in str(error.value)

"""A network over a whole volume, window by window, blended by Gaussian weights into probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Literal

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor, nn

from segmed.errors import SegmenterError

Precision = Literal["fp32", "bf16"]

CPU_BATCH_VOXELS = 2**20  # measured: four windows of 64³; from eight on, feature maps leave the cache and slow it down
CPU_BATCH_PIXELS = 2**17  # the same in 2D: two of 256² or eight of 96²; eight of 256² took 1.2 times as long a pixel
GPU_BATCH_VOXELS = 2**22
LARGEST_BATCH = 8
SLAB_VOXELS = 2**18  # voxels whose logits become probabilities at once: bounds the copy that softmax makes


def over_classes(logits: Tensor) -> Tensor:
    """Softmax over the first axis."""
    return logits.softmax(0)


def sliding_window(
    network: nn.Module,
    image: Tensor,
    *,
    window: Sequence[int],
    classes: int,
    overlap: float = 0.5,
    batch: int | None = None,
    precision: Precision = "fp32",
    mirror_axes: Sequence[int] = (),
    foreground: Tensor | None = None,
    activation: Callable[[Tensor], Tensor] = over_classes,
) -> Tensor:
    """Probabilities of every voxel from overlapping windows, whose logits are blended by Gaussian weights.

    Windows stand as in MONAI's `sliding_window_inference`: a fixed step, the last one shifted inside. An axis that
    is shorter than the window is padded with its border voxels, as in training, and cropped back. The running mean
    is kept in the result itself: beside it there is one map of weights, and no copy a class. A network that gives
    the same logits everywhere has them blended into exactly these.

    Args:
        network: (B, C, *window) -> logits (B, classes, *window); used in the mode it is in, on the device it is on.
        image: (C, *spatial), preprocessed. The result is collected on the image's device.
        window: one entry a spatial axis; one entry less: the slices along the first spatial axis are a batch of 2D
            images, and the window moves in their plane.
        classes: channels of the logits, background included where there is one.
        overlap: of neighbouring windows, as a fraction of the window; 0 <= overlap < 1.
        batch: windows in one call of the network; none: `window_batch`.
        precision: `bf16`: autocast.
        mirror_axes: axes of the window; logits are averaged over the flips along every subset of them.
        foreground: (*spatial) bool; windows without any are left out, and what no window covers is background.
        activation: logits (classes, *spatial) -> probabilities, background first; a part of the volume at a time.

    Returns:
        (classes, *spatial) float32 on the image's device, summing to one, or what else `activation` gives.

    Raises:
        SegmenterError: window and image differ in dimensions, or the network gives another number of classes
            or another size.
    """
    spatial = tuple(image.shape[1:])
    if len(window) == len(spatial) - 1:
        network, window = _SliceBySlice(network), (1, *window)
        mirror_axes = [axis + 1 for axis in mirror_axes]
    if len(window) != len(spatial):
        raise SegmenterError(
            f"window {tuple(window)} does not fit an image of shape {spatial}: give one entry per axis, "
            "or one less for a 2D network"
        )
    if mirror_axes:
        network = Mirrored(network, mirror_axes)
    size = tuple(max(voxels, extent) for voxels, extent in zip(spatial, window, strict=True))
    starts = window_starts(size, window, overlap)
    if foreground is not None:
        starts = _starts_with(pad_to(foreground[None], size)[0], starts, window)
    device = _device_of(network, image)
    batch = batch or window_batch(window, device=device, precision=precision)
    logits, weights = _blend(network, pad_to(image, size), starts, window, classes, batch=batch, precision=precision)
    blended = _to_probabilities(logits, weights, activation)
    return blended[(slice(None), *_inner(spatial, size))]


def window_batch(window: Sequence[int], *, device: torch.device | str = "cpu", precision: Precision = "fp32") -> int:
    """Windows in one call of the network that were fastest where it was measured.

    On a CPU about a million voxels (four windows of 64³, one of 128³ in bf16), or 131 thousand pixels of slices; in
    fp32 never one alone, which falls into a slow path of the convolutions there.
    """
    on_cpu = torch.device(device).type == "cpu"
    flat = len(window) == 2 or window[0] == 1
    limit = (CPU_BATCH_PIXELS if flat else CPU_BATCH_VOXELS) if on_cpu else GPU_BATCH_VOXELS
    wanted = math.ceil(limit / math.prod(window))
    return min(max(wanted, 2 if on_cpu and precision == "fp32" else 1), LARGEST_BATCH)


def collecting_bytes(spatial: Sequence[int], *, channels: int, classes: int, window: Sequence[int]) -> int:
    """Memory that `sliding_window` takes beside the network's own: padded image, result and map of weights."""
    voxels = math.prod(max(n, w) for n, w in zip(spatial, window, strict=True))
    return 4 * voxels * (channels + classes + 1)


def window_starts(size: Sequence[int], window: Sequence[int], overlap: float) -> list[tuple[int, ...]]:
    """First voxels of the windows that cover a volume: a fixed step, the last one shifted inside.

        >>> segmed.window_starts((10, 4), (4, 4), 0.5)
        [(0, 0), (2, 0), (4, 0), (6, 0)]

    Args:
        size: voxels of the volume, at least those of the window.
        window: voxels of the window.
        overlap: 0 <= overlap < 1.
    """
    if not 0 <= overlap < 1:
        raise SegmenterError(f"overlap {overlap} is out of range: give a fraction from 0 to below 1")
    axes = []
    for voxels, extent in zip(size, window, strict=True):
        step = max(int(extent * (1 - overlap)), 1)
        axes.append([*range(0, voxels - extent, step), voxels - extent])
    return list(product(*axes))


def blending_weights(window: Sequence[int], *, device: torch.device | str = "cpu") -> Tensor:
    """How much each voxel of a window counts where windows overlap: (*window), a Gaussian of at least 1e-3.

    >>> float(segmed.blending_weights((9, 9)).max())
    1.0
    """
    return compute_importance_map(tuple(window), mode="gaussian", device=torch.device(device))


def pad_to(image: Tensor, size: Sequence[int]) -> Tensor:
    """Pad (C, *spatial) to at least `size` on both sides, by its border voxels; the same tensor where nothing lacks."""
    for axis, (voxels, wanted) in enumerate(zip(image.shape[1:], size, strict=True), start=1):
        if wanted > voxels:
            before = (wanted - voxels) // 2
            index = torch.arange(-before, wanted - before, device=image.device).clamp_(0, voxels - 1)
            image = image.index_select(axis, index)
    return image


class Mirrored(nn.Module):
    """A network whose logits are the mean over mirrored copies of the image.

    Args:
        network: (B, C, *spatial) -> logits (B, classes, *spatial).
        axes: spatial axes that are mirrored, in every combination.
        swapped: pairs of classes that change sides with a flip along the first of `axes`, such as the left and the
            right hippocampus.
        copies: network of the mirrored copies; none: the same.
    """

    def __init__(
        self,
        network: nn.Module,
        axes: Sequence[int],
        *,
        swapped: Sequence[tuple[int, int]] = (),
        copies: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.copies = network, copies or network
        dims = [axis + 2 for axis in axes]
        self.flips = [flip for count in range(len(dims) + 1) for flip in combinations(dims, count)]
        self.side = dims[0] if dims else None
        self.swapped = tuple(swapped)

    def forward(self, image: Tensor) -> Tensor:
        total = self.network(image)
        for flip in self.flips[1:]:
            logits = self.copies(image.flip(flip)).flip(flip)
            total = total + (self._swap(logits) if self.side in flip else logits)
        return total / len(self.flips)

    def _swap(self, logits: Tensor) -> Tensor:
        order = list(range(logits.shape[1]))
        for a, b in self.swapped:
            order[a], order[b] = b, a
        return logits[:, order] if self.swapped else logits


class _SliceBySlice(nn.Module):
    """A 2D network on windows (B, C, 1, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image.squeeze(2))
        return logits.unsqueeze(2)


# ---------------------------------------------------------------- the loop


def _blend(
    network: nn.Module,
    image: Tensor,
    starts: Sequence[tuple[int, ...]],
    window: Sequence[int],
    classes: int,
    *,
    batch: int,
    precision: Precision,
) -> tuple[Tensor, Tensor]:
    """Logits (classes, *spatial) of a padded image from the windows at `starts`, and the weights they came with."""
    device = _device_of(network, image)
    gaussian = blending_weights(window, device=image.device)
    logits = torch.zeros((classes, *image.shape[1:]), device=image.device)
    weights = torch.zeros(image.shape[1:], device=image.device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for first in range(0, len(starts), batch):
            boxes = [_box(start, window) for start in starts[first : first + batch]]
            windows = torch.stack([image[(slice(None), *box)] for box in boxes])
            window_logits = network(windows.to(device, non_blocking=True))
            if window_logits.shape != (len(boxes), classes, *window):
                raise SegmenterError(
                    f"the network gives logits of shape {tuple(window_logits.shape)} for windows of shape "
                    f"{tuple(windows.shape)}, not {classes} classes of that size: is it the network of these labels?"
                )
            window_logits = window_logits.to(image.device, torch.float32)
            for box, own_logits in zip(boxes, window_logits, strict=True):
                weights[box] += gaussian
                logits[(slice(None), *box)].lerp_(own_logits, gaussian / weights[box])
    return logits, weights


@torch.no_grad()
def _to_probabilities(logits: Tensor, weights: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Slab by slab, in place where the channels stay as many; what no window covered is background."""
    slab = max(1, SLAB_VOXELS // max(1, math.prod(logits.shape[2:])))
    result = logits
    for start in range(0, logits.shape[1], slab):
        part = activation(logits[:, start : start + slab])
        if len(part) != len(result):
            result = logits.new_empty((len(part), *logits.shape[1:]))
        result[:, start : start + slab] = part
    uncovered = weights == 0
    if uncovered.any():
        result[:, uncovered] = 0.0
        result[0, uncovered] = 1.0
    return result


def _starts_with(foreground: Tensor, starts: Sequence[tuple[int, ...]], window: Sequence[int]) -> list[tuple[int, ...]]:
    return [start for start in starts if foreground[_box(start, window)].any()]


def _box(start: Sequence[int], window: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(first, first + extent) for first, extent in zip(start, window, strict=True))


def _inner(spatial: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """Where the image lies in its padded copy."""
    starts = [(padded - voxels) // 2 for voxels, padded in zip(spatial, size, strict=True)]
    return _box(starts, spatial)


def _device_of(network: nn.Module, image: Tensor) -> torch.device:
    first = next(network.parameters(), None)
    return image.device if first is None else first.device

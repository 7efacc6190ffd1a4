"""A trained network as a segmenter: preprocessing, sliding window, and the way back to the volume's own grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from segmed.config import InferenceConfig, PatchConfig, PreprocessConfig
from segmed.data.preprocess import prepare
from segmed.errors import NoRoomError, SegmenterError
from segmed.geometry import as_affine
from segmed.labels import LabelSet
from segmed.machine import GIB, free_ram_bytes
from segmed.networks.summary import summarise
from segmed.segmenters.native import WayHome
from segmed.segmenters.segmenter import Segmenter, on_grid_of
from segmed.segmenters.sliding import Mirrored, Precision, collecting_bytes, sliding_window, window_batch
from segmed.targets import targets_of


class NetworkSegmenter(Segmenter):
    """A network, in 3D or slice by slice along an axis, as a segmenter of native volumes.

    Args:
        network: (B, C, *spatial) -> logits (B, L + 1, *spatial), on `device`; a channel a region where `labels` has
            targets.
        labels: of the classes after background.
        preprocess: resolved, as in training.
        patches: resolved; its size is the window.
        plane_axis: axis of the prepared volume across which 2D slices are taken; None for a 3D network.
        inference: `overlap`, `window`, `windows` and `mirror` are used.
        device: of the network.
        precision: `bf16` runs under autocast.
        mirror_pairs: names of labels that swap when left and right are flipped.

    Raises:
        SegmenterError: window, plane and network don't fit together.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        labels: LabelSet,
        preprocess: PreprocessConfig,
        patches: PatchConfig,
        plane_axis: int | None,
        inference: InferenceConfig,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        mirror_pairs: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.network = network
        self.labels = labels
        self.preprocess = preprocess
        self.window = _window(patches, plane_axis)
        self.plane_axis = plane_axis
        self.inference = inference
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.targets = targets_of(labels)
        self.swapped = self.targets.swapped([(labels.index(left), labels.index(right)) for left, right in mirror_pairs])

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        image = self._prepare(volume, native_maps=self.labels.classes)
        probabilities = self._probabilities_of(image)
        return on_grid_of(volume, self._way_home(image, volume).probabilities(probabilities))

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        image = self._prepare(volume, native_maps=3)
        probabilities = self._probabilities_of(image)
        return on_grid_of(volume, self._way_home(image, volume).labels(probabilities, self.targets))

    def prepared_probabilities(self, image: Tensor) -> Tensor:
        """Probabilities on the network's own grid.

        Args:
            image: (C, X, Y, Z), preprocessed; with an affine where copies are mirrored, else its first axis counts
                as the one from left to right.

        Returns:
            (L + 1, X, Y, Z) float32 on the image's device, summing to one.
        """
        return self._probabilities_of(image).to(image.device)

    def check_channels(self, volume: MetaTensor) -> None:
        """Refuse a volume (C, X, Y, Z) of other channels than the network takes.

        Raises:
            SegmenterError: it is one.
        """
        wanted = getattr(self.network, "in_channels", len(volume))
        if len(volume) != wanted:
            raise SegmenterError(
                f"the volume has {len(volume)} channels, the network takes {wanted}: give the modalities that it "
                "was trained on"
            )

    def _prepare(self, volume: MetaTensor, *, native_maps: int) -> MetaTensor:
        self.check_channels(volume)
        image, _ = prepare(volume, None, self.preprocess)
        self._check_memory(image, native_bytes=4 * native_maps * math.prod(volume.shape[1:]))
        return image

    def window_of(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Voxels of what the network sees at once: a patch, or a slice, no smaller than a patch and as strides need it.

        Args:
            shape: (X, Y, Z) of the prepared volume.
        """
        if self.plane_axis is None or self.inference.window == "patch":
            return self.window
        steps = getattr(getattr(self.network, "_orig_mod", self.network), "divisor", (1, 1))
        sizes = [n for axis, n in enumerate(shape) if axis != self.plane_axis]
        return tuple(max(w, step * math.ceil(n / step)) for w, n, step in zip(self.window, sizes, steps, strict=True))

    @cached_property
    def window_bytes(self) -> int:
        """Memory that one patch takes in the network; 0 for a network that does not declare its channels."""
        plain = getattr(self.network, "_orig_mod", self.network)  # of a compiled one
        return summarise(plain, self.window, training=False).peak_bytes if hasattr(plain, "in_channels") else 0

    def windows(self, window: tuple[int, ...] | None = None) -> int:
        """Windows in one call of the network: as configured, or what is fastest and fits in half of what is free.

        Args:
            window: voxels of each; none: of a patch.
        """
        if self.inference.windows != "auto":
            return self.inference.windows
        window = window or self.window
        batch = window_batch(window, device=self.device, precision=self.precision)
        free = free_ram_bytes() if self.device.type == "cpu" else torch.cuda.mem_get_info(self.device)[0]
        while batch > 1 and 2 * batch * self._bytes_of(window) > free:
            batch //= 2
        return batch

    def _bytes_of(self, window: tuple[int, ...]) -> int:
        """Memory that one window takes: feature maps grow with it."""
        return self.window_bytes * math.prod(window) // math.prod(self.window)

    def _check_memory(self, image: Tensor, *, native_bytes: int) -> None:
        """Refuse a volume for which memory would run out, before anything is computed."""
        needed, free = native_bytes + self._collecting_bytes(image), free_ram_bytes()
        if self.device.type == "cpu":
            window = self.window_of(image.shape[1:])
            needed += self.windows(window) * self._bytes_of(window)
        if needed > free:
            raise NoRoomError(
                f"{tuple(image.shape[1:])} voxels of {self.labels.classes} classes need {needed / GIB:.1f} GiB of RAM, "
                f"{free / GIB:.1f} are free: crop the volume or close other programs"
            )

    def _collecting_bytes(self, image: Tensor) -> int:
        shape = tuple(image.shape[1:])
        window = self.window_of(shape)
        if self.plane_axis is not None:
            window = (*window[: self.plane_axis], 1, *window[self.plane_axis :])
        maps = self.labels.classes + (self.targets.channels if self.labels.targets else 0)
        return collecting_bytes(shape, channels=len(image), classes=maps, window=window)

    def _probabilities_of(self, image: Tensor) -> Tensor:
        """Probabilities (L + 1, X, Y, Z), on the GPU where they fit there."""
        return self._through(self.network, image)

    def _through(self, network: nn.Module, image: Tensor) -> Tensor:
        """As `_probabilities_of`, by another network of the same classes; mirrored copies go to the own one alone."""
        if self.inference.mirror:
            axis = self._mirrored_axis(image)
            if axis is not None:
                network = Mirrored(network, [axis], swapped=self.swapped, copies=self.network)
        data = image.as_tensor() if isinstance(image, MetaTensor) else image
        window = self.window_of(data.shape[1:])
        data = data.to(self._collecting_device(data))
        if self.plane_axis is not None:
            data = data.movedim(self.plane_axis + 1, 1).contiguous()
        with evaluating(self.network):
            probabilities = sliding_window(
                network,
                data,
                window=window,
                classes=self.targets.channels,
                activation=self.targets.probabilities,
                overlap=self.inference.overlap,
                batch=self.windows(window),
                precision=self.precision,
                foreground=_informative(data),
            )
        return probabilities if self.plane_axis is None else probabilities.movedim(1, self.plane_axis + 1)

    def _mirrored_axis(self, image: Tensor) -> int | None:
        """Axis of the window from left to right, along which training flips too; None where slices lie across it."""
        side = 0
        if isinstance(image, MetaTensor):
            side = int(np.abs(as_affine(image.affine)[0, :3]).argmax())
        if self.plane_axis is None:
            return side
        return None if side == self.plane_axis else side - (side > self.plane_axis)

    def _collecting_device(self, image: Tensor) -> torch.device:
        if self.device.type == "cpu":
            return self.device
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.device if 2 * self._collecting_bytes(image) < free else torch.device("cpu")

    def _way_home(self, image: MetaTensor, volume: MetaTensor) -> WayHome:
        return WayHome(image.affine, image.shape[1:], native_affine=volume.affine, native_shape=volume.shape[1:])


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and every part of it back into its own afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _window(patches: PatchConfig, plane_axis: int | None) -> tuple[int, ...]:
    if patches.size == "auto" or patches.dims == "auto":
        raise SegmenterError("patches.size or patches.dims is still 'auto': plan the experiment first")
    if len(patches.size) != patches.dims or (plane_axis is None) != (patches.dims == 3):
        raise SegmenterError(
            f"patches.size {patches.size} and plane axis {plane_axis} do not fit {patches.dims} dimensions: "
            "give one number per dimension, and a plane for 2"
        )
    return patches.size


def _informative(image: Tensor) -> Tensor:
    """Voxels (*spatial) that differ from the image's first one: a window without any shows nothing but air."""
    first = image.flatten(1)[:, 0].reshape(-1, *[1] * (image.ndim - 1))
    return (image != first).any(0)

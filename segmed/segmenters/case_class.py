"""A network of two heads and a volume -> probabilities of the volume's class: the mean over windows or slices.

`CaseClassifier` gives the class alone; `TwoHeadSegmenter` gives it from the pass that segments the volume.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from segmed.data.preprocess import prepare
from segmed.errors import SegmenterError
from segmed.segmenters.sliding import pad_to, window_starts
from segmed.segmenters.trained_network import NetworkSegmenter, evaluating


class TwoHeadSegmenter(NetworkSegmenter):
    """A network of two heads as a segmenter that tells the class of each volume by the same pass.

    Copies are not mirrored for the class, and windows count as in `CaseClassifier`.
    """

    _class: np.ndarray | None = None

    @property
    def class_probabilities(self) -> np.ndarray | None:
        """Probabilities of the classes of the volume that was segmented last."""
        return self._class

    def _probabilities_of(self, image: Tensor) -> Tensor:
        both = _SegmentingBoth(self.network)
        probabilities = self._through(both, image)
        by_window = torch.cat(both.class_probabilities) if both.class_probabilities else torch.empty(0)
        self._class = by_window.mean(0).numpy() if len(by_window) else CaseClassifier(self).prepared(image)
        return probabilities


class _SegmentingBoth(nn.Module):
    """Logits of the segmentation; the class probabilities of the windows that show more than one value are kept."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.class_probabilities: list[Tensor] = []

    def forward(self, windows: Tensor) -> Tensor:
        levels, logits = cast(Any, self.network).both(windows)
        self.class_probabilities.append(logits.double().softmax(1)[_varied(windows)].cpu())
        return cast(Tensor, levels[0])


def _varied(windows: Tensor) -> Tensor:
    """Which windows (B, C, *window) show more than one value: (B,) bool."""
    flat = windows.flatten(2)
    return (flat != flat[..., :1]).flatten(1).any(1)


class CaseClassifier:
    """The second head of a trained network, on the windows that the first one segments; the decoder is not run.

    Args:
        segmenter: of a `SegmentationAndClass`; its preparation, windows, device and precision are used. Copies are
            not mirrored.

    Raises:
        SegmenterError: the network has no second head.
    """

    def __init__(self, segmenter: NetworkSegmenter) -> None:
        if not hasattr(segmenter.network, "classify"):
            raise SegmenterError(
                f"{type(segmenter.network).__name__} has no head for classes: name a run with a classification section"
            )
        self.segmenter = segmenter

    def __call__(self, volume: MetaTensor) -> np.ndarray:
        """Native volume (C, X, Y, Z) -> probabilities (K,) float64.

        Raises:
            SegmenterError: the volume has other channels than the network takes.
        """
        self.segmenter.check_channels(volume)
        image, _ = prepare(volume, None, self.segmenter.preprocess)
        return self.prepared(image)

    @torch.no_grad()
    def prepared(self, image: Tensor) -> np.ndarray:
        """Preprocessed image (C, X, Y, Z) -> probabilities (K,) float64.

        Every window counts the same; those that show one value alone, as outside of the patient, do not.
        """
        segmenter, network = self.segmenter, cast(Any, self.segmenter.network)
        windows = self._windows(image)
        batch = segmenter.windows(tuple(windows[0].shape[1:]))
        autocast = torch.autocast(segmenter.device.type, torch.bfloat16, enabled=segmenter.precision == "bf16")
        probabilities = []
        with evaluating(network), autocast:
            for start in range(0, len(windows), batch):
                shown = torch.stack(windows[start : start + batch])
                logits = network.classify(shown.to(segmenter.device, non_blocking=True))
                probabilities.append(logits.double().softmax(1).cpu())
        return torch.cat(probabilities).mean(0).numpy()

    def _windows(self, image: Tensor) -> list[Tensor]:
        """Views (C, *window) of the padded image, in 2D slice by slice."""
        data = image.as_tensor() if isinstance(image, MetaTensor) else image
        window, plane = self.segmenter.window_of(data.shape[1:]), self.segmenter.plane_axis
        slices = [data] if plane is None else list(data.unbind(plane + 1))
        size = [max(voxels, extent) for voxels, extent in zip(slices[0].shape[1:], window, strict=True)]
        padded = [pad_to(each, size) for each in slices]
        starts = window_starts(size, window, self.segmenter.inference.overlap)
        boxes = [tuple(slice(n, n + extent) for n, extent in zip(start, window, strict=True)) for start in starts]
        every = [each[(slice(None), *box)] for each in padded for box in boxes]
        return [each for each in every if _varied(each[None])] or every

"""Facts about a run's training images -> in what a new image differs from all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.data.audit import Audit
from segmed.data.fingerprint import CaseFacts, intensity_facts
from segmed.data.learned import learned_split
from segmed.errors import DatasetError
from segmed.geometry import as_affine
from segmed.runs import runs_of
from segmed.volumes import spacing_mm

VIEW = 2.0  # a field of view this many times smaller or larger than that of any training image is unfamiliar ...
VOXELS = 2.5  # ... and so are voxels this many times smaller or larger
SHARE = 0.35  # of the range of grey values, or of the voxels, outside what training images had
BELOW = 0.1  # of the range of grey values that lie below 0, where training images had none


@dataclass(frozen=True)
class Familiar:
    """The images that a run has learned from.

    Attributes:
        facts: of the training and validation cases.
        modalities: in the order of channels.
        spacing_known: whether sizes in mm have a meaning.
        masked: whether they had masks of their field of view.
    """

    facts: tuple[CaseFacts, ...]
    modalities: tuple[str, ...]
    spacing_known: bool = True
    masked: bool = False

    def unlike(self, image: MetaTensor, masked: bool = True) -> str | None:
        """In what an image differs from every training image, in one line; None where it might be one of them.

        Args:
            image: (C, X, Y, Z), as it is in the file, the channels in the order of the modalities.
            masked: whether there is a mask of its field of view.
        """
        differences = self._sizes(image) if self.spacing_known else []
        if self.masked and not masked:
            differences.append("it has no mask of its field of view, they have")
        differences += self._channels(image)
        for modality, channel in zip(self.modalities, image.as_tensor(), strict=True):
            known = self._known.get(modality)
            if known is None or (len(self.modalities) > 1 and not channel.any()):  # an image that the case lacks
                continue
            values = intensity_facts(MetaTensor(channel[None], affine=torch.from_numpy(as_affine(image.affine))))
            name = f"{modality}: " if len(self.modalities) > 1 else ""
            differences += [f"{name}{what}" for what in _strange_values(values, *known)]
        return f"unlike all {len(self.facts)} training scans: {'; '.join(differences)}" if differences else None

    def _sizes(self, image: MetaTensor) -> list[str]:
        spacing = np.array(spacing_mm(as_affine(image.affine)))
        view = np.sort(spacing * np.array(image.shape[1:]))
        views, spacings = self._known_sizes
        differences = []
        if _outside(view, views, VIEW):
            differences.append(f"it shows {_mm(view)} mm, those {_mm(views.min(0))} to {_mm(views.max(0))} mm")
        if _outside(np.sort(spacing), spacings, VOXELS):
            small, large = _mm(spacings.min(0)), _mm(spacings.max(0))
            differences.append(f"its voxels have {_mm(np.sort(spacing))} mm, theirs {small} to {large} mm")
        return differences

    def _channels(self, image: MetaTensor) -> list[str]:
        """Channels that are all the same, as those of a grey picture, where those of training images were not."""
        voxels = image.as_tensor()
        there = voxels[voxels.flatten(1).any(1)]  # without the images that the case lacks
        if len(there) < 2 or self._known_alike or not bool((there == there[0]).all()):
            return []
        names = ", ".join(self.modalities)
        return [f"its channels ({names}) hold the same values, theirs did not"]

    @cached_property
    def _known_alike(self) -> bool:
        """Whether the channels of some training image held the same values."""
        several = [list(fact.intensity.values()) for fact in self.facts if len(fact.intensity) > 1]
        return any(all(channel == channels[0] for channel in channels) for channels in several)

    @cached_property
    def _known_sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest field of view, and spacing, sorted within each image, in mm: (2, 3) each."""
        views = np.sort([np.array(fact.shape) * fact.spacing_mm for fact in self.facts], axis=1)
        spacings = np.sort([fact.spacing_mm for fact in self.facts], axis=1)
        return np.stack([views.min(0), views.max(0)]), np.stack([spacings.min(0), spacings.max(0)])

    @cached_property
    def _known(self) -> dict[str, tuple[float, list[tuple[float, float]]]]:
        """Modality -> its lowest value, and the range of each feature, over all images that have it."""
        known = {}
        for modality in self.modalities:
            facts = [fact.intensity[modality] for fact in self.facts if modality in fact.intensity]
            if facts:
                ranges = [(min(map(feature, facts)), max(map(feature, facts))) for _, feature in FEATURES]
                known[modality] = min(each["min"] for each in facts), ranges
        return known


def familiar_with(run: Path, *, spacing_known: bool = True, masked: bool = False) -> Familiar | None:
    """The training images of a run or of all folds of a cross-validation; None where the record can't be read."""
    try:
        audit, split = Audit.load(runs_of(run)[0].path / "audit.json"), learned_split(run)
    except DatasetError:
        return None
    learned = {*split.train, *split.validation}
    facts = tuple(fact for fact in audit.facts if fact.id in learned)
    return Familiar(facts, audit.modalities, spacing_known, masked) if facts else None


def _outside(values: np.ndarray, known: np.ndarray, factor: float) -> bool:
    return bool((values * factor < known.min(0)).any() or (values > factor * known.max(0)).any())


def _mm(values: np.ndarray) -> str:
    return " × ".join(f"{value:.3g}" for value in values)


def _strange_values(values: Mapping[str, float], lowest: float, ranges: Sequence[tuple[float, float]]) -> list[str]:
    differences = []
    width = values["p99_5"] - values["p0_5"]
    if values["p0_5"] < -BELOW * width and lowest >= 0:
        differences.append("many of its values are below 0, none of theirs")
    for (what, feature), (low, high) in zip(FEATURES, ranges, strict=True):
        own = feature(values)
        if own < low - SHARE or own > high + SHARE:
            at = "at " if "median" in what else ""
            differences.append(f"{at}{own:.0%} {what}, theirs {low:.0%} to {high:.0%}")
    return differences


def _middle(values: Mapping[str, float]) -> float:
    width = values["p99_5"] - values["p0_5"]
    return (values["p50"] - values["p0_5"]) / width if width > 0 else 0.0


FEATURES: tuple[tuple[str, Callable[[Mapping[str, float]], float]], ...] = (
    ("of its voxels are 0", lambda each: each["zero_fraction"]),
    ("of its range of grey values lies its median", _middle),
)

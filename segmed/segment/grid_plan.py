"""Fingerprint -> orientation, spacing, crop, intensities, and whether slices or volumes are seen; with reasons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from segmed.builders.segmenters import PLANE_AXES
from segmed.config import SegmentationConfig
from segmed.data.audit import CaseFacts
from segmed.errors import ConfigError

THICK = 3.0  # largest over smallest spacing from which slices count as thick
FEW_SLICES = 16  # a thick stack with at most so many slices has little to see across them


class GridPlanner:
    """Decides what a network sees of the cases; `reasons` grows as values are set."""

    def __init__(self, config: SegmentationConfig, facts: Sequence[CaseFacts]) -> None:
        self.config = config
        self.facts = facts
        self.reasons: dict[str, str] = {}
        self.shapes = np.array([fact.shape for fact in facts], float)
        self.bodies = np.array([fact.body_shape for fact in facts], float)
        self.spacings = np.array([fact.spacing_mm for fact in facts], float)
        unknown = (np.nan,) * 3
        self.labelled = np.array([fact.label_shape or unknown for fact in facts], float)

    def set(self, key: str, value: Any, reason: str) -> None:
        """Replace one value, its section or sections before a dot, and keep the reason."""
        *sections, field = key.split(".")
        parts = [self.config, *accumulate(sections, getattr, initial=self.config)][1:]
        changed: Any = value
        for part, name in zip(reversed(parts), [field, *reversed(sections)], strict=True):
            changed = part.model_copy(update={name: changed})
        self.config = changed
        self.reasons[key] = reason

    def is_auto(self, key: str) -> bool:
        section, field = key.split(".")
        return getattr(getattr(self.config, section), field, None) == "auto"

    # -- geometry and intensity

    def orientation(self) -> None:
        """Choose how axes are ordered; from here on the fingerprint stands in that order."""
        across = self.spacings.argmax(axis=1)
        thick = self.spacings.max(axis=1) / self.spacings.min(axis=1) > THICK
        if self.is_auto("preprocess.orientation"):
            if thick.mean() > 0.5 and (across[thick] != 2).any():
                why = "thick stacks that point in different ways: their slices become the last axis"
                self.set("preprocess.orientation", "slices_last", why)
            else:
                self.set("preprocess.orientation", "ras", "the canonical axes")
        if self.config.preprocess.orientation == "slices_last":
            if self.config.augment.flip_probability:
                raise ConfigError(
                    "augment.flip_probability needs left and right along the first axis, which "
                    "preprocess.orientation slices_last does not promise: set one of them otherwise"
                )
            order = np.array([[a for a in range(3) if a != last] + [last] for last in across])
            for name in ("shapes", "bodies", "spacings", "labelled"):
                setattr(self, name, np.take_along_axis(getattr(self, name), order, axis=1))

    def preprocessing(self) -> None:
        """Resolve everything up to the grid and the intensities that a network sees."""
        self.orientation()
        flat = bool((self.shapes[:, 2] == 1).all())
        median = np.median(self.spacings, axis=0)
        thick = not flat and median.max() / median.min() > THICK
        across = int(median.argmax())
        if self.is_auto("patches.dims"):
            slices = int(np.median(self.shapes[:, across]))
            if flat:
                self.set("patches.dims", 2, "the images are single slices")
            elif thick and slices <= FEW_SLICES:
                why = f"slices of {median[across]:.3g} mm, {slices} a volume: little to see across them"
                self.set("patches.dims", 2, why)
            else:
                self.set("patches.dims", 3, f"spacing {joined(median)} mm, {slices} slices: volumes hold context")
        if self.is_auto("preprocess.spacing_mm"):
            self._spacing(median, flat=flat, thick=thick, across=across)
        if self.is_auto("preprocess.separate_z"):
            self.set(
                "preprocess.separate_z",
                bool(thick),
                f"spacing {joined(median)} mm: {'thick' if thick else 'thin'} slices",
            )
        if self.is_auto("preprocess.interpolation"):
            self.set("preprocess.interpolation", "linear", "never overshoots the scanner's intensities")
        if self.config.patches.plane == "auto":
            names = {axis: name for name, axis in PLANE_AXES.items() if name != "slices"}
            plane = "slices" if self.config.preprocess.orientation == "slices_last" else names[across if thick else 2]
            self.set("patches.plane", plane, "across the thickest axis" if thick else "the usual reading direction")
        if self.config.patches.dims == 2 and self.config.preprocess.intensity == "median_minmax":
            across = PLANE_AXES[self.config.patches.plane]
            self.set("preprocess.slices_across", across, "median_minmax scales the slices that the network sees")
        self._crop_and_intensity()

    def _spacing(self, median: np.ndarray, *, flat: bool, thick: bool, across: int) -> None:
        if flat or len(np.unique(np.round(self.spacings, 3), axis=0)) == 1:
            self.set("preprocess.spacing_mm", "native", f"all cases have {joined(self.spacings[0])} mm")
            return
        target = [float(f"{value:.4g}") for value in median]
        reason = "median of the cases"
        if thick and self.config.patches.dims == 2:
            target[across] = 0.0
            reason += "; across the slices each case keeps its own, nothing is invented between them"
        elif thick:
            target[across] = float(f"{np.percentile(self.spacings[:, across], 10):.4g}")
            reason += "; across thick slices the 10th percentile, so that no slice is thrown away"
        self.set("preprocess.spacing_mm", tuple(target), reason)

    def _crop_and_intensity(self) -> None:
        statistics = [values for fact in self.facts for values in fact.intensity.values()]
        zero = float(np.median([values["zero_fraction"] for values in statistics]))
        mean = float(np.median([values["mean"] for values in statistics]))
        sd = float(np.median([values["sd"] for values in statistics]))
        lowest = float(np.median([values["min"] for values in statistics]))
        body = self.bodies.prod(1) / self.shapes.prod(1)
        if self.is_auto("preprocess.crop"):
            if zero > 0.2:
                self.set("preprocess.crop", "nonzero", f"{zero:.0%} of the voxels are zero: masked images")
            elif float(np.median(body)) < 0.75:
                why = f"the body fills {float(np.median(body)):.0%} of the volume"
                self.set("preprocess.crop", "body", why)
            else:
                self.set("preprocess.crop", "none", "the patient fills the volume")
        if self.is_auto("preprocess.intensity"):
            if abs(mean) < 0.2 * sd and 0.5 < sd < 2 and lowest < 0:
                self.set("preprocess.intensity", "none", f"z-scored already: mean {mean:.2f}, SD {sd:.2f}")
            elif zero > 0.2:
                self.set("preprocess.intensity", "zscore_nonzero", "masked images: the zeros say nothing of the tissue")
            else:
                self.set("preprocess.intensity", "zscore", "MR intensities have no unit: each volume to mean 0, SD 1")


def joined(values: Sequence[float] | np.ndarray) -> str:
    """Numbers as `1 × 2 × 3`."""
    return " × ".join(f"{value:.3g}" for value in values)

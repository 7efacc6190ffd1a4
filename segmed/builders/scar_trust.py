"""The verdict on a case and what its labels mean -> intervals of the mass, the volume and the extent of a scar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from monai.data import MetaTensor

from segmed.builders.observed import CaseJudge, Judged
from segmed.cardiac.heart_labels import HeartValues
from segmed.labels import LabelSet
from segmed.segmenters.segmenter import decide
from segmed.trust.estimates import Interval
from segmed.trust.verdict import CaseTrust


@dataclass(frozen=True)
class ScarTrust:
    """How far the numbers of a scar can be trusted.

    Attributes:
        level: of the intervals.
        flag, reason: of the case.
        scar_ml, wall_ml, scar_percent: intervals of the true values; None: the run has no such label or region.
    """

    level: float
    flag: str
    reason: str
    scar_ml: Interval | None
    wall_ml: Interval | None
    scar_percent: Interval | None

    def to_dict(self, density_g_per_ml: float) -> dict[str, Any]:
        """For JSON, with masses."""
        masses = {
            f"{name}_g": None if volume is None else asdict(grams(volume, density_g_per_ml))
            for name, volume in (("scar", self.scar_ml), ("wall", self.wall_ml))
        }
        return {**asdict(self), **masses}

    def words(self, density_g_per_ml: float) -> str:
        """The intervals in one line, for a page and for JSON."""
        parts = []
        if self.scar_ml is not None:
            parts.append(f"scar {_range(grams(self.scar_ml, density_g_per_ml))} g")
        if self.scar_percent is not None:
            parts.append(f"{_range(self.scar_percent)} % of the LV myocardium")
        if self.wall_ml is not None:
            parts.append(f"LV myocardium {_range(grams(self.wall_ml, density_g_per_ml))} g")
        return f"{100 * self.level:g} % intervals: {', '.join(parts) or 'none'}"


def segmented_scar(judged: Judged, volume: MetaTensor, meaning: HeartValues) -> tuple[np.ndarray, ScarTrust | None]:
    """Label indices (X, Y, Z) of a heart (C, X, Y, Z), and how far its scar can be trusted where that is known."""
    if judged.judge is None:
        return judged.segmenter(volume).numpy(force=True)[0], None
    probabilities, labels = judged.segmenter.probabilities(volume), judged.segmenter.labels
    indices = decide(probabilities.as_tensor(), labels).numpy(force=True)
    trust = judged.judge.trust(volume, probabilities, indices)
    return indices, scar_trust(judged.judge, trust, labels, meaning)


def scar_trust(judge: CaseJudge, trust: CaseTrust, labels: LabelSet, meaning: HeartValues) -> ScarTrust:
    """Intervals of the scar in the case that was judged last.

    Args:
        judge: of the segmenter.
        trust: its verdict.
        labels: of the run.
        meaning: which of their values are wall and scar.
    """
    scar, wall = (_structure(labels, values) for values in (meaning.scar, meaning.wall))
    parts = _labels(labels, meaning.wall)
    intervals = {name: each.interval for name, each in trust.structures.items()}
    return ScarTrust(
        level=trust.level,
        flag=trust.flag,
        reason=trust.reason,
        scar_ml=intervals[scar] if scar else None,
        wall_ml=intervals[wall] if wall else None,
        scar_percent=judge.share_percent(scar, parts) if scar and parts else None,
    )


def grams(volume_ml: Interval, density_g_per_ml: float) -> Interval:
    """A volume as a mass."""
    return Interval(volume_ml.low * density_g_per_ml, volume_ml.high * density_g_per_ml)


def _structure(labels: LabelSet, values: Sequence[int]) -> str | None:
    """The label or region that these values are; None where it takes several."""
    members = _labels(labels, values)
    if len(members) == 1:
        return members[0]
    return next((name for name, own in labels.regions.items() if set(own) == set(members)), None) if members else None


def _labels(labels: LabelSet, values: Sequence[int]) -> tuple[str, ...]:
    """The labels that these values are, no more and no less; none where there are no such labels."""
    own = {name: set(each) for name, each in zip(labels.names, labels.values, strict=True)}
    inside = tuple(name for name, each in own.items() if each & set(values))
    return inside if set().union(*(own[name] for name in inside)) >= set(values) else ()


def _range(interval: Interval) -> str:
    return f"{interval.low:.1f} to {interval.high:.1f}"

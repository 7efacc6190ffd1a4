"""The phases of a cine, segmented by a calibrated run -> intervals of their volumes, and the flags of both ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from monai.data import MetaTensor

from segmed.builders.observed import CaseJudge, Judged, Seen
from segmed.segmenters.segmenter import decide
from segmed.trust.conformal import borne_level
from segmed.trust.verdict import CaseTrust


class CineTrust:
    """What a run knows of the phases of one cine, each of which is a case to it.

    Args:
        judge: of the segmenter.
        seen: what each phase showed, in their order.
    """

    def __init__(self, judge: CaseJudge, seen: Sequence[Seen]) -> None:
        self._judge, self._seen = judge, tuple(seen)

    def interval(self, label: str, phase: int, volume_ml: float, level: float) -> tuple[float, float] | None:
        """The range of the true volume of a label in a phase, in ml; None: the calibration does not bear the level.

        Args:
            label: or region, of the run.
            phase: from 0.
            volume_ml: that was counted; it is among the signs already.
            level: of the range.
        """
        evidence = self._judge.evidence
        if level > borne_level(evidence.subjects) or label not in evidence.structures or evidence.volume_unit != "ml":
            return None
        interval = self._judge.interval(self._seen[phase], label, level)
        return interval.low, interval.high

    def verdict(self, phase: int) -> CaseTrust:
        """How far the label map of a phase, from 0, can be trusted."""
        return self._judge.verdict(self._seen[phase])


def segmented_phases(judged: Judged, phases: Iterable[MetaTensor]) -> tuple[np.ndarray, CineTrust | None]:
    """Label indices (T, X, Y, Z) of volumes (1, X, Y, Z), and what is known of them where the run is calibrated.

    Args:
        judged: the run.
        phases: in their order.
    """
    segmenter, judge = judged.segmenter, judged.judge
    if judge is None:
        return np.stack([segmenter(phase).numpy(force=True)[0] for phase in phases]), None
    maps, seen = [], []
    for phase in phases:
        probabilities = segmenter.probabilities(phase)
        maps.append(decide(probabilities.as_tensor(), segmenter.labels).numpy(force=True))
        seen.append(judge.seen(phase, probabilities, maps[-1]))
    return np.stack(maps), CineTrust(judge, seen)

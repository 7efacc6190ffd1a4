"""Evidence and the signs of a new case -> the range of a label's share of others, such as the extent of a scar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segmed.trust.conformal import check_level
from segmed.trust.estimates import Interval, unease_of
from segmed.trust.evidence import Evidence
from segmed.trust.left_out import Ranges
from segmed.trust.signs import Signs

SOFT = 0.01  # keeps a share of none and of all finite


class ShareEstimates:
    """What evidence says of a label's share of itself and others.

    Args:
        evidence: of a run.
        part: a label, or a region.
        whole: labels that together are the whole, the part among them.
    """

    def __init__(self, evidence: Evidence, part: str, whole: Sequence[str]) -> None:
        self._evidence, self._part, self._whole = evidence, part, tuple(whole)
        signs = [{name: each.signs for name, each in case.structures.items()} for case in evidence.cases]
        true = [{name: each.volume for name, each in case.structures.items()} for case in evidence.cases]
        self._members = [case.member for case in evidence.cases]
        self._ranges = Ranges(
            np.array([self._counted(each) for each in signs]),
            np.array([_unbounded(_share(each[part], [each[name] for name in self._whole])) for each in true]),
            doubts=np.array([self._doubts(each) for each in signs]),
            unease=np.array([unease_of(each[part]) for each in signs]),
            subjects=[case.subject for case in evidence.cases],
        )

    def percent(self, signs: Sequence[Mapping[str, Signs]], level: float) -> Interval:
        """The range of the true share of a new case, in per cent.

        Args:
            signs: of its structures, by each predictor.
            level: of the range.

        Raises:
            MetricError: fewer subjects than the level needs.
        """
        check_level(level, self._evidence.subjects)
        low, high = self._ranges.around(
            np.array([self._counted(signs[member]) for member in self._members]),
            doubts=np.array([self._doubts(signs[member]) for member in self._members]),
            unease=np.array([unease_of(signs[member][self._part]) for member in self._members]),
            level=level,
        )
        return Interval(100 * _to_share(low), 100 * _to_share(high))

    def _counted(self, signs: Mapping[str, Signs], of: str = "volume") -> float:
        return _unbounded(_share(signs[self._part][of], [signs[name][of] for name in self._whole]))

    def _doubts(self, signs: Mapping[str, Signs]) -> list[float]:
        return [self._counted(signs, "soft_volume") - self._counted(signs), signs[self._part]["overlap"]]


def _share(part: float, whole: Sequence[float]) -> float:
    total = sum(whole)
    return min(1.0, part / total) if total > 0 else 0.0


def _unbounded(share: float) -> float:
    return float(np.log((share + SOFT) / (1 - share + SOFT)))


def _to_share(value: float) -> float:
    odds = float(np.exp(np.clip(value, -50, 50)))
    return float(np.clip((odds * (1 + SOFT) - SOFT) / (1 + odds), 0.0, 1.0))

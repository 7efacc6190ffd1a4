"""A case's signs -> its volumes with intervals, the Dice to expect, and one flag with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from segmed.trust.conformal import check_level
from segmed.trust.estimates import ExpectedDice, Interval, StructureEstimates
from segmed.trust.evidence import Evidence
from segmed.trust.signs import Signs
from segmed.trust.strangeness import Familiarity, Strangeness

Flag = Literal["good", "look at it", "do not use"]
FLAGS: tuple[Flag, ...] = ("good", "look at it", "do not use")  # the worse, the later
STRANGE, ALIEN = 1.0, 2.0  # times as far out as usual cases: to be looked at, not to be used
LIKELY = 0.5  # probability of a failure from which on a case is not to be used


@dataclass(frozen=True)
class StructureTrust:
    """One label or region of a case.

    Attributes:
        volume: of the label map.
        interval: of the true volume, at the level.
        dice: to expect.
    """

    volume: float
    interval: Interval
    dice: ExpectedDice


@dataclass(frozen=True)
class CaseTrust:
    """How far a case can be trusted.

    Attributes:
        level: of intervals and lower bounds.
        volume_unit: ml, or voxels.
        structures: labels, then regions.
        flag: one of three.
        reason: of the flag, in words.
        risk: by which cases are ranked; the larger, the less a case can be trusted.
    """

    level: float
    volume_unit: str
    structures: Mapping[str, StructureTrust]
    flag: Flag
    reason: str
    risk: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Judge:
    """Says of new cases how far their predictions can be trusted.

    Args:
        evidence: of a run.
        level: of intervals and lower bounds.

    Raises:
        MetricError: fewer subjects than the level needs.
    """

    def __init__(self, evidence: Evidence, level: float = 0.9) -> None:
        check_level(level, evidence.subjects)
        self.evidence, self.level = evidence, level
        self._estimates = {name: StructureEstimates(evidence, name) for name in evidence.structures}
        self._familiarity = Familiarity(evidence)

    def judge(self, scan: Signs, signs: Sequence[Mapping[str, Signs]], volumes: Mapping[str, float]) -> CaseTrust:
        """The verdict on one case.

        Args:
            scan: signs of its image.
            signs: of its structures, by each predictor.
            volumes: of its structures, in the unit of the evidence.
        """
        structures = {}
        for name, estimates in self._estimates.items():
            own = [each[name] for each in signs]
            interval, dice = estimates.volume(own, self.level), estimates.dice(own, self.level)
            structures[name] = StructureTrust(volumes[name], interval, dice)
        strangeness = self._familiarity.of(scan, signs)
        flag, reason = self._flag(structures, strangeness)
        risk = max(max(each.dice.failure for each in structures.values()), 1 - 1 / max(1.0, strangeness.ratio))
        return CaseTrust(self.level, self.evidence.volume_unit, structures, flag, reason, risk)

    def volume(self, name: str, signs: Sequence[Mapping[str, Signs]], level: float) -> Interval:
        """The range of the true volume of one structure, at any level; see `StructureEstimates.volume`."""
        return self._estimates[name].volume([each[name] for each in signs], level)

    def _flag(self, structures: Mapping[str, StructureTrust], strangeness: Strangeness) -> tuple[Flag, str]:
        failure, percent = self.evidence.failure_dice, f"{100 * self.level:g} %"
        name, worst = max(structures.items(), key=lambda item: (item[1].dice.failure, -item[1].dice.mean))
        low, doubtful = min(structures.items(), key=lambda item: item[1].dice.lower)
        unlike = f"unlike all calibration cases: {strangeness.what}"
        if strangeness.ratio > ALIEN:
            return "do not use", unlike
        if worst.dice.failure >= LIKELY:
            likely = f"{100 * worst.dice.failure:.0f} %"
            return (
                "do not use",
                f"{name}: a Dice below {failure:g} is likely ({likely}; expected {worst.dice.mean:.2f})",
            )
        if strangeness.ratio > STRANGE:
            return "look at it", unlike
        if doubtful.dice.lower < failure:
            return "look at it", f"{low}: its Dice may be as low as {doubtful.dice.lower:.2f} ({percent})"
        return "good", f"every Dice is above {failure:g} with {percent}, and the scan is like those of calibration"

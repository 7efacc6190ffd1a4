"""Cases judged by those that they did not calibrate: how often bounds hold, how wide they are, what flags tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from segmed.trust.evidence import CaseEvidence, Evidence
from segmed.trust.verdict import CaseTrust, Judge


@dataclass(frozen=True)
class Share:
    """A number of cases out of others, with its exact 95 % interval (Clopper and Pearson 1934)."""

    count: int
    of: int
    low: float
    high: float

    @classmethod
    def counted(cls, hits: Sequence[bool]) -> Share:
        """Of a row of yes and no; an empty one can be anything."""
        count, of = int(sum(hits)), len(hits)
        if not of:
            return cls(0, 0, 0.0, 1.0)
        interval = stats.binomtest(count, of).proportion_ci(0.95, "exact")
        return cls(count, of, float(interval.low), float(interval.high))

    def __str__(self) -> str:
        return f"{self.count}/{self.of} ({100 * self.low:.0f} to {100 * self.high:.0f} %)" if self.of else "none"


@dataclass(frozen=True)
class StructureFigures:
    """Of one label or region.

    Attributes:
        covered: true volumes inside of their intervals.
        width_percent: mean width of an interval, of the mean true volume.
        above: Dice at or above their lower bounds.
        dice_error: mean distance of the Dice from what was expected.
        failures: Dice below that of a failure.
        auc, auc_entropy: how well the probability of a failure, and entropy alone, tell failures; None: all or none.
    """

    covered: Share
    width_percent: float
    above: Share
    dice_error: float
    failures: int
    auc: float | None
    auc_entropy: float | None


@dataclass(frozen=True)
class Assessment:
    """Figures of cases that did not calibrate what judged them.

    Attributes:
        level: of the bounds.
        structures: by name.
        failures: cases with a Dice below that of a failure in any structure.
        auc, auc_entropy: of the flag's risk, and of the mean entropy of the foreground alone.
        refused: of the failures, those that are not to be used.
        false_alarms: of the others, those that are not to be used.
        good: of the cases that are called good, those that did not fail.
    """

    level: float
    structures: dict[str, StructureFigures]
    failures: int
    auc: float | None
    auc_entropy: float | None
    refused: Share
    false_alarms: Share
    good: Share

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def judged_by_halves(evidence: Evidence, level: float) -> list[CaseTrust]:
    """Every case judged by the evidence of the half of the subjects that it is not in.

    Judging each case by all others would tell nothing of coverage: bounds of ranks then hold in the same number of
    cases whatever the data.

    Raises:
        MetricError: half of the subjects are fewer than the level needs.
    """
    subjects = dict.fromkeys(case.subject for case in evidence.cases)
    half = {subject: number % 2 for number, subject in enumerate(subjects)}
    judges = {}
    for own in (0, 1):
        others = tuple(case for case in evidence.cases if half[case.subject] != own)
        judges[own] = Judge(evidence.model_copy(update={"cases": others}), level)
    return [verdict(judges[half[case.subject]], case) for case in evidence.cases]


def verdict(judge: Judge, case: CaseEvidence) -> CaseTrust:
    """What a judge says of a case whose truth is known, and that it has not seen."""
    signs = {name: each.signs for name, each in case.structures.items()}
    volumes = {name: each.signs["volume"] for name, each in case.structures.items()}
    return judge.judge(case.scan, [signs] * len(judge.evidence.weights), volumes)


def assess(cases: Sequence[CaseEvidence], trusts: Sequence[CaseTrust], failure_dice: float) -> Assessment:
    """Compare verdicts with the truth.

    Args:
        cases: with their truth.
        trusts: of `judged_by_halves`, or of a judge that saw none of them.
        failure_dice: a Dice below it is a failure.
    """
    failed = [any(each.dice < failure_dice for each in case.structures.values()) for case in cases]
    refused = [trust.flag == "do not use" for trust in trusts]
    return Assessment(
        level=trusts[0].level,
        structures={name: _structure(name, cases, trusts, failure_dice) for name in trusts[0].structures},
        failures=sum(failed),
        auc=_auc(failed, [trust.risk for trust in trusts]),
        auc_entropy=_auc(failed, [_entropy(case) for case in cases]),
        refused=Share.counted([no for no, bad in zip(refused, failed, strict=True) if bad]),
        false_alarms=Share.counted([no for no, bad in zip(refused, failed, strict=True) if not bad]),
        good=Share.counted([not bad for trust, bad in zip(trusts, failed, strict=True) if trust.flag == "good"]),
    )


def _structure(
    name: str, cases: Sequence[CaseEvidence], trusts: Sequence[CaseTrust], failure_dice: float
) -> StructureFigures:
    own, judged = [case.structures[name] for case in cases], [trust.structures[name] for trust in trusts]
    pairs = list(zip(own, judged, strict=True))
    failed = [each.dice < failure_dice for each in own]
    width = float(np.mean([one.interval.high - one.interval.low for one in judged]))
    mean = float(np.mean([each.volume for each in own]))
    return StructureFigures(
        covered=Share.counted([one.interval.low <= each.volume <= one.interval.high for each, one in pairs]),
        width_percent=100 * width / mean if mean > 0 else float("nan"),
        above=Share.counted([each.dice >= one.dice.lower for each, one in pairs]),
        dice_error=float(np.mean([abs(each.dice - one.dice.mean) for each, one in pairs])),
        failures=sum(failed),
        auc=_auc(failed, [one.dice.failure - one.dice.mean * 1e-3 for one in judged]),
        auc_entropy=_auc(failed, [each.signs["entropy"] for each in own]),
    )


def _entropy(case: CaseEvidence) -> float:
    """Of all foreground, which is the same in every structure."""
    return next(iter(case.structures.values())).signs["foreground_entropy"]


def _auc(failed: Sequence[bool], scores: Sequence[float]) -> float | None:
    return float(roc_auc_score(failed, scores)) if 0 < sum(failed) < len(failed) else None


def assessment_lines(assessment: Assessment) -> list[str]:
    """The figures in words, a line a structure."""
    level = f"{100 * assessment.level:g} %"
    lines = [
        f"{name}: {level} intervals hold in {one.covered}, mean width {one.width_percent:.0f} % of the volume; "
        f"Dice above its lower bound in {one.above}, expected to {one.dice_error:.3f}"
        for name, one in assessment.structures.items()
    ]
    failures = (
        f"{assessment.failures} failures: not to be used {assessment.refused}, false alarms {assessment.false_alarms}; "
        f"right among those called good {assessment.good}"
    )
    if assessment.auc is not None and assessment.auc_entropy is not None:
        failures += f"; AUC {assessment.auc:.2f}, of entropy alone {assessment.auc_entropy:.2f}"
    return [*lines, failures]

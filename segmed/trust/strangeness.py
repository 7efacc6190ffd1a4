"""How far a case lies from all cases that calibrated a run, and in what, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segmed.trust.conformal import borne_level, subject_weights, upper_bound
from segmed.trust.evidence import Evidence
from segmed.trust.signs import Signs, sign_words

LEVEL = 0.95  # share of usual cases that are not called unlike, where there are enough of them
LOGARITHMIC = {"volume", "soft_volume"}
LEFT_OUT = {"soft_volume", "agreement"}  # the first says what volume says; that networks agree is never strange
# the direction that is strange; the other one is good news
WORSE = {"overlap": -1, "entropy": 1, "foreground_entropy": 1, "pieces": 1}
# differences that mean nothing
LEAST_REACH = {"volume": 0.2, "entropy": 0.02, "foreground_entropy": 0.02, "overlap": 0.02, "roughness": 0.5}
OTHERWISE = 0.05  # of shares, and of what is in units of the range of grey values


@dataclass(frozen=True)
class Strangeness:
    """How unlike the calibration cases a case is.

    Attributes:
        ratio: 1: as far out as the farthest of usual cases; above it: farther.
        what: the sign that lies farthest out, with its value and theirs.
    """

    ratio: float
    what: str


class Familiarity:
    """The range of every sign over the calibration cases.

    Args:
        evidence: of a run.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        rows = [
            _flat(case.scan, {name: each.signs for name, each in case.structures.items()}) for case in evidence.cases
        ]
        self._names = tuple(rows[0])
        self._values = np.array([[row[name] for name in self._names] for row in rows])
        self._least = np.array([LEAST_REACH.get(name.partition("/")[2], OTHERWISE) for name in self._names])
        self._worse = np.array([WORSE.get(name.partition("/")[2], 0) for name in self._names])
        self._subjects = np.array([case.subject for case in evidence.cases])

    def of(self, scan: Signs, structures: Sequence[Mapping[str, Signs]]) -> Strangeness:
        """How strange a new case is.

        Args:
            scan: of `scan_signs`, modality by modality.
            structures: signs of each structure, by each predictor, whose mean counts.
        """
        rows = [_flat(scan, each) for each in structures]
        values = np.mean([[row[name] for name in self._names] for row in rows], axis=0)
        ratios = self._ratios(values, self._values)
        worst = int(ratios.argmax())
        return Strangeness(float(ratios[worst]) / self._usual, self._words(worst, values[worst]))

    @cached_property
    def _usual(self) -> float:
        """The farthest out that usual cases are, each seen from the others."""
        scores = []
        for values, subject in zip(self._values, self._subjects, strict=True):
            others = self._values[self._subjects != subject]
            scores.append(float(self._ratios(values, others).max()) if len(others) else 1.0)
        level = min(LEVEL, borne_level(self._evidence.subjects))
        bound = upper_bound(np.array(scores), subject_weights(self._subjects), level)
        return max(1.0, bound if math.isfinite(bound) else max(scores))

    def _ratios(self, values: np.ndarray, known: np.ndarray) -> np.ndarray:
        """(J,) distance from the middle of each sign, in units of that of the farthest known case."""
        middle = np.median(known, axis=0)
        reach = np.maximum(np.abs(known - middle).max(axis=0), self._least)
        away = (values - middle) / reach
        return np.where(self._worse == 0, np.abs(away), away * self._worse)

    def _words(self, number: int, value: float) -> str:
        name, own = self._names[number], self._values[:, number]
        structure, _, sign = name.partition("/")
        values = [value, float(own.min()), float(own.max())]
        if sign in LOGARITHMIC:
            values = [math.expm1(each) for each in values]
        shown, low, high = (f"{each:.3g}" for each in values)
        subject = f"{structure}: " if structure else ""
        words = sign_words(sign, self._evidence.images)
        return f"{subject}{words} is {shown}, that of the {len(own)} calibration cases {low} to {high}"


def _flat(scan: Signs, structures: Mapping[str, Signs]) -> Signs:
    flat = {f"/{name}": value for name, value in scan.items()}
    for structure, signs in structures.items():
        for name, value in signs.items():
            if name not in LEFT_OUT:
                flat[f"{structure}/{name}"] = math.log1p(value) if name in LOGARITHMIC else value
    return flat

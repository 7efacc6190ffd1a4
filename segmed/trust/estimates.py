"""Evidence and the signs of a new case -> its volumes with intervals and the Dice to expect, structure by structure.

Method: jackknife+ (Barber et al. 2021, doi 10.1214/20-AOS1965) over subjects and over the folds that segmented them:
a calibration case is predicted by the network and by the regression that did not learn from it, a new case by the same
two. Its coverage is at least 2 level - 1 for any distribution, and close to the level in practice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segmed.trust.conformal import check_level, lower_bound, subject_weights
from segmed.trust.evidence import Evidence
from segmed.trust.left_out import LeftOut, Ranges
from segmed.trust.signs import Signs

SMALL_SHARE = 0.1  # of the median volume: below it errors of volumes count as they are, above it by their share
SOFT = 0.02  # keeps a Dice of 0 or 1 finite
VOLUMES = {"volume", "soft_volume", "overlap"}  # signs that count on a scale of their own
EASE = 0.05  # errors of volumes are larger where probabilities expect a lower Dice; this much where they expect 1


@dataclass(frozen=True)
class Interval:
    """A range in which the truth lies, at a level."""

    low: float
    high: float


@dataclass(frozen=True)
class ExpectedDice:
    """What is to be expected of the Dice with a truth that nobody knows.

    Attributes:
        mean: expected.
        lower: exceeded at the level.
        failure: probability that it lies below the Dice of a failure.
    """

    mean: float
    lower: float
    failure: float


class StructureEstimates:
    """What evidence says of one label or region.

    Args:
        evidence: of a run.
        name: of the structure.
    """

    def __init__(self, evidence: Evidence, name: str) -> None:
        self._evidence = evidence
        own = [case.structures[name] for case in evidence.cases]
        self._signs = [each.signs for each in own]
        self._dice = np.array([each.dice for each in own])
        self._volumes = np.array([each.volume for each in own])
        self._subjects = np.array([case.subject for case in evidence.cases])
        self._members = [case.member for case in evidence.cases]
        self._weights = subject_weights(self._subjects)
        positive = self._volumes[self._volumes > 0]
        self._small = SMALL_SHARE * float(np.median(positive)) if positive.size else 1.0

    def dice(self, signs: Sequence[Signs], level: float) -> ExpectedDice:
        """The Dice to expect of a new case.

        Args:
            signs: of the structure, by each predictor.
            level: of the lower bound.

        Raises:
            MetricError: fewer cases than the level needs.
        """
        check_level(level, self._evidence.subjects)
        fits = self._dice_fits
        possible = _to_dice(fits.predict(self._rows(signs, self._quality)) + fits.residuals)
        shares = self._weights / self._weights.sum()
        failure = float(shares[possible < self._evidence.failure_dice].sum())
        lower = max(0.0, lower_bound(possible, self._weights, level))
        return ExpectedDice(float(shares @ possible), lower, failure)

    def volume(self, signs: Sequence[Signs], level: float) -> Interval:
        """The range of the true volume of a new case, in the unit of the evidence; see `dice`."""
        check_level(level, self._evidence.subjects)
        low, high = self._ranges.around(
            self._rows(signs, self._log_volume),
            doubts=self._rows(signs, self._doubts),
            unease=self._rows(signs, unease_of),
            level=level,
        )
        return Interval(*(max(0.0, float(np.exp(bound)) - self._small) for bound in (low, high)))

    # ---------------------------------------------------------------- fits

    @cached_property
    def _dice_fits(self) -> LeftOut:
        """Of the Dice on its unbounded scale."""
        return LeftOut(np.array([self._quality(each) for each in self._signs]), unbounded(self._dice), self._subjects)

    @cached_property
    def _ranges(self) -> Ranges:
        """Of the logarithm of the volume."""
        return Ranges(
            np.array([self._log_volume(each) for each in self._signs]),
            np.log(self._volumes + self._small),
            doubts=np.array([self._doubts(each) for each in self._signs]),
            unease=np.array([unease_of(each) for each in self._signs]),
            subjects=self._subjects,
        )

    def _rows(self, signs: Sequence[Signs], chosen: Callable[[Signs], Any]) -> np.ndarray:
        """(N, ...): what is chosen of the signs of a new case, as the predictor of each calibration case shows them."""
        rows = [chosen(each) for each in signs]
        return np.array([rows[member] for member in self._members])

    # ---------------------------------------------------------------- signs that tell something

    def _log_volume(self, signs: Signs) -> float:
        return float(np.log(signs["volume"] + self._small))

    def _doubts(self, signs: Signs) -> list[float]:
        """How the probabilities differ from what was decided."""
        soft = float(np.log(signs["soft_volume"] + self._small))
        return [soft - self._log_volume(signs), float(unbounded(signs["overlap"]))]

    def _quality(self, signs: Signs) -> list[float]:
        """Signs by which a good label map can be told from a bad one."""
        plain = [value for name, value in signs.items() if name not in VOLUMES]
        return [*self._doubts(signs), self._log_volume(signs), *plain]


def unease_of(signs: Signs) -> float:
    """To which errors of volumes are in proportion, as far as probabilities know."""
    return EASE + 1 - min(1.0, signs["overlap"])


def unbounded(dice: np.ndarray | float) -> np.ndarray:
    """Dice from 0 to 1 -> the whole line."""
    clipped = np.clip(dice, 0.0, 1.0)
    return np.log((clipped + SOFT) / (1 - clipped + SOFT))


def _to_dice(values: np.ndarray) -> np.ndarray:
    """The way back from `unbounded`."""
    odds = np.exp(np.clip(values, -50, 50))
    return np.clip((odds * (1 + SOFT) - SOFT) / (1 + odds), 0.0, 1.0)

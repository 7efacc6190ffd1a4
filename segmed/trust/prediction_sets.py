"""A classifier's probabilities -> the set of classes that holds the true one at a level, and whether to abstain.

Own code rather than MAPIE, as in `segmed.trust.conformal`: images of folds and of subjects count as they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from segmed.config.base import Section
from segmed.trust.conformal import ROUNDING, check_level, subject_weights


class ClassEvidenceCase(Section):
    """A calibration image, without its name: its subject, the network that classified it, truth and probabilities."""

    subject: int
    member: int
    truth: int
    probabilities: tuple[float, ...]


class ClassEvidence(Section):
    """All that calibrates a classifier, or the folds of one.

    Attributes:
        kind: classification.
        version: of this file.
        weights: digests of the networks, in the order of the members.
        classes: in the order of the probabilities.
        drawn_from: where the images come from, in words.
        cases: images, without names.
    """

    kind: Literal["classification"] = "classification"
    version: Literal[1] = 1
    weights: tuple[str, ...]
    classes: tuple[str, ...]
    drawn_from: str
    cases: Annotated[tuple[ClassEvidenceCase, ...], Field(min_length=1)]

    @property
    def subjects(self) -> int:
        """How many different ones there are."""
        return len({case.subject for case in self.cases})


class PredictionSets:
    """Sets of classes that hold the true one at a level, whatever the network.

    A class is in the set unless nearly all calibration images gave their true class a higher probability: with one
    network that is split-conformal prediction, with folds the cross-conformal one, in which each calibration image is
    compared with what its own fold says of the new one.

    Args:
        evidence: of the run.
        level: between 0 and 1.

    Raises:
        MetricError: fewer subjects than the level needs.

    Source: Sadinle et al. 2019 (doi 10.1080/01621459.2017.1395341); Romano et al. 2020 (arXiv 2006.02544), CV+.
    """

    def __init__(self, evidence: ClassEvidence, level: float = 0.9) -> None:
        check_level(level, evidence.subjects)
        self.evidence, self.level = evidence, level
        self._members = np.array([case.member for case in evidence.cases])
        self._doubts = np.array([1 - case.probabilities[case.truth] for case in evidence.cases])
        self._weights = subject_weights([case.subject for case in evidence.cases])

    def classes(self, probabilities: np.ndarray) -> tuple[str, ...]:
        """The set of one image.

        Args:
            probabilities: (M, K), of each network.

        Returns:
            Names; one: the answer; several: the image does not tell; none: it is like no class that is known.
        """
        doubts = 1 - np.asarray(probabilities, dtype=float)[self._members]
        less = (self._doubts[:, None] < doubts - ROUNDING) * self._weights[:, None]
        return tuple(
            name
            for name, below in zip(self.evidence.classes, less.sum(axis=0), strict=True)
            if below < self.level - ROUNDING
        )


def set_words(classes: Sequence[str]) -> str:
    """A set as the cell of a table."""
    return " | ".join(classes) if classes else "none"

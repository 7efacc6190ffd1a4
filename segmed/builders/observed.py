"""Trained runs -> one segmenter whose networks are watched, and the judge of its cases where they are calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from segmed.builders.ensembles import Member, common_cleaning
from segmed.builders.segmenters import cleaned
from segmed.builders.trained import load_together
from segmed.errors import ConfigError
from segmed.segmenters.engines import Engine
from segmed.segmenters.segmenter import Segmenter
from segmed.trust.conformal import subjects_needed, too_few
from segmed.trust.estimates import Interval
from segmed.trust.evidence import Evidence, read_evidence
from segmed.trust.observer import Observer, Predictor
from segmed.trust.shares import ShareEstimates
from segmed.trust.signs import Signs, scan_signs
from segmed.trust.verdict import CaseTrust, Judge

USUAL_LEVEL = 0.9


@dataclass(frozen=True)
class Observed:
    """A segmenter and what watches its networks.

    Attributes:
        segmenter: whose `probabilities` are watched.
        observer: knows the signs of the case that was segmented last.
    """

    segmenter: Segmenter
    observer: Observer


def load_observed(
    members: Sequence[Member],
    *,
    predictor: Predictor,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
    engine: Engine = "torch",
) -> Observed:
    """Several trained runs as one segmenter that is watched.

    Args:
        members, device, changes, engine: as in `load_together`.
        predictor: whose signs are wanted.

    Raises:
        RunError: as in `load_run`.
    """
    pieces = common_cleaning(members).model_copy(update=changes or {})
    spacing_known = members[0].config.data.spacing_known
    observer = Observer(predictor, clean=partial(cleaned, inference=pieces), spacing_known=spacing_known)
    segmenter = load_together(members, device=device, changes=changes, engine=engine, each=observer.watch)
    return Observed(segmenter, observer)


def inference_settings(members: Sequence[Member], changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What of the settings changes probabilities or label maps: evidence of other settings does not hold."""
    changes = changes or {}
    pieces = common_cleaning(members).model_copy(update=changes)
    own = [member.config.inference.model_copy(update=changes) for member in members]
    return {
        "mirror": [each.mirror for each in own],
        "overlap": [each.overlap for each in own],
        "largest_component": list(pieces.largest_component),
        "smallest_ml": dict(pieces.smallest_ml),
    }


@dataclass(frozen=True)
class Seen:
    """What a case showed while it was segmented.

    Attributes:
        scan: signs of its image.
        signs: of its structures, by each predictor.
        volumes: of its structures, as they were counted.
    """

    scan: Signs
    signs: tuple[dict[str, Signs], ...]
    volumes: dict[str, float]


class CaseJudge:
    """How far each case of a watched segmenter can be trusted.

    Args:
        observer: of the segmenter.
        judge: with the evidence of the same networks.
    """

    def __init__(self, observer: Observer, judge: Judge) -> None:
        self._observer, self._judge = observer, judge
        self._signs: tuple[dict[str, Signs], ...] = ()
        self.calibration = f"{judge.evidence.digest} at {judge.level:g}"

    @property
    def evidence(self) -> Evidence:
        """By which it judges."""
        return self._judge.evidence

    def seen(self, volume: MetaTensor, probabilities: MetaTensor, indices: np.ndarray) -> Seen:
        """What the case showed that was segmented last.

        Args:
            volume: (C, X, Y, Z), as it is in the file.
            probabilities: (L + 1, X, Y, Z), of the segmenter.
            indices: (X, Y, Z), decided from them.
        """
        signs = self._observer.signs(volume, probabilities, indices)
        return Seen(scan_signs(volume), signs, self._observer.volumes(volume, indices))

    def verdict(self, seen: Seen) -> CaseTrust:
        """Of a case that was seen."""
        return self._judge.judge(seen.scan, seen.signs, seen.volumes)

    def interval(self, seen: Seen, name: str, level: float) -> Interval:
        """The range of the true volume of a label or region in a case that was seen.

        Raises:
            MetricError: a level that needs more subjects.
        """
        return self._judge.volume(name, seen.signs, level)

    def trust(self, volume: MetaTensor, probabilities: MetaTensor, indices: np.ndarray) -> CaseTrust:
        """Of the case that was segmented last; arguments are those of `seen`."""
        seen = self.seen(volume, probabilities, indices)
        self._signs = seen.signs
        return self.verdict(seen)

    def share_percent(self, part: str, whole: Sequence[str]) -> Interval:
        """The range of a label's share, in the case that was judged last; see `ShareEstimates`."""
        return ShareEstimates(self._judge.evidence, part, whole).percent(self._signs, self._judge.level)

    def __call__(self, volume: MetaTensor, probabilities: MetaTensor, indices: np.ndarray) -> dict[str, Any]:
        """The same, for JSON."""
        return {"calibration": self.calibration, **self.trust(volume, probabilities, indices).to_dict()}


@dataclass(frozen=True)
class Judged:
    """A segmenter, and what judges its cases.

    Attributes:
        segmenter: of the runs.
        judge: None: no evidence holds for it.
        why_not: in words; empty where no run was calibrated, or where there is a judge.
    """

    segmenter: Segmenter
    judge: CaseJudge | None = None
    why_not: str = ""


def load_judged(
    runs: Sequence[Path],
    members: Sequence[Member],
    *,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
    level: float | None = None,
    engine: Engine = "torch",
) -> Judged:
    """Several trained runs as one segmenter, with what judges its cases where the run is calibrated.

    Args:
        runs: as they were named.
        members, device, changes, engine: as in `load_together`.
        level: of intervals and lower bounds; None: 0.9, where there are enough cases for it.

    Raises:
        RunError: as in `load_run`; a calibration that is damaged or of another version.
        MetricError: a level that is given, and needs more cases.
        ConfigError: a level for runs that are not calibrated.
    """
    evidence, why_not = _evidence_for(runs, members, changes)
    if evidence is not None and level is None and evidence.subjects < subjects_needed(USUAL_LEVEL):
        why_not = f"no intervals: {too_few(USUAL_LEVEL, evidence.subjects)}, as --level 0.8"
        evidence = None
    if evidence is None:
        if level is not None:
            calibrate = f"calibrate it with segmed calibrate --run {runs[0]}" if runs else "it is not calibrated"
            raise ConfigError(f"--level {level:g}: {why_not or f'{runs[0]} is not calibrated: {calibrate}'}")
        return Judged(load_together(members, device=device, changes=changes, engine=engine), why_not=why_not)
    judge = Judge(evidence, USUAL_LEVEL if level is None else level)
    observed = load_observed(members, predictor=evidence.predictor, device=device, changes=changes, engine=engine)
    return Judged(observed.segmenter, CaseJudge(observed.observer, judge))


def _evidence_for(
    runs: Sequence[Path], members: Sequence[Member], changes: Mapping[str, Any] | None
) -> tuple[Evidence | None, str]:
    """The evidence that runs keep, or why it does not hold for them and their settings."""
    kept = [each for each in map(read_evidence, runs) if each is not None]
    if not kept:
        return None, ""
    if len(runs) > 1:
        return None, "no intervals: each run was calibrated by itself, not the runs together"
    evidence = kept[0]
    if list(evidence.weights) != [member.digest for member in members]:
        again = f"calibrate anew with segmed calibrate --run {runs[0]}"
        return None, f"no intervals: {runs[0]} was calibrated with other weights; {again}"
    settings = inference_settings(members, changes)
    other = [name for name, value in settings.items() if evidence.settings.get(name) != value]
    if other:
        return None, f"no intervals: {runs[0]} was calibrated with another {' and '.join(other)}"
    return evidence, ""

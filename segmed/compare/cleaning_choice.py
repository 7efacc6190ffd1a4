"""Loose pieces of a row's tissue: which rule its test cases get, and what the training of a run has chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmed.builders.segmenters import stages_of
from segmed.compare.tested_runs import TestedRun, parts_of
from segmed.config import InferenceConfig, StageConfig, known
from segmed.evaluate.results import json_facts
from segmed.labels import IGNORE
from segmed.metrics.mask_metrics import overlaps
from segmed.runs import Run, read_config
from segmed.segmenters.cleaning import is_gain, small_pieces
from segmed.segmenters.combine import loose_pieces

CHOSEN = "inference.largest_component"  # in the reasons of a plan


@dataclass(frozen=True)
class Cleaning:
    """A rule for the connected pieces of a tissue; voxels are connected by faces, edges and corners.

    Attributes:
        rule: `largest`: the largest piece stays alone; a number: pieces below so many ml go; None: all stay.
        why: on what it was chosen.
    """

    rule: str | float | None = None
    why: str = ""

    def dropped(self, tissue: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
        """What of a mask (X, Y, Z) goes, as a mask."""
        if self.rule is None:
            return np.zeros_like(tissue)
        return loose_pieces(tissue) if self.rule == "largest" else small_pieces(tissue, spacing_mm, float(self.rule))

    def text(self, tissue: str) -> str:
        """In words: `largest piece of scar, on 4 validation cases`.

        Args:
            tissue: its name.
        """
        what = "none" if self.rule is None else largest_of([tissue]) if self.rule == "largest" else below(self.rule)
        return f"{what}, {self.why}" if self.why else what


@dataclass(frozen=True)
class Judged:
    """The tissue that a method finds in a case whose reference is known.

    Attributes:
        tissue: (X, Y, Z) bool.
        reference: (X, Y, Z) label indices with IGNORE.
        spacing_mm: of the voxels.
    """

    tissue: np.ndarray
    reference: np.ndarray
    spacing_mm: tuple[float, float, float]


def best_rule(candidates: Sequence[str | float], cases: Sequence[Judged], target: int) -> str | float | None:
    """The candidate with the largest mean gain in Dice, by the same measure as in training; None: none gains.

    Args:
        candidates: rules of `Cleaning`; of equal ones the first is taken.
        cases: that are not tested.
        target: index of the tissue.
    """
    before = [_dice(case, case.tissue, target) for case in cases]
    best, most = None, 0.0
    for rule in candidates:
        kept = [case.tissue & ~Cleaning(rule).dropped(case.tissue, case.spacing_mm) for case in cases]
        gains = [_dice(case, mask, target) - old for case, mask, old in zip(cases, kept, before, strict=True)]
        if gains and is_gain(gains) and sum(gains) > most:
            best, most = rule, sum(gains)
    return best


def _dice(case: Judged, tissue: np.ndarray, target: int) -> float:
    return overlaps(tissue & (case.reference != IGNORE), case.reference == target)["dice"]


# ---------------------------------------------------------------- in words


def largest_of(names: Sequence[str]) -> str:
    """Of labels and regions."""
    return f"largest piece of {' and '.join(names)}"


def below(volume_ml: float | str, *, of: str = "") -> str:
    """Of small pieces, of one label or of all."""
    return f"pieces{of and f' of {of}'} below {float(volume_ml):g} ml dropped"


def over_folds(texts: Sequence[str]) -> str:
    """One text where all folds agree, else each with the number of its folds."""
    each = list(dict.fromkeys(texts))
    return (
        each[0] if len(each) == 1 else "; ".join(f"{text} ({texts.count(text)} of {len(texts)} folds)" for text in each)
    )


# ---------------------------------------------------------------- runs


def cleaning_of_run(run: TestedRun) -> str:
    """What the training of a run, or of its folds, chose on validation, or what its config says."""
    return over_folds([_of_part(part) for part in parts_of(run.path)])


def _of_part(part: Run) -> str:
    config = read_config(part)
    stages, small = stages_of(config), _small_ones(config.inference)
    if not stages:
        return "; ".join([_of_network(part), *small])
    texts = [
        f"{name} stage: {cleaning_of_stage(part, name, stage)}" if name else cleaning_of_stage(part, name, stage)
        for name, stage in stages
    ]
    largest = config.inference.largest_component
    of_result = [f"{largest_of(largest)}, as configured"] if largest != "auto" and largest else []
    return "; ".join([*texts, *(f"result: {text}" for text in (*of_result, *small))])


def _small_ones(inference: InferenceConfig) -> list[str]:
    """The small pieces that a config names."""
    return [f"{below(ml, of=name)}, as configured" for name, ml in inference.smallest_ml.items()]


def cleaning_of_stage(part: Run, name: str, stage: StageConfig) -> str:
    """What the networks of a stage chose, and what is done to the label map of each.

    Args:
        part: the run.
        name: of the stage's folder in it.
        stage: its section of the config.
    """
    members = [Run(part.path / name / view) for view in known(stage.views)]
    texts = list(dict.fromkeys(_of_network(member) for member in members))
    return " or ".join(texts) + (f", {below(stage.smallest_ml)}, as configured" if stage.smallest_ml else "")


def _of_network(run: Run) -> str:
    if not run.config.is_file():
        return "not known"
    names = read_config(run).inference.largest_component
    reasons = json_facts(run.plan).get("reasons")
    reason = str(reasons.get(CHOSEN, "")) if isinstance(reasons, dict) else ""
    what = "none" if names == "auto" or not names else largest_of(names)
    if names == "auto":
        return what
    why = "on validation" if reason.startswith("validation") else reason or "as configured"
    return f"{what}, {why}"

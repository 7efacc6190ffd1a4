"""What a table of scores must say beside its figures: cases left out, learned from, or without a partner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segmed.data.pairs import Pairing
    from segmed.evaluate.scoring import Scores


def where_tested(run: Path) -> str:
    """What to do for figures of cases that a run never saw."""
    from segmed.runs import Folds

    if Folds(run).begun:
        return f"all folds together have learnt from every case, and each fold's own test is in {Folds(run).test}"
    return "leave out --test-only, or give cases that it never saw"


def model_notes(model: Path | None) -> list[str]:
    """That nobody can tell a test from training cases, where a model does not name its cases."""
    from segmed.builders.model_file import read_index

    if model is None or read_index(model)["cases"]:
        return []
    return [
        f"{model.name} does not say which cases it has learnt from: only whoever trained it knows if this is a test"
    ]


def run_notes(run: Path | None, learned: Sequence[str]) -> list[str]:
    """Which of the cases the run was trained or selected on, and the leaks that its plan notes."""
    from segmed.evaluate.answers import LEAKING
    from segmed.evaluate.results import first_few, notes_of_run
    from segmed.runs import Folds, runs_of

    notes = []
    if learned:
        notes.append(f"{len(learned)} of the cases trained or selected the run, no test: {first_few(learned)}")
    if learned and run is not None and Folds(run).begun:
        notes.append(f"as one model the folds have seen these cases; {where_tested(run)}")
    if run is not None:
        each = [note for part in runs_of(run) for note in notes_of_run(part) if LEAKING in note]
        notes += dict.fromkeys(each)
    return notes


def notes_of_files(pairing: Pairing, scores: Scores, *, allow_missing: bool) -> list[str]:
    """What is not in the figures, or not as one might think, a line each."""
    from segmed.evaluate.results import first_few

    notes = [f"case {case} is left out: {why}" for case, why in scores.failed.items()]
    if pairing.missing:
        count, names = len(pairing.missing), first_few(pairing.missing)
        how = "left out" if allow_missing else "counted as misses (--allow-missing leaves them out)"
        notes.append(f"{count} references have no prediction and are {how}: {names}")
    if pairing.unused:
        notes.append(
            f"{len(pairing.unused)} files have no reference: {first_few([path.name for path in pairing.unused])}"
        )
    if scores.strange:
        values = ", ".join(f"{value} (in {count} cases)" for value, count in scores.strange.items())
        notes.append(f"values of predictions that no label and no reference has, taken as background: {values}")
    if scores.absent:
        notes.append(f"in no reference: {', '.join(scores.absent)}; check the values of --labels")
    return notes

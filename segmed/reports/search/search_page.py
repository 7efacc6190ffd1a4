"""The trials of a search -> one page: the winner and its test, what mattered, and a table of all trials."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from segmed.reports.rendering import Picture, read_json, write_page
from segmed.reports.search.search_figures import importance_figure, parallel_figure

NONE = "–"
LEAST = 2  # trials with a score before lines are drawn
DPI = 150


@dataclass(frozen=True)
class ShownTrial:
    """What the page says of a trial.

    Attributes:
        number: counted from 0.
        state: done, pruned, failed or running.
        score: its best on validation; None where nothing was validated.
        validations: how many there were.
        seconds: from its first to its last; None while it runs.
        values: field -> what it was.
        error: why it failed.
    """

    number: int
    state: str
    score: float | None
    validations: int
    seconds: float | None
    values: Mapping[str, Any]
    error: str = ""


def write_search_page(
    path: Path,
    *,
    title: str,
    trials: Sequence[ShownTrial],
    importance: Mapping[str, float],
    logarithmic: frozenset[str],
    tested: tuple[int, Path] | None,
    folds: int | None = None,
) -> Path:
    """Write the page; pictures lie within it, and it loads nothing.

    Args:
        path: of the page.
        title: of the experiment.
        trials: all of them.
        importance: field -> share of the variance of the score.
        logarithmic: fields that were drawn on a logarithmic scale.
        tested: number and run of the winner; None: it is not chosen yet.
        folds: by the validation parts of how many a trial was scored; None: by that of one split.

    Raises:
        DiskError: the folder can't be written.
    """
    ranked = sorted(trials, key=lambda trial: (-1.0 if trial.score is None else -trial.score, trial.number))
    ranked.sort(key=lambda trial: trial.state != "done")
    fields = list(dict.fromkeys(name for trial in trials for name in trial.values))
    rows = [_row(trial, fields, wins=tested is not None and trial.number == tested[0]) for trial in ranked]
    return write_page(
        path,
        "search.html",
        title=f"{title}: search",
        key=_key(trials, tested),
        pictures=_pictures(ranked, fields, importance, logarithmic),
        head=("trial", "state", "score", "validations", "seconds", *fields),
        rows=rows,
        failed=[f"trial {trial.number}: {trial.error}" for trial in trials if trial.error],
        winner=None if tested is None else str(tested[1]),
        values=_values(trials, tested),
        folds=folds,
    )


def _row(trial: ShownTrial, fields: Sequence[str], *, wins: bool) -> list[str]:
    score = NONE if trial.score is None else f"{trial.score:.4f}"
    seconds = NONE if trial.seconds is None else f"{trial.seconds:.0f}"
    cells = [_text(trial.values[name]) if name in trial.values else NONE for name in fields]
    return [f"{trial.number}{' (winner)' if wins else ''}", trial.state, score, str(trial.validations), seconds, *cells]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _key(trials: Sequence[ShownTrial], tested: tuple[int, Path] | None) -> list[tuple[str, str, str]]:
    """Counts, the winner's score on validation and its Dice on the test part."""
    counts = [(state, sum(trial.state == state for trial in trials)) for state in ("done", "pruned", "failed")]
    key = [(str(count), "", f"trials {state}") for state, count in counts]
    if tested is None:
        return key
    score = next((trial.score for trial in trials if trial.number == tested[0]), None)
    key.append((NONE if score is None else f"{score:.4f}", "", f"score of trial {tested[0]}, by which it won"))
    figure, title = _test_figure(tested[1] / "test")
    key.append((NONE if figure is None else f"{figure:.4f}", "", f"{title} of its test, made once"))
    return key


def _test_figure(folder: Path) -> tuple[float | None, str]:
    """The main figure of a test, of label maps or of classes, and what it is."""
    classes = read_json(folder / "figures.json")
    if classes:
        return classes.get("image", {}).get("overall", {}).get("balanced_accuracy", {}).get(
            "value"
        ), "balanced accuracy"
    return (read_json(folder / "summary.json") or {}).get("mean", {}).get("dice", {}).get("mean"), "Dice"


def _values(trials: Sequence[ShownTrial], tested: tuple[int, Path] | None) -> str:
    """The winner's values as YAML."""
    values = next((trial.values for trial in trials if tested is not None and trial.number == tested[0]), None)
    return "" if values is None else yaml.safe_dump(dict(values), sort_keys=False)


def _pictures(
    ranked: Sequence[ShownTrial], fields: Sequence[str], importance: Mapping[str, float], logarithmic: frozenset[str]
) -> list[Picture]:
    pictures = []
    if importance:
        pictures.append(
            _picture(
                importance_figure(importance), "Importance: share of the score's variance (fANOVA over done trials)"
            )
        )
    whole = [trial for trial in ranked if trial.score is not None and set(trial.values) == set(fields)]
    scores = [trial.score for trial in whole if trial.score is not None]
    if len(whole) >= LEAST:
        values = [{name: trial.values[name] for name in fields} for trial in whole]
        figure = parallel_figure(values, scores, logarithmic=logarithmic, best=0)
        pictures.append(
            _picture(figure, "Parallel coordinates: a line a trial, pruned ones too; the best done one is bold")
        )
    return pictures


def _picture(figure: Figure, caption: str) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return Picture(file.getvalue(), caption)

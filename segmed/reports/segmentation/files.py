"""Rows of many cases -> their summary, and the files and figures that show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from segmed.config import EvaluateConfig
from segmed.evaluate.case_rows import (
    NEVER_SEEN,
    SEEN,
    Row,
    columns,
    ranked_cases,
    split_by_part,
    summarise_cases,
)
from segmed.evaluate.case_volumes import CaseVolumes
from segmed.files import atomic_write_text, csv_text, remove, write_json
from segmed.reports.drawing.distributions import bland_altman, box_plots
from segmed.reports.drawing.slices import montage, save_figure
from segmed.reports.segmentation.tables import markdown, table_text

__all__ = ["table_text", "write_evaluation"]

CAPTION_LETTERS = 130  # in a line above a row of slices


def write_evaluation(
    rows: Sequence[Row],
    folder: Path,
    *,
    title: str,
    config: EvaluateConfig,
    subjects: Mapping[str, str] | None = None,
    load: Callable[[str], CaseVolumes] | None = None,
    notes: Sequence[str] = (),
    subjects_known: bool = True,
    pixels: Mapping[str, Mapping[str, float | None]] | None = None,
    parts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write cases.csv, summary.json, summary.md and the figures.

    Args:
        rows: of `evaluate_case`, any number of cases.
        folder: made where it does not exist.
        title: of the tables and figures.
        config: the `evaluate` section.
        subjects: case -> subject, for intervals that draw whole subjects.
        load: gives the volumes of a case, for the montage of the worst and the median one; None: no montage.
        notes: sentences on what is not in the figures (cases that failed), repeated in the summaries.
        subjects_known: whether something says who was scanned, or cases are taken as subjects.
        pixels: of `pooled_figures`, where probabilities are known.
        parts: case -> part of the run's split (train, validation, test; another word where it is not in it), written
            beside every row. Figures are then those of cases that the run never saw, where there are any.

    Returns:
        The summary of `summarise_cases`, with title and notes; with parts also `scope`, what its cases are, and
        `learned`, the summary of the cases that trained or selected the run, where it is not of these itself.

    Raises:
        ValueError: no rows.
        OSError: the folder can't be written.
    """
    known = {"notes": list(notes), "subjects_known": subjects_known, **({"pixels": pixels} if pixels else {})}
    unseen, learned = split_by_part(rows, parts or {})
    shown_rows = unseen or learned
    summary = {"title": title, **summarise_cases(shown_rows, config, subjects=subjects), **known}
    if parts is not None:
        summary["scope"] = NEVER_SEEN if unseen else SEEN
    if unseen and learned:
        of_learned = summarise_cases(learned, config, subjects=subjects)
        summary["learned"] = {**of_learned, "subjects_known": subjects_known, "scope": SEEN}
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "cases.csv", _csv(rows, subjects, parts))
    write_json(folder / "summary.json", summary)
    atomic_write_text(folder / "summary.md", markdown(summary))
    for name in ("bland_altman", "montage"):  # of an earlier evaluation, if this one has none
        remove(folder / f"{name}.png")
    save_figure(box_plots(shown_rows, title=title), folder / "box_plots.png")
    if summary["spacing_known"]:
        save_figure(bland_altman(shown_rows, title=title, subjects=subjects), folder / "bland_altman.png")
    if load is not None:
        names = list(dict.fromkeys(row["label"] for row in shown_rows if row["kind"] == "label"))
        shown = _worst_and_median(shown_rows, load)
        save_figure(montage(shown, title=title, names=names), folder / "montage.png")
    return summary


def _csv(rows: Sequence[Row], subjects: Mapping[str, str] | None, parts: Mapping[str, str] | None) -> str:
    named = [dict(row) for row in rows]
    shown = [column for column in columns(rows) if column != "subject" or subjects is not None]
    if subjects is not None:
        named = [{**row, "subject": subjects.get(row["case"], row["case"])} for row in named]
    if parts is not None:
        shown.insert(shown.index("label"), "part")
        named = [{**row, "part": parts.get(row["case"], "")} for row in named]
    return csv_text(shown, named, digits=6)


def _worst_and_median(rows: Sequence[Row], load: Callable[[str], CaseVolumes]) -> list[tuple[str, CaseVolumes]]:
    """The volumes of two cases (of one, where there is but one), each with what it shows."""
    ranked = ranked_cases(rows)
    chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2]} if len(ranked) > 1 else {"only": ranked[0]}
    return [
        (f"{which} case: {case}, Dice {dice:.3f}\n{_dice_a_label(rows, case)}", load(case))
        for which, (case, dice) in chosen.items()
    ]


def _dice_a_label(rows: Sequence[Row], case: str) -> str:
    """The Dice of each label of a case, in lines that fit above its slices."""
    parts = [f"{row['label']} {row['dice']:.3f}" for row in rows if row["case"] == case and row["kind"] == "label"]
    return "\n".join(wrap(", ".join(parts), CAPTION_LETTERS, max_lines=2, placeholder=", …"))

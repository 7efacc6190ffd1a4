"""Classified test images -> their figures with intervals, and the files that show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmed.config.classification import ClassEvaluateConfig
from segmed.evaluate.answers import Answers, save_answers
from segmed.evaluate.class_summary import levels_shown, summarise_classification, temperature_of
from segmed.files import remove, write_json
from segmed.reports.classification.figures import (
    confusion_figure,
    curves_figure,
    gallery_figure,
    reliability_figure,
)
from segmed.reports.classification.tables import write_tables
from segmed.reports.drawing.slices import Figure, save_figure

DRAWN = ("confusion", "curves", "reliability", "gallery")


def write_classification(
    test: Answers,
    validation: Answers | None,
    folder: Path,
    *,
    config: ClassEvaluateConfig,
    title: str,
    notes: Sequence[str],
    load: Callable[[str], np.ndarray] | None,
) -> dict[str, Any]:
    """Write figures.json, the tables and the pictures of a tested classifier.

    Tables: predictions.csv, predictions_validation.csv, figures.csv, confusion.csv, roc.csv, precision_recall.csv,
    reliability.csv. Pictures: confusion, curves, reliability and gallery, as PNG.

    Args:
        test: what is reported.
        validation: what the temperature and the thresholds come from; None: there are none, and the summary says so.
        folder: made where it does not exist; files of an earlier test are replaced.
        config: the `evaluate` section.
        title: of the tables and pictures.
        notes: what every reader has to know; they stand above every table and picture and first in the JSON.
        load: id of a test image -> (C, H, W) or (C, X, Y, Z), for the gallery; None: no gallery.

    Returns:
        The summary of `summarise_classification`.

    Raises:
        RunError: validation has other classes.
        MetricError: the positive class is none, or there are more than two.
        DiskError: the folder can't be written.
    """
    summary = summarise_classification(test, validation, config=config, title=title, notes=notes)
    folder.mkdir(parents=True, exist_ok=True)
    remove(folder / "figures.json")
    temperature = temperature_of(summary)
    save_answers(test, folder / "predictions.csv", temperature=temperature, notes=notes)
    remove(folder / "predictions_validation.csv")  # of an earlier test, if this one has none
    if validation is not None:
        save_answers(validation, folder / "predictions_validation.csv", temperature=temperature, notes=notes)
    write_tables(summary, levels_shown(test, summary), folder)
    pictures = draw_classification(test, summary, config=config, load=load)
    for name in DRAWN:
        remove(folder / f"{name}.png")
    for name, figure in pictures.items():
        save_figure(figure, folder / f"{name}.png")
    write_json(folder / "figures.json", summary)  # the last: with it, the test is whole
    return summary


def draw_classification(
    test: Answers,
    summary: Mapping[str, Any],
    *,
    config: ClassEvaluateConfig,
    load: Callable[[str], np.ndarray] | None,
) -> dict[str, Figure]:
    """The pictures by name, for a folder or for TensorBoard.

    Args:
        test: what is reported.
        summary: of `write_classification`.
        config, load: as in `write_classification`.
    """
    levels = levels_shown(test, summary)
    pictures = {
        "confusion": confusion_figure(summary),
        "curves": curves_figure(levels, summary),
        "reliability": reliability_figure(levels[0], summary),
    }
    if load is not None:
        gallery = gallery_figure(test, load, most=config.gallery, title=summary["title"], notes=summary["notes"])
        pictures |= {} if gallery is None else {"gallery": gallery}
    return pictures


# ---------------------------------------------------------------- parts of the summary

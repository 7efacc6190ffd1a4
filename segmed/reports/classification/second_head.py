"""Answers to the classes of test cases by the second head of a segmenter -> classes.csv, its figures, its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segmed.config.classification import ClassEvaluateConfig
from segmed.evaluate.answers import Answers, save_answers
from segmed.evaluate.class_summary import summarise_classification
from segmed.files import write_json
from segmed.reports.classification.figures import confusion_figure
from segmed.reports.drawing.slices import save_figure

TABLE = "classes.csv"


def write_case_classes(
    answers: Answers, validation: Answers | None, folder: Path, *, title: str, bootstrap: int
) -> dict[str, Any]:
    """Write classes.csv (a row a case), classes.json and classes_confusion.png.

    Args:
        answers: the cases whose class is known.
        validation: what the temperature, and of two classes the threshold, come from; none: there are none.
        folder: of the test.
        title: of the picture.
        bootstrap: resamplings of subjects for the 95 % intervals.

    Returns:
        The figures, as in `summarise_classification`.
    """
    config = ClassEvaluateConfig(bootstrap=bootstrap)
    summary = summarise_classification(answers, validation, config=config, title=title)
    temperature = None if summary["temperature"] is None else float(summary["temperature"]["value"])
    save_answers(answers, folder / TABLE, temperature=temperature)
    write_json(folder / "classes.json", summary)
    save_figure(confusion_figure(summary), folder / "classes_confusion.png")
    return summary

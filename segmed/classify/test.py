"""The test part, used once: figures, tables, pictures and maps of what a trained classifier says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from segmed.builders.trained import load_classifier
from segmed.classify.validate import Images
from segmed.config.classification import ClassificationConfig
from segmed.evaluate.answers import Answers, joined
from segmed.evaluate.explanations import explain_images
from segmed.reports.classification.files import draw_classification, write_classification
from segmed.reports.classification.maps import write_maps
from segmed.reports.classification.text import classification_text
from segmed.runs import Folds, Run


def run_test(
    run: Run, config: ClassificationConfig, images: Images, *, device: str
) -> tuple[Answers, dict[str, Any], dict[str, Any]]:
    """Classify validation and test part with the best weights; answers, summary and pictures of the test part."""
    notes = notes_of(run)
    network = load_classifier(run.path, device=device)
    validation = images.answers(network, "validation") if images.split.validation else None
    test = images.answers(network, "test")
    given: dict[str, Any] = {"config": config.evaluate, "load": images.image}
    summary = write_classification(test, validation, run.test, title=config.title, notes=notes, **given)
    pictures = draw_classification(test, summary, **given)
    explained = explain_images(network, test, images.image, most=config.evaluate.maps)
    maps = write_maps(test, explained, run.test, title=config.title, notes=notes)
    if maps is not None:
        pictures["maps"] = maps
    return test, summary, {f"test/{name}": figure for name, figure in pictures.items()}


def notes_of(run: Run) -> tuple[str, ...]:
    """Lines that must stand in every table of a run."""
    return tuple(json.loads(run.plan.read_text(encoding="utf-8")).get("notes", ()))


def final_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Test figures by image, by name."""
    figures = {name: figure["value"] for name, figure in summary["image"]["overall"].items()}
    return {name: float(value) for name, value in figures.items() if value is not None}


def sum_up(config: ClassificationConfig, folds: Folds, tests: Sequence[Answers]) -> None:
    """Write and print figures over the test images of all folds: each was tested once, by a model that never saw it.

    Args:
        config: what the folds have in common.
        folds: all done.
        tests: what their tests gave.
    """
    notes = dict.fromkeys(note for run in folds.runs() for note in notes_of(run))
    remark = "thresholds and temperatures of the folds differ: over all folds the most probable class is the answer"
    title = f"{config.title}, {config.split.folds} folds"
    summary = write_classification(
        joined(tests), None, folds.test, config=config.evaluate, title=title, notes=[*notes, remark], load=None
    )
    print(classification_text(summary))

"""A finished run and new images -> a table of classes and probabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from scipy.special import softmax

from segmed.builders.trained import load_classifier
from segmed.classify.test import notes_of
from segmed.config import known
from segmed.config.images import ImageConfig
from segmed.data.images.image_splits import ClassSplit
from segmed.data.images.picture import PICTURE_SUFFIXES
from segmed.data.images.prepare_image import prepared
from segmed.errors import RunError, SegmenterError
from segmed.evaluate.answers import note_lines
from segmed.files import atomic_write_text, csv_text
from segmed.runs import open_run, read_class_config
from segmed.trust.prediction_sets import PredictionSets, set_words
from segmed.volumes import is_dicom_folder, is_volume_file

BATCH = 32
ABSTAINS = "abstains"  # in the place of a class, where the set holds none or several


@dataclass(frozen=True)
class Answer:
    """What the runs say of one image.

    Attributes:
        id: path below the input, or the file's name.
        probabilities: (K,), as the models give them, the mean over the runs; None: it can't be read.
        calibrated: (K,), each run by the temperature of its validation; None: not every run has one.
        error: why there are no probabilities; empty where there are.
        by_run: (M, K), of each run by itself, calibrated where it has a temperature.
    """

    id: str
    probabilities: np.ndarray | None
    calibrated: np.ndarray | None = None
    error: str = ""
    by_run: np.ndarray | None = None


@dataclass(frozen=True)
class Answers:
    """What the runs say of all images.

    Attributes:
        classes: in the order of the probabilities.
        answers: one an image.
        positive, threshold: of two classes, where one run alone answers: the threshold that its validation chose.
        notes: of the runs, for the head of every table.
    """

    classes: tuple[str, ...]
    answers: tuple[Answer, ...]
    positive: str | None
    threshold: float | None
    notes: tuple[str, ...]


def find_images(path: Path, config: ImageConfig) -> dict[str, Path]:
    """Images, or volumes, of a file or a folder: id -> path.

    Raises:
        SegmenterError: nothing there.
    """
    fits = _is_volume if config.dims == 3 else _is_picture
    if path.is_file() or (path.is_dir() and config.dims == 3 and is_dicom_folder(path)):
        return {path.name: path}
    if not path.is_dir():
        raise SegmenterError(f"{path} is not there: name an image or a folder of images")
    paths = {str(each.relative_to(path)): each for each in sorted(path.rglob("*")) if fits(each)}
    if not paths:
        what = "volume (NIfTI, NRRD, MHA, DICOM folder)" if config.dims == 3 else "image (PNG, JPEG, TIFF, BMP)"
        raise SegmenterError(f"{path} holds no {what}: name another folder")
    return paths


def _is_picture(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(PICTURE_SUFFIXES)


def _is_volume(path: Path) -> bool:
    if path.is_dir():
        return is_dicom_folder(path)
    return is_volume_file(path) and not path.name.lower().endswith(PICTURE_SUFFIXES)


def classify(runs: Sequence[Path], images: dict[str, Path], *, device: str = "auto", progress: bool = False) -> Answers:
    """Classify images by one run, or by the mean of several, such as the folds of a cross-validation.

    An image that can't be read is reported in its row, and the others are still classified.

    Args:
        runs: folders.
        images: id -> file.
        device: `auto`: a GPU where there is one.
        progress: show a bar.

    Raises:
        SegmenterError: runs of other classes or other preparation.
        RunError: no run, or no weights.
    """
    configs = [read_class_config(open_run(run)) for run in runs]
    first = configs[0]
    classes = tuple(known(first.data.classes))
    for run, config in zip(runs, configs, strict=True):
        if tuple(known(config.data.classes)) != classes or config.image != first.image:
            raise SegmenterError(f"run {run} has other classes or another image section than {runs[0]}: name others")
    networks = [load_classifier(run, device=device) for run in runs]
    decided = [choices_of(run) for run in runs]
    temperatures = [each["temperature"] for each in decided]
    answers: list[Answer] = []
    names = list(images)
    starts = range(0, len(names), BATCH)
    for start in track(starts, description="classifying") if progress else starts:
        read = {name: _read(images[name], first.image) for name in names[start : start + BATCH]}
        answers += _answered(read, networks, temperatures)
    alone = decided[0] if len(runs) == 1 else {}
    notes = tuple(dict.fromkeys(note for run in runs for note in notes_of(open_run(run))))
    return Answers(classes, tuple(answers), alone.get("positive"), alone.get("threshold"), notes)


def _answered(
    read: Mapping[str, np.ndarray | str], networks: Sequence[torch.nn.Module], temperatures: Sequence[float | None]
) -> list[Answer]:
    """Answers on images, or on what keeps one from being read."""
    fine = {name: image for name, image in read.items() if isinstance(image, np.ndarray)}
    plain: dict[str, np.ndarray] = {}
    calibrated: dict[str, np.ndarray] = {}
    by_run: dict[str, np.ndarray] = {}
    if fine:
        batch = np.stack(list(fine.values()))
        logits = np.stack([_logits(network, batch) for network in networks])
        plain = dict(zip(fine, softmax(logits, axis=2).mean(axis=0), strict=True))
        own = np.array([1.0 if each is None else each for each in temperatures], dtype=float)[:, None, None]
        by_run = dict(zip(fine, softmax(logits / own, axis=2).swapaxes(0, 1), strict=True))
        if None not in temperatures:
            divided = logits / np.array(temperatures, dtype=float)[:, None, None]
            calibrated = dict(zip(fine, softmax(divided, axis=2).mean(axis=0), strict=True))
    return [
        Answer(name, plain[name], calibrated.get(name), by_run=by_run[name])
        if name in plain
        else Answer(name, None, error=str(image))
        for name, image in read.items()
    ]


def _read(path: Path, config: ImageConfig) -> np.ndarray | str:
    try:
        return prepared(path, config)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())


@torch.no_grad()
def _logits(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    device = next(network.parameters()).device
    return network(torch.from_numpy(images).to(device)).double().cpu().numpy()


def choices_of(folder: Path) -> dict[str, Any]:
    """Temperature, positive class and threshold that the run's validation chose; none where it has no test part.

    Raises:
        RunError: the run was not tested.
    """
    run = open_run(folder)
    if run.finished and not ClassSplit.load(run.split).test:
        return {"temperature": None, "positive": None, "threshold": None}
    try:
        summary = json.loads((run.test / "figures.json").read_text(encoding="utf-8"))
        threshold, temperature = summary["image"].get("threshold") or {}, summary["temperature"]
        return {
            "temperature": None if temperature is None else float(temperature["value"]),
            "positive": summary["positive"],
            "threshold": threshold.get("value"),
        }
    except OSError as error:
        raise RunError(f"run {folder} was not tested: go on with segmed train-cls --resume {folder}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run.test / 'figures.json'} is damaged or of another version: test the run again") from error


def write_answers(answers: Answers, path: Path, sets: PredictionSets | None = None) -> None:
    """A row an image: id, class, probabilities, calibrated ones, the decision at the threshold, its set, error.

    Args:
        answers: of `classify`.
        path: of the CSV file.
        sets: of the runs, where they are calibrated: classes that hold the true one at a level, and whether to abstain.

    Raises:
        DiskError: no space, or no permission.
    """
    blocks = (
        ["probability", "calibrated"] if any(a.calibrated is not None for a in answers.answers) else ["probability"]
    )
    decided = answers.positive is not None and answers.threshold is not None
    decision = [f"{answers.positive} at {answers.threshold:.4g}"] if decided else []
    columns = ["id", "predicted", *(f"{block} {name}" for block in blocks for name in answers.classes), *decision]
    sets_shown = [f"set at {sets.level:g}", "answer"] if sets is not None else []
    columns += [*sets_shown, "error"]
    rows = []
    for answer in answers.answers:
        probabilities = answer.probabilities
        if probabilities is None:
            rows.append({"id": answer.id, "error": answer.error})
            continue
        values = [*probabilities, *(answer.calibrated if answer.calibrated is not None else ())]
        predicted = answers.classes[int(probabilities.argmax())]
        row = [answer.id, predicted, *(format(value, ".6g") for value in values)]
        if decided:
            is_positive = probabilities[answers.classes.index(str(answers.positive))] >= float(answers.threshold or 0)
            row.append("yes" if is_positive else "no")
        if sets is not None and answer.by_run is not None:
            classes = sets.classes(answer.by_run)
            row += [set_words(classes), classes[0] if len(classes) == 1 else ABSTAINS]
        rows.append(dict(zip(columns, [*row, ""], strict=True)))
    atomic_write_text(path, note_lines(answers.notes) + csv_text(columns, rows))

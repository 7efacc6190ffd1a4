"""The test part, used once: label maps on the images' own grids, tables and figures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.builders.trained import load_case_classifier, load_run
from segmed.config import SegmentationConfig, known
from segmed.data.case_classes import class_indices, classes_of
from segmed.data.cases import Case, Dataset, cases_of
from segmed.data.preprocess import read_case
from segmed.data.splits import Split
from segmed.errors import DatasetError
from segmed.evaluate.answers import Answers
from segmed.evaluate.case_rows import Row, evaluate_case
from segmed.evaluate.case_volumes import CaseVolumes, shown_case
from segmed.files import write_json
from segmed.metrics.segmentation import metrics_shown
from segmed.reports.classification.case_classes import write_case_classes
from segmed.reports.segmentation.files import write_evaluation
from segmed.runs import Run
from segmed.volumes import read_label_volume, spacing_mm, strip_suffix, write_volume


def run_test(
    made: Run, config: SegmentationConfig, dataset: Dataset, split: Split, *, device: str
) -> tuple[list[Row], dict[str, Any]]:
    """Segment the test part with the best weights, write label maps, figures and times; used once, at the end.

    Where the network has a second head, its classes are tested too: `classification` in the summary.
    """
    segmenter = load_run(made.path, device=device)
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    cases = {case.id: case for case in cases_of(dataset, split.test)}
    for case in cases.values():
        image, reference = read_case(case, dataset)
        if reference is None:
            raise DatasetError(f"test case {case.id} has no label map: leave it out of the layout")
        began = time.perf_counter()
        found = segmenter(image)
        labels = found.numpy()[0]  # waits for the device
        seconds[case.id] = time.perf_counter() - began
        _write_prediction(made, case, found, dataset)
        rows += evaluate_case(
            labels,
            reference.numpy()[0],
            dataset.labels,
            case=case.id,
            spacing_mm=spacing_mm(image.affine),
            config=config.evaluate,
            spacing_known=config.data.spacing_known,
        )
    _write_timing(made, seconds, device=device)
    summary = write_evaluation(
        rows,
        made.test,
        title=f"{config.title}: {len(cases)} test cases",
        config=config.evaluate,
        subjects={case.id: case.subject for case in cases.values()},
        load=lambda name: _shown(made, cases[name], dataset),
    )
    told = _test_classes(made, config, dataset, split, device=device)
    return rows, summary if told is None else {**summary, "classification": told}


def _test_classes(
    made: Run, config: SegmentationConfig, dataset: Dataset, split: Split, *, device: str
) -> dict[str, Any] | None:
    """Figures of the classes that a second head tells of the test part; none without one, or without known classes."""
    head = config.classification
    if head is None:
        return None
    names = known(head.classes)
    truth = class_indices(classes_of(dataset.cases, head.column), names)
    classify = load_case_classifier(made.path, device=device)

    def told(part: Sequence[str]) -> Answers | None:
        cases = [case for case in cases_of(dataset, part) if case.id in truth]
        if not cases:
            return None
        probabilities = np.stack([classify(read_case(case, dataset)[0]) for case in cases])
        return Answers(
            classes=names,
            ids=tuple(case.id for case in cases),
            subjects=tuple(case.subject for case in cases),
            truth=np.array([truth[case.id] for case in cases]),
            logits=np.log(probabilities.clip(np.finfo(float).tiny)),
        )

    tested = told(split.test)
    if tested is None:
        return None
    title, bootstrap = f"{config.title}: classes of {len(tested.ids)} test cases", config.evaluate.bootstrap
    return write_case_classes(tested, told(split.validation), made.test, title=title, bootstrap=bootstrap)


def _write_timing(made: Run, seconds: Mapping[str, float], *, device: str) -> None:
    """Write what each case took, from the volume in memory to its label map; reading and writing do not count."""
    mean = sum(seconds.values()) / len(seconds) if seconds else None
    write_json(made.timing, {"device": device, "seconds_a_case": mean, "seconds": dict(seconds)})


def _write_prediction(made: Run, case: Case, found: MetaTensor, dataset: Dataset) -> None:
    """The label map on the image's grid, with its header and the data set's values."""
    like = next(iter(case.images.values())).path
    values = torch.from_numpy(dataset.labels.decode(found.numpy()))
    write_volume(_prediction(made, case), MetaTensor(values, affine=found.affine), like=like)


def _prediction(made: Run, case: Case) -> Path:
    like = next(iter(case.images.values())).path
    suffix = like.name[len(strip_suffix(like)) :] if like.is_file() else ".nii.gz"
    return made.predictions / f"{case.id}{suffix}"


def _shown(made: Run, case: Case, dataset: Dataset) -> CaseVolumes:
    """A test case for the montage."""
    image, reference = read_case(case, dataset)
    path = _prediction(made, case)
    found = torch.from_numpy(dataset.labels.encode(read_label_volume(path).numpy(), where=str(path)))
    return shown_case(image, reference=reference, prediction=MetaTensor(found, affine=image.affine))


def final_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Test figures by name, for TensorBoard's table of runs."""
    return {
        f"test/{metric}/{label}": metrics[metric]["mean"]
        for label, metrics in summary["labels"].items()
        for metric in metrics_shown("training")
        if metrics.get(metric, {}).get("mean") is not None
    } | {
        f"test/{name}": figure["value"]
        for name, figure in summary.get("classification", {}).get("image", {}).get("overall", {}).items()
        if figure["value"] is not None
    }

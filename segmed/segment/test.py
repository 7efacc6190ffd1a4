"""The test part, used once: label maps on the images' own grids, tables and figures."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor

from segmed.builders.datasets import build_dataset
from segmed.builders.trained import load_case_classifier, load_run
from segmed.config import EvaluateConfig, SegmentationConfig, known
from segmed.data.cases import Case, Dataset, cases_of
from segmed.data.class_column import KnownClasses
from segmed.data.field_of_view import labels_inside
from segmed.data.preprocess import read_case
from segmed.data.splits import Split
from segmed.errors import DatasetError
from segmed.evaluate.answers import Answers, joined, read_answers
from segmed.evaluate.case_rows import Row, evaluate_case
from segmed.evaluate.case_volumes import CaseVolumes, shown_case
from segmed.evaluate.pixel_figures import added, count_pixels, pooled_figures
from segmed.evaluate.results import notes_of_run
from segmed.files import atomic_write_text, write_json
from segmed.machine import free_ram_bytes
from segmed.metrics.mask_metrics import metrics_shown
from segmed.metrics.pixel_curves import PixelCounts
from segmed.reports.classification.second_head import TABLE, write_case_classes
from segmed.reports.classification.text import classification_text
from segmed.reports.drawing.slices import case_figure
from segmed.reports.segmentation.files import write_evaluation
from segmed.reports.segmentation.page import Look
from segmed.reports.segmentation.tables import table_text
from segmed.reports.viewer.layers import Layers, layers_of_files
from segmed.runs import Folds, Run, read_config
from segmed.segmenters.segmenter import Segmenter, decide, on_grid_of
from segmed.volumes import read_label_volume, spacing_mm, strip_suffix, write_volume

PICTURES = 2  # cases that TensorBoard shows, as of the validation
KEPT_SHARE = 0.25  # of the free RAM that volumes for the montage may take


def run_test(
    run: Run, config: SegmentationConfig, dataset: Dataset, split: Split, *, device: str
) -> tuple[list[Row], dict[str, Any], dict[str, Figure]]:
    """Segment the test part with the best weights, write label maps, figures and times; used once, at the end.

    Returns rows, their summary, and pictures of the first cases by name.

    Each file is read once, and each case is seen once: where the network has a second head, it gives the class in the
    same pass, and `classification` stands in the summary.
    """
    segmenter = load_run(run.path, device=device)
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    class_probabilities: dict[str, np.ndarray] = {}
    cases = {case.id: case for case in cases_of(dataset, split.test)}
    shown = _Shown()
    pixels: dict[str, PixelCounts] = {}
    for case in cases.values():
        image, reference = _read_with_reference(case, dataset)
        began = time.perf_counter()
        prediction, probabilities = _segmented(segmenter, image, case, config=config.evaluate)
        labels = prediction.numpy()[0]  # waits for the device
        seconds[case.id] = time.perf_counter() - began
        if segmenter.class_probabilities is not None:
            class_probabilities[case.id] = segmenter.class_probabilities
        _write_prediction(run, case, prediction, dataset)
        shown.keep(case.id, shown_case(image, reference=reference, prediction=prediction))
        counts = {}
        if probabilities is not None:
            counts = count_pixels(labels, reference.numpy()[0], probabilities, dataset.labels)
        rows += evaluate_case(
            labels,
            reference.numpy()[0],
            dataset.labels,
            case=case.id,
            spacing_mm=spacing_mm(image.affine),
            config=config.evaluate,
            spacing_known=config.data.spacing_known,
            pixels=counts,
        )
        pixels = added(pixels, counts)
    _write_timing(run, seconds, device=device)
    summary = write_evaluation(
        rows,
        run.test,
        title=f"{config.title}: {len(cases)} test cases",
        config=config.evaluate,
        subjects={case.id: case.subject for case in cases.values()},
        load=lambda name: shown.kept.get(name) or _read_again(run, cases[name], dataset),
        notes=notes_of_run(run),
        pixels=pooled_figures(pixels),
        subjects_known=dataset.subjects_known,
    )
    classes = _class_figures(run, config, dataset, split, class_probabilities, device=device)
    pictures = {
        f"test/{name}": case_figure(volumes, name, names=dataset.labels.names)
        for name, volumes in list(shown.kept.items())[:PICTURES]
    }
    return rows, summary if classes is None else {**summary, "classification": classes}, pictures


def _segmented(
    segmenter: Segmenter, image: MetaTensor, case: Case, *, config: EvaluateConfig
) -> tuple[MetaTensor, np.ndarray | None]:
    """The label map of a case, and its probabilities where the config asks for curves."""
    if not config.pixel_curves:
        return labels_inside(segmenter(image), case), None
    probabilities = segmenter.probabilities(image)
    decided = on_grid_of(image, decide(probabilities.as_tensor(), segmenter.labels)[None])
    return labels_inside(decided, case), probabilities.numpy(force=True)


def _read_with_reference(case: Case, dataset: Dataset) -> tuple[MetaTensor, MetaTensor]:
    image, reference = read_case(case, dataset)
    if reference is None:
        raise DatasetError(f"test case {case.id} has no label map: leave it out of the layout")
    return image, reference


class _Shown:
    """Volumes for the montage, which is drawn when all cases are ranked: as many as a quarter of the free RAM holds."""

    def __init__(self) -> None:
        self.kept: dict[str, CaseVolumes] = {}
        self._room_bytes = int(KEPT_SHARE * free_ram_bytes())

    def keep(self, name: str, volumes: CaseVolumes) -> None:
        """Keep what there is room for."""
        arrays = (volumes.image, volumes.reference, volumes.prediction)
        self._room_bytes -= sum(array.nbytes for array in arrays if array is not None)
        if self._room_bytes >= 0:
            self.kept[name] = volumes


def _class_figures(
    run: Run,
    config: SegmentationConfig,
    dataset: Dataset,
    split: Split,
    class_probabilities: Mapping[str, np.ndarray],
    *,
    device: str,
) -> dict[str, Any] | None:
    """Figures of the second head on the test part; None without a second head, or where no class is known."""
    head = config.classification
    if head is None:
        return None
    classes = KnownClasses.of(dataset.cases, head.column, known(head.classes))
    tested = _class_answers(cases_of(dataset, split.test), classes, class_probabilities)
    if tested is None:
        return None
    classify = load_case_classifier(run.path, device=device)
    cases = [case for case in cases_of(dataset, split.validation) if case.id in classes.indices]
    validation = _class_answers(cases, classes, {case.id: classify(read_case(case, dataset)[0]) for case in cases})
    title, bootstrap = f"{config.title}: classes of {len(tested.ids)} test cases", config.evaluate.bootstrap
    return write_case_classes(tested, validation, run.test, title=title, bootstrap=bootstrap)


def _class_answers(
    cases: Sequence[Case], classes: KnownClasses, class_probabilities: Mapping[str, np.ndarray]
) -> Answers | None:
    """The answers for the cases whose class is known; None where there are none."""
    cases = [case for case in cases if case.id in classes.indices]
    if not cases:
        return None
    probabilities = np.stack([class_probabilities[case.id] for case in cases])
    return Answers(
        classes=classes.names,
        ids=tuple(case.id for case in cases),
        subjects=tuple(case.subject for case in cases),
        truth=np.array([classes.indices[case.id] for case in cases]),
        logits=np.log(probabilities.clip(np.finfo(float).tiny)),
    )


def look_at(run: Run, dataset: Dataset, split: Split) -> Look:
    """Where the volumes of the test cases are, for the viewer of the run's page; they are read when it is written."""
    cases = {case.id: case for case in cases_of(dataset, split.test)}

    def layers(name: str) -> Layers:
        case, (first, *others) = cases[name], dataset.modalities
        remarks = (f"Of the images {first} is shown, not {', '.join(others)}.",) if others else ()
        return layers_of_files(
            case.images[first],
            encode=lambda values: dataset.labels.encode(values, where=name),
            reference=case.label,
            result=_prediction(run, case),
            remarks=remarks,
        )

    return Look(dataset.labels.names, layers)


ROWS = "rows.json"  # every digit of cases.csv, and of what was tested on which weights


def keep_rows(run: Run, rows: Sequence[Row]) -> None:
    """Write the figures of the test in full, so that a cross-validation sums them up without testing again."""
    atomic_write_text(run.test / ROWS, json.dumps({"weights": _stamp(run), "rows": rows}))  # with NaN, as Python reads


def kept_rows(run: Run) -> list[Row] | None:
    """The figures of a test, as they were; None where they are not there, or are those of other weights."""
    try:
        kept = json.loads((run.test / ROWS).read_text(encoding="utf-8"))
        rows = [dict(row) for row in kept["rows"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rows if kept["weights"] == _stamp(run) else None


def _stamp(run: Run) -> dict[str, str]:
    """Network of a run -> the hash of its weights."""
    files = sorted(run.path.rglob("weights/best.safetensors"))
    return {str(file.relative_to(run.path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def sum_up(config: SegmentationConfig, folds: Folds, rows: Sequence[Row]) -> None:
    """Write and print figures over the test cases of all folds: each was tested once, by a model that never saw it.

    Args:
        config: what the folds have in common.
        folds: all done.
        rows: of their tests.
    """
    title = f"{config.title}, {config.split.folds} folds"
    dataset = build_dataset(read_config(folds.runs()[0]))
    subjects = {case.id: case.subject for case in dataset.cases}
    summary = write_evaluation(
        rows,
        folds.test,
        title=title,
        config=config.evaluate,
        subjects={row["case"]: subjects[row["case"]] for row in rows},
        notes=tuple(dict.fromkeys(note for run in folds.runs() for note in notes_of_run(run))),
        subjects_known=dataset.subjects_known,
    )
    print(table_text(summary))
    if config.classification is not None:
        sum_up_classes(config, folds, title=f"{title}: classes")


def sum_up_classes(config: SegmentationConfig, folds: Folds, *, title: str) -> None:
    """Figures of the second heads of all folds over all test cases."""
    tables = [part.test / TABLE for part in folds.runs()]
    tests = [read_answers(table) for table in tables if table.is_file()]
    if tests:
        given: dict[str, Any] = {"title": title, "bootstrap": config.evaluate.bootstrap}
        print(classification_text(write_case_classes(joined(tests), None, folds.test, **given)))


def _write_timing(run: Run, seconds: Mapping[str, float], *, device: str) -> None:
    """Write what each case took, from the volume in memory to its label map; reading and writing do not count."""
    mean = sum(seconds.values()) / len(seconds) if seconds else None
    write_json(run.timing, {"device": device, "seconds_a_case": mean, "seconds": dict(seconds)})


def _write_prediction(run: Run, case: Case, prediction: MetaTensor, dataset: Dataset) -> None:
    """The label map on the image's grid, with its header and the data set's values."""
    like = next(iter(case.images.values())).path
    values = torch.from_numpy(dataset.labels.decode(prediction.numpy()))
    write_volume(_prediction(run, case), MetaTensor(values, affine=prediction.affine), like=like)


def _prediction(run: Run, case: Case) -> Path:
    like = next(iter(case.images.values())).path
    suffix = like.name[len(strip_suffix(like)) :] if like.is_file() else ".nii.gz"
    return run.predictions / f"{case.id}{suffix}"


def _read_again(run: Run, case: Case, dataset: Dataset) -> CaseVolumes:
    """The volumes of a test case that was not kept in memory, for the montage."""
    image, reference = read_case(case, dataset)
    path = _prediction(run, case)
    indices = torch.from_numpy(dataset.labels.encode(read_label_volume(path).numpy(), where=str(path)))
    return shown_case(image, reference=reference, prediction=MetaTensor(indices, affine=image.affine))


def final_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Test figures by name."""
    return {
        f"{metric}/{label}": metrics[metric]["mean"]
        for label, metrics in summary["labels"].items()
        for metric in metrics_shown("training")
        if metrics.get(metric, {}).get("mean") is not None
    } | {
        name: figure["value"]
        for name, figure in summary.get("classification", {}).get("image", {}).get("overall", {}).items()
        if figure["value"] is not None
    }

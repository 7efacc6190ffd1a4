"""Use what a run has learnt, and score label maps of anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.builders import trained
from segmed.builders.hub_files import is_model
from segmed.builders.model_file import opened
from segmed.config import EvaluateConfig
from segmed.config.reading import classifies
from segmed.data.case import Case
from segmed.data.cases import Dataset
from segmed.data.preprocess import read_case
from segmed.errors import SegmenterError, VolumeError
from segmed.evaluate.case_rows import Row, evaluate_case, summarise_cases
from segmed.geometry import grid_difference, spacing_mm
from segmed.labels import LabelSet
from segmed.public.experiments import PathLike
from segmed.reports.segmentation.tables import table_text
from segmed.runs import open_run
from segmed.segmenters.segmenter import Segmenter, on_grid_of
from segmed.volumes import Source, read_label_volume, read_volume, write_volume

Values = np.ndarray | PathLike
"""A label map with the values of its file: (X, Y, Z) integers, or the file."""


def load_run(run: PathLike, *, device: str = "auto", **options: Any) -> Segmenter | torch.nn.Module:
    """What a run has learnt: a segmenter of volumes, or the network of a classifier.

        >>> segmenter = segmed.load_run(run)
        >>> volume = segmed.read_volume("data/phantom/phantom_000/phantom_000_LGE.nii.gz")
        >>> segmenter(volume).shape == volume.shape  # label indices on the volume's own grid
        True
        >>> segmenter.labels.names
        ('myocardium', 'blood_pool', 'rv', 'scar')

    Args:
        run: its folder; that of a cross-validation: its folds as one segmenter, the mean of their probabilities; or a
            model file, on the hub too: `hf://OWNER/NAME/FILE`.
        device: `cpu`, `cuda`, `cuda:1`; `auto`: a GPU where there is one.
        options: `weights`: `best` on validation, or `last`; of a segmenter also `inference`, in place of the run's own.

    Raises:
        RunError: no run, or one without these weights.
    """
    folder = Path(run)
    if is_model(folder):
        with opened((), [folder]) as runs:
            if len(runs.folders) > 1:
                return trained.load_runs(runs.folders, device=device)
            return load_run(runs.folders[0], device=device, **options)
    if classifies(folder / "config.yaml"):
        from segmed.builders.trained import load_classifier

        return load_classifier(folder, device=device, **options)
    return trained.load_run(folder, device=device, **options)


def predict(
    run: PathLike | Segmenter,
    image: np.ndarray | MetaTensor | PathLike | Sequence[PathLike],
    output: PathLike | None = None,
    *,
    affine: np.ndarray | None = None,
    device: str = "auto",
) -> np.ndarray:
    """The label map of one image, with the values of the data set that the run was trained on.

        >>> image = "data/phantom/phantom_000/phantom_000_LGE.nii.gz"
        >>> label_map = segmed.predict(run, image, "label_map.nii.gz")  # on the grid of the file, with its header
        >>> array = segmed.read_volume(image).numpy()[0]
        >>> segmed.predict(segmenter, array, affine=segmed.read_volume(image).affine).shape == label_map.shape
        True

    Args:
        run: a folder, a model file, or a segmenter that is loaded already.
        image: a volume, a DICOM folder, or one of these a modality; or (X, Y, Z) or (C, X, Y, Z) raw intensities.
        output: file to write.
        affine: (4, 4) voxel -> RAS mm of an array; none: voxels of 1 mm.
        device: of a folder, as in `load_run`.

    Returns:
        (X, Y, Z) int32.

    Raises:
        ValueError: a file that can't be read, channels that the run doesn't take.
    """
    segmenter = run if isinstance(run, Segmenter) else load_run(run, device=device)
    if not isinstance(segmenter, Segmenter):
        raise SegmenterError(f"{run} classifies: segmed.classify_images takes it")
    volume, like = _volume(image, affine)
    values = segmenter.labels.decode(segmenter(volume).numpy(force=True)).astype(np.int32)
    if output is not None:
        write_volume(output, on_grid_of(volume, torch.from_numpy(values)), like=like)
    return values[0]


def _volume(
    image: np.ndarray | MetaTensor | PathLike | Sequence[PathLike], affine: np.ndarray | None
) -> tuple[MetaTensor, Path | None]:
    """(C, X, Y, Z), and the file whose header a label map gets, if it is one."""
    if isinstance(image, MetaTensor):
        return image, None
    if isinstance(image, np.ndarray):
        data = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        grid = torch.eye(4, dtype=torch.float64) if affine is None else torch.as_tensor(affine, dtype=torch.float64)
        return MetaTensor(data[None] if data.ndim == 3 else data, affine=grid), None
    files = [Path(image)] if isinstance(image, (str, Path)) else [Path(one) for one in image]
    if len(files) == 1:
        return read_volume(files[0]), files[0] if files[0].is_file() else None
    case = Case("image", "image", {str(number): Source(file) for number, file in enumerate(files)})
    together = Dataset("image", Path(), (case,), tuple(case.images), LabelSet((), ()))
    return read_case(case, together)[0], files[0] if files[0].is_file() else None


def classify_images(run: PathLike, images: PathLike, *, device: str = "auto") -> dict[str, dict[str, float]]:
    """Probabilities of each class of new images, calibrated where the run's validation fitted a temperature.

        >>> few = {
        ...     "data.layout.subjects": 6, "data.layout.slices": 1, "data.layout.size": 32, "image.size": [32, 32],
        ...     "train.epochs": 1, "train.steps_per_epoch": 2, "train.validations": 1, "train.workers": 0,
        ...     "train.precision": "fp32", "train.memory_format": "contiguous", "evaluate.maps": 0,
        ... }
        >>> classifier = segmed.train("contrast_phantom", "runs/classifier", overrides=few)
        >>> answers = segmed.classify_images(classifier, "data/contrast_phantom")
        >>> sorted({name for answer in answers.values() for name in answer})

    Args:
        run: folder of a classification run, or a model file.
        images: an image, a volume, or a folder of them.
        device: as in `load_run`.

    Raises:
        ValueError: no image, or one that can't be read.
    """
    from segmed.classify.predict import classify, find_images
    from segmed.runs import read_class_config, runs_of

    path = Path(run)
    with opened(*(((), [path]) if is_model(path) else ([open_run(path).path], ()))) as runs:
        parts = [part for folder in runs.folders for part in runs_of(folder)]
        files = find_images(Path(images), read_class_config(parts[0]).image)
        answers = classify([part.path for part in parts], files, device=device)
    for answer in answers.answers:
        if answer.probabilities is None:
            raise VolumeError(f"{answer.id}: {answer.error}")
    shown = {a.id: a.probabilities if a.calibrated is None else a.calibrated for a in answers.answers}
    return {
        name: dict(zip(answers.classes, map(float, values), strict=True))
        for name, values in shown.items()
        if values is not None
    }


def score(
    prediction: Values,
    reference: Values,
    labels: Mapping[str, int | Sequence[int]],
    *,
    regions: Mapping[str, Sequence[str]] | None = None,
    spacing: Sequence[float] | None = None,
    case: str = "case",
) -> list[Row]:
    """Dice, distances and volumes of every label of one case, with segmed's policy for what is missed.

        >>> truth = np.zeros((10, 10, 10), int)
        >>> truth[2:6, 2:6, 2:6] = 1
        >>> (row,) = segmed.score(np.roll(truth, 1, axis=0), truth, {"cube": 1}, spacing=(2, 1, 1))
        >>> row["dice"], row["hd_mm"]
        (0.75, 2.0)

    Args:
        prediction, reference: (X, Y, Z) label maps with the values of their files, on one grid.
        labels: name -> its value or values.
        regions: name -> labels whose union is scored too.
        spacing: mm of a voxel along X, Y and Z; none: the file's, or 1 mm for an array.
        case: its name in the rows.

    Returns:
        A row a label, then one a region.

    Raises:
        ValueError: values that no label has, other grids.
    """
    label_set = LabelSet.from_config(labels, regions=regions)
    predicted, predicted_affine = _label_map(prediction)
    true, true_affine = _label_map(reference)
    if predicted_affine is not None and true_affine is not None:
        difference = grid_difference((predicted.shape, predicted_affine), (true.shape, true_affine))
        if difference is not None:
            raise VolumeError(f"prediction {prediction} and reference {reference} are on other grids: {difference}")
    affine = true_affine if true_affine is not None else predicted_affine
    steps = spacing if spacing is not None else (1.0, 1.0, 1.0) if affine is None else spacing_mm(affine)
    return evaluate_case(
        label_set.encode(predicted, where="the prediction"),
        label_set.encode(true, where="the reference"),
        label_set,
        case=case,
        spacing_mm=steps,
        config=EvaluateConfig(),
    )


def _label_map(given: Values) -> tuple[np.ndarray, Any]:
    if isinstance(given, np.ndarray):
        return given, None
    volume = read_label_volume(given)
    return volume.numpy()[0], volume.affine


def score_table(rows: Sequence[Row]) -> str:
    """The table of any number of cases: mean ± SD with 95 % intervals, and how many were missed.

        >>> print(segmed.score_table([row]))

    Args:
        rows: of `score`.
    """
    return table_text(summarise_cases(rows, EvaluateConfig()))

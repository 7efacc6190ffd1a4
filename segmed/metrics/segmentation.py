"""Two masks -> overlap, volumes and surface distances, with a stated answer where a structure is missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from segmed.metrics.surfaces import element_distances, surface_distances

Missed = Literal["diagonal", "skip"]

# Keys of `measure`, in the order of tables. What needs a true spacing is named apart: a nominal one makes it noise.
METRICS = (
    "dice",
    "iou",
    "hd_mm",
    "hd95_mm",
    "assd_mm",
    "surface_dice",
    "avd_ml",
    "volume_difference_ml",
    "relative_volume_error",
    "sensitivity",
    "precision",
    "prediction_ml",
    "reference_ml",
)
NEED_SPACING = frozenset(
    ("hd_mm", "hd95_mm", "assd_mm", "surface_dice", "avd_ml", "volume_difference_ml", "prediction_ml", "reference_ml")
)
DISTANCES = ("hd_mm", "hd95_mm", "assd_mm")

_ROUNDING_MM = 1e-6  # 3 voxels of 0.7 mm are within a tolerance of 2.1 mm, whatever floating point says


def measure(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float = 1.0,
    missed: Missed = "diagonal",
    diagonal_mm: float | None = None,
) -> dict[str, float]:
    """Every metric of one structure in one case.

    Both masks empty: the overlaps are 1 and the distances 0. Exactly one empty, the structure was missed or
    invented: the overlaps, sensitivity and precision are 0, `missed` is 1, and the distances are the diagonal of the
    image, or NaN with `missed="skip"`. The relative volume error of an invented structure is infinite and so NaN.

    Args:
        prediction, reference: (X, Y, Z) bool, on one grid.
        spacing_mm: size of a voxel along X, Y and Z.
        tolerance_mm: distance up to which surface Dice counts a part of a surface as right.
        missed: what the distances of a missed or invented structure are.
        diagonal_mm: of the whole image, where the masks are cut from one; None: they are whole.

    Returns:
        dice, iou, hd_mm, hd95_mm (the larger of the two directed 95th percentiles; both over surface voxels), assd_mm
        (the mean over the area of both surfaces), surface_dice (the share of their area), avd_ml (the absolute of)
        volume_difference_ml (prediction minus reference), relative_volume_error (avd over the reference),
        sensitivity, precision, prediction_ml, reference_ml, missed (0 or 1).

    Raises:
        ValueError: masks of different shapes or that are not bool, or a spacing that is not positive.

    Source: definitions equal MONAI's `compute_hausdorff_distance` and `compute_surface_dice(use_subvoxels=True)`;
    Nikolov et al. 2018 (arXiv 1809.04430) for surface Dice and the surface elements of ASSD.
    """
    _check(prediction, reference, spacing_mm)
    counts = _counts(prediction, reference)
    result = {**_overlaps(*counts), **_volumes(*counts, math.prod(spacing_mm) / 1000)}
    if counts[0] and counts[1]:
        return {**_order(result | _distances(prediction, reference, spacing_mm, tolerance_mm)), "missed": 0.0}
    missing = bool(counts[0] or counts[1])
    far = diagonal_mm if diagonal_mm is not None else image_diagonal_mm(prediction.shape, spacing_mm)
    distance = (far if missed == "diagonal" else math.nan) if missing else 0.0
    result |= dict.fromkeys(DISTANCES, distance)
    result["surface_dice"] = 0.0 if missing else 1.0
    return {**_order(result), "missed": float(missing)}


def measure_absent(
    reference: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    missed: Missed = "diagonal",
    diagonal_mm: float | None = None,
) -> dict[str, float]:
    """The metrics of a case without any prediction: a miss, even where the reference has no such structure.

    Without this a lost file would be rewarded with a Dice of 1 wherever the reference is empty. The volumes then say
    nothing and are NaN.

    Args:
        reference: (X, Y, Z) bool.
        spacing_mm, missed, diagonal_mm: as in `measure`.
    """
    nothing = np.zeros_like(reference)
    result = measure(nothing, reference, spacing_mm=spacing_mm, missed=missed, diagonal_mm=diagonal_mm)
    if result["missed"]:
        return result
    far = diagonal_mm if diagonal_mm is not None else image_diagonal_mm(reference.shape, spacing_mm)
    result |= dict.fromkeys(("dice", "iou", "surface_dice", "sensitivity", "precision"), 0.0)
    result |= dict.fromkeys(DISTANCES, far if missed == "diagonal" else math.nan)
    result |= dict.fromkeys(("avd_ml", "volume_difference_ml", "relative_volume_error", "prediction_ml"), math.nan)
    return {**result, "missed": 1.0}


def overlaps(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The metrics of `measure` that need no spacing: overlaps, relative volume error, sensitivity, precision, missed.

    Args:
        prediction, reference: (X, Y, Z) bool, on one grid.

    Raises:
        ValueError: masks of different shapes or that are not bool.
    """
    _check(prediction, reference, (1.0,) * prediction.ndim)
    counts = _counts(prediction, reference)
    relative = {"relative_volume_error": _volumes(*counts, 1.0)["relative_volume_error"]}
    return {**_order(_overlaps(*counts) | relative), "missed": float(bool(counts[0]) != bool(counts[1]))}


def image_diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Length of the diagonal of a whole image, edge to edge: no two of its voxels are farther apart."""
    return math.hypot(*(size * step for size, step in zip(shape, spacing_mm, strict=True)))


def _check(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(
            f"prediction {prediction.shape} and reference {reference.shape} differ in shape: "
            "bring the prediction onto the reference's grid first"
        )
    if prediction.dtype != bool or reference.dtype != bool:
        raise ValueError(
            f"masks must be bool, not {prediction.dtype} and {reference.dtype}: compare with a label first"
        )
    if len(spacing_mm) != prediction.ndim or not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        raise ValueError(
            f"spacing {tuple(spacing_mm)} of a mask with {prediction.ndim} axes: give one positive number of mm an axis"
        )


def _counts(prediction: np.ndarray, reference: np.ndarray) -> tuple[int, int, int]:
    """Voxels of the prediction, of the reference and of both."""
    both = np.count_nonzero(prediction & reference)
    return int(np.count_nonzero(prediction)), int(np.count_nonzero(reference)), int(both)


def _overlaps(predicted: int, true: int, both: int) -> dict[str, float]:
    if not predicted and not true:
        return dict.fromkeys(("dice", "iou", "sensitivity", "precision"), 1.0)
    return {
        "dice": 2 * both / (predicted + true),
        "iou": both / (predicted + true - both),
        "sensitivity": both / true if true else 0.0,
        "precision": both / predicted if predicted else 0.0,
    }


def _volumes(predicted: int, true: int, _both: int, voxel_ml: float) -> dict[str, float]:
    difference = predicted - true
    undefined = math.nan if difference else 0.0
    return {
        "avd_ml": abs(difference) * voxel_ml,
        "volume_difference_ml": difference * voxel_ml,
        "relative_volume_error": abs(difference) / true if true else undefined,
        "prediction_ml": predicted * voxel_ml,
        "reference_ml": true * voxel_ml,
    }


def _distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float
) -> dict[str, float]:
    directed = surface_distances(prediction, reference, spacing_mm)
    elements = element_distances(prediction, reference, spacing_mm)
    distances, areas = (np.concatenate(sides) for sides in zip(*elements, strict=True))
    return {
        "hd_mm": float(max(of_side.max() for of_side in directed)),
        "hd95_mm": float(max(np.percentile(of_side, 95) for of_side in directed)),
        "assd_mm": float(distances @ areas / areas.sum()),
        "surface_dice": float(areas[distances <= tolerance_mm + _ROUNDING_MM].sum() / areas.sum()),
    }


def _order(result: dict[str, float]) -> dict[str, float]:
    return {name: result[name] for name in METRICS if name in result}

"""Two masks -> overlap, volumes and surface distances, with a stated answer where a structure is missed."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from segmed.metrics.metric import Better, Metric, Pair, Place

Missed = Literal["diagonal", "skip"]

_ROUNDING_MM = 1e-6  # 3 voxels of 0.7 mm are within a tolerance of 2.1 mm, whatever floating point says


# ---------------------------------------------------------------- metrics


def _dice(pair: Pair) -> float:
    return 2 * pair.shared / (pair.predicted + pair.true)


def _iou(pair: Pair) -> float:
    return pair.shared / (pair.predicted + pair.true - pair.shared)


def _sensitivity(pair: Pair) -> float:
    return pair.shared / pair.true


def _precision(pair: Pair) -> float:
    return pair.shared / pair.predicted


def _hd(pair: Pair) -> float:
    return float(pair.distances_mm.max())


def _hd95(pair: Pair) -> float:
    """The larger of the two directed 95th percentiles."""
    return float(max(np.percentile(distances, 95) for distances in pair.directed_mm))


def _assd(pair: Pair) -> float:
    """The mean over the area of both surfaces."""
    distances, areas = pair.elements
    return float(distances @ areas / areas.sum())


def _surface_dice(pair: Pair) -> float:
    """The share of the area of both surfaces that lies within the tolerance."""
    distances, areas = pair.elements
    return float(areas[distances <= pair.tolerance_mm + _ROUNDING_MM].sum() / areas.sum())


def _volume_difference(pair: Pair) -> float:
    """Prediction less reference."""
    return (pair.predicted - pair.true) * pair.voxel_ml


def _avd(pair: Pair) -> float:
    return abs(pair.predicted - pair.true) * pair.voxel_ml


def _relative_volume_error(pair: Pair) -> float:
    """AVD over the reference; NaN where that is empty and the prediction is not."""
    difference = abs(pair.predicted - pair.true)
    return difference / pair.true if pair.true else (math.nan if difference else 0.0)


def _predicted_volume(pair: Pair) -> float:
    return pair.predicted * pair.voxel_ml


def _reference_volume(pair: Pair) -> float:
    return pair.true * pair.voxel_ml


def _overlap(name: str, title: str, compute: Callable[[Pair], float], *shown: Place, rank: int = 2) -> Metric:
    return Metric(name, title, compute, miss="zero", shown=frozenset(shown), rank=rank)


def _distance(name: str, title: str, compute: Callable[[Pair], float], *shown: Place, rank: int = 2) -> Metric:
    return Metric(
        name, title, compute, "mm", 2, needs_spacing=True, miss="diagonal", better="lower", shown=frozenset(shown),
        rank=rank,
    )  # fmt: skip


def _volume(
    name: str, title: str, compute: Callable[[Pair], float], *shown: Place, better: Better | None = "lower"
) -> Metric:
    return Metric(name, title, compute, "ml", None, needs_spacing=True, better=better, shown=frozenset(shown))


def _table(*rows: Metric) -> dict[str, Metric]:
    return {row.name: row for row in rows}


# Every metric of two masks, in the order of cases.csv. A new one is a row here: all that shows figures follows.
METRICS = _table(
    _overlap("dice", "Dice", _dice, "training", "main", "without spacing", "cases", rank=0),
    _overlap("iou", "IoU", _iou, "without spacing"),
    _distance("hd_mm", "HD (mm)", _hd, "main"),
    _distance("hd95_mm", "HD95 (mm)", _hd95, "training", "main", "cases", rank=1),
    _distance("assd_mm", "ASSD (mm)", _assd, "cases"),
    Metric("surface_dice", "surface Dice", _surface_dice, needs_spacing=True, miss="zero"),
    _volume("avd_ml", "AVD (ml)", _avd, "training", "main", "cases"),
    _volume("volume_difference_ml", "volume difference (ml)", _volume_difference, "cases", better="nearer to 0"),
    Metric("relative_volume_error", "relative volume error", _relative_volume_error, better="lower"),
    _overlap("sensitivity", "sensitivity", _sensitivity, "without spacing"),
    _overlap("precision", "precision", _precision, "without spacing"),
    _volume("prediction_ml", "predicted volume (ml)", _predicted_volume, better=None),
    replace(_volume("reference_ml", "reference volume (ml)", _reference_volume, better=None), miss="reference"),
)

# Those of a probability and a mask, over pixels; a test has them where its config asks for curves.
OF_PROBABILITIES = _table(
    Metric("auc_roc", "AUC of ROC, by pixel", digits=4, shown=frozenset({"cases"})),
    Metric("auc_pr", "AUC of precision-recall, by pixel", digits=4, shown=frozenset({"cases"})),
)
OF_CASES = ChainMap(OF_PROBABILITIES, METRICS)  # of a structure in a case: those of masks come first

# Those that comparisons of rows compute besides: of the tissue in its region, of a phantom's truth, as published.
OF_ROWS = _table(
    Metric(
        "share_error_pp", "share of the region, absolute error (percentage points)", unit="pp", better="lower",
        shown=frozenset({"rows"}), short="share error (pp)",
    ),
    Metric(
        "share_difference_pp", "share of the region, difference (percentage points)", unit="pp", better="nearer to 0",
        shown=frozenset({"rows"}), short="share difference (pp)",
    ),
    Metric(
        "healthy_flagged_percent", "healthy rest of the region that was taken for it (%)", unit="%", better="lower",
        shown=frozenset({"rows"}), short="healthy flagged (%)",
    ),
    Metric(
        "true_avd_ml", "AVD to the phantom's true volume (ml)", unit="ml", digits=None, better="lower",
        shown=frozenset({"phantoms"}), short="AVD to truth (ml)",
    ),
    Metric(
        "true_difference_ml", "difference to the phantom's true volume (ml)", unit="ml", digits=None,
        better="nearer to 0", shown=frozenset({"phantoms"}), short="difference to truth (ml)",
    ),
    Metric(
        "dice_zabihollahy2020", "Dice as released with Zabihollahy et al. 2020: NOT the Dice of a volume",
        short="Dice (zabihollahy2020)",
    ),
)  # fmt: skip


def metric_named(name: str) -> Metric:
    """The row of a metric, of masks, of probabilities or of rows of a comparison."""
    return OF_CASES.get(name) or OF_ROWS[name]


def metrics_shown(*places: Place) -> tuple[str, ...]:
    """Names of what is shown in one of several places, the most telling first."""
    every = [metric for metric in (*OF_CASES.values(), *OF_ROWS.values()) if metric.shown & set(places)]
    return tuple(metric.name for metric in sorted(every, key=lambda metric: metric.rank))


# ---------------------------------------------------------------- two masks


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
    pair = Pair(prediction, reference, spacing_mm, tolerance_mm)
    far_mm = _far_mm(prediction.shape, spacing_mm, missed, diagonal_mm)
    values = {name: metric.of(pair, far_mm=far_mm) for name, metric in METRICS.items()}
    return {**values, "missed": _missed(pair)}


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
    far_mm = _far_mm(reference.shape, spacing_mm, missed, diagonal_mm)
    lost = {name: metric.of_miss(far_mm) for name, metric in METRICS.items() if metric.miss != "reference"}
    return {**result, **lost, "missed": 1.0}


def overlaps(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The metrics of `measure` that need no spacing: overlaps, relative volume error, sensitivity, precision, missed.

    Args:
        prediction, reference: (X, Y, Z) bool, on one grid.

    Raises:
        ValueError: masks of different shapes or that are not bool.
    """
    spacing_mm = (1.0,) * prediction.ndim
    _check(prediction, reference, spacing_mm)
    pair = Pair(prediction, reference, spacing_mm, tolerance_mm=0.0)
    values = {name: m.of(pair, far_mm=math.nan) for name, m in METRICS.items() if not m.needs_spacing}
    return {**values, "missed": _missed(pair)}


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


def _missed(pair: Pair) -> float:
    return float(bool(pair.predicted) != bool(pair.true))


def _far_mm(shape: Sequence[int], spacing_mm: Sequence[float], missed: Missed, diagonal_mm: float | None) -> float:
    """The distance of a miss."""
    if missed == "skip":
        return math.nan
    return diagonal_mm if diagonal_mm is not None else image_diagonal_mm(shape, spacing_mm)

"""One label map of one case -> figures of the tissue and of its region, in the form that tables are made of."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmed.config.compare import CompareConfig
from segmed.data.case import Case
from segmed.evaluate.case_rows import Row, absent_case, evaluate_case
from segmed.labels import IGNORE, LabelSet
from segmed.metrics.mask_metrics import METRICS
from segmed.metrics.published import zabihollahy2020_dice

# share of the tissue in the region, in percentage points, and of its healthy rest that was taken for the tissue
SHARES = ("share_error_pp", "share_difference_pp", "healthy_flagged_percent")
TRUTHS = ("true_ml", "true_avd_ml", "true_difference_ml")  # against the volumes that a phantom was made with
PUBLISHED = "dice_zabihollahy2020"


@dataclass(frozen=True)
class CaseScorer:
    """Scores label maps of cases.

    Attributes:
        config: of the comparison.
        labels: of the data set, in which label maps are given.
    """

    config: CompareConfig
    labels: LabelSet

    def rows(
        self,
        prediction: np.ndarray | None,
        reference: np.ndarray,
        *,
        case: Case,
        spacing_mm: tuple[float, float, float],
        wall: str = "found",
    ) -> list[Row]:
        """Figures of the tissue and of the region.

        Args:
            prediction: (X, Y, Z) label indices; None: there is no result, so the tissue is missed.
            reference: (X, Y, Z) label indices with IGNORE.
            case: whose they are.
            spacing_mm: of the voxels.
            wall: `found` where the method segments the region too, `given` by the reference or by a `run`, or
                `none` where it knows of no region. What was not found is not scored.
        """
        config = self.config
        names = config.within
        few = LabelSet(names, tuple((n,) for n in range(1, len(names) + 1)), regions={config.region: names})
        true = self._reduced(reference)
        shared: dict[str, Any] = {
            "case": case.id,
            "spacing_mm": spacing_mm,
            "config": config.evaluate,
            "spacing_known": config.data.spacing_known,
        }
        if prediction is None:
            every = absent_case(true, few, **shared)
            mine = np.zeros_like(true)
        else:
            mine = self._reduced(prediction)
            every = evaluate_case(mine, true, few, **shared)
        by_name = {row["label"]: row for row in every}
        target, region = by_name[config.target], by_name[config.region]
        if wall != "found":
            region |= dict.fromkeys(METRICS, math.nan) | {"missed": 0.0}
        for row in (target, region):
            row |= dict.fromkeys((*SHARES, *TRUTHS, PUBLISHED), math.nan)
        mine = np.where(true == IGNORE, 0, mine)
        number = few.index(config.target)
        if wall != "none":
            walls = true if wall == "given" or prediction is None else mine
            target |= _shares(mine == number, _inside(walls), true == number, _inside(true))
        healthy = _inside(true) & (true != number)
        if healthy.any() and prediction is not None:
            target["healthy_flagged_percent"] = 100.0 * float((mine == number)[healthy].mean())
        target |= self._against_truth(target, case)
        target[PUBLISHED] = zabihollahy2020_dice(mine == number, true == number, axis=slice_axis(spacing_mm))
        return [target, region]

    def _reduced(self, indices: np.ndarray) -> np.ndarray:
        """Indices of the data set -> those of the region's labels alone."""
        table = np.zeros(IGNORE + 1, np.uint8)
        table[IGNORE] = IGNORE
        for number, name in enumerate(self.config.within, 1):
            table[self.labels.index(name)] = number
        return table[indices]

    def _against_truth(self, row: Row, case: Case) -> dict[str, float]:
        """The tissue's volume beside the one that the phantom was made with, if it is one."""
        true = true_ml(case, self.config.target) if self.config.data.spacing_known else None
        if true is None:
            return {}
        difference = row["prediction_ml"] - true
        return {"true_ml": true, "true_avd_ml": abs(difference), "true_difference_ml": difference}


def true_ml(case: Case, label: str) -> float | None:
    """Volume that truth.json beside the label map knows of a phantom; None: no phantom."""
    path = None if case.label is None else Path(case.label.path).with_name("truth.json")
    try:
        volumes = json.loads(path.read_text(encoding="utf-8"))["volumes_ml"] if path is not None else {}
        return float(volumes[label])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def slice_axis(spacing_mm: tuple[float, float, float]) -> int:
    """The axis of the thickest voxels; of equal ones the last."""
    return max(range(3), key=lambda axis: (round(spacing_mm[axis], 3), axis))


def _inside(indices: np.ndarray) -> np.ndarray:
    return (indices > 0) & (indices != IGNORE)


def _shares(prediction: np.ndarray, wall: np.ndarray, true: np.ndarray, true_wall: np.ndarray) -> dict[str, float]:
    """Per cent of the region that the tissue is, in the label map less in the reference."""
    if not wall.any() or not true_wall.any():
        return {}
    difference = 100.0 * (prediction.sum() / wall.sum() - true.sum() / true_wall.sum())
    return {"share_error_pp": float(abs(difference)), "share_difference_pp": float(difference)}

"""Row of metrics: HD, HD95, ASSD and surface Dice of three labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from torch import Tensor

from benchmarks.synthetic import LABELS, heart
from benchmarks.timing import Contender, Outcome, Setting, Target, alternate, timed
from segmed.metrics.mask_metrics import measure

OURS = "segmed, all four with Dice and volumes"
SPACING_MM, TOLERANCE_MM = (1.2, 1.2, 2.0), 2.0
INDICES = range(1, LABELS.classes)


def distances_row(setting: Setting) -> Outcome:
    """A prediction and a reference whose surfaces differ by a few voxels, and a false island."""
    shape = (48, 48, 24) if setting.quick else (256, 256, 100)
    prediction, reference = heart(shape, 1), heart(shape, 2)
    prediction[tuple(slice(1, 1 + n // 20 + 1) for n in shape)] = 1
    monai = {f"MONAI, {name} alone": partial(f, *map(_one_hot, (prediction, reference))) for name, f in MONAI.items()}
    contenders: dict[str, Contender] = {OURS: timed(lambda: _ours(prediction, reference))}
    contenders |= {name: timed(work) for name, work in monai.items()}
    contenders |= _medpy(prediction, reference)
    timings = alternate(contenders, rounds=setting.rounds)
    own = _ours(prediction, reference)
    differences = [
        abs(row[metric] - float(value))
        for metric, values in zip(MONAI, (work()[0] for work in monai.values()), strict=True)
        for row, value in zip(own, values, strict=True)
        if metric != "assd_mm"  # MONAI's mean is over surface voxels, ours over their area
    ]
    targets = (
        Target("all four", 1000 * timings[OURS].median, "below", 150, "ms"),
        Target("largest difference from MONAI's values", max(differences), "at most", 1e-3, "mm"),
    )
    work = f"HD, HD95, ASSD and surface Dice of three labels, {' × '.join(map(str, shape))}"
    note = f"mean Dice of the two label maps {np.mean([row['dice'] for row in own]):.3f}"
    return Outcome("distances", work, OURS, timings, targets, (note,))


def _ours(prediction: np.ndarray, reference: np.ndarray) -> list[dict[str, float]]:
    return [measure(prediction == i, reference == i, spacing_mm=SPACING_MM, tolerance_mm=TOLERANCE_MM) for i in INDICES]


def _one_hot(label: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack([label == index for index in INDICES]))[None].float()


MONAI: dict[str, Callable[..., Tensor]] = {  # in the names of `measure`
    "hd_mm": partial(compute_hausdorff_distance, include_background=True, spacing=SPACING_MM),
    "hd95_mm": partial(compute_hausdorff_distance, include_background=True, percentile=95, spacing=SPACING_MM),
    "assd_mm": partial(compute_average_surface_distance, include_background=True, symmetric=True, spacing=SPACING_MM),
    "surface_dice": partial(
        compute_surface_dice,
        include_background=True,
        class_thresholds=[TOLERANCE_MM] * len(INDICES),
        spacing=SPACING_MM,
        use_subvoxels=True,
    ),
}


def _medpy(prediction: np.ndarray, reference: np.ndarray) -> dict[str, Contender]:
    """medpy's HD95, where it is installed; it is no dependency."""
    try:
        from medpy.metric.binary import hd95
    except ImportError:
        return {}
    return {
        "medpy, hd95 alone": timed(
            lambda: [hd95(prediction == i, reference == i, voxelspacing=SPACING_MM) for i in INDICES]
        )
    }

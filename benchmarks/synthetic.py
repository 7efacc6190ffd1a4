"""Volumes to measure on: a heart of three labels, its scan, and both in the cache of preprocessed volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter, zoom

from segmed.config import DataConfig, PatternLayout, PreprocessConfig
from segmed.data.cache import CachedVolume, VolumeCache
from segmed.data.cases import read_dataset
from segmed.labels import LabelSet
from segmed.volumes import write_volume

NAMED = {"rv": 1, "myocardium": 2, "blood_pool": 3}
LABELS = LabelSet.from_config(NAMED)
ELLIPSOIDS = (  # centre and radii as shares of the volume, later ones on top
    ((0.35, 0.5, 0.5), (0.21, 0.27, 0.38)),
    ((0.59, 0.5, 0.5), (0.23, 0.23, 0.42)),
    ((0.59, 0.5, 0.52), (0.16, 0.16, 0.34)),
)
BRIGHTNESS = np.array([150, 500, 250, 700], np.float32)  # of background and labels
KNOTS = 8  # an axis, of the field that makes surfaces uneven
PLAIN = PreprocessConfig(
    orientation="ras",
    spacing_mm="native",
    crop="none",
    intensity="zscore",
    interpolation="linear",
    separate_z=False,
)


def heart(shape: tuple[int, int, int], seed: int, *, wobble: float = 0.05) -> np.ndarray:
    """Label indices (X, Y, Z) uint8 of RV, LV myocardium and blood pool, their surfaces uneven.

    Args:
        shape: voxels.
        seed: two of them make a prediction and a reference.
        wobble: SD of the surfaces' shift, as a share of the radius.
    """
    knots = np.random.default_rng(seed).normal(size=(KNOTS,) * 3)
    field = 1 + wobble * zoom(knots, [n / KNOTS for n in shape], order=1, grid_mode=True, mode="nearest")
    axes = np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij", sparse=True)
    label = np.zeros(shape, np.uint8)
    for index, (centre, radii) in enumerate(ELLIPSOIDS, start=1):
        squares = [((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)]
        label[squares[0] + squares[1] + squares[2] < field**2] = index
    return label


def scan(label: np.ndarray, seed: int) -> np.ndarray:
    """What a scanner makes of it, (X, Y, Z) int16: blurred by a voxel, with noise."""
    blurred = gaussian_filter(BRIGHTNESS[label], 0.7)
    noise = np.random.default_rng(seed).normal(0, 30, label.shape)
    return np.clip(blurred + noise, 0, None).astype(np.int16)


@dataclass(frozen=True)
class Stored:
    """A scan on disk.

    Attributes:
        image: .nii.gz.
        volume: the same, preprocessed, in the cache.
    """

    image: Path
    volume: CachedVolume


def stored(scratch: Path, shape: tuple[int, int, int]) -> Stored:
    """A scan with its label map as .nii.gz and in the cache; made where it is not there yet."""
    root = scratch / "x".join(map(str, shape))
    image, label = root / "heart_LGE.nii.gz", root / "heart_label.nii.gz"
    if not label.exists():
        root.mkdir(parents=True, exist_ok=True)
        indices = heart(shape, 0)
        for path, voxels in ((image, scan(indices, 0)), (label, indices)):
            write_volume(path, MetaTensor(torch.from_numpy(voxels)[None], affine=torch.eye(4, dtype=torch.float64)))
    layout = PatternLayout(images={"LGE": "{case}_LGE.nii.gz"}, label="{case}_label.nii.gz")
    dataset = read_dataset(DataConfig(root=root, layout=layout, labels=dict(NAMED)))
    return Stored(image, VolumeCache(scratch / "cache").get(dataset.cases[0], dataset, PLAIN))

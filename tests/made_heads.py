"""Slices of made heads that all look alike, as those of real ones do, for tests of twins and leaks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 96


def heads(count: int, *, slices: int = 1, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """(count, slices, side, side) grey, 0 to 1: the same skull with other folds; the folds change slowly by slice.

    The skull is brighter than all else, and the folds are blobs of a few pixels, of one size in all heads.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    made = np.zeros((count, slices, side, side), np.float32)
    for each in made:
        height, width = rng.normal([0.85, 0.68], 0.01)
        radius = np.sqrt((y / height) ** 2 + (x / width) ** 2)
        brain = 1 / (1 + np.exp((radius - 0.88) * 40))
        skull = np.exp(-(((radius - 0.96) / 0.035) ** 2))
        folds = ndimage.gaussian_filter(rng.normal(size=(slices, side, side)), (1.5, 3.5, 3.5))
        folds /= folds.std()
        each[:] = np.clip(brain * (0.45 + 0.13 * folds) + 0.4 * skull, 0, 1)
    return made


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """Grey (H, W), 0 to 1, through a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(bytes_of(picture)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / 255


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """As most tools do it."""
    image = Image.fromarray(bytes_of(picture)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32) / 255


def bytes_of(picture: np.ndarray) -> np.ndarray:
    """8 bits."""
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def save(path: Path, picture: np.ndarray, **options: object) -> Path:
    """Write grey (H, W), 0 to 1, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bytes_of(picture)).save(path, **options)
    return path


def write_manifest(folder: Path, rows: Iterable[dict[str, object]]) -> None:
    """manifest.csv below a folder."""
    rows = list(rows)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

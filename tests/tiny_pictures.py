"""Small data sets for classification, written as PNG files: class folders, parts, and tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def put_picture(path: Path, *, seed: int = 0, shape: tuple[int, ...] = (12, 10)) -> Path:
    """A noisy picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)).save(path)
    return path


def put_folders(root: Path, counts: Mapping[str, int]) -> Path:
    """Folder -> number of pictures in it, each another one."""
    seed = 0
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            put_picture(root / folder / f"im_{number:03d}.png", seed=(seed := seed + 1))
    return root


def put_table(root: Path, rows: Iterable[Sequence[Any]], header: Sequence[str]) -> Path:
    """A manifest, and a picture for every row whose file is not called `gone`."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [list(map(str, row)) for row in rows]
    with open(root / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for seed, row in enumerate(rows):
        if row[0] and "gone" not in row[0]:
            put_picture(root / row[0], seed=seed)
    return root


def subjects_table(root: Path, subjects: Mapping[str, int], *, slices: int = 3) -> Path:
    """A manifest of so many subjects a class, each with so many slices."""
    rows = [
        (f"{label}/{label}{subject:02d}_{number}.png", label, f"{label}{subject:02d}", number)
        for label, count in subjects.items()
        for subject in range(count)
        for number in range(slices)
    ]
    return put_table(root, rows, ("image", "label", "subject", "slice"))

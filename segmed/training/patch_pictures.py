"""Training patches side by side, and what a method makes of them, as pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

PATCHES = 8  # training patches in a picture
SHADE = 0.4  # of a label's colour over the image
GAP = 2  # black pixels between two patches


def patch_picture(image: np.ndarray, label: np.ndarray | None = None) -> np.ndarray:
    """Patches side by side, of each its first channel and its slice with the most labelled voxels, labels in colour.

    Args:
        image: (B, C, *spatial), 2D or 3D.
        label: (B, *spatial), or none.

    Returns:
        (H, W, 3) uint8; the first axis of a slice runs to the right, the second upwards.
    """
    tiles = []
    for number in range(min(len(image), PATCHES)):
        grey = image[number, 0].astype(np.float32)
        marks = np.zeros(grey.shape, np.uint8)
        if label is not None and label[number].shape == grey.shape:
            marks = label[number]
        shown = _shown_slice(marks)
        tiles.append(_tile(grey[shown], marks[shown]))
    return _row(tiles)


def view_picture(image: np.ndarray, label: np.ndarray, views: Mapping[str, np.ndarray]) -> np.ndarray:
    """A column per patch: image, reference, then each view; the slice is that of `patch_picture`.

    Args:
        image: (B, C, *spatial), 2D or 3D.
        label: (B, *spatial).
        views: maps (N, *spatial) of the first N patches, by name: label indices as integers, drawn in colour over the
            image, or probabilities, drawn from black (0) to white (1).

    Returns:
        (H, W, 3) uint8.
    """
    rows: list[list[np.ndarray]] = [[] for _ in range(2 + len(views))]
    for number in range(min(len(image), *(len(view) for view in views.values()))):
        shown = _shown_slice(label[number])
        grey = image[number, 0].astype(np.float32)[shown]
        rows[0].append(_tile(grey, np.zeros(grey.shape, np.uint8)))
        rows[1].append(_tile(grey, label[number][shown]))
        for row, view in zip(rows[2:], views.values(), strict=True):
            part = view[number][shown]
            row.append(_tile(grey, part) if part.dtype.kind in "iu" else _upright(part[..., None].repeat(3, axis=-1)))
    return np.concatenate([np.pad(_row(row), ((0, GAP), (0, 0), (0, 0))) for row in rows])


def _shown_slice(marks: np.ndarray) -> tuple[Any, ...]:
    """Index of the slice across the last of three axes with the most labelled voxels; of all in 2D."""
    if marks.ndim == 2:
        return (...,)
    known = ((marks > 0) & (marks < 255)).sum(axis=(0, 1))
    return (..., int(known.argmax()) if known.any() else marks.shape[2] // 2)


def _row(tiles: Sequence[np.ndarray]) -> np.ndarray:
    height = max(tile.shape[0] for tile in tiles)
    padded = [np.pad(tile, ((0, height - tile.shape[0]), (0, GAP), (0, 0))) for tile in tiles]
    return np.concatenate(padded, axis=1)


def _tile(grey: np.ndarray, marks: np.ndarray) -> np.ndarray:
    low, high = np.percentile(grey, (1, 99))
    shade = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)[..., None].repeat(3, axis=-1)
    colours = np.asarray(matplotlib.colormaps["tab10"].colors)  # type: ignore[attr-defined]
    coloured = colours[(marks.astype(int) - 1) % len(colours)]
    known = ((marks > 0) & (marks < 255))[..., None]
    shade = np.where(known, (1 - SHADE) * shade + SHADE * coloured, shade)
    return _upright(shade)


def _upright(shade: np.ndarray) -> np.ndarray:
    """Shades in [0, 1] (X, Y, 3) -> (H, W, 3) uint8."""
    return (255 * shade.transpose(1, 0, 2)[::-1]).astype(np.uint8)

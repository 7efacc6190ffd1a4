"""Miniatures of many cases -> pairs that look alike, also when one is flipped; a few blocks are in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segmed.data.miniature import SIZE

CUT = 0.65  # correlation of two miniatures from which their volumes are compared
MOST = 3  # candidates of a case
BLOCK = 512  # cases compared with as many others at once: bounds memory
HALF = SIZE // 2


def look_alikes(names: Sequence[str], miniatures: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Pairs whose miniatures are alike, of each case the most alike ones.

    A volume is the sum of eight parts, each even or odd along x, y and z; a flip changes signs of some of them. So
    eight products of parts give the correlations under all eight flips.

    Args:
        names: of the cases that are compared.
        miniatures: of them, (SIZE, SIZE, SIZE) of length 1; of two blocks of cases they are read at a time.
    """
    starts = range(0, len(names), BLOCK)
    best = np.zeros((len(names), MOST), np.float32)  # correlations, falling
    partner = np.full((len(names), MOST), -1)
    for start in starts:
        rows = _parts([miniatures[name] for name in names[start : start + BLOCK]])
        _note(best, partner, _alike(rows, rows) * ~np.eye(rows.shape[1], dtype=bool), start, start)
        for other in starts[start // BLOCK + 1 :]:
            columns = _parts([miniatures[name] for name in names[other : other + BLOCK]])
            alike = _alike(rows, columns)
            _note(best, partner, alike, start, other)
            _note(best, partner, alike.T, other, start)
    pairs = {
        (min(case, int(other)), max(case, int(other)))
        for case, (values, others) in enumerate(zip(best, partner, strict=True))
        for value, other in zip(values, others, strict=True)
        if value >= CUT
    }
    return [(names[a], names[b]) for a, b in sorted(pairs)]


def _parts(cells: Sequence[np.ndarray]) -> np.ndarray:
    """Miniatures -> their even and odd parts along each axis, (8, N, SIZE³ / 8) float32."""
    parts = np.stack(cells).astype(np.float32)[None]  # (1, N, X, Y, Z)
    for axis in (2, 3, 4):
        low, high = np.split(parts, 2, axis)
        high = np.flip(high, axis)
        parts = np.concatenate([low + high, low - high]) * np.float32(0.5**0.5)
    return parts.reshape(8, len(cells), HALF**3)


def _alike(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(8, N, P) and (8, M, P) -> (N, M): the largest correlation over all flips."""
    products = np.matmul(rows, columns.transpose(0, 2, 1))  # part by part
    for axis in range(3):  # a flip along it turns the sign of what is odd there
        pairs = products.reshape(2**axis, 2, 4 // 2**axis, *products.shape[1:])
        products = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(products.shape)
    return products.max(axis=0)


def _note(best: np.ndarray, partner: np.ndarray, alike: np.ndarray, start: int, other: int) -> None:
    """Keep the most alike ones of some cases: (N, M) of the cases from `start` with those from `other`."""
    rows = slice(start, start + len(alike))
    count = min(MOST, alike.shape[1])
    order = np.argpartition(-alike, count - 1, axis=1)[:, :count]
    values = np.concatenate([best[rows], np.take_along_axis(alike, order, 1)], axis=1)
    others = np.concatenate([partner[rows], order + other], axis=1)
    ranks = np.argsort(-values, axis=1, kind="stable")[:, :MOST]
    best[rows], partner[rows] = np.take_along_axis(values, ranks, 1), np.take_along_axis(others, ranks, 1)

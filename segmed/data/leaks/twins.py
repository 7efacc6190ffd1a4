"""Pictures -> pairs that show the same: pixel for pixel, or resized, recompressed, flipped, cropped, brightened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from segmed.data.leaks.alignment import likeness
from segmed.data.leaks.thumbnails import FRAMES, SIZE, Thumbnail

Kind = Literal["pixels", "near"]

# Chosen on 4,480 slices of 140 heads that are much alike (alzheimer_128): neighbouring slices of one head reach 0.986,
# and other heads don't come into question. Copies planted there and among 1,161 tumour slices have 0.995 and more when
# resized to half or by 1.7, saved as JPEG of quality 20, flipped, padded, cut by 5 % a side, of gamma 0.6 or 1.6;
# turned by 30 degrees 0.997. The least are 0.984: tightly cut heads cut again by 2 %.
NEAR = 0.987
# Of the coarse comparison that finds candidates: other heads reach 0.79, neighbouring slices 0.90 to 0.98, copies 0.91
# in one of the views. Of a tightly cut head that is cut again, copies are less alike, but more than most others.
CUT, LOW = 0.85, 0.4
MOST, MOST_LOW = 12, 3  # candidates of a picture, at the cut and below it; many copies are linked through each other
COARSE = 32  # pixels a side of the coarse comparison
COARSE_SIGMA = 1.0  # pixels: what is broader is common to all heads
BLOCK = 1024  # pictures compared with all others at once: bounds memory
ALL_PAIRS = 32  # pictures with the same pixels of which every pair is listed; of more, each with the first
PAIRS = 64  # confirmed at once: as many as stay in the cache
DOUBT = 0.03  # below the threshold: another frame may show more

FLIPS = ("", "flip_lr", "flip_ud", "rot180")
MOVES = (*FLIPS, "transpose", "rot90", "rot270", "antitranspose")
VIEWS = (  # frame of a, frame of b, moves of b
    ("whole", "whole", MOVES),
    ("centred", "centred", MOVES),
    ("turned", "turned", FLIPS),
    ("inner", "whole", FLIPS),
    ("whole", "inner", FLIPS),
)
HANDICAP = (0.0, 0.01, 0.02, 0.01, 0.01)  # of the views: the simplest counts where it is as good


@dataclass(frozen=True)
class Twin:
    """Two pictures that show the same.

    Attributes:
        a, b: ids.
        kind: `pixels`: equal after decoding; `near`: a changed copy.
        correlation: of their detail after alignment, see `alignment.likeness`; 1 for equal pixels.
        transform: what makes b look like a: nothing (empty), `flip_lr`, `flip_ud`, `rot90` (counterclockwise),
            `rot180`, `rot270`, `transpose`, `antitranspose`, or `turned` by any angle, perhaps with a flip.
    """

    a: str
    b: str
    kind: Kind
    correlation: float
    transform: str = ""


def twins_of(ids: Sequence[str], thumbnails: Sequence[Thumbnail], *, near: float = NEAR) -> tuple[Twin, ...]:
    """Pairs of pictures that show the same, equal pixels first, then by falling correlation.

    Args:
        ids: one a picture, unique.
        thumbnails: one a picture.
        near: correlation of the detail from which a pair is a twin.

    Raises:
        ValueError: ids and thumbnails of different number, or an id twice.
    """
    if len(ids) != len(thumbnails) or len(set(ids)) != len(ids):
        raise ValueError(f"{len(ids)} ids of {len(thumbnails)} pictures: give each picture an id of its own")
    same: dict[str, list[int]] = {}
    for index, small in enumerate(thumbnails):
        same.setdefault(small.key, []).append(index)
    equal = [Twin(ids[a], ids[b], "pixels", 1.0) for members in same.values() for a, b in _pairs(members)]
    firsts = [members[0] for members in same.values()]
    alike = _near([thumbnails[index] for index in firsts], near)
    changed = [Twin(ids[firsts[a]], ids[firsts[b]], "near", value, move) for a, b, value, move in alike]
    return (*equal, *sorted(changed, key=lambda twin: (-twin.correlation, twin.a, twin.b)))


def _pairs(members: Sequence[int]) -> Iterator[tuple[int, int]]:
    if len(members) <= ALL_PAIRS:
        return combinations(members, 2)
    return ((members[0], other) for other in members[1:])


def twin_groups(
    ids: Sequence[str], twins: Sequence[Twin], *, subjects: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Id -> name of its group, the first of the ids that are linked through twins.

    Args:
        ids: of all pictures; one without a twin is a group of its own.
        twins: between some of them; twins with other ids are left out.
        subjects: id -> subject; pictures of a subject are linked, too.
    """
    place = {name: number for number, name in enumerate(ids)}
    links = [(place[twin.a], place[twin.b]) for twin in twins if twin.a in place and twin.b in place]
    first: dict[str, int] = {}
    for name, number in place.items() if subjects else ():
        links.append((first.setdefault((subjects or {})[name], number), number))
    rows, columns = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(place), len(place)))
    _, component = connected_components(graph, directed=False)
    names: dict[int, str] = {}
    return {name: names.setdefault(int(number), name) for name, number in zip(place, component, strict=True)}


# ---------------------------------------------------------------- near twins


@dataclass(frozen=True)
class _Candidates:
    """Pairs a < b that may be twins, the view that shows it, and the move of b; arrays of one length."""

    a: np.ndarray
    b: np.ndarray
    view: np.ndarray
    move: np.ndarray
    correlation: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> _Candidates:
        return _Candidates(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.a)


def moved(pictures: np.ndarray, move: str) -> np.ndarray:
    """Pictures (..., S, S) flipped or turned by right angles."""
    transposed = move in ("transpose", "rot90", "rot270", "antitranspose")
    pictures = pictures.swapaxes(-1, -2) if transposed else pictures
    if move in ("flip_ud", "rot180", "rot90", "antitranspose"):
        pictures = pictures[..., ::-1, :]
    return pictures[..., ::-1] if move in ("flip_lr", "rot180", "rot270", "antitranspose") else pictures


def coarse(frames: np.ndarray) -> np.ndarray:
    """Small pictures (..., 64, 64) -> (..., 32, 32) float32, averaged."""
    step = SIZE // COARSE
    return frames.astype(np.float32).reshape(*frames.shape[:-2], COARSE, step, COARSE, step).mean((-3, -1))


def descriptors(small: np.ndarray) -> np.ndarray:
    """Small pictures (N, 32, 32) -> (N, 1024) float32 of length 1, whose products are correlations of detail."""
    small = small.astype(np.float32)
    detail = small - gaussian_filter(small, (0, COARSE_SIGMA, COARSE_SIGMA))
    flat = detail.reshape(len(small), COARSE * COARSE)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)


def _near(thumbnails: Sequence[Thumbnail], near: float) -> list[tuple[int, int, float, str]]:
    """Near twins among pictures of different pixels: their numbers, correlation and transform."""
    if len(thumbnails) < 2:
        return []
    frames, inside = (np.stack([getattr(small, name) for small in thumbnails]) for name in ("frames", "inside"))
    candidates = _best_views(_candidates(frames))
    pair, first, which = np.unique(
        np.stack([candidates.a, candidates.b]), axis=1, return_index=True, return_inverse=True
    )
    values = np.full(len(candidates), -1.0)
    values[first] = _confirmed(frames, inside, candidates[first])
    best = values[first][which]
    doubtful = np.flatnonzero((values == -1) & (best >= near - DOUBT) & (best < near))
    values[doubtful] = _confirmed(frames, inside, candidates[doubtful])
    best_of_pair: dict[int, tuple[float, str]] = {}
    for index in np.flatnonzero(values >= near):
        name = _transform(int(candidates.view[index]), int(candidates.move[index]))
        known = best_of_pair.get(int(which[index]), (-1.0, ""))
        best_of_pair[int(which[index])] = max(known, (min(1.0, float(values[index])), name))
    return [(int(pair[0, number]), int(pair[1, number]), *each) for number, each in best_of_pair.items()]


def _transform(view: int, move: int) -> str:
    if VIEWS[view][0] != "turned":
        return MOVES[move]
    return "turned" if MOVES[move] in ("", "rot180") else "turned flip"


def _candidates(frames: np.ndarray) -> _Candidates:
    """Pairs that are alike in any view, and those that are most alike to one of their two; frames: (N, 4, 64, 64)."""
    own = {name: descriptors(coarse(frames[:, number])) for number, name in enumerate(FRAMES)}
    pairs: list[tuple[np.ndarray, ...]] = [(np.zeros(0, int),) * 4 + (np.zeros(0, np.float32),)]
    for view, (first, second, moves) in enumerate(VIEWS):
        for move in moves:
            grid = own[second].reshape(-1, COARSE, COARSE)
            other = np.ascontiguousarray(moved(grid, move)).reshape(len(grid), -1)
            rows, columns, values = _alike(own[first], other)
            whole = np.full(len(rows), view), np.full(len(rows), MOVES.index(move))
            pairs.append((rows, columns, *whole, values))
    return _Candidates(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))


def _alike(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows < columns and values of the pairs at the cut, and of each row's and each column's highest above the low."""
    pairs: list[tuple[np.ndarray, ...]] = []
    top, owner = np.full(len(own), LOW, np.float32), np.full(len(own), -1)
    for start in range(0, len(own), BLOCK):
        products = np.triu(own[start : start + BLOCK] @ other[start:].T, k=1)
        rows, columns = np.nonzero(products >= CUT)
        best = products.argmax(axis=1)
        lone = np.flatnonzero((products.max(axis=1) >= LOW) & (products.max(axis=1) < CUT))
        rows, columns = np.concatenate([rows, lone]), np.concatenate([columns, best[lone]])
        pairs.append((rows + start, columns + start, products[rows, columns]))
        highest = products.max(axis=0)
        better = np.flatnonzero(highest > top[start:])
        top[start + better], owner[start + better] = highest[better], products.argmax(axis=0)[better] + start
    below = np.flatnonzero((owner >= 0) & (top < CUT))
    pairs.append((owner[below], below, top[below]))
    return tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))  # type: ignore[return-value]


def _best_views(candidates: _Candidates) -> _Candidates:
    """Of each pair and view the best move, the best view first; without pairs of pictures that have better ones."""
    order = np.lexsort((np.array(HANDICAP)[candidates.view] - candidates.correlation, candidates.b, candidates.a))
    candidates = candidates[order]
    named = np.stack([candidates.a, candidates.b, candidates.view])
    candidates = candidates[np.sort(np.unique(named, axis=1, return_index=True)[1])]
    pair, which = np.unique(np.stack([candidates.a, candidates.b]), axis=1, return_inverse=True)
    highest = np.full(pair.shape[1], -1.0)
    np.maximum.at(highest, which, candidates.correlation)
    taken = np.zeros(int(pair.max(initial=-1)) + 1, int)
    kept = np.zeros(len(highest), bool)
    for number in np.argsort(-highest, kind="stable"):
        a, b = pair[:, number]
        kept[number] = min(taken[a], taken[b]) < (MOST if highest[number] >= CUT else MOST_LOW)
        taken[[a, b]] += kept[number]
    return candidates[kept[which]]


def _confirmed(frames: np.ndarray, inside: np.ndarray, candidates: _Candidates) -> np.ndarray:
    """Correlation of each pair's detail after alignment."""
    first, second = (np.array([FRAMES.index(view[side]) for view in VIEWS]) for side in (0, 1))
    values = np.zeros(len(candidates))
    for start in range(0, len(candidates), PAIRS):
        some = candidates[np.arange(start, min(start + PAIRS, len(candidates)))]
        here, there = (some.a, first[some.view]), (some.b, second[some.view])
        turned = [
            np.stack([moved(each, MOVES[move]) for each, move in zip(of[there], some.move, strict=True)])
            for of in (frames, inside)
        ]
        pictures = (frames[here], turned[0], inside[here], turned[1])
        values[start : start + PAIRS] = likeness(*(torch.from_numpy(each.astype(np.float32)) for each in pictures))
    return values

"""Subjects and neighbouring slices in several parts of a split, and the likeness of pictures across parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

BLOCK = 1024  # pictures compared with all others at once: bounds memory


def subjects_across(subjects: Mapping[str, str], parts: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Subjects with pictures in more than one part -> part -> number of pictures.

    Args:
        subjects: id -> subject.
        parts: id -> part; ids without one are left out.
    """
    counts: dict[str, Counter[str]] = {}
    for name, part in parts.items():
        if name in subjects:
            counts.setdefault(subjects[name], Counter())[part] += 1
    return {subject: dict(count) for subject, count in sorted(counts.items()) if len(count) > 1}


def slices_across(
    subjects: Mapping[str, str], slices: Mapping[str, int], parts: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Pairs of pictures of one subject, one slice apart (or the same slice), in different parts.

    Args:
        subjects: id -> subject.
        slices: id -> number of the slice in its volume.
        parts: id -> part; ids without one are left out.
    """
    places: dict[tuple[str, int], list[str]] = {}
    for name in parts:
        if name in subjects and name in slices:
            places.setdefault((subjects[name], slices[name]), []).append(name)
    pairs = []
    for (subject, number), here in sorted(places.items()):
        same = ((a, b) for place, a in enumerate(here) for b in here[place + 1 :])
        above = ((a, b) for a in here for b in places.get((subject, number + 1), ()))
        pairs += [(a, b) for a, b in (*same, *above) if parts[a] != parts[b]]
    return pairs


def expected_across(sizes: Iterable[int], *, test: float) -> float:
    """Expected number of subjects in both parts of a random split of pictures.

    Args:
        sizes: pictures of each subject.
        test: share of the pictures that is drawn.
    """
    counts = np.array(list(sizes), dtype=int)
    drawn = round(test * int(counts.sum()))
    none = hypergeom.pmf(0, counts.sum(), counts, drawn)
    every = hypergeom.pmf(counts, counts.sum(), counts, drawn)
    return float(np.clip(1 - none - every, 0, 1).sum())


@dataclass(frozen=True, eq=False)
class Alike:
    """Likeness of each picture to the most similar other ones.

    Attributes:
        within: (N,) correlation with the most alike one of the same group; NaN where it is alone.
        across: (N,) correlation with the most alike one of another group; NaN where there is only one.
        nearest: (N,) number of that one; -1 where there is none.
    """

    within: np.ndarray
    across: np.ndarray
    nearest: np.ndarray


def most_alike(features: np.ndarray, groups: Sequence[str]) -> Alike:
    """The most alike pictures within and across groups (subjects, or parts of a split).

    Args:
        features: (N, D) of length 1, of `twins.descriptors`: their products are correlations.
        groups: of each picture.

    Raises:
        ValueError: features and groups of different number.
    """
    if len(features) != len(groups):
        raise ValueError(f"{len(features)} pictures and {len(groups)} groups: give each picture its group")
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    within, across = np.full((2, len(features)), np.nan)
    nearest = np.full(len(features), -1)
    for start in range(0, len(features), BLOCK):
        products = features[start : start + BLOCK] @ features.T
        rows = np.arange(len(products))
        products[rows, rows + start] = -np.inf
        same = codes[start : start + BLOCK, None] == codes[None]
        inside = np.where(same, products, -np.inf).max(axis=1)
        outside = np.where(same, -np.inf, products)
        place = outside.argmax(axis=1)
        best = outside[rows, place]
        within[start : start + BLOCK] = np.where(np.isfinite(inside), inside, np.nan)
        across[start : start + BLOCK] = np.where(np.isfinite(best), best, np.nan)
        nearest[start : start + BLOCK] = np.where(np.isfinite(best), place, -1)
    return Alike(within, across, nearest)

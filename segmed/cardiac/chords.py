"""Transmurality: the share of scar along radial chords from endocardium to epicardium."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segmed.cardiac.short_axis import ShortAxis
from segmed.errors import CardiacError

CLASSES = ("0", "1-25", "26-50", "51-75", "76-100")
SHORTEST_MM = 1.5  # a chord through less wall than this is none: the edge of a partial ring


@dataclass(frozen=True)
class Chords:
    """Radial chords of a view.

    Attributes:
        share: (S, N) float64, share of scar along each chord in [0, 1]; NaN where there is no chord.
        angles_rad: (N,), angles of the view.
    """

    share: np.ndarray
    angles_rad: np.ndarray


def radial_chords(view: ShortAxis, scar: np.ndarray, *, count: int = 100) -> Chords:
    """The share of scar along chords from the centre of the LV outwards, in every slice.

    A chord is what a ray from the centre meets of the wall. The cap of the apex has no cavity, so none of its
    directions is across the wall: it has no chords. Source: 100 chords per slice as Sheehan et al. 1986, Circulation
    74:293, here radial; classes of Kim et al. 2000, N Engl J Med 343:1445.

    Args:
        view: of the LV.
        scar: (R, C, S) bool, on the grid of the view (`view.cut.bring`).
        count: chords per slice, at equal angles.

    Raises:
        CardiacError: a scar on another grid; fewer than four chords.
    """
    if scar.shape != view.cut.wall.shape:
        raise CardiacError(f"the scar has shape {scar.shape}, the view {view.cut.wall.shape}: bring it onto the view")
    if count < 4:
        raise CardiacError(f"{count} chords per slice are too few: take 100")
    angles = (np.arange(count) + 0.5) * 2 * np.pi / count
    share = np.full((len(view.slices), count), np.nan)
    for one in view.slices:
        if one.kind == "cap":
            continue
        wall = view.cut.along_rays(view.cut.wall[..., one.index], one.centre, angles)
        inside = view.cut.along_rays(scar[..., one.index], one.centre, angles) & wall
        steps = wall.sum(axis=1)
        enough = steps * view.cut.step_mm >= SHORTEST_MM
        share[one.index, enough] = inside.sum(axis=1)[enough] / steps[enough]
    return Chords(share, angles)


def transmurality_class(percent: float) -> str:
    """The class of a transmurality in per cent, rounded to a whole number: 0, 1-25, 26-50, 51-75 or 76-100."""
    return CLASSES[int(np.ceil(np.floor(percent + 0.5) / 25))]


def class_shares_percent(share: np.ndarray) -> dict[str, float] | None:
    """How many of the chords lie in each class, in per cent; None without a chord.

    Args:
        share: of scar, any shape, NaN where there is no chord.
    """
    known = share[np.isfinite(share)]
    if known.size == 0:
        return None
    places = np.ceil(np.floor(100 * known + 0.5) / 25).astype(int)
    counts = np.bincount(places, minlength=len(CLASSES))
    return {name: 100 * float(number) / known.size for name, number in zip(CLASSES, counts, strict=True)}

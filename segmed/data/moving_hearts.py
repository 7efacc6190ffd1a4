"""A heart that beats: the ventricles of `segmed.data.anatomy` at any time of a cycle, ejecting a known share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from segmed.data.anatomy import Anatomy, Contrast, Heart
from segmed.data.drawn_hearts import Disease, draw_anatomy

HEALTHY = Disease((1.0, 0.0, 0.0), (7, 11), (4.5, 7), (0.0, 0.0), 0.0, 0.0)
RV_NARROWS = (0.45, 0.2)  # of the right ventricle's half axes at end-systole, for each share that the left one ejects
RELAXED, RESTING = 0.25, 0.2  # share of the stroke that is still to come in after the early filling, and at its rest
FILLING, KICK = 0.25, 0.85  # shares of a cycle: the early filling lasts, the atrium begins to contract


@dataclass(frozen=True)
class Beat:
    """How a left ventricle contracts.

    Attributes:
        ejection: the share of its end-diastolic volume that it ejects.
        shortening: of the long axis; the base moves, the apex stays.
        systole: share of the cycle from end-diastole, at its begin, to end-systole.
        cycle_ms: from one end-diastole to the next.
    """

    ejection: float
    shortening: float
    systole: float
    cycle_ms: float


def draw_moving_heart(rng: np.random.Generator) -> tuple[Anatomy, Beat]:
    """Draw a subject without scar, as bright as balanced steady-state images show it, and its beat."""
    anatomy = draw_anatomy(rng, HEALTHY)
    ejection = float(rng.uniform(0.25, 0.7))
    beat = Beat(
        ejection=ejection,
        shortening=float(0.22 * ejection + rng.uniform(-0.02, 0.02)),
        systole=float(rng.uniform(0.32, 0.42)),
        cycle_ms=float(rng.uniform(700, 1100)),
    )
    return replace(anatomy, contrast=_draw_contrast(rng)), beat


def contraction(beat: Beat, time: float) -> float:
    """How far a heart has contracted: 0 at end-diastole, 1 at end-systole.

    Args:
        beat: of the heart.
        time: share of the cycle, from 0 to 1.
    """
    knots = np.array([0.0, beat.systole, beat.systole + FILLING, KICK, 1.0])
    values = np.array([0.0, 1.0, RELAXED, RESTING, 0.0])
    after = int(np.clip(np.searchsorted(knots, time, side="right"), 1, len(knots) - 1))
    share = (time - knots[after - 1]) / (knots[after] - knots[after - 1])
    eased = (1 - np.cos(np.pi * np.clip(share, 0, 1))) / 2
    return float(values[after - 1] + eased * (values[after] - values[after - 1]))


def contracted(heart: Heart, beat: Beat, amount: float) -> tuple[Heart, float]:
    """The heart when it has contracted by an amount, and how far its base has moved toward the apex, in mm.

    The cavity loses `ejection * amount` of its volume exactly: it is proportional to the length and to the square of
    the radius. The wall thickens as far as its volume stays.

    Args:
        heart: at end-diastole.
        beat: how it contracts.
        amount: from 0 to 1, of `contraction`.
    """
    length = heart.length_mm * (1 - beat.shortening * amount)
    shrunk = length / heart.length_mm
    radius = heart.radius_mm * np.sqrt((1 - beat.ejection * amount) / shrunk)
    inner = 1 - heart.apex_wall_mm / heart.length_mm  # length of the cavity, as a share: the same all the time
    wall = (heart.radius_mm + heart.wall_mm) ** 2 - inner * heart.radius_mm**2  # of the heart's length: its volume
    outer = np.sqrt(wall / shrunk + inner * radius**2)
    rv_mm = [axis * (1 - share * beat.ejection * amount) for axis, share in zip(heart.rv_mm, RV_NARROWS, strict=True)]
    moved = replace(
        heart,
        length_mm=float(length),
        radius_mm=float(radius),
        wall_mm=float(outer - radius),
        apex_wall_mm=heart.apex_wall_mm * shrunk,
        rv_mm=(rv_mm[0], rv_mm[1]),
    )
    return moved, float(heart.length_mm - length)


def _draw_contrast(rng: np.random.Generator) -> Contrast:
    blood = float(rng.uniform(0.7, 0.95))
    muscle = float(rng.uniform(0.25, 0.4))
    return Contrast(
        air=0.0,
        lung=float(rng.uniform(0.03, 0.08)),
        myocardium=muscle,
        blood=blood,
        scar=muscle,
        fat=float(rng.uniform(0.55, 0.85)),
        muscle=float(muscle + rng.uniform(-0.05, 0.05)),
        liver=float(rng.uniform(0.3, 0.5)),
        spleen=float(rng.uniform(0.35, 0.55)),
    )

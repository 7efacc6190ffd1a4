"""Trees of retinal vessels drawn at random: from the optic disc outwards, thinner at every fork."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

STEP = 0.75  # pixels between two points of a vessel
THINNEST = 0.55  # radius in pixels below which a vessel ends
WANDER_RAD = 0.035  # standard deviation of the turn at a step
FORK_PIXELS = 85.0  # mean length between two forks
MOST_POINTS = 60_000  # of all vessels of an eye


@dataclass(frozen=True)
class Eye:
    """Where things lie in the image of an eye, in pixels (column, row).

    Attributes:
        centre: of the field of view.
        radius: of the field of view.
        disc: centre of the optic disc, from which the vessels come.
        fovea: centre of the macula, which they run around.
        trunk_radius: of a vein at the disc; arteries have 0.75 of it.
    """

    centre: np.ndarray
    radius: float
    disc: np.ndarray
    fovea: np.ndarray
    trunk_radius: float

    @property
    def disc_radius(self) -> float:
        """About a seventh of the field of view's."""
        return self.radius / 7

    @property
    def scale(self) -> float:
        """Size of the image, 1 for one of 565 pixels."""
        return self.radius / 265


@dataclass
class _Tip:
    """The growing end of a vessel."""

    place: np.ndarray
    heading: float
    radius: float
    bend: float  # turn at a step, which makes the arcades
    artery: bool


def draw_eye(rng: np.random.Generator, *, size: tuple[int, int]) -> Eye:
    """Draw a left or a right eye.

    Args:
        rng: of the eye.
        size: columns and rows.
    """
    radius = 0.47 * min(size)
    centre = np.array(size) / 2 + rng.uniform(-0.01, 0.01, 2) * min(size)
    side = rng.choice([-1.0, 1.0])
    disc = centre + radius * np.array([side * rng.uniform(0.55, 0.68), rng.uniform(-0.1, 0.1)])
    fovea = disc - radius * np.array([side * rng.uniform(0.7, 0.8), rng.uniform(-0.12, 0.02)])
    trunk = 4.2 * np.sqrt(radius / 265) * rng.uniform(0.85, 1.15)
    return Eye(centre, radius, disc, fovea, float(trunk))


def draw_vessels(eye: Eye, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grow all vessels of an eye.

    At a fork the cubes of both radii add up to the cube of the vessel's (Murray 1926, PNAS 12:207).

    Returns:
        (N, 3) column, row and radius of points, 0.75 pixels apart along each vessel; (N,) bool, those of arteries.
    """
    tips = list(_trunks(eye, rng))
    points: list[tuple[float, float, float]] = []
    arteries: list[bool] = []
    while tips and len(points) < MOST_POINTS:
        tip = tips.pop()
        fork_probability = STEP / (FORK_PIXELS * eye.scale**0.5)
        while tip.radius > THINNEST and np.hypot(*(tip.place - eye.centre)) < eye.radius + 4:
            points.append((*tip.place, tip.radius))
            arteries.append(tip.artery)
            tip.heading += tip.bend + rng.normal(0, WANDER_RAD)
            tip.place = tip.place + STEP * np.array([np.cos(tip.heading), np.sin(tip.heading)])
            tip.radius *= 1 - 0.001 / eye.scale
            if rng.random() < fork_probability:
                tips.append(_fork(tip, rng))
    return np.array(points), np.array(arteries)


def _trunks(eye: Eye, rng: np.random.Generator) -> Iterator[_Tip]:
    """An artery and a vein for each quarter; those on the side of the fovea bend around it."""
    towards = np.sign(eye.fovea[0] - eye.disc[0])
    for temporal in (True, False):
        for up in (-1.0, 1.0):
            for artery in (True, False):
                side = towards if temporal else -towards
                angle = rng.uniform(1.0, 1.35) if temporal else rng.uniform(0.6, 1.1)
                heading = np.arctan2(up * np.sin(angle), side * np.cos(angle))
                bend = -up * side * rng.uniform(0.6, 1.1) * STEP / eye.radius if temporal else 0.0
                radius = eye.trunk_radius * (0.75 if artery else 1.0) * (1.0 if temporal else 0.75)
                start = eye.disc + rng.normal(0, eye.disc_radius / 6, 2)
                yield _Tip(start, float(heading), float(radius), float(bend), artery)


def _fork(tip: _Tip, rng: np.random.Generator) -> _Tip:
    """Split a branch off; the tip goes on, thinner and turned away a little."""
    share = rng.uniform(0.1, 0.5)  # of the cube of the radius
    side = rng.choice([-1.0, 1.0])
    branch = _Tip(
        tip.place.copy(), tip.heading + side * rng.uniform(0.5, 1.2), tip.radius * share ** (1 / 3), 0.0, tip.artery
    )
    tip.radius *= (1 - share) ** (1 / 3)
    tip.heading -= side * rng.uniform(0.0, 0.3) * share
    return branch

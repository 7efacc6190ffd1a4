"""Synthetic subjects drawn at random: sizes, shapes, scars and contrast, easy or hard to segment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segmed.data.anatomy import Anatomy, Chest, Contrast, Heart, Scar


@dataclass(frozen=True)
class Disease:
    """What the hearts of a data set have; ranges are (least, largest) of a uniform distribution.

    Attributes:
        scars: probabilities of none, one and two scars.
        wall_mm, apex_wall_mm: thickness of the wall.
        above_blood: how much brighter than blood scar is; blood has 0.42 to 0.68.
        obstructed: probability that the core of a deep scar stays dark.
        thinning: share of its thickness that the wall has lost where a transmural scar is.
    """

    scars: tuple[float, float, float]
    wall_mm: tuple[float, float]
    apex_wall_mm: tuple[float, float]
    above_blood: tuple[float, float]
    obstructed: float
    thinning: float


CLEAR = Disease((0.3, 0.5, 0.2), (8, 12.5), (5, 8), (0.1, 0.4), 0.4, 0.0)
HARD = Disease((0.4, 0.4, 0.2), (6.5, 10.5), (4, 6.5), (-0.08, 0.12), 0.6, 0.35)


def draw_anatomy(rng: np.random.Generator, disease: Disease = CLEAR) -> Anatomy:
    """Draw a subject: sizes, shapes, scars and contrast."""
    return Anatomy(_draw_heart(rng, disease), _draw_chest(rng), _draw_contrast(rng, disease))


def _draw_heart(rng: np.random.Generator, disease: Disease) -> Heart:
    count = int(rng.choice([0, 1, 2], p=disease.scars))
    waves = tuple((float(rng.normal(0, 0.07 / cycles)), cycles, _angle(rng)) for cycles in (2, 3, 4, 6))
    return Heart(
        length_mm=float(rng.uniform(72, 95)),
        radius_mm=float(rng.uniform(20, 29)),
        wall_mm=float(rng.uniform(*disease.wall_mm)),
        apex_wall_mm=float(rng.uniform(*disease.apex_wall_mm)),
        waves=waves,
        thickening=(float(rng.uniform(0, 0.2)), _angle(rng)),
        rv_mm=(float(rng.uniform(24, 34)), float(rng.uniform(34, 46))),
        rv_angle_rad=float(np.pi + rng.uniform(0.0, 0.5)),
        scars=tuple(_draw_scar(rng, disease) for _ in range(count)),
        fat=(float(rng.uniform(2, 8)), _angle(rng)),
        papillary_rad=(float(rng.uniform(0.5, 1.2)), float(rng.uniform(2.0, 2.7))),
        thinning=disease.thinning,
    )


def _draw_scar(rng: np.random.Generator, disease: Disease) -> Scar:
    transmurality = float(rng.uniform(0.6, 1.5))
    return Scar(
        angle_rad=_angle(rng),
        half_width_rad=float(rng.uniform(0.5, 1.5)),
        level=float(rng.uniform(0.2, 0.85)),
        half_length=float(rng.uniform(0.25, 0.6)),
        transmurality=transmurality,
        obstructed=bool(transmurality > 0.9 and rng.random() < disease.obstructed),
    )


def _draw_chest(rng: np.random.Generator) -> Chest:
    return Chest(
        wall_mm=float(rng.uniform(48, 60)),
        wall_angle_rad=float(-np.pi * 0.75 + rng.uniform(-0.2, 0.3)),
        layers_mm=(float(rng.uniform(5, 9)), float(rng.uniform(4, 16))),
        dome_mm=float(rng.uniform(38, 50)),
        dome_slope=float(rng.uniform(0.1, 0.5)),
        aorta_mm=(float(rng.uniform(54, 62)), float(rng.uniform(15, 40)), float(rng.uniform(9, 13))),
        spleen_mm=(float(rng.uniform(45, 60)), float(rng.uniform(55, 70)), float(rng.uniform(14, 24))),
    )


def _draw_contrast(rng: np.random.Generator, disease: Disease) -> Contrast:
    blood = float(rng.uniform(0.42, 0.68))
    return Contrast(
        air=0.0,
        lung=float(rng.uniform(0.03, 0.07)),
        myocardium=float(rng.uniform(0.13, 0.25)),
        blood=blood,
        scar=float(blood + rng.uniform(*disease.above_blood)),
        fat=float(rng.uniform(0.5, 1.0)),
        muscle=float(rng.uniform(0.2, 0.32)),
        liver=float(rng.uniform(0.25, 0.45)),
        spleen=float(rng.uniform(0.3, 0.6)),
    )


def _angle(rng: np.random.Generator) -> float:
    return float(rng.uniform(-np.pi, np.pi))

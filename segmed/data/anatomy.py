"""A synthetic chest with a heart: tissue and label at any point, for phantoms whose truth is known.

Points are given in heart coordinates in mm: `u` toward the lateral wall, `v` toward the inferior wall, `w` along the
long axis from the base (0) to the apex. In an image of a short-axis slice u runs to the right and v downwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MYOCARDIUM, BLOOD_POOL, RV, SCAR = 1, 2, 3, 4
LABEL_VALUES = {"myocardium": MYOCARDIUM, "blood_pool": BLOOD_POOL, "rv": RV, "scar": SCAR}

ABOVE = 0.35  # the cavities continue above the base for this share of the ventricle's length
THIN_WALL_MM = 3.0  # of the right ventricle and of the atrium
VALVE_MM = 2.0

Field = np.ndarray  # float32, one value a point


@dataclass(frozen=True)
class Scar:
    """A part of the LV wall that starts at the endocardium.

    Attributes:
        angle_rad: middle of the sector, 0 at the lateral wall, pi / 2 at the inferior wall.
        half_width_rad: half of the sector.
        level: middle along the long axis, 0 at the base, 1 at the apex.
        half_length: half of the extent along it.
        transmurality: largest depth, as a fraction of the wall; 1 and more reach the epicardium.
        obstructed: whether the core stays dark (microvascular obstruction).
    """

    angle_rad: float
    half_width_rad: float
    level: float
    half_length: float
    transmurality: float
    obstructed: bool


@dataclass(frozen=True)
class Heart:
    """A left ventricle (two truncated ellipsoids), a crescent-shaped right one, and scars.

    Attributes:
        length_mm: from the base to the epicardial apex.
        radius_mm: of the endocardium at the base.
        wall_mm: thickness at the base; the wall at the apex is `apex_wall_mm` thick.
        apex_wall_mm: see `wall_mm`.
        waves: (amplitude, cycles, phase) of what makes the contours less than round.
        thickening: (amplitude, phase) of the wall's thickness around the ring.
        rv_mm: half axes of the right ventricle's ellipse at the base.
        rv_angle_rad: direction in which it lies.
        scars: any number of them.
        fat: (largest thickness in mm, phase) of the fat around the heart.
        papillary_rad: directions of the papillary muscles.
        thinning: see `segmed.data.drawn_hearts.Disease`.
    """

    length_mm: float
    radius_mm: float
    wall_mm: float
    apex_wall_mm: float
    waves: tuple[tuple[float, int, float], ...]
    thickening: tuple[float, float]
    rv_mm: tuple[float, float]
    rv_angle_rad: float
    scars: tuple[Scar, ...]
    fat: tuple[float, float]
    papillary_rad: tuple[float, float]
    thinning: float = 0.0


@dataclass(frozen=True)
class Chest:
    """The surroundings of the heart: distances of surfaces in mm from its axis.

    Attributes:
        wall_mm: of the inner chest wall, toward the front.
        wall_angle_rad: direction of the front.
        layers_mm: thickness of muscle and of the fat below the skin.
        dome_mm: height of the diaphragm below the axis.
        dome_slope: how the diaphragm falls toward the lateral side.
        aorta_mm: position (u, v) and radius of the descending aorta.
        spleen_mm: position (u, v) and radius of the spleen.
    """

    wall_mm: float
    wall_angle_rad: float
    layers_mm: tuple[float, float]
    dome_mm: float
    dome_slope: float
    aorta_mm: tuple[float, float, float]
    spleen_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Contrast:
    """Intensities of tissues in an LGE image: healthy muscle is nulled, scar and fat are bright."""

    air: float
    lung: float
    myocardium: float
    blood: float
    scar: float
    fat: float
    muscle: float
    liver: float
    spleen: float


@dataclass(frozen=True)
class Anatomy:
    """One subject."""

    heart: Heart
    chest: Chest
    contrast: Contrast


# ---------------------------------------------------------------- tissue at a point


def chest_wall(anatomy: Anatomy, u: Field, v: Field) -> tuple[np.ndarray, Field]:
    """Points that lie in or outside the chest wall, which does not move with the breath: (bool, intensity)."""
    chest, contrast = anatomy.chest, anatomy.contrast
    along = np.cos(chest.wall_angle_rad) * u + np.sin(chest.wall_angle_rad) * v
    across = np.cos(chest.wall_angle_rad) * v - np.sin(chest.wall_angle_rad) * u
    depth = along + across**2 / 260 - chest.wall_mm
    muscle, fat = chest.layers_mm
    ribs = np.cos(across / 7.5) > 0.55
    inner = np.where(ribs, contrast.fat * 0.6, contrast.muscle)
    layers = np.where(depth < muscle, inner, np.where(depth < muscle + fat, contrast.fat, contrast.air))
    return depth > 0, layers.astype(np.float32)


def organs(anatomy: Anatomy, u: Field, v: Field, w: Field) -> Field:
    """Intensity of lung, liver, spleen, aorta and the fat that fills the mediastinum."""
    chest, contrast = anatomy.chest, anatomy.contrast
    signal = np.full(u.shape, contrast.lung, np.float32)
    au, av, radius = chest.aorta_mm
    vessel = np.hypot(u - au, v - av)
    signal[vessel < radius + 2] = contrast.muscle
    signal[vessel < radius] = contrast.blood * 0.95
    middle = (u + 62) ** 2 / 30**2 + (v + 4) ** 2 / 45**2 < 1
    signal[middle] = 0.75 * contrast.fat
    height = chest.dome_mm + chest.dome_slope * u + 0.004 * u**2 - 0.12 * w
    signal[v > height] = 0.7 * contrast.fat
    signal[v > height + 3] = contrast.liver
    su, sv, radius = chest.spleen_mm
    signal[((u - su) / 1.3) ** 2 + (v - sv) ** 2 < radius**2] = contrast.spleen
    stomach = ((u - su + 38) / 1.4) ** 2 + (v - sv) ** 2 < (0.8 * radius) ** 2
    signal[stomach] = 1.3 * contrast.muscle
    return signal


def draw_heart(anatomy: Anatomy, u: Field, v: Field, w: Field, signal: Field) -> np.ndarray:
    """Draw the heart into `signal`, and give the label of every point: uint8.

    Below the base lie the ventricles. Above it their cavities continue, unlabelled, behind thin valves and with thin
    walls, as atrium and outflow tract.
    """
    heart, contrast = anatomy.heart, anatomy.contrast
    labels = np.zeros(u.shape, np.uint8)
    level = w / heart.length_mm
    angle, radius = np.arctan2(v, u), np.hypot(u, v)
    epi, endo = _contours(heart, angle, level)
    in_heart = radius < epi
    _draw_right(heart, contrast, (u, v, level), (radius, epi), signal, labels)
    wall = in_heart & (level >= 0) & (level < 1)
    cavity = wall & (radius < endo)
    atrium = endo * np.sqrt(np.clip(1 - (level / ABOVE) ** 2, 0, None))
    above = (level < 0) & (level > -ABOVE)
    signal[above & (radius < atrium + THIN_WALL_MM)] = contrast.myocardium
    signal[above & (radius < atrium) & (w < -VALVE_MM)] = contrast.blood
    signal[wall] = contrast.myocardium
    signal[cavity] = contrast.blood
    labels[wall] = MYOCARDIUM
    labels[cavity] = BLOOD_POOL
    for side in heart.papillary_rad:  # papillary muscles: dark in the blood pool, and labelled as a part of it
        at_u, at_v = 0.68 * endo * np.cos(side), 0.68 * endo * np.sin(side)
        muscle = (np.hypot(u - at_u, v - at_v) < 0.17 * endo) & cavity & (np.abs(level - 0.5) < 0.2)
        signal[muscle] = contrast.myocardium
    depth = (radius - endo) / np.maximum(epi - endo, 1e-3)
    for scar in heart.scars:
        _draw_scar_into(scar, contrast, (angle, level, depth), wall & ~cavity, signal, labels)
    return labels


def _contours(heart: Heart, angle: Field, level: Field) -> tuple[Field, Field]:
    """Radii of epicardium and endocardium in mm at points around and along the long axis."""
    shape = np.ones_like(angle)
    for amplitude, cycles, phase in heart.waves:
        shape += amplitude * np.cos(cycles * angle + phase + 1.5 * level)
    amplitude, phase = heart.thickening
    wall = heart.wall_mm * (1 + amplitude * np.cos(angle + phase))
    down = np.clip(level, 0, None)
    inner_end = 1 - heart.apex_wall_mm / heart.length_mm
    epi = (heart.radius_mm * shape + wall) * np.sqrt(np.clip(1 - down**2.4, 0, None))
    endo = heart.radius_mm * shape * np.sqrt(np.clip(1 - (down / inner_end) ** 2.4, 0, None))
    endo = np.minimum(endo, epi)
    if heart.thinning:
        lost = heart.thinning * np.max([_depth(scar, angle, level) for scar in heart.scars] or [np.zeros(1)], axis=0)
        endo = endo + np.clip(lost, 0, heart.thinning) * (epi - endo)
    return epi.astype(np.float32), endo.astype(np.float32)


def _draw_right(
    heart: Heart,
    contrast: Contrast,
    point: tuple[Field, Field, Field],
    left: tuple[Field, Field],
    signal: Field,
    labels: np.ndarray,
) -> None:
    """Draw fat around the heart, and the right ventricle: an ellipse beside the left one, less what that covers."""
    u, v, level = point
    radius, epi = left
    cos, sin = np.cos(heart.rv_angle_rad), np.sin(heart.rv_angle_rad)
    out, across = cos * u + sin * v, cos * v - sin * u
    taper = np.sqrt(np.clip(1 - (np.clip(level, 0, None) / 0.88) ** 2, 0, None))
    taper = np.where(level < 0, 0.8 * np.sqrt(np.clip(1 - (level / ABOVE) ** 2, 0, None)), taper)
    offset = (heart.radius_mm + 0.45 * heart.rv_mm[0]) * (0.35 + 0.65 * taper)
    thick, tall = heart.rv_mm[0] * taper + 1e-3, heart.rv_mm[1] * taper + 1e-3
    here = (level > -ABOVE) & (level < 1)
    bulge = 1 + 0.12 * np.cos(across / 9)
    rim = np.hypot((out - offset) / thick, across / tall) / bulge

    def within(margin_mm: float | Field) -> np.ndarray:
        return (rim - 1) * np.minimum(thick, tall) < margin_mm

    fat = heart.fat[0] * np.clip(0.25 + np.cos(np.arctan2(v, u) * 2 + heart.fat[1] + 2 * level), 0.1, 1)
    around = here & (within(THIN_WALL_MM + fat) & (taper > 0.05) | (radius < epi + fat))
    signal[around] = contrast.fat
    free_wall = here & within(THIN_WALL_MM) & (taper > 0.05)
    signal[free_wall] = contrast.myocardium
    valve = (level < 0) & (level * heart.length_mm > -VALVE_MM)
    cavity = free_wall & within(0.0) & (radius > epi) & ~valve
    signal[cavity] = contrast.blood * 0.93
    labels[cavity & (level >= 0)] = RV


def _draw_scar_into(
    scar: Scar,
    contrast: Contrast,
    point: tuple[Field, Field, Field],
    wall: np.ndarray,
    signal: Field,
    labels: np.ndarray,
) -> None:
    """Draw a scar from the endocardium outwards; its depth falls off, unevenly, toward the edge of its sector."""
    angle, level, depth = point
    uneven = 1 + 0.15 * np.sin(5 * angle + 9 * level) + 0.1 * np.sin(11 * angle - 14 * level)
    away = _away(scar, angle, level)
    reach = _depth(scar, angle, level) * uneven
    inside = wall & (depth < reach)
    edge = np.clip((reach - depth) / 0.2, 0, 1)
    bright = contrast.myocardium + (contrast.scar - contrast.myocardium) * (0.35 + 0.65 * edge)
    if scar.obstructed:
        core = (away < 0.25) & (depth < 0.4)
        bright = np.where(core, contrast.myocardium * 1.2, bright)
    signal[inside] = np.maximum(bright, signal)[inside] if not scar.obstructed else bright[inside]
    labels[inside] = SCAR


def _away(scar: Scar, angle: Field, level: Field) -> Field:
    """Squared distance from the scar's middle in units of its half axes: 1 at its edge."""
    turn = np.mod(angle - scar.angle_rad + np.pi, 2 * np.pi) - np.pi
    return (turn / scar.half_width_rad) ** 2 + ((level - scar.level) / scar.half_length) ** 2


def _depth(scar: Scar, angle: Field, level: Field) -> Field:
    """How deep the scar is, as a fraction of the wall, but for its unevenness."""
    return scar.transmurality * np.sqrt(np.clip(1 - _away(scar, angle, level), 0, None))

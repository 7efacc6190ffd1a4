"""A label map and what its values mean -> the wall, scar, pool and RV of a heart; where image and labels disagree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmed.cardiac.heart import HeartLabels
from segmed.cardiac.report import ScarReport
from segmed.errors import CardiacError, VolumeError
from segmed.labels import LabelSet

MOST_ZONES = 1.5  # volume of core and grey zone together, over that of the labelled scar, from which a note doubts them
FEWEST_VOXELS = 10  # of an obstruction that is no gap of the label map

# Names that a run's labels have in the configs of segmed; other names have to be given.
USUAL_NAMES = {"wall": ("myocardium", "scar"), "scar": ("scar",), "pool": ("blood_pool",), "rv": ("rv",)}


@dataclass(frozen=True)
class HeartValues:
    """Values in a label map.

    Attributes:
        wall: of all LV myocardium, scar included.
        scar: of scar, all of them among those of the wall.
        pool, rv: of the LV's blood pool and of the right ventricle; empty: not labelled.

    Raises:
        VolumeError: nothing for wall or scar, a scar that is not a part of the wall, or one value for two tissues.
    """

    wall: tuple[int, ...]
    scar: tuple[int, ...]
    pool: tuple[int, ...] = ()
    rv: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, values in (("wall", self.wall), ("scar", self.scar)):
            if not values:
                raise VolumeError(f"the label values of the {name} are missing: give --{name}, as --{name} 2221")
        if 0 in {*self.wall, *self.pool, *self.rv}:
            raise VolumeError("value 0 is background: give the values of the tissues")
        outside = sorted(set(self.scar) - set(self.wall))
        if outside:
            whole = ",".join(map(str, (*self.wall, *outside)))
            raise VolumeError(
                f"scar value {outside[0]} is not a part of the wall: scar is LV wall, give --wall {whole}"
            )
        tissues = {"wall": set(self.wall), "pool": set(self.pool), "rv": set(self.rv)}
        for first, second in (("wall", "pool"), ("wall", "rv"), ("pool", "rv")):
            if both := tissues[first] & tissues[second]:
                raise VolumeError(f"value {min(both)} stands for {first} and {second}: give it to one of them")


def heart_values(
    wall: str | None, scar: str | None, pool: str | None, rv: str | None, *, labels: LabelSet | None = None
) -> HeartValues:
    """Read the values from texts as `200,1220,2221`.

    Args:
        wall, scar, pool, rv: whole numbers, or names of labels where there is a run; None: the usual names of the
            run's labels, where it has them.
        labels: of the run that made the label map; None: nothing is taken for granted.

    Raises:
        VolumeError: no number, an unknown name, or values that can't be.
    """
    given = {"wall": wall, "scar": scar, "pool": pool, "rv": rv}
    return HeartValues(**{tissue: _values(tissue, text, labels) for tissue, text in given.items()})


def _values(tissue: str, text: str | None, labels: LabelSet | None) -> tuple[int, ...]:
    if text is None:
        if labels is None:
            return ()
        known = {*labels.names, *labels.regions}
        if all(name in known for name in USUAL_NAMES[tissue]):
            return tuple(value for name in USUAL_NAMES[tissue] for value in _of_name(name, labels))
        if tissue in ("wall", "scar"):
            names = ", ".join(sorted(known))
            raise VolumeError(f"which labels of the run are the {tissue} can't be known: give --{tissue} of {names}")
        return ()
    return label_values(tissue, text, labels)


def label_values(tissue: str, text: str, labels: LabelSet | None) -> tuple[int, ...]:
    """The values of a text as `200,1220` or, with the labels of a run, `myocardium,scar`.

    Raises:
        VolumeError: no number, or an unknown name.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    values: list[int] = []
    for part in parts:
        if part.lstrip("-").isdigit():
            values.append(int(part))
        elif labels is not None:
            values += _of_name(part, labels)
        else:
            raise VolumeError(f"--{tissue} {text}: '{part}' is no whole number; give the values in the label map")
    return tuple(dict.fromkeys(values))


def _of_name(name: str, labels: LabelSet) -> tuple[int, ...]:
    members = labels.regions.get(name, (name,))
    return tuple(value for member in members for value in labels.values[labels.index(member) - 1])


def heart_of(values: np.ndarray, affine: np.ndarray, meaning: HeartValues) -> tuple[HeartLabels, np.ndarray]:
    """The heart in a label map, and its scar.

    Scar that hangs together with no healthy wall, while there is some, is no part of the wall: a report counts it
    as lying outside.

    Args:
        values: (X, Y, Z) whole numbers.
        affine: (4, 4), to RAS+ mm.
        meaning: of the values.

    Returns:
        The labels, and the scar (X, Y, Z) bool.

    Raises:
        CardiacError: no wall at all; the line says which values there are.
    """
    wall, scar = np.isin(values, meaning.wall), np.isin(values, meaning.scar)
    if not wall.any():
        there = ", ".join(map(str, np.unique(values)[:8].tolist()))
        named = ", ".join(map(str, meaning.wall))
        raise CardiacError(
            f"no LV myocardium in the label map: none of the wall's values {named}; there are {there}; check --wall"
        )
    pieces, count = ndimage.label(wall, np.ones((3, 3, 3)))
    healthy = np.bincount(pieces[wall & ~scar], minlength=count + 1) > 0
    if healthy.any():
        wall &= healthy[pieces]
    pool = np.isin(values, meaning.pool) if meaning.pool else None
    rv = np.isin(values, meaning.rv) if meaning.rv else None
    return HeartLabels(wall, affine, pool if pool is not None and pool.any() else None, rv), scar


def doubts(report: ScarReport, image: np.ndarray) -> tuple[str, ...]:
    """Results that the image contradicts, one line each.

    Args:
        report: of a heart.
        image: (X, Y, Z) intensities.
    """
    lines = []
    maps = report.maps
    scar = maps.scar & ~maps.obstruction
    if maps.obstruction.any() and scar.any():
        dark, bright = float(image[maps.obstruction].mean()), float(image[scar].mean())
        count = int(maps.obstruction.sum())
        if dark >= bright or count < FEWEST_VOXELS:
            why = "as bright as the scar" if dark >= bright else f"no more than {count} voxels"
            lines.append(
                f"what scar encloses ({report.obstruction_ml:.2f} ml) is {why}: rather a gap in the label map than "
                "microvascular obstruction"
            )
    if maps.zones is not None and scar.any():
        ratio = (maps.zones.core.sum() + maps.zones.grey_zone.sum()) / (scar.sum() + maps.obstruction.sum())
        if ratio > MOST_ZONES:
            lines.append(
                f"core and grey zone by intensity are {ratio:.1f} times the labelled scar: blood or fat inside the "
                "contours, uneven coil sensitivity, or a remote region that is darker than the rest may be why"
            )
    return tuple(lines)

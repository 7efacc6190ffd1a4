"""The clinical numbers of a scar: mass, share, core and grey zone, transmurality, segment by segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from segmed.cardiac.aha import NAMES, segment_map, segment_numbers
from segmed.cardiac.chords import Chords, class_shares_percent, radial_chords, transmurality_class
from segmed.cardiac.heart import HeartLabels, HeartPosition, check_mask
from segmed.cardiac.report import ScarMaps, ScarOptions, ScarReport, SegmentScar, SliceScar
from segmed.cardiac.septum import Septum, find_septum
from segmed.cardiac.short_axis import ShortAxis, short_axis_view
from segmed.cardiac.tissue import Zones, obstruction, scar_zones
from segmed.errors import CardiacError

__all__ = ["ScarOptions", "ScarReport", "scar_report"]


def scar_report(
    heart: HeartLabels,
    scar: np.ndarray,
    *,
    image: np.ndarray | None = None,
    position: HeartPosition | None = None,
    options: ScarOptions | None = None,
) -> ScarReport:
    """Measure the scar of a left ventricle.

    Volumes are counted on the labels' own grid. Segments and transmurality need the short axis and the septum; where
    these can't be known, volumes are given all the same and `unknown` says why the rest is not.

    Args:
        heart: wall (scar included), and pool and RV where they are labelled.
        scar: (X, Y, Z) bool, on the same grid; may be empty.
        image: (X, Y, Z) intensities, for core and grey zone.
        position: what is known of how the heart lies.
        options: how scar is counted.

    Raises:
        CardiacError: a scar of another grid or type, or too much of it outside the wall.
    """
    options = options or ScarOptions()
    unknown: dict[str, str] = {}
    inside, outside_percent = _inside(heart, scar, options)
    dark = obstruction(heart, inside)
    counted = inside | dark if options.count_obstruction else inside
    zones = _zones(image, heart, inside, options, unknown)
    placed = _place(heart, counted, position or HeartPosition(), options, unknown)
    notes = (*(placed.view.notes if placed.view else ()), *(placed.septum.notes if placed.septum else ()))
    if outside_percent > 0:
        notes = (*notes, f"{outside_percent:.1f} % of the scar lies outside the LV wall and is not counted")
    return ScarReport(
        **_volumes(heart, counted, options),
        obstruction_ml=_ml(heart, dark),
        obstruction_counted=options.count_obstruction,
        scar_outside_percent=outside_percent,
        **_zone_volumes(heart, zones, options),
        chords_percent=None if placed.chords is None else class_shares_percent(placed.chords.share),
        segments=_segments(heart, counted, placed, options),
        slices=_slices(placed),
        apex_from=None if placed.view is None else placed.view.apex_from,
        septum_from=None if placed.septum is None else placed.septum.source,
        unknown=unknown,
        notes=notes,
        maps=ScarMaps(counted, dark, placed.numbers, zones),
        options=options,
    )


def _inside(heart: HeartLabels, scar: np.ndarray, options: ScarOptions) -> tuple[np.ndarray, float]:
    """The scar inside the wall, and how much of it lies outside, in per cent."""
    check_mask(scar, heart.wall.shape, "scar")
    inside = scar & heart.wall
    total = int(scar.sum())
    outside_percent = 100 * (1 - int(inside.sum()) / total) if total else 0.0
    if outside_percent > options.outside_percent:
        raise CardiacError(
            f"{outside_percent:.0f} % of the scar lies outside the LV wall, at most {options.outside_percent:g} % may: "
            "the wall has to include the scar; check both masks"
        )
    return inside, outside_percent


# ---------------------------------------------------------------- volumes


def _ml(heart: HeartLabels, mask: np.ndarray) -> float:
    return float(mask.sum()) * heart.voxel_ml


def _volumes(heart: HeartLabels, scar: np.ndarray, options: ScarOptions) -> dict[str, float]:
    wall_ml, scar_ml = _ml(heart, heart.wall), _ml(heart, scar)
    return {
        "wall_ml": wall_ml,
        "wall_g": wall_ml * options.density_g_per_ml,
        "scar_ml": scar_ml,
        "scar_g": scar_ml * options.density_g_per_ml,
        "scar_percent": 100 * scar_ml / wall_ml,
    }


def _zones(
    image: np.ndarray | None, heart: HeartLabels, scar: np.ndarray, options: ScarOptions, unknown: dict[str, str]
) -> Zones | None:
    if image is None or options.grey is None:
        unknown["core"] = "core and grey zone need the image and the mean and SD of remote muscle"
        return None
    try:
        return scar_zones(image, heart, scar, options.grey)
    except CardiacError as error:
        unknown["core"] = str(error)
        return None


def _zone_volumes(heart: HeartLabels, zones: Zones | None, options: ScarOptions) -> dict[str, Any]:
    core_ml = None if zones is None else _ml(heart, zones.core)
    grey_ml = None if zones is None else _ml(heart, zones.grey_zone)
    return {
        "core_ml": core_ml,
        "core_g": None if core_ml is None else core_ml * options.density_g_per_ml,
        "grey_zone_ml": grey_ml,
        "grey_zone_g": None if grey_ml is None else grey_ml * options.density_g_per_ml,
        "core_from_intensity": None if zones is None else zones.core_from,
        "grey_zone_from_intensity": None if zones is None else zones.grey_zone_from,
    }


# ---------------------------------------------------------------- by place


@dataclass(frozen=True)
class _Placed:
    """What is known of the heart's place: each part needs those before it."""

    view: ShortAxis | None = None
    scar: np.ndarray | None = None
    chords: Chords | None = None
    septum: Septum | None = None
    numbers: np.ndarray | None = None


def _place(
    heart: HeartLabels, scar: np.ndarray, position: HeartPosition, options: ScarOptions, unknown: dict[str, str]
) -> _Placed:
    """View, chords, septum and segments, as far as they can be known."""
    try:
        view = short_axis_view(heart, position)
    except CardiacError as error:
        unknown |= {"segments": str(error), "transmurality": str(error)}
        return _Placed()
    brought = view.cut.bring(scar, heart.affine) & view.cut.wall
    chords = radial_chords(view, brought, count=options.chords)
    septum = None
    try:
        septum = find_septum(view, position)
        numbers = segment_map(heart, view, septum, model=options.model, anchor=options.anchor)
    except CardiacError as error:
        unknown["segments"] = str(error)
        return _Placed(view, brought, chords, septum)
    return _Placed(view, brought, chords, septum, numbers)


def _segments(
    heart: HeartLabels, scar: np.ndarray, placed: _Placed, options: ScarOptions
) -> tuple[SegmentScar, ...] | None:
    view, chords, septum, numbers = placed.view, placed.chords, placed.septum, placed.numbers
    if view is None or chords is None or septum is None or numbers is None:
        return None
    wall_ml = np.bincount(numbers[heart.wall], minlength=18) * heart.voxel_ml
    scar_ml = np.bincount(numbers[scar], minlength=18) * heart.voxel_ml
    slices, rays = (at.ravel() for at in np.indices(chords.share.shape))
    of_chord = segment_numbers(
        view, septum, slices, chords.angles_rad[rays], model=options.model, anchor=options.anchor
    )
    share = chords.share.ravel()
    known = np.isfinite(share)
    return tuple(
        _segment(number, float(wall_ml[number]), float(scar_ml[number]), share[known & (of_chord == number)])
        for number in range(1, options.model + 1)
    )


def _segment(number: int, wall_ml: float, scar_ml: float, share: np.ndarray) -> SegmentScar:
    mean = 100 * float(share.mean()) if share.size else None
    return SegmentScar(
        number=number,
        name=NAMES[number],
        wall_ml=wall_ml,
        scar_ml=scar_ml,
        scar_percent=100 * scar_ml / wall_ml if wall_ml > 0 else None,
        chords=int(share.size),
        transmurality_mean_percent=mean,
        transmurality_max_percent=100 * float(share.max()) if share.size else None,
        transmurality_class=None if mean is None else transmurality_class(mean),
        chords_percent=class_shares_percent(share),
    )


def _slices(placed: _Placed) -> tuple[SliceScar, ...]:
    if placed.view is None or placed.chords is None or placed.scar is None:
        return ()
    pixel_mm2 = placed.view.cut.spacing_mm[0] * placed.view.cut.spacing_mm[1]
    rows = []
    for one in placed.view.slices:
        share = placed.chords.share[one.index]
        known = share[np.isfinite(share)]
        rows.append(
            SliceScar(
                index=one.index,
                stored_index=one.stored_index,
                position_mm=one.position_mm,
                kind=one.kind,
                level=one.level,
                wall_mm2=one.ring.wall_mm2,
                scar_mm2=float(placed.scar[..., one.index].sum()) * pixel_mm2,
                transmurality_mean_percent=100 * float(known.mean()) if known.size else None,
            )
        )
    return tuple(rows)

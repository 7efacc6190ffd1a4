"""What a scar report holds: the numbers of one heart, of its segments and of its slices."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segmed.cardiac.aha import Anchor, Model
from segmed.cardiac.tissue import GreyZone, Zones

DENSITY_G_PER_ML = 1.05  # of myocardium


@dataclass(frozen=True)
class ScarOptions:
    """How scar is counted.

    Attributes:
        count_obstruction: count microvascular obstruction as scar.
        outside_percent: most of the scar that may lie outside the wall, where it is not counted.
        grey: thresholds of core and grey zone; None: not computed.
        model: 17 segments, or 16.
        anchor: where the sectors begin, as of `segment_numbers`.
        chords: a slice.
        density_g_per_ml: of myocardium.
    """

    count_obstruction: bool = False
    outside_percent: float = 10.0
    grey: GreyZone | None = None
    model: Model = 17
    anchor: Anchor = "septum"
    chords: int = 100
    density_g_per_ml: float = DENSITY_G_PER_ML


@dataclass(frozen=True)
class SegmentScar:
    """One of the segments; None where there is nothing to measure.

    Attributes:
        number, name: of Cerqueira et al. 2002.
        wall_ml, scar_ml: volumes.
        scar_percent: of the segment's wall.
        chords: number of chords.
        transmurality_mean_percent, transmurality_max_percent: of the share of scar along them, those without any
            included.
        transmurality_class: of the mean.
        chords_percent: how many of the chords lie in each class.
    """

    number: int
    name: str
    wall_ml: float
    scar_ml: float
    scar_percent: float | None
    chords: int
    transmurality_mean_percent: float | None
    transmurality_max_percent: float | None
    transmurality_class: str | None
    chords_percent: dict[str, float] | None


@dataclass(frozen=True)
class SliceScar:
    """One short-axis slice.

    Attributes:
        index: in the view from base to apex, from 0.
        stored_index: in the stored stack, from 0; None where slices are interpolated.
        position_mm: from the first slice.
        kind, level: as of `ShortSlice`.
        wall_mm2, scar_mm2: areas.
        transmurality_mean_percent: over its chords; None without any.
    """

    index: int
    stored_index: int | None
    position_mm: float
    kind: str
    level: str | None
    wall_mm2: float
    scar_mm2: float
    transmurality_mean_percent: float | None


@dataclass(frozen=True)
class ScarMaps:
    """Masks behind the numbers, (X, Y, Z) on the grid of the labels.

    Attributes:
        scar: as counted.
        obstruction: microvascular obstruction, counted or not.
        segments: uint8, 1 to 17; None where they can't be known.
        zones: core and grey zone; None where not computed.
    """

    scar: np.ndarray
    obstruction: np.ndarray
    segments: np.ndarray | None
    zones: Zones | None


@dataclass(frozen=True)
class ScarReport:
    """The numbers of one heart. What can't be known is None, and `unknown` says why.

    Attributes:
        wall_ml, wall_g: LV myocardium.
        scar_ml, scar_g, scar_percent: scar, and its share of the LV myocardium.
        obstruction_ml: microvascular obstruction, and whether it is counted in the scar.
        scar_outside_percent: of the given scar, outside the wall and not counted.
        core_ml, core_g, grey_zone_ml, grey_zone_g: by intensity, with the least intensities of both.
        chords_percent: how many of the chords of all slices lie in each class of transmurality.
        segments: in order; None where they can't be known.
        slices: from base to apex; none where the labels are no short axis.
        apex_from, septum_from: what told the orientation.
        unknown: why something could not be computed, one line each, by its name.
        notes: what a reader of the numbers has to know.
        maps: masks behind the numbers.
        options: how it was counted.
    """

    wall_ml: float
    wall_g: float
    scar_ml: float
    scar_g: float
    scar_percent: float
    obstruction_ml: float
    obstruction_counted: bool
    scar_outside_percent: float
    core_ml: float | None
    core_g: float | None
    grey_zone_ml: float | None
    grey_zone_g: float | None
    core_from_intensity: float | None
    grey_zone_from_intensity: float | None
    chords_percent: dict[str, float] | None
    segments: tuple[SegmentScar, ...] | None
    slices: tuple[SliceScar, ...]
    apex_from: str | None
    septum_from: str | None
    unknown: dict[str, str]
    notes: tuple[str, ...]
    maps: ScarMaps = field(repr=False)
    options: ScarOptions

    def to_dict(self) -> dict[str, Any]:
        """Everything but the masks, as plain numbers, texts, lists and dicts: ready for JSON."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "maps"}
        return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """Numbers, texts, lists and dicts of a value that may hold dataclasses, tuples and NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return value

"""Function of the ventricles from the volumes of all phases: EDV, ESV, ejection fraction, stroke volume, mass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segmed.cardiac.cine_labels import CineValues
from segmed.cardiac.end_phases import end_phases, implausible
from segmed.cardiac.phase_volumes import PhaseVolumes, phase_volumes, stack_doubts
from segmed.cardiac.report import DENSITY_G_PER_ML
from segmed.cardiac.volume_interval import (
    NO_INTERVAL,
    Interval,
    VolumeInterval,
    difference,
    ejected_percent,
    level_of_two,
    no_interval,
)
from segmed.errors import CardiacError

LEVEL = 0.9  # of intervals
FEWEST_SLICES = 3  # of the LV's cavity; fewer are no ventricle
MASS_PERCENT = 20.0  # change of the wall's mass from end-diastole to end-systole: muscle keeps its volume
STROKES_PERCENT = 30.0  # difference of both ventricles' stroke volumes, of the larger


@dataclass(frozen=True)
class CineOptions:
    """How function is measured.

    Attributes:
        spacing_known: False: no ml and no g is given, the curve is in per cent of its largest volume.
        diastole, systole: phases from 0; None: those of the largest and of the smallest LV volume.
        level: of the intervals.
        interval: of a label's volume, from the run that made the label maps.
        why_none: why there are no intervals, where there are none.
        density_g_per_ml: of myocardium.
    """

    spacing_known: bool = True
    diastole: int | None = None
    systole: int | None = None
    level: float = LEVEL
    interval: VolumeInterval = no_interval
    why_none: str = NO_INTERVAL
    density_g_per_ml: float = DENSITY_G_PER_ML


@dataclass(frozen=True)
class Estimate:
    """A number with its unit, and its interval where that is known.

    Attributes:
        value: None: not known.
        unit: ml, %, g, l/min or 1/min.
        interval: from, to.
    """

    value: float | None
    unit: str
    interval: Interval | None = None


@dataclass(frozen=True)
class CineReport:
    """The function of one heart. What can't be known is None, and `unknown` says why.

    Attributes:
        phases: their number.
        times_ms: of each after the first; None: not known.
        curve_unit: `ml`, or `% of EDV` where the spacing is not known.
        lv, rv, wall: volume of the LV's and RV's blood pool and of the LV's wall at each phase, None where a phase
            has none; None altogether: not labelled.
        diastole, systole: phases of the LV, from 0; those of the RV are the same.
        figures: edv, esv, sv, ef, mass, mass_systole, heart_rate, cardiac_output; and rv_edv, rv_esv, rv_sv, rv_ef.
        level: of the intervals.
        intervals: whether there are any, or why not.
        left_out: phase -> why it was not taken for end-diastole or end-systole.
        unknown: figure -> why it is not known.
        notes: what a reader of the numbers has to know.
    """

    phases: int
    times_ms: tuple[float, ...] | None
    curve_unit: str
    lv: tuple[float | None, ...]
    rv: tuple[float | None, ...] | None
    wall: tuple[float | None, ...] | None
    diastole: int
    systole: int
    figures: dict[str, Estimate]
    level: float
    intervals: str
    left_out: dict[int, str]
    unknown: dict[str, str]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, texts, lists and dicts: ready for JSON. Phases count from 1, as in every text."""
        content = dataclasses.asdict(self)
        figures = {name: one for name, one in content.pop("figures").items() if one["value"] is not None}
        left_out = {str(phase + 1): why for phase, why in content.pop("left_out").items()}
        ends = {"diastole": self.diastole + 1, "systole": self.systole + 1}
        return {**content, **ends, "figures": figures, "left_out": left_out}


def cine_report(
    values: np.ndarray,
    affine: np.ndarray,
    meaning: CineValues,
    *,
    times_ms: Sequence[float] | None = None,
    options: CineOptions | None = None,
) -> CineReport:
    """Measure the function of a heart from the label maps of all phases.

    Args:
        values: (T, X, Y, Z) whole numbers.
        affine: (4, 4), to RAS+ mm.
        meaning: of the values.
        times_ms: of the phases.
        options: how it is measured.

    Raises:
        CardiacError: one phase, no cavity in too many of them, or none that differs.
        VolumeError: an affine that is not a grid with right angles.
    """
    options = options or CineOptions()
    volumes = phase_volumes(values, affine, meaning)
    diastole, systole, left_out = _ends(volumes.pool_ml, options)
    unknown: dict[str, str] = {}
    figures = _figures(volumes, (diastole, systole), meaning, options, unknown)
    figures |= _output(figures["sv"].value, times_ms, unknown)
    scale = 1.0
    if not options.spacing_known:
        unknown["ml and g"] = "the run was trained on files of unknown spacing: volumes are shares of the EDV"
        scale = 100 / float(volumes.pool_ml[diastole])
    return CineReport(
        phases=len(values),
        times_ms=None if times_ms is None else tuple(times_ms),
        curve_unit="ml" if options.spacing_known else "% of EDV",
        lv=_curve(volumes.pool_ml, scale) or (),
        rv=_curve(volumes.rv_ml, scale),
        wall=_curve(volumes.wall_ml, scale),
        diastole=diastole,
        systole=systole,
        figures=figures,
        level=options.level,
        intervals=_told(figures, options),
        left_out=left_out,
        unknown=unknown,
        notes=(
            *(f"phase {phase + 1} {why}: left out of the search for both phases" for phase, why in left_out.items()),
            *implausible(volumes.pool_ml, diastole, systole, times_ms),
            *_slice_notes(values, affine, meaning, (diastole, systole)),
            *_ventricle_notes(figures),
        ),
    )


def _ends(pool_ml: np.ndarray, options: CineOptions) -> tuple[int, int, dict[int, str]]:
    """Both phases, those that somebody chose before those of the curve; and the phases that were left out."""
    for name, phase in (("--end-diastole", options.diastole), ("--end-systole", options.systole)):
        if phase is not None and not 0 <= phase < len(pool_ml):
            raise CardiacError(f"{name} {phase + 1}: the cine has the phases 1 to {len(pool_ml)}")
        if phase is not None and np.isnan(pool_ml[phase]):
            raise CardiacError(f"{name} {phase + 1}: this phase has no LV cavity in its label map; choose another")
    diastole, systole, left_out = end_phases(pool_ml)
    diastole = diastole if options.diastole is None else options.diastole
    systole = systole if options.systole is None else options.systole
    if pool_ml[diastole] <= pool_ml[systole]:
        raise CardiacError(
            f"the LV is no larger in phase {diastole + 1} than in phase {systole + 1}: these are not end-diastole and "
            "end-systole; choose others"
        )
    return diastole, systole, left_out


def _curve(volumes_ml: np.ndarray | None, scale: float) -> tuple[float | None, ...] | None:
    if volumes_ml is None:
        return None
    return tuple(float(ml) * scale if np.isfinite(ml) else None for ml in volumes_ml)


# ---------------------------------------------------------------- figures


def _figures(
    volumes: PhaseVolumes, ends: tuple[int, int], meaning: CineValues, options: CineOptions, unknown: dict[str, str]
) -> dict[str, Estimate]:
    return {
        **_ventricle(volumes.pool_ml, ends, meaning.label_of("pool"), options),
        **_mass(volumes, ends, meaning.label_of("wall"), options, unknown),
        **_right(volumes, ends, meaning, options, unknown),
    }


def _ventricle(
    volumes_ml: np.ndarray, ends: tuple[int, int], label: str | None, options: CineOptions
) -> dict[str, Estimate]:
    """EDV, ESV, stroke volume and ejection fraction; those of two volumes hold with both of their intervals."""
    edv, esv = (float(volumes_ml[phase]) for phase in ends)
    known = label is not None and options.spacing_known

    def interval(phase: int, ml: float, level: float) -> Interval | None:
        return options.interval(label, phase, ml, level) if known and label is not None else None

    both = level_of_two(options.level)
    before, after = interval(ends[0], edv, both), interval(ends[1], esv, both)
    together = before is not None and after is not None
    return {
        "edv": _estimate(edv, "ml", interval(ends[0], edv, options.level), options),
        "esv": _estimate(esv, "ml", interval(ends[1], esv, options.level), options),
        "sv": _estimate(edv - esv, "ml", difference(before, after) if before and after and together else None, options),
        "ef": Estimate(
            100 * (1 - esv / edv), "%", ejected_percent(before, after) if before and after and together else None
        ),
    }


def _estimate(value: float, unit: str, interval: Interval | None, options: CineOptions) -> Estimate:
    return Estimate(value, unit, interval) if options.spacing_known else Estimate(None, unit)


def _mass(
    volumes: PhaseVolumes, ends: tuple[int, int], label: str | None, options: CineOptions, unknown: dict[str, str]
) -> dict[str, Estimate]:
    """Mass of the LV's wall at end-diastole; that of end-systole, which should be the same, beside it."""
    names = ("mass", "mass_systole")
    if volumes.wall_ml is None or np.isnan([volumes.wall_ml[phase] for phase in ends]).any():
        labelled = volumes.wall_ml is not None
        unknown["mass"] = "a phase has no LV wall in its label map" if labelled else "the LV's wall is not labelled"
        return {name: Estimate(None, "g") for name in names}
    density, estimates = options.density_g_per_ml, {}
    for name, phase in zip(names, ends, strict=True):
        wall_ml = float(volumes.wall_ml[phase])
        known = options.interval(label, phase, wall_ml, options.level) if label and options.spacing_known else None
        scaled = None if known is None else (known[0] * density, known[1] * density)
        estimates[name] = _estimate(wall_ml * density, "g", scaled, options)
    return estimates


def _right(
    volumes: PhaseVolumes,
    ends: tuple[int, int],
    meaning: CineValues,
    options: CineOptions,
    unknown: dict[str, str],
) -> dict[str, Estimate]:
    """The same figures of the right ventricle, at the LV's phases; none where it is not labelled."""
    if volumes.rv_ml is None:
        return {}
    if np.isnan([volumes.rv_ml[phase] for phase in ends]).any():
        unknown["RV"] = "end-diastole or end-systole has no RV in its label map"
        return {}
    figures = _ventricle(volumes.rv_ml, ends, meaning.label_of("rv"), options)
    return {f"rv_{name}": estimate for name, estimate in figures.items()}


def _output(stroke_ml: float | None, times_ms: Sequence[float] | None, unknown: dict[str, str]) -> dict[str, Estimate]:
    """Heart rate and cardiac output, if the phases cover the whole beat."""
    if times_ms is None:
        unknown["heart rate"] = "the times of the phases are not known"
        return {}
    rate = 60_000 / (times_ms[-1] * len(times_ms) / (len(times_ms) - 1))
    figures = {"heart_rate": Estimate(rate, "1/min")}
    return figures if stroke_ml is None else {**figures, "cardiac_output": Estimate(stroke_ml * rate / 1000, "l/min")}


def _told(figures: dict[str, Estimate], options: CineOptions) -> str:
    """What the intervals are, and why a figure that could have one has none."""
    if not any(estimate.interval is not None for estimate in figures.values()):
        return options.why_none
    told = f"in brackets: intervals of {100 * options.level:g} %"
    if figures["edv"].interval is not None and figures["ef"].interval is None:
        both = f"{100 * level_of_two(options.level):g} %"
        told += f"; those of stroke volume and EF need two of {both}, for which there are too few calibration cases"
    return told


# ---------------------------------------------------------------- notes


def _slice_notes(values: np.ndarray, affine: np.ndarray, meaning: CineValues, ends: tuple[int, int]) -> list[str]:
    """What the slices of both phases look like; where the cavity has no label, of all phases."""
    lines = []
    for phase, when in zip(ends, ("end-diastole", "end-systole"), strict=True):
        doubt = stack_doubts(values[phase], affine, meaning)
        if doubt.open and meaning.pool:
            lines.append(f"{when}: the ring of the wall is open in {_slices(doubt.open)}; its cavity is as labelled")
        if doubt.cut_off:
            lines.append(f"{when}: the cavity is still wide in an outermost slice: the stack may cut the LV off")
        if doubt.slices < FEWEST_SLICES:
            plural = "s" if doubt.slices != 1 else ""
            lines.append(f"{when}: {doubt.slices} slice{plural} with LV cavity: this is not the whole ventricle")
    return lines if meaning.pool else [*lines, *_enclosure_notes(values, affine, meaning)]


def _enclosure_notes(values: np.ndarray, affine: np.ndarray, meaning: CineValues) -> list[str]:
    """Where the cavity has no label and the wall does not enclose it: any phase may then be too small."""
    opened = [stack_doubts(phase, affine, meaning).open for phase in values]
    phases = [number for number, slices in enumerate(opened, 1) if slices]
    if not phases:
        return []
    every = tuple(sorted({number for slices in opened for number in slices}))
    return [
        f"the ring of the wall is open in {_slices(every)} in {len(phases)} of {len(values)} phases (first "
        f"{phases[0]}): what it doesn't enclose is not counted; label the blood pool (--pool)"
    ]


def _slices(numbers: Sequence[int]) -> str:
    return f"slice{'s' if len(numbers) > 1 else ''} {', '.join(str(number + 1) for number in numbers)}"


def _ventricle_notes(figures: dict[str, Estimate]) -> list[str]:
    lines = []
    mass, later = figures["mass"].value, figures["mass_systole"].value
    if mass and later and abs(later - mass) > MASS_PERCENT / 100 * mass:
        lines.append(
            f"the wall weighs {mass:.0f} g at end-diastole and {later:.0f} g at end-systole, though muscle keeps its "
            "volume: look at the contours"
        )
    left, right = figures["sv"].value, figures.get("rv_sv", Estimate(None, "ml")).value
    if left and right and abs(left - right) > STROKES_PERCENT / 100 * max(left, right):
        lines.append(
            f"the LV ejects {left:.0f} ml and the RV {right:.0f} ml: a valve that leaks, a shunt, or a ventricle that "
            "the slices don't cover"
        )
    return lines

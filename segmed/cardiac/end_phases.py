"""The LV's volume curve -> the phases of end-diastole and end-systole, and what about them no heart does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmed.errors import CardiacError

SPIKE = 0.6  # of the curve's range: a phase that lies so far beyond both of its neighbours is an error of its contours
JUDGED = 10  # phases from which a phase can be told from an error, and its place in the cycle be judged
MOST_EMPTY = 0.25  # share of phases without a cavity from which a curve says nothing
LEAST_EF, MOST_EF = 8.0, 82.0  # per cent; beyond, contours are rather wrong than the heart
SYSTOLE = (0.15, 0.6)  # share of the cycle that end-systole lies after end-diastole


def end_phases(volumes_ml: np.ndarray) -> tuple[int, int, dict[int, str]]:
    """The phases of the largest and of the smallest volume, but for phases that stand alone.

    Args:
        volumes_ml: (T,) of the LV's blood pool, NaN where a phase has none; the last is followed by the first.

    Returns:
        End-diastole and end-systole, from 0; and phase -> why it was not taken for either.

    Raises:
        CardiacError: too few phases have a volume, or it never changes.
    """
    known = np.flatnonzero(np.isfinite(volumes_ml))
    empty = len(volumes_ml) - len(known)
    if len(known) < 2 or empty > MOST_EMPTY * len(volumes_ml):
        raise CardiacError(
            f"{empty} of {len(volumes_ml)} phases have no LV cavity in their label maps: look at them, and check --pool"
        )
    left_out = {int(phase): "has no LV cavity in its label map" for phase in np.flatnonzero(np.isnan(volumes_ml))}
    left_out |= _spikes(volumes_ml, known)
    judged = np.array([phase for phase in known if int(phase) not in left_out])
    diastole, systole = judged[volumes_ml[judged].argmax()], judged[volumes_ml[judged].argmin()]
    if volumes_ml[diastole] <= volumes_ml[systole]:
        raise CardiacError(f"the LV has the same volume in all {len(known)} phases: this is no beat; check the input")
    return int(diastole), int(systole), left_out


def _spikes(volumes_ml: np.ndarray, known: np.ndarray) -> dict[int, str]:
    """Phases that lie far beyond both neighbours in time: phase -> what is odd."""
    if len(known) < JUDGED:
        return {}
    values = volumes_ml[known]
    before, after = np.roll(values, 1), np.roll(values, -1)
    above, below = values - np.maximum(before, after), np.minimum(before, after) - values
    low, high = np.percentile(values, (10, 90))
    least = SPIKE * (high - low)
    odd = {}
    for phase, more, less in zip(known, above, below, strict=True):
        if max(more, less) > least > 0:
            word = "above" if more > less else "below"
            odd[int(phase)] = f"lies {max(more, less):.1f} ml {word} both phases beside it"
    return odd


def implausible(
    volumes_ml: np.ndarray, diastole: int, systole: int, times_ms: Sequence[float] | None = None
) -> tuple[str, ...]:
    """What makes end-diastole and end-systole doubtful, one line each.

    Args:
        volumes_ml: (T,) of the LV's blood pool.
        diastole, systole: of `end_phases`, or as somebody chose them.
        times_ms: of the phases, where they are known.
    """
    lines = []
    ejected = 100 * (1 - float(volumes_ml[systole]) / float(volumes_ml[diastole]))
    if not LEAST_EF <= ejected <= MOST_EF:
        lines.append(f"an ejection fraction of {ejected:.1f} % is not plausible: look at both phases' contours")
    count = len(volumes_ml)
    if count < JUDGED:
        lines.append(f"{count} phases are few: end-systole may lie between two of them, and the stroke be too small")
        return tuple(lines)
    share = ((systole - diastole) % count) / count
    if times_ms is not None:
        cycle = times_ms[-1] * count / (count - 1)
        share = ((times_ms[systole] - times_ms[diastole]) % cycle) / cycle
    if not SYSTOLE[0] <= share <= SYSTOLE[1]:
        lines.append(
            f"end-systole (phase {systole + 1}) lies {100 * share:.0f} % of the cycle after end-diastole (phase "
            f"{diastole + 1}), usual are {100 * SYSTOLE[0]:.0f} to {100 * SYSTOLE[1]:.0f} %: look at the curve"
        )
    return tuple(lines)

"""The interval of a label's volume, where one is known, and of what is computed from two volumes."""

from __future__ import annotations

from collections.abc import Callable

Interval = tuple[float, float]  # from, to
# label, phase from 0, its volume in ml, level -> ml; None: not known
VolumeInterval = Callable[[str, int, float, float], Interval | None]

NO_INTERVAL = "no interval: the run is not calibrated"


def no_interval(label: str, phase: int, volume_ml: float, level: float) -> Interval | None:
    """Of a label map that no calibrated run has made: none."""
    return None


def level_of_two(level: float) -> float:
    """The level at which two intervals have to be known, for both to hold together at `level` (Bonferroni)."""
    return 1 - (1 - level) / 2


def difference(first: Interval, second: Interval) -> Interval:
    """Of the first less the second, whatever their errors have to do with each other."""
    return first[0] - second[1], first[1] - second[0]


def ejected_percent(before: Interval, after: Interval) -> Interval:
    """Share of a volume that has left it, in per cent, whatever the errors have to do with each other."""
    low = 100 * (1 - after[1] / before[0]) if before[0] > 0 else float("-inf")
    high = 100 * (1 - after[0] / before[1]) if before[1] > 0 else 100.0
    return low, min(high, 100.0)

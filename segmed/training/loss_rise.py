"""How far a loss lies above the least one before it; right for losses of any sign."""

from __future__ import annotations

import math
from collections.abc import Sequence

NEAR_ZERO = 0.1  # times the fall so far: a loss has at least this size, however close to 0 its least value came


def relative_rise(loss: float, before: Sequence[float]) -> float:
    """How far a loss lies above the least one before it, as a share of that one's size.

    Args:
        loss: the later one.
        before: those before it; what is not finite does not count.

    Returns:
        0.02 where 0.5 was followed by 0.51, or -0.5 by -0.49; negative below the least one; 0 with nothing before.
    """
    finite = [value for value in before if math.isfinite(value)]
    if not finite:
        return 0.0
    least = min(finite)
    size = max(abs(least), NEAR_ZERO * (max(finite) - least))
    rise = loss - least
    return rise / size if size else math.copysign(math.inf, rise) if rise else 0.0

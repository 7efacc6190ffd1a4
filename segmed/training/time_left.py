"""How long a training still takes, by its speed so far."""

from __future__ import annotations

import time
from collections.abc import Callable


class TimeLeft:
    """The time left of a run, or of a whole of several networks of which it is one.

    Args:
        name: of what it is, for the reader: `network 4 of 15`; empty: of a run of one network.
        before: share of the whole that is over when the run begins.
        share: of the whole that is the run's.
        clock: tells seconds.
    """

    def __init__(
        self, name: str = "", *, before: float = 0.0, share: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.before, self.share = name, before, share
        self._clock = clock
        self._began: tuple[float, float] | None = None  # second and progress: a resumed run begins in the middle
        self.seconds: float | None = None

    def at(self, progress: float) -> None:
        """Take note of where the run stands, in [0, 1]."""
        now = self._clock()
        if self._began is None:
            self._began = now, progress
        began, first = self._began
        if progress > first and now > began:
            whole_in_seconds = (now - began) / ((progress - first) * self.share)
            self.seconds = max(0.0, 1.0 - self.before - self.share * progress) * whole_in_seconds

    @property
    def comma(self) -> str:
        """To be put behind a step: `, 12 min left`, or `, network 4 of 15, 12 min left of all`."""
        words = [self.name] if self.name else []
        if self.seconds is not None:
            left = f"{self.seconds / 60:.0f} min" if self.seconds >= 90 else f"{self.seconds:.0f} s"
            words.append(f"{left} left of all" if self.name else f"{left} left")
        return "".join(f", {word}" for word in words)

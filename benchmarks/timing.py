"""Contenders that run in turns -> their times, their ratios, and whether targets are met."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Contender = Callable[[], float]  # does its work once and returns seconds


@dataclass(frozen=True)
class Setting:
    """How all rows are measured.

    Attributes:
        quick: small sizes, which show that everything runs and nothing else.
        threads: of each contender, where a row does not ask for one core.
        rounds: timed turns of each contender.
        scratch: empty folder for volumes and caches.
        nnunet_python: interpreter with nnunetv2; None: its contenders are left out.
        run: of tools/train_seg.py, whose Dice in bf16 is compared with that in fp32; None: it is not.
        generator: feature maps of each level of the network in the rows of adversarial training; None: theirs.
    """

    quick: bool
    threads: int
    rounds: int
    scratch: Path
    nnunet_python: Path | None = None
    run: Path | None = None
    generator: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Timing:
    """What a contender took.

    Attributes:
        seconds: of every round.
        memory_bytes: largest resident memory while it ran, beyond that of its process after the imports.
    """

    seconds: tuple[float, ...]
    memory_bytes: int | None = None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def mean(self) -> float:
        """Seconds."""
        return statistics.fmean(self.seconds)


@dataclass(frozen=True)
class Target:
    """A figure and what it has to be."""

    what: str
    value: float
    bound: Literal["at least", "at most", "below"]
    limit: float
    unit: str = "×"

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side."""
        if self.bound == "at least":
            return self.value >= self.limit
        return self.value <= self.limit if self.bound == "at most" else self.value < self.limit

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.3g} {self.unit}, {self.bound} {self.limit:g} {self.unit}"


@dataclass(frozen=True)
class Outcome:
    """One row.

    Attributes:
        row: its name.
        work: what was done, in words.
        ours: which contender is ours.
        timings: by contender, ours among them.
        targets: what the figures have to be.
        notes: what else is worth knowing, such as why a contender is missing.
    """

    row: str
    work: str
    ours: str
    timings: Mapping[str, Timing]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()

    def ratio(self, name: str) -> float:
        """How many times the seconds of ours a contender took."""
        return ratio(self.timings[name], self.timings[self.ours])

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "row": self.row,
            "work": self.work,
            "contenders": {
                name: {
                    "median_s": timing.median,
                    "mean_s": timing.mean,
                    "min_s": min(timing.seconds),
                    "max_s": max(timing.seconds),
                    "rounds_s": list(timing.seconds),
                    "memory_bytes": timing.memory_bytes,
                    "ratio_to_ours": self.ratio(name),
                }
                for name, timing in self.timings.items()
            },
            "ours": self.ours,
            "targets": [
                {"what": t.what, "value": t.value, "bound": t.bound, "limit": t.limit, "unit": t.unit, "met": t.met}
                for t in self.targets
            ],
            "notes": list(self.notes),
        }


def ratio(one: Timing, other: Timing) -> float:
    """Median over the rounds of one's seconds by the other's: a load that comes and goes hits both."""
    return statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=True))


def timed(work: Callable[[], object], *, times: int = 1) -> Contender:
    """A contender that does its work several times and returns the mean."""

    def contender() -> float:
        start = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - start) / times

    return contender


def alternate(contenders: Mapping[str, Contender], *, rounds: int, warm_ups: int = 1) -> dict[str, Timing]:
    """Run all in turns, every other round in reverse.

    Args:
        contenders: by name; where every one has an attribute `memory_bytes` afterwards, it is taken over.
        rounds: that are timed.
        warm_ups: rounds before them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-warm_ups, rounds):
        for name in reversed(list(contenders)) if number % 2 else list(contenders):
            taken = contenders[name]()
            if number >= 0:
                seconds[name].append(taken)
    memory = {name: getattr(contender, "memory_bytes", None) for name, contender in contenders.items()}
    comparable = None not in memory.values()
    return {name: Timing(tuple(taken), memory[name] if comparable else None) for name, taken in seconds.items()}

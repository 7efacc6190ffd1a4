"""Collects what the steps report without making the device wait: checks for NaN, averages rows, measures time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from segmed.errors import TrainingError
from segmed.training.ranks import Ranks

T = TypeVar("T")
CHECK_EVERY = 16  # steps between two looks at values that lie on a GPU or on other processes
LOG_EVERY = 10  # steps that are averaged into one row
NAMED_CASES = 6


class Journal:
    """Losses of the steps since the last row, and how the time went.

    Args:
        ranks: the processes that train; values are averaged over them.
        kept: says which checkpoint a NaN leaves behind, for the message.
    """

    def __init__(self, ranks: Ranks, *, kept: Callable[[], str]) -> None:
        self._ranks = ranks
        self._kept = kept
        self._unread: list[tuple[int, list[str], dict[str, Tensor]]] = []
        self._read: list[dict[str, float]] = []
        self._last_finite: dict[str, float] = {}
        self._start_window()

    def _start_window(self) -> None:
        self._read = []
        self._patches = 0
        self._waited_seconds = 0.0
        self._excluded_seconds = 0.0
        self._began = time.monotonic()

    def waiting(self, fetch: Callable[[], T]) -> T:
        """Call, and count the time as waiting for data."""
        start = time.monotonic()
        value = fetch()
        self._waited_seconds += time.monotonic() - start
        return value

    def excluding(self, action: Callable[[], T]) -> T:
        """Call, and leave the time out of the speed of training: a validation, a checkpoint."""
        start = time.monotonic()
        value = action()
        self._excluded_seconds += time.monotonic() - start
        return value

    def add(self, step: int, batch: Mapping[str, Any], values: Mapping[str, Tensor]) -> None:
        """Take in what a step reports.

        Raises:
            TrainingError: this step's values or, on a GPU, those of one of the last few are NaN or infinite.
        """
        self._unread.append((step, list(batch.get("case", ())), dict(values)))
        self._patches += len(batch["image"])
        at_hand = self._ranks.world == 1 and all(value.device.type == "cpu" for value in values.values())
        if at_hand or len(self._unread) >= CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Read what lies unread.

        Raises:
            TrainingError: naming the step, the value, the cases of the batch and the last finite values.
        """
        if not self._unread:
            return
        flat = torch.stack([value.float() for _, _, values in self._unread for value in values.values()]).cpu()
        numbers = iter(self._ranks.mean(flat).tolist())
        unread, self._unread = self._unread, []
        for step, cases, values in unread:
            read = {name: next(numbers) for name in values}
            wrong = [name for name, value in read.items() if not math.isfinite(value)]
            if wrong:
                raise TrainingError(self._describe(step, cases, f"{wrong[0]} is {read[wrong[0]]}"))
            self._last_finite = read
            self._read.append(read)

    def _describe(self, step: int, cases: list[str], what: str) -> str:
        involved = list(dict.fromkeys(case for share in self._ranks.gather(cases) for case in share))
        named = ", ".join(involved[:NAMED_CASES]) + (", ..." if len(involved) > NAMED_CASES else "")
        last = ", ".join(f"{name} {value:.4g}" for name, value in self._last_finite.items()) or "none"
        return (
            f"{what} at step {step} (cases {named or 'unknown'}; last finite values: {last}): lower"
            f" train.learning_rate or look at these cases; {self._kept()}"
        )

    @property
    def steps(self) -> int:
        """How many came together since the last row.

        Raises:
            TrainingError: as `check`.
        """
        self.check()
        return len(self._read)

    @property
    def row_is_due(self) -> bool:
        """Whether enough steps came together."""
        return len(self._read) >= LOG_EVERY

    def row(self) -> dict[str, float]:
        """Means since the last row, with patches per second over all processes and the share of time without data."""
        self.check()
        if not self._read:
            return {}
        seconds = max(time.monotonic() - self._began - self._excluded_seconds, 1e-9)
        values = mean_of(self._read)
        values["patches_per_second"] = self._patches * self._ranks.world / seconds
        values["data_wait_share"] = min(self._waited_seconds / seconds, 1.0)
        self._start_window()
        return values


def mean_of(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each name over the rows that have it."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in columns.items()}

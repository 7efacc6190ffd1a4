"""The processes that train together: who leads, and how they agree on what only one of them knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from segmed.errors import TrainingError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # one rank may write or validate for long while the others wait


class Ranks:
    """The processes of one run; a single one where `torch.distributed` was not started.

    What is agreed on here travels over gloo between processors, so no GPU has to wait for it. To be made by all
    processes at the same point of the program.

    Attributes:
        rank: of this process, from 0.
        world: number of processes.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.world = dist.get_world_size() if together else 1
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if self.world > 1 else None

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def maximum(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over the processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group)
        return tensor.tolist()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of each value over the processes; NaN where one of them has NaN."""
        if self.world == 1:
            return values
        total = values.detach().double().cpu()
        dist.all_reduce(total, group=self._group)
        return (total / self.world).to(values.dtype)

    def gather(self, value: T) -> list[T]:
        """The value of every process, in the order of ranks, on all of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._group)
        return values

    def lead(self, action: Callable[[], T]) -> T:
        """Do something on the leading process alone and give its result to all.

        Raises:
            TrainingError: on the other processes, where the leading one raised (there its own exception goes on).
        """
        if self.world == 1:
            return action()
        answer: list[Any] = [None, None]
        failure: Exception | None = None
        if self.leads:
            try:
                answer[0] = action()
            except Exception as error:
                failure, answer[1] = error, str(error)
        dist.broadcast_object_list(answer, src=0, group=self._group)
        if failure is not None:
            raise failure
        if answer[1] is not None:
            raise TrainingError(f"stopped with the leading process: {answer[1]}")
        return answer[0]

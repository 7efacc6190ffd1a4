"""Cases read ahead and written behind, by a thread each, while this one computes; and how long it waited for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from segmed.errors import DiskError, NoRoomError
from segmed.machine import free_ram_bytes

AHEAD = 2  # cases that are read and not yet computed
BEHIND = 2  # cases that are computed and not yet written
SHARE = 0.25  # of the free memory, which one more case may take: the network has the rest
READING = 3  # times a volume's float32 voxels: as they are stored, scaled, and what is given back

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Made = TypeVar("Made")
Report = TypeVar("Report")


@dataclass
class Waiting:
    """What the thread that computes did with its time.

    Attributes:
        network_s: it computed: the network, with what prepares a volume and brings its maps home.
        reading_s: it waited for a case to be read.
        writing_s: it waited for a case to be written.
    """

    network_s: float = 0.0
    reading_s: float = 0.0
    writing_s: float = 0.0

    @property
    def share(self) -> float:
        """Of the time in which it waited."""
        waited = self.reading_s + self.writing_s
        return waited / (waited + self.network_s) if waited else 0.0

    def __str__(self) -> str:
        return (
            f"the network worked {self.network_s:.1f} s and waited {self.share:.1%} of the time: "
            f"{self.reading_s:.1f} s for reading, {self.writing_s:.1f} s for writing"
        )


class Conveyor(Generic[Item, Loaded, Made, Report]):
    """Takes cases through three stages, in order; at most a few are read ahead or wait to be written.

    A case is read ahead only while it is small beside what memory is free; a stage for which there is no room is
    tried once more when nothing else is held.

    Args:
        read: an item -> what the next stage takes, or a report where there is nothing to compute; in its own thread.
        compute: -> what the last stage takes, in the thread that iterates.
        write: what was computed, or a report -> the report, in its own thread. What it raises ends everything.
        failed: item and error -> the report of a case that can't be read or computed.
        is_report: whether a stage gave a report.
        size: bytes of what `read` or `compute` gave.
        waiting: to which the times are added.
    """

    def __init__(
        self,
        read: Callable[[Item], Loaded | Report],
        compute: Callable[[Loaded], Made],
        write: Callable[[Made | Report], Report],
        *,
        failed: Callable[[Item, Exception], Report],
        is_report: Callable[[object], bool],
        size: Callable[[object], int],
        waiting: Waiting,
    ) -> None:
        self._read, self._compute, self._write = read, compute, write
        self._failed, self._is_report, self._size = failed, is_report, size
        self._waiting = waiting
        self._largest = 0
        self._ahead: deque[tuple[Item, Future[Loaded | Report]]] = deque()
        self._behind: deque[Future[Report]] = deque()

    def run(self, items: Iterable[Item]) -> Iterator[Report]:
        """The reports, in the order of the items.

        Raises:
            DiskError: nothing can be written any more.
        """
        coming = deque(items)
        with ThreadPoolExecutor(1, "read") as self._reader, ThreadPoolExecutor(1, "write") as self._writer:
            try:
                while coming or self._ahead:
                    self._fill(coming, 1)
                    item, loaded = self._ahead.popleft()
                    outcome = self._made(item, loaded, coming)
                    left = 0 if self._too_large(self._size(outcome)) else BEHIND
                    yield from self._written(max(left - 1, 0))
                    self._behind.append(self._writer.submit(self._write, outcome))
                    del loaded, outcome  # they are the writer's now: the next case needs the memory
                    yield from self._written(left)
                yield from self._written(0, counted=False)
            finally:  # where it is stopped nothing more is read; what is computed is written
                self._reader.shutdown(wait=False, cancel_futures=True)

    def _fill(self, coming: deque[Item], wanted: int) -> None:
        """Let so many cases be read ahead."""
        while coming and len(self._ahead) < wanted:
            item = coming.popleft()
            self._ahead.append((item, self._reader.submit(self._read, item)))

    def _made(self, item: Item, loaded: Future[Loaded | Report], coming: deque[Item]) -> Made | Report:
        """What is to be written of a case."""
        try:
            return self._computed(loaded, coming)
        except NoRoomError:
            self._let_go(coming)
        except DiskError:
            raise
        except Exception as error:  # whatever is wrong with one file, the others are predicted
            return self._failed(item, error)
        try:
            return self._computed(self._reader.submit(self._read, item), deque())
        except DiskError:
            raise
        except Exception as error:
            return self._failed(item, error)

    def _computed(self, loaded: Future[Loaded | Report], coming: deque[Item]) -> Made | Report:
        began = time.perf_counter()
        given = loaded.result()
        if self._is_report(given):
            self._fill(coming, AHEAD)
            return given  # type: ignore[return-value]
        self._waiting.reading_s += time.perf_counter() - began
        self._largest = max(self._largest, self._size(given))
        if not self._too_large(READING * self._largest):
            self._fill(coming, AHEAD)
        began = time.perf_counter()
        try:
            return self._compute(given)  # type: ignore[arg-type]
        finally:
            self._waiting.network_s += time.perf_counter() - began

    def _let_go(self, coming: deque[Item]) -> None:
        """Hold no case but this one: what was read ahead is read again later."""
        wait(self._behind)
        while self._ahead:
            item, read = self._ahead.pop()
            if not read.cancel():
                wait([read])
            coming.appendleft(item)

    def _too_large(self, needed: int) -> bool:
        return needed > SHARE * free_ram_bytes()

    def _written(self, left: int, *, counted: bool = True) -> Iterator[Report]:
        """Reports of what is written; waits until no more than so many cases are on their way."""
        while self._behind and (len(self._behind) > left or self._behind[0].done()):
            began = time.perf_counter()
            report = self._behind.popleft().result()
            if counted:
                self._waiting.writing_s += time.perf_counter() - began
            yield report

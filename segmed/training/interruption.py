"""What ends a run from outside: SIGTERM, Ctrl-C, data workers that die."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from segmed.errors import TrainingError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CHILD = getattr(signal, "SIGCHLD", None)


def _overlook(number: int, frame: FrameType | None) -> None:
    """Does nothing. Unlike SIG_DFL it may be set while a signal is waiting to be handled."""


class Interrupted(KeyboardInterrupt):
    """The run was stopped from outside and can go on; the message says how."""


class StopSignals:
    """Remembers SIGTERM and Ctrl-C, so that the step can end; a second signal interrupts at once.

    Attributes:
        requested: whether a signal came.
    """

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if CHILD is not None and CHILD not in self._before:
            # The signal may go to the data workers, too. Torch would raise their end in the middle of our last step.
            self._before[CHILD] = signal.signal(CHILD, _overlook)
        if again or self._at_once:
            raise KeyboardInterrupt(signal.Signals(number).name)

    @contextmanager
    def at_once(self, allowed: bool = True) -> Iterator[None]:
        """Within the block a signal interrupts instead of waiting for the end of the step."""
        if self.requested and allowed:
            raise KeyboardInterrupt
        self._at_once = allowed
        try:
            yield
        finally:
            self._at_once = False


@contextmanager
def one_line_faults(resume: str) -> Iterator[None]:
    """Turn the many lines of a failed data worker, or of a GPU without memory, into one.

    Raises:
        TrainingError: naming what happened and how to go on.
        TrainingError: saying what makes the run smaller.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the GPU has too little memory: lower train.batch_size or patches.size, or set "
            "network.encoder.checkpointing"
        ) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        if CHILD is not None and threading.current_thread() is threading.main_thread():
            signal.signal(CHILD, _overlook)  # else torch may raise the same again, out of this block
        raise TrainingError(
            f"a process that prepares patches died ({_last_line(error)}): it may have run out of memory;"
            f" lower train.workers, then {resume}"
        ) from error
    except (ValueError, OSError) as error:
        if "Original Traceback" not in str(error):
            raise
        raise TrainingError(f"preparing patches failed: {_last_line(error)}") from error


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__

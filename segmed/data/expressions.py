"""Regular expressions of configs, searched in names within a time limit."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from segmed.errors import DatasetError
from segmed.files import printable

SECONDS = 2.0  # for one name; an expression without nested repetitions needs microseconds


class _TooLong(Exception):
    """The search took longer than SECONDS."""


def first_match(expression: str, name: str, *, key: str) -> re.Match[str] | None:
    """Look for an expression in a name.

    Args:
        expression: of the config or the command line.
        name: of a case or an image.
        key: of the config or the option, for messages.

    Raises:
        DatasetError: it is no regular expression, or its search takes too long.
    """
    try:
        pattern = re.compile(expression)
        with _limited():
            return pattern.search(name)
    except (re.error, RecursionError, OverflowError) as error:
        raise DatasetError(f"{key} '{expression}' is no regular expression ({error}): repair it") from error
    except _TooLong:
        raise DatasetError(
            f"{key} '{expression}' takes more than {SECONDS:g} s on '{printable(name)}': repetitions inside "
            "repetitions, as (a+)+, never end: write it simpler"
        ) from None


@contextmanager
def _limited() -> Iterator[None]:
    """Interrupt what runs in the block after SECONDS, where the system has timers and this is the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    rest, _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, rest)
        signal.signal(signal.SIGALRM, before)

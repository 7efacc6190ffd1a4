"""A contender in a process of its own: it prepares, then works once for every line it is sent.

Needs nothing but the standard library, as it also runs in the interpreters of peers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
Work = Callable[[], object]
Prepare = Callable[[Mapping[str, Any]], Work]
Argument = TypeVar("Argument")
Result = TypeVar("Result")


class PeerError(ValueError):
    """A contender's process that can't start or has died; one line that says why."""


class Worker:
    """The near end: `worker()` has the work done once and returns its seconds. Use as a context.

    Args:
        module: of this folder, which calls `serve`.
        options: for its `prepare`; JSON.
        python: interpreter.
        times: how often it does its work for one line; `worker()` returns the mean.

    Attributes:
        memory_bytes: the largest resident memory so far, beyond that of the process after its imports.
        found: the number that the work returned last; None where it returns none.

    Raises:
        PeerError: the process could not be started or prepared.
    """

    def __init__(
        self, module: str, options: Mapping[str, Any], *, python: Path | str = sys.executable, times: int = 1
    ) -> None:
        self.memory_bytes: int | None = None
        self.found: float | None = None
        self._times = times
        self._module = module
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [str(python), "-m", module, json.dumps({**options, "times": times})],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
            )
        except OSError as error:
            raise PeerError(f"{python} can't be started: {error.strerror or error}") from error
        self._reply()

    def __call__(self) -> float:
        if self._process.stdin is None:
            raise PeerError(f"{self._module} has no input")
        with suppress(BrokenPipeError):  # the missing reply says why
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        reply = self._reply()
        self.memory_bytes = int(reply["memory_bytes"])
        self.found = reply["found"]
        return float(reply["seconds"]) / self._times

    def _reply(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if line:
            return json.loads(line)
        self._process.wait()
        self._complaints.seek(0)
        said = [text.strip() for text in self._complaints.read().splitlines() if text.strip()]
        reason = said[-1] if said else f"exit code {self._process.returncode}"
        raise PeerError(f"{self._module} stopped: {reason}")

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the process end; one that is at work is stopped."""
        if error is not None:
            self._process.kill()
        self._process.communicate()
        self._complaints.close()


def in_a_process(work: Callable[[Argument], Result], argument: Argument) -> Result:
    """What `work` returns, computed in a process of its own.

    For engines that leave the processor's matrix registers in use: the next signal that this process handles, such as
    that of a child that ended, then ended it by a segmentation fault (seen with OpenVINO 2026.4 after a DataLoader).
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, argument).result()


def serve(tasks: Mapping[str, Prepare]) -> None:
    """The far end: prepare the task that the command line names, then work and reply, line by line.

    Args:
        tasks: name -> what takes the options and gives the work.
    """
    options = json.loads(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the replies
    imported = _memory_bytes("VmRSS")
    work = tasks[options["task"]](options)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from the imports
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(options["times"]):
            found = work()
        seconds = time.perf_counter() - start
        memory = max(0, _memory_bytes("VmHWM") - imported)
        number = found if isinstance(found, (int, float)) else None
        reply = {"seconds": seconds, "memory_bytes": memory, "found": number}
        print(json.dumps(reply), file=replies, flush=True)


def _memory_bytes(field: str) -> int:
    """Resident memory of this process: now (VmRSS) or at most (VmHWM); without /proc at most in any case."""
    try:
        found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    if found:
        return 1024 * int(found.group(1))
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

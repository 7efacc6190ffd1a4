"""A job's command line as a process of its own, which ends when the process that started it does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

PROGRAM = (sys.executable, "-m", "segmed.commands.program")  # `segmed`, of this installation
PR_SET_PDEATHSIG = 1
THREADS = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def start_child(command: Sequence[str], log: Path, *, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a command line; what it prints goes behind what the log holds.

    It is a session of its own, so that Ctrl-C reaches it through us alone, and on Linux it gets SIGTERM, by which a
    training saves and ends, when we die.

    Args:
        command: `segmed` and its words.
        log: file.
        environ: its environment.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [*PROGRAM, *command[1:]] if command[0] == "segmed" else list(command)
    with log.open("ab") as file:
        file.write(f"--- {datetime.now():%Y-%m-%d %H:%M:%S} {' '.join(command)}\n".encode("utf-8", "replace"))
        file.flush()
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            start_new_session=True,
            preexec_fn=_dies_with_its_parent(),
        )


def environment_of(cores: int | None, gpus: Sequence[int] | None = None) -> dict[str, str]:
    """The environment of this process, with the share of the machine that a job has.

    Args:
        cores: how many; None: no share is set.
        gpus: their numbers among those that this process sees; None: all of them.
    """
    environ = dict(os.environ)
    if cores is not None:
        environ["SEGMED_CORES"] = str(cores)
        for name in THREADS:
            given = environ.get(name, "")
            environ[name] = str(min(cores, int(given)) if given.isdigit() and int(given) else cores)
    if gpus is not None:
        names = [name for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[each] if each < len(names) else str(each) for each in gpus)
    return environ


def _dies_with_its_parent() -> Callable[[], object] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

"""Row of the command line: `--help`, as a whole process."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.processes import ROOT
from benchmarks.timing import Outcome, Setting, Target, alternate, timed

OURS = "python tools/train_seg.py --help"


def help_row(setting: Setting) -> Outcome:
    """From the start of the process to its end."""
    command = [sys.executable, str(ROOT / "tools" / "train_seg.py"), "--help"]
    work = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    timings = alternate({OURS: work}, rounds=setting.rounds)
    target = Target("whole process", timings[OURS].median, "below", 1.5, "s")
    return Outcome("help", "--help as a whole process", OURS, timings, (target,))

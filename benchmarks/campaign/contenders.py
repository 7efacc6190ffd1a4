"""What each contender needs to train and predict one fold, and the figures that it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import ROOT, PeerError
from segmed.files import write_json
from segmed.runs import read_history

OPTIONS, SPENT = "options.json", "spent.json"  # of a turn: with what it began, and what it has cost so far
OURS: dict[str, tuple[str, ...]] = {  # contenders that are runs of segmed: options beside the set's config
    "segmed": (),
    "mednext": ("--network.encoder.name", "mednext"),
}


@dataclass(frozen=True)
class CampaignSet:
    """A data set of the campaign.

    Attributes:
        config: of segmed.
        minutes: of training, for each contender.
        nnunet: which of nnU-Net's configurations learns; thick slices take its 2D one, as its authors' plan does for
            a single model of ACDC.
        patch: of DynUNet, powers of two.
        spacing_mm: that DynUNet resamples to.
        batch: of DynUNet.
    """

    config: str
    minutes: float
    nnunet: str
    patch: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    batch: int


SETS = {
    "hippocampus": CampaignSet("configs/seg/hippocampus.yaml", 20, "3d_fullres", (32, 64, 32), (1.0, 1.0, 1.0), 8),
    "myops": CampaignSet("configs/seg/myops_lge.yaml", 10, "2d", (128, 128, 4), (1.25, 1.25, 12.0), 2),
    "acdc": CampaignSet("configs/seg/acdc.yaml", 8, "2d", (128, 128, 8), (1.5, 1.5, 10.0), 2),
}


@dataclass(frozen=True)
class Turn:
    """One contender on one fold.

    Attributes:
        folder: of all that it writes.
        fold: folder of the fold's files.
        data: the set.
        minutes: of training.
        threads: of every contender.
        seed: of weights and patches.
    """

    folder: Path
    fold: Path
    data: CampaignSet
    minutes: float
    threads: int
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        """For a recipe's process."""
        return {
            "fold": str(self.fold), "work": str(self.folder), "minutes": self.minutes, "threads": self.threads,
            "seed": self.seed, "configuration": self.data.nnunet, "patch": self.data.patch,
            "spacing_mm": self.data.spacing_mm, "batch": self.data.batch,
        }  # fmt: skip


def run_recipe(turn: Turn, module: str, python: Path) -> dict[str, Any]:
    """A peer's recipe in its interpreter; its label maps lie in `raw_predictions`.

    Raises:
        PeerError: it failed; its log is named.
    """
    _begin(turn)
    spent = _call([str(python), "-m", module, str(turn.folder / OPTIONS)], turn)
    return {**json.loads((turn.folder / "facts.json").read_text(encoding="utf-8")), **spent}


def run_segmed(turn: Turn, root: Path, *, folds: int, fold: int) -> dict[str, Any]:
    """`train_seg.py` on the same fold; its test label maps lie in `run/predictions`.

    The folder's name is the contender's, one of `OURS`. What was begun goes on: the settings were checked before.

    Raises:
        PeerError: it failed; its log is named.
    """
    run = turn.folder / "run"
    goes_on = (run / "config.yaml").is_file()
    if not goes_on:
        shutil.rmtree(run, ignore_errors=True)
        _begin(turn)
    command = ["--resume", str(run)] if goes_on else [
        "--config", str(ROOT / turn.data.config), "--data.root", str(root), "--folds", str(folds), "--fold", str(fold),
        "--train.budget-minutes", str(turn.minutes), "--seed", str(turn.seed), "--run-dir", str(run),
        *OURS[turn.folder.name],
    ]  # fmt: skip
    spent = _call([sys.executable, str(ROOT / "tools" / "train_seg.py"), *command], turn)
    steps = max(int(step) for column in read_history(run / "history.csv").values() for step, _ in column)
    return {
        "minutes": turn.minutes,
        "steps": steps,
        "plan": " ".join([turn.data.config, *OURS[turn.folder.name]]),
        **spent,
    }


def _begin(turn: Turn) -> None:
    """Write down with what a turn begins; it has cost nothing yet."""
    turn.folder.mkdir(parents=True, exist_ok=True)
    write_json(turn.folder / OPTIONS, turn.options)
    (turn.folder / SPENT).unlink(missing_ok=True)


def done(folder: Path) -> dict[str, Any] | None:
    """Facts of a turn that is over; None where it must be taken."""
    file = folder / "done.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _call(command: list[str], turn: Turn) -> dict[str, float]:
    """Run a command to its end: minutes, and the largest memory of it and its children, also of earlier calls."""
    log, spent = turn.folder / "log.txt", turn.folder / SPENT
    before = json.loads(spent.read_text(encoding="utf-8")) if spent.is_file() else {}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(turn.threads)}
    peak, begun = before.get("peak_memory_mib", 0.0), time.perf_counter()

    def write_down() -> dict[str, float]:
        minutes = before.get("whole_minutes", 0.0) + (time.perf_counter() - begun) / 60
        cost = {"whole_minutes": minutes, "peak_memory_mib": peak}
        write_json(spent, cost)
        return cost

    with log.open("a", encoding="utf-8") as file:
        process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                peak = max(peak, _memory_mib(process))
                write_down()  # every time: who is killed writes nothing down
                time.sleep(0.5)
        except BaseException:
            process.terminate()  # a run of segmed saves and goes on; a peer's turn is taken again
            process.wait()
            raise
        finally:
            cost = write_down()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise PeerError(f"exit code {process.returncode}, {lines[-1] if lines else 'no word'}: see {log}")
    return cost


def _memory_mib(process: psutil.Process) -> float:
    total = 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total / 2**20

"""The campaign's page: scores compared by `segmed compare`, beside minutes, steps and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.campaign.contenders import OURS
from benchmarks.processes import ROOT, PeerError
from segmed.files import atomic_write_text

TITLES = {"segmed": "segmed", "mednext": "segmed with MedNeXt", "nnunet": "nnU-Net", "dynunet": "DynUNet"}


def write_tables(output: Path, name: str, contenders: Sequence[str], *, threads: int) -> str:
    """Compare what is predicted of a set; write and return `campaign.md` in its folder.

    Args:
        output: folder of the campaign.
        name: of the set.
        contenders: the first is the one that the others are compared with.
        threads: that each had.

    Raises:
        PeerError: the comparison failed.
    """
    place = output.absolute() / name
    labels = json.loads((place / "labels.json").read_text(encoding="utf-8"))
    named = [f"{label}={','.join(map(str, values))}" for label, values in labels.items()]
    compared = ""
    if len(contenders) > 1:
        command = [
            sys.executable, str(ROOT / "tools" / "compare.py"), "--methods",
            *(f"{TITLES[who]}={place / 'predictions' / who}" for who in contenders),
            "--reference", TITLES[contenders[0]], "--references", str(place / "references"), "--labels", *named,
            "--output", str(place / "comparison"), *_run_options(place),
        ]  # fmt: skip
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if said.returncode:
            raise PeerError(f"the comparison of {name} stopped: {said.stderr.strip().splitlines()[-1:]}")
        compared = (place / "comparison" / "comparison.md").read_text(encoding="utf-8")
    rows = [_row(place, who) for who in contenders]
    head = "| contender | folds | training, minutes | all, minutes | steps | peak memory, MiB | plan |"
    text = "\n".join([f"# {name}, {threads} threads each", "", head, "|---" * 7 + "|", *rows, "", compared])
    atomic_write_text(place / "campaign.md", text)
    return text


def _run_options(place: Path) -> list[str]:
    """A run of segmed on these data says whether mm are known and how a miss counts; none: the defaults do."""
    runs = (run for who in OURS for run in sorted(place.glob(f"fold_*/{who}/run/config.yaml")))
    run = next(runs, None)
    return [] if run is None else ["--run", str(run.parent)]


def _row(place: Path, who: str) -> str:
    turns: list[dict[str, Any]] = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(place.glob(f"fold_*/{who}/done.json"))
    ]
    of = {key: [float(turn[key]) for turn in turns] for key in ("minutes", "whole_minutes", "steps", "peak_memory_mib")}
    figures = [
        f"{mean(of['minutes']):.1f}", f"{mean(of['whole_minutes']):.1f}", f"{mean(of['steps']):.0f}",
        f"{max(of['peak_memory_mib']):.0f}",
    ]  # fmt: skip
    return f"| {TITLES[who]} | {len(turns)} | {' | '.join(figures)} | {turns[0]['plan']} |"

"""The page that leads a newcomer from a folder to label maps and figures: its commands, in their order."""

from __future__ import annotations

import csv
import re
import shlex
import sys
from pathlib import Path

import pytest

from segmed.commands.program import main_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "start" / "own_data.md"
SMALL = (
    "--network.name unet --network.encoder.channels 4 8 --patches.dims 2 --patches.size 32 32 --evaluate.bootstrap 20 "
    "--train.budget-minutes None --train.epochs 1 --train.steps-per-epoch 2 --train.validations 1 --train.workers 0 "
    "--train.devices 1 --train.precision fp32 --train.memory-format contiguous"
)
IN_PLACE_OF = {"--cases 12": "--cases 6", "--train.budget-minutes 3": SMALL}  # minutes of the page


def lines() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [line for language, block in blocks if not language for line in block.splitlines()]


@pytest.mark.slow
def test_the_way_from_a_folder_to_label_maps_and_figures(tmp_path, monkeypatch, capsys):
    commands = ["phantom", "init", "audit", "train", "train", "train", "predict", "evaluate"]
    assert [line.split()[1] for line in lines()] == commands
    monkeypatch.chdir(tmp_path)
    printed = {}
    for line in lines():
        for minutes, seconds in IN_PLACE_OF.items():
            line = line.replace(minutes, seconds)
        words = shlex.split(line)
        monkeypatch.setattr(sys, "argv", words)
        assert not main_of(words[1])(), line
        printed[line] = capsys.readouterr().out
    (plan,) = (text for line, text in printed.items() if line.endswith("--plan-only"))
    assert "plan: 6 cases" in plan
    assert len(list((tmp_path / "labels").glob("*.nii.gz"))) == 6
    with (tmp_path / "scores" / "cases.csv").open(encoding="utf-8") as rows:
        assert len({row["case"] for row in csv.DictReader(rows)}) == 6
    assert (tmp_path / "my_run" / "report.html").is_file()

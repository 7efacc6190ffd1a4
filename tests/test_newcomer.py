"""The page that leads a newcomer from a folder to label maps: its commands, in their order, as they stand."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from segmed.commands.program import main_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "start" / "own_data.md"
SHORTER = {"--cases 12": "--cases 6", "--train.budget-minutes 3": "--train.budget-minutes 0.05 --train.validations 1"}


def lines() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [line for language, block in blocks if not language for line in block.splitlines()]


@pytest.mark.slow
def test_the_way_from_a_folder_to_label_maps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = []
    for line in lines():
        for long, short in SHORTER.items():
            line = line.replace(long, short)
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        assert sys.argv[0] == "segmed", line
        assert not main_of(sys.argv[1])(), line
        ran.append(sys.argv[1])
        said = capsys.readouterr().out
        assert "auto" in said or sys.argv[-1] != "--plan-only"
    assert ran == ["phantom", "init", "audit", "train", "train", "train", "predict"]
    assert "labels:" in (tmp_path / "my.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "audit" / "report.html").is_file()
    assert (tmp_path / "my_run" / "report.html").is_file()
    assert len(list((tmp_path / "labels").rglob("*.nii.gz"))) == 6

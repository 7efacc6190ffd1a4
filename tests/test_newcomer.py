"""The page that leads a newcomer from a folder to a plan: its commands, in their order, as they stand."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from segmed.commands.program import main_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "start" / "own_data.md"


def lines() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [line for language, block in blocks if not language for line in block.splitlines()]


@pytest.mark.slow
def test_the_way_from_a_folder_to_a_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line in lines()[:4]:  # trainings by the minute are those of other tests
        monkeypatch.setattr(sys, "argv", shlex.split(line.replace("--cases 12", "--cases 6")))
        assert not main_of(sys.argv[1])(), line
    assert "plan: 6 cases" in capsys.readouterr().out
    assert (tmp_path / "my.yaml").is_file()
    assert [line.split()[1] for line in lines()] == ["phantom", "init", "audit", "train", "train", "train", "predict"]

"""The benchmark of growth: volumes as it says, commands timed, and its table read back as it was written."""

import re
import sys

import numpy as np
import pytest

from benchmarks import growth
from benchmarks.growth import BALL, SIDE, STEPS, Row, draw, make_volumes, read_rows, timed, write_rows
from segmed.config.reading import load_config
from segmed.errors import ConfigError
from segmed.volumes import read_volume


def test_the_volumes_hold_a_ball_and_fit_the_config(tmp_path):
    make_volumes(tmp_path, 2)
    one, two = (read_volume(tmp_path / "images" / f"case_00000{number}.nii.gz") for number in range(2))
    ball = read_volume(tmp_path / "labels" / "case_000000.nii.gz")[0] > 0
    assert one.shape == (1, SIDE, SIDE, SIDE)
    assert float(ball.sum()) == pytest.approx(4 / 3 * np.pi * BALL**3, rel=0.1)
    assert one[0][ball].mean() > one[0][~ball].mean() + 80
    assert not (one == two).all()
    assert load_config(tmp_path / "growth.yaml").data.root == tmp_path


def test_a_command_is_timed_to_its_end_or_to_a_line(monkeypatch):
    class Popen(growth.subprocess.Popen):
        def __init__(self, words, **options):
            super().__init__([sys.executable, "-c", words[3]], **options)

    monkeypatch.setattr(growth.subprocess, "Popen", Popen)
    wait = "import time; print('step 1, loss', flush=True); time.sleep(30)"
    seconds, spent, peak_mib, _ = timed([wait], re.compile("step 1"))
    assert seconds < 25
    assert spent < 5
    assert peak_mib > 5
    with pytest.raises(ConfigError, match="failed: what was wrong"):
        timed(["print('what was wrong'); raise SystemExit(2)"], None)


def test_the_table_comes_back_as_it_was_written_and_is_drawn(tmp_path):
    rows = [Row(cases, step, 1.5, 2.5, 600, 0.3) for cases in (100, 1000) for step in STEPS]
    write_rows(tmp_path / "growth.csv", rows)
    assert read_rows(tmp_path / "growth.csv") == rows
    draw(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"
    assert read_rows(tmp_path / "none.csv") == []

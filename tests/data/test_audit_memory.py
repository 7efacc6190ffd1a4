"""The audit is kept by the content of the files: only what changed is opened again."""

import logging
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from tiny_data import make_balls

from segmed.config import DataConfig, PatternLayout
from segmed.data import audit as auditing
from segmed.data.audit import audit_dataset
from segmed.data.audit_memory import NAME
from segmed.data.cases import read_dataset
from segmed.data.leaks.look_alikes import look_alikes
from segmed.data.miniature import SIZE

HOUR_NS = 3600 * 10**9


@pytest.fixture
def balls(tmp_path) -> Path:
    """Six cases, written an hour ago: files that are new may change within a tick of the clock."""
    folder = make_balls(tmp_path / "balls", cases=6)
    for file in folder.glob("*.nii.gz"):
        age(file, 1)
    return folder


def age(file: Path, hours: int) -> None:
    then = file.stat().st_mtime_ns - hours * HOUR_NS
    os.utime(file, ns=(then, then))


def read(folder: Path):
    layout = PatternLayout(images={"LGE": "{case}.nii.gz"}, label="{case}_label.nii.gz")
    return read_dataset(DataConfig(root=folder, layout=layout))


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Ids of the cases whose files are opened."""
    names: list[str] = []
    whole = auditing.check_case

    def noted(case, **given):
        names.append(case.id)
        return whole(case, **given)

    monkeypatch.setattr(auditing, "check_case", noted)
    return names


def test_a_second_audit_opens_nothing_and_says_the_same(balls, tmp_path, opened):
    first = audit_dataset(read(balls), memory=tmp_path / "cache")
    assert len(opened) == 6
    second = audit_dataset(read(balls), memory=tmp_path / "cache")
    assert len(opened) == 6
    assert second == first == audit_dataset(read(balls))
    for name, cells in first.miniatures.items():
        np.testing.assert_array_equal(second.miniatures[name], cells)


def test_only_what_changed_is_opened_again(balls, tmp_path, opened):
    audit_dataset(read(balls), memory=tmp_path / "cache")
    one, two, *_ = sorted(balls.glob("*_label.nii.gz"))
    two.write_bytes(one.read_bytes())
    age(two, 1)
    opened.clear()
    audit_dataset(read(balls), memory=tmp_path / "cache")
    assert opened == [two.name.removesuffix("_label.nii.gz")]


def test_a_file_that_was_only_touched_is_hashed_but_not_audited(balls, tmp_path, opened):
    audit_dataset(read(balls), memory=tmp_path / "cache")
    age(next(iter(balls.glob("*_label.nii.gz"))), 1)
    opened.clear()
    audit_dataset(read(balls), memory=tmp_path / "cache")
    assert opened == []


def test_a_damaged_row_is_named_and_audited_again(balls, tmp_path, opened, caplog):
    first = audit_dataset(read(balls), memory=tmp_path / "cache")
    with sqlite3.connect(tmp_path / "cache" / NAME) as connection:
        key = connection.execute("select key from reports").fetchone()
        connection.execute("update reports set report = replace(report, '1', '2') where key = ?", key)
    opened.clear()
    with caplog.at_level(logging.WARNING):
        assert audit_dataset(read(balls), memory=tmp_path / "cache") == first
    assert f"the entry of case {opened[0]} is damaged" in caplog.text
    assert len(opened) == 1


def test_a_damaged_file_is_begun_anew(balls, tmp_path, opened, caplog):
    first = audit_dataset(read(balls), memory=tmp_path / "cache")
    (tmp_path / "cache" / NAME).write_bytes(b"no database" * 1000)
    with caplog.at_level(logging.WARNING):
        assert audit_dataset(read(balls), memory=tmp_path / "cache") == first
    assert "is damaged" in caplog.text
    opened.clear()
    audit_dataset(read(balls), memory=tmp_path / "cache")
    assert opened == []


def test_look_alikes_are_those_of_all_flips_whatever_the_blocks(monkeypatch):
    random = np.random.default_rng(0)
    cells = random.normal(size=(7, SIZE, SIZE, SIZE)).astype(np.float32)
    cells /= np.linalg.norm(cells.reshape(7, -1), axis=1)[:, None, None, None]
    cells[5] = np.flip(cells[1], (0, 2))
    cells[6] = np.flip(cells[3], 1)
    miniatures = {f"case_{n}": each for n, each in enumerate(cells)}
    whole = look_alikes(list(miniatures), miniatures)
    monkeypatch.setattr("segmed.data.leaks.look_alikes.BLOCK", 2)
    assert whole == look_alikes(list(miniatures), miniatures) == [("case_1", "case_5"), ("case_3", "case_6")]

"""What writes files writes no input, nothing outside the folders it was given, and nothing through a link."""

import os

import pytest

from segmed.errors import DiskError
from segmed.files import (
    as_cell,
    atomic_path,
    atomic_write_text,
    bounds,
    csv_text,
    disk_errors,
    from_cell,
    make_folder,
    printable,
    remove,
)


def test_an_input_is_neither_replaced_nor_removed_nor_opened_under_any_of_its_names(tmp_path):
    source = tmp_path / "scan.nii.gz"
    source.write_bytes(b"scan")
    (tmp_path / "link.nii.gz").symlink_to(source)
    os.link(source, tmp_path / "hard.nii.gz")
    with bounds(inputs=[source]):
        for name in ("scan.nii.gz", "link.nii.gz", "hard.nii.gz", "x/../scan.nii.gz"):
            (tmp_path / "x").mkdir(exist_ok=True)
            with pytest.raises(DiskError, match=r"scan\.nii\.gz.*never replaced: choose another output"):
                atomic_write_text(tmp_path / name, "other")
            with pytest.raises(DiskError), disk_errors(tmp_path / name):
                pass
        with pytest.raises(DiskError):
            remove(source)
        atomic_write_text(tmp_path / "other.nii.gz", "fine")
    assert source.read_bytes() == b"scan"
    remove(source)
    assert not source.exists()


def test_slices_of_a_dicom_folder_are_inputs(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"slice")
    with bounds(inputs=[tmp_path / "series"]), pytest.raises(DiskError):
        atomic_write_text(tmp_path / "series" / "1.dcm", "other")


def test_links_below_the_named_folder_are_not_followed_and_those_above_are(tmp_path):
    outside, real = tmp_path / "outside", tmp_path / "real"
    outside.mkdir()
    real.mkdir()
    (tmp_path / "run").symlink_to(real)
    (real / "test").symlink_to(outside)
    (real / "log.txt").symlink_to(outside / "log.txt")
    (outside / "old.txt").write_text("old")
    (real / "old.txt").symlink_to(outside / "old.txt")
    with bounds(tmp_path / "run"):
        atomic_write_text(tmp_path / "run" / "plan.json", "{}")
        with pytest.raises(DiskError, match=r"run/test is a link"):
            atomic_write_text(tmp_path / "run" / "test" / "deep" / "cases.csv", "x")
        with pytest.raises(DiskError, match=r"log\.txt is a link"), disk_errors(tmp_path / "run" / "log.txt"):
            pass
        atomic_write_text(tmp_path / "run" / "old.txt", "new")  # the link itself is replaced
        with pytest.raises(DiskError, match="leads out of"):
            atomic_write_text(tmp_path / "run" / "a" / ".." / ".." / "outside" / "x", "x")
    assert [path.read_text() for path in outside.iterdir()] == ["old"]


def test_a_temporary_file_of_a_killed_process_goes_with_the_next_write_and_that_of_a_living_one_stays(tmp_path):
    child = os.fork()
    if child == 0:
        with atomic_path(tmp_path / "table.csv") as temporary:
            temporary.write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    (torn,) = tmp_path.iterdir()
    living = tmp_path / torn.name.replace(str(child), str(os.getppid()))
    living.write_text("half")
    atomic_write_text(tmp_path / "other.csv", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "other.csv"])


def test_names_of_255_bytes_can_be_written(tmp_path):
    name = "ü" * 120 + "x" * 8 + ".nii.gz"
    assert len(os.fsencode(name)) == 255
    atomic_write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


# ---------------------------------------------------------------- names that would do something


def test_printed_names_move_no_cursor_and_cells_compute_nothing():
    assert printable("a\x1b[2Jb\nc\udcff") == "a\\x1b[2Jb\\nc\\udcff"
    for text in ("=1+1", "+x", "@x", "-x", "'=x", "''@x", "case", "-3.5", "'quoted'"):
        assert from_cell(as_cell(text)) == text
        assert not as_cell(text).startswith(("=", "+", "@"))
    assert as_cell("-3.5") == "-3.5"


def test_texts_of_a_table_are_quoted_and_its_numbers_are_not():
    rows = [{"=case": "=1+1", "dice": -0.5, "note": None}, {"=case": "a,b", "dice": float("nan"), "note": "-3.5"}]
    table = csv_text(["=case", "dice", "note"], rows)
    assert table == "'=case,dice,note\n'=1+1,-0.5,\n\"a,b\",,-3.5\n"


def test_a_folder_that_can_not_be_made_says_what_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(DiskError, match=f"cannot make folder .*{place} .a file is in the way.: choose another"):
            make_folder(tmp_path / place)

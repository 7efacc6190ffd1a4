"""Downloads against a server on the loopback that can misbehave in every way that servers do."""

from __future__ import annotations

import errno
import hashlib
import io
import runpy
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from loopback_server import Server

from segmed.data import download, transfer
from segmed.data.archive import unpack
from segmed.data.download import TASKS, Task, download_task, find_task
from segmed.data.transfer import held
from segmed.errors import DownloadError

FOLDER = "Task99_Toy"
TOOL = Path(__file__).resolve().parents[2] / "tools" / "download_data.py"


def tar_of(members: dict[str, bytes] | list[tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        if isinstance(members, dict):
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        else:
            for member in members:
                tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


ARCHIVE = tar_of(
    {
        f"{FOLDER}/dataset.json": b"{}",
        f"{FOLDER}/._dataset.json": b"resource fork",
        f"{FOLDER}/imagesTr/toy_001.nii.gz": bytes(range(256)) * 400,
    }
)


def toy_task(archive: bytes = ARCHIVE) -> Task:
    return Task(FOLDER, "a toy", 0.0, hashlib.md5(archive, usedforsecurity=False).hexdigest())


@pytest.fixture
def server(loopback):
    """A running server of the toy archive, whose behaviour a test sets."""
    loopback.body = ARCHIVE
    return loopback


def get(server: Server, output: Path, task: Task | None = None, **options) -> Path:
    return download_task(task or toy_task(), output, base_url=server.url, wait_s=0.001, **options)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} if folder.exists() else set()


WHOLE = {FOLDER, f"{FOLDER}/dataset.json", f"{FOLDER}/imagesTr", f"{FOLDER}/imagesTr/toy_001.nii.gz"}
PART, MEMORY = f"{FOLDER}.tar.part", f"{FOLDER}.tar.part.json"


# ---------------------------------------------------------------- what should happen


def test_a_data_set_appears_whole_and_nothing_else_does(server, tmp_path):
    folder = get(server, tmp_path / "data")
    assert folder == tmp_path / "data" / FOLDER
    assert names(tmp_path / "data") == WHOLE
    assert (folder / "imagesTr" / "toy_001.nii.gz").read_bytes() == bytes(range(256)) * 400


def test_a_second_call_asks_the_server_for_nothing(server, tmp_path):
    get(server, tmp_path)
    asked = len(server.ranges)
    assert get(server, tmp_path) == tmp_path / FOLDER
    assert len(server.ranges) == asked


def test_a_cut_connection_is_gone_on_with_from_its_last_byte(server, tmp_path):
    server.cut_at = [30_000, 70_000]
    get(server, tmp_path)
    assert server.ranges == [None, "bytes=30000-", "bytes=70000-"]
    assert names(tmp_path) == WHOLE


def test_a_later_call_goes_on_from_the_part_file(server, tmp_path):
    server.cut_at = [50_000]
    with pytest.raises(DownloadError, match=r"cut at 0\.1 of 0\.1 MB.*run the same command to go on"):
        get(server, tmp_path, attempts=1)
    assert names(tmp_path) == {PART, MEMORY}
    get(server, tmp_path)
    assert server.ranges[-1] == "bytes=50000-"
    assert names(tmp_path) == WHOLE


def test_a_server_without_ranges_sends_the_file_again(server, tmp_path):
    server.allow_ranges, server.cut_at = False, [50_000]
    get(server, tmp_path)
    assert len(server.ranges) == 2
    assert names(tmp_path) == WHOLE


def test_a_file_that_changed_on_the_server_is_begun_anew(server, tmp_path):
    new, server.body, server.cut_at = ARCHIVE, b"old" * 40_000, [60_000]
    with pytest.raises(DownloadError, match="cut"):
        get(server, tmp_path, attempts=1)
    server.body, server.etag = new, '"two"'
    get(server, tmp_path)
    assert names(tmp_path) == WHOLE


def test_a_change_without_an_etag_shows_in_the_size(server, tmp_path):
    new, server.body, server.cut_at, server.etag = ARCHIVE, b"old" * 40_000, [60_000], None
    with pytest.raises(DownloadError, match="cut"):
        get(server, tmp_path, attempts=1)
    server.body = new
    get(server, tmp_path)
    assert server.ranges == [None, "bytes=60000-", None]
    assert names(tmp_path) == WHOLE


def test_a_file_that_shrank_on_the_server_is_begun_anew(server, tmp_path):
    new, server.body, server.cut_at, server.etag = ARCHIVE, b"old" * 90_000, [len(ARCHIVE) + 9], None
    with pytest.raises(DownloadError, match="cut"):
        get(server, tmp_path, attempts=1)
    server.body = new
    get(server, tmp_path)
    assert names(tmp_path) == WHOLE


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.status = [503, 429]
    get(server, tmp_path)
    assert names(tmp_path) == WHOLE


def test_a_whole_part_file_is_unpacked_without_the_network(server, tmp_path, monkeypatch):
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(download, "unpack", full)
        with pytest.raises(DownloadError, match="no space left"):
            get(server, tmp_path)
    assert names(tmp_path) == {PART, MEMORY}
    asked = len(server.ranges)
    get(server, tmp_path)
    assert len(server.ranges) == asked
    assert names(tmp_path) == WHOLE


# ---------------------------------------------------------------- what can go wrong


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match=r"checksum .* instead of the published .*removed, run again"):
        get(server, tmp_path, toy_task(b"something else"))
    assert names(tmp_path) == set()


def test_a_missing_file_is_said_to_be_missing(server, tmp_path):
    server.status = [404]
    with pytest.raises(DownloadError, match=r"answers 404 .*check the name and --base-url"):
        get(server, tmp_path)
    assert names(tmp_path) == set()


def test_a_server_that_keeps_failing_is_left_alone_in_the_end(server, tmp_path):
    server.status = [500] * 10
    with pytest.raises(DownloadError, match=r"answers 500 .* 3 times in a row"):
        get(server, tmp_path, attempts=3)
    assert len(server.ranges) == 3


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("http://127.0.0.1:9", "cannot reach http://127.0.0.1:9/.*check the network"),
        ("http://no-such-host.invalid", "cannot reach .*check the network"),
        ("file:///etc", "no http or https address"),
    ],
)
def test_no_network_is_one_line(address, line, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match=line) as caught:
        download_task(toy_task(), tmp_path, base_url=address, attempts=1)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == set()


def test_too_little_space_is_said_before_the_first_byte(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(DownloadError, match=r"GB are needed and 0\.00 GB are free: free some space"):
        get(server, tmp_path)
    assert names(tmp_path) == set()


def test_a_disk_that_fills_up_keeps_what_came(server, tmp_path, monkeypatch):
    """The limit on file sizes is the quota that a test can set: the write fails in the middle."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        with pytest.raises(DownloadError, match=r"no space left in .*what has come is kept"):
            get(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == {PART, MEMORY}
    get(server, tmp_path)
    assert names(tmp_path) == WHOLE


def test_a_folder_that_is_a_file_is_one_line(server, tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(DownloadError, match="cannot write into"):
        get(server, tmp_path / "data")


def test_a_folder_of_that_name_is_never_overwritten(server, tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mine.txt").write_text("mine")
    with pytest.raises(DownloadError, match="move it away"):
        get(server, tmp_path)
    assert names(tmp_path) == {FOLDER, f"{FOLDER}/mine.txt"}


def test_two_downloads_never_write_into_one_file(server, tmp_path):
    with held(tmp_path / PART), pytest.raises(DownloadError, match="being written by another download"):
        get(server, tmp_path)
    assert names(tmp_path) == set()  # neither an empty file nor a lock


def test_a_download_that_is_killed_lets_go_of_the_file(tmp_path):
    code = "import os, sys\nfrom pathlib import Path\nfrom segmed.data.transfer import held\n"
    code += "with held(Path(sys.argv[1])) as part:\n    part.write(b'abc')\n    part.flush()\n    os._exit(9)\n"
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / PART)], check=False, cwd=TOOL.parents[1])
    assert killed.returncode == 9
    with held(tmp_path / PART) as part:
        assert part.tell() == 3
    assert names(tmp_path) == {PART}


# ---------------------------------------------------------------- archives


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    member.size = 1 if kind == tarfile.REGTYPE else 0
    return member


@pytest.mark.parametrize(
    "hostile",
    [
        _member("../outside.txt"),
        _member("/tmp/outside.txt"),
        _member(f"{FOLDER}/../../outside.txt"),
        _member("Other/inside.txt"),
        _member(f"{FOLDER}/link", tarfile.SYMTYPE, "/etc/passwd"),
        _member(f"{FOLDER}/link", tarfile.SYMTYPE, "dataset.json"),
        _member(f"{FOLDER}/hard", tarfile.LNKTYPE, "../../outside.txt"),
        _member(f"{FOLDER}/pipe", tarfile.FIFOTYPE),
        _member(f"{FOLDER}/device", tarfile.CHRTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type.decode()}",
)
def test_a_hostile_member_is_refused_and_nothing_is_left(hostile, server, tmp_path):
    server.body = tar_of([_member(f"{FOLDER}/dataset.json"), hostile])
    output = tmp_path / "a" / "data"
    with pytest.raises(DownloadError, match="not unpacked"):
        get(server, output, toy_task(server.body))
    assert names(tmp_path / "a") == {"data", f"data/{PART}", f"data/{MEMORY}"}


@pytest.mark.parametrize("content", [b"no archive at all", ARCHIVE[:-60_000], b""])
def test_a_damaged_archive_is_refused_and_nothing_is_left(content, tmp_path):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DownloadError, match="no whole tar archive"):
        unpack(tmp_path / "a.tar", tmp_path / FOLDER, expected="dataset.json")
    assert names(tmp_path) == {"a.tar"}


def test_an_archive_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of({f"{FOLDER}/readme.txt": b"x"}))
    with pytest.raises(DownloadError, match=r"holds no Task99_Toy/dataset\.json"):
        unpack(tmp_path / "a.tar", tmp_path / FOLDER, expected="dataset.json")


# ---------------------------------------------------------------- names and the tool


def test_every_task_is_found_by_each_of_its_names():
    assert [task.name for task in TASKS][:4] == ["brain_tumour", "heart", "liver", "hippocampus"]
    for task in TASKS:
        for name in (task.name, task.folder, task.folder.split("_")[0].lower(), task.name.replace("_", "-").upper()):
            assert find_task(name) is task


def test_the_table_agrees_with_monai():
    from monai.apps import DecathlonDataset

    assert {task.folder: task.md5 for task in TASKS} == DecathlonDataset.md5
    assert {f"{download.BASE_URL}/{task.folder}.tar" for task in TASKS} == set(DecathlonDataset.resource.values())


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(DownloadError, match="did you mean 'hippocampus'"):
        find_task("hipocampus")


def run_tool(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name="__main__")
    return int(stop.value.code or 0)


def test_the_tool_fetches_once_and_then_says_that_it_is_there(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "TASKS", (toy_task(),))
    arguments = ("toy", "--output", str(tmp_path), "--base-url", server.url)
    assert run_tool(monkeypatch, *arguments) == 0
    assert "is there: a toy" in capsys.readouterr().out
    assert names(tmp_path) == WHOLE
    assert run_tool(monkeypatch, *arguments) == 0
    assert "already there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(["hart"], "did you mean 'heart'"), ([], "name a data set"), (["heart", "--otput", "x"], "--output")],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments, line, monkeypatch, capsys):
    assert run_tool(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_the_list_names_all_ten_tasks(monkeypatch, capsys):
    assert run_tool(monkeypatch, "--list") == 0
    shown = capsys.readouterr().out
    assert all(task.name in shown for task in TASKS)

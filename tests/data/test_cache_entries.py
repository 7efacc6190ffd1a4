"""Facts about a cache as a whole: what lies in it, what is damaged, what goes when it is too large."""

import gc
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from test_cache import CONFIG, data_set
from tiny_data import make_balls, tiny, trained
from tiny_pictures import put_folders

from segmed.commands.cache import main
from segmed.config.images import ClassDataConfig, FoldersLayout, ImageConfig
from segmed.data.cache import VolumeCache
from segmed.data.cache_entries import damaged, entries_of, keep_below, prune
from segmed.data.cache_use import EntriesInUse, names_in_use
from segmed.data.images.image_cache import ImageCache
from segmed.data.images.image_dataset import read_classes
from segmed.errors import ConfigError, DatasetError

AGES_D = {"case0": 3, "case1": 9, "case2": 1}


@pytest.fixture
def data(tmp_path):
    return data_set(tmp_path / "data", 3)


@pytest.fixture
def folder(data, tmp_path):
    """A cache of three volumes, used 3, 9 and 1 days ago."""
    cache = VolumeCache(tmp_path / "cache")
    for volume in cache.build(data.cases, data, CONFIG, workers=1, progress=False):
        then = time.time() - AGES_D[volume.id] * 86400
        os.utime(volume.folder, (then, then))
    del volume, cache
    return tmp_path / "cache"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `segmed cache`: exit code and what it prints."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["segmed", "cache", *map(str, arguments)])
        return main(), capsys.readouterr().out

    return run


def cases(folder) -> list[str]:
    return [entry.data for entry in entries_of(folder)]


def one_gb(folder) -> float:
    return entries_of(folder)[0].size_bytes / 1e9


@contextmanager
def another_process(folder, key):
    """A process that uses an entry, until it is killed."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom segmed.data.cache_use import EntriesInUse\n"
        "held = EntriesInUse(Path(sys.argv[1]))\nheld.hold([sys.argv[2]])\nprint('held', flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), key], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------- what lies in it


def test_entries_have_a_size_an_age_and_the_name_of_their_data(folder):
    entries = entries_of(folder)
    assert [entry.data for entry in entries] == ["test case2", "test case0", "test case1"]
    assert [round((time.time() - entry.used_s) / 86400) for entry in entries] == [1, 3, 9]
    files = [sum(file.stat().st_size for file in entry.folder.iterdir()) for entry in entries]
    assert [entry.size_bytes for entry in entries] == files
    assert {entry.state for entry in entries} == {""}


def test_an_entry_that_is_opened_is_the_one_used_last(folder, data):
    VolumeCache(folder).get(data.cases[1], data, CONFIG)
    assert cases(folder) == ["test case1", "test case2", "test case0"]


def test_the_command_lists_them(folder, command):
    code, out = command(folder)
    head, first, *_, total = out.splitlines()
    assert code == 0
    assert head.split() == ["entry", "size", "last", "use", "state", "data"]
    assert first.split()[0] == entries_of(folder)[0].key[:12]
    assert first.split(maxsplit=1)[1].split(" MB ")[1].split() == ["24", "h", "test", "case2"]
    assert total == f"{folder}: 3 entries, {3 * one_gb(folder) * 1e3:.1f} MB"


def test_a_folder_that_is_no_cache_is_refused_and_stays_as_it_is(tmp_path):
    before = tmp_path / ("a" * 40)
    before.mkdir()
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetError, match=r"no cache|is not there"):
            prune(missing, 0)
    assert list(tmp_path.iterdir()) == [before]


# ---------------------------------------------------------------- damage


def test_a_damaged_entry_is_named_and_the_run_that_needs_it_makes_it_again(folder, data, command):
    assert command(folder, "--check")[0] == 0
    entry = entries_of(folder)[1]
    with open(entry.folder / "image.npy", "r+b") as file:
        file.seek(entry.size_bytes // 3)
        file.write(b"\1\2\3")
    code, out = command(folder, "--check")
    assert code == 1
    assert out.splitlines()[0] == f"damaged: {entry.folder} test case0"
    assert "; 1 damaged" in out.splitlines()[1]
    VolumeCache(folder).get(data.cases[0], data, CONFIG)
    assert not damaged(entries_of(folder), workers=1)


def test_an_entry_without_its_note_is_damaged_and_one_of_an_earlier_version_is_old(folder):
    first, second, _ = entries_of(folder)
    (first.folder / "entry.json").unlink()
    note = (second.folder / "entry.json").read_text()
    (second.folder / "entry.json").write_text(note.replace('"version": 3', '"version": 1'))
    entries = {entry.key: entry for entry in entries_of(folder)}
    assert entries[second.key].state == "old"
    assert [entry.key for entry in damaged(list(entries.values()), workers=1)] == [first.key]


# ---------------------------------------------------------------- pruning


def test_the_least_recently_used_go_first_until_the_rest_fits(folder, command):
    code, out = command(folder, "--prune", "--keep-gb", 2.5 * one_gb(folder))
    assert (code, out.splitlines()[0].split(",")[0]) == (0, "removed 1 entry")
    assert cases(folder) == ["test case2", "test case0"]
    command(folder, "--prune", "--keep-gb", 0)
    assert cases(folder) == []
    assert list((folder / "volumes").iterdir()) == []


def test_what_is_no_entry_stays(folder):
    kept = [folder / "audit.sqlite", folder / "volumes" / "mine.npy", folder / "volumes" / "mine" / "a.npy"]
    kept[2].parent.mkdir()
    kept.append(folder / "images" / ("c" * 40) / "slice1.dcm")  # a data set whose patients have such names
    kept[3].parent.mkdir(parents=True)
    for file in kept:
        file.write_text("x")
    elsewhere = folder.parent / "elsewhere"
    shutil.copytree(entries_of(folder)[0].folder, elsewhere)
    link = folder / "volumes" / ("b" * 40)
    link.symlink_to(elsewhere)
    prune(folder, 0)
    assert all(file.is_file() for file in kept)
    assert link.is_symlink()
    assert (elsewhere / "entry.json").is_file()


def test_what_a_live_process_uses_is_never_removed_and_a_killed_one_holds_nothing(folder):
    oldest = entries_of(folder)[-1]
    with another_process(folder, oldest.key) as process:
        assert len(prune(folder, 0)) == 2
        assert [(entry.key, entry.state) for entry in entries_of(folder)] == [(oldest.key, "in use")]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [entry.key for entry in prune(folder, 0)] == [oldest.key]
    assert list((folder / "in_use").iterdir()) == []


def test_an_entry_is_in_use_as_long_as_its_volume_lives(folder, data):
    volume = VolumeCache(folder).get(data.cases[1], data, CONFIG)
    assert len(prune(folder, 0)) == 2
    assert pickle.loads(pickle.dumps(volume)).image.shape == volume.image.shape  # noqa: S301
    del volume
    assert len(prune(folder, 0)) == 1


def test_a_forked_process_that_ends_lets_go_of_nothing(folder):
    held = EntriesInUse(folder)
    held.hold(["a" * 40])
    child = os.fork()
    if child == 0:
        del held
        os._exit(0)
    os.waitpid(child, 0)
    assert names_in_use(folder) == {"a" * 40}
    assert pickle.loads(pickle.dumps(held)).folder is None  # noqa: S301
    del held
    assert names_in_use(folder) == set()


def test_a_run_that_begins_removes_what_is_beyond_the_limit_but_not_its_own(folder, data, caplog):
    cache = VolumeCache(folder)
    cache.hold(data.cases[1:2], data, CONFIG)
    with caplog.at_level(logging.INFO, "segmed"):
        keep_below(folder, 1.5 * one_gb(folder))
    assert cases(folder) == ["test case1"]
    assert "cache: 2 entries" in caplog.text
    keep_below(folder.parent / "none_yet", 1)
    assert not (folder.parent / "none_yet").exists()


def test_a_limit_in_the_config_removes_what_earlier_runs_left(tmp_path):
    balls = make_balls(tmp_path / "balls")
    trained(tiny(balls, tmp_path), tmp_path / "first")
    gc.collect()
    before = {entry.key for entry in entries_of(tmp_path / "cache")}
    trained(tiny(balls, tmp_path, cache_limit_gb=1e-9), tmp_path / "same")
    gc.collect()
    assert {entry.key for entry in entries_of(tmp_path / "cache")} == before
    trained(tiny(balls, tmp_path, cache_limit_gb=1e-9, preprocess={"intensity": "none"}), tmp_path / "other")
    after = {entry.key for entry in entries_of(tmp_path / "cache")}
    assert len(after) == len(before)
    assert not after & before


@pytest.mark.parametrize("options", [["--prune"], ["--keep-gb", "3"]])
def test_prune_and_what_to_keep_go_together(folder, command, options):
    with pytest.raises(ConfigError, match="go together"):
        command(folder, *options)
    assert len(entries_of(folder)) == 3


# ---------------------------------------------------------------- images of classes


def test_arrays_of_images_are_entries_too(tmp_path):
    put_folders(tmp_path / "pictures", {"a": 2, "b": 2})
    items = read_classes(ClassDataConfig(root=tmp_path / "pictures", layout=FoldersLayout())).items
    folder = tmp_path / "cache"
    arrays = ImageCache(folder).get(items, ImageConfig(size=(8, 8), channels=1, intensity="unit"), workers=1)
    assert [(entry.data, entry.state) for entry in entries_of(folder)] == [
        (f"4 images of {tmp_path / 'pictures'}", "in use")
    ]
    assert prune(folder, 0) == []
    with open(arrays.folder / "images.npy", "r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\1\2\3")
    assert [entry.folder for entry in damaged(entries_of(folder), workers=1)] == [arrays.folder]
    stopped = arrays.folder.with_name(f".{'c' * 40}")
    shutil.copytree(arrays.folder, stopped)
    (stopped / "entry.json").unlink()
    assert {entry.state for entry in entries_of(folder)} == {"in use", "unfinished"}
    del arrays
    assert len(prune(folder, 0)) == 2
    assert not stopped.exists()

"""Shared by all tests: one thread, a headless matplotlib, and the real data where it is present."""

import locale
import os
from pathlib import Path

import pytest
import torch
from loopback_server import loopback  # noqa: F401  a fixture of several rooms

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start: sums in other threads round differently
torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items):
    """Files with slow tests begin first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def same_locale():
    """Writing DICOM through ITK leaves the process in the C locale; the next test shall not notice."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture
def real_data():
    """Function that gives the folder of a real data set, or skips where it is absent."""

    def folder(name: str) -> Path:
        path = SHARED / name
        if not path.is_dir():
            pytest.skip(f"real data set '{name}' is not at {path}")
        return path

    return folder

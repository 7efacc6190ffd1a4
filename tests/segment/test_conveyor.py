"""Reading ahead and writing behind: order and bounds hold, a fault is that of its case, and nothing is lost."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.data.case import Case
from segmed.data.inputs import Input
from segmed.errors import DiskError, NoRoomError
from segmed.labels import LabelSet
from segmed.segment import conveyor
from segmed.segment.conveyor import AHEAD, BEHIND, Conveyor, Waiting
from segmed.segment.predict import predict_cases, write_as_input
from segmed.segmenters.segmenter import Segmenter, on_grid_of
from segmed.volumes import Source, write_volume


class Line:
    """A conveyor of numbers that notes what happens; `report 3` is the report of number 3."""

    def __init__(self, *, compute=lambda number: None, read_s=0.0, write_s=0.0, size=0):
        self.events, self.held, self.most = [], {"read": 0, "made": 0}, {"read": 0, "made": 0}
        self.lock, self.waiting = threading.Lock(), Waiting()
        self._compute, self._read_s, self._write_s = compute, read_s, write_s
        self.conveyor = Conveyor(
            self.read, self.compute, self.write,
            failed=lambda number, error: f"failed {number}: {error}",
            is_report=lambda given: isinstance(given, str),
            size=lambda given: size,
            waiting=self.waiting,
        )  # fmt: skip

    def note(self, what, number, *, more=None, less=None):
        with self.lock:
            self.events.append((what, number))
            for stage, step in ((less, -1), (more, 1)):
                if stage:
                    self.held[stage] += step
                    self.most[stage] = max(self.most[stage], self.held[stage])

    def read(self, number):
        if number < 0:
            raise ValueError(f"no number {number}")
        time.sleep(self._read_s)
        self.note("read", number, more="read")
        return number

    def compute(self, number):
        self.note("computed", number, less="read")
        self._compute(number)
        self.note("made", number, more="made")
        return number

    def write(self, made):
        time.sleep(self._write_s)
        if isinstance(made, int):
            self.note("written", made, less="made")
        return made if isinstance(made, str) else f"report {made}"

    def run(self, numbers):
        return list(self.conveyor.run(numbers))


@pytest.mark.parametrize("slow", ["read", "compute", "write"])
def test_reports_come_in_order_and_few_cases_are_held_whatever_is_slow(slow):
    pause = dict.fromkeys(("read", "compute", "write"), 0.0) | {slow: 0.004}
    line = Line(compute=lambda _: time.sleep(pause["compute"]), read_s=pause["read"], write_s=pause["write"])
    assert line.run(range(12)) == [f"report {number}" for number in range(12)]
    assert line.most["read"] <= AHEAD + 1, "the one that is next, and those ahead of it"
    assert line.most["made"] <= BEHIND + 1


def test_what_the_network_waits_for_is_measured():
    line = Line(read_s=0.2)
    line.run([0])
    assert line.waiting.reading_s > 0.05
    assert line.waiting.writing_s < 0.05
    line = Line(write_s=0.2)
    line.run(range(BEHIND + 1))
    assert line.waiting.writing_s > 0.05


def test_reading_and_writing_go_on_while_the_network_works():
    line = Line(compute=lambda number: time.sleep(0.03))
    line.run(range(4))
    before_second = line.events[: line.events.index(("made", 1))]
    assert ("read", 2) in before_second
    assert ("written", 0) in before_second


def test_nothing_is_read_ahead_where_a_case_is_large_beside_free_memory(monkeypatch):
    monkeypatch.setattr(conveyor, "free_ram_bytes", lambda: 100)
    line = Line(size=50)
    line.run(range(3))
    stages = ("read", "computed", "made", "written")
    assert line.events == [(stage, number) for number in range(3) for stage in stages]


def test_a_case_that_fails_is_reported_in_its_place_and_the_others_go_on():
    def compute(number):
        if number == 3:
            raise ValueError("the network has no answer")

    assert Line(compute=compute).run([0, -1, 2, 3, 4]) == [
        "report 0", "failed -1: no number -1", "report 2", "failed 3: the network has no answer", "report 4",
    ]  # fmt: skip


def test_a_case_for_which_there_is_no_room_is_tried_again_when_nothing_else_is_held():
    at_each_try = []

    def compute(number):
        if number == 2:
            at_each_try.append(list(line.events))
            if len(at_each_try) == 1:
                raise NoRoomError("no room")

    line = Line(compute=compute, write_s=0.01)
    assert line.run(range(5)) == [f"report {number}" for number in range(5)]
    _, second = at_each_try
    assert ("written", 1) in second, "it waits for what is written"
    assert second.count(("read", 2)) == 2
    assert not line.conveyor._ahead
    after = line.events[len(second) :]
    assert ("read", 3) in after, "what was read ahead is let go, and read again"

    def never(number):
        if number == 1:
            raise NoRoomError("no room")

    assert Line(compute=never).run(range(3)) == ["report 0", "failed 1: no room", "report 2"]


def test_a_full_disk_ends_everything():
    line = Line(compute=lambda _: time.sleep(0.005))
    write = line.write

    def full(made):
        if made == 1:
            raise DiskError(28, "no space left")
        return write(made)

    line.conveyor._write = full
    with pytest.raises(DiskError, match="no space left"):
        line.run(range(20))
    assert max(number for what, number in line.events if what == "computed") <= 1 + BEHIND + 1


def test_after_an_interrupt_what_is_computed_is_written_and_nothing_new_begins():
    def compute(number):
        if number == 2:
            raise KeyboardInterrupt

    threads = threading.active_count()
    line = Line(compute=compute, write_s=0.02)
    with pytest.raises(KeyboardInterrupt):
        line.run(range(50))
    assert [number for what, number in line.events if what == "written"] == [0, 1]
    assert threading.active_count() == threads
    assert max(number for what, number in line.events if what == "read") <= 2 + AHEAD


def test_the_share_of_waiting_is_of_working_and_waiting():
    waiting = Waiting(network_s=8.0, reading_s=1.5, writing_s=0.5)
    assert waiting.share == 0.2
    assert str(waiting) == (
        "the network worked 8.0 s and waited 20.0% of the time: 1.5 s for reading, 0.5 s for writing"
    )
    assert Waiting().share == 0


# ---------------------------------------------------------------- with volumes


class Bright(Segmenter):
    """What is brighter than the mean."""

    labels = LabelSet.from_config({"bright": 7})

    def probabilities(self, volume):
        bright = (volume.as_tensor()[:1] > volume.as_tensor().mean()).float()
        return on_grid_of(volume, torch.cat([1 - bright, bright]))


@pytest.fixture
def inputs(tmp_path):
    """Six volumes; the fourth is no volume."""
    found = []
    for number in range(6):
        path = tmp_path / "in" / f"{number}.nii.gz"
        values = np.random.default_rng(number).integers(0, 100, (1, 6, 5, 4)).astype(np.int16)
        write_volume(path, MetaTensor(torch.from_numpy(values), affine=torch.eye(4, dtype=torch.float64)))
        if number == 3:
            path.write_bytes(b"no volume")
        found.append(Input(Case(str(number), str(number), {"MR": Source(path)}), Path(path.name)))
    return found


def test_label_maps_are_those_of_one_case_at_a_time(inputs, tmp_path):
    together = list(predict_cases(Bright(), inputs, tmp_path / "a", modalities=("MR",)))
    alone = [r for item in inputs for r in predict_cases(Bright(), [item], tmp_path / "b", modalities=("MR",))]
    assert [(r.case, r.status, r.voxels, r.error) for r in together] == [
        (r.case, r.status, r.voxels, r.error) for r in alone
    ]
    assert [r.status for r in together] == ["done"] * 3 + ["failed"] + ["done"] * 2
    assert "3.nii.gz" in together[3].error
    maps = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab"]
    assert len(maps[0]) == 5
    assert maps[0] == maps[1]


def test_a_label_map_that_cannot_be_written_is_a_failed_case(inputs, tmp_path):
    def write(path, values, item):
        if item.case.id == "1":
            raise ValueError("voxels\nthat the format can't hold")
        write_as_input(path, values, item)

    told = []
    reports = list(predict_cases(Bright(), inputs, tmp_path / "out", modalities=("MR",), write=write, tell=told.append))
    assert told == reports
    assert {r.case: r.error for r in reports if r.status == "failed"}["1"] == "voxels that the format can't hold"
    assert not (tmp_path / "out" / "1.nii.gz").exists()
    assert sum(r.status == "done" for r in reports) == 4


def test_a_case_whose_files_can_not_even_be_looked_at_is_a_failed_one(inputs, tmp_path, monkeypatch):
    def stamp(paths):
        if paths[0].name == "1.nii.gz":
            raise OSError(116, "Stale file handle", str(paths[0]))
        return "stamp"

    monkeypatch.setattr("segmed.segment.predict.stamp_of", stamp)
    reports = list(predict_cases(Bright(), inputs, tmp_path / "out", modalities=("MR",)))
    assert [r.status for r in reports] == ["done", "failed", "done", "failed", "done", "done"]
    assert "Stale file handle" in reports[1].error

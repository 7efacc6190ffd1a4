"""The record of what was predicted: it grows by lines, outlives a kill, and one of another version is refused."""

import json

import pytest

from segmed.data.case import Case
from segmed.data.inputs import Input
from segmed.errors import SegmenterError
from segmed.files import write_json
from segmed.segment import record as record_module
from segmed.segment.outputs import check_outputs
from segmed.segment.record import CaseReport, Record, lines_of, read_record
from segmed.volumes import Source

RECORD = {"runs": [], "settings": {}}
CASE = {"case": "a", "inputs": ["a.nii.gz"], "stamp": "0", "status": "done", "output": "out/a.nii.gz"}


@pytest.mark.parametrize(
    "cases",
    [None, [None], [{}], [{**CASE, "strange": 1}], [{**CASE, "status": "new"}], [{**CASE, "inputs": None}],
     [{**CASE, "output": None}], [{**CASE, "case": ["a"]}], {"a": 1}],
    ids=str,
)  # fmt: skip
def test_a_record_of_another_version_asks_for_another_folder(cases, tmp_path):
    write_json(tmp_path / Record.NAME, {**RECORD, "cases": cases})
    with pytest.raises(SegmenterError, match="choose another output folder, or replace them with --overwrite"):
        Record(tmp_path, RECORD)
    assert Record(tmp_path, RECORD, overwrite=True).done == {}
    write_json(tmp_path / Record.NAME, {**RECORD, "cases": [CASE]})
    (tmp_path / "a.nii.gz").touch()
    assert [report.case for report in Record(tmp_path, RECORD).done.values()] == ["a"]


@pytest.fixture
def by_lines(monkeypatch):
    """Records whose cases are appended as lines, from the first on; gives how often the whole was written."""
    monkeypatch.setattr(record_module, "ALWAYS_WHOLE", 0)
    monkeypatch.setattr(record_module, "WHOLE_SHARE", 0)
    written, write = [], record_module.write_json
    monkeypatch.setattr(record_module, "write_json", lambda path, data: written.append(path) or write(path, data))
    return written


def report(folder, name, **facts):
    """Of a case whose label map lies in the folder."""
    (folder / f"{name}.nii.gz").touch()
    return CaseReport(name, (f"{name}.nii.gz",), "0", "done", output=str(folder / f"{name}.nii.gz"), **facts)


def filled(folder, count):
    record = Record(folder, RECORD)
    for number in range(count):
        record.begin(folder / f"{number}.nii.gz", str(number))
        record.add(report(folder, str(number)))
    return record


def test_many_cases_are_appended_and_the_whole_record_is_written_at_the_end(by_lines, tmp_path):
    record = filled(tmp_path, 50)
    assert len(by_lines) == 1, "before the first line"
    assert json.loads(record.path.read_text())["cases"] == []
    assert len(lines_of(record.path).read_bytes().splitlines()) == 1 + 2 * 50
    record.end(waiting={"network_s": 1.0})
    whole = json.loads(record.path.read_text())
    assert [case["case"] for case in whole["cases"]] == [str(number) for number in range(50)]
    assert whole["waiting"] == {"network_s": 1.0}
    assert not lines_of(record.path).exists()


@pytest.mark.parametrize("torn", [b"", b'{"case": "9', b'{"begun"', b"\xff"])
def test_after_a_kill_every_whole_line_counts(by_lines, torn, tmp_path):
    lines = lines_of(filled(tmp_path, 4).path)
    lines.write_bytes(lines.read_bytes() + torn)
    again = Record(tmp_path, RECORD)
    assert [known.case for known in again.done.values()] == ["0", "1", "2", "3"]
    again.add(report(tmp_path, "4"))
    again.add(report(tmp_path, "5"))
    assert [known.case for known in Record(tmp_path, RECORD).done.values()] == ["0", "1", "2", "3", "4", "5"]
    with pytest.raises(SegmenterError, match="other runs or settings"):
        Record(tmp_path, {**RECORD, "settings": {"overlap": 0.1}})


def test_a_label_map_that_a_kill_left_unnoted_is_known_as_own(by_lines, tmp_path):
    record = filled(tmp_path, 2)
    item = Input(Case("2", "2", {"MR": Source(tmp_path.parent / "2.nii.gz")}), tmp_path / "2.nii.gz")
    record.begin(tmp_path / "2.nii.gz", "2")
    (tmp_path / "2.nii.gz").touch()
    for _ in range(2):  # it is known as often as the process is killed
        again = Record(tmp_path, RECORD)
        assert str(tmp_path / "2.nii.gz") not in again.done
        check_outputs([item], tmp_path, replace=False, earlier=again.own)
        again.add(report(tmp_path, "1"))
    again.add(report(tmp_path, "2"))
    assert read_record(again.path)["begun"] == []
    (tmp_path / "3.nii.gz").touch()
    with pytest.raises(SegmenterError, match="label maps exist"):
        check_outputs([Input(item.case, tmp_path / "3.nii.gz")], tmp_path, replace=False, earlier=again.own)


def test_lines_of_other_settings_are_not_taken(by_lines, tmp_path):
    filled(tmp_path, 3)
    other = Record(tmp_path, {**RECORD, "settings": {"overlap": 0.1}}, overwrite=True)
    write_json(other.path, {**other.about, "cases": []})  # killed before the old lines were removed
    assert Record(tmp_path, other.about).done == {}
    assert Record(tmp_path, other.about).own == {}


def test_the_whole_of_many_cases_is_written_in_a_small_share_of_the_time(monkeypatch, tmp_path):
    clock, written = [0.0], []
    monkeypatch.setattr(record_module.time, "monotonic", lambda: clock[0])
    write = record_module.write_json

    def slow(path, data):
        written.append(len(data["cases"]))
        clock[0] += 0.001 * len(data["cases"])
        if len(written) < 3:
            write(path, data)

    monkeypatch.setattr(record_module, "write_json", slow)
    monkeypatch.setattr(record_module, "append_line", lambda path, data: None)
    record = Record(tmp_path, RECORD)
    for number in range(3000):
        clock[0] += 0.01
        record.add(CaseReport(str(number), (), "0", "failed"))
    assert sum(0.001 * cases for cases in written if cases > 100) < 0.15 * clock[0]
    assert len(written) < 200

"""The record of what was predicted: one of another version is not gone on with."""

import pytest

from segmed.errors import SegmenterError
from segmed.files import write_json
from segmed.segment.record import Record

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

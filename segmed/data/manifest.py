"""CSV and JSON tables with one row for each case -> cases."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segmed.config import ManifestLayout
from segmed.data.case import Case, LayoutCases, composed, listed_file
from segmed.data.dataset_json import read_json
from segmed.errors import DatasetError, did_you_mean
from segmed.volumes import Source, is_dicom_folder, is_volume_file, strip_suffix

OWN_COLUMNS = ("case", "subject", "label")
DELIMITERS = ",;\t"
SEPARATOR_LINE = re.compile(r"\"?sep=(.)\"?", re.IGNORECASE)


def read_manifest(root: Path, layout: ManifestLayout) -> LayoutCases:
    """Columns: `image`, or `image:MODALITY` for each of several; `label`, `subject`, `case`, `site`, `split`, others.

    Paths are relative to the table. Without `case` the id is the name of the image; without `subject` every case is
    a subject of its own. Further columns become `meta`. In JSON, a list of such rows, or {"cases": [...]}; `image`
    may be a dictionary.

    Raises:
        DatasetError: no table, no rows, a row without an image, a label that is no file of voxels.
    """
    table = root / layout.file
    rows = _json_rows(table) if table.suffix.lower() == ".json" else csv_rows(table)
    if not rows:
        raise DatasetError(f"{table} has no rows: give one a case")
    modalities: dict[str, None] = {}
    cases = []
    for number, row in enumerate(rows, 1):
        where = f"{table}, row {number}"
        images = _images(row, table.parent, where)
        modalities.update(dict.fromkeys(images))
        cases.append(_case(row, images, table.parent, where))
    _check_labels_once(cases, table)
    known = all(row.get("subject") for row in rows)
    return LayoutCases(
        root.resolve().name, tuple(_with_unique_ids(cases, rows, table)), tuple(modalities), subjects_known=known
    )


def _check_labels_once(cases: Sequence[Case], table: Path) -> None:
    first: dict[Source, int] = {}
    for number, label in ((number, case.label) for number, case in enumerate(cases, 1) if case.label):
        if first.setdefault(label, number) != number:
            raise DatasetError(
                f"{table} gives rows {first[label]} and {number} one label map, {label.path}: correct one"
            )


def csv_rows(table: Path) -> list[dict[str, Any]]:
    """Rows of a CSV table in UTF-8 as dictionaries, columns and cells stripped, without rows that are empty.

    The delimiter is found, or taken from a first line such as `sep=;`, which Excel writes and reads.

    Raises:
        DatasetError: no such file, not such a table, a row with more cells than the header.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
        first, _, rest = text.partition("\n")
        separator = SEPARATOR_LINE.fullmatch(first.strip(" \r"))
        text = rest if separator else text
        delimiter = separator[1] if separator else max(DELIMITERS, key=first.count)
        rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True, restkey="", restval=""))
    except FileNotFoundError as error:
        raise DatasetError(f"{table} does not exist: check data.root and data.layout.file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{table} is not a CSV table in UTF-8 ({error}): save it anew") from error
    for number, row in enumerate(rows, 1):
        if any(cell.strip() for cell in row.pop("", None) or ()):
            raise DatasetError(f"{table}, row {number} has more cells than the header: quote cells with '{delimiter}'")
    stripped = [{key.strip(): (value or "").strip() for key, value in row.items()} for row in rows]
    return [row for row in stripped if any(row.values())]


def _json_rows(table: Path) -> list[dict[str, Any]]:
    content = read_json(table)
    rows = content.get("cases") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{table} is not a list of cases: give [{{'image': ..., 'label': ...}}, ...]")
    return rows


def _images(row: Mapping[str, Any], folder: Path, where: str) -> dict[str, Source]:
    given = {"image": row["image"]} if row.get("image") else {}
    if isinstance(row.get("image"), dict):
        given = dict(row["image"])
    given |= {key.partition(":")[2]: value for key, value in row.items() if key.startswith("image:")}
    images = {name: _path(folder, value, where) for name, value in given.items() if value}
    if not images:
        hint = did_you_mean("image", [key for key in row if key])
        raise DatasetError(f"{where} has no image (columns image or image:MODALITY){hint}")
    return {name: Source(path) for name, path in images.items()}


def _case(row: Mapping[str, Any], images: Mapping[str, Source], folder: Path, where: str) -> Case:
    label = None
    if row.get("label"):
        path = _path(folder, row["label"], where)
        if not (is_volume_file(path) or is_dicom_folder(path)):
            raise DatasetError(f"{where}: label '{row['label']}' is no file of voxels: segmentation needs label maps")
        label = Source(path)
    case_id = str(row.get("case") or composed(strip_suffix(next(iter(images.values())).path))).replace("/", "_")
    own = [key for key in row if key in OWN_COLUMNS or key == "image" or key.startswith("image:")]
    meta = {key: str(value) for key, value in row.items() if key not in own and value not in (None, "")}
    return Case(case_id, str(row.get("subject") or case_id), images, label, meta)


def _path(folder: Path, value: Any, where: str) -> Path:
    if not isinstance(value, str) or "\0" in value:
        raise DatasetError(f"{where}: {value!r} is not a path: give the path of a file as text")
    return listed_file(folder, value)


def _with_unique_ids(cases: Sequence[Case], rows: Sequence[Mapping[str, Any]], table: Path) -> list[Case]:
    """Images of one name in several folders are told apart by their folder."""
    counts = Counter(case.id for case in cases)
    renamed = []
    for case, row in zip(cases, rows, strict=True):
        if counts[case.id] > 1 and not row.get("case"):
            case_id = f"{next(iter(case.images.values())).path.parent.name}_{case.id}"
            case = replace(case, id=case_id, subject=case.subject if row.get("subject") else case_id)
        renamed.append(case)
    twice = [case_id for case_id, count in Counter(case.id for case in renamed).items() if count > 1]
    if twice:
        raise DatasetError(f"{table} has case '{twice[0]}' twice: give every row an id of its own in a column 'case'")
    return renamed

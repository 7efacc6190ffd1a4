"""Figures of cases that are done, a file each: from which a killed comparison is resumed."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.compare.prepare import PreparedComparison
from segmed.data.case import Case
from segmed.evaluate.case_rows import Row
from segmed.files import write_json
from segmed.metrics.mask_metrics import METRICS

VERSION = 3  # raised whenever the same settings give other figures


def folder_of(comparison: PreparedComparison, name: str) -> Path:
    """Where the label maps and figures of a row are kept."""
    plain = re.sub(r"[^\w.+-]+", "_", name).strip("_.")
    return comparison.config.output / "rows" / f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def settings_of(comparison: PreparedComparison) -> dict[str, Any]:
    """What the figures of any row depend on."""
    config = comparison.config
    data = config.data.model_dump(
        mode="json", include={"images", "components", "ignore", "background", "spacing_known"}
    )
    labels = comparison.dataset.labels.to_dict()
    evaluate = config.evaluate.model_dump(mode="json", exclude={"bootstrap"})
    return {"data": data, "labels": labels, "target": config.target, "rest": config.rest,
            "region": [config.region, *config.within], "evaluate": evaluate}  # fmt: skip


@dataclass(frozen=True)
class Records:
    """Figures of a row's cases, a file each, written when the case is done.

    Attributes:
        folder: of the files.
        settings: all that the figures depend on, besides the case.
    """

    folder: Path
    settings: Mapping[str, Any]

    def read(self, case: Case, *files: Path) -> dict[str, Any] | None:
        """The record of a case; None where it was written with other settings or for other files."""
        try:
            data = json.loads((self.folder / f"{case.id}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(data, dict) or data.get("key") != self._key(case, files):
            return None
        whole = all(set(METRICS) <= set(row) for row in data["rows"])  # a metric may be new
        return data if whole else None

    def write(self, case: Case, data: Mapping[str, Any], *files: Path) -> dict[str, Any]:
        """Keep figures of a case."""
        record = {"key": self._key(case, files), **data}
        write_json(self.folder / f"{case.id}.json", record)
        return record

    def _key(self, case: Case, files: Sequence[Path]) -> str:
        sources = case.sources
        seen = [_state(path) for path in (*(source.path for source in sources), *files)]
        text = json.dumps([VERSION, self.settings, case.id, seen], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def _state(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def rows_of(record: Mapping[str, Any]) -> list[Row]:
    """Rows as they were before JSON, which knows no NaN."""
    texts = ("case", "label", "kind")
    return [
        {key: value if key in texts or value is not None else math.nan for key, value in row.items()}
        for row in record["rows"]
    ]

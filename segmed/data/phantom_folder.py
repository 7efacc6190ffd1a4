"""The folder of a synthetic data set: whether it stands there complete, and whether it may be written."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from segmed.errors import DatasetError

SETTINGS_FILE = "phantom.json"  # written last: a folder that has it is complete


def is_complete(folder: Path, settings: dict[str, Any], *, own: Collection[str]) -> bool:
    """Whether the phantom of these settings stands in a folder.

    Args:
        folder: of the data set.
        settings: what the phantom depends on.
        own: names of the files and folders that it consists of; others are not written to.

    Raises:
        DatasetError: the folder is a file, or holds something else or a phantom of other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"{folder} is a file: choose another folder for the phantom")
    note = folder / SETTINGS_FILE
    if note.is_file():
        try:
            written = json.loads(note.read_bytes())
        except ValueError:
            written = None
        if written == settings:
            return True
        raise DatasetError(
            f"{folder} holds a phantom of other settings ({written}): choose another folder or remove it"
        )
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in present if name not in own and not name.startswith(".")]
    if foreign:
        kind = "cases of another phantom" if re.fullmatch(r"phantom_\d{3,}", foreign[0]) else "other files"
        raise DatasetError(f"{folder} holds {kind} ({foreign[0]}): choose another folder for the phantom")
    return False

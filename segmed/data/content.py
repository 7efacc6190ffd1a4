"""Files -> hashes of their content, cached, so that an unchanged file is read once."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from segmed.data.cases import Case, find_volumes
from segmed.errors import DatasetError
from segmed.files import write_json

SETTLED_NS = 2_000_000_000  # a file changed less than this before it was hashed may change again within one clock tick
BLOCK = 1 << 22


class ContentHashes:
    """Hashes of file contents, cached in a folder by path, size, inode and times.

    Where the cache can't be written, files are hashed again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._seen: dict[str, tuple[dict[str, int], str]] = {}  # by real path: what this object has read before

    def of(self, path: Path) -> str:
        """Hash the files of an image: a file, a header with its data file, or a folder of DICOM files.

        Raises:
            OSError: a file is missing or can't be read.
        """
        total = hashlib.blake2b(digest_size=20)
        for file in files_of(Path(path)):
            total.update(f"{file.name}:{self._of_file(file)}\n".encode())
        return total.hexdigest()

    def noted(self, path: Path) -> str | None:
        """The same as `of` where no file has to be read for it; None where one has to.

        Raises:
            OSError: a file is missing.
        """
        total = hashlib.blake2b(digest_size=20)
        for file in files_of(Path(path)):
            real = os.path.realpath(file)
            value = self._known(real, _state(real))
            if value is None:
                return None
            total.update(f"{file.name}:{value}\n".encode())
        return total.hexdigest()

    def _known(self, real: str, state: dict[str, int]) -> str | None:
        """The hash of a file in this state, if it is noted."""
        seen = self._seen.get(real)
        if seen is not None and seen[0] == state:
            return seen[1]
        value = _noted(self._note(real), state)
        if value is not None:
            self._seen[real] = (state, value)
        return value

    def _note(self, real: str) -> Path:
        return self.folder / f"{hashlib.blake2b(os.fsencode(real), digest_size=20).hexdigest()}.json"

    def _of_file(self, file: Path) -> str:
        real = os.path.realpath(file)
        note, state = self._note(real), _state(real)
        known = self._known(real, state)
        if known is not None:
            return known
        hashed_at_ns = time.time_ns()
        value = _hash(real)
        if _state(real) == state:
            with suppress(OSError):  # a read-only or full folder: the file is hashed again next time
                write_json(note, {"path": real, "state": state, "hashed_at_ns": hashed_at_ns, "hash": value})
        return value


def check_content(record: Path, contents: Mapping[str, str]) -> None:
    """Check that cases are unchanged since a run began, and record new ones.

    Args:
        record: `content.json` of the run; a run of an earlier version has none, and gets one.
        contents: id of a case -> what identifies its content now.

    Raises:
        DatasetError: a case was replaced, or the record is damaged.
        DiskError: the record can't be written.
    """
    try:
        known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        changed = [name for name, content in contents.items() if known.get(name, content) != content]
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(f"{record} is damaged: start the run anew, or remove it to go on unchecked") from error
    if changed:
        raise DatasetError(
            f"{changed[0]} is not what it was when the run began ({len(changed)} of {len(contents)} were "
            f"replaced): put the old files back, start the run anew, or remove {record} to go on with the new ones"
        )
    if not contents.keys() <= known.keys():
        write_json(record, known | dict(contents))


def case_files(cases: Iterable[Case]) -> Iterator[Path]:
    """The existing files of the images and label maps of cases."""
    for case in cases:
        for source in case.sources:
            with suppress(OSError):
                yield from files_of(source.path)


def volume_files(path: Path, *, besides: Path | None = None) -> list[Path]:
    """The files of all volumes at a path, without those below `besides`, the folder of results; may be empty."""
    try:
        volumes = find_volumes(path)
    except DatasetError:
        return []
    if besides is not None and path.is_dir():
        volumes = [volume for volume in volumes if not volume.resolve().is_relative_to(besides.resolve())]
    return [file for volume in volumes for file in files_of(volume)]


def files_of(path: Path) -> list[Path]:
    """The files that make up the image at `path`, in a fixed order."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    suffix = path.suffix.lower()
    if suffix in (".mhd", ".nhdr"):
        return [path, *_named_data_files(path)]
    if suffix in (".hdr", ".img"):
        return [file for file in (path.with_suffix(".hdr"), path.with_suffix(".img")) if file.exists()] or [path]
    return [path]


def _named_data_files(header: Path) -> list[Path]:
    lines = header.read_text(encoding="latin-1").splitlines()
    for line in lines:
        key, _, value = line.replace(":", "=", 1).partition("=")
        if key.strip().lower() in ("elementdatafile", "data file", "datafile"):
            data = header.parent / value.strip()
            return [data] if data.is_file() else []
    return []


def _state(path: str) -> dict[str, int]:
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        raise OSError(None, "is a pipe, a socket or a device, no file", path)
    return {"size": state.st_size, "inode": state.st_ino, "mtime_ns": state.st_mtime_ns, "ctime_ns": state.st_ctime_ns}


def _noted(note: Path, state: dict[str, int]) -> str | None:
    """The hash of a file that is as it was when it was hashed, and was settled then."""
    try:
        data = json.loads(note.read_bytes())
        settled = data["hashed_at_ns"] - state["mtime_ns"] > SETTLED_NS
        return data["hash"] if settled and data["state"] == state and isinstance(data["hash"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash(path: str) -> str:
    value = hashlib.blake2b(digest_size=20)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            value.update(block)
    return value.hexdigest()

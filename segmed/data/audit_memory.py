"""What an audit saw of each case, kept by the content of its files, so that only what changed is opened again."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from segmed.data.case import Case
from segmed.data.checksums import digest
from segmed.data.content import ContentHashes
from segmed.data.findings import Finding
from segmed.data.fingerprint import CaseFacts
from segmed.data.integrity import CaseReport
from segmed.data.miniature import SIZE
from segmed.errors import DatasetError
from segmed.files import check_target, remove
from segmed.labels import LabelSet
from segmed.volumes import Source

LOG = logging.getLogger(__name__)

NAME = "audit.sqlite"
VERSION = 2  # raised whenever the same files give another report
PATIENCE_S = 30.0  # for another process that writes
AT_ONCE = 200  # rows of a transaction
TABLES = """
create table if not exists reports
    (key text primary key, report text not null, checksum integer not null, used real not null);
create table if not exists miniatures (key text primary key, cells blob not null, checksum integer not null);
"""


@dataclass(frozen=True)
class Expected:
    """What the cases of a data set are compared with: the same files under others give another report."""

    modalities: tuple[str, ...]
    labels: LabelSet
    incomplete: bool = False

    def digest(self) -> str:
        """Forty letters, other ones for each version of segmed."""
        return digest([VERSION, version("segmed-mri"), self.modalities, asdict(self.labels), self.incomplete])


class AuditMemory:
    """Reports of cases in one SQLite file of a cache; miniatures are read from it only when they are asked for.

    A damaged row is named and audited again, a damaged file is begun anew; where the file can't be used, the audit
    goes on without it. Safe with several processes.

    Args:
        folder: of the cache; None: miniatures lie in a temporary file, and nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._hashes = None if folder is None else ContentHashes(folder / "hashes")
        self._kept: dict[int, sqlite3.Connection | None] = {}  # of each process: none passes a fork
        self._scratch: sqlite3.Connection | None = None
        self._waiting: list[tuple[str, str, np.ndarray | None]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return AuditMemory, (self.folder,)

    # ------------------------------------------------------------ keys

    def key(self, case: Case, expected: str, *, labelled: bool) -> str | None:
        """Name what a case holds; files are read where their hash is not known. None: nothing can be kept."""
        return None if self._hashes is None else _key(case, expected, labelled, self._hashes.of)

    def noted_key(self, case: Case, expected: str, *, labelled: bool) -> str | None:
        """The same where no file has to be read for it; else None."""
        return None if self._hashes is None else _key(case, expected, labelled, self._hashes.noted)

    # ------------------------------------------------------------ reports

    def recall(self, cases: Mapping[str, Case]) -> dict[str, CaseReport]:
        """Reports that are there, by key, without miniatures.

        Args:
            cases: key -> the case.
        """
        connection, reports = self._connection(), {}
        if connection is None or not cases:
            return {}
        try:
            for key, text, checksum in _rows(connection, "select key, report, checksum from reports", list(cases)):
                if zlib.crc32(text.encode()) != checksum:
                    LOG.warning("%s: the entry of case %s is damaged: it is audited again", self._file, cases[key].id)
                elif (report := _report(json.loads(text), cases[key])) is not None:
                    reports[key] = report
            with connection:
                connection.executemany("update reports set used = ? where key = ?", [(time.time(), k) for k in reports])
        except sqlite3.Error as error:
            self._without(error)
        return reports

    def keep(self, key: str, case: Case, report: CaseReport) -> None:
        """Keep a report and its miniature.

        A number is no key that lasts, and faults that depend on the machine are looked at again each time.
        """
        passing = key.isdecimal() or any(finding.kind == "unreadable" for finding in report.findings)
        text = "" if passing else json.dumps(_row(report, case))
        self._waiting.append((key, text, report.small))
        if len(self._waiting) >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        lasting = [row for row in waiting if row[1] and self.folder is not None]
        try:
            if lasting and (connection := self._connection(begin=True)) is not None:
                _write(connection, lasting)
                waiting = [row for row in waiting if not row[1]]
        except (sqlite3.Error, OSError) as error:
            self._without(error)
        if waiting:
            if self._scratch is None:
                self._scratch = _opened("")
            _write(self._scratch, waiting)

    # ------------------------------------------------------------ miniatures

    def miniature(self, key: str) -> np.ndarray:
        """The miniature (X, Y, Z) float16 of a case.

        Raises:
            DatasetError: it is damaged; its entry is taken away.
        """
        if self._waiting:
            self.flush()
        for connection in (self._scratch, self._connection()):
            row = connection and connection.execute("select cells, checksum from miniatures where key = ?", (key,))
            cells, checksum = (row and row.fetchone()) or (None, 0)
            if cells is not None and zlib.crc32(cells) == checksum and len(cells) == 2 * SIZE**3:
                return np.frombuffer(cells, np.float16).reshape(SIZE, SIZE, SIZE)
            if cells is not None and connection is not None:
                with suppress(sqlite3.Error), connection:
                    connection.execute("delete from reports where key = ?", (key,))
                    connection.execute("delete from miniatures where key = ?", (key,))
        raise DatasetError(f"{self._file}: an entry was damaged and is removed now: start again")

    # ------------------------------------------------------------ the file

    @property
    def _file(self) -> Path:
        return (self.folder or Path()) / NAME

    def _connection(self, *, begin: bool = False) -> sqlite3.Connection | None:
        """The file, opened once in each process; none where there is none yet and nothing has to be written."""
        process = os.getpid()
        if self.folder is None:
            return None
        if process not in self._kept:
            if not begin and not self._file.is_file():
                return None
            try:
                check_target(self._file)
                self.folder.mkdir(parents=True, exist_ok=True)
                self._kept[process] = _opened(str(self._file))
            except (sqlite3.Error, OSError) as error:
                self._without(error)
        return self._kept.get(process)

    def _without(self, error: Exception) -> None:
        """Go on without the file; a damaged one is taken away, so that the next run begins it anew."""
        connection = self._kept.get(os.getpid())
        self._kept[os.getpid()] = None
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            LOG.warning("%s is damaged (%s): it is removed, and every case is audited again", self._file, error)
            with suppress(OSError):
                remove(self._file)
                del self._kept[os.getpid()]
        else:
            LOG.warning("%s can't be used (%s): what the audit sees is not kept", self._file, error)


class Miniatures(Mapping[str, np.ndarray]):
    """Case -> its first image, small, (X, Y, Z) float16; each is read when it is asked for.

    Args:
        memory: where they are.
        keys: case -> its key there.
    """

    def __init__(self, memory: AuditMemory, keys: Mapping[str, str]) -> None:
        self._memory, self._keys = memory, keys

    def __getitem__(self, case: str) -> np.ndarray:
        return self._memory.miniature(self._keys[case])

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


# ---------------------------------------------------------------- keys and rows


def _key(case: Case, expected: str, labelled: bool, of: Callable[[Path], str | None]) -> str | None:
    try:
        images = [[name, *_content(source, of)] for name, source in case.images.items()]
        others = [None if each is None else _content(each, of) for each in (case.label, case.field_of_view)]
    except (OSError, LookupError):
        return None
    return digest([expected, labelled, case.id, images, others])


def _content(source: Source, of: Callable[[Path], str | None]) -> list[Any]:
    value = of(source.path)
    if value is None:
        raise LookupError(source.path)
    return [value, source.component, source.colours, source.nan]


def _row(report: CaseReport, case: Case) -> dict[str, Any]:
    return {
        "facts": None if report.facts is None else report.facts.to_dict(),
        "findings": [asdict(finding) for finding in report.findings],
        "coloured": report.coloured,
        "paths": _paths(case),
    }


def _report(row: Mapping[str, Any], case: Case) -> CaseReport | None:
    """A report of a row; None where it names files by other paths than they have now."""
    if row["findings"] and row["paths"] != _paths(case):
        return None
    facts = None if row["facts"] is None else CaseFacts.from_dict(row["facts"])
    return CaseReport(facts, tuple(Finding(**each) for each in row["findings"]), None, row["coloured"])


def _paths(case: Case) -> list[str]:
    return [str(source.path) for source in case.sources]


def _opened(file: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=PATIENCE_S)
    connection.execute("pragma auto_vacuum = full")
    connection.executescript(TABLES)
    return connection


def _rows(connection: sqlite3.Connection, select: str, keys: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        yield from connection.execute(f"{select} where key in ({', '.join('?' * len(some))})", some)


def _write(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, np.ndarray | None]]) -> None:
    now = time.time()
    small = [(key, cells.tobytes()) for key, _, cells in rows if cells is not None]
    with connection:
        connection.executemany(
            "insert or replace into reports values (?, ?, ?, ?)",
            [(key, text, zlib.crc32(text.encode()), now) for key, text, _ in rows],
        )
        connection.executemany(
            "insert or replace into miniatures values (?, ?, ?)",
            [(key, cells, zlib.crc32(cells)) for key, cells in small],
        )


def without_miniature(report: CaseReport) -> CaseReport:
    """A report whose miniature lies elsewhere."""
    return replace(report, small=None)

"""A file on a web server -> a local file; an interrupted download is continued."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from segmed.errors import DownloadError
from segmed.files import write_json

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0
_CHUNK = 1 << 20

Report = Callable[[str, int, int | None], None]
"""Called with the current step, the bytes done, and the total number of bytes (None: not known)."""


class _Cut(Exception):
    """The connection failed; another attempt may succeed."""


def fetch(url: str, part: Path, stream: BinaryIO, *, attempts: int, wait_s: float, report: Report) -> None:
    """Download `url` to `part`, continuing at its end where the server still has the same file.

    Args:
        url: http or https address.
        part: the partial file; its version on the server is noted beside it in `part` + `.json`.
        stream: `part`, as `held` opened it.
        attempts: failed connections in a row, without a byte received, before it gives up.
        wait_s: pause after the first failure; it doubles, up to half a minute.
        report: called as bytes come.

    Raises:
        DownloadError: the server can't be reached or refuses, or the connection was cut too often.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url} is no http or https address: correct --base-url")
    failures, furthest = 0, _size(stream)
    while True:
        try:
            return _transfer(url, part, stream, report)
        except _Cut as cut:
            failures = 1 if _size(stream) > furthest else failures + 1
            furthest = max(furthest, _size(stream))
            if failures >= attempts:
                kept = f"{_size(stream) / 1e6:.1f} MB are kept, run the same command to go on"
                raise DownloadError(f"{url}: {cut}, {failures} times in a row: {kept}") from cut
            log.info("%s: %s, trying again", url, cut)
            time.sleep(min(wait_s * 2 ** (failures - 1), 30.0))


def _transfer(url: str, part: Path, stream: BinaryIO, report: Report) -> None:
    """One connection: the rest of the file, or all of it where the server can't resume."""
    known = _remembered(part, url)
    have = _size(stream) if known else _restart(stream)
    if known and have and known["size"] == have:
        return
    with _opened(url, stream, have, known.get("validator")) as response:
        size = _promised_size(response, have)
        if response.status == 206 and known.get("size") not in (None, size):
            _restart(stream)
            raise _Cut("the file on the server has changed")
        if response.status != 206:
            if have:
                log.warning("%s: the server sends the file from its start: it has changed or can't resume", url)
            have = _restart(stream)
        write_json(_memory(part), {"url": url, "validator": _validator(response), "size": size})
        _check_space(part.parent, size, have)
        while chunk := _read(response):
            stream.write(chunk)
            have += len(chunk)
            report("downloading", have, size)
        stream.flush()
    if size is not None and have < size:
        raise _Cut(f"the connection was cut at {have / 1e6:.1f} of {size / 1e6:.1f} MB")


@contextmanager
def _opened(url: str, stream: BinaryIO, have: int, validator: str | None) -> Iterator[http.client.HTTPResponse]:
    """The server's answer; refusals become errors of one line."""
    headers = {"User-Agent": "segmed", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            _restart(stream)
            raise _Cut("the file on the server is shorter than what had come") from error
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Cut(f"the server answers {error.code} {error.reason}") from error
        advice = "check the name and --base-url" if error.code == 404 else "try another --base-url"
        raise DownloadError(f"{url}: the server answers {error.code} {error.reason}: {advice}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror | ConnectionRefusedError):
            line = f"cannot reach {url} ({reason.strerror or reason}): check the network, a proxy, or --base-url"
            raise DownloadError(line) from error
        raise _Cut(f"no connection ({reason})") from error
    with response:
        yield response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(f"the connection was cut ({error})") from error


def _promised_size(response: http.client.HTTPResponse, have: int) -> int | None:
    """Bytes of the whole file, from the answer's headers."""
    if response.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if not span or int(span.group(1)) != have:
            raise DownloadError(
                "the server answers with another part of the file than asked for: try another --base-url"
            )
        return int(span.group(2))
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    """The identifier of this version of the file; a weak ETag may not be used for ranges (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _check_space(folder: Path, size: int | None, have: int) -> None:
    """The rest of the archive and its unpacked files (compressed themselves, so about as large) must fit."""
    if size is None:
        return
    needed, free = 2 * size - have, shutil.disk_usage(folder).free
    if needed > free:
        figures = f"{needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free"
        raise DownloadError(f"{folder}: {figures}: free some space or choose another --output")


# ---------------------------------------------------------------- the partial file


@contextmanager
def held(part: Path) -> Iterator[BinaryIO]:
    """The partial file, open for appending and locked, so that two downloads never write into one."""
    lock = FileLock(part.with_name(f".{part.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DownloadError(f"{part} is being written by another download: wait for it to end") from error
    try:
        with part.open("ab") as stream:
            try:
                yield stream
            finally:
                with suppress(OSError):
                    stream.flush()
                    if part.exists() and not part.stat().st_size:
                        forget(part)
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            Path(lock.lock_file).unlink()
        lock.release()


def _size(stream: BinaryIO) -> int:
    stream.flush()
    return os.fstat(stream.fileno()).st_size


def _restart(stream: BinaryIO) -> int:
    stream.flush()
    stream.truncate(0)
    return 0


def _memory(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remembered(part: Path, url: str) -> dict[str, Any]:
    """The note of the file's version from the start of its download; empty where it can't be used."""
    try:
        known = json.loads(_memory(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and known.get("url") == url and "size" in known else {}


def forget(part: Path) -> None:
    """Remove a partial file and its note."""
    part.unlink(missing_ok=True)
    _memory(part).unlink(missing_ok=True)

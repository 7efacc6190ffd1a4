"""Tar archives from the network -> a folder that appears complete or not at all."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from segmed.errors import DownloadError


def unpack(
    archive: Path, target: Path, *, expected: str, report: Callable[[str, int, int | None], None] | None = None
) -> None:
    """Unpack an archive whose only top folder has the name of `target`; `target` appears once everything is unpacked.

    Only plain files and folders below that top folder are unpacked. A data set needs no links, and without them
    nothing can be written outside the folder. Resource forks of macOS (`._name`) are left out.

    Args:
        archive: tar file, compressed or not.
        target: folder that will appear; must not exist.
        expected: a file that must stand in it.
        report: called with "unpacking", the bytes done and the total number of bytes.

    Raises:
        DownloadError: a member would leave the folder, is a link or a device, or the archive is damaged.
        OSError: the disk is full or can't be written; nothing is left behind.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError("this Python can't unpack safely: use Python 3.11.4 or later")
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    size = archive.stat().st_size
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _check(member, target.name, archive)
                if PurePosixPath(member.name).name.startswith("._"):
                    continue
                tar.extract(member, staging, filter="data")
                if report:
                    report("unpacking", min(member.offset_data + member.size, size), size)
        if not (staging / target.name / expected).is_file():
            raise DownloadError(f"{archive} holds no {target.name}/{expected}: it is another data set or incomplete")
        if report:
            report("unpacking", size, size)
        os.replace(staging / target.name, target)
    except (tarfile.TarError, EOFError) as error:
        raise DownloadError(f"{archive} is no whole tar archive ({error}): remove it and run again") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check(member: tarfile.TarInfo, top: str, archive: Path) -> None:
    path = PurePosixPath(member.name)
    if not (member.isreg() or member.isdir()):
        raise DownloadError(f"{archive}: '{member.name}' is a link or a device, which no data set needs: not unpacked")
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or path.parts[:1] not in ((top,), ()):
        raise DownloadError(f"{archive}: '{member.name}' lies outside the folder '{top}': not unpacked")

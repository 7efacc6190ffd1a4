"""All images of a data set, prepared once, in one memory-mapped array keyed by the files' state and the settings."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from isal import isal_zlib
from rich.progress import Progress
from torch.utils.data import DataLoader, Dataset

from segmed.config.images import ImageConfig
from segmed.data.cache_lock import cache_lock
from segmed.data.cache_use import EntriesInUse
from segmed.data.images.image_dataset import Item
from segmed.data.images.prepare_image import prepared
from segmed.data.processes import end_with_parent
from segmed.errors import DatasetError
from segmed.files import disk_errors, write_json

ARRAYS_VERSION = 1  # raised whenever preparing or the files of an entry change, so that old entries are not used
CHUNK_BYTES, CHUNK_ITEMS = 4 << 20, 64  # size of a chunk; each finished chunk is noted
SHOWN = 5  # unusable images that a message names
IMAGES, DONE, NOTE = "images.npy", "done", "entry.json"


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Prepared images, mapped from disk; pickled by its folder, not by its content.

    Attributes:
        ids: of the images, in the order of the array.
        images: (N, C, *size) float16, read only.
        folder: where the array lies.
        checksums: N, of the images as they were prepared.
        in_use: keeps the array from being pruned.
    """

    ids: tuple[str, ...]
    images: np.ndarray
    folder: Path
    checksums: tuple[int, ...] = ()
    in_use: EntriesInUse | None = None

    @property
    def intact(self) -> bool:
        """Whether every byte is as it was prepared; reads them all."""
        return _checksums(self.images) == list(self.checksums)

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Places of some ids in the array, in their order.

        Raises:
            DatasetError: one is not there.
        """
        place = {name: index for index, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in place]
        if missing:
            raise DatasetError(f"image '{missing[0]}' was not prepared ({len(missing)} were not): prepare the data set")
        return np.array([place[name] for name in ids], dtype=int)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.folder, self.ids)


class ImageCache:
    """Arrays of prepared images below one folder, shared by runs and safe with several processes.

    An array's name is a hash of the files' names, sizes and times and of the settings, not of the classes: merging
    classes prepares nothing again. A build that was killed continues where it stopped.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._in_use = EntriesInUse(self.folder)

    def hold(self, items: Sequence[Item], config: ImageConfig) -> None:
        """Keep the array of some images, made or not, from being pruned while this cache or its array lives.

        Raises:
            DatasetError: files are missing.
        """
        self._in_use.hold([self.key(items, config)])

    def key(self, items: Sequence[Item], config: ImageConfig) -> str:
        """Name the array of some images.

        Raises:
            DatasetError: files are missing.
        """
        states, lost = [], []
        for item in sorted(items, key=lambda item: item.id):
            try:
                states.append([item.id, *_state(item.path)])
            except OSError:
                lost.append(str(item.path))
        if lost:
            raise DatasetError(_listed(lost, len(items), "are not there any more"))
        content = {"version": ARRAYS_VERSION, "images": config.model_dump(mode="json"), "files": states}
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=20).hexdigest()

    def get(
        self, items: Sequence[Item], config: ImageConfig, *, workers: int = 2, progress: bool = False
    ) -> ImageArrays:
        """Open the images, sorted by id; they are prepared first where that has not been done.

        Args:
            items: at least one.
            config: how they are prepared.
            workers: processes that do it.
            progress: show a progress bar.

        Raises:
            DatasetError: images that can't be read or prepared, all counted, some named; a worker was killed; files
                changed meanwhile.
            DiskError: the disk is full or the folder can't be written.
        """
        if not items:
            raise DatasetError("no images to prepare: check data.root")
        items = sorted(items, key=lambda item: item.id)
        key = self.key(items, config)
        folder = self.folder / "images" / key
        self._in_use.hold([key])
        arrays = self._opened(folder)
        if arrays is not None and arrays.intact:
            return arrays
        with cache_lock(self.folder, key):
            arrays = self._opened(folder)  # another process was first
            if arrays is not None and arrays.intact:
                return arrays
            shutil.rmtree(folder, ignore_errors=True)  # damaged
            growing = folder.with_name(f".{key}")
            _build(growing, items, config, workers=workers, progress=progress)
            if self.key(items, config) != key:
                shutil.rmtree(growing, ignore_errors=True)
                raise DatasetError("images changed while they were prepared: run again")
            os.rename(growing, folder)
        arrays = self._opened(folder)
        if arrays is None:
            raise DatasetError(f"the array {folder} can't be read back: check the disk")
        return arrays

    def _opened(self, folder: Path) -> ImageArrays | None:
        arrays = _open(folder)
        if arrays is None:
            return None
        with suppress(OSError):  # of a read-only cache nobody prunes what was not used for long
            os.utime(folder)
        return replace(arrays, in_use=self._in_use)


def _state(path: Path) -> tuple[int, int, int]:
    """Size, and times of change of content and of the entry, in ns; of a folder, those of its files together."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [os.stat(file) for file in files]
    return (
        sum(state.st_size for state in states),
        max((state.st_mtime_ns for state in states), default=0),
        max((state.st_ctime_ns for state in states), default=0),
    )


def _listed(lines: Sequence[str], total: int, what: str) -> str:
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return f"{len(lines)} of {total} images {what}: {'; '.join(lines[:SHOWN])}{more}"


# ---------------------------------------------------------------- building


Chunk = tuple[int, np.ndarray, list[str]]


class _Chunks(Dataset[Chunk]):
    """Chunk number -> itself, its images (n, C, *size) float16, and a line for each that can't be used."""

    def __init__(self, items: Sequence[Item], config: ImageConfig, size: int) -> None:
        self.items, self.config, self.size = tuple(items), config, size

    def __len__(self) -> int:
        return math.ceil(len(self.items) / self.size)

    def __getitem__(self, chunk: int) -> Chunk:
        images, faults = [], []
        for item in self.items[chunk * self.size : (chunk + 1) * self.size]:
            try:
                images.append(prepared(item.path, self.config).astype(np.float16))
            except (ValueError, OSError) as error:
                line = " ".join(str(error).split())
                faults.append(line if str(item.path) in line else f"{item.path}: {line}")
        whole = np.stack(images) if images and not faults else np.zeros(0, np.float16)
        return chunk, whole, faults


def _build(folder: Path, items: Sequence[Item], config: ImageConfig, *, workers: int, progress: bool) -> None:
    """Prepare what is not done yet into a folder that a killed build may have left."""
    shape = (len(items), config.channels, *config.size)
    row_bytes = 2 * math.prod(shape[1:])
    chunks = _Chunks(items, config, max(1, min(CHUNK_ITEMS, CHUNK_BYTES // row_bytes)))
    path, note = folder / IMAGES, folder / DONE
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        offset, done = _resumed(path, note, shape, len(chunks))
    absent = [chunk for chunk in range(len(chunks)) if not done[chunk]]
    faults: list[str] = []
    with (
        Progress(disable=not progress) as bar,
        disk_errors(path),
        open(path, "r+b") as file,
        open(note, "r+b") as marks,
    ):
        task = bar.add_task("preparing images", total=len(chunks), completed=len(chunks) - len(absent))
        for chunk, images, wrong in _finished_chunks(chunks, absent, workers):
            faults += wrong
            bar.advance(task)
            if wrong:
                continue
            file.seek(offset + chunk * chunks.size * row_bytes)
            file.write(images.tobytes())
            file.flush()
            marks.seek(chunk)
            marks.write(b"\1")
            marks.flush()
        os.fsync(file.fileno())
    if faults:
        raise DatasetError(_listed(faults, len(items), "can't be used"))
    source = os.path.commonpath([os.path.abspath(item.path.parent) for item in items])
    note_of = {"version": ARRAYS_VERSION, "data": source, "bytes": path.stat().st_size, "ids": [i.id for i in items]}
    write_json(folder / NOTE, {**note_of, "checksums": _checksums(np.load(path, mmap_mode="r"))})
    note.unlink()


def _resumed(path: Path, note: Path, shape: tuple[int, ...], chunks: int) -> tuple[int, bytes]:
    """Where the array's data begin in its file, and which chunks are done; without an old file a new one is begun."""
    header = np.lib.format.header_data_from_array_1_0(np.empty(0, np.float16)) | {"shape": shape}
    size = 2 * math.prod(shape)
    done = note.read_bytes() if note.is_file() else b""
    if len(done) == chunks and path.is_file():
        with open(path, "rb") as file:
            offset = _data_offset(file)
        if offset is not None and path.stat().st_size == offset + size:
            return offset, done
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        file.truncate(offset + size)
    note.write_bytes(bytes(chunks))
    return offset, bytes(chunks)


def _checksums(images: np.ndarray) -> list[int]:
    """CRC-32 of each image."""
    return [isal_zlib.crc32(np.ascontiguousarray(image)) for image in images]


def _data_offset(file: Any) -> int | None:
    try:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
    except ValueError:
        return None
    return int(file.tell())


def _finished_chunks(chunks: _Chunks, absent: list[int], workers: int) -> Iterator[Chunk]:
    """Chunks as they are finished, by processes that end with this one."""
    if workers <= 1 or len(absent) <= 1:
        yield from (chunks[chunk] for chunk in absent)
        return
    loader = DataLoader(
        chunks,
        batch_size=None,
        sampler=absent,
        num_workers=min(workers, len(absent)),
        worker_init_fn=_start_worker,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # else each start draws a number from torch's global generator
    )
    try:
        yield from loader
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise DatasetError(
            "a process that prepares images was killed, probably for lack of memory: use fewer workers, and run again"
        ) from error


def _as_it_is(sample: Any) -> Any:
    return sample


def _start_worker(worker: int) -> None:
    """Set up a worker: one thread; Ctrl-C is left to the parent; it ends when its parent ends, even within a chunk."""
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


# ---------------------------------------------------------------- opening


def _open(folder: Path) -> ImageArrays | None:
    """Map an array; None where it is absent or damaged."""
    try:
        note = json.loads((folder / NOTE).read_bytes())
        path = folder / IMAGES
        if note["version"] != ARRAYS_VERSION or path.stat().st_size != note["bytes"]:
            return None
        images = np.load(path, mmap_mode="r")
        ids, checksums = tuple(note["ids"]), tuple(note["checksums"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ImageArrays(ids, images, folder, checksums) if len(ids) == len(images) == len(checksums) else None


def array_is_intact(folder: Path) -> bool:
    """Whether every byte of an array is as it was prepared."""
    arrays = _open(folder)
    return arrays is not None and arrays.intact


def _reopened(folder: Path, ids: tuple[str, ...]) -> ImageArrays:
    arrays = _open(folder)
    if arrays is None or arrays.ids != ids:
        raise DatasetError(f"the array {folder} is gone or damaged: start again to rebuild it")
    return arrays

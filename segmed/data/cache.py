"""Preprocessed volumes as memory-mapped arrays, keyed by the content of the files and the settings."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from segmed.config import PreprocessConfig
from segmed.data.cache_lock import cache_lock
from segmed.data.cache_use import EntriesInUse
from segmed.data.cases import Case, Dataset
from segmed.data.checksums import digest, is_intact, map_array, map_intact, write_array
from segmed.data.content import ContentHashes
from segmed.data.preprocess import prepare, read_case
from segmed.data.processes import end_with_parent, map_in_processes
from segmed.errors import DatasetError, VolumeError
from segmed.files import atomic_folder, write_json
from segmed.machine import free_ram_bytes
from segmed.volumes import Source, read_header, spacing_mm

CACHE_VERSION = 3  # raised whenever `preprocess` or the files of an entry change, so that old entries are not used
FOREGROUND_POSITIONS = 10_000  # kept for each label
WORTH_IT = 256  # entries that are verified by several processes

WORKER_BYTES = 100 << 20  # of a forked process, beside its volume
VOXEL_BYTES = 32  # stored, in float32, respaced, with what respacing and z-scoring take for a while


@dataclass(frozen=True, eq=False)
class CachedVolume:
    """A preprocessed case whose arrays are mapped from disk; pickled by its folder, not by its content.

    Attributes:
        id: of the case.
        image: (C, X, Y, Z) float32, read only.
        label: (X, Y, Z) uint8 label indices with IGNORE, or None.
        affine: (4, 4) voxel -> RAS mm.
        spacing_mm: of the three axes.
        foreground: for each label an (N, 3) int32 array of voxels that bear it, N <= 10,000, drawn evenly.
        folder: where the arrays lie; None for arrays in memory.
        in_use: keeps the entry from being pruned.
    """

    id: str
    image: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    foreground: tuple[np.ndarray, ...]
    folder: Path | None = None
    in_use: EntriesInUse | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is None:
            return CachedVolume, (self.id, self.image, self.label, self.affine, self.spacing_mm, self.foreground)
        return _reopen, (self.folder, self.id)


class VolumeCache:
    """Preprocessed volumes below one folder, shared by runs and safe with several processes.

    An entry's name is a hash of the files' content, of the settings and of the label values, so no entry is ever
    stale. An entry is renamed into place once it is complete.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._hashes = ContentHashes(self.folder / "hashes")
        self._verified: set[str] = set()
        self._in_use = EntriesInUse(self.folder)

    def key(self, case: Case, dataset: Dataset, config: PreprocessConfig) -> str:
        """Name the entry of a case.

        Raises:
            DatasetError: a file of the case is missing or can't be read.
        """
        images, label = self._sources(case, dataset)
        content = {
            "version": CACHE_VERSION,
            "images": images,
            "label": label,
            "label_values": [list(values) for values in dataset.labels.values],
            "ignore": list(dataset.labels.ignore),
            **({"background": list(dataset.labels.background)} if dataset.labels.background else {}),
            "preprocess": _as_json(config),
        }
        return digest(content)

    def hold(self, cases: Sequence[Case], dataset: Dataset, config: PreprocessConfig) -> None:
        """Keep the entries of cases, made or not, from being pruned while this cache or a volume of it lives.

        Raises:
            DatasetError: a file of a case is missing or can't be read.
        """
        self._in_use.hold([self.key(case, dataset, config) for case in cases])

    def contents(self, cases: Sequence[Case], dataset: Dataset) -> dict[str, str]:
        """What identifies the content of the files of each case, by its id; as in `key`."""
        return {case.id: digest(self._sources(case, dataset)) for case in cases}

    def _sources(self, case: Case, dataset: Dataset) -> tuple[list[Any], Any]:
        try:
            images = [self._source(case.images[name]) if name in case.images else None for name in dataset.modalities]
            label = None if case.label is None else self._source(case.label)
            seen = case.field_of_view
            return images, label if seen is None else {"label": label, "field_of_view": self._source(seen)}
        except OSError as error:
            reason = error.strerror or str(error)
            raise DatasetError(f"case {case.id}: can't read {error.filename or 'a file'}: {reason}") from error

    def get(self, case: Case, dataset: Dataset, config: PreprocessConfig) -> CachedVolume:
        """Open a case; it is preprocessed first where no entry is there, or one whose checksums fail.

        Raises:
            DatasetError: the case can't be prepared.
            VolumeError: a file of the case is not a usable volume.
            DiskError: the disk is full or the folder can't be written.
        """
        key = self.key(case, dataset, config)
        folder = self._entry(key)
        self._in_use.hold([key])
        volume = self._open(key, case.id)
        if volume is not None:
            return volume
        with cache_lock(self.folder, key):
            volume = self._open(key, case.id)  # another process was first
            if volume is not None:
                return volume
            arrays, facts = _prepared(case, dataset, config)
            facts["data"] = f"{dataset.name} {case.id}"
            if self.key(case, dataset, config) != key:
                raise DatasetError(f"case {case.id}: its files changed while they were read: run again")
            self._write(folder, arrays, facts)
            volume = self._open(key, case.id)
        if volume is None:
            raise DatasetError(f"case {case.id}: the cache entry {folder} can't be read back: check the disk")
        return volume

    def build(
        self, cases: Sequence[Case], dataset: Dataset, config: PreprocessConfig, *, workers: int, progress: bool
    ) -> list[CachedVolume]:
        """Open all cases, in their order; those without an entry are preprocessed by `workers` processes.

        Raises:
            DatasetError: a case can't be prepared, or a worker was killed.
            VolumeError: a file of a case is not a usable volume.
            DiskError: the disk is full or the folder can't be written.
        """
        keys = [self.key(case, dataset, config) for case in cases]
        self._in_use.hold(keys)
        self._verify(keys, workers)
        volumes = {index: self._open(keys[index], case.id) for index, case in enumerate(cases)}
        absent = [cases[index] for index, volume in volumes.items() if volume is None]
        with Progress(disable=not progress) as bar:
            task = bar.add_task("preprocessing", total=len(cases), completed=len(cases) - len(absent))
            for _ in self._build_absent(absent, dataset, config, workers):
                bar.advance(task)
        return [volumes[index] or self.get(case, dataset, config) for index, case in enumerate(cases)]

    def _build_absent(
        self, cases: list[Case], dataset: Dataset, config: PreprocessConfig, workers: int
    ) -> Iterator[None]:
        workers = _fitting(cases, workers)
        if workers <= 1 or len(cases) <= 1:
            for case in cases:
                self._build_one(case, dataset, config)
                yield
            return
        waiting = iter(cases)
        running: dict[Future[None], str] = {}
        context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
        pool = ProcessPoolExecutor(min(workers, len(cases)), mp_context=context, initializer=_start_worker)
        try:
            while True:
                for case in waiting:
                    running[pool.submit(self._build_one, case, replace(dataset, cases=(case,)), config)] = case.id
                    if len(running) == workers:
                        break
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    del running[future]
                    yield
        except BrokenProcessPool as error:
            names = ", ".join(sorted(running.values()))
            raise DatasetError(
                f"a worker process was killed while preparing {names}, probably for lack of memory: use fewer workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    def _build_one(self, case: Case, dataset: Dataset, config: PreprocessConfig) -> None:
        self.get(case, dataset, config)

    def _source(self, source: Source) -> list[Any]:
        options = [value for value, usual in ((source.colours, False), (source.nan, "error")) if value != usual]
        return [self._hashes.of(source.path), source.component, *options]

    def _open(self, key: str, case_id: str) -> CachedVolume | None:
        """Map an entry that is there; the first time, all of it is compared with its checksums."""
        folder = self._entry(key)
        if key not in self._verified:
            if not is_intact(folder):
                return None
            self._verified.add(key)
        with suppress(OSError):  # of a read-only cache nobody prunes what was not used for long
            os.utime(folder)
        volume = _open_entry(folder, case_id, map_intact)
        return None if volume is None else replace(volume, in_use=self._in_use)

    def _verify(self, keys: Sequence[str], workers: int) -> None:
        """Compare many entries with their checksums on all cores; what is absent or damaged is looked at again."""
        unseen = [key for key in keys if key not in self._verified]
        if workers <= 1 or len(unseen) < WORTH_IT:
            return
        folders = map(self._entry, unseen)
        intact = map_in_processes(is_intact, folders, workers=workers, chunk=WORTH_IT // 4)
        self._verified.update(key for key, whole in zip(unseen, intact, strict=True) if whole)

    def _entry(self, key: str) -> Path:
        return self.folder / "volumes" / key

    def _write(self, folder: Path, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Write an entry whole; the rest of a killed process, or a damaged entry, is removed first."""
        for leftover in [folder, *folder.parent.glob(f".*.{folder.name}")]:
            shutil.rmtree(leftover, ignore_errors=True)
        with atomic_folder(folder) as temporary:
            checks = {name: write_array(temporary / f"{name}.npy", array) for name, array in arrays.items()}
            entry = {"version": CACHE_VERSION, **facts, "arrays": checks}
            write_json(temporary / "entry.json", {**entry, "digest": digest(entry)})


# ---------------------------------------------------------------- one case


@cache
def _as_json(config: PreprocessConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _prepared(case: Case, dataset: Dataset, config: PreprocessConfig) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read and preprocess a case: its arrays by name, and the affine and number of positions of each label."""
    try:
        image, label = prepare(*read_case(case, dataset), config)
    except (ValueError, OSError) as error:
        if case.id in str(error):
            raise
        raise DatasetError(f"case {case.id}: {error}") from error
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise DatasetError(f"case {case.id}: not enough memory to prepare it: use fewer workers") from error
        error.add_note(f"while preparing case {case.id}")
        raise
    arrays = {"image": image.as_tensor().numpy()}
    counts: list[int] = []
    if label is not None:
        indices = label.as_tensor()[0].numpy()
        positions = [_positions(indices, index + 1) for index in range(len(dataset.labels))]
        arrays["label"] = indices
        arrays["foreground"] = np.concatenate(positions) if positions else np.zeros((0, 3), np.int32)
        counts = [len(each) for each in positions]
    return arrays, {"affine": np.asarray(image.affine, dtype=np.float64).tolist(), "counts": counts}


def _fitting(cases: Sequence[Case], workers: int) -> int:
    """As many workers as there is memory for, of the container or the batch job if that is less; at least one."""
    voxels = [0]
    for source in (source for case in cases for source in case.images.values()):
        with suppress(VolumeError):  # said when it is read
            header = read_header(source.path)
            voxels.append(math.prod(header.shape) * (header.components if source.component is None else 1))
    each = WORKER_BYTES + VOXEL_BYTES * max(voxels)
    return max(1, min(workers, free_ram_bytes() // each))


def _positions(indices: np.ndarray, index: int) -> np.ndarray:
    """Draw at most FOREGROUND_POSITIONS voxels of a label, the same ones each time: (N, 3) int32."""
    flat = np.flatnonzero(indices == index)
    if len(flat) > FOREGROUND_POSITIONS:
        flat = np.sort(np.random.default_rng(index).choice(flat, FOREGROUND_POSITIONS, replace=False))
    return np.stack(np.unravel_index(flat, indices.shape), axis=1).astype(np.int32)


def _start_worker() -> None:
    """Set up a worker: one thread; Ctrl-C is left to the parent; it ends when its parent ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


# ---------------------------------------------------------------- the files of an entry


def _open_entry(
    folder: Path, case_id: str, mapped: Callable[[Path, dict[str, int]], np.ndarray]
) -> CachedVolume | None:
    """Map an entry; None where it is absent or damaged."""
    try:
        entry = json.loads((folder / "entry.json").read_bytes())
        arrays = {name: mapped(folder / f"{name}.npy", check) for name, check in entry["arrays"].items()}
        affine = np.array(entry["affine"], dtype=np.float64)
        ends = np.cumsum(entry["counts"], dtype=int)
        foreground = tuple(np.split(arrays["foreground"], ends)[:-1]) if len(ends) else ()
        image = arrays["image"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return CachedVolume(case_id, image, arrays.get("label"), affine, spacing_mm(affine), foreground, folder)


def _reopen(folder: Path, case_id: str) -> CachedVolume:
    volume = _open_entry(folder, case_id, map_array)
    if volume is None:
        raise DatasetError(f"case {case_id}: the cache entry {folder} is gone or damaged: start again to rebuild it")
    return volume

"""Training samples: sample number n -> one augmented patch, the same in any process and order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from segmed.config import PatchConfig
from segmed.data.augment import Augmentation
from segmed.data.cache import CachedVolume
from segmed.errors import DatasetError

SMALL_PADDING = 16  # voxels of padding that are never too many: strides make patches larger than a small volume
PREFETCH = 4  # batches a worker: a resampled patch takes a hundred times as long as a plain one
LATE_SECONDS = 2.0  # by which a worker outlives a signal that all processes of a run get


class PatchDataset(Dataset[dict[str, Any]]):
    """Patches of training cases, numbered without end.

    Sample n is a function of (seed, n) alone: it depends neither on the worker, nor on the order, nor on a restart.
    Cases come in shuffled rounds, so that all are drawn equally often. A share of the patches holds a voxel of a label
    that is drawn first (evenly, so that rare labels are seen as often) and shifts its centre from there.

    Args:
        volumes: the cases, with labels.
        patches: resolved: no field is `auto`.
        plane_axis: the axis that a 2D patch is a slice across; None in 3D.
        augmentation: for as many dimensions.
        seed: of everything random.

    Raises:
        DatasetError: no case, a case without a label map, or patches much larger than every case.
        ValueError: a field is `auto`, or sizes and dimensions do not fit.
    """

    streams = (0, 1)  # keep the draws of rounds and of samples apart

    def __init__(
        self,
        volumes: Sequence[CachedVolume],
        *,
        patches: PatchConfig,
        plane_axis: int | None,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.volumes = tuple(volumes)
        self.patches = patches
        self.plane_axis = plane_axis
        self.augmentation = augmentation
        self.seed = seed % 2**63
        self._size = _volume_size(patches, plane_axis, augmentation)
        self._weights: dict[int, np.ndarray] = {}
        _check_size(self.volumes, self._size)
        self.check_labels(self.volumes)

    def check_labels(self, volumes: tuple[CachedVolume, ...]) -> None:
        """Refuse cases that this data set can't use."""
        without = [volume.id for volume in volumes if volume.label is None]
        if without:
            more = f" and {len(without) - 5} more" if len(without) > 5 else ""
            raise DatasetError(f"no label map for {', '.join(without[:5])}{more}: leave them out of the training part")

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Make sample `index` >= 0.

        Returns:
            `image` (C, *spatial) float32; `label` (*spatial) uint8; `case`, its id; `index`.
        """
        image, label, volume = self.sample(index)
        if label is None:
            raise DatasetError(f"case {volume.id} has no label map: leave it out of the training part")
        return {"image": image, "label": label, "case": volume.id, "index": index}

    def sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor | None, CachedVolume]:
        """Image (C, *spatial) and label (*spatial), where there is one, of sample `index`; and the case."""
        if index < 0:
            raise IndexError(f"sample {index}: samples are numbered from 0")
        generator = np.random.default_rng([self.seed, self.streams[1], index])
        case = self._case(index)
        volume = self.volumes[case]
        start = self._start(case, volume, generator)
        image, label = self.augmentation.patch(
            volume.image,
            volume.label,
            centre=start + (self._size - 1) / 2,
            size=tuple(map(int, self._size)),
            spacing_mm=volume.spacing_mm,
            generator=generator,
        )
        if self.plane_axis is not None:
            image = image.squeeze(self.plane_axis + 1)
            label = None if label is None else label.squeeze(self.plane_axis)
        return image, label, volume

    def _case(self, index: int) -> int:
        """Which case: without replacement within a round of all of them."""
        turn, place = divmod(index, len(self.volumes))
        order = np.random.default_rng([self.seed, self.streams[0], turn]).permutation(len(self.volumes))
        return int(order[place])

    def _start(self, case: int, volume: CachedVolume, generator: np.random.Generator) -> np.ndarray:
        """First voxel of the patch; negative along axes where the volume is smaller, and is padded evenly."""
        room = np.asarray(volume.image.shape[1:]) - self._size
        voxel = self._voxel(case, volume, generator) if generator.random() < self.patches.foreground else None
        if voxel is None:
            start = generator.integers(0, np.maximum(room, 0) + 1)
        else:
            half = (self._size - 1) / 2
            shift = generator.uniform(-1, 1, 3) * self.patches.jitter * half
            start = np.clip(np.floor(voxel - half + shift + 0.5), voxel - self._size + 1, voxel).astype(int)
        return np.where(room < 0, room // 2, np.clip(start, 0, np.maximum(room, 0)))

    def _voxel(self, case: int, volume: CachedVolume, generator: np.random.Generator) -> np.ndarray | None:
        """A voxel of a label, or None where the case holds no label at all."""
        weights = self._label_weights(case, volume)
        if not weights.any():
            return None
        voxels = volume.foreground[generator.choice(len(weights), p=weights)]
        return np.asarray(voxels[generator.integers(len(voxels))])

    def _label_weights(self, case: int, volume: CachedVolume) -> np.ndarray:
        """Probability of each label of the case: equal for those present, or by their voxels; zeros without any."""
        if case not in self._weights:
            counts = np.array([len(voxels) for voxels in volume.foreground], float)
            if self.patches.balance_labels:
                counts = (counts > 0).astype(float)
            elif volume.label is not None:  # the positions kept are capped, so count the voxels
                counts = _voxels_of_each(volume.label)[1 : len(counts) + 1] * (counts > 0)
            self._weights[case] = counts / max(counts.sum(), 1)
        return self._weights[case]


def _voxels_of_each(label: np.ndarray) -> np.ndarray:
    """Voxels of each value of a label map (X, Y, Z) uint8, (256,): by planes, as counting takes 8 bytes a voxel."""
    counts = np.zeros(256, np.int64)
    for plane in label:
        counts += np.bincount(plane.ravel(), minlength=256)
    return counts


def _volume_size(patches: PatchConfig, plane_axis: int | None, augmentation: Augmentation) -> np.ndarray:
    """The patch's size in the volume's three axes: 1 across the plane."""
    if patches.size == "auto" or patches.dims == "auto":
        raise ValueError("patches.size and patches.dims are 'auto': plan the experiment first, or give them")
    if len(patches.size) != patches.dims or min(patches.size) < 1:
        raise ValueError(f"patches.size {patches.size} does not fit patches.dims {patches.dims}: give as many sizes")
    if augmentation.dims != patches.dims:
        raise ValueError(f"augmentation is for {augmentation.dims} dimensions, patches have {patches.dims}")
    if (plane_axis is None) != (patches.dims == 3) or plane_axis not in (None, 0, 1, 2):
        raise ValueError(f"plane_axis {plane_axis}: 0, 1 or 2 for 2D patches, None for 3D ones")
    if plane_axis is None:
        return np.array(patches.size)
    return np.insert(np.array(patches.size), plane_axis, 1)


def mostly_padding(size: Sequence[int] | np.ndarray, largest: Sequence[int] | np.ndarray) -> bool:
    """Whether a patch is more than twice as long as any case somewhere, and by more than strides explain.

    Args:
        size: voxels of the patch, an entry per axis.
        largest: those of the largest case.
    """
    return bool((np.asarray(size) - largest > np.maximum(SMALL_PADDING, largest)).any())


def _check_size(volumes: Sequence[CachedVolume], size: np.ndarray) -> None:
    if not volumes:
        raise DatasetError("no training cases: check data.root and the split")
    largest = np.max([volume.image.shape[1:] for volume in volumes], axis=0)
    if mostly_padding(size, largest):
        raise DatasetError(
            f"patch {tuple(map(int, size))} exceeds every case, of at most {tuple(map(int, largest))} voxels: "
            "shrink patches.size"
        )


class StepSampler(Sampler[int]):
    """Numbers of the samples of one process, from a global step on.

    Step s takes samples s·B to (s+1)·B - 1, where B = batch_size × world, and every rank takes its own run of them:
    two processes with batches of b see what one sees with batches of 2 b. Every start gives the same numbers again.

    Args:
        start_step: first step, counted from the start of the run.
        batch_size: samples a process takes in one step.
        rank: this process.
        world: number of processes.
        steps: how many steps to give; None: without end.
    """

    def __init__(
        self, start_step: int, batch_size: int, rank: int = 0, world: int = 1, steps: int | None = None
    ) -> None:
        if start_step < 0 or batch_size < 1 or not 0 <= rank < world or (steps is not None and steps < 0):
            raise ValueError(
                f"no such samples: start_step {start_step}, batch_size {batch_size}, rank {rank} of {world}, "
                f"steps {steps}"
            )
        self.start_step, self.batch_size, self.rank, self.world, self.steps = start_step, batch_size, rank, world, steps

    def __iter__(self) -> Iterator[int]:
        step = self.start_step
        while self.steps is None or step < self.start_step + self.steps:
            first = (step * self.world + self.rank) * self.batch_size
            yield from range(first, first + self.batch_size)
            step += 1

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError("this sampler has no end")
        return self.steps * self.batch_size


class PatchLoader(DataLoader[dict[str, Any]]):
    """A DataLoader whose workers' faults are DatasetErrors of one line.

    Torch reports a dead worker from a signal handler, which may also run while the main process does something
    else, so a training loop has to expect its RuntimeError as well.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except RuntimeError as error:
            lost = _lost_worker(error)
            if lost is None:
                raise
            raise lost from error
        except (ValueError, OSError) as error:
            if "\n" not in str(error):
                raise
            raise DatasetError(_last_line(error)) from error


def _lost_worker(error: RuntimeError) -> DatasetError | None:
    """The one-line error for a worker that died, or None for any other error."""
    first = str(error).splitlines()[0] if str(error) else ""
    if not first.startswith("DataLoader worker"):
        return None
    return DatasetError(
        f"a process that prepares patches died ({first.rstrip('.')}), often for lack of memory: "
        "use fewer train.workers or smaller batches, and resume the run"
    )


def patch_loader(
    dataset: Dataset[dict[str, Any]],
    *,
    batch_size: int,
    start_step: int,
    total_steps: int | None,
    workers: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> DataLoader[dict[str, Any]]:
    """Batches for the steps from `start_step` up to `total_steps` (counted from the start of the run).

    Args:
        dataset: the samples.
        batch_size: samples in a step of one process.
        start_step: number of steps already done.
        total_steps: steps of the whole run; None: without end.
        workers: processes that prepare patches, one thread each; 0: the main process does.
        rank: this process.
        world: number of processes that train together.
        pin_memory: for a GPU; without one it does nothing.

    Raises:
        ValueError: `start_step` lies beyond `total_steps`, or a count is out of range.
        DatasetError: while iterating: a worker died, or a case can't be read any more.
    """
    if total_steps is not None and start_step > total_steps:
        raise ValueError(f"start_step {start_step} lies beyond the {total_steps} steps of the run")
    steps = None if total_steps is None else total_steps - start_step
    return PatchLoader(
        dataset,
        batch_size=batch_size,
        sampler=StepSampler(start_step, batch_size, rank, world, steps),
        num_workers=workers,
        worker_init_fn=_start_worker,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=pin_memory and torch.cuda.is_available(),
        generator=torch.Generator(),  # else each start draws a number from torch's global generator
    )


def _start_worker(worker: int) -> None:
    """Set up a worker: one thread in torch and in TorchIO's SimpleITK; Ctrl-C is left to the main process."""
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_late)


def _end_late(number: int, frame: FrameType | None) -> None:
    """End a worker, but not before the main process has the same signal: else its end looks like a fault."""
    time.sleep(LATE_SECONDS)
    os._exit(128 + number)


def _last_line(error: Exception) -> str:
    """The message of a worker's error, which torch wraps into a traceback of many lines."""
    last = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
    return last.partition(": ")[2] or last

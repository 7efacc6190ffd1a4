"""Rows of data: augmentation of a patch on one core, and a patch out of the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import monai.transforms as mt
import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
import torchio as tio

from benchmarks.peers import nnunet
from benchmarks.synthetic import LABELS, heart, scan, stored
from benchmarks.timing import Outcome, Setting, Target, alternate, timed
from segmed.config import AugmentConfig, PatchConfig
from segmed.data.augment import Augmentation
from segmed.data.cache import CachedVolume
from segmed.data.training_patches import PatchDataset

OURS, NNUNET = "segmed, preset full", "nnU-Net's training transforms"
ELASTIC = "TorchIO's RandomElasticDeformation alone, on the volume"
CACHE, NIBABEL, MONAI = "segmed, from the cache", "nibabel, .nii.gz read and cut", "MONAI's LoadImage, read and cut"
STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]  # of the levels that nnU-Net makes labels for


def augmentation_row(setting: Setting) -> Outcome:
    """Patches out of a volume in memory, one after the other on one core."""
    edge, size, times = (32, 16, 3) if setting.quick else (128, 64, 100)
    label = heart((edge,) * 3, 0)
    image = scan(label, 0).astype(np.float32)
    image = ((image - image.mean()) / image.std())[None]
    volume = setting.scratch / "volume.npz"
    np.savez(volume, image=image, label=label.astype(np.int16))
    held = CachedVolume("heart", image, label, np.eye(4), (1.0, 1.0, 1.0), _positions(label))
    config = AugmentConfig(name="full")
    ours = next_patch(patches_of(held, size, config))
    subject = tio.Subject(image=tio.ScalarImage(tensor=image), label=tio.LabelMap(tensor=label[None]))
    elastic = tio.RandomElasticDeformation()
    options = {"task": "augment", "volume": str(volume), "patch": [size] * 3, "strides": STRIDES}
    with one_core(), nnunet(setting, NNUNET, options, times=times) as (peers, missing):
        contenders = {OURS: timed(ours, times=times), ELASTIC: timed(lambda: elastic(subject)), **peers}
        timings = alternate(contenders, rounds=setting.rounds)
    target = Target("mean of a patch", 1000 * timings[OURS].mean, "below", 95, "ms")
    resampled = 1 - (1 - config.affine_probability) * (1 - config.elastic_probability)
    note = f"each pipeline with its own probabilities: segmed resamples {resampled:.0%} of the patches"
    work = f"augmentation of a {edge}³ volume to a {size}³ patch, one core, means of {times}"
    return Outcome("augmentation", work, OURS, timings, (target,), (note, *missing))


def cached_patch_row(setting: Setting) -> Outcome:
    """A random patch of a volume whose file is in memory, as it is after the first epoch."""
    shape, size, times = ((48, 48, 24), 16, 20) if setting.quick else ((256, 256, 100), 64, 200)
    on_disk = stored(setting.scratch, shape)
    ours = next_patch(patches_of(on_disk.volume, size, AugmentConfig(name="none")))
    cut = tuple(slice(0, size) for _ in shape)
    paths = (on_disk.image, on_disk.image.with_name("heart_label.nii.gz"))
    load = mt.LoadImage(image_only=True)
    contenders = {
        CACHE: timed(ours, times=times),
        NIBABEL: timed(lambda: [_cut(np.asarray(nib.Nifti1Image.from_filename(p).dataobj), cut) for p in paths]),
        MONAI: timed(lambda: [_cut(load(path).numpy(), cut) for path in paths]),
    }
    timings = alternate(contenders, rounds=setting.rounds)
    target = Target("median of a patch", 1000 * timings[CACHE].median, "below", 1, "ms")
    work = f"a {size}³ patch with its label out of {' × '.join(map(str, shape))}, warm"
    return Outcome("patch", work, CACHE, timings, (target,))


def patches_of(volume: CachedVolume, size: int, augment: AugmentConfig) -> PatchDataset:
    """Training samples of one volume."""
    return PatchDataset(
        [volume],
        patches=PatchConfig(dims=3, size=(size,) * 3),
        plane_axis=None,
        augmentation=Augmentation(augment, dims=3, labels=LABELS),
        seed=0,
    )


def next_patch(dataset: PatchDataset) -> Callable[[], object]:
    """What makes another sample each time."""
    numbers = count()
    return lambda: dataset[next(numbers)]


@contextmanager
def one_core() -> Iterator[None]:
    """One thread in torch and in SimpleITK."""
    torch_threads, itk_threads = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(itk_threads)


def _positions(label: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.argwhere(label == index).astype(np.int32) for index in range(1, LABELS.classes))


def _cut(voxels: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    return np.array(voxels[box])

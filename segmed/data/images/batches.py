"""Training samples of classification: sample number n -> one augmented image, the same in any process and order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segmed.config import AugmentConfig
from segmed.data.augment import Augmentation
from segmed.data.images.image_cache import ImageArrays
from segmed.data.images.image_dataset import Item
from segmed.data.training_patches import patch_loader
from segmed.errors import DatasetError
from segmed.labels import LabelSet

ORDERS_KEPT = 16  # orders of rounds that are remembered: of each class the last, and the one before at a border


class ImageSamples(Dataset[dict[str, Any]]):
    """Images of the training part, numbered without end.

    Sample n is a function of (seed, n) alone: it depends neither on the worker, nor on the order, nor on a restart.
    Images come in shuffled rounds, so that all are drawn equally often; with `balanced`, every run of K samples holds
    each of the K classes once, and the images of each class come in rounds of their own.

    Augmentation is that of patches, on whole images: the lengths that it takes in mm are pixels or voxels here, and a
    flip is one of left and right.

    Args:
        arrays: prepared images.
        items: those that train.
        augment: random changes; None: none.
        balanced: draw the classes equally often.
        seed: of everything random.

    Raises:
        DatasetError: no items; an item was not prepared.
    """

    def __init__(
        self,
        arrays: ImageArrays,
        items: Sequence[Item],
        *,
        augment: AugmentConfig | None = None,
        balanced: bool = False,
        seed: int = 0,
    ) -> None:
        if not items:
            raise DatasetError("no training images: check data.root and the split")
        self.arrays, self.items, self.seed = arrays, tuple(items), seed % 2**63
        self.rows = arrays.rows([item.id for item in items])
        self.targets = np.array([item.label for item in items])
        everything = [np.arange(len(self.items))]
        self.pools = [np.flatnonzero(self.targets == k) for k in np.unique(self.targets)] if balanced else everything
        self.dims = arrays.images.ndim - 2
        self._augmentation = None
        if augment is not None:
            self._augmentation = Augmentation(augment, dims=self.dims, labels=LabelSet((), ()))
        self._order = lru_cache(maxsize=ORDERS_KEPT)(self._draw_order)

    def __len__(self) -> int:
        """Number of images: samples of one epoch."""
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Make sample `index` >= 0.

        Returns:
            `image` (C, *spatial) float32; `target`, index of the class; `case`, the id; `index`.
        """
        if index < 0:
            raise IndexError(f"sample {index}: samples are numbered from 0")
        chosen = self._chosen(index)
        image = torch.from_numpy(self.arrays.images[self.rows[chosen]].astype(np.float32))
        if self._augmentation is not None:
            image = augmented(image, self._augmentation, np.random.default_rng([self.seed, 1, index]))
        return {"image": image, "target": int(self.targets[chosen]), "case": self.items[chosen].id, "index": index}

    def _chosen(self, index: int) -> int:
        block, place = divmod(index, len(self.pools))
        pool = 0
        if len(self.pools) > 1:
            pool = int(np.random.default_rng([self.seed, 2, block]).permutation(len(self.pools))[place])
        turn, place = divmod(block, len(self.pools[pool]))
        return int(self.pools[pool][self._order(pool, turn)[place]])

    def _draw_order(self, pool: int, turn: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, pool, turn]).permutation(len(self.pools[pool]))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=ORDERS_KEPT)(self._draw_order)


def augmented(image: Tensor, augmentation: Augmentation, generator: np.random.Generator) -> Tensor:
    """Change a whole image at random: (C, H, W) or (C, X, Y, Z) float32 of the same shape.

    Images are transposed for it, so that the axis which is flipped runs from left to right.
    """
    volume = image.transpose(1, 2)[..., None] if image.ndim == 3 else image
    size = tuple(volume.shape[1:])
    changed, _ = augmentation.patch(
        volume.numpy(),
        None,
        centre=[(voxels - 1) / 2 for voxels in size],
        size=size,
        spacing_mm=(1.0, 1.0, 1.0),
        generator=generator,
    )
    return (changed[..., 0].transpose(1, 2) if image.ndim == 3 else changed).contiguous()


def training_batches(
    samples: ImageSamples,
    *,
    batch_size: int,
    start_step: int = 0,
    total_steps: int | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> DataLoader[dict[str, Any]]:
    """Batches for the steps from `start_step` up to `total_steps` (counted from the start of the run).

    A batch holds `image` (B, C, *spatial) float32, `target` (B,) int64, `case`, a list of ids, and `index` (B,).
    Arguments and errors are those of `patch_loader`; a resumed run sees the batches that it would have seen.
    """
    return patch_loader(
        samples,
        batch_size=batch_size,
        start_step=start_step,
        total_steps=total_steps,
        workers=workers,
        rank=rank,
        world=world,
        pin_memory=pin_memory,
    )


def steps_per_epoch(samples: ImageSamples, batch_size: int, world: int = 1) -> int:
    """Steps after which as many samples were drawn as there are images, rounded up."""
    return -(-len(samples) // (batch_size * world))


def ordered_batches(arrays: ImageArrays, items: Sequence[Item], *, batch_size: int) -> Iterator[dict[str, Any]]:
    """Every item once, in the given order and unchanged, for validation and test; the last batch may be smaller.

    Yields:
        As in training, without `index`.
    """
    rows = arrays.rows([item.id for item in items])
    for first in range(0, len(items), batch_size):
        chosen = slice(first, first + batch_size)
        images = arrays.images[rows[chosen]].astype(np.float32)
        targets = torch.tensor([item.label for item in items[chosen]], dtype=torch.int64)
        yield {"image": torch.from_numpy(images), "target": targets, "case": [item.id for item in items[chosen]]}

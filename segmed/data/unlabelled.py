"""Cases without a label map as training samples, beside those that have one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segmed.data.cache import CachedVolume
from segmed.data.training_patches import PatchDataset
from segmed.errors import DatasetError


class UnlabelledPatches(PatchDataset):
    """Patches from anywhere in volumes without label maps; arguments as for `PatchDataset`.

    They are drawn independently of the labelled patches of the same seed.

    Raises:
        DatasetError: no case, a case with a label map, or patches much larger than every case.
    """

    streams = (2, 3)

    def check_labels(self, volumes: tuple[CachedVolume, ...]) -> None:
        """Refuse label maps, which unlabelled cases must not have."""
        labelled = [volume.id for volume in volumes if volume.label is not None]
        if labelled:
            raise DatasetError(f"case {labelled[0]} is listed as unlabelled and comes with a label map: drop the map")

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Make sample `index` >= 0: `image` (C, *spatial) float32; `case`, its id; `index`."""
        image, _, volume = self.sample(index)
        return {"image": image, "case": volume.id, "index": index}


def with_unlabelled(batch: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """A batch of labelled patches with `unlabelled`, the images (U, C, *spatial) of other cases, which it names too."""
    return {**batch, "unlabelled": others["image"], "case": [*batch["case"], *others["case"]]}

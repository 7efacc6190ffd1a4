"""Config -> the cases of an experiment."""

from __future__ import annotations

from segmed.config import PHANTOM_FILES, PhantomLayout, SegmentationConfig
from segmed.data.cases import Dataset, read_dataset
from segmed.data.phantoms import make_phantom


def build_dataset(config: SegmentationConfig, *, progress: bool = False) -> Dataset:
    """The cases of an experiment; a phantom is made first where it is not there yet."""
    data = config.data
    if isinstance(data.layout, PhantomLayout):
        layout = data.layout
        make_phantom(data.root, **layout.model_dump(exclude={"name"}), progress=progress)
        data = data.model_copy(update={"layout": PHANTOM_FILES})
    return read_dataset(data, incomplete_images=config.takes_incomplete)

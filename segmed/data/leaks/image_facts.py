"""An image file or a volume -> facts about it, and small copies to compare it by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segmed.data.images.picture import PICTURE_SUFFIXES, grey, read_picture
from segmed.data.leaks.thumbnails import Thumbnail, thumbnail
from segmed.errors import VolumeError
from segmed.geometry import to_canonical
from segmed.volumes import read_volume

BORDER = 0.05  # of height and width: the rim whose brightness is measured
VOLUME = "volume"


@dataclass(frozen=True)
class Record:
    """Facts about one file.

    Attributes:
        id: of the item.
        error: why it can't be used, in one line; empty: it can, and only then the rest counts.
        format: `PNG`, `JPEG`, ... as found in the content; `volume`.
        suffix: of the name, lower case.
        suffix_fits: whether the name says what the content is.
        mode: colour mode in Pillow's words; number type of a volume.
        shape: height and width in pixels; X, Y and Z of a volume.
        bits: of a grey value or a colour.
        rotated: whether EXIF asked for a rotation.
        mean: of the grey values, 0 black, 1 the brightest possible (of a volume: its brightest).
        low, high: percentiles 0.5 and 99.5 of the grey values.
        flat: whether all pixels are the same.
        border: mean of the rim.
    """

    id: str
    error: str = ""
    format: str = ""
    suffix: str = ""
    suffix_fits: bool = True
    mode: str = ""
    shape: tuple[int, ...] = ()
    bits: int = 8
    rotated: bool = False
    mean: float = 0.0
    low: float = 0.0
    high: float = 0.0
    flat: bool = False
    border: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # JSON has lists


def record(name: str, path: Path) -> tuple[Record, Thumbnail | None]:
    """Facts and small copies of a file; of an unreadable file, the error in the record and no small copy.

    Args:
        name: id of the item.
        path: an image or a volume; of a volume the middle slice along the last axis (RAS) stands for it, but two
            volumes have the same key only when all their voxels are equal.
    """
    try:
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
            return _of_picture(name, path)
        return _of_volume(name, path)
    except (VolumeError, OSError, MemoryError) as error:
        line = " ".join(str(error).split()) or type(error).__name__
        return Record(name, error=line), None


def _of_picture(name: str, path: Path) -> tuple[Record, Thumbnail]:
    picture = read_picture(path)
    values = grey(picture)
    facts = Record(
        name, format=picture.format, suffix=path.suffix.lower(), suffix_fits=picture.suffix_fits, mode=picture.mode,
        bits=8 * picture.pixels.dtype.itemsize, rotated=picture.rotated, shape=values.shape, **_brightness(values),
    )  # fmt: skip
    return facts, thumbnail(values)


def _of_volume(name: str, path: Path) -> tuple[Record, Thumbnail]:
    volume = to_canonical(read_volume(path))
    voxels = volume.numpy(force=True).astype(np.float32)
    if not np.isfinite(voxels).all():
        raise VolumeError(f"{path} holds values that are not finite: export it again")
    shown = _middle(voxels)
    suffixes = "".join(path.suffixes[-2:]).lower() if path.is_file() else "dicom"
    facts = Record(
        name, format=VOLUME, suffix=suffixes, mode=str(volume.dtype).removeprefix("torch."), shape=voxels.shape[1:],
        bits=8 * volume.element_size(), **_brightness(shown),
    )  # fmt: skip
    return facts, replace(thumbnail(shown), key=voxel_key(voxels))


def shown_pixels(path: Path) -> np.ndarray:
    """Grey values (H, W), 0 to 1, as they are compared: of a volume its middle slice.

    Raises:
        VolumeError: the file can't be read.
    """
    if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
        return grey(read_picture(path))
    return _middle(to_canonical(read_volume(path)).numpy(force=True))


def _middle(voxels: np.ndarray) -> np.ndarray:
    """The middle slice along the last axis of (C, X, Y, Z), rows downwards, from the volume's darkest to brightest."""
    low, high = float(voxels.min()), float(voxels.max())
    middle = voxels[0, :, :, voxels.shape[3] // 2].T[::-1].astype(np.float32)
    return np.ascontiguousarray((middle - low) / (high - low) if high > low else np.zeros_like(middle))


def voxel_key(voxels: np.ndarray) -> str:
    """Hash of voxels (C, X, Y, Z) as float32, and of their shape."""
    values = np.ascontiguousarray(voxels, dtype="<f4") + 0.0  # -0 is 0
    total = hashlib.blake2b(repr(values.shape).encode(), digest_size=16)
    total.update(values.data)
    return total.hexdigest()


def _brightness(values: np.ndarray) -> dict[str, Any]:
    low, high = np.percentile(values, (0.5, 99.5))
    height, width = (max(1, round(BORDER * size)) for size in values.shape)
    rim = np.ones(values.shape, bool)
    rim[height:-height, width:-width] = False
    return {
        "mean": float(values.mean()),
        "low": float(low),
        "high": float(high),
        "flat": bool(values.min() == values.max()),
        "border": float(values[rim].mean()),
    }

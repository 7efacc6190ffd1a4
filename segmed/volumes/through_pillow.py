"""2D images as volumes of one slice: PNG, JPEG, TIFF, BMP and GIF, through Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from segmed.errors import VolumeError
from segmed.geometry import Header
from segmed.volumes.room import check_room

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
COLOURS = ("red", "green", "blue")
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")  # formats whose values are not those that were saved
EXIF_ORIENTATION = 0x0112
DECODED_BYTES = 8  # of a pixel while it is decoded: three colours and their grey
STORED_TYPES = {"1": "bool", "I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16", "I": "int32", "F": "float32"}


def read_header(path: Path, *, colours: bool = False) -> Header:
    """Shape (width, height, 1), identity affine; with `colours` a component a colour."""
    with _open(path) as image:
        kind = "uint8" if colours else STORED_TYPES.get(image.mode, "uint8")
        return Header((image.width, image.height, 1), np.eye(4), len(COLOURS) if colours else 1, kind)


def read(path: Path, dtype: np.dtype | None, *, colours: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Grey values (1, width, height, 1), or red, green and blue (3, width, height, 1), and identity affine.

    Args:
        path: the image; its format is found in its content, whatever its suffix.
        dtype: of the result; None: as stored.
        colours: a component a colour; a grey image has three equal ones.
    """
    with _open(path) as image, _damage(path):
        if colours:
            values = np.asarray(image.convert("RGB"))
        elif image.mode in STORED_TYPES and image.mode != "1":
            values = np.asarray(image)[..., None]
        else:
            values = np.asarray(image.convert("L"))[..., None]
    return _volume(values, dtype), np.eye(4)


def read_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values (1, width, height, 1) of a label map as they are stored, and identity affine.

    Indices of a palette and 0 and 1 of a bitmap are kept. Of a GIF the grey values count, since its palette depends on
    the program that saved it.

    Raises:
        VolumeError: colours that differ, in a GIF those of its palette; a lossy format.
    """
    with _open(path) as image, _damage(path):
        _check_lossless(image, path)
        shown = image.convert("RGB") if image.format == "GIF" else image
        values = np.asarray(shown)
        if values.ndim == 3:
            values = _equal_channels(values, shown.mode, path)
    return _volume(values[..., None], None), np.eye(4)


def read_mask(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Whether a viewer shows a pixel other than black: (1, width, height, 1) bool, and identity affine.

    Raises:
        VolumeError: a lossy format.
    """
    with _open(path) as image, _damage(path):
        _check_lossless(image, path)
        own = image.mode in STORED_TYPES and image.mode != "1"
        values = np.asarray(image)[..., None] if own else np.asarray(image.convert("RGB"))
    return _volume((values != 0).any(axis=-1, keepdims=True), None), np.eye(4)


def _check_lossless(image: Image.Image, path: Path) -> None:
    if image.format in LOSSY or image.info.get("compression") in ("jpeg", "webp"):
        raise VolumeError(
            f"{path} is compressed with loss ({image.format}), which changes label values: save label maps as PNG"
        )


def _volume(values: np.ndarray, dtype: np.dtype | None) -> np.ndarray:
    """(height, width, C) -> (C, width, height, 1)."""
    return values.transpose(2, 1, 0)[..., None].astype(dtype or values.dtype.newbyteorder("="))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, VolumeError):
            raise
        raise VolumeError(f"{path} is truncated or damaged: copy it again") from error


def remarks(path: Path, *, colours: bool) -> tuple[str, ...]:
    """What is lost, or turned, when an image is read.

    Args:
        path: the image.
        colours: a component a colour is read.
    """
    lines = []
    with _open(path) as image, _damage(path):
        if image.getexif().get(EXIF_ORIENTATION, 1) != 1:
            lines.append(
                "viewers turn it as its EXIF entry says, and so may the program that drew its label map; it is read as "
                "it is stored: save it without that entry"
            )
        if not colours and _is_coloured(image):
            lines.append(
                "its red, green and blue differ and are mixed into grey (data.colours: channels keeps them apart)"
            )
    return tuple(lines)


def _is_coloured(image: Image.Image) -> bool:
    """Whether red, green and blue differ anywhere: `read` mixes them into grey."""
    if image.mode in STORED_TYPES or image.mode in ("L", "LA"):
        return False
    values = np.asarray(image.convert("RGB"))
    return bool((values != values[..., :1]).any())


def write(path: Path, voxels: np.ndarray) -> None:
    """Write voxels (1, width, height, 1) of type uint8 or uint16 as a grey image."""
    if voxels.shape[0] != 1 or voxels.shape[3] != 1 or voxels.dtype not in (np.uint8, np.uint16):
        raise VolumeError(
            f"{path.name}: {voxels.dtype} voxels of shape {voxels.shape} don't fit a 2D image of whole numbers: "
            "write .nii.gz"
        )
    Image.fromarray(np.ascontiguousarray(voxels[0, :, :, 0].T)).save(path)


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
    except (UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise VolumeError(f"{path} is not an image that can be read: copy it again, or save it as PNG") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise VolumeError(f"{path} is larger than {Image.MAX_IMAGE_PIXELS} pixels: make it smaller") from error
    try:
        if getattr(image, "n_frames", 1) > 1:
            raise VolumeError(f"{path} holds several pages: save them as one NIfTI volume or as single images")
        check_room(path, image.width * image.height, DECODED_BYTES)
    except VolumeError:
        image.close()
        raise
    return image


def _equal_channels(values: np.ndarray, mode: str, path: Path) -> np.ndarray:
    colours = values[..., :3] if mode in ("RGB", "RGBA") else values[..., :1]
    if mode not in ("RGB", "RGBA", "LA") or (colours != colours[..., :1]).any():
        raise VolumeError(
            f"{path} is a colour image: save the label map as PNG, of grey values or of indices of a palette"
        )
    return np.asarray(colours[..., 0])

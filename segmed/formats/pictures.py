"""2D images as volumes of one slice: PNG, JPEG, TIFF and BMP, through Pillow."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from segmed.errors import VolumeError
from segmed.geometry import Header

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
STORED_TYPES = {"1": "bool", "I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16", "I": "int32", "F": "float32"}


def read_header(path: Path) -> Header:
    """Shape (width, height, 1), identity affine."""
    with _open(path) as image:
        return Header((image.width, image.height, 1), np.eye(4), 1, STORED_TYPES.get(image.mode, "uint8"))


def read(path: Path, dtype: np.dtype | None, *, indices: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Grey values (1, width, height, 1) and identity affine.

    Args:
        path: the image; its format is found in its content, whatever its suffix.
        dtype: of the result; None: as stored.
        indices: true for label maps: numbers are kept as stored (indices of a palette, 0 and 1 of a bitmap), and a
            colour image is taken only where its channels are equal.
    """
    with _open(path) as image:
        try:
            grey = _label_values(image, path) if indices else _grey(image)
        except (OSError, ValueError, SyntaxError) as error:
            if isinstance(error, VolumeError):
                raise
            raise VolumeError(f"{path} is truncated or damaged: copy it again") from error
    return grey.T[None, :, :, None].astype(dtype or grey.dtype.newbyteorder("=")), np.eye(4)


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
        raise VolumeError(f"{path} is not an image that can be read: copy it again") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise VolumeError(f"{path} is larger than {Image.MAX_IMAGE_PIXELS} pixels: make it smaller") from error
    if getattr(image, "n_frames", 1) > 1:
        image.close()
        raise VolumeError(f"{path} holds several pages: save them as one NIfTI volume or as single images")
    return image


def _grey(image: Image.Image) -> np.ndarray:
    if image.mode in STORED_TYPES and image.mode != "1":
        return np.asarray(image)
    return np.asarray(image.convert("L"))


def _label_values(image: Image.Image, path: Path) -> np.ndarray:
    values = np.asarray(image)
    if values.ndim == 2:
        return values
    colours = values[..., :3] if image.mode in ("RGB", "RGBA") else values[..., :1]
    if image.mode not in ("RGB", "RGBA", "LA") or (colours != colours[..., :1]).any():
        raise VolumeError(f"{path} is a colour image: save the label map as grey values or indices of a palette")
    return colours[..., 0]

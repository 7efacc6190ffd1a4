"""An image file of any colour mode -> grey or colour pixels as a viewer shows them, and facts about the file."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from segmed.errors import VolumeError
from segmed.volumes import through_pillow
from segmed.volumes.room import check_room

PICTURE_SUFFIXES = (*through_pillow.SUFFIXES, ".webp")
FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "GIF", "WEBP")  # others may start programs (EPS) or are no pictures
SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}
LUMA = (299, 587, 114)  # of red, green and blue, in thousandths: ITU-R BT.601, as in Pillow
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
ROWS = 256
BYTES_A_PIXEL = 24  # three colours as they are stored, beside them and as floats
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
ORIENTATION_TAG = 0x0112
UPRIGHT = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image.

    Attributes:
        pixels: (H, W) grey or (H, W, 3) red, green, blue; uint8 or uint16; upright, without palette and alpha.
        mode: colour mode of the file in Pillow's words: `L`, `RGB`, `P`, `I;16`, ...
        format: found in the content: `PNG`, `JPEG`, ...
        suffix_fits: whether the name says the same.
        rotated: whether EXIF asked for a rotation or a flip, which was done.
    """

    pixels: np.ndarray
    mode: str
    format: str
    suffix_fits: bool
    rotated: bool


@dataclass(frozen=True)
class PictureFacts:
    """Facts about an image from its header, without decoding it.

    Attributes:
        format: found in the content.
        suffix_fits: whether the name says the same.
        mode: colour mode in Pillow's words.
        size: (height, width) in pixels, upright.
        bits: of a stored channel: 1, 8, 16 or 32.
        orientation: of EXIF, 1 to 8; 1: upright, or not given.
        frames: images or pages in the file.
    """

    format: str
    suffix_fits: bool
    mode: str
    size: tuple[int, int]
    bits: int
    orientation: int
    frames: int


def read_picture(path: Path | str) -> Picture:
    """Decode an image.

    A palette and transparency are resolved (on black), EXIF's rotation is done, a bitmap becomes 0 and 255, grey of
    16 bits is kept. Colour of 16 bits comes with 8, as Pillow decodes it.

    Raises:
        VolumeError: missing, not an image, truncated, of several frames or pages, of floats, larger than Pillow's
            limit.
    """
    path = Path(path)
    with _opened(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise VolumeError(f"{path} holds {frames} frames or pages: save the one that counts as a single image")
        name, mode = str(image.format), image.mode
        stored = _orientation(image)
        image.load()  # a TIFF turns itself upright here
        upright = UPRIGHT.get(_orientation(image))
        turned = image if upright is None else _turned(image, upright)
        return Picture(_pixels(turned, path), mode, name, _fits(path, name), stored != 1)


def facts(path: Path | str) -> PictureFacts:
    """Read the facts of the header, which a truncated file has as well.

    Raises:
        VolumeError: missing, not an image, larger than Pillow's limit.
    """
    path = Path(path)
    with _opened(path) as image:
        name, bits, orientation = str(image.format), _bits(image), _orientation(image)
        lying = orientation >= 5 and name != "TIFF"  # of a TIFF Pillow gives the upright size
        size = (image.width, image.height) if lying else (image.height, image.width)
        frames = int(getattr(image, "n_frames", 1))
        return PictureFacts(name, _fits(path, name), image.mode, size, bits, orientation, frames)


def grey(picture: Picture) -> np.ndarray:
    """Grey values (H, W) float32: 0 black, 1 the brightest that the type holds (255 or 65535).

    Colours count by their luma (ITU-R BT.601); where red, green and blue are equal it is exactly their value.
    """
    pixels = picture.pixels
    top = int(np.iinfo(pixels.dtype).max)
    result = np.empty(pixels.shape[:2], np.float32)
    for start in range(0, len(pixels), ROWS):  # in double precision, for a few rows at a time
        rows = pixels[start : start + ROWS]
        if pixels.ndim == 2:
            result[start : start + ROWS] = rows / np.float64(top)
        else:
            result[start : start + ROWS] = (rows.astype(np.int64) @ np.array(LUMA)) / (sum(LUMA) * top)
    return result


# ---------------------------------------------------------------- the file


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image; Pillow's errors become a VolumeError of one line."""
    if path.exists() and not path.is_file():
        raise VolumeError(f"{path} is a folder, a pipe or a device: give an image file")
    Image.init()  # all formats, not only the common ones; done once
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF and the like: the pixels count
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            formats = [name for name in FORMATS if name in Image.OPEN]
            # a file, not a path: of a path Pillow maps turned TIFFs into memory with height and width exchanged
            with open(path, "rb") as file, Image.open(file, formats=formats) as image:
                check_room(path, image.width * image.height, BYTES_A_PIXEL)
                yield image
    except VolumeError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise VolumeError(f"{path} is larger than {Image.MAX_IMAGE_PIXELS} pixels: make it smaller") from error
    except UnidentifiedImageError as error:
        raise VolumeError(
            f"{path} is not an image that can be read: copy it again, save it as PNG, or remove it"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise VolumeError(f"{path}: {error.strerror or error}: check the path") from error
        raise VolumeError(f"{path} is truncated or damaged: copy it again") from error
    except (SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, struct.error) as error:
        raise VolumeError(f"{path} is truncated or damaged: copy it again") from error


def _fits(path: Path, name: str) -> bool:
    registered = Image.registered_extensions().get(path.suffix.lower())
    return registered is not None and SAME_FORMAT.get(registered, registered) == SAME_FORMAT.get(name, name)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 where it is absent or invalid."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1
    return value if value in UPRIGHT else 1


def _turned(image: Image.Image, upright: Image.Transpose) -> Image.Image:
    turned = image.transpose(upright)
    turned.info = dict(image.info)  # transparency of a palette
    return turned


def _bits(image: ImageFile.ImageFile) -> int:
    """Bits of a channel; Pillow's raw mode knows of 16 bits that the mode hides."""
    raw = str(image.tile[0][3]) if image.tile else ""
    if ";16" in raw or image.mode.startswith("I;16"):
        return 16
    if image.mode in ("I", "F"):
        return 32
    return 1 if image.mode == "1" else 8


# ---------------------------------------------------------------- pixels


def _pixels(image: Image.Image, path: Path) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8 or uint16."""
    if image.mode in DEEP_MODES:
        return _deep(np.asarray(image), path)
    if image.mode == "F":
        raise VolumeError(f"{path} holds floating-point numbers: save it with 8 or 16 bits, or as NIfTI")
    if image.mode in ALPHA_MODES or image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        values = np.asarray(image).astype(np.uint16)  # 255 × 255 + 127 still fits
        shown = (values[..., :-1] * values[..., -1:] + 127) // 255
        return (shown[..., 0] if shown.shape[-1] == 1 else shown).astype(np.uint8)
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _deep(values: np.ndarray, path: Path) -> np.ndarray:
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= 65535:
        raise VolumeError(
            f"{path} holds values from {values.min()} to {values.max()}: save it with 8 or 16 bits, or as NIfTI"
        )
    return values.astype(np.uint16)

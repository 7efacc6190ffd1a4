"""A grey picture -> a hash of its pixels, and small normalised views that are alike for copies of one picture."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

SIZE = 64  # pixels a side of a small copy
REACH = 2.2  # standard deviations from the centre to the edge of a centred copy: a head and a little around it
FLOOR = 0.05  # of the brightest: darker pixels are background
LARGEST = 160  # pixels a side from which a picture is shrunk first
INNER = 0.05  # of height and width, left out on each side of the inner copy: what a slight crop leaves
MARGIN = 4  # pixels from the rim of a picture, where detail depends on what lay beyond
FRAMES = ("whole", "centred", "turned", "inner")


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """Hash and small views by which a picture is compared.

    Attributes:
        key: hash of the pixels and their arrangement; equal for equal pixels, whatever the file's name or format.
        frames: (4, 64, 64) float16, 0 to 1: the whole picture; centred on its content, which fills the frame however
            much black is around it; also turned so that the content's long axis stands upright; without its rim.
        inside: (4, 64, 64) bool: where a frame shows the picture, at some distance from its rim.
    """

    key: str
    frames: np.ndarray
    inside: np.ndarray


def thumbnail(picture: np.ndarray) -> Thumbnail:
    """Small copies of a picture.

    Args:
        picture: (H, W) grey values from 0 to 1, as `segmed.data.images.picture.grey` gives them.

    Raises:
        ValueError: not two axes, no pixel, or values that are not finite.
    """
    picture = np.asarray(picture, dtype=np.float32)
    if picture.ndim != 2 or picture.size == 0 or not np.isfinite(picture).all():
        raise ValueError(f"picture of shape {picture.shape}: give finite grey values (H, W)")
    brightest = float(picture.max())
    values = picture / brightest if brightest > 0 else picture
    small = _shrunk(values)
    whole = _resized(values, SIZE, SIZE)
    top, left = (round(INNER * size) for size in values.shape)
    inner = np.ascontiguousarray(values[top : values.shape[0] - top, left : values.shape[1] - left])
    within = np.zeros((SIZE, SIZE), bool)
    within[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    framed = [_framed(small, turned=turned) or (whole, within) for turned in (False, True)]
    views = [(whole, within), *framed, (_resized(inner, SIZE, SIZE), within)]
    frames, inside = (np.stack(parts) for parts in zip(*views, strict=True))
    return Thumbnail(pixel_key(picture), frames.astype(np.float16), inside)


def pixel_key(picture: np.ndarray) -> str:
    """Hash of the grey values (H, W), from 0 to 1, with the precision of 16 bits, and of the shape."""
    levels = np.rint(np.asarray(picture, dtype=np.float64) * 65535).astype("<i8")
    total = hashlib.blake2b(repr(levels.shape).encode(), digest_size=16)
    total.update(np.ascontiguousarray(levels).data)
    return total.hexdigest()


def _resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Values averaged where the picture shrinks, interpolated where it grows."""
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def _shrunk(values: np.ndarray) -> np.ndarray:
    height, width = values.shape
    factor = LARGEST / max(height, width)
    if factor >= 1:
        return values
    return _resized(values, max(1, round(height * factor)), max(1, round(width * factor)))


def _framed(values: np.ndarray, *, turned: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """The content in a frame of its own size, and where that shows the picture; None where there is no content.

    The content is found by the first and second moments of the square root of the grey values, which weighs a head
    rather than its brightest parts. Source: Hu 1962.
    """
    weight = np.sqrt(np.clip(values - FLOOR, 0, None))
    mass = float(weight.sum())
    if mass < 1:
        return None
    rows, columns = np.arange(values.shape[0]), np.arange(values.shape[1])
    by_row, by_column = weight.sum(axis=1), weight.sum(axis=0)
    centre = np.array([by_row @ rows, by_column @ columns]) / mass
    dy, dx = rows - centre[0], columns - centre[1]
    across = float(dy @ weight @ dx) / mass
    spread = np.array([[by_row @ dy**2 / mass, across], [across, by_column @ dx**2 / mass]])
    if min(spread[0, 0], spread[1, 1]) < 1:
        return None
    matrix = _axes(spread) if turned else np.diag(np.sqrt(np.diag(spread)))
    matrix = matrix * REACH / (SIZE / 2)
    step = float(np.sqrt(abs(np.linalg.det(matrix))))
    smooth = ndimage.gaussian_filter(values, 0.5 * step) if step > 1.3 else values
    offset = centre - matrix @ np.full(2, (SIZE - 1) / 2)
    # beyond the rim the rim goes on: black around a head on black, and no edge where the head is cut off
    shape = (SIZE, SIZE)
    frame = ndimage.affine_transform(smooth, matrix, offset=offset, output_shape=shape, order=1, mode="nearest")
    places = np.einsum("ij,jrc->irc", matrix, np.indices(shape)) + offset[:, None, None]
    last = np.array(values.shape)[:, None, None] - 1
    return frame, ((places >= MARGIN * step) & (places <= last - MARGIN * step)).all(axis=0)


def _axes(spread: np.ndarray) -> np.ndarray:
    """Columns: the long axis, upright, and the short one, each as long as its standard deviation."""
    variances, axes = np.linalg.eigh(spread)
    axes, sizes = axes[:, ::-1], np.sqrt(np.maximum(variances[::-1], 1))
    if np.linalg.det(axes) < 0:
        axes = axes * np.array([1, -1])
    return axes * sizes

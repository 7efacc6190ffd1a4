"""Synthetic photographs of the retina with the true vessels, in the files and folders of the DRIVE data set."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track
from scipy import ndimage

from segmed.data.drawn_vessels import Eye, draw_eye, draw_vessels
from segmed.data.phantom_folder import SETTINGS_FILE, is_complete
from segmed.files import atomic_path, write_json

VESSEL_PHANTOM_VERSION = 1  # raised whenever the same seed gives another data set
PARTS = ("training", "test")
FUNDUS = np.array([0.72, 0.40, 0.20])  # red, green and blue of the retina, and what the others make of it:
DISC = np.array([0.95, 0.75, 0.45])
EXUDATE = np.array([0.92, 0.78, 0.40])
BLOOD = np.array([0.74, 0.44, 0.70])  # share of the light that comes back through a vein
CAMERA_BLACK = 3  # grey levels outside of the field of view, at most


def make_vessel_phantom(
    folder: Path | str, *, cases: int = 40, seed: int = 0, size: tuple[int, int] = (565, 584), progress: bool = False
) -> None:
    """Write a data set of synthetic retinal photographs; a complete one is left as it is.

    Half of the images, with the lower numbers, are for the test: `test/images/01_test.tif`,
    `test/1st_manual/01_manual1.gif` (255 where a vessel is), `test/mask/01_test_mask.gif` (255 in the field of view);
    the others lie in `training` and are called so. An image depends on the seed, its number and its size only. The
    layout is that of Staal et al. 2004, IEEE TMI 23:501; no image of it was used.

    Args:
        folder: of the data set; made when it is not there.
        cases: number of images, two or more.
        seed: of the data set.
        size: columns and rows of an image.
        progress: show a progress bar.

    Raises:
        DatasetError: the folder holds something else, or a phantom of other settings.
        ValueError: fewer than two images.
    """
    if cases < 2:
        raise ValueError(f"{cases} image can't be divided into training and test: ask for two or more")
    folder = Path(folder)
    settings = {"version": VESSEL_PHANTOM_VERSION, "cases": cases, "seed": seed, "size": list(size)}
    if is_complete(folder, settings, own=PARTS):
        return
    for number in track(range(1, cases + 1), "making the phantom", total=cases, disable=not progress):
        part = "test" if number <= cases // 2 else "training"
        image, vessels, seen = draw_fundus(np.random.default_rng([seed, number]), size=size)
        name = f"{number:02d}"
        _save(folder / part / "images" / f"{name}_{part}.tif", image)
        _save(folder / part / "1st_manual" / f"{name}_manual1.gif", vessels.astype(np.uint8) * 255)
        _save(folder / part / "mask" / f"{name}_{part}_mask.gif", seen.astype(np.uint8) * 255)
    write_json(folder / SETTINGS_FILE, settings)


def draw_fundus(rng: np.random.Generator, *, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one photograph.

    Args:
        rng: of the image.
        size: columns and rows.

    Returns:
        image (rows, columns, 3) uint8; vessels and field of view (rows, columns) bool.
    """
    eye = draw_eye(rng, size=size)
    columns, rows = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    seen = np.hypot(columns - eye.centre[0], rows - eye.centre[1]) < eye.radius
    points, arteries = draw_vessels(eye, rng)
    veins, other = (_depth(points[kind], size) for kind in (~arteries, arteries))
    light = _retina(eye, columns, rows, rng)
    contrast = rng.uniform(0.7, 1.1)
    for depth, strength in ((veins, 1.0), (other, 0.75)):
        cover = depth.clip(0, 1)[..., None] * (0.6 + 0.4 * (depth / (2 * eye.trunk_radius)).clip(0, 1)[..., None])
        light *= 1 - contrast * strength * cover * (1 - BLOOD)
    image = _photograph(light, eye, columns, rows, rng)
    image[~seen] = rng.integers(0, CAMERA_BLACK + 1, (int((~seen).sum()), 3))
    return image, (np.maximum(veins, other) > 0.5) & seen, seen


# ---------------------------------------------------------------- the retina


def _depth(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How deep each pixel lies in a vessel, (rows, columns): radius less distance plus half a pixel, 0 outside."""
    depth = np.zeros(size[::-1])
    reaches = np.ceil(points[:, 2]).astype(int) + 1
    for reach in np.unique(reaches):
        column, row, radius = points[reaches == reach].T[..., None, None]
        steps = np.arange(-reach, reach + 1)
        x, y = np.floor(column).astype(int) + steps[:, None], np.floor(row).astype(int) + steps
        x, y = np.broadcast_arrays(x, y)
        inside = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
        values = radius + 0.5 - np.hypot(x + 0.5 - column, y + 0.5 - row)
        np.maximum.at(depth, (y[inside], x[inside]), values[inside])
    return depth


def _retina(eye: Eye, columns: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light that comes back from everything but the vessels, (rows, columns, 3): pigment, disc, macula, lesions."""
    light = np.ones((*columns.shape, 1)) * FUNDUS * rng.uniform(0.85, 1.15, 3)
    coarse, fine = (_smooth(columns.shape, width * eye.scale, rng) for width in (22, 5))
    light *= (1 + 0.06 * coarse + 0.035 * fine)[..., None]
    macula = _hill(columns, rows, eye.fovea, 0.22 * eye.radius)
    light *= 1 - (0.3 * macula)[..., None] * np.array([0.6, 1.0, 1.0])
    edge = (np.hypot((columns - eye.disc[0]) * 1.1, rows - eye.disc[1]) - eye.disc_radius) / (0.12 * eye.disc_radius)
    disc = 1 / (1 + np.exp(edge.clip(-30, 30))) * rng.uniform(0.7, 1.0)
    cup = _hill(columns, rows, eye.disc + rng.normal(0, 0.1, 2) * eye.disc_radius, 0.4 * eye.disc_radius)
    light += (disc * (1 + 0.25 * cup))[..., None] * (DISC - light)
    for _ in range(rng.poisson(6)):
        spot = eye.centre + rng.uniform(-0.8, 0.8, 2) * eye.radius
        hill = (2 * _hill(columns, rows, spot, rng.uniform(1.2, 3.0) * eye.scale**0.5)).clip(0, 1)[..., None]
        light += hill * ((EXUDATE if rng.random() < 0.5 else 0.7 * FUNDUS) - light)
    return light


def _photograph(
    light: np.ndarray, eye: Eye, columns: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Uneven flash, blur and noise: (rows, columns, 3) uint8."""
    x, y = (columns - eye.centre[0]) / eye.radius, (rows - eye.centre[1]) / eye.radius
    tilt = rng.normal(0, 0.12, 2)
    flash = 1 + tilt[0] * x + tilt[1] * y - rng.uniform(0.15, 0.35) * (x * x + y * y)
    sharp = light * flash.clip(0.1)[..., None] * rng.uniform(0.85, 1.15)
    blurred = ndimage.gaussian_filter(sharp, (rng.uniform(0.6, 1.0),) * 2 + (0,))
    noisy = blurred + rng.normal(0, rng.uniform(0.012, 0.022), light.shape)
    return (noisy * 255).clip(0, 255).round().astype(np.uint8)


def _hill(columns: np.ndarray, rows: np.ndarray, top: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((columns - top[0]) ** 2 + (rows - top[1]) ** 2) / (2 * width**2))


def _smooth(shape: tuple[int, ...], width: float, rng: np.random.Generator) -> np.ndarray:
    """Random texture of mean 0 and standard deviation 1."""
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), width)
    return (texture - texture.mean()) / texture.std()


def _save(path: Path, pixels: np.ndarray) -> None:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "GIF" if path.suffix == ".gif" else "TIFF")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getvalue())

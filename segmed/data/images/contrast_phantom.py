"""Synthetic brain MRI before and after contrast agent, as PNG files and a table: a task without public images."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from segmed.data.phantom_folder import SETTINGS_FILE, is_complete
from segmed.files import atomic_path, atomic_write_text, write_json

CLASSES = ("non_contrast", "post_contrast")
CONTRAST_PHANTOM_VERSION = 2  # raised whenever the same seed gives another data set
TABLE = "manifest.csv"
AIR, BONE, FAT, CSF, GREY, WHITE = 0.02, 0.08, 0.95, 0.15, 0.5, 0.72  # T1-weighted signal
FLOW_VOID, ENHANCED = 0.2, 1.0  # moving blood, and blood or a leaking lesion with all the agent that one sees
DURA, DURA_ENHANCED = 0.12, 0.6
RIM, CORE = 0.42, 0.3  # of a lesion without agent; the core takes up none
LEAST_UPTAKE = 0.05  # of a scan after the agent; the most is 1
FAST = 0.2  # share of vessels that stay dark, since their blood leaves the slice before it is read
INFLOW_KEPT = 0.6  # from a slice to the next one above: fresh blood is bright where it enters the slab
GAIN_SD = 0.25  # of the logarithm: a scan's scale says more about its mean than contrast agent does
BRIGHTNESS = 135  # grey level of signal 1 at gain 1


@dataclass(frozen=True)
class Agent:
    """Enhancement in one scan, by contrast agent or by blood that flows in.

    Attributes:
        uptake: share of full enhancement, of the dura and of a lesion's rim; 0 before the agent.
        blood: (slices, N) signal of the vessels.
    """

    uptake: float
    blood: np.ndarray


@dataclass(frozen=True)
class Brain:
    """One subject, in coordinates from -1 to 1 across the image (x to the right, y down).

    Attributes:
        axes: half width and half height of the head.
        scalp, skull: thickness of both.
        cortex: mean thickness.
        ventricle: half width and half height of each side ventricle.
        vessels: (N, 3), centre and radius of the vessels that are cut across.
        lesion: centre, radius and slice of a lesion, or None.
        folds: (slices, size, size), standard normal and smooth: what the cortex looks like.
    """

    axes: tuple[float, float]
    scalp: float
    skull: float
    cortex: float
    ventricle: tuple[float, float]
    vessels: np.ndarray
    lesion: tuple[float, float, float, float] | None
    folds: np.ndarray


def make_contrast_phantom(folder: Path | str, *, subjects: int, slices: int, size: int, seed: int) -> None:
    """Write the data set; a complete one is left as it is.

    Writes `non_contrast/sub_000_0.png` and so on, `post_contrast/sub_000_0.png`, and `manifest.csv` with the columns
    image, label, subject, slice, lesion, uptake. Vessels, the dura and the rim of a lesion (in two of three subjects)
    get brighter after the agent, by a share that each scan draws for itself: dose and delay differ, and a scan with
    hardly any looks like one without. Before it, blood that flows in is bright in the lowest slices (the entry
    phenomenon: Bradley and Waluch 1985, Radiology 154:443), and fast blood is dark in both. Each scan has its own gain,
    coil, noise and position, so that neither the mean intensity nor the difference of two scans reveals the class. A
    subject depends on the seed, its number, `slices` and `size`.

    Args:
        folder: of the data set; made when it is not there.
        subjects: each is scanned twice.
        slices: of each scan.
        size: height and width in pixels.
        seed: of the data set.

    Raises:
        DatasetError: the folder holds something else, or a phantom of other settings.
        DiskError: the disk is full or the folder can't be written.
    """
    folder = Path(folder)
    settings = {
        "kind": "contrast",
        "version": CONTRAST_PHANTOM_VERSION,
        "subjects": subjects,
        "slices": slices,
        "size": size,
        "seed": seed,
    }
    if is_complete(folder, settings, own=(*CLASSES, TABLE)):
        return
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("image", "label", "subject", "slice", "lesion", "uptake"))
    for subject in range(subjects):
        name = f"sub_{subject:03d}"
        brain = _draw_brain(np.random.default_rng([seed, subject]), slices, size)
        for scan, label in enumerate(CLASSES):
            images, uptake = _scan(brain, np.random.default_rng([seed, subject, scan + 1]), enhanced=scan == 1)
            for number, image in enumerate(images):
                path = Path(label) / f"{name}_{number}.png"
                with atomic_path(folder / path) as temporary:
                    Image.fromarray(image).save(temporary)
                lesion = "no" if brain.lesion is None else "yes"
                writer.writerow((path.as_posix(), label, name, number, lesion, f"{uptake:.3f}"))
    atomic_write_text(folder / TABLE, table.getvalue())
    write_json(folder / SETTINGS_FILE, settings)


# ---------------------------------------------------------------- the subject


def _draw_brain(rng: np.random.Generator, slices: int, size: int) -> Brain:
    lesion = None
    if rng.random() < 2 / 3:
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.45)
        where = (
            away * np.cos(angle),
            away * np.sin(angle),
            rng.uniform(0.06, 0.14),
            rng.uniform(0, max(slices - 1, 1)),
        )
        lesion = (float(where[0]), float(where[1]), float(where[2]), float(where[3]))
    folds = ndimage.gaussian_filter(rng.standard_normal((slices, size, size)), (0.7, size / 45, size / 45))
    return Brain(
        axes=(float(rng.uniform(0.66, 0.76)), float(rng.uniform(0.80, 0.90))),
        scalp=float(rng.uniform(0.03, 0.07)),
        skull=float(rng.uniform(0.03, 0.05)),
        cortex=float(rng.uniform(0.10, 0.14)),
        ventricle=(float(rng.uniform(0.04, 0.08)), float(rng.uniform(0.16, 0.26))),
        vessels=_draw_vessels(rng),
        lesion=lesion,
        folds=(folds / folds.std()).astype(np.float32),
    )


def _draw_vessels(rng: np.random.Generator) -> np.ndarray:
    """The sagittal sinus at both ends of the midline, the middle cerebral arteries, and vessels in the sulci."""
    sinus = [(0.0, -0.93, 0.02), (0.0, 0.93, rng.uniform(0.03, 0.05))]
    arteries = [(side * rng.uniform(0.55, 0.75), rng.uniform(-0.3, 0.1), rng.uniform(0.012, 0.022)) for side in (-1, 1)]
    angles, depths = rng.uniform(0, 2 * np.pi, 10), rng.uniform(0.75, 0.97, 10)
    sulci = np.stack([depths * np.sin(angles), depths * np.cos(angles), rng.uniform(0.008, 0.018, 10)], axis=1)
    return np.concatenate([np.array(sinus + arteries), sulci])


# ---------------------------------------------------------------- the scan


def _draw_agent(brain: Brain, rng: np.random.Generator, *, enhanced: bool) -> Agent:
    """Dose and delay of one scan, and how blood flows in it."""
    slices, vessels = len(brain.folds), len(brain.vessels)
    uptake = float(rng.uniform(LEAST_UPTAKE, 1)) if enhanced else 0.0
    fresh = rng.beta(0.5, 1.5, vessels) * INFLOW_KEPT ** np.arange(slices)[:, None]
    bright = fresh + uptake * (1 - fresh)
    bright[:, rng.random(vessels) < FAST] = 0
    return Agent(uptake, FLOW_VOID + bright * (ENHANCED - FLOW_VOID))


def _scan(brain: Brain, rng: np.random.Generator, *, enhanced: bool) -> tuple[list[np.ndarray], float]:
    """Slices (size, size) uint8 of one scan: its own position, coil, gain and noise; and its uptake."""
    slices, size = brain.folds.shape[:2]
    turn = np.deg2rad(rng.uniform(-8, 8))
    zoom = rng.uniform(0.96, 1.04)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / zoom
    middle = (size - 1) / 2
    offset = middle - matrix @ np.full(2, middle) + rng.uniform(-0.03, 0.03, 2) * size
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    weights = rng.normal(0, 0.12, 5)
    coil = np.exp(sum(w * term for w, term in zip(weights, (x, y, x * y, x * x, y * y), strict=True)))
    gain = np.exp(rng.normal(0, GAIN_SD))
    noise = rng.uniform(0.015, 0.04)
    agent = _draw_agent(brain, rng, enhanced=enhanced)
    images = []
    for number in range(slices):
        signal = _signal(brain, number, x, y, agent)
        signal = coil * ndimage.affine_transform(signal, matrix, offset, order=1, mode="nearest")
        real, imaginary = (noise * rng.standard_normal((size, size)) for _ in range(2))
        magnitude = np.hypot(signal + real, imaginary)
        images.append(np.clip(magnitude * gain * BRIGHTNESS, 0, 255).round().astype(np.uint8))
    return images, agent.uptake


def _signal(brain: Brain, number: int, x: np.ndarray, y: np.ndarray, agent: Agent) -> np.ndarray:
    """Signal (size, size) of a slice of the head at rest."""
    slices, size = brain.folds.shape[:2]
    pixel = 2 / size
    height = (number + 0.5) / slices - 0.5  # the head gets smaller upwards, the ventricles end
    width, length = (axis * (1 - 0.25 * height**2 - 0.1 * height) for axis in brain.axes)
    inside = (1 - np.hypot(x / width, y / length)) * min(width, length)  # distance from the skin, nearly
    dura, cortex = brain.scalp + brain.skull, brain.cortex * (1 + 0.45 * brain.folds[number])
    signal = np.full(x.shape, AIR)
    for depth, tissue in ((0.0, FAT), (brain.scalp, BONE), (dura, CSF), (dura + 0.02, GREY)):
        signal = _over(signal, tissue, depth - inside, pixel)
    signal = _over(signal, WHITE, dura + 0.02 + cortex - inside, pixel)
    signal = _over(signal, DURA + agent.uptake * (DURA_ENHANCED - DURA), np.abs(inside - dura) - 0.5 * pixel, pixel)
    half_width, half_height = (half * max(0.3, 1 - 1.6 * height**2) for half in brain.ventricle)
    for side in (-1, 1):
        away = np.hypot((x - side * (half_width + 0.02)) / half_width, y / half_height) - 1
        signal = _over(signal, CSF, away * half_width, pixel)
    reach = (1 - dura) * np.array([width, length])  # vessels lie relative to the brain
    for (u, v, radius), blood in zip(brain.vessels, agent.blood[number], strict=True):
        away = np.hypot(x - u * reach[0], y - v * reach[1]) - radius
        signal = _over(signal, blood, away, pixel)
    return _with_lesion(signal, brain, number, x, y, agent)


def _with_lesion(
    signal: np.ndarray, brain: Brain, number: int, x: np.ndarray, y: np.ndarray, agent: Agent
) -> np.ndarray:
    """A ball with a rim, cut by the slices that are near its own."""
    if brain.lesion is None:
        return signal
    u, v, radius, level = brain.lesion
    cut = radius**2 - (0.06 * (number - level)) ** 2
    if cut <= 0:
        return signal
    pixel = 2 / x.shape[0]
    away = np.hypot(x - u, y - v) - np.sqrt(cut)
    signal = _over(signal, RIM + agent.uptake * (ENHANCED - RIM), away, pixel)
    return _over(signal, CORE, away + 0.03, pixel)


def _over(signal: np.ndarray, tissue: float, away: np.ndarray, pixel: float) -> np.ndarray:
    """Put a tissue where `away` is negative; across its border, one pixel wide, it is mixed."""
    share = np.clip(0.5 - away / pixel, 0, 1)
    return signal + share * (tissue - signal)

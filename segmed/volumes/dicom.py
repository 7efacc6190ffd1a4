"""A DICOM series, in a folder or in one multi-frame file -> time points, stacked by the position of each frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from segmed.errors import GeometryError, VolumeError
from segmed.geometry import Header
from segmed.volumes.dicom_frames import Frame, Series, frames_of, is_dicom_file, is_native, series_of, stored_numbers
from segmed.volumes.itk import LPS_TO_RAS
from segmed.volumes.room import check_room

DIRECTION_TOLERANCE = 1e-3
GAP_TOLERANCE = 0.05  # of the distance between slices: positions in headers are rounded
SAME_PLACE_MM = 0.01
SAME_SPACING = 1e-3  # relative
SHOWN = 4  # series in a message
AGREE: dict[str, Callable[[Frame], Hashable]] = {  # what must be equal in all slices of a series
    "columns and rows": lambda frame: frame.size,
    "bits": lambda frame: frame.bits,
    "sign": lambda frame: frame.signed,
    "samples a pixel": lambda frame: frame.samples,
    "photometric interpretation": lambda frame: frame.photometric,
}


def read_header(path: Path, series: str | None = None) -> Header:
    """Shape, affine, components and type of a folder or a file, or of one series in it; no pixel is decoded."""
    stacks, affine = _series(path, series)
    first = stacks[0][0]
    shape = (first.size[0], first.size[1], len(stacks[0]))
    return Header(shape, affine, len(stacks) * first.samples, _dtype([frame for stack in stacks for frame in stack]))


def slices_of(path: Path, component: int | None = None, series: str | None = None) -> list[Frame]:
    """The frames that a volume is read from, one for each index along Z."""
    return _series(path, series)[0][component or 0]


def read(
    path: Path, component: int | None, dtype: np.dtype | None, series: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Values (C, X, Y, Z) and affine; no dtype: the smallest type that holds those of every slice."""
    stacks, affine = _series(path, series)
    first, wanted = stacks[0][0], slice(None) if component is None else slice(component, component + 1)
    chosen = stacks if first.samples > 1 else stacks[wanted]
    voxels = decoded(chosen, path, frames=[frame for stack in stacks for frame in stack])
    if first.samples > 1:
        voxels = np.moveaxis(voxels[0], -1, 0)[wanted]
    return voxels.astype(dtype or voxels.dtype, copy=False).transpose(0, 3, 2, 1), affine


def series_in(folder: Path) -> list[Series]:
    """The series of images whose slices lie in a folder, in the order of their numbers."""
    images = [series_of(entry) for entry in sorted(folder.iterdir()) if is_dicom_file(entry)]
    series = {one.uid: one for one in images if one.uid is not None}
    return sorted(series.values(), key=lambda one: (one.number, one.description, one.uid or ""))


def decoded(stacks: Sequence[Sequence[Frame]], path: Path, *, frames: Sequence[Frame]) -> np.ndarray:
    """Values (times, slices, rows, columns[, colours]) of stacks, of which all `frames` are scaled alike.

    Raises:
        VolumeError: they don't fit into memory, or a file is damaged.
    """
    first = stacks[0][0]
    check_room(path, len(stacks) * len(stacks[0]) * first.samples * first.size[0] * first.size[1], first.bits[0] // 8)
    decoder = _Decoder(frames)
    return np.stack([np.stack([decoder.values(frame) for frame in stack]) for stack in stacks])


# ---------------------------------------------------------------- frames -> stacks


def _series(path: Path, series: str | None) -> tuple[list[list[Frame]], np.ndarray]:
    """Frames of each time point, slices in order, and the affine of their positions."""
    files = sorted(entry for entry in path.iterdir() if is_dicom_file(entry)) if path.is_dir() else [path]
    if not files:
        raise VolumeError(f"{path} holds no DICOM series: give a folder of DICOM slices or a volume file")
    if series is not None:
        files = [file for file in files if series_of(file).uid == series]
    frames = [frame for file in files for frame in frames_of(file)]
    if not frames:
        raise VolumeError(f"{path} holds no DICOM images, only reports or other objects: give the folder of the slices")
    count = len({frame.series for frame in frames})
    if count > 1:
        named = ", ".join(one.title for one in (series_in(path) if path.is_dir() else ())[:SHOWN])
        raise VolumeError(f"{path} holds {count} DICOM series ({named}): put each into a folder of its own")
    return stacks_of(frames, path)


def stacks_of(frames: Sequence[Frame], path: Path) -> tuple[list[list[Frame]], np.ndarray]:
    """Frames of each time point, slices in order, and the affine of their positions: (4, 4), to RAS+ mm.

    Args:
        frames: that belong together.
        path: where they are, for errors.

    Raises:
        VolumeError: they contradict each other, or a slice is missing.
    """
    _check_copies(frames)
    _check_owner(frames)
    _check_alike(frames)
    if len(frames) == 1:
        return [list(frames)], _affine(frames[0], None)
    for frame in frames:
        if frame.position is None:
            raise VolumeError(f"{frame.file} does not say where its slice lies: leave it out of the series")
    stacks = _stacked(frames, path)
    if len(stacks) > 1 and frames[0].samples > 1:
        raise VolumeError(f"{path} holds {len(stacks)} time points in colour: convert the series to grey")
    return stacks, _affine(stacks[0][0], _step(stacks[0], path))


def _stacked(frames: Sequence[Frame], path: Path) -> list[list[Frame]]:
    turned = [one for one in frames if np.abs(one.directions - frames[0].directions).max() > DIRECTION_TOLERANCE]
    if turned:
        odd = frames[0] if 2 * len(turned) > len(frames) else turned[0]
        raise GeometryError(
            f"{path}: slices point in different directions: take out localisers and other planes, as {odd.file.name}"
        )
    normal = np.cross(frames[0].directions[:3], frames[0].directions[3:])
    by_place = sorted(frames, key=lambda frame: float(_position(frame) @ normal))
    along = np.array([_position(frame) @ normal for frame in by_place])
    starts = [0, *(np.flatnonzero(np.diff(along) > SAME_PLACE_MM) + 1).tolist(), len(frames)]
    places = [by_place[start:end] for start, end in pairwise(starts)]
    if len({len(place) for place in places}) > 1:
        raise GeometryError(f"{path}: {len(frames)} slices at {len(places)} places: some are missing or stored twice")
    if len(places[0]) > 1:
        _check_times(places[0])
    in_time = [sorted(place, key=lambda frame: frame.order) for place in places]
    return [list(stack) for stack in zip(*in_time, strict=True)]


def _check_times(place: Sequence[Frame]) -> None:
    """Check that frames at one place differ in time."""
    for one, other in pairwise(place):
        if one.order[:-1] == other.order[:-1] and one.frames > 1 and one.file == other.file:
            raise VolumeError(
                f"{one.file}: frames {one.index + 1} and {other.index + 1} lie at one place and have no time: "
                "export the time points as series of their own"
            )


def _position(frame: Frame) -> np.ndarray:
    return np.zeros(3) if frame.position is None else frame.position


def _step(stack: Sequence[Frame], path: Path) -> np.ndarray | None:
    """Vector from one slice to the next, LPS mm."""
    if len(stack) == 1:
        return None
    positions = np.array([_position(frame) for frame in stack])
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    line = positions[0] + np.arange(len(positions))[:, None] * step
    off = np.linalg.norm(positions - line, axis=1).max()
    if max(gaps.max() - gaps.min(), off) > GAP_TOLERANCE * np.median(gaps):
        raise GeometryError(
            f"{path}: slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart: one is missing or out of place "
            f"{_where(stack, gaps)}"
        )
    return np.asarray(step)


def _where(stack: Sequence[Frame], gaps: np.ndarray) -> str:
    """The neighbours of the gap that differs most from the others."""
    number = int(np.abs(gaps - np.median(gaps)).argmax())
    one, other = stack[number], stack[number + 1]
    if one.file == other.file:
        return f"between frames {one.index + 1} and {other.index + 1}"
    return f"between {one.file.name} and {other.file.name}"


def _affine(first: Frame, step: np.ndarray | None) -> np.ndarray:
    """RAS+ mm, from the first slice and the step to the next; a single slice is as thick as its header says."""
    row, column = (axis / np.linalg.norm(axis) for axis in (first.directions[:3], first.directions[3:]))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * first.spacing_mm[0], column * first.spacing_mm[1]
    lps[:3, 2] = np.cross(row, column) * first.thickness_mm if step is None else step
    lps[:3, 3] = _position(first)
    return LPS_TO_RAS @ lps


# ---------------------------------------------------------------- slices that contradict each other


def _check_copies(frames: Sequence[Frame]) -> None:
    """Refuse slices stored twice, which would be taken for two time points."""
    first: dict[str, Path] = {}
    for frame in frames:
        other = first.setdefault(frame.instance, frame.file) if frame.instance else frame.file
        if other != frame.file:
            raise VolumeError(f"{frame.file} and {other.name} hold one slice, stored twice: take one of them away")


def _check_owner(frames: Sequence[Frame]) -> None:
    """Check that a series has one patient, study and frame of reference; missing tags are ignored."""
    for tag in frames[0].owner:
        known = [frame for frame in frames if frame.owner[tag]]
        odd = _odd_one([frame.owner[tag] for frame in known])
        if odd is not None:
            raise VolumeError(
                f"{known[odd].file} has another {tag} than the other slices of its series: put the slices of each "
                "patient and study into a folder of their own"
            )


def _check_alike(frames: Sequence[Frame]) -> None:
    for what, value in AGREE.items():
        values = [value(frame) for frame in frames]
        if (odd := _odd_one(values)) is not None:
            raise _contradiction(frames[odd], what, values[odd], Counter(values).most_common(1)[0][0])
    spacings = np.array([frame.spacing_mm for frame in frames])
    usual = np.median(spacings, axis=0)
    wrong = ~np.isclose(spacings, usual, rtol=SAME_SPACING, atol=0).all(axis=1)
    if wrong.any():
        number = int(np.flatnonzero(wrong)[0])
        raise _contradiction(frames[number], "pixel spacing", frames[number].spacing_mm, tuple(usual.tolist()))
    # scanners write one scaling for all slices or, as Philips does, one for each: one slice alone is a mistake
    scalings = [frame.scaling for frame in frames]
    common, count = Counter(scalings).most_common(1)[0]
    if len(scalings) / 2 < count < len(scalings):
        number = next(index for index, scaling in enumerate(scalings) if scaling != common)
        raise _contradiction(frames[number], "slope and intercept", scalings[number], common)


def _odd_one(values: Sequence[Hashable]) -> int | None:
    """Index of the first value that is not the most common one."""
    if len(set(values)) < 2:
        return None
    common = Counter(values).most_common(1)[0][0]
    return next(index for index, value in enumerate(values) if value != common)


def _contradiction(frame: Frame, what: str, odd: object, common: object) -> VolumeError:
    where = f"frame {frame.index + 1} of {frame.file}" if frame.frames > 1 else str(frame.file)
    return VolumeError(
        f"{where} contradicts its series: {what} {odd}, the others {common}: take it out, or export the series again"
    )


# ---------------------------------------------------------------- pixels


class _Decoder:
    """Decodes the values of frames one by one; the numbers of a multi-frame file are kept in memory."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        scalings = {(frame.file, frame.scaling) for frame in frames}
        several = Counter(file for file, _ in scalings)
        # ITK scales every frame as the first one
        self._unscaled = {file for file, count in several.items() if count > 1}
        self._file: Path | None = None
        self._numbers = np.empty(0)

    def values(self, frame: Frame) -> np.ndarray:
        """(rows, columns[, colours]): scaled, and bright where a viewer shows them bright."""
        slope, inter = frame.scaling
        unscaled = frame.file in self._unscaled
        if frame.file != self._file:
            self._numbers, self._file = _stored(frame) if unscaled else _scaled(frame), frame.file
        numbers = self._numbers[frame.index]
        if not unscaled:
            return np.asarray(numbers)
        if frame.photometric == "MONOCHROME1":  # the largest number is black; of what ITK decodes it sees to that
            numbers = (-1 if frame.signed else 2 ** frame.bits[1] - 1) - numbers.astype(np.int64)
        return np.asarray(numbers * slope + inter)


def _stored(frame: Frame) -> np.ndarray:
    if not is_native(frame.file):
        raise VolumeError(f"{frame.file} holds compressed frames with slopes of their own: decompress it first")
    return stored_numbers(frame.file)


def _scaled(frame: Frame) -> np.ndarray:
    """Values (frames, rows, columns[, colours]) of a file."""
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(frame.file)))
        colours = [frame.samples] if frame.samples > 1 else []
        return np.asarray(array).reshape(frame.frames, frame.size[1], frame.size[0], *colours)
    except (RuntimeError, ValueError) as error:
        raise VolumeError(
            f"{frame.file} is truncated, damaged or no image: copy it again, or take it out of the series"
        ) from error


def _dtype(frames: Sequence[Frame]) -> str:
    """Name of a type that holds the values of every frame."""
    if any(number != round(number) for frame in frames for number in frame.scaling):
        return "float64"
    first = frames[0]
    if all(frame.scaling == (1.0, 0.0) for frame in frames):
        return f"{'' if first.signed else 'u'}int{8 if first.bits[0] == 8 else 16 if first.bits[0] <= 16 else 32}"
    return "int32"

"""The short-axis view of the left ventricle: slices from base to apex, with the centre, ring and level of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmed.cardiac.heart import BODY_APEX, HeartLabels, HeartPosition, Level
from segmed.cardiac.long_axis import sliced
from segmed.cardiac.rings import Cut, Ring, rings
from segmed.errors import CardiacError
from segmed.geometry import as_affine

Kind = Literal["ring", "partial", "cap"]

TAPER = 0.15  # change of the cavity's radius from end to end, relative to its mean, that tells base from apex
RV_TAPER = 0.3  # change of the RV's area between both halves, relative to the larger
LEVELS = 3  # basal, mid and apical: a stack of fewer slices lacks one, and says not which
TOO_FEW = "fewer than three slices from the most basal full ring to the cavity's end have no three levels"
COMPACT = 0.4  # share of the disc around it that a cap of the apex fills; a crescent at the base fills less
ALONG_SCANNER = 1 - 1e-7  # cosine of axes that run along the scanner's
BODY_COSINE = 0.5  # the long axis must run this much along the direction of hearts in chests to tell its apex


@dataclass(frozen=True)
class ShortSlice:
    """One slice of the view.

    Attributes:
        index: in the view, from 0.
        stored_index: in the stored stack along its slice axis, from 0; None where slices are interpolated.
        position_mm: distance of its middle from that of the view's first slice.
        centre: of the LV, in voxels along the view's first two axes; extrapolated where there is no cavity.
        ring: what its wall is like.
        kind: `ring`: wall all around the cavity; `partial`: wall in a part of the directions, or none of the
            cavity; `cap`: wall beyond the apical end of the cavity.
        level: third of the ventricle, `apex` for the cap; None where it can't be known.
    """

    index: int
    stored_index: int | None
    position_mm: float
    centre: tuple[float, float]
    ring: Ring
    kind: Kind
    level: Level | None


@dataclass(frozen=True)
class ShortAxis:
    """The LV in short-axis slices.

    Attributes:
        cut: masks on the grid of the view; its last axis runs from base to apex where `apex_from` is known.
        slices: one for each step along that axis.
        interpolated: whether the slices were cut anew from a volume of thin voxels.
        apex_from: what told the apex from the base: `given`, `shape`, or `body` (the affine, taking it that the heart
            lies as usual in its chest); None: nothing did.
        trouble: why the affine does not say where left, front and above are; None where it does.
        notes: what a reader of the numbers has to know, one line each.
    """

    cut: Cut
    slices: tuple[ShortSlice, ...]
    interpolated: bool
    apex_from: Literal["given", "shape", "body"] | None
    trouble: str | None
    notes: tuple[str, ...]

    @property
    def oriented(self) -> bool:
        return self.trouble is None

    @property
    def long_axis(self) -> np.ndarray:
        """Unit vector in RAS, from base to apex where that is known."""
        return self.cut.axes[:, 2]

    def locate(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest slice of points, and their direction from its centre.

        Args:
            points_mm: (N, 3) RAS mm.

        Returns:
            (N,) indices of slices, and (N,) angles in radians as of `Cut`.
        """
        to_view = np.linalg.inv(self.cut.affine)
        at = points_mm @ to_view[:3, :3].T + to_view[:3, 3]
        nearest = np.clip(np.floor(at[:, 2] + 0.5).astype(int), 0, len(self.slices) - 1)
        centres = np.array([one.centre for one in self.slices])[nearest]
        return nearest, self.cut.angle_rad(at[:, 0] - centres[:, 0], at[:, 1] - centres[:, 1])


def short_axis_view(heart: HeartLabels, position: HeartPosition | None = None) -> ShortAxis:
    """Cut a heart into short-axis slices from base to apex, and tell what each of them is.

    Stacks of thick slices are taken as they are; volumes of thin ones are cut anew across the long axis. The thirds
    are those of the span from the most basal full ring to the apical end of the cavity, and what lies beyond that
    end is the apex (Cerqueira et al. 2002; Schulz-Menger et al. 2020). With fewer than three slices in that span the
    levels can't be known. Slices above the most basal full ring, through
    the outflow tract, count as basal.

    Base and apex are told apart by the shape: toward the apex the cavity and the RV grow smaller, and the wall closes.
    Only where none of that says anything is it taken from the affine, and the notes say so. An affine that can't be
    true is not used for that nor for the septum: slices of a heart's short axis that run exactly along the axes of the
    scanner, as in files whose orientation was lost, or an apex that points up, back and to the right.

    Args:
        heart: labels, on any grid with right angles.
        position: what is known of how it lies.

    Raises:
        CardiacError: no cavity; slices that are no short axis; no direction in which the wall makes rings.
    """
    position = position or HeartPosition()
    heart_cut, stored = sliced(heart, position)
    slice_rings = rings(heart_cut)
    if not any(ring.centre for ring in slice_rings):
        raise CardiacError(
            "the LV wall encloses no cavity in any slice: give the blood pool's label, or check that the wall is closed"
        )
    trouble = _axes_trouble(heart_cut, stored, position)
    from_end, apex_from = _apex_end(heart_cut, slice_rings, position, oriented=trouble is None)
    if from_end < 0:
        heart_cut, slice_rings = _reversed(heart_cut), slice_rings[::-1]
    kinds = _kinds(slice_rings, apex_known=apex_from is not None)
    _check_rings(kinds, stored)
    levels = _levels(slice_rings, kinds, position, apex_known=apex_from is not None)
    stored_indices = _stored_indices(heart, heart_cut) if stored else [None] * len(slice_rings)
    slices = tuple(
        ShortSlice(number, stored_indices[number], number * heart_cut.spacing_mm[2], centre, ring, kind, level)
        for number, (centre, ring, kind, level) in enumerate(
            zip(_centres(slice_rings), slice_rings, kinds, levels, strict=True)
        )
    )
    if trouble is None and apex_from in ("given", "shape") and BODY_APEX @ heart_cut.axes[:, 2] < 0:
        trouble = "by the image's header the apex points up, back and to the right"
    notes = _notes(slices, apex_from, stored=stored)
    return ShortAxis(heart_cut, slices, not stored, apex_from, trouble, notes)


def _axes_trouble(heart: Cut, stored: bool, position: HeartPosition) -> str | None:
    if not position.oriented:
        return "the image has no orientation"
    if stored and np.abs(heart.axes).max(axis=0).min() > ALONG_SCANNER:
        return "by the image's header the short-axis slices run exactly along the scanner's axes: it was lost"
    return None


def _reversed(heart: Cut) -> Cut:
    affine = heart.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (heart.wall.shape[2] - 1)
    affine[:3, 2] *= -1
    rv = None if heart.rv is None else heart.rv[..., ::-1]
    return Cut(heart.wall[..., ::-1], heart.pool[..., ::-1], rv, affine)


# ---------------------------------------------------------------- base and apex


def _apex_end(
    heart: Cut, slice_rings: list[Ring], position: HeartPosition, *, oriented: bool
) -> tuple[int, Literal["given", "shape", "body"] | None]:
    """1 where the apex lies at the last slice, -1 where it lies at the first, and what told so."""
    axis = heart.axes[:, 2]
    if position.apex_mm is not None:
        middle = heart.affine @ np.array([*((np.array(heart.wall.shape) - 1) / 2), 1.0])
        return (1 if (np.array(position.apex_mm) - middle[:3]) @ axis > 0 else -1), "given"
    votes = sum((_by_cavity(slice_rings), _by_cap(slice_rings), _by_rv(heart)))
    if votes != 0:
        return (1 if votes > 0 else -1), "shape"
    along = float(BODY_APEX @ axis)
    if oriented and abs(along) >= BODY_COSINE:
        return (1 if along > 0 else -1), "body"
    return 1, None


def _by_cavity(slice_rings: list[Ring]) -> int:
    full = [(number, np.sqrt(ring.cavity_mm2)) for number, ring in enumerate(slice_rings) if ring.is_full]
    if len(full) < 2:
        return 0
    places, radii = np.array(full).T
    change = np.polyfit(places, radii, 1)[0] * (places[-1] - places[0]) / radii.mean()
    return 0 if abs(change) < TAPER else -int(np.sign(change))


def _by_cap(slice_rings: list[Ring]) -> int:
    def closes(ring: Ring) -> bool:
        return ring.centre is None and ring.compact >= COMPACT

    first, last = closes(slice_rings[0]), closes(slice_rings[-1])
    return int(last) - int(first)


def _by_rv(heart: Cut) -> int:
    if heart.rv is None or heart.wall.shape[2] < 2:
        return 0
    areas = heart.rv.sum(axis=(0, 1)).astype(float)
    half = len(areas) // 2
    first, last = areas[:half].sum(), areas[-half:].sum()
    return 0 if abs(first - last) < RV_TAPER * max(first, last) else int(np.sign(first - last))


# ---------------------------------------------------------------- what the slices are


def _kinds(slice_rings: list[Ring], *, apex_known: bool) -> list[Kind]:
    """The kind of each slice; without a known apex, a closed slice at either end is a cap."""
    with_cavity = [number for number, ring in enumerate(slice_rings) if ring.centre is not None]
    first, last = with_cavity[0], with_cavity[-1]
    kinds: list[Kind] = []
    for number, ring in enumerate(slice_rings):
        beyond = number > last or (not apex_known and number < first and ring.compact >= COMPACT)
        kinds.append("cap" if beyond else "ring" if ring.is_full else "partial")
    return kinds


def _check_rings(kinds: list[Kind], stored: bool) -> None:
    sides = [kind for kind in kinds if kind != "cap"]
    full = sides.count("ring")
    if 2 * full < len(sides) or full == 0:
        what = "the stored slices are no short axis" if stored else "the LV has no short axis that can be found"
        advice = "segments and transmurality need short-axis slices, or a volume of thin slices; check the label map"
        raise CardiacError(f"{what}: the wall goes all around in {full} of {len(sides)} slices; {advice}")


def _levels(
    slice_rings: list[Ring], kinds: list[Kind], position: HeartPosition, *, apex_known: bool
) -> list[Level | None]:
    if len(slice_rings) == 1:
        return [position.level]
    if not apex_known:
        return [None] * len(slice_rings)
    first, last = _span(slice_rings, kinds)
    if last - first + 1 < LEVELS:
        return [None] * len(slice_rings)
    levels: list[Level | None] = []
    for number, kind in enumerate(kinds):
        share = (number - first + 0.5) / (last - first + 1)
        if kind == "cap":
            levels.append("apex")
        else:
            levels.append("basal" if share < 1 / 3 else "mid" if share < 2 / 3 else "apical")
    return levels


def _span(slice_rings: list[Ring], kinds: list[Kind]) -> tuple[int, int]:
    """The first and the last slice of what is cut into thirds: from the most basal full ring to the cavity's end."""
    return kinds.index("ring"), max(number for number, ring in enumerate(slice_rings) if ring.centre is not None)


def _centres(slice_rings: list[Ring]) -> list[tuple[float, float]]:
    """Centres of all slices: that of the nearest full ring where there is no cavity, or a part of one."""
    full = [number for number, ring in enumerate(slice_rings) if ring.is_full]
    centres = []
    for number in range(len(slice_rings)):
        nearest = slice_rings[
            number if slice_rings[number].is_full else min(full, key=lambda other: abs(other - number))
        ]
        centres.append(nearest.centre or (0.0, 0.0))
    return centres


def _stored_indices(heart: HeartLabels, heart_cut: Cut) -> list[int | None]:
    to_stored = np.linalg.inv(as_affine(heart.affine)) @ heart_cut.affine
    return [
        round(float((to_stored @ np.array([0, 0, number, 1.0]))[heart.slice_axis]))
        for number in range(heart_cut.wall.shape[2])
    ]


def _notes(slices: tuple[ShortSlice, ...], apex_from: str | None, *, stored: bool) -> tuple[str, ...]:
    notes = []
    partial = sum(one.kind == "partial" for one in slices)
    if partial:
        notes.append(f"{partial} of {len(slices)} slices have no full ring of wall; they count with their third")
    if len(slices) == 1:
        level = slices[0].level
        notes.append(
            "one slice: base, apex and length can't be known" + ("" if level is None else f"; given as {level}")
        )
        return tuple(notes)
    if apex_from is None:
        notes.append("base and apex can't be told apart from the shape: give a point near the apex")
        return tuple(notes)
    if all(one.level is None for one in slices):
        notes.append(f"levels and segments can't be known: {TOO_FEW}")
        return tuple(notes)
    if apex_from == "body":
        notes.append("base and apex were told apart by the affine alone, taking it that the heart lies as usual")
    if stored and slices[0].kind == "ring":
        notes.append(
            "the stack's first slice is a full ring: the base may lie beyond it, the thirds are of what is seen"
        )
    if slices[-1].kind != "cap":
        notes.append("the slices end before the cavity does: the apex (segment 17) was not seen")
    return tuple(notes)

"""Where the septum lies: the insertions of the right ventricle, and which of them is the anterior one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmed.cardiac.heart import BODY_ANTERIOR, HeartPosition, Point
from segmed.cardiac.short_axis import ShortAxis, ShortSlice
from segmed.errors import CardiacError

RAYS = 360
CONTACT_MM = 4.0  # the RV lies against the wall where it begins so close to the epicardium
GAP_RAD = np.radians(15)  # gaps in that contact that are closed
SEPTUM_RAD = (np.radians(30), np.radians(220))  # shortest and longest contact that is a septum
BODY_SHARE = 0.3  # of a direction that must remain in the plane, and agree with it, to tell front from below

GIVE_POINTS = "give the RV insertion points (anterior_mm, inferior_mm)"


@dataclass(frozen=True)
class Septum:
    """The part of the ring between the two insertions of the RV.

    Attributes:
        anterior_rad: angle of the anterior insertion, as angles of the view.
        inferior_rad: of the inferior one; None where only the anterior one was given.
        turn: 1 where angles grow from the anterior insertion through the septum, -1 where they fall.
        source: `rv`: the RV's label; `points`: given.
        notes: what a reader of the segments has to know, one line each.
    """

    anterior_rad: float
    inferior_rad: float | None
    turn: int
    source: Literal["rv", "points"]
    notes: tuple[str, ...] = ()

    @property
    def middle_rad(self) -> float:
        """Middle of the septum; 60 degrees behind the anterior insertion where the other is not known."""
        if self.inferior_rad is None:
            return self.anterior_rad + self.turn * np.pi / 3
        width = np.mod(self.turn * (self.inferior_rad - self.anterior_rad), 2 * np.pi)
        return float(self.anterior_rad + self.turn * width / 2)


def find_septum(view: ShortAxis, position: HeartPosition | None = None) -> Septum:
    """Find the insertions of the RV from given points, or else from the RV's label.

    Seen from the apex with the front above, the septum lies on the left: that tells the anterior insertion of the
    two, wherever the apex is known from the shape. It is checked against the affine, by which the anterior wall faces
    forward and up. Where both contradict each other (a mirrored image, a wrong header, a heart on the right) or
    neither says anything, nothing is guessed.

    Args:
        view: of the LV.
        position: its points are used where they are given.

    Raises:
        CardiacError: the RV is not labelled, or does not lie against the wall; front and below can't be told apart.
    """
    position = position or HeartPosition()
    if position.anterior_mm is not None:
        return _from_points(view, position.anterior_mm, position.inferior_mm)
    if position.inferior_mm is not None:
        raise CardiacError("an inferior insertion point without the anterior one: give anterior_mm too")
    if view.cut.rv is None:
        raise CardiacError(f"the RV is not labelled, so the septum can't be known: {GIVE_POINTS}")
    middle, half_width = _contact(view)
    turn, notes = _which_is_anterior(view, middle)
    return Septum(middle - turn * half_width, middle + turn * half_width, turn, "rv", notes)


def _from_points(view: ShortAxis, anterior_mm: Point, inferior_mm: Point | None) -> Septum:
    points = np.array([anterior_mm] if inferior_mm is None else [anterior_mm, inferior_mm])
    _, angles = view.locate(points)
    handed = 1 if view.oriented and view.apex_from is not None else 0
    if inferior_mm is None:
        if not handed:
            raise CardiacError(
                "one insertion point does not say on which side of it the septum lies: give inferior_mm too"
            )
        return Septum(float(angles[0]), None, handed, "points")
    apart = float(np.mod(angles[1] - angles[0] + np.pi, 2 * np.pi) - np.pi)
    if abs(apart) < SEPTUM_RAD[0]:
        raise CardiacError(
            f"the insertion points lie {np.degrees(abs(apart)):.0f} degrees apart: give those on both sides "
            "of the septum"
        )
    turn = 1 if apart > 0 else -1
    mirrored = handed and turn != handed
    notes = ("by the given points the image is mirrored: check the header, or the points",) if mirrored else ()
    return Septum(float(angles[0]), float(angles[1]), turn, "points", notes)


# ---------------------------------------------------------------- from the label of the RV


def _contact(view: ShortAxis) -> tuple[float, float]:
    """Middle and half of the width of where the RV lies against the wall, over basal and mid slices."""
    full = [one for one in view.slices if one.kind == "ring"]
    upper = [one for one in full if one.level in ("basal", "mid", None)]
    for chosen in (upper, full):
        arcs = [arc for arc in (_arc(view, one) for one in chosen) if arc is not None]
        if arcs:
            middles, halves = np.array(arcs).T
            mean = np.exp(1j * middles).mean()
            return float(np.angle(mean)), float(np.median(halves))
    raise CardiacError(f"the RV's label lies nowhere against the LV wall as a septum does: {GIVE_POINTS}")


def _arc(view: ShortAxis, one: ShortSlice) -> tuple[float, float] | None:
    """Middle and half of the width of the contact in one slice; None without one that could be a septum."""
    rv = view.cut.rv
    if rv is None or not rv[..., one.index].any():
        return None
    angles = np.arange(RAYS) * 2 * np.pi / RAYS
    wall = view.cut.along_rays(view.cut.wall[..., one.index], one.centre, angles)
    right = view.cut.along_rays(rv[..., one.index], one.centre, angles)
    steps = np.arange(wall.shape[1])
    epicardium = np.where(wall, steps, -1).max(axis=1, initial=-1)
    beyond = steps - epicardium[:, None]
    near = (beyond > 0) & (beyond <= CONTACT_MM / view.cut.step_mm)
    touching = (right & near).any(axis=1) & (epicardium >= 0)
    start, length = _longest_run(touching, gap=round(GAP_RAD / (2 * np.pi) * RAYS))
    width = length * 2 * np.pi / RAYS
    if not SEPTUM_RAD[0] <= width <= SEPTUM_RAD[1]:
        return None
    return float(angles[start] + width / 2 - np.pi / RAYS), width / 2


def _longest_run(touching: np.ndarray, *, gap: int) -> tuple[int, int]:
    """Start and length of the longest run around a circle, across gaps of a few."""
    hit = np.flatnonzero(touching)
    if len(hit) == 0:
        return 0, 0
    ahead = np.diff(np.append(hit, hit[0] + len(touching)))
    breaks = np.flatnonzero(ahead > gap + 1)
    if len(breaks) == 0:
        return 0, len(touching)
    starts = hit[(breaks + 1) % len(hit)]
    ends = hit[np.roll(breaks, -1)]
    lengths = np.mod(ends - starts, len(touching)) + 1
    longest = int(lengths.argmax())
    return int(starts[longest]), int(lengths[longest])


def _which_is_anterior(view: ShortAxis, middle: float) -> tuple[int, tuple[str, ...]]:
    """1 where angles grow from the anterior insertion to the inferior one, -1 where they fall, and notes."""
    if view.trouble is not None:
        raise CardiacError(f"{view.trouble}, so the anterior insertion of the RV can't be known: {GIVE_POINTS}")
    by_body = _by_body(view, middle)
    if view.apex_from is not None and by_body == -1:
        raise CardiacError(
            "apex and RV say that the anterior wall faces backward or down: the image is mirrored, its header is "
            f"wrong, or the heart lies unusually; {GIVE_POINTS}"
        )
    if view.apex_from in ("given", "shape"):
        return 1, ()
    if view.apex_from is None and by_body == 0:
        raise CardiacError(f"neither shape nor affine tell the anterior insertion of the RV: {GIVE_POINTS}")
    told = "the anterior insertion was told by the affine alone, taking it that the heart lies as usual"
    return by_body or 1, (told,)


def _by_body(view: ShortAxis, middle: float) -> int:
    """1 or -1 by where forward and up lie in the plane of the slices, 0 where that says nothing."""
    axes = view.cut.axes
    facing = axes[:, 0] * np.cos(middle - np.pi / 2) + axes[:, 1] * np.sin(middle - np.pi / 2)
    in_plane = BODY_ANTERIOR - (BODY_ANTERIOR @ axes[:, 2]) * axes[:, 2]
    agreement = float(facing @ in_plane)
    size = float(np.linalg.norm(in_plane))
    if size < BODY_SHARE or abs(agreement) < BODY_SHARE * size:
        return 0
    return 1 if agreement > 0 else -1

"""A NIfTI header -> the affine of its voxels, and contradictions about it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np

from segmed.errors import GeometryError, VolumeError
from segmed.geometry import check_affine, spacing_mm

QUATERNION_TOLERANCE = 1e-2  # of its length over 1: older converters round its three numbers
APART_VOXELS = 0.1  # of the smallest spacing, from which on two affines are two places
SPACING_RATIO = 1e-2  # relative difference from which on two spacings are two


@np.errstate(invalid="ignore")  # NaN is looked for below
def placed(header: nib.Nifti1Header, path: Path) -> tuple[np.ndarray, str]:
    """The affine of a header, in its own unit, and a note on what was chosen or repaired for it (empty: nothing).

    The sform counts before the qform, and the qform before the spacing alone. A sheared sform gives way to a rigid
    qform. Repairs are made in `header`, too.

    Raises:
        VolumeError: no form and a spacing that is not positive; a rotation or codes that make no sense.
    """
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # the standard: 0 means 1
    if int(header["sform_code"]) > 0:
        affine = header.get_sform().astype(np.float64)
        wrong = _not_positive(header)
        if _is_grid(affine):
            if not wrong:
                return affine, ""
            header["pixdim"][1:4] = spacing_mm(affine)
            return affine, f"spacing ({wrong}) mm of pixdim is not positive: the sform's counts"
        if int(header["qform_code"]) > 0 and not wrong:
            rigid, choice = _qform(header, path)
            if not _is_grid(rigid):
                return affine, ""
            header.set_sform(None, 0)
            return rigid, "; ".join(
                ["the axes of its sform are not orthogonal: its qform counts", *filter(None, [choice])]
            )
        return affine, ""
    thickness = _repaired_spacing(header, path)
    if int(header["qform_code"]) > 0:
        affine, choice = _qform(header, path)
        return affine, "; ".join(filter(None, [thickness, choice]))
    return header.get_base_affine().astype(np.float64), thickness


@np.errstate(invalid="ignore")
def contradictions(header: nib.Nifti1Header) -> list[str]:
    """Disagreements of sform, qform and pixdim in a header as stored."""
    header = header.copy()
    if int(header["sform_code"]) <= 0:
        return []
    sform, lines = header.get_sform().astype(np.float64), []
    steps = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    if not (_is_grid(sform) and np.isfinite(steps).all() and (steps > 0).all()):
        return []
    spacing = np.array(spacing_mm(sform))
    if (np.abs(spacing / steps - 1) > SPACING_RATIO).any():
        lines.append(f"the sform says voxels of {_text(spacing)} mm, pixdim says {_text(steps)} mm: the sform counts")
    if int(header["qform_code"]) > 0:
        try:
            qform = _qform(header, Path())[0]
        except VolumeError:
            return [*lines, "its qform makes no sense: the sform counts"]
        shape = [max(int(n), 1) for n in header["dim"][1:4]]
        corners = np.array([(*corner, 1.0) for corner in product(*((0, n - 1) for n in shape))])
        apart_mm = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
        if apart_mm > APART_VOXELS * spacing.min():
            lines.append(f"sform and qform place voxels up to {apart_mm:.3g} mm apart: the sform counts")
    return lines


def _is_grid(affine: np.ndarray) -> bool:
    try:
        check_affine(affine, "")
    except VolumeError:
        return False
    return True


def _not_positive(header: nib.Nifti1Header) -> str:
    """The spacings, where one of them is not positive."""
    steps = header["pixdim"][1 : 1 + min(max(int(header["dim"][0]), 1), 3)]
    return "" if np.isfinite(steps).all() and (steps > 0).all() else ", ".join(f"{float(step):.6g}" for step in steps)


def _repaired_spacing(header: nib.Nifti1Header, path: Path) -> str:
    """Give an axis of one voxel that has no spacing 1 mm; refuse others."""
    count, note = int(header["dim"][0]), ""
    for axis in range(1, 4):
        alone = axis > count or int(header["dim"][axis]) == 1
        if alone and not header["pixdim"][axis] > 0:
            header["pixdim"][axis] = 1
            note = "the thickness of its one slice is not known: taken as 1 mm" if axis <= count else note
    if wrong := _not_positive(header):
        raise GeometryError(f"{path}: spacing ({wrong}) mm is not positive: repair pixdim in the header")
    return note


def _qform(header: nib.Nifti1Header, path: Path) -> tuple[np.ndarray, str]:
    names = ("quatern_b", "quatern_c", "quatern_d")
    length, note = float(np.linalg.norm([float(header[name]) for name in names])), ""
    if 1 < length <= 1 + QUATERNION_TOLERANCE:
        for name in names:
            header[name] = np.float32(float(header[name]) / length * (1 - 1e-7))
        note = f"its quaternion is {length:.7g} long: shortened to 1" if length > 1 + 1e-6 else ""
    try:
        return header.get_qform().astype(np.float64), note
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        reason = str(error).splitlines()[0]
        raise VolumeError(f"{path} has a damaged header (qform: {reason}): write the file anew") from error


def _text(values: np.ndarray) -> str:
    return " × ".join(f"{value:.6g}" for value in values)

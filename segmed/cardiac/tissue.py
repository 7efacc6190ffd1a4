"""What a scar is made of: dense core, grey zone, and the dark core of microvascular obstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from segmed.cardiac.heart import HeartLabels
from segmed.cardiac.rings import enclosed
from segmed.errors import CardiacError
from segmed.segmenters.obstruction import dark_cores


@dataclass(frozen=True)
class GreyZone:
    """Thresholds between healthy muscle, grey zone and core.

    | definition | core | grey zone |
    |---|---|---|
    | `half_maximum` | from `core_share` of the scar's maximum | from remote mean + `sd_count` SD up to the core |
    | `roes` | from 50 % of the scar's maximum | from 35 % of it up to the core |
    | `yan` | from remote mean + 3 SD | from remote mean + 2 SD up to the core |

    The maximum is of the image inside the scar. Shares of it take it that zero is no signal, as in magnitude images;
    `yan` does not depend on where zero lies.

    Sources: Yan et al. 2006, Circulation 114:32; Schmidt et al. 2007, Circulation 115:2006 (grey zone from the peak
    of remote muscle up to 50 % of the maximum, which `half_maximum` takes as mean and SD, less of an accident than a
    peak); Roes et al. 2009, Circ Cardiovasc Imaging 2:183.

    Attributes:
        remote_mean, remote_sd: of intensities in remote, healthy muscle.
        definition: see the table.
        sd_count: of `half_maximum`, 2 or 3 in the literature.
        core_share: of `half_maximum`.

    Raises:
        CardiacError: an SD that is not positive, or a mean or SD that is not finite.
    """

    remote_mean: float
    remote_sd: float
    definition: Literal["half_maximum", "roes", "yan"] = "half_maximum"
    sd_count: float = 2.0
    core_share: float = 0.5

    def __post_init__(self) -> None:
        if not (np.isfinite(self.remote_mean) and np.isfinite(self.remote_sd) and self.remote_sd > 0):
            raise CardiacError(
                f"remote muscle of {self.remote_mean:g} ± {self.remote_sd:g} gives no threshold: "
                "choose a remote region whose intensities vary"
            )

    def thresholds(self, maximum: float) -> tuple[float, float]:
        """Least intensities of the grey zone and of the core.

        Args:
            maximum: of the scar.

        Raises:
            CardiacError: a core that begins below the grey zone.
        """
        mean, sd = self.remote_mean, self.remote_sd
        if self.definition == "yan":
            return mean + 2 * sd, mean + 3 * sd
        if self.definition == "roes":
            grey, core = 0.35 * maximum, 0.5 * maximum
        else:
            grey, core = mean + self.sd_count * sd, self.core_share * maximum
        if core <= max(grey, mean):
            raise CardiacError(
                f"core and grey zone can't be told apart: the core would begin at {core:.4g}, the grey zone at "
                f"{grey:.4g}, with remote muscle at {mean:.4g} ± {sd:.4g}; check the remote region and the scar"
            )
        return grey, core


@dataclass(frozen=True)
class Zones:
    """Core and grey zone of a scar.

    Attributes:
        core, grey_zone: (X, Y, Z) bool.
        core_from, grey_zone_from: least intensities; None without a scar.
    """

    core: np.ndarray
    grey_zone: np.ndarray
    core_from: float | None
    grey_zone_from: float | None


def scar_zones(image: np.ndarray, heart: HeartLabels, scar: np.ndarray, grey: GreyZone) -> Zones:
    """Core and grey zone by intensity, within the wall.

    Only voxels connected with the scar count: by chance, some of the remote muscle lies 2 SD above its mean.

    Args:
        image: (X, Y, Z), intensities.
        heart: whose wall it is.
        scar: (X, Y, Z) bool, inside the wall, without its obstruction.
        grey: definition and remote muscle.

    Raises:
        CardiacError: an image on another grid; thresholds that contradict each other.
    """
    if image.shape != scar.shape:
        raise CardiacError(f"the image has shape {image.shape}, the scar {scar.shape}: bring both onto one grid")
    if not scar.any():
        nothing = np.zeros(scar.shape, bool)
        return Zones(nothing, nothing.copy(), None, None)
    if not np.isfinite(image[heart.wall]).all():
        raise CardiacError("the image has values inside the LV wall that are not finite: repair it first")
    grey_from, core_from = grey.thresholds(float(image[scar].max()))
    bright = heart.wall & (image >= grey_from)
    joined, _ = ndimage.label(bright | scar, np.ones((3, 3, 3)))
    touched = np.unique(joined[scar])
    region = np.isin(joined, touched) & bright
    core = region & (image >= core_from)
    return Zones(core, region & ~core, core_from, grey_from)


def obstruction(heart: HeartLabels, scar: np.ndarray) -> np.ndarray:
    """Microvascular obstruction of a heart: the `dark_cores` of its scar, closed by scar or by scar and blood pool.

    Slices are those of the stored volume across its thickest voxels.

    Args:
        heart: with its pool where that is labelled, otherwise what the wall encloses in a slice.
        scar: (X, Y, Z) bool, inside the wall.

    Returns:
        (X, Y, Z) bool, inside the wall and outside the scar.
    """
    axis = heart.slice_axis
    pool = heart.pool
    if pool is None:
        pool = np.moveaxis(enclosed(np.moveaxis(heart.wall, axis, -1)), -1, axis)
    return dark_cores(scar, heart.wall, axis=axis, cavity=pool)

"""Where the healthy, nulled myocardium of a late enhancement image lies, and its mean and SD."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from segmed.errors import SegmenterError
from segmed.metrics.surfaces import bounding_box
from segmed.segmenters.region import Scene

BLOCK = 3  # voxels along an edge of the blocks that choose a sector, or are measured in it
BIN_DEG = 5.0  # windows of the wall start at every bin
LEFT_WITHOUT_BORDER = 1 / 3  # a slice of which less is left keeps its border: the wall is but a few voxels thick
ONE_TISSUE = (
    0.8  # largest share of variance between Otsu's two classes; 0.64 in a normal distribution, 0.75 in a flat one
)
ONE_SPREAD = 2.0  # of the voxels that are measured to those that chose: with more, a little scar lies among the former
SMALLEST_SPREAD = 1e-5  # smallest SD, as a share of the region's range

Place = tuple[slice, ...]


@dataclass(frozen=True)
class Remote:
    """Remote myocardium: muscle far from the scar, which the inversion time has made dark.

    Attributes:
        mean: intensity.
        sd: standard deviation of the intensity (of a sample: n - 1).
        voxels: how many it was taken from.
        mask: (X, Y, Z) bool, where they are.
    """

    mean: float
    sd: float
    voxels: int
    mask: np.ndarray

    def above(self, deviations: float) -> float:
        """The intensity so many SD above the mean."""
        return self.mean + deviations * self.sd


class RemoteRegion(ABC):
    """A method that finds the remote myocardium of a scene."""

    @abstractmethod
    def find(self, scene: Scene) -> Remote:
        """Mean, SD and place.

        Args:
            scene: whose region is the wall, scar included.

        Raises:
            SegmenterError: there is none, or too little of it to have a mean and an SD.
        """


@dataclass(frozen=True, kw_only=True)
class RemoteMask(RemoteRegion):
    """Remote myocardium that was drawn by hand or by another method.

    Args:
        name: of the mask in `scene.masks`; it need not lie in the region.
        smallest_voxels: with fewer there is no SD worth the name.
    """

    name: str
    smallest_voxels: int = 20

    def find(self, scene: Scene) -> Remote:
        mask = scene.mask(self.name)
        count = int(mask.sum())
        if count < self.smallest_voxels:
            raise SegmenterError(
                f"remote region '{self.name}' has {count} voxels, fewer than {self.smallest_voxels}: draw a larger one"
            )
        return _statistics(scene, mask, f"remote region '{self.name}'")


@dataclass(frozen=True, kw_only=True)
class RemoteSector(RemoteRegion):
    """Remote myocardium found by itself: the sector of the wall that is dark throughout.

    Slices are those of the thickest axis, and a ring is expected in them. In each a window of `arc_deg` goes round the
    middle of the ring (of the hole in it; of the mask `cavity` where one is named; of the region itself where there is
    no hole), in steps of 5 degrees, and stops where mean + SD of its voxels is lowest. The SD keeps it from a dark core
    of microvascular obstruction, whose bright rim lies in the same window. Voxels near the borders of the wall hold
    some blood or fat and are left out. Of the slices' windows those count together whose mean is at most one SD above
    that of the darkest: a slice that is scar all round does not count.

    The darkest of many windows is darker than the muscle by the luck of its noise. So one half of the voxels, in
    blocks of 3 x 3 like the black squares of a chessboard, chooses the windows, and the other half is measured in them,
    and the other way round. Of an even, healthy wall 2 SD then flag 2.3 %, which is right, where the noise of
    neighbours is independent (4.4 % if the voxels that choose are measured), and still too much where noise is smooth:
    4 to 5 % after a Gaussian filter of 0.7 voxels, 7 to 8.5 % of 1 voxel (7 and 10.5 %). Comparisons print what each
    row flags of the healthy wall.

    A wall that is enhanced everywhere and evenly looks like a healthy one: only blood tells them apart
    (`darker_than`). The result follows image * a + b, a > 0.

    Args:
        arc_deg: size of the window; a remote region drawn by hand is of about this size.
        border_mm: voxels nearer to the border of the wall than this, within the slice, are left out, unless less than
            a third of the slice would be left.
        smallest_voxels: a window with fewer is none.
        cavity: name of the mask whose middle is the middle of the ring, for slices where the ring is open.
        darker_than: name of a mask, such as the blood pool, that remote myocardium is darker than; not for images
            with black blood.
    """

    arc_deg: float = 60.0
    border_mm: float = 1.0
    smallest_voxels: int = 20
    cavity: str | None = None
    darker_than: str | None = None

    def __post_init__(self) -> None:
        if not BIN_DEG <= self.arc_deg <= 360:
            raise SegmenterError(f"a remote sector of {self.arc_deg:g} degrees: give {BIN_DEG:g} to 360")

    def find(self, scene: Scene) -> Remote:
        cavity = None if self.cavity is None else scene.mask(self.cavity)
        box = bounding_box(scene.region if cavity is None else scene.region | cavity)
        known = {} if cavity is None else {"cavity": cavity[box]}
        part = Scene(scene.image[box], scene.region[box], scene.spacing_mm, known)
        mask = np.zeros(scene.region.shape, bool)
        for black in (True, False):
            windows = list(self._windows(part, black=black))
            if not windows:
                continue
            darkest = min((window for _, window in windows), key=lambda window: window.above(1))
            for place, window in windows:
                if window.mean <= darkest.above(1):
                    mask[box][place] |= window.mask
        if not mask.any():
            raise SegmenterError(
                f"no remote region: no {self.arc_deg:g} degrees of the wall hold {self.smallest_voxels} voxels of "
                "different intensities: check region and image, or give a remote region"
            )
        remote = _statistics(scene, mask, "the darkest sector of the wall")
        self._check(scene, remote)
        return remote

    def _windows(self, scene: Scene, *, black: bool) -> Iterator[tuple[Place, Remote]]:
        """The window of each slice that is darkest in the black blocks, or in the white ones, and where the slice is.

        Its mean and SD are those of the blocks that chose it, its mask, of the slice's shape, has the others.
        """
        axis = scene.slice_axis
        spacing_mm = tuple(size for other, size in enumerate(scene.spacing_mm) if other != axis)
        smallest_sd = SMALLEST_SPREAD * float(np.ptp(scene.values))
        for place, part in scene.slices(axis):
            region = part.region.squeeze(axis)
            cavity = part.masks["cavity"].squeeze(axis) if "cavity" in part.masks else None
            kept = _without_border(region, spacing_mm, self.border_mm)
            angles_deg = _angles_deg(kept, _middle(region, cavity), spacing_mm)
            chosen_by = _chessboard(kept.shape) == black
            window = self._darkest(part.image.squeeze(axis), kept, chosen_by[kept], angles_deg, smallest_sd)
            if window is not None:
                yield place, replace(window, mask=np.expand_dims(window.mask, axis))

    def _darkest(
        self,
        image: np.ndarray,
        kept: np.ndarray,
        choosing: np.ndarray,
        angles_deg: np.ndarray,
        smallest_sd: float,
    ) -> Remote | None:
        """The window of a slice with the lowest mean + SD.

        Args:
            image: (X, Y).
            kept: (X, Y) bool, the voxels that count.
            choosing: of those voxels (N,) bool, by which the window is chosen; its mask has the others.
            angles_deg: of those voxels about the middle, (N,), 0 to 360.
            smallest_sd: windows of no larger SD hold no image, such as the zeros that a slice was filled with.
        """
        values = image[kept].astype(np.float64)
        shift = values.mean() if len(values) else 0.0  # squares of small numbers keep their digits
        bins = np.minimum((angles_deg // BIN_DEG).astype(int), round(360 / BIN_DEG) - 1)
        width = round(self.arc_deg / BIN_DEG)

        def sums(weights: np.ndarray) -> np.ndarray:
            each = np.bincount(bins, weights, minlength=round(360 / BIN_DEG)).astype(np.float64)
            total = np.concatenate([[0.0], np.cumsum(np.concatenate([each, each[: width - 1]]))])
            return total[width:] - total[:-width]

        def moments(part: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            counts, first, second = (sums(part * power) for power in (1.0, values - shift, (values - shift) ** 2))
            number = np.maximum(counts, 2)
            mean = first / number
            return counts, mean, np.sqrt(np.maximum(second - number * mean**2, 0) / (number - 1))

        (counts, mean, sd), (others, _, their_sd) = moments(choosing), moments(~choosing)
        enough = (counts + others >= max(self.smallest_voxels, 2)) & (np.minimum(counts, others) >= 2)
        enough &= (sd > smallest_sd) & (their_sd <= ONE_SPREAD * sd)
        if not enough.any():
            return None
        start = int(np.where(enough, mean + sd, np.inf).argmin())
        mask = np.zeros(kept.shape, bool)
        mask[kept] = ((bins - start) % round(360 / BIN_DEG) < width) & ~choosing
        return Remote(float(mean[start]) + shift, float(sd[start]), int(counts[start]), mask)

    def _check(self, scene: Scene, remote: Remote) -> None:
        values = scene.image[remote.mask].astype(np.float64)
        parts = values > threshold_otsu(values)
        between = parts.mean() * (1 - parts.mean()) * (values[parts].mean() - values[~parts].mean()) ** 2
        if between > ONE_TISSUE * values.var():
            raise SegmenterError(
                "no remote region: even the darkest sector of the wall holds two tissues: "
                "is all of the wall enhanced? give a remote region, or use a method without one"
            )
        if self.darker_than is None:
            return
        other = scene.mask(self.darker_than)
        if other.any() and remote.mean >= (level := float(scene.image[other].mean())):
            raise SegmenterError(
                f"no remote region: the darkest sector of the wall (mean {remote.mean:g}) is not darker than "
                f"'{self.darker_than}' ({level:g}): is all of the wall enhanced? use a method without a remote region"
            )


def _statistics(scene: Scene, mask: np.ndarray, what: str) -> Remote:
    values = scene.image[mask].astype(np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    if spread <= SMALLEST_SPREAD * np.ptp(scene.values):
        raise SegmenterError(
            f"{what} ({len(values)} voxels) has no spread of intensities: give another remote region, "
            "or use a method without one"
        )
    return Remote(float(values.mean()), float(spread), len(values), mask)


def _without_border(region: np.ndarray, spacing_mm: tuple[float, ...], border_mm: float) -> np.ndarray:
    """region (X, Y) -> (X, Y); beyond the array lies the outside."""
    depth_mm = ndimage.distance_transform_edt(np.pad(region, 1), sampling=spacing_mm)[1:-1, 1:-1]
    inner = depth_mm > border_mm
    return inner if inner.sum() >= LEFT_WITHOUT_BORDER * region.sum() else region


def _chessboard(shape: tuple[int, ...]) -> np.ndarray:
    """Blocks by turns True and False, (X, Y) bool; counted from the middle, so that flips change nothing."""
    x, y = (np.abs(2 * np.arange(size) - (size - 1)) // (2 * BLOCK) for size in shape)
    return (x[:, None] + y) % 2 == 0


def _middle(region: np.ndarray, cavity: np.ndarray | None) -> np.ndarray:
    """Middle of the ring (2,), in voxels: of the cavity, else of what the ring encloses, else of the ring."""
    if cavity is None or not cavity.any():
        cavity = ndimage.binary_fill_holes(region) & ~region
    return np.argwhere(cavity if cavity.any() else region).mean(axis=0)


def _angles_deg(mask: np.ndarray, middle: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Direction of each voxel of a mask (X, Y) from the middle, (N,), 0 to 360."""
    away_mm = (np.argwhere(mask) - middle) * np.array(spacing_mm)
    return np.degrees(np.arctan2(away_mm[:, 1], away_mm[:, 0])) % 360

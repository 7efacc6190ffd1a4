"""What a metric of a structure is: how it is computed, what it is called, what a miss costs, where it is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from segmed.metrics.surfaces import element_distances, surface_distances

Unit = Literal["", "mm", "ml", "pp", "%"]  # pp: percentage points
Miss = Literal["zero", "diagonal", "computed", "reference"]
Better = Literal["higher", "lower", "nearer to 0"]
# training: tags of TensorBoard; main: terminal, box plots, comparisons; without spacing: the terminal, where distances
# and volumes are not known; cases: the page's table of every case; rows, phantoms: comparisons of rows of a config.
Place = Literal["training", "main", "without spacing", "cases", "rows", "phantoms"]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two masks of one structure; what several metrics need is computed once.

    Attributes:
        prediction, reference: (X, Y, Z) bool, on one grid.
        spacing_mm: size of a voxel along X, Y and Z.
        tolerance_mm: distance up to which a surface voxel counts as right.
    """

    prediction: np.ndarray
    reference: np.ndarray
    spacing_mm: Sequence[float]
    tolerance_mm: float

    @cached_property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def true(self) -> int:
        """Voxels of the reference."""
        return int(np.count_nonzero(self.reference))

    @cached_property
    def shared(self) -> int:
        """Voxels of both."""
        return int(np.count_nonzero(self.prediction & self.reference))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return math.prod(self.spacing_mm) / 1000

    @cached_property
    def directed_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Distance of every surface voxel of one to the other's surface, both ways."""
        return surface_distances(self.prediction, self.reference, self.spacing_mm)

    @cached_property
    def distances_mm(self) -> np.ndarray:
        """Both ways together."""
        return np.concatenate(self.directed_mm)

    @cached_property
    def elements(self) -> tuple[np.ndarray, np.ndarray]:
        """Distance in mm of every surface element of both to the other's surface, and the element's area."""
        sides = element_distances(self.prediction, self.reference, self.spacing_mm)
        distances, areas = (np.concatenate(both) for both in zip(*sides, strict=True))
        return distances, areas


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    Attributes:
        name: of the column and key.
        title: in tables.
        compute: of two masks that both hold something; None: it needs more than masks, such as probabilities.
        unit: mm, ml, pp or none.
        digits: decimals; None: as many as show three to four figures.
        needs_spacing: with a spacing that is only nominal it would be noise.
        miss: what it is where exactly one mask is empty: 0 (1 where both are), the image's diagonal in mm (0 where
            both are), or what `compute` says of empty masks: of both, or of the reference alone.
        better: which values are; None: neither.
        shown: places, besides cases.csv and the summaries, which have every metric.
        rank: the lower, the further to the front where a place shows some.
        short: title where there is little room; empty: the title.
    """

    name: str
    title: str
    compute: Callable[[Pair], float] | None = None
    unit: Unit = ""
    digits: int | None = 3
    needs_spacing: bool = False
    miss: Miss = "computed"
    better: Better | None = "higher"
    shown: frozenset[Place] = frozenset()
    rank: int = 2
    short: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value that it can have: only differences have a sign, only shares end at 1."""
        low = -math.inf if self.better == "nearer to 0" else 0.0
        return low, 1.0 if self.better == "higher" else math.inf

    @property
    def short_title(self) -> str:
        """Title where there is little room."""
        return self.short or self.title

    def of(self, pair: Pair, *, far_mm: float) -> float:
        """Its value for two masks.

        Args:
            pair: the masks.
            far_mm: distance of a structure that is missed or invented.
        """
        if self.compute is None:
            raise ValueError(f"metric {self.name} is not one of two masks: it needs more than these")
        if self.miss in ("computed", "reference") or (pair.predicted and pair.true):
            return self.compute(pair)
        if pair.predicted or pair.true:
            return self.of_miss(far_mm)
        return 1.0 if self.miss == "zero" else 0.0

    def of_miss(self, far_mm: float) -> float:
        """Its value where there is no prediction at all, whatever the reference holds; NaN: it says nothing then."""
        return {"zero": 0.0, "diagonal": far_mm}.get(self.miss, math.nan)

    def decimals(self, largest: float) -> int:
        """Decimals of a figure and what stands beside it, whose largest value is given."""
        if self.digits is not None:
            return self.digits
        return 3 if largest < 1 else 2 if largest < 100 else 1

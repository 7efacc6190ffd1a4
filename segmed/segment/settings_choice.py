"""Which settings of prediction gain on validation cases: at most one of the networks, and which pieces are cleaned."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from segmed.config import EvaluateConfig, InferenceConfig
from segmed.labels import IGNORE, LabelSet
from segmed.metrics.mask_metrics import measure, overlaps
from segmed.metrics.statistics import FEWEST_PAIRS, paired_wilcoxon
from segmed.segmenters.cleaning import CHANCE, LEAST_GAIN, small_pieces
from segmed.segmenters.combine import largest_pieces

AS_TRAINED = "as trained"
FEWEST_SUBJECTS = FEWEST_PAIRS  # with less no gain could be told from chance
SHARES = (0.01, 0.05)  # of a label's median volume, below which a piece of it might be noise
RULE = (
    f"chosen where the mean Dice gains at least {LEAST_GAIN:g}, by more than chance (paired Wilcoxon test over "
    f"subjects, p < {CHANCE:g}), and the mean HD95 does not grow"
)


@dataclass(frozen=True)
class PackedLabels:
    """A label map (X, Y, Z) uint8, a hundredth of its size in memory."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, indices: np.ndarray) -> PackedLabels:
        """Pack a label map."""
        whole = np.ascontiguousarray(indices, dtype=np.uint8)
        return cls(whole.shape, zlib.compress(whole.tobytes(), 1))

    @property
    def indices(self) -> np.ndarray:
        """(X, Y, Z) uint8."""
        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(self.shape)


@dataclass(frozen=True)
class Trial:
    """A validation case as the network of its fold segments it, with each setting.

    Attributes:
        case, subject: ids.
        reference: label indices.
        label_maps: setting -> label indices, not cleaned.
        spacing_mm: size of a voxel along X, Y and Z.
    """

    case: str
    subject: str
    reference: PackedLabels
    label_maps: Mapping[str, PackedLabels]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Pieces:
    """What of a label map is cleaned.

    Attributes:
        largest: labels and regions of which only the largest piece is kept.
        smallest_ml: pairs of a label and the size below which its pieces are removed, after that.
    """

    largest: tuple[str, ...] = ()
    smallest_ml: tuple[tuple[str, float], ...] = ()

    @classmethod
    def named_in(cls, inference: InferenceConfig) -> Pieces:
        """Those that a config names; what it leaves to validation is not cleaned yet."""
        largest = inference.largest_component
        return cls(() if largest == "auto" else largest, tuple(inference.smallest_ml.items()))

    @property
    def settings(self) -> dict[str, Any]:
        """As fields of `inference`."""
        return {"largest_component": self.largest, "smallest_ml": dict(self.smallest_ml)}

    def clean(self, indices: np.ndarray, labels: LabelSet, spacing_mm: tuple[float, float, float]) -> np.ndarray:
        """The label indices (X, Y, Z) that are left; a copy."""
        kept = largest_pieces(indices, labels, self.largest)
        for name, volume_ml in self.smallest_ml:
            kept[small_pieces(kept == labels.index(name), spacing_mm, volume_ml)] = 0
        return kept


@dataclass(frozen=True)
class Tried:
    """A setting that was tried, and what it did to the labels that it concerns.

    Attributes:
        what: the setting in words.
        dice, dice_before: means over the trials.
        p: of the difference over subjects; NaN: too few.
        hd95_mm, hd95_mm_before: NaN where no spacing is known.
        chosen: whether it is taken.
    """

    what: str
    dice: float
    dice_before: float
    p: float
    hd95_mm: float
    hd95_mm_before: float
    chosen: bool = False

    @property
    def gains(self) -> bool:
        """Whether it gains by more than chance, and costs no distance."""
        farther = self.hd95_mm > self.hd95_mm_before + 1e-9  # false where no distance is known
        return self.dice - self.dice_before >= LEAST_GAIN and self.p < CHANCE and not farther

    @property
    def record(self) -> dict[str, Any]:
        """For a file; what is not known is null."""
        values = {key: value for key, value in asdict(self).items() if not isinstance(value, float)}
        numbers = {key: value for key, value in asdict(self).items() if isinstance(value, float)}
        return values | {key: round(value, 5) if math.isfinite(value) else None for key, value in numbers.items()}


@dataclass(frozen=True)
class Choice:
    """What was chosen, and all that was tried, in its order."""

    setting: str
    pieces: Pieces
    tried: tuple[Tried, ...] = ()


class SettingsChoice:
    """Chooses settings by trials, first one of the networks, then region by region and label by label what is cleaned.

    Args:
        labels: of the label maps.
        config: policy for misses.
        spacing_known: False: distances do not count.
        given: pieces that are cleaned in any case.
        try_largest: whether others than the given ones are tried for their largest piece.
    """

    def __init__(
        self,
        labels: LabelSet,
        config: EvaluateConfig,
        *,
        spacing_known: bool = True,
        given: Pieces | None = None,
        try_largest: bool = True,
    ) -> None:
        self.labels, self.config, self.spacing_known = labels, config, spacing_known
        self.given, self.try_largest = given or Pieces(), try_largest
        self._measured: dict[tuple[str, bytes, str, bytes], tuple[float, float]] = {}

    def choose(self, trials: Sequence[Trial]) -> Choice:
        """The settings that gain on some trials; as trained where there is none."""
        if not trials:
            return Choice(AS_TRAINED, self.given)
        setting, tried = self._of_networks(trials)
        pieces = self.given
        for candidates, names in self._of_pieces(trials):
            options = {what: _together(pieces, more) for what, more in candidates.items()}
            compared = [
                self._tried(trials, what, names, (setting, option), (setting, pieces))
                for what, option in options.items()
            ]
            compared = _best_chosen(compared)
            pieces = next((options[each.what] for each in compared if each.chosen), pieces)
            tried += compared
        return Choice(setting, pieces, tuple(tried))

    def _of_networks(self, trials: Sequence[Trial]) -> tuple[str, list[Tried]]:
        scored = self.labels.targets or self.labels.names
        before = (AS_TRAINED, self.given)
        others = [name for name in trials[0].label_maps if name != AS_TRAINED]
        tried = _best_chosen([self._tried(trials, name, scored, (name, self.given), before) for name in others])
        return next((each.what for each in tried if each.chosen), AS_TRAINED), tried

    def _of_pieces(self, trials: Sequence[Trial]) -> Iterator[tuple[dict[str, Pieces], tuple[str, ...]]]:
        """Candidates of which at most one is taken, and the labels that it may change."""
        for name, labels in self.labels.groups.items() if self.try_largest else ():
            yield {f"largest piece of {name}": Pieces((name,))}, labels
        for name in self.labels.names:
            if name not in dict(self.given.smallest_ml):
                yield {f"no piece of {name} below {size:g} ml": Pieces((), ((name, size),))
                       for size in self._sizes_ml(trials, name)}, (name,)  # fmt: skip

    def _sizes_ml(self, trials: Sequence[Trial], name: str) -> list[float]:
        """Sizes that are tried: shares of the label's median volume that hold more than a voxel."""
        index = self.labels.index(name)
        voxels_ml = [math.prod(trial.spacing_mm) / 1000 for trial in trials]
        counts = [np.count_nonzero(trial.reference.indices == index) for trial in trials]
        volumes = [count * voxel for count, voxel in zip(counts, voxels_ml, strict=True) if count]
        sizes = [float(f"{share * float(np.median(volumes)):.2g}") for share in SHARES] if volumes else []
        return [size for size in dict.fromkeys(sizes) if size > min(voxels_ml)]

    def _tried(
        self,
        trials: Sequence[Trial],
        what: str,
        names: Sequence[str],
        after: tuple[str, Pieces],
        before: tuple[str, Pieces],
    ) -> Tried:
        own = [self._figures(trial, names, *after) for trial in trials]
        others = [self._figures(trial, names, *before) for trial in trials]
        dice, dice_before = ([figure[0] for figure in side] for side in (own, others))
        p = paired_wilcoxon(dice, dice_before, groups=[trial.subject for trial in trials])
        pairs = [(a[1], b[1]) for a, b in zip(own, others, strict=True) if not math.isnan(a[1] + b[1])]
        return Tried(
            what, _mean(dice), _mean(dice_before), p, _mean([a for a, _ in pairs]), _mean([b for _, b in pairs])
        )

    def _figures(self, trial: Trial, names: Sequence[str], setting: str, pieces: Pieces) -> tuple[float, float]:
        """Mean Dice and mean HD95 of some labels or regions of one trial."""
        labels = pieces.clean(trial.label_maps[setting].indices, self.labels, trial.spacing_mm)
        reference = trial.reference.indices
        labels[reference == IGNORE] = 0
        measured = [self._measured_of(trial, name, labels, reference) for name in names]
        return _mean([dice for dice, _ in measured]), _mean([distance for _, distance in measured])

    def _measured_of(self, trial: Trial, name: str, labels: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        """Dice and HD95 of one label, once for each mask of it."""
        members = self.labels.members(name)
        mask = np.isin(labels, members)
        key = trial.case, trial.reference.data, name, hashlib.blake2b(np.packbits(mask).tobytes()).digest()
        if key not in self._measured:
            true = np.isin(reference, members)
            figures = (
                measure(mask, true, spacing_mm=trial.spacing_mm, missed=self.config.missed)
                if self.spacing_known
                else overlaps(mask, true)
            )
            self._measured[key] = figures["dice"], figures.get("hd95_mm", math.nan)
        return self._measured[key]


def _best_chosen(tried: list[Tried]) -> list[Tried]:
    """The same, with the one chosen that gains most, if one gains."""
    gaining = [each for each in tried if each.gains]
    best = max(gaining, key=lambda each: each.dice - each.dice_before, default=None)
    return [replace(each, chosen=each is best) for each in tried]


def _together(pieces: Pieces, more: Pieces) -> Pieces:
    return Pieces(pieces.largest + more.largest, pieces.smallest_ml + more.smallest_ml)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan

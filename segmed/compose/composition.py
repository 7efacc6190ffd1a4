"""What a composed run consists of: stages, views, folds, networks, and how long all of them train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segmed.builders.segmenters import stages_of
from segmed.config import SegmentationConfig, StageConfig, known


@dataclass(frozen=True)
class Part:
    """One network of a composed run: which it is, and its place in the time of the whole.

    Attributes:
        number: counted from 1, in the order of training.
        of: networks in all.
        before: share of the whole training that is over when it begins.
        share: of the whole training that it takes.
    """

    number: int
    of: int
    before: float
    share: float


@dataclass(frozen=True)
class Composition:
    """A composed experiment whose views are decided.

    Attributes:
        config: of the whole.
        reasons: of the views, where they were `auto`.
        parts: of its cases, in words.
        notes: what every table of the run must say.
    """

    config: SegmentationConfig
    reasons: Mapping[str, str]
    parts: str
    notes: tuple[str, ...]

    def copies(self, name: str) -> int:
        """How often a stage is trained: a coarse one also without each fold, to find regions in cases new to it."""
        cascade = self.config.cascade
        return 1 + cascade.folds if cascade and name == "coarse" and cascade.learn_from != "reference" else 1

    def lengths(self) -> list[tuple[float, str]]:
        """How long each network trains, in the order of training, and the unit: min, or epochs."""
        return [
            self._length(stage, first=number == 0)
            for name, stage in stages_of(self.config)
            for _ in range(self.copies(name))
            for number in range(len(known(stage.views)))
        ]

    def _length(self, stage: StageConfig, *, first: bool) -> tuple[float, str]:
        train = stage.train or self.config.train
        if stage.later is not None and not first:
            train = stage.later
        return (train.epochs, "epochs") if train.budget_minutes is None else (train.budget_minutes, "min")

    def part(self, number: int) -> Part:
        """The network of that number, from 1; where some count minutes and others epochs, all weigh the same."""
        lengths = self.lengths()
        alike = len({unit for _, unit in lengths}) == 1
        shares = [length if alike else 1.0 for length, _ in lengths]
        return Part(number, len(shares), sum(shares[: number - 1]) / sum(shares), shares[number - 1] / sum(shares))

    @property
    def budget(self) -> str:
        """How long all networks train: `15 networks × 0.3 min = 4.5 min`."""
        lengths = self.lengths()
        counts = {length: lengths.count(length) for length in dict.fromkeys(lengths)}
        terms = " + ".join(
            f"{count} network{'s' * (count > 1)} × {each:g} {unit}" for (each, unit), count in counts.items()
        )
        totals = {unit: sum(each for each, own in lengths if own == unit) for _, unit in lengths}
        return f"{terms} = {' + '.join(f'{total:g} {unit}' for unit, total in totals.items())}"

    def __str__(self) -> str:
        lines = [f"plan: {self.parts}"]
        for name, stage in stages_of(self.config):
            views, copies = known(stage.views), self.copies(name)
            often = f", {copies} times: with all training cases, and without each of {copies - 1} folds of them"
            why = self.reasons.get(f"cascade.{name}.views" if name else "ensemble.views")
            lines.append(
                f"  {name or 'ensemble'}: {', '.join(views)}"
                + (f" ({why})" if why else "")
                + (often if copies > 1 else "")
            )
        lines.append(f"  training: {self.budget}; each network's own plan is made when it begins")
        return "\n".join([*lines, *(f"  NOTE: {note}" for note in self.notes)])

"""Fine stages of cascaded runs, one a fold, to be asked inside a region that is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmed.builders.segmenters import build_cascade, label_set, load_stage
from segmed.builders.trained import load_run
from segmed.compare.tested_runs import TestedRun, parts_of
from segmed.config import CascadeConfig, SegmentationConfig, known
from segmed.data.splits import Split
from segmed.errors import RunError
from segmed.labels import LabelSet
from segmed.runs import Run, read_config
from segmed.segmenters.cascade import Cascade
from segmed.segmenters.segmenter import Segmenter


@dataclass(frozen=True)
class FineStage:
    """The fine stage of one run.

    Attributes:
        part: the run, a fold's where there are several.
        config: resolved.
        cascade: section of the config.
        split: whose test cases never were seen by it.
    """

    part: Run
    config: SegmentationConfig
    cascade: CascadeConfig
    split: Split

    @property
    def files(self) -> tuple[Path, ...]:
        """On which its label maps depend: configs and weights."""
        views = [Run(self.part.path / "fine" / view) for view in known(self.cascade.fine.views)]
        return (self.part.config, *(file for view in views for file in (view.config, view.weights())))

    @property
    def within(self) -> set[str]:
        """Labels of the data whose union is the region in which it looks."""
        merged = known(self.cascade.coarse.labels)
        return {member for name in self.cascade.region for member in merged[name]}

    def load(self) -> Segmenter:
        """Its networks, on a GPU where there is one."""
        return load_stage(self.part.path / "fine", self.cascade.fine, load_run)

    def given(self, wall: np.ndarray, names: Sequence[str], within: Sequence[str]) -> tuple[np.ndarray, LabelSet]:
        """What its coarse stage would have said, had it been right: a map of the coarse labels.

        Args:
            wall: (X, Y, Z), numbers of `names`.
            names: the region that is given, 1, then the labels of the data beside it, 2 and so on.
            within: labels of the data that the region stands for. Where several coarse labels share them, the first
                stands for all.

        Returns:
            (X, Y, Z) uint8, and its labels.
        """
        coarse = known(self.cascade.coarse.labels)
        sharing = [name for name, members in coarse.items() if set(within) & set(members)]
        indices = np.zeros(wall.shape, np.uint8)
        for number, (name, members) in enumerate(coarse.items(), 1):
            here = [place for place, label in enumerate(names[1:], 2) if label in members]
            indices[np.isin(wall, [*here, *([1] if name == sharing[0] else [])])] = number
        return indices, LabelSet(tuple(coarse), tuple((number,) for number in range(1, len(coarse) + 1)))

    def inside(self, coarse: Segmenter, fine: Segmenter) -> Cascade:
        """The cascade with something else in place of its coarse stage.

        Args:
            coarse: of the coarse labels, such as `given` makes.
            fine: of `load`.
        """
        return build_cascade(self.config, coarse, fine)


def fine_stages(run: TestedRun, *, labels: LabelSet, within: Sequence[str]) -> tuple[FineStage, ...]:
    """The fine stages of a run or of a cross-validation, in the order of its folds.

    Args:
        run: finished.
        labels: that it must have, in any order.
        within: labels that make up the region that is given; it may look in a larger one.

    Raises:
        RunError: it is no cascade, or one of other labels or of another region, or weights are missing.
    """
    stages = []
    for part in parts_of(run.path):
        config = read_config(part)
        if config.cascade is None:
            raise RunError(
                f"run {run.path} is no cascade, so it has no fine stage to look in a given region: "
                "leave region out, or name a cascaded run"
            )
        stage = FineStage(part, config, config.cascade, Split.load(part.split))
        ours = label_set(config)
        if dict(zip(ours.names, ours.values, strict=True)) != dict(zip(labels.names, labels.values, strict=True)):
            raise RunError(
                f"run {run.path} has the labels {', '.join(ours.names)}, the comparison {', '.join(labels.names)}, or "
                "their values differ: give data.labels as the run has them, or leave region out"
            )
        if not stage.within >= set(within):
            raise RunError(
                f"the fine stage of run {run.path} looks in {' + '.join(sorted(stage.within))}, the comparison's "
                f"region is {' + '.join(sorted(within))}: compare in a region that it sees, or leave region out"
            )
        if lost := [file for file in stage.files if not file.is_file()]:
            raise RunError(f"run {run.path} lacks {lost[0]}: bring it back, or leave region out")
        stages.append(stage)
    return tuple(stages)

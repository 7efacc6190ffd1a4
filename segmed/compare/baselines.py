"""Constant predictions, which make the rows of a comparison readable: they see no image, only training references."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from segmed.compare.method_inputs import read_with_reference
from segmed.compare.prepare import PreparedComparison
from segmed.compare.row_figures import TRUTHS, CaseScorer, true_ml
from segmed.data.case import Case
from segmed.data.splits import Split
from segmed.errors import DatasetError
from segmed.evaluate.case_rows import Row
from segmed.evaluate.results import Method, Result
from segmed.labels import IGNORE
from segmed.volumes import read_label_volume, spacing_mm

MEAN_SHARE, MEAN_VOLUME = "constant: training mean share", "constant: training mean volume"


@dataclass(frozen=True)
class Measured:
    """What a reference's label map holds.

    Attributes:
        tissue_ml, region_ml: volumes.
    """

    tissue_ml: float
    region_ml: float

    @property
    def share(self) -> float:
        """Per cent of the region that the tissue is; NaN without a region."""
        return 100 * self.tissue_ml / self.region_ml if self.region_ml else math.nan


@dataclass(frozen=True)
class Baselines:
    """Constant rows.

    Attributes:
        methods: the whole region as tissue; the mean share and the mean volume of each fold's training cases.
        shares: test case -> per cent of the region that the tissue is, in the reference.
    """

    methods: tuple[Method, ...]
    shares: Mapping[str, float]


def constant_rows(comparison: PreparedComparison) -> Baselines:
    """Score constant predictions on the test cases, from each fold's training cases alone.

    The region is the reference's. Of the mean share and the mean volume only volumes and shares are known: there is no
    label map, so no Dice and no distance.

    Args:
        comparison: whose test cases they are.

    Raises:
        DatasetError: a training case without a label map.
    """
    config = comparison.config
    whole = f"constant: whole {config.region}"
    measured: dict[str, Measured] = {}
    rows: dict[str, list[Row]] = {whole: [], MEAN_SHARE: [], MEAN_VOLUME: []}
    for split in comparison.splits:
        for id in {*split.train, *split.test} - set(measured):
            measured[id] = measure_reference(comparison.cases[id], comparison)
        share, volume_ml = training_means(split, measured)
        for case in (comparison.cases[id] for id in split.test):
            rows[whole] += (own := _whole_region(case, comparison))
            here = measured[case.id]
            rows[MEAN_SHARE] += _constant(own, here, here.region_ml * share / 100, case, comparison)
            rows[MEAN_VOLUME] += _constant(own, here, volume_ml, case, comparison)
    subjects = {id: comparison.cases[id].subject for id in comparison.tested}
    return Baselines(
        tuple(
            Method(
                name,
                (Result(own, name, subjects, missed=config.evaluate.missed),),
                constant=True,
            )
            for name, own in rows.items()
            if name != MEAN_VOLUME or config.data.spacing_known
        ),
        {id: measured[id].share for id in comparison.tested},
    )


def training_means(split: Split, measured: Mapping[str, Measured]) -> tuple[float, float]:
    """Mean share in per cent and mean volume in ml of the training cases; a case without a region has no share."""
    shares = [measured[id].share for id in split.train if not math.isnan(measured[id].share)]
    volumes = [measured[id].tissue_ml for id in split.train]
    return (float(np.mean(shares)) if shares else math.nan, float(np.mean(volumes)) if volumes else math.nan)


def measure_reference(case: Case, comparison: PreparedComparison) -> Measured:
    """Volumes of the tissue and the region in a case's reference; what is to be ignored does not count.

    Raises:
        DatasetError: no label map.
    """
    if case.label is None:
        raise DatasetError(f"training case {case.id} has no label map: leave it out of the comparison")
    volume = read_label_volume(case.label)
    labels, config = comparison.dataset.labels, comparison.config
    indices = labels.encode(volume.as_tensor().numpy(), where=str(case.label.path))
    counts = np.bincount(indices.ravel(), minlength=IGNORE + 1)
    voxel_ml = math.prod(spacing_mm(volume.affine)) / 1000
    region = sum(int(counts[labels.index(name)]) for name in config.within)
    return Measured(float(counts[labels.index(config.target)]) * voxel_ml, region * voxel_ml)


def _whole_region(case: Case, comparison: PreparedComparison) -> list[Row]:
    """The region of the reference, all of it tissue."""
    image, reference = read_with_reference(case, comparison)
    config, labels = comparison.config, comparison.dataset.labels
    indices = reference.as_tensor()[0].numpy()
    within = np.isin(indices, [labels.index(name) for name in config.within])
    prediction = np.where(within, labels.index(config.target), indices)
    prediction[prediction == IGNORE] = 0
    return CaseScorer(config, labels).rows(
        prediction, indices, case=case, spacing_mm=spacing_mm(image.affine), wall="given"
    )


def _constant(
    like: list[Row], true: Measured, volume_ml: float, case: Case, comparison: PreparedComparison
) -> Iterator[Row]:
    """Rows with a volume and a share, and nothing else."""
    config = comparison.config
    for row in like:
        empty = {key: math.nan if isinstance(value, float) else value for key, value in row.items()}
        empty["missed"] = 0.0
        if row["label"] == config.target:
            difference = volume_ml - true.tissue_ml
            share = 100 * volume_ml / true.region_ml - true.share if true.region_ml else math.nan
            empty |= {"share_error_pp": abs(share), "share_difference_pp": share}
            if config.data.spacing_known:
                empty |= {"prediction_ml": volume_ml, "reference_ml": true.tissue_ml, "avd_ml": abs(difference)}
                empty |= {"volume_difference_ml": difference}
                known = true_ml(case, config.target)
                if known is not None:
                    beside = volume_ml - known
                    empty |= dict(zip(TRUTHS, (known, abs(beside), beside), strict=True))
        yield empty

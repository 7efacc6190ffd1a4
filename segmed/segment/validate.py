"""Whole validation volumes, segmented as in prediction and measured on their own grids, while a network trains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from torch import nn

from segmed.config import EvaluateConfig
from segmed.data.cache import CachedVolume
from segmed.data.class_column import KnownClasses
from segmed.data.field_of_view import read_field_of_view
from segmed.errors import TrainingError
from segmed.evaluate.case_rows import evaluate_case
from segmed.geometry import as_affine, spacing_mm
from segmed.labels import IGNORE, LabelSet
from segmed.machine import free_ram_bytes
from segmed.metrics.class_figures import VALIDATED
from segmed.metrics.class_figures import figures as class_figures
from segmed.metrics.mask_metrics import metrics_shown, overlaps
from segmed.reports.drawing.slices import contour_figure
from segmed.segment.settings_choice import PackedLabels, Pieces
from segmed.segmenters.cleaning import is_gain_beyond_chance, no_loss
from segmed.segmenters.native import WayHome
from segmed.segmenters.segmenter import decide
from segmed.segmenters.trained_network import NetworkSegmenter
from segmed.targets import targets_of
from segmed.training.fit_state import ValidationResult
from segmed.training.ranks import Ranks
from segmed.volumes import Source, read_label_volume

T = TypeVar("T")
LARGEST_KEPT_SHARE = 0.25  # of the free RAM that decoded label maps may take
LOSS_VALUES = 2**25  # probabilities whose loss is computed at once: some copies of 128 MiB


@dataclass(frozen=True)
class ValidationCase:
    """One case.

    Attributes:
        volume: prepared, from the cache.
        reference: its label map on the scanner's grid.
        field_of_view: mask outside of which nothing is scored; None: all counts.
    """

    volume: CachedVolume
    reference: Source
    field_of_view: Source | None = None


@dataclass(frozen=True)
class _Reference:
    indices: np.ndarray  # (X, Y, Z) uint8
    affine: np.ndarray


def spread(cases: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` of the cases, evenly over their list; none: all."""
    if limit is None or limit >= len(cases):
        return list(cases)
    return [cases[int((number + 0.5) * len(cases) / limit)] for number in range(limit)]


class Validator:
    """Scores a network by its mean Dice over the labels, or the regions that it learns; `fit` calls it.

    The processes share the cases and get the same result. Label maps stay decoded between validations as long as a
    quarter of the free RAM holds them; images are mapped from the cache.

    Args:
        cases: one or more, the same on all processes.
        segmenter: a network -> its segmenter, as in prediction.
        labels: what is scored.
        config: tolerance and policy for misses.
        ranks: the processes that train.
        spacing_known: False: no figure in mm or ml.
        figures: number of cases that are drawn, always the same.
        classes: of the cases, told by the second head of the network as it segments them; their figures join the
            metrics, the score stays that of the segmentation. None: there is no such head.
        loss: of logits (1, channels, X, Y, Z) and labels (1, X, Y, Z), measured on prepared volumes; None: it is not.
        pieces: of the label maps that are cleaned before anything is scored, as they will be in prediction.

    Raises:
        TrainingError: no cases.
    """

    def __init__(
        self,
        cases: Sequence[ValidationCase],
        segmenter: Callable[[nn.Module], NetworkSegmenter],
        labels: LabelSet,
        *,
        config: EvaluateConfig,
        ranks: Ranks,
        spacing_known: bool = True,
        figures: int = 2,
        classes: KnownClasses | None = None,
        loss: nn.Module | None = None,
        pieces: Pieces | None = None,
    ) -> None:
        if not cases:
            raise TrainingError("no validation cases: raise split.validation")
        self.labels, self.config, self.ranks, self.spacing_known = labels, config, ranks, spacing_known
        self.classes, self.loss = classes, loss
        self._pieces = pieces or Pieces()
        self._make_segmenter = segmenter
        self._segmenter: NetworkSegmenter | None = None
        self._own = list(cases)[ranks.rank :: ranks.world]
        self._order = {case.volume.id: place for place, case in enumerate(cases)}
        self._drawn = {case.volume.id for case in self._own[:figures]} if ranks.leads else set()
        self._kept: dict[str, _Reference] = {}
        self._room_bytes = int(LARGEST_KEPT_SHARE * free_ram_bytes() / ranks.world)

    # ------------------------------------------------------------ scoring

    def __call__(self, network: nn.Module) -> ValidationResult:
        """Segment and measure every case.

        Args:
            network: image (B, C, *spatial) -> logits.
        """
        rows: list[dict[str, Any]] = []
        class_probabilities: dict[str, np.ndarray] = {}
        losses: list[float] = []
        figures: dict[str, Figure] = {}
        for case in self._own:
            name, probabilities = case.volume.id, self._probabilities(network, case)
            rows += self._rows(case, self._cleaned(case, self._native_labels(case, probabilities)))
            losses += self._losses(case, probabilities)
            of_classes = self._segmenter_of(network).class_probabilities
            if of_classes is not None and self.classes is not None and name in self.classes.indices:
                class_probabilities[name] = of_classes
            if name in self._drawn:
                result = decide(probabilities, self.labels)
                figures[f"validation/{name}"] = _figure(case.volume, result, self.labels.names)
        gathered = [row for part in self.ranks.gather(rows) for row in part]
        gathered.sort(key=lambda row: self._order[row["case"]])
        score, metrics = _summary(gathered, self.labels.targets or self.labels.names)
        losses = [value for part in self.ranks.gather(losses) for value in part]
        if losses:
            metrics["validation/loss"] = math.fsum(losses) / len(losses)
        return ValidationResult(score, {**metrics, **self._class_figures(class_probabilities)}, figures)

    def _losses(self, case: ValidationCase, probabilities: torch.Tensor) -> list[float]:
        """The loss of a case, the mean over slabs where it is large; nothing where it is not measured."""
        if self.loss is None or case.volume.label is None:
            return []
        label = torch.from_numpy(np.array(case.volume.label)).to(probabilities.device)
        longest = int(np.argmax(label.shape))
        targets = targets_of(self.labels)
        slabs = min(-(-probabilities.numel() // LOSS_VALUES), label.shape[longest])
        logits, labels = probabilities.tensor_split(slabs, longest + 1), label.tensor_split(slabs, longest)
        parts = [
            float(self.loss(targets.logits(part)[None], own[None])) * own.numel()
            for part, own in zip(logits, labels, strict=True)
        ]
        return [math.fsum(parts) / case.volume.label.size]

    def _class_figures(self, own: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Figures of the classes, gathered from all processes; empty without a second head."""
        if self.classes is None:
            return {}
        class_probabilities = {name: each for part in self.ranks.gather(dict(own)) for name, each in part.items()}
        names = [name for name in self._order if name in class_probabilities]
        if not names:
            return {}
        truth = [self.classes.indices[name] for name in names]
        overall = class_figures(
            truth, np.stack([class_probabilities[name] for name in names]), self.classes.names
        ).overall
        return {name: overall[name] for name in VALIDATED if math.isfinite(overall[name])}

    def rehearse(self, network: nn.Module) -> float:
        """Seconds that a validation will take, from one case: a budget of minutes keeps them free.

        An untrained network's noise takes long to measure, so the reference is measured against itself.
        """
        if not self._own:
            return self.ranks.maximum([0.0])[0]
        case = sorted(self._own, key=lambda case: case.volume.image.size)[len(self._own) // 2]
        reference = self._reference(case)
        self._probabilities(network, case)  # the first one prepares what the others find
        start = time.perf_counter()
        probabilities = self._probabilities(network, case)
        self._cleaned(case, self._native_labels(case, probabilities))
        self._losses(case, probabilities)
        self._rows(case, np.where(reference.indices == IGNORE, 0, reference.indices))
        seconds = time.perf_counter() - start
        share = sum(case.volume.image.size for case in self._own) / case.volume.image.size
        return self.ranks.maximum([share * seconds])[0]

    def worth_cleaning(self, network: nn.Module, in_one_piece: Collection[str] = ()) -> tuple[str, ...]:
        """Regions and labels of which only the largest connected piece is to be kept.

        What is one piece in the references is one unless its mean Dice falls; anything else must gain by more than
        chance, which a handful of cases can't tell. All labels together are tried first, then each region, by the Dice
        of their labels, then each label, on what those before it leave.

        Args:
            network: with the weights that will predict.
            in_one_piece: regions and labels that are.
        """
        own = [
            (case, PackedLabels.of(self._native_labels(case, self._probabilities(network, case)))) for case in self._own
        ]
        chosen: tuple[str, ...] = ()
        for name, members in self.labels.groups.items():
            differences = [self._gain(case, raw.indices, (*chosen, name), chosen, members) for case, raw in own]
            everyone = [difference for part in self.ranks.gather(differences) for difference in part]
            if no_loss(everyone) if name in in_one_piece else is_gain_beyond_chance(everyone):
                chosen += (name,)
        return chosen

    def _gain(
        self,
        case: ValidationCase,
        raw: np.ndarray,
        largest: Sequence[str],
        before: Sequence[str],
        members: Sequence[str],
    ) -> float:
        """What the mean Dice of some labels gains where the largest pieces are kept of more than before."""
        label_map, cleaned = self._cleaned(case, raw, before), self._cleaned(case, raw, largest)
        gains = [self._dice(case, cleaned, label) - self._dice(case, label_map, label) for label in members]
        return math.fsum(gains) / len(gains)

    def _dice(self, case: ValidationCase, prediction: np.ndarray, label: str) -> float:
        true = self._reference(case).indices
        mask = (prediction == self.labels.index(label)) & (true != IGNORE)
        return overlaps(mask, true == self.labels.index(label))["dice"]

    # ------------------------------------------------------------ one case

    def _probabilities(self, network: nn.Module, case: ValidationCase) -> torch.Tensor:
        """Probabilities (L + 1, X', Y', Z') on the prepared grid."""
        image = MetaTensor(torch.from_numpy(np.array(case.volume.image)), affine=torch.from_numpy(case.volume.affine))
        return self._segmenter_of(network).prepared_probabilities(image)

    def _segmenter_of(self, network: nn.Module) -> NetworkSegmenter:
        """The network as in prediction; the same as long as the network is."""
        if self._segmenter is None or self._segmenter.network is not network:
            self._segmenter = self._make_segmenter(network)
        return self._segmenter

    def _native_labels(self, case: ValidationCase, probabilities: torch.Tensor) -> np.ndarray:
        """Label indices (X, Y, Z) on the scanner's grid, nothing cleaned."""
        reference = self._reference(case)
        way = WayHome(
            case.volume.affine,
            probabilities.shape[1:],
            native_affine=reference.affine,
            native_shape=reference.indices.shape,
        )
        return way.labels(probabilities, targets_of(self.labels))[0].numpy()

    def _cleaned(self, case: ValidationCase, indices: np.ndarray, largest: Sequence[str] = ()) -> np.ndarray:
        """A label map as prediction would leave it, were `largest` kept in one piece too."""
        pieces = replace(self._pieces, largest=(*self._pieces.largest, *largest))
        return pieces.clean(indices, self.labels, spacing_mm(self._reference(case).affine))

    def _rows(self, case: ValidationCase, prediction: np.ndarray) -> list[dict[str, Any]]:
        reference = self._reference(case)
        return evaluate_case(
            prediction,
            reference.indices,
            self.labels,
            case=case.volume.id,
            spacing_mm=spacing_mm(reference.affine),
            config=self.config,
            spacing_known=self.spacing_known,
        )

    def _reference(self, case: ValidationCase) -> _Reference:
        kept = self._kept.get(case.volume.id)
        if kept is not None:
            return kept
        volume = read_label_volume(case.reference)
        indices = self.labels.encode(volume.numpy()[0], where=str(case.reference.path))
        if case.field_of_view is not None:
            indices[~read_field_of_view(case.field_of_view, like=volume, case=case.volume.id)] = IGNORE
        read = _Reference(indices, as_affine(volume.affine))
        if sum(other.indices.nbytes for other in self._kept.values()) + indices.nbytes <= self._room_bytes:
            self._kept[case.volume.id] = read
        return read


# ---------------------------------------------------------------- many cases


def _summary(rows: Sequence[Mapping[str, Any]], scored: Sequence[str]) -> tuple[float, dict[str, float]]:
    """The mean Dice over the labels or regions that are scored, and means by metric and name."""
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(row["label"] for row in rows):
        own = [row for row in rows if row["label"] == name]
        for metric in metrics_shown("training"):
            known = [row[metric] for row in own if row[metric] is not None and math.isfinite(row[metric])]
            if known:
                metrics[f"{metric}/{name}"] = math.fsum(known) / len(known)
        metrics[f"missed/{name}"] = float(sum(row["missed"] for row in own))
    dice = [metrics[f"dice/{name}"] for name in scored if f"dice/{name}" in metrics]
    return (math.fsum(dice) / len(dice) if dice else math.nan), metrics


def _figure(volume: CachedVolume, result: torch.Tensor, names: Sequence[str]) -> Figure:
    """Reference and result on the prepared grid."""
    title = f"{volume.id}, slices of the prepared grid"
    return contour_figure(
        np.asarray(volume.image[0]), volume.label, result.numpy(), volume.spacing_mm, title, names=names
    )

"""Networks and their config -> one segmenter of native volumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from segmed.config import InferenceConfig, SegmentationConfig, StageConfig, known
from segmed.labels import LabelSet
from segmed.segmenters.cascade import Cascade
from segmed.segmenters.case_class import TwoHeadSegmenter
from segmed.segmenters.combine import LargestComponent, Mean, Tidied, Vote
from segmed.segmenters.segmenter import Segmenter
from segmed.segmenters.trained_network import NetworkSegmenter

PLANE_AXES = {"sagittal": 0, "coronal": 1, "axial": 2, "slices": 2}


def label_set(config: SegmentationConfig) -> LabelSet:
    """The labels of a resolved config."""
    data = config.data
    return LabelSet.from_config(known(data.labels), data.ignore, data.regions, data.background, data.targets)


def plane_axis(config: SegmentationConfig) -> int | None:
    """Axis across which 2D slices are taken; none for 3D."""
    return PLANE_AXES[config.patches.plane] if config.patches.dims == 2 else None


def network_segmenter(
    network: nn.Module,
    config: SegmentationConfig,
    *,
    device: torch.device | str,
    inference: InferenceConfig | None = None,
) -> NetworkSegmenter:
    """A network as a segmenter of native volumes, as its resolved config says.

    Args:
        network: on `device`.
        config: of the run.
        device: that computes.
        inference: in place of the run's own settings.
    """
    inference = inference or config.inference
    precision = inference.precision if inference.precision != "auto" else config.train.precision
    kind = TwoHeadSegmenter if hasattr(network, "both") else NetworkSegmenter
    return kind(
        network,
        labels=label_set(config),
        preprocess=config.preprocess,
        patches=config.patches,
        plane_axis=plane_axis(config),
        inference=inference,
        device=device,
        precision=known(precision),
        mirror_pairs=config.data.mirror_pairs,
    )


def cleaned(segmenter: Segmenter, inference: InferenceConfig) -> Segmenter:
    """A segmenter whose largest pieces are kept, and small ones removed, as `inference` says."""
    largest = inference.largest_component
    if largest != "auto" and largest:
        segmenter = LargestComponent(segmenter, largest)
    return Tidied(segmenter, smallest_ml=inference.smallest_ml) if inference.smallest_ml else segmenter


def stages_of(config: SegmentationConfig) -> list[tuple[str, StageConfig]]:
    """The stages of a composed experiment, with the folder of each in the run's; an ensemble's is the run's own."""
    if config.cascade is not None:
        return [("coarse", config.cascade.coarse), ("fine", config.cascade.fine)]
    return [] if config.ensemble is None else [("", config.ensemble)]


def load_stage(folder: Path, stage: StageConfig, load: Callable[[Path], Segmenter]) -> Segmenter:
    """The networks of one stage as one segmenter.

    Args:
        folder: that holds a run for each view.
        stage: with resolved views.
        load: a run's folder -> its segmenter.
    """
    members = [load(folder / view) for view in known(stage.views)]
    if stage.smallest_ml or stage.closing_mm:
        members = [Tidied(member, smallest_ml=stage.smallest_ml, closing_mm=stage.closing_mm) for member in members]
    if len(members) == 1:
        return members[0]
    return Vote(members, stage.at_least) if stage.fuse == "vote" else Mean(members)


def build_cascade(config: SegmentationConfig, coarse: Segmenter, fine: Segmenter) -> Cascade:
    """Two stages as one segmenter of the experiment's labels."""
    if config.cascade is None:
        raise ValueError("the experiment has no cascade")
    return Cascade(
        coarse,
        fine,
        region=config.cascade.region,
        rest=config.cascade.rest,
        labels=label_set(config),
        margin_mm=config.cascade.margin_mm,
        roi=config.cascade.roi,
    )

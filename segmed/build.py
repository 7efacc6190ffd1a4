"""Config -> objects, run folder -> objects: the only place where a name becomes a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segmed.config import (
    PHANTOM_FILES,
    CaseClassConfig,
    Discriminator,
    DynUNetConfig,
    ExperimentConfig,
    InferenceConfig,
    Loss,
    Network,
    PatchCnnConfig,
    PhantomLayout,
    PixelDiscriminatorConfig,
    SeganCriticConfig,
    SegResNetConfig,
    StageConfig,
    SwinUNETRConfig,
    UNetConfig,
    known,
)
from segmed.data.cases import Dataset, read_dataset
from segmed.data.phantoms import make_phantom
from segmed.labels import LabelSet
from segmed.losses.classification import ClassificationLoss
from segmed.losses.segmentation import DeepSupervisionLoss, segmentation_loss
from segmed.networks.discriminators import (
    ImageDiscriminator,
    MultiScaleCritic,
    PatchDiscriminator,
    PixelDiscriminator,
)
from segmed.networks.encoders import DenseEncoder, PlainEncoder, PyramidEncoder, ResidualEncoder
from segmed.networks.models import SegmentationModel, SegmentationNet
from segmed.networks.multitask import SegmentationAndClass
from segmed.networks.patchwise import PatchwiseNet
from segmed.networks.peers import monai_network
from segmed.runs import Run, RunError, open_run, read_config
from segmed.segmenters.base import Segmenter
from segmed.segmenters.cascade import Cascade
from segmed.segmenters.case_class import CaseClassifier
from segmed.segmenters.combine import LargestComponent, Mean, Tidied, Vote
from segmed.segmenters.network import NetworkSegmenter
from segmed.training.checkpoint import check_weights, load_weights
from segmed.training.precision import Choice

ENCODERS: Mapping[str, type[PyramidEncoder]] = {
    "plain": PlainEncoder,
    "residual": ResidualEncoder,
    "dense": DenseEncoder,
}
PLANE_AXES = {"sagittal": 0, "coronal": 1, "axial": 2, "slices": 2}


def build_dataset(config: ExperimentConfig, *, progress: bool = False) -> Dataset:
    """The cases of an experiment; a phantom is made first where it is not there yet."""
    data = config.data
    if isinstance(data.layout, PhantomLayout):
        layout = data.layout
        make_phantom(data.root, cases=layout.cases, seed=layout.seed, isotropic=layout.isotropic, progress=progress)
        data = data.model_copy(update={"layout": PHANTOM_FILES})
    return read_dataset(data)


def build_network(
    config: Network,
    *,
    in_channels: int,
    out_channels: int,
    dims: int,
    class_head: CaseClassConfig | None = None,
    device: torch.device | str = "cpu",
) -> SegmentationModel:
    """The network of a resolved config.

    Args:
        config: without `auto`.
        in_channels: modalities.
        out_channels: labels and background.
        dims: 2 or 3.
        class_head: a second head of a U-Net of ours, its classes resolved; none: the network segments alone.
        device: `meta` builds without memory, for a summary.
    """
    with torch.device(device):
        match config:
            case UNetConfig():
                encoder = ENCODERS[config.encoder](
                    in_channels,
                    known(config.channels),
                    known(config.strides),
                    dims=dims,
                    blocks=config.blocks,
                    norm=config.norm,
                    dropout=config.dropout,
                    deep_dropout=config.deep_dropout,
                    checkpointing=config.checkpointing,
                )
                decoder: Any = {"upsampling": config.upsampling, "deep_supervision": config.deep_supervision}
                if class_head is None:
                    return SegmentationNet(encoder, out_channels, **decoder)
                classes, pooling = len(known(class_head.classes)), class_head.pooling
                return SegmentationAndClass(
                    encoder, out_channels, classes, pooling=pooling, dropout=class_head.dropout, **decoder
                )
            case PatchCnnConfig():
                return PatchwiseNet(in_channels, out_channels, dims=dims, **config.model_dump(exclude={"name"}))
            case DynUNetConfig() | SegResNetConfig() | SwinUNETRConfig():
                return monai_network(
                    in_channels=in_channels, out_channels=out_channels, dims=dims, **config.model_dump()
                )


def build_discriminator(
    config: Discriminator, *, image_channels: int, classes: int, dims: int, device: torch.device | str = "cpu"
) -> nn.Module:
    """The discriminator of a resolved config.

    Args:
        config: without `auto`.
        image_channels: modalities.
        classes: labels and background.
        dims: 2 or 3.
        device: `meta` builds without memory, for a summary.
    """
    if isinstance(config, SeganCriticConfig):
        in_channels = image_channels * (classes - 1)
    else:
        in_channels = classes + (image_channels if config.conditional else 0)
    with torch.device(device):
        if isinstance(config, PixelDiscriminatorConfig):
            return PixelDiscriminator(
                in_channels,
                config.channels,
                classes=classes,
                dims=dims,
                spectral_norm=config.spectral_norm,
                norm=config.norm,
            )
        encoder = ENCODERS[config.encoder](
            in_channels,
            known(config.channels),
            known(config.strides),
            dims=dims,
            blocks=config.blocks,
            norm=config.norm,
        )
        if isinstance(config, SeganCriticConfig):
            return MultiScaleCritic(
                encoder, image_channels=image_channels, classes=classes, spectral_norm=config.spectral_norm
            )
        kind = ImageDiscriminator if config.name == "image" else PatchDiscriminator
        return kind(encoder, classes=classes, spectral_norm=config.spectral_norm)


def build_class_loss(head: CaseClassConfig, counts: Sequence[int]) -> ClassificationLoss:
    """The loss of a second head.

    Args:
        head: of the config.
        counts: training cases of each class, 1 or more.
    """
    weights = [sum(counts) / (len(counts) * count) for count in counts] if head.balanced else None
    return ClassificationLoss(class_weights=weights, smoothing=head.smoothing)


def build_loss(config: Loss, network: SegmentationModel, *, class_weights: tuple[float, ...] | None) -> nn.Module:
    """The loss of a config, over all levels of a network's logits."""
    options = config.model_dump()
    loss = segmentation_loss(options.pop("name"), class_weights=class_weights, **options)
    return DeepSupervisionLoss(loss, network.supervised_levels)


def label_set(config: ExperimentConfig) -> LabelSet:
    """The labels of a resolved config."""
    data = config.data
    return LabelSet.from_config(known(data.labels), data.ignore, data.regions, data.background)


def plane_axis(config: ExperimentConfig) -> int | None:
    """Axis across which 2D slices are taken; none for 3D."""
    return PLANE_AXES[config.patches.plane] if config.patches.dims == 2 else None


def network_segmenter(
    network: nn.Module,
    config: ExperimentConfig,
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
    return NetworkSegmenter(
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


def load_run_config(folder: Path) -> ExperimentConfig:
    """The resolved config of a run folder."""
    return read_config(open_run(folder))


def load_run(
    folder: Path,
    *,
    device: str = "auto",
    inference: InferenceConfig | None = None,
    weights: str = "best",
) -> Segmenter:
    """A trained run as a segmenter: native volume in, probabilities on its own grid out.

    Args:
        folder: of the run.
        device: `cpu`, `cuda`, `cuda:1`; `auto`: a GPU where there is one.
        inference: in place of the run's own settings.
        weights: `best` on validation, or `last`.

    Raises:
        RunError: no run, or one without these weights.
        CheckpointError: weights of another network.
    """
    run: Run = open_run(folder)
    config = read_config(run)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    load = partial(load_run, device=device, inference=inference, weights=weights)
    if config.cascade is not None:
        return build_cascade(config, *(load_stage(run.path / name, stage, load) for name, stage in stages_of(config)))
    if config.ensemble is not None:
        return load_stage(run.path, config.ensemble, load)
    inference = inference or config.inference
    segmenter = _trained(run, config, device=device, inference=inference, weights=weights)
    cleaned = inference.largest_component
    return segmenter if cleaned == "auto" or not cleaned else LargestComponent(segmenter, cleaned)


def load_case_classifier(folder: Path, *, device: str = "auto", weights: str = "best") -> CaseClassifier:
    """The second head of a trained multi-task run: native volume in, probabilities of its class out.

    Args:
        folder: of a run whose config has a `classification` section, which names the classes.
        device, weights: as in `load_run`.

    Raises:
        RunError: no run, one without these weights, or one without a second head.
        CheckpointError: weights of another network.
    """
    run = open_run(folder)
    config = read_config(run)
    if config.classification is None:
        raise RunError(f"run {folder} segments alone: name one whose config has a classification section")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return CaseClassifier(_trained(run, config, device=device, inference=config.inference, weights=weights))


def _trained(
    run: Run, config: ExperimentConfig, *, device: str, inference: InferenceConfig, weights: str
) -> NetworkSegmenter:
    """The network of a run of one, with its weights, in evaluation mode and the memory format of its training."""
    build = partial(
        build_network,
        config.network,
        in_channels=len(known(config.data.images)),
        out_channels=label_set(config).classes,
        dims=known(config.patches.dims),
        class_head=config.classification,
    )
    check_weights(run.weights(weights), build(device="meta"))
    network = build()
    load_weights(run.weights(weights), network)
    last = config.train.memory_format == "channels_last"  # measured as the faster one where it was trained
    Choice(memory_format="channels_last" if last else "contiguous").place(network, torch.device(device)).eval()
    return network_segmenter(network, config, device=device, inference=inference)


# ---------------------------------------------------------------- several networks


def stages_of(config: ExperimentConfig) -> list[tuple[str, StageConfig]]:
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


def build_cascade(config: ExperimentConfig, coarse: Segmenter, fine: Segmenter) -> Cascade:
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

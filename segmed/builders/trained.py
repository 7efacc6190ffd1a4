"""Run folder -> segmenter or classifier, with its weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from segmed.builders.architectures import build_classifier, build_network
from segmed.builders.segmenters import build_cascade, label_set, load_stage, network_segmenter, stages_of
from segmed.config import InferenceConfig, SegmentationConfig, known
from segmed.errors import RunError
from segmed.networks.classifiers import ClassificationModel
from segmed.runs import Run, open_run, read_class_config, read_config
from segmed.segmenters.case_class import CaseClassifier
from segmed.segmenters.combine import LargestComponent
from segmed.segmenters.segmenter import Segmenter
from segmed.segmenters.trained_network import NetworkSegmenter
from segmed.targets import targets_of
from segmed.training.checkpoint import check_weights, load_weights
from segmed.training.precision import Choice


def load_run_config(folder: Path) -> SegmentationConfig:
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
        RunError: weights of another network.
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
        RunError: weights of another network.
    """
    run = open_run(folder)
    config = read_config(run)
    if config.classification is None:
        raise RunError(f"run {folder} segments alone: name one whose config has a classification section")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return CaseClassifier(_trained(run, config, device=device, inference=config.inference, weights=weights))


def _trained(
    run: Run, config: SegmentationConfig, *, device: str, inference: InferenceConfig, weights: str
) -> NetworkSegmenter:
    """The network of a run of one, with its weights, in evaluation mode and the memory format of its training."""
    build = partial(
        build_network,
        config.network,
        in_channels=len(known(config.data.images)),
        out_channels=targets_of(label_set(config)).channels,
        dims=known(config.patches.dims),
        class_head=config.classification,
    )
    check_weights(run.weights(weights), build(device="meta"))
    network = build()
    load_weights(run.weights(weights), network)
    last = config.train.memory_format == "channels_last"  # measured as the faster one where it was trained
    Choice(memory_format="channels_last" if last else "contiguous").place(network, torch.device(device)).eval()
    return network_segmenter(network, config, device=device, inference=inference)


def load_classifier(folder: Path, *, weights: str = "best", device: str = "auto") -> ClassificationModel:
    """The trained model of a run, in evaluation mode.

    Args:
        folder: of the run.
        weights: `best` on validation, or `last`.
        device: `auto`: a GPU where there is one.

    Raises:
        RunError: no run, or one without these weights.
        RunError: weights of another model.
    """
    run = open_run(folder)
    config = read_class_config(run)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build_classifier(
        config.network,
        in_channels=config.image.channels,
        classes=len(known(config.data.classes)),
        size=config.image.size,
    )
    load_weights(run.weights(weights), network)
    return network.to(device).eval()

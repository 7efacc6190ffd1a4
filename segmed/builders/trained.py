"""Run folder -> segmenter or classifier, with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segmed.builders.architectures import build_classifier, build_network
from segmed.builders.engine_networks import engine_network
from segmed.builders.ensembles import Member, common_cleaning, members_of
from segmed.builders.segmenters import build_cascade, cleaned, label_set, load_stage, network_segmenter, stages_of
from segmed.config import InferenceConfig, SegmentationConfig, known
from segmed.errors import RunError
from segmed.networks.classifiers import ClassificationModel
from segmed.runs import Folds, Run, open_run, read_class_config, read_config
from segmed.segmenters.case_class import CaseClassifier
from segmed.segmenters.combine import Mean
from segmed.segmenters.engines import Engine
from segmed.segmenters.segmenter import Segmenter
from segmed.segmenters.trained_network import NetworkSegmenter
from segmed.targets import targets_of
from segmed.training.checkpoint import check_weights, load_weights
from segmed.training.precision import Choice

NOT_CLEANED: dict[str, Any] = {"largest_component": (), "smallest_ml": {}}


def load_run_config(folder: Path) -> SegmentationConfig:
    """The resolved config of a run folder; of a cross-validation that of its first fold."""
    return members_of(folder)[0].config


def load_run(
    folder: Path,
    *,
    device: str = "auto",
    inference: InferenceConfig | None = None,
    weights: str = "best",
    engine: Engine = "torch",
) -> Segmenter:
    """A trained run as a segmenter: native volume in, probabilities on its own grid out.

    The folds of a cross-validation are one segmenter: the mean of their probabilities, with the settings that were
    chosen for it.

    Args:
        folder: of the run, or of a cross-validation whose folds are all done.
        device: `cpu`, `cuda`, `cuda:1`; `auto`: a GPU where there is one.
        inference: in place of the run's own settings.
        weights: `best` on validation, or `last`.
        engine: that computes the network; others than torch need a model file that holds it for them.

    Raises:
        RunError: no run, or one without these weights.
        RunError: weights of another network.
    """
    if Folds(folder).begun:
        return load_together(members_of(folder), device=device, inference=inference, weights=weights, engine=engine)
    run: Run = open_run(folder)
    config = read_config(run)
    segmenter = _uncleaned(run, config, device=device, inference=inference, weights=weights, engine=engine)
    return cleaned(segmenter, inference or config.inference)


def _uncleaned(
    run: Run,
    config: SegmentationConfig,
    *,
    device: str,
    inference: InferenceConfig | None,
    weights: str,
    engine: Engine,
) -> Segmenter:
    """A run whose pieces are not cleaned yet; networks of its stages clean theirs, as each was trained."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not config.composed:
        settings = inference or config.inference
        return _trained(run, config, device=device, inference=settings, weights=weights, engine=engine)

    def load(folder: Path) -> Segmenter:
        member = open_run(folder)
        own = read_config(member)
        kept = {name: getattr(own.inference, name) for name in NOT_CLEANED}
        settings = own.inference if inference is None else inference.model_copy(update=kept)
        network = _uncleaned(member, own, device=device, inference=settings, weights=weights, engine=engine)
        return cleaned(network, settings)

    if config.ensemble is not None:
        return load_stage(run.path, config.ensemble, load)
    return build_cascade(config, *(load_stage(run.path / name, stage, load) for name, stage in stages_of(config)))


def load_together(
    members: Sequence[Member],
    *,
    device: str = "auto",
    inference: InferenceConfig | None = None,
    changes: Mapping[str, Any] | None = None,
    weights: str = "best",
    engine: Engine = "torch",
    each: Callable[[Segmenter], Segmenter] | None = None,
) -> Segmenter:
    """Several trained runs as one segmenter: the mean of their probabilities, whose pieces are cleaned once.

    Args:
        members: of `members_of`, of the same labels and images.
        device, inference, weights, engine: as in `load_run`.
        changes: fields of `inference` in place of each member's own; those of pieces are of the mean.
        each: what is put around each of them, before the mean is taken.

    Raises:
        RunError: as in `load_run`.
    """
    changes = changes or {}
    pieces = inference or common_cleaning(members).model_copy(update=changes)
    parts = []
    for member in members:
        own = inference  # of several networks: each of them keeps its own where none is given
        if not member.config.composed:
            settings = (inference or member.config.inference).model_dump()
            own = InferenceConfig.model_validate({**settings, **changes, **NOT_CLEANED})
        run = open_run(member.run)
        parts.append(_uncleaned(run, member.config, device=device, inference=own, weights=weights, engine=engine))
    parts = parts if each is None else [each(part) for part in parts]
    return cleaned(Mean(parts), pieces)


def load_runs(folders: Sequence[Path], *, device: str = "auto") -> Segmenter:
    """The runs of one or several folders as one segmenter, as `segmed predict` has it.

    Raises:
        RunError: as in `load_run`.
    """
    if len(folders) == 1:
        return load_run(folders[0], device=device)
    return load_together([member for folder in folders for member in members_of(folder)], device=device)


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
    run: Run,
    config: SegmentationConfig,
    *,
    device: str,
    inference: InferenceConfig,
    weights: str,
    engine: Engine = "torch",
) -> NetworkSegmenter:
    """The network of a run of one, with its weights, in evaluation mode and the memory format of its training."""
    if engine != "torch":
        computed = engine_network(run, _network_of(config, device="meta"), config, engine=engine)
        return network_segmenter(computed, config, device="cpu", inference=inference)
    network = load_network(run, config, weights=weights)
    last = config.train.memory_format == "channels_last"  # measured as the faster one where it was trained
    Choice(memory_format="channels_last" if last else "contiguous").place(network, torch.device(device)).eval()
    return network_segmenter(network, config, device=device, inference=inference)


def load_network(run: Run, config: SegmentationConfig, *, weights: str = "best") -> nn.Module:
    """The network of a run of one, with its weights, on the CPU.

    Raises:
        RunError: weights that are missing, or of another network.
    """
    check_weights(run.weights(weights), _network_of(config, device="meta"))
    network = _network_of(config)
    load_weights(run.weights(weights), network)
    return network


def _network_of(config: SegmentationConfig, **options: Any) -> nn.Module:
    return build_network(
        config.network,
        in_channels=len(known(config.data.images)),
        out_channels=targets_of(label_set(config)).channels,
        dims=known(config.patches.dims),
        class_head=config.classification,
        **options,
    )


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

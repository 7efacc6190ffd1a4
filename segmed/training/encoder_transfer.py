"""Start a run with the encoder or the whole network of another: read it, fit its shape, take its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from segmed.config import Section, SegmentationConfig, UNetConfig, known
from segmed.config.classification import ClassificationConfig
from segmed.config.classifier import EncoderClassifierConfig
from segmed.config.encoder import EncoderConfig, Strides
from segmed.config.reading import classifies
from segmed.errors import NetworkError, RunError
from segmed.labels import LabelSet
from segmed.networks.classifiers import ClassificationModel
from segmed.networks.encoders.base_encoder import Encoder
from segmed.networks.models import SegmentationNet
from segmed.networks.weight_transfer import PREFIX, Transfer, move_encoder, move_network, of_one_network
from segmed.runs import Folds, Run, open_run, read_config_as
from segmed.targets import targets_of
from segmed.training.checkpoint import is_finite, read_weights
from segmed.training.optimisation import check_frozen

NAMED = 4  # networks of a composed run that a message names


@dataclass(frozen=True)
class SourceEncoder:
    """A trained encoder, as its run's config describes it.

    Attributes:
        run: that trained it.
        encoder: its resolved section.
    """

    run: Run
    encoder: EncoderConfig

    @property
    def channels(self) -> tuple[int, ...]:
        """Feature maps of each level, finest first."""
        return known(self.encoder.channels)

    @property
    def strides(self) -> Strides:
        """Step of each level, an entry per axis, finest first."""
        return known(self.encoder.strides)

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.strides[0])

    @property
    def options(self) -> str:
        """What to add to a command line for an encoder of this shape."""
        channels = " ".join(map(str, self.channels))
        section, encoder = "--network.encoder", self.encoder
        return f"{section}.name {encoder.name} {section}.channels {channels} {section}.blocks {encoder.blocks}"


def source_encoder(folder: Path) -> SourceEncoder:
    """The encoder of a segmentation's or a classification's run.

    Raises:
        RunError, ConfigError: no run, or one that can't be read.
        RunError: a run of several networks, one without weights yet, or without an encoder of ours.
    """
    if (folds := Folds(folder)).begun:
        raise RunError(f"{folder} is a cross-validation: name one of its runs, such as {folds.runs()[0].path}")
    run = open_run(folder)
    if classifies(run.config):
        network: Section = read_config_as(ClassificationConfig, run).network
    else:
        config = read_config_as(SegmentationConfig, run)
        network = config.network
        if config.composed:
            raise RunError(f"{folder} is made of several networks: name one of them{_members(folder)}")
    if not isinstance(network, (UNetConfig, EncoderClassifierConfig)):
        name = getattr(network, "name", "another network")
        raise RunError(
            f"run {folder} trained {name}, which has no encoder of ours: name a run of the network unet, or of "
            "encoder among the classifiers"
        )
    if not run.weights("best").is_file():
        raise RunError(f"run {folder} has no weights yet: train it to its end, or name another run")
    return SourceEncoder(run, network.encoder)


def _members(folder: Path) -> str:
    """The trained networks of a composed run, for a message."""
    members = [path.parents[1] for path in sorted(folder.rglob("weights/best.safetensors"))]
    members = [member for member in members if "without_fold_" not in str(member.relative_to(folder))]
    if not members:
        return ", once it is trained: none has weights yet"
    more = f" and {len(members) - NAMED} more" if len(members) > NAMED else ""
    return f": {', '.join(map(str, members[:NAMED]))}{more}"


def shaped_like(encoder: EncoderConfig, folder: Path | None, *, dims: int) -> tuple[EncoderConfig, dict[str, str]]:
    """Give an encoder the shape of the one that it starts from, where its section says `auto`.

    Strides are taken where the number of dimensions agrees; else they are left to the planner, which may want fewer
    levels than there are channels.

    Args:
        encoder: of a segmentation's network or of a classifier.
        folder: of the run; none: nothing is taken.
        dims: of the network.

    Returns:
        The section, and the reason of each field that was set.

    Raises:
        RunError: see `source_encoder`.
    """
    if folder is None:
        return encoder, {}
    source = source_encoder(folder)
    values: dict[str, Any] = {}
    if encoder.channels == "auto":
        levels = None if encoder.strides == "auto" else len(encoder.strides)
        values["channels"] = source.channels[:levels]
    if encoder.strides == "auto" and source.dims == dims:
        levels = None if encoder.channels == "auto" else len(encoder.channels)
        values["strides"] = source.strides[:levels]
    reason = f"as in {folder}, whose weights this run begins with"
    return encoder.model_copy(update=values), dict.fromkeys(values, reason)


def check_start(config: SegmentationConfig) -> None:
    """See that the run that a network begins with is of its kind and its dimensions, before others train.

    Args:
        config: of one network, which names another run; `patches.dims` is known.

    Raises:
        RunError: see `source_encoder` and `_check_kind`; or the network is none of ours.
        ConfigError: more levels are frozen than there are.
    """
    folder, dims, whole = config.init_run, known(config.patches.dims), config.init_network is not None
    if folder is None:
        return
    source = source_encoder(folder)
    if not isinstance(config.network, UNetConfig):
        key = "init_network" if whole else "init_encoder"
        raise RunError(f"{key}: {config.name} is {config.network.name}, which can't begin with a U-Net: choose unet")
    _check_kind(source, whole=whole, dims=dims, name=config.name)
    encoder, _ = shaped_like(config.network.encoder, folder, dims=dims)
    check_frozen(config.train.frozen_levels, len(known(encoder.channels)))


def _check_kind(source: SourceEncoder, *, whole: bool, dims: int, name: str = "this one") -> None:
    """See that a network can begin with a run, whatever its weights.

    Args:
        source: encoder of the run.
        whole: the decoder is wanted, too.
        dims: of the network.
        name: of the network, for a message.

    Raises:
        RunError: a run of classification where a decoder is wanted, or one of other dimensions; an encoder may go
            from 2D to 3D.
    """
    folder = source.run.path
    if whole and classifies(source.run.config):
        raise RunError(f"init_network: {folder} classifies and has no decoder: name it by init_encoder")
    if source.dims > dims or (whole and source.dims != dims):
        encoder_alone = ", or take its encoder alone by init_encoder" if source.dims < dims else ""
        raise RunError(
            f"init_{'network' if whole else 'encoder'}: run {folder} is in {source.dims}D, {name} in {dims}D: "
            f"name a run in {dims}D{encoder_alone}"
        )


def take_encoder(network: nn.Module, folder: Path) -> Transfer:
    """Start a network's encoder with the weights of another run.

    Args:
        network: is changed; on the device `meta` it is only seen whether they fit.
        folder: of the other run.

    Raises:
        RunError, ConfigError: no run, or weights that can't be read.
        RunError: see `source_encoder`; or nothing fits: the message says what would.
    """
    source = source_encoder(folder)
    weights = of_one_network(read_weights(source.run.weights("best")))
    if not is_finite({name: tensor for name, tensor in weights.items() if name.startswith(PREFIX)}):
        raise RunError(f"weights of run {folder} hold NaN or infinity: name another run")
    own = getattr(network, "encoder", None)
    if not isinstance(own, Encoder):
        raise RunError(
            f"init_encoder: {type(network).__name__} has no encoder of ours to begin with the one of {folder}: choose "
            f"--network.name {'encoder' if isinstance(network, ClassificationModel) else 'unet'}"
        )
    _check_kind(source, whole=False, dims=own.dims)
    try:
        return move_encoder(weights, network)
    except NetworkError as error:
        kind = type(own).__name__.removesuffix("Encoder").lower()
        raise RunError(
            f"no weight of the encoder of {folder} fits this one, {kind} with channels "
            f"{' '.join(map(str, own.channels))}: give {source.options}"
        ) from error


def take_network(network: nn.Module, folder: Path, *, labels: Sequence[str], classes: Sequence[str] = ()) -> Transfer:
    """Start a network with all the weights of another run: encoder, decoder, and heads that tell the same apart.

    Args:
        network: is changed; on the device `meta` it is only seen whether they fit.
        folder: of the other run.
        labels: what this run's heads give, background and labels or regions, in the order of the channels.
        classes: what its second head tells apart, in the order of the outputs; empty: it has none.

    Raises:
        RunError, ConfigError: no run, or weights that can't be read.
        RunError: see `source_encoder`; a run of classification or of other dimensions; or nothing fits.
    """
    source = source_encoder(folder)
    if not isinstance(network, SegmentationNet):
        raise RunError(f"init_network: {type(network).__name__} can't begin with a U-Net: choose --network.name unet")
    _check_kind(source, whole=True, dims=network.dims)
    weights = of_one_network(read_weights(source.run.weights("best")))
    if not is_finite(weights):
        raise RunError(f"weights of run {folder} hold NaN or infinity: name another run")
    config = read_config_as(SegmentationConfig, source.run)
    data, second = config.data, config.classification
    theirs = LabelSet.from_config(known(data.labels), regions=data.regions, targets=data.targets)
    told = () if second is None else tuple(known(second.classes))
    same = {"heads": targets_of(theirs).names == tuple(labels), "class_head": told == tuple(classes)}
    try:
        return move_network(weights, network, **same)
    except NetworkError as error:
        raise RunError(f"no weight of {folder} fits this network: give {source.options}") from error

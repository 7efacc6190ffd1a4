"""Build a network, read what a data set and a run hold, and see what a network is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from pydantic import TypeAdapter

from segmed.builders import architectures, datasets, segmenters, trained
from segmed.config import AugmentConfig, Network, SegmentationConfig, known
from segmed.data.audit import Audit
from segmed.data.augment import Augmentation
from segmed.data.cache import VolumeCache
from segmed.data.cases import Dataset, cases_of
from segmed.data.preprocess import prepare
from segmed.data.splits import Split
from segmed.data.training_patches import PatchDataset
from segmed.errors import VolumeError
from segmed.networks.models import SegmentationModel
from segmed.public.experiments import PathLike, experiment_of
from segmed.runs import open_run
from segmed.runs import read_history as read_history_file


def build_network(
    network: Network | Mapping[str, Any], *, in_channels: int, classes: int, dims: int
) -> SegmentationModel:
    """A network for segmentation: image (B, C, *spatial) -> logits (B, classes, *spatial).

        >>> shape = {"name": "residual", "channels": [4, 8, 16], "strides": [1, 2, 2]}
        >>> network = segmed.build_network({"name": "unet", "encoder": shape}, in_channels=1, classes=3, dims=3)
        >>> network(torch.zeros(2, 1, 16, 16, 16)).shape
        torch.Size([2, 3, 16, 16, 16])

    Args:
        network: the `network` section of an experiment, without `auto`; one number a level in `strides` is meant for
            all axes.
        in_channels: modalities.
        classes: labels and background.
        dims: 2 or 3.

    Raises:
        ValueError: a section that can't be used.
    """
    if isinstance(network, Mapping):
        network = TypeAdapter(Network).validate_python(_on_all_axes(network, dims))
    return architectures.build_network(network, in_channels=in_channels, out_channels=classes, dims=dims)


def _on_all_axes(section: Mapping[str, Any], dims: int) -> dict[str, Any]:
    """A section, with its encoder's, whose strides have an entry an axis."""
    whole = dict(section)
    if strides := section.get("strides"):
        whole["strides"] = [(step,) * dims if isinstance(step, int) else tuple(step) for step in strides]
    if isinstance(encoder := section.get("encoder"), Mapping):
        whole["encoder"] = _on_all_axes(encoder, dims)
    return whole


def read_dataset(experiment: SegmentationConfig | PathLike, *, overrides: Mapping[str, Any] | None = None) -> Dataset:
    """The cases of an experiment, its modalities and labels; a phantom is made first where it is not there yet.

        >>> dataset = segmed.read_dataset("phantom", overrides=tiny)
        >>> len(dataset.cases), dataset.modalities
        (3, ('LGE',))

    Arguments and errors are those of `train`.
    """
    config = experiment_of(experiment, overrides)
    if not isinstance(config, SegmentationConfig):
        raise VolumeError("an experiment of classification has no label maps: name one of segmentation")
    return datasets.build_dataset(config)


def preprocess(
    image: MetaTensor, label: MetaTensor | None, run: PathLike | SegmentationConfig
) -> tuple[MetaTensor, MetaTensor | None]:
    """An image and its label map as the network of a run sees them: oriented, cropped, respaced, normalised.

        >>> image, label = segmed.read_case(dataset.cases[0], dataset)
        >>> prepared, prepared_label = segmed.preprocess(image, label, run)
        >>> prepared.shape == prepared_label.shape
        True

    Args:
        image: (C, X, Y, Z) on the native grid.
        label: (1, X, Y, Z) label indices on the same grid, or None.
        run: its folder, or its config.

    Returns:
        The image (C, X, Y, Z) and the label map (1, X, Y, Z) on the run's grid.

    Raises:
        RunError: no run.
    """
    config = run if isinstance(run, SegmentationConfig) else read_run_config(run)
    return prepare(image, label, config.preprocess)


def training_patches(
    run: PathLike, augment: AugmentConfig | None = None, *, foreground: float | None = None, seed: int | None = None
) -> PatchDataset:
    """The patches that a run is trained on, numbered without end: patch n is a function of the seed and n alone.

        >>> patches = segmed.training_patches(run)
        >>> patches[0]["image"].shape, patches[0]["label"].shape
        (torch.Size([1, 32, 32]), torch.Size([32, 32]))

    Args:
        run: its folder.
        augment: in place of the run's own.
        foreground: share of patches around a label, in place of the run's own.
        seed: in place of the run's own.

    Returns:
        Patches by number: `image` (C, *patch) and `label` (*patch) with label indices.

    Raises:
        RunError: no run.
    """
    config = read_run_config(run)
    dataset = datasets.build_dataset(config)
    cases = cases_of(dataset, read_split(run).train)
    cache = VolumeCache(config.cache or config.runs / "cache")
    volumes = cache.build(cases, dataset, config.preprocess, workers=1, progress=False)
    patches = config.patches if foreground is None else config.patches.model_copy(update={"foreground": foreground})
    return PatchDataset(
        volumes,
        patches=patches,
        plane_axis=segmenters.plane_axis(config),
        augmentation=Augmentation(augment or config.augment, dims=known(patches.dims), labels=dataset.labels),
        seed=config.seed if seed is None else seed,
    )


def read_run_config(run: PathLike) -> SegmentationConfig:
    """The config of a segmentation run, without any `auto`.

        >>> segmed.read_run_config(run).network.encoder.channels
        (4, 8)

    Args:
        run: its folder.

    Raises:
        RunError: no run, or one that classifies.
    """
    return trained.load_run_config(Path(run))


def read_split(run: PathLike) -> Split:
    """Ids of the cases that trained the run, that chose its weights, and that tested it.

        >>> len(segmed.read_split(run).test)
        1

    Args:
        run: its folder.

    Raises:
        RunError: no run.
    """
    return Split.load(open_run(Path(run)).split)


def read_audit(run: PathLike) -> Audit:
    """What the files of a run were like, and what was found in them.

        >>> len(segmed.read_audit(run).facts)
        3

    Args:
        run: its folder.

    Raises:
        RunError: no run.
    """
    return Audit.load(open_run(Path(run)).path / "audit.json")


def read_history(run: PathLike) -> dict[str, list[tuple[float, float]]]:
    """The curves of a run's training: name -> its points, each (step, value).

        >>> "loss" in segmed.read_history(run)
        True

    Args:
        run: its folder; one that has not begun to train has no curves.
    """
    return read_history_file(Path(run) / "history.csv")

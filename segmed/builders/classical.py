"""Config of a classical method -> the method, trained on cases where it has to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.config.methods import (
    ChanVeseConfig,
    ClassicalMethod,
    FullWidthConfig,
    GaussianMixtureConfig,
    GeodesicConfig,
    GraphCutConfig,
    HierarchicalFlowConfig,
    KMeansConfig,
    OtsuConfig,
    PottsFlowConfig,
    RandomWalkerConfig,
    RegionGrowingConfig,
    RemoteConfig,
    StandardDeviationsConfig,
    VoxelClassifierConfig,
)
from segmed.errors import SegmenterError
from segmed.labels import LabelSet
from segmed.segmenters.chanvese import ChanVese
from segmed.segmenters.clustering import GaussianMixture, KMeans
from segmed.segmenters.energies import HierarchicalFlow, PottsFlow
from segmed.segmenters.graphcut import GraphCut
from segmed.segmenters.growing import RegionGrowing
from segmed.segmenters.intensities import FromHistograms, Histograms, Mixture, TissueCosts
from segmed.segmenters.levelsets import GeodesicActiveContour
from segmed.segmenters.region import Known, Scene, TissueMethod
from segmed.segmenters.remote import RemoteMask, RemoteRegion, RemoteSector
from segmed.segmenters.thresholds import FullWidthHalfMaximum, Otsu, StandardDeviations, Threshold
from segmed.segmenters.voxel_features import FeatureSettings
from segmed.segmenters.voxel_training import ClassifierSettings
from segmed.segmenters.voxelwise import VoxelClassifier
from segmed.segmenters.walkers import RandomWalker

REST, TISSUE = "rest", "tissue"  # masks in `found` of the scenes that methods learn from


@dataclass(frozen=True)
class TreeFlow(TissueMethod):
    """Hierarchical max-flow in a scene: the region holds the tissue and the rest, all else is one label.

    Attributes:
        histograms: of `REST` and `TISSUE`.
        smoothness: of every node, see `HierarchicalFlow`.
        iterations: at most.
    """

    histograms: Histograms
    smoothness: float
    iterations: int

    def probability(self, scene: Scene) -> np.ndarray:
        affine = torch.diag(torch.tensor([*scene.spacing_mm, 1.0], dtype=torch.float64))
        mask = torch.from_numpy(np.ascontiguousarray(scene.region))[None].to(torch.uint8)
        flow = HierarchicalFlow(
            self.histograms,
            {"outside": None, "region": {REST: None, TISSUE: None}},
            labels=LabelSet((REST, TISSUE), ((1,), (2,))),
            smoothness=self.smoothness,
            region=Known(MetaTensor(mask, affine=affine), LabelSet(("region",), ((1,),))),
            confined={"outside": ("background",), "region": ("region",)},
            iterations=self.iterations,
        )
        image = torch.from_numpy(np.ascontiguousarray(scene.image))[None]
        probabilities = flow.probabilities(MetaTensor(image, affine=affine)).as_tensor()[2].numpy()
        return np.where(scene.region, probabilities, 0).astype(np.float32)


def build_method(config: ClassicalMethod, scenes: Sequence[Scene] | None = None) -> TissueMethod:
    """The method of a config.

    Args:
        config: any of the sections of `segmed.config.methods`.
        scenes: training cases, whose `found` holds `REST` and `TISSUE`, and the labels that the config names; taken
            one after the other, so a sequence that reads a case when asked will do. Methods that learn need them.

    Raises:
        SegmenterError: options that do not fit together, no training cases, or cases that can't be learned from.
    """
    if config.needs_training and not scenes:
        raise SegmenterError(f"{config.name} learns from cases: give some whose tissue is known")
    options = config.model_dump(exclude={"name"})
    match config:
        case OtsuConfig():
            return Otsu(**options)
        case FullWidthConfig():
            return FullWidthHalfMaximum(**{**options, "remote": _remote(config.remote)})
        case StandardDeviationsConfig():
            return StandardDeviations(n=config.n, remote=_remote(config.remote))
        case RegionGrowingConfig():
            return RegionGrowing(**{**options, "lower": _lower(config.lower)})
        case KMeansConfig():
            return KMeans(**options)
        case GaussianMixtureConfig():
            return GaussianMixture(**options)
        case VoxelClassifierConfig():
            return _classifier(config, scenes or ())
        case GeodesicConfig():
            return GeodesicActiveContour(**options)
        case ChanVeseConfig():
            return ChanVese(**options)
        case RandomWalkerConfig():
            return RandomWalker(**options)
        case GraphCutConfig():
            return GraphCut(**{**options, "model": _model(config.model, scenes or ())})
        case PottsFlowConfig():
            return PottsFlow(**{**options, "model": _model(config.model, scenes or ())})
        case HierarchicalFlowConfig():
            histograms = Histograms.fit(scenes or (), (REST, TISSUE), bins=config.bins, blur_bins=config.blur_bins)
            return TreeFlow(histograms, config.smoothness, config.iterations)


def _remote(config: RemoteConfig) -> RemoteRegion:
    if config.mask is not None:
        return RemoteMask(name=config.mask, smallest_voxels=config.smallest_voxels)
    return RemoteSector(**config.model_dump(exclude={"mask"}))


def _lower(lower: float | str) -> float | Threshold | None:
    named: dict[str, Threshold | None] = {"otsu": Otsu(), "fwhm": FullWidthHalfMaximum(), "likeness": None}
    return named[lower] if isinstance(lower, str) else lower


def _model(name: str, scenes: Sequence[Scene]) -> TissueCosts:
    if name == "mixture":
        return Mixture()
    return FromHistograms(Histograms.fit(scenes, (REST, TISSUE)), REST, TISSUE)


def _classifier(config: VoxelClassifierConfig, scenes: Sequence[Scene]) -> VoxelClassifier:
    of_features = {"pool", "rv", "scales_mm", "position", "oriented"}
    options: dict[str, Any] = config.model_dump(exclude={"name", *of_features})
    features = FeatureSettings(**config.model_dump(include=of_features))
    settings = ClassifierSettings(kind=config.name, features=features, **options)
    return VoxelClassifier.fit(scenes, _Targets(scenes), settings)


class _Targets(Sequence[np.ndarray]):
    """The tissue of each scene."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self._scenes = scenes

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, number: Any) -> Any:
        return self._scenes[number].masks[TISSUE]

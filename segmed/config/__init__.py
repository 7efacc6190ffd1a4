"""The schema of every experiment: frozen, validated models whose fields say what they mean.

Every field that may be `auto` is resolved by `segmed.segment.plan` from the data and the machine.
This package imports neither torch nor MONAI, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from segmed.config.adversary import (
    AdversaryConfig,
    Discriminator,
    ImageDiscriminatorConfig,
    PatchDiscriminatorConfig,
    PixelDiscriminatorConfig,
    SeganCriticConfig,
)
from segmed.config.base import Auto, Positive, Section, known
from segmed.config.composite import CascadeConfig, StageConfig, View
from segmed.config.data import (
    PHANTOM_FILES,
    BidsLayout,
    DataConfig,
    Layout,
    ManifestLayout,
    MsdLayout,
    NnunetLayout,
    PatternLayout,
    PhantomLayout,
    PreprocessConfig,
    SplitConfig,
    VolumeLeakConfig,
)
from segmed.config.encoder import ClassifierEncoderConfig, DiscriminatorEncoderConfig, EncoderConfig, EncoderName
from segmed.config.multitask import CaseClassConfig
from segmed.config.network import (
    DiceCELossConfig,
    DiceFocalLossConfig,
    DiceLossConfig,
    DynUNetConfig,
    GeneralisedDiceLossConfig,
    Loss,
    Network,
    PatchCnnConfig,
    SegResNetConfig,
    SwinUNETRConfig,
    TopKCELossConfig,
    TverskyLossConfig,
    UNetConfig,
)
from segmed.config.sampling import AUGMENT_PRESETS, AugmentConfig, PatchConfig
from segmed.config.training import EvaluateConfig, InferenceConfig, TrainConfig, check_levels

__all__ = [
    "AUGMENT_PRESETS",
    "PHANTOM_FILES",
    "AdversaryConfig",
    "AugmentConfig",
    "Auto",
    "BidsLayout",
    "CascadeConfig",
    "CaseClassConfig",
    "ClassifierEncoderConfig",
    "DataConfig",
    "DiceCELossConfig",
    "DiceFocalLossConfig",
    "DiceLossConfig",
    "Discriminator",
    "DiscriminatorEncoderConfig",
    "DynUNetConfig",
    "EncoderConfig",
    "EncoderName",
    "EvaluateConfig",
    "GeneralisedDiceLossConfig",
    "ImageDiscriminatorConfig",
    "InferenceConfig",
    "Layout",
    "Loss",
    "ManifestLayout",
    "MsdLayout",
    "Network",
    "NnunetLayout",
    "PatchCnnConfig",
    "PatchConfig",
    "PatchDiscriminatorConfig",
    "PatternLayout",
    "PhantomLayout",
    "PixelDiscriminatorConfig",
    "PreprocessConfig",
    "Section",
    "SegResNetConfig",
    "SeganCriticConfig",
    "SegmentationConfig",
    "SplitConfig",
    "StageConfig",
    "SwinUNETRConfig",
    "TopKCELossConfig",
    "TrainConfig",
    "TverskyLossConfig",
    "UNetConfig",
    "View",
    "VolumeLeakConfig",
    "known",
]


class SegmentationConfig(Section):
    """One experiment, whole."""

    name: str = Field("experiment", description="shown in the run's folder and tables")
    seed: int = Field(0, description="of weights, patches and augmentation")
    runs: Path = Field(Path("runs"), description="folder in which runs are made")
    cache: Path | None = Field(None, description="folder of preprocessed volumes; none: `cache` inside the runs folder")
    cache_limit_gb: Positive | None = Field(
        None,
        description="when a run begins, what was not used for longest is removed from a larger cache; none: no limit",
    )
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    leaks: VolumeLeakConfig = VolumeLeakConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    augment: AugmentConfig = AugmentConfig()
    patches: PatchConfig = PatchConfig()
    network: Network = UNetConfig()
    init_encoder: Path | None = Field(
        None, description="run, of segmentation or classification, whose encoder's weights this one starts from"
    )
    init_network: Path | None = Field(
        None,
        description="run of segmentation whose weights this one starts from, encoder and decoder, and heads too where "
        "both have the same labels: fine-tuning",
    )
    loss: Loss = DiceCELossConfig()
    train: TrainConfig = TrainConfig()
    adversary: AdversaryConfig | None = Field(None, description="a discriminator to train against; none: supervised")
    classification: CaseClassConfig | None = Field(
        None, description="a second head on the same encoder, for the class of a case; none: segmentation alone"
    )
    ensemble: StageConfig | None = Field(None, description="networks of several views, fused; none: one network")
    cascade: CascadeConfig | None = Field(None, description="two stages of networks; none: one")
    inference: InferenceConfig = InferenceConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _one_composition(self) -> SegmentationConfig:
        if self.ensemble is not None and self.cascade is not None:
            raise ValueError("ensemble and cascade exclude each other: a cascade's stages are ensembles themselves")
        return self

    @model_validator(mode="after")
    def _one_start(self) -> SegmentationConfig:
        if self.init_encoder is not None and self.init_network is not None:
            raise ValueError("init_encoder and init_network exclude each other: a network holds its encoder, give one")
        starts = self.init_run is not None or self.composed
        check_levels(self.train, network=self.network.name, ours="unet", starts=starts)
        return self

    @model_validator(mode="after")
    def _members_alone(self) -> SegmentationConfig:
        self.check_members()
        return self

    def check_members(self) -> None:
        """See that nothing asks for a single network where it has several members.

        Raises:
            ValueError: something does; named.
        """
        members = self.network.members if isinstance(self.network, UNetConfig) else 1
        given = ("adversary", "classification", "init_encoder", "init_network")
        others = [name for name in given if getattr(self, name) is not None]
        others += ["train.layer_decay"] if self.train.layer_decay < 1 else []
        if members > 1 and others:
            raise ValueError(
                f"network.members {members} and {others[0]} exclude each other: leave {others[0]} out, or set "
                "network.members 1"
            )

    @property
    def init_run(self) -> Path | None:
        """The run whose weights this one starts from, all of them or the encoder's."""
        return self.init_network or self.init_encoder

    @property
    def composed(self) -> bool:
        """Whether it takes several networks."""
        return self.ensemble is not None or self.cascade is not None

    @property
    def takes_incomplete(self) -> bool:
        """Whether all its networks learn to do without one of several images."""
        stages = [self.cascade.coarse, self.cascade.fine] if self.cascade else [self.ensemble] if self.ensemble else []
        sections = [stage.augment or self.augment for stage in stages] or [self.augment]
        return all(augment.modality_dropout > 0 for augment in sections)

    @property
    def title(self) -> str:
        """The name, with that of the discriminator where there is one."""
        return self.name if self.adversary is None else f"{self.name}-{self.adversary.discriminator.name}"

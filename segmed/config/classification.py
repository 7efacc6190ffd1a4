"""The schema of a classification experiment: data, split, images, network, loss, training, evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from segmed.config.base import Auto, Count, Fraction, Length, Positive, Section
from segmed.config.classifier import ClassifierNetwork, EncoderClassifierConfig
from segmed.config.images import ClassDataConfig, ClassSplitConfig, ImageConfig, LeakConfig
from segmed.config.sampling import AugmentConfig
from segmed.config.training import TrainConfig, check_levels

ClassWeights = tuple[Positive, ...] | Literal["balanced"] | None


class CrossEntropyConfig(Section):
    """Cross-entropy."""

    name: Literal["cross_entropy"] = "cross_entropy"
    class_weights: ClassWeights = Field(None, description="one a class; balanced: one over its share of the training")
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the truth spread over all classes"
    )


class FocalConfig(Section):
    """Focal loss: images that are hard count more."""

    name: Literal["focal"] = "focal"
    gamma: Length = Field(2.0, description="focus on hard images")
    class_weights: ClassWeights = Field(None, description="one a class; balanced: one over its share of the training")
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the truth spread over all classes"
    )


ClassLoss = Annotated[CrossEntropyConfig | FocalConfig, Field(discriminator="name")]


class ClassTrainConfig(TrainConfig):
    """How long training takes, its step size, and its hardware."""

    epochs: Count = Field(30, description="passes over the training images; not used with budget_minutes")
    steps_per_epoch: Count | Auto = Field("auto", description="auto: every training image is drawn about once")
    batch_size: Count = Field(32, description="images in a step on one device")
    balanced: bool = Field(False, description="draw every class as often, however rare it is")
    mixup: Length = Field(0.0, description="alpha of the shares in which two images are mixed; 0: not")
    select: Literal["balanced_accuracy", "auc", "log_loss"] = Field(
        "balanced_accuracy", description="figure of the validation part that chooses the weights"
    )

    @model_validator(mode="after")
    def _only_what_is_used(self) -> ClassTrainConfig:
        if self.accumulate != 1:
            raise ValueError(f"accumulate {self.accumulate}: images are small, raise batch_size instead")
        if self.devices not in ("auto", 1):
            raise ValueError(f"devices {self.devices}: a classifier trains on one, leave it out")
        if self.validation_cases is not None:
            raise ValueError(f"validation_cases {self.validation_cases}: every validation image counts, leave it out")
        return self


class ClassEvaluateConfig(Section):
    """What is measured on the test part, and what validation decides before."""

    positive: str | None = Field(None, description="class that a threshold is for, of two; none: the second")
    rule: Literal["best_accuracy", "youden", "sensitivity", "specificity"] = Field(
        "youden", description="how validation chooses the threshold of the positive class"
    )
    least: Fraction = Field(0.95, description="sensitivity or specificity that rule asks for")
    calibrate: bool = Field(True, description="fit a temperature on validation; figures are given before and after")
    pool: Literal["mean", "vote", "max"] = Field("mean", description="of a subject's images to one decision")
    bootstrap: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        2000, description="resamplings of subjects for the 95 % intervals"
    )
    gallery: Annotated[int, Field(ge=0)] = Field(24, description="misclassified test images that are shown")
    maps: Annotated[int, Field(ge=0)] = Field(6, description="test images for which Grad-CAM and occlusion are drawn")


class ClassificationConfig(Section):
    """One classification experiment, whole."""

    name: str = Field("classification", description="shown in the run's folder and tables")
    seed: int = Field(0, description="of weights, order and augmentation")
    runs: Path = Field(Path("runs"), description="folder in which runs are made")
    cache: Path | None = Field(None, description="folder of decoded images; none: `cache` inside the runs folder")
    cache_limit_gb: Positive | None = Field(
        None,
        description="when a run begins, what was not used for longest is removed from a larger cache; none: no limit",
    )
    data: ClassDataConfig = ClassDataConfig()
    split: ClassSplitConfig = ClassSplitConfig()
    leaks: LeakConfig = LeakConfig()
    image: ImageConfig = ImageConfig()
    augment: AugmentConfig = AugmentConfig()
    network: ClassifierNetwork = EncoderClassifierConfig()
    init_encoder: Path | None = Field(
        None, description="run, of segmentation or classification, whose encoder's weights this one starts from"
    )
    loss: ClassLoss = CrossEntropyConfig()
    train: ClassTrainConfig = ClassTrainConfig()
    evaluate: ClassEvaluateConfig = ClassEvaluateConfig()

    @model_validator(mode="after")
    def _levels_fit(self) -> ClassificationConfig:
        check_levels(self.train, network=self.network.name, ours="encoder", starts=self.init_encoder is not None)
        if self.augment.modality_dropout:
            raise ValueError("augment.modality_dropout is of segmentation: leave it out")
        return self

    @property
    def title(self) -> str:
        """The name."""
        return self.name

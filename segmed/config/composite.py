"""Segmenters made of several networks: the planes of one stage, and two stages one after the other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from segmed.config.base import Auto, Count, Length, Section
from segmed.config.data import PreprocessConfig, Targets
from segmed.config.network import Loss, Network
from segmed.config.sampling import AugmentConfig, PatchConfig
from segmed.config.training import TrainConfig

View = Literal["axial", "coronal", "sagittal", "slices", "volume"]


class StageConfig(Section):
    """The networks of one stage, one a view, fused. A section that is left out is that of the experiment."""

    labels: dict[str, tuple[str, ...]] | Auto = Field(
        "auto",
        description="label -> labels of data.labels that it merges, all others being background; auto: as they are",
    )
    regions: dict[str, tuple[str, ...]] = Field({}, description="region name -> labels of this stage that it holds")
    targets: Targets | None = Field(
        None,
        description="as data.targets, of this stage's labels and regions; none: its labels, or where they are "
        "those of the data, data.targets",
    )
    views: tuple[View, ...] | Auto = Field(
        "auto",
        description="planes whose slices a 2D network sees, or volume for a 3D one; auto: axial, coronal and sagittal, "
        "or the in-plane slices alone where they are thick",
    )
    fuse: Literal["vote", "mean"] = Field("vote", description="of label maps, more than half; or of probabilities")
    at_least: Count | None = Field(None, description="votes that a label needs; none: more than half")
    smallest_ml: Length = Field(0.0, description="smaller pieces of each view's label map are removed before the vote")
    closing_mm: Length = Field(0.0, description="then each is dilated and eroded by this radius")
    preprocess: PreprocessConfig | None = Field(None, description="of this stage")
    augment: AugmentConfig | None = Field(None, description="of this stage")
    patches: PatchConfig | None = Field(None, description="of this stage; dims and plane follow from the view")
    network: Network | None = Field(None, description="of this stage")
    networks: dict[View, Network] = Field({}, description="view -> its own network")
    loss: Loss | None = Field(None, description="of this stage")
    train: TrainConfig | None = Field(None, description="of each network of this stage")
    later: TrainConfig | None = Field(
        None,
        description="of the views after the first, which then begin with the first one's weights and may learn shorter",
    )

    @model_validator(mode="after")
    def _views_fit(self) -> StageConfig:
        if self.views == "auto":
            return self
        if not self.views or len(set(self.views)) != len(self.views):
            raise ValueError(f"views {self.views}: name one or more, each once")
        strange = [view for view in self.networks if view not in self.views]
        if strange:
            raise ValueError(
                f"networks names the view {strange[0]}, views are {', '.join(self.views)}: name one of them"
            )
        if self.at_least is not None and self.at_least > len(self.views):
            raise ValueError(f"at_least {self.at_least} of {len(self.views)} views can't be reached: give less")
        return self


class CascadeConfig(Section):
    """Two stages: the coarse one finds a region, the fine one segments inside it."""

    coarse: StageConfig = StageConfig()
    fine: StageConfig = StageConfig()
    region: tuple[str, ...] = Field((), description="labels and regions of the coarse stage that make up the region")
    rest: str | None = Field(
        None, description="label of the result that the region is without what the fine stage finds; none: background"
    )
    margin_mm: Length = Field(0.0, description="how far beyond the region the fine stage sees")
    roi: Literal["mask", "crop"] = Field("mask", description="outside is set to zero, or cut away")
    learn_from: Literal["out_of_fold", "reference"] = Field(
        "out_of_fold",
        description="regions that the fine stage learns from: those of coarse networks that did not see the case, as "
        "in prediction, or those of the reference",
    )
    folds: Annotated[int, Field(ge=2)] = Field(4, description="coarse stages trained for out_of_fold")

    @model_validator(mode="after")
    def _names_fit(self) -> CascadeConfig:
        if not self.region:
            raise ValueError("cascade.region is empty: name the labels of the coarse stage in which the fine one looks")
        for name in self.region if self.coarse.labels != "auto" else ():
            if name not in self.coarse.labels and name not in self.coarse.regions:
                known = ", ".join((*self.coarse.labels, *self.coarse.regions))
                raise ValueError(
                    f"cascade.region names '{name}', cascade.coarse.labels and regions have {known}: name one of them"
                )
        if self.coarse.labels == "auto" or self.fine.labels == "auto":
            which = "coarse" if self.coarse.labels == "auto" else "fine"
            raise ValueError(
                f"cascade.{which}.labels is auto: say what the stage segments, as {{wall: [myocardium, scar]}}"
            )
        return self

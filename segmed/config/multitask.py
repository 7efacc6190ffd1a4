"""A second head of a segmenter, that tells the class of a case."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from segmed.config.base import Auto, Fraction, Positive, Section


class CaseClassConfig(Section):
    """Classification of cases beside their segmentation, on one encoder: a multi-task run."""

    column: str = Field("class", description="column of the manifest that names the class of a case; empty: unknown")
    classes: tuple[str, ...] | Auto = Field(
        "auto",
        description="what is told apart, in the order of the outputs; a case of another class trains the segmentation "
        "alone; auto: what the column says of the training part",
    )
    weight: Positive = Field(0.5, description="of the loss of the classes; that of the segmentation counts 1")
    balanced: bool = Field(False, description="a class counts by one over its share of the training cases")
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the truth spread over all classes"
    )
    pooling: Literal["average", "max", "attention"] = Field("average", description="of the coarsest feature map")
    dropout: Fraction = Field(0.0, description="of the pooled features")

"""Contrast and noise filters that an image passes before it is resized: one section a filter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from segmed.config.base import Count, Positive, Section

Unit = Literal["voxels", "mm"]
UNIT_TEXT = "of the lengths of this filter; mm needs images whose spacing is known: volumes, not PNG or JPEG"


class ClaheConfig(Section):
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994): every neighbourhood fills the range."""

    name: Literal["clahe"] = "clahe"
    tiles: Count = Field(8, description="neighbourhoods along every axis")
    clip_limit: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="largest share of a neighbourhood's pixels in one grey level; 1: no limit, most contrast"
    )
    levels: Annotated[int, Field(ge=2, le=65536)] = Field(256, description="grey levels of the histograms")


class N4Config(Section):
    """N4 bias field correction (Tustison et al. 2010): slow changes of brightness from the coil are divided out."""

    name: Literal["n4"] = "n4"
    shrink: Count = Field(2, description="the field is estimated on every so many pixels along every axis")
    iterations: tuple[Count, ...] = Field((50, 50, 50), description="at most, on each level, coarse to fine")
    control_points: Annotated[int, Field(ge=4)] = Field(4, description="of the field's cubic spline, along every axis")


class Window(Section):
    """A filter over a square or cubic neighbourhood."""

    size: Positive = Field(3.0, description="width of the neighbourhood, rounded to an odd number of voxels")
    unit: Unit = Field("voxels", description=UNIT_TEXT)


class MeanConfig(Window):
    """Mean of the neighbourhood."""

    name: Literal["mean"] = "mean"


class MedianConfig(Window):
    """Median of the neighbourhood: single outliers vanish, edges stay."""

    name: Literal["median"] = "median"


class WienerConfig(Window):
    """Adaptive Wiener filter (Lim 1990): smooth areas are averaged, those of more variance than the noise stay."""

    name: Literal["wiener"] = "wiener"
    noise_sd: Positive | None = Field(
        None, description="standard deviation of the noise, as a share of the image's range; none: estimated"
    )


class SigmaConfig(Window):
    """Sigma filter (Lee 1983): mean of those neighbours that differ by no more than the noise does."""

    name: Literal["sigma"] = "sigma"
    size: Positive = Field(5.0, description="width of the neighbourhood, rounded to an odd number of voxels")
    noise_sd: Positive | None = Field(
        None, description="standard deviation of the noise, as a share of the image's range; none: estimated"
    )
    width: Positive = Field(2.0, description="neighbours within so many standard deviations are averaged")
    fewest: Count = Field(3, description="with fewer such neighbours it is a spot: the mean of the next ones is taken")


class GaussianConfig(Section):
    """Gaussian blur."""

    name: Literal["gaussian"] = "gaussian"
    sd: Positive = Field(1.0, description="standard deviation of the kernel")
    unit: Unit = Field("voxels", description=UNIT_TEXT)

    @field_validator("sd")
    @classmethod
    def _narrow(cls, sd: float) -> float:
        if sd > 100:
            raise ValueError("a blur of more than 100 leaves nothing of an image: give less")
        return sd


Filter = Annotated[
    ClaheConfig | N4Config | MeanConfig | GaussianConfig | MedianConfig | SigmaConfig | WienerConfig,
    Field(discriminator="name"),
]

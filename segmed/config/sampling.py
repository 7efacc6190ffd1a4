"""What one training sample is, and how it is changed at random."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from segmed.config.base import Auto, Fraction, Probability, Section, Width
from segmed.config.training import TrainConfig
from segmed.errors import ConfigError

AUGMENT_PRESETS: dict[str, dict[str, float]] = {  # numbers that a preset sets; the others stay at their defaults
    "none": {},
    "light": {
        "affine_probability": 0.3,
        "rotation_deg": 15.0,
        "scale": 0.15,
        "noise_probability": 0.1,
        "blur_probability": 0.1,
        "gamma_probability": 0.2,
    },
    "full": {
        "affine_probability": 0.5,
        "rotation_deg": 20.0,
        "scale": 0.25,
        "shear": 0.05,
        "elastic_probability": 0.2,
        "elastic_mm": 4.0,
        "bias_probability": 0.15,
        "ghosting_intensity": 0.8,
        "ghosting_probability": 0.05,
        "motion_deg": 2.0,
        "motion_mm": 2.0,
        "motion_probability": 0.05,
        "spike_intensity": 0.2,
        "spike_probability": 0.02,
        "noise_sd": 0.2,
        "noise_probability": 0.15,
        "blur_probability": 0.15,
        "gamma_probability": 0.3,
        "low_resolution_probability": 0.15,
    },
}
AUGMENT_PRESETS["wide"] = AUGMENT_PRESETS["full"] | {"affine_probability": 0.8, "rotation_deg": 60.0, "scale": 0.4}
Preset = Literal["none", "light", "full", "wide"]
LATER = ("histogram_", "contrast_", "synthetic_", "modality_")  # numbers that runs of the first versions did not write
NO_NUMBERS = ("name", "broaden", "keep")  # of a section, beside its numbers
SEEN_AFTER = 4  # validations: three before four fifths of a run
BROADER: tuple[Preset, ...] = ("light", "full", "wide")  # each changes patches more than the one before


class AugmentConfig(Section):
    """Random changes of training patches. `name` fills in the numbers that are not given."""

    name: Literal["auto", "none", "light", "full", "wide"] = Field(
        "light",
        description="the preset; wide: full with larger turns and zooms; auto: light, or where the run is long enough "
        "for its cases full, or wide where the spacing of the files is not known",
    )
    affine_probability: Probability = Field(
        0.0, description="rotation, scaling, shear and translation, one resampling with the elastic part"
    )
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="largest angle about each axis (2D and thick slices: in plane)"
    )
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="zoom drawn from 1 - scale to 1 + scale")
    shear: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="largest shear")
    translation_mm: Annotated[float, Field(ge=0)] = Field(0.0, description="largest shift")
    elastic_probability: Probability = Field(0.0, description="smooth random displacement")
    elastic_mm: Annotated[float, Field(ge=0)] = Field(0.0, description="largest displacement of a control point")
    flip_probability: Probability = Field(
        0.0, description="left-right flip; swaps data.mirror_pairs; leave 0 where the anatomy has a side"
    )
    bias_probability: Probability = Field(0.0, description="MRI bias field")
    bias_coefficient: Annotated[float, Field(ge=0, le=4)] = Field(
        0.3, description="size of the bias polynomial's coefficients"
    )
    ghosting_probability: Probability = Field(0.0, description="ghosts along a phase-encoding axis")
    ghosting_intensity: Annotated[float, Field(ge=0)] = Field(0.3, description="largest strength of the ghosts")
    motion_probability: Probability = Field(0.0, description="motion during the acquisition")
    motion_deg: Annotated[float, Field(ge=0)] = Field(3.0, description="largest rotation while moving")
    motion_mm: Annotated[float, Field(ge=0)] = Field(3.0, description="largest shift while moving")
    spike_probability: Probability = Field(0.0, description="spikes in k-space (herringbone)")
    spike_intensity: Annotated[float, Field(ge=0)] = Field(0.5, description="largest strength of a spike")
    noise_probability: Probability = Field(0.0, description="Gaussian noise")
    noise_sd: Annotated[float, Field(ge=0)] = Field(
        0.1, description="largest standard deviation, of z-scored intensities"
    )
    blur_probability: Probability = Field(0.0, description="Gaussian blur")
    blur_sd_voxels: Annotated[float, Field(ge=0)] = Field(1.0, description="largest width of the blur, in voxels")
    gamma_probability: Probability = Field(0.0, description="intensities to a power")
    gamma_log: Annotated[float, Field(ge=0)] = Field(0.3, description="largest absolute log of the power")
    histogram_probability: Probability = Field(0.0, description="intensities through a random rising curve")
    histogram_points: Annotated[int, Field(ge=3)] = Field(
        6, description="of the curve, its ends included; the fewer, the stronger"
    )
    contrast_probability: Probability = Field(0.0, description="intensities through a random curve, rising or falling")
    contrast_points: Annotated[int, Field(ge=2)] = Field(
        4, description="of the curve, its ends included; the more, the stronger"
    )
    synthetic_probability: Probability = Field(
        0.0, description="another contrast, drawn for each label and each step of intensity outside of them (SynthSeg)"
    )
    synthetic_clusters: Width = Field(4, description="steps of intensity that what is not labelled is split into")
    synthetic_noise: Annotated[float, Field(ge=0)] = Field(
        0.15, description="largest spread within a tissue, as a share of the range of their means"
    )
    synthetic_blur_sd_voxels: Annotated[float, Field(ge=0)] = Field(1.0, description="largest width of its blur")
    synthetic_bias: Annotated[float, Field(ge=0, le=4)] = Field(
        0.3, description="as bias_coefficient, of its bias field"
    )
    low_resolution_probability: Probability = Field(0.0, description="down- and upsampling of one patch")
    low_resolution_factor: Annotated[float, Field(ge=1)] = Field(2.0, description="largest loss of resolution")
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="probability that a patch lacks an image of its case, of each by itself, one always stays; cases "
        "that lack an image then train, and are predicted with what is there",
    )

    broaden: bool | Auto = Field(
        "auto",
        description="where validation shows overfitting (its loss lies above its least value twice running, or falls "
        "no more while that of training does), go on with the next preset: light, full, wide; auto: where name is auto",
    )
    keep: tuple[str, ...] = Field(
        (), description="numbers that stay when the plan or broaden changes the preset; those that are given always do"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        """Add the numbers of the preset, and note which ones were given: a section that is written has all."""
        if not isinstance(given, dict):
            return given
        numbers = [field for field in cls.model_fields if field not in NO_NUMBERS]
        preset = AUGMENT_PRESETS.get(str(given.get("name", "light")), {})
        own = {**{field: cls.model_fields[field].default for field in numbers}, **preset}
        kept = given.get("keep", [field for field in numbers if field in given])
        if not isinstance(kept, (list, tuple)):
            return {**preset, **given}
        if strange := [field for field in kept if field not in numbers]:
            raise ValueError(f"keep names {strange[0]!r}: give numbers of augment, such as rotation_deg")
        if "keep" not in given and all(field in given for field in numbers if not field.startswith(LATER)):
            kept = []  # as runs of earlier versions wrote their section
        kept = [field for field in numbers if field in kept or (field in given and given[field] != own[field])]
        return {**preset, **given, "keep": kept}

    def filled(self, preset: Preset) -> AugmentConfig:
        """A preset in place of `auto`, or of another; numbers to keep stay."""
        kept = {field: getattr(self, field) for field in self.keep}
        return AugmentConfig.model_validate({**kept, "name": preset, "keep": self.keep, "broaden": self.broaden})

    def broader(self) -> tuple[AugmentConfig, ...]:
        """What overfitting is answered with, one after the other."""
        if self.broaden is not True or self.name not in BROADER:
            return ()
        return tuple(self.filled(name) for name in BROADER[BROADER.index(self.name) + 1 :])

    def answers(self, train: TrainConfig, *, chosen: bool, validated: bool = True) -> tuple[bool, str]:
        """Whether a run can answer overfitting, and why.

        Args:
            train: how long it lasts, and how often it validates.
            chosen: whether the plan chose the preset.
            validated: whether any case validates.

        Raises:
            ConfigError: it is asked to, with a preset that no other follows.
        """
        if self.broaden is True and self.name == "none":
            raise ConfigError(
                "augment.broaden true has no preset to go on from beside augment.name none: choose light, full or "
                "auto, or leave broaden out"
            )
        if self.broaden == "auto" and not chosen:
            return False, "the preset was given"
        if self.broaden is False:
            return False, "as given"
        if self.name == BROADER[-1]:
            return False, f"no preset is broader than {self.name}"
        if not validated:
            return False, "no case validates, so overfitting is not seen"
        if train.patience == 1:
            return False, "train.patience 1 ends the run before a loss can rise twice"
        if train.validations < SEEN_AFTER:
            return False, f"train.validations {train.validations}: overfitting is seen in time from {SEEN_AFTER} on"
        return True, "the preset was chosen by the plan" if chosen else "as given"


class PatchConfig(Section):
    """What one training sample is."""

    dims: Literal[2, 3] | Auto = Field("auto", description="2: slices along `plane`; 3: volumes")
    plane: Literal["auto", "sagittal", "coronal", "axial", "slices"] = Field(
        "auto", description="of 2D slices; slices: those of a thick stack, whatever way it points"
    )
    size: Annotated[tuple[Width, ...], Field(min_length=2, max_length=3)] | Auto = Field(
        "auto", description="voxels; 2 or 3 numbers"
    )
    foreground: Fraction = Field(0.5, description="fraction of patches that are centred near a labelled voxel")
    jitter: Fraction = Field(0.5, description="largest shift of such a centre, in half patches")
    balance_labels: bool = Field(True, description="draw the label first, so that rare labels are seen as often")

"""The schema of every experiment: frozen, validated models whose fields say what they mean.

Every field that may be `auto` is resolved by `segmed.plan` from the data and the machine.
This module imports neither torch nor MONAI, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

Auto = Literal["auto"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Fraction
Positive = Annotated[float, Field(gt=0)]
Length = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Spacing = tuple[Length, Length, Length]


T = TypeVar("T")


def known(value: T | Auto) -> T:
    """A value that planning has resolved.

    Raises:
        ValueError: it is still `auto`.
    """
    if isinstance(value, str) and value == "auto":
        raise ValueError("a value of the config is still 'auto': plan the experiment with segmed.plan first")
    return value


class Section(BaseModel):
    """Base of all sections: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------- data


class MsdLayout(Section):
    """Medical Segmentation Decathlon: `dataset.json`, `imagesTr/`, `labelsTr/`."""

    name: Literal["msd"] = "msd"


class NnunetLayout(Section):
    """nnU-Net raw: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, `dataset.json`."""

    name: Literal["nnunet"] = "nnunet"


class PatternLayout(Section):
    """Files named by patterns, for one folder a case, for pairs of folders, and for pairs of 2D images."""

    name: Literal["pattern"] = "pattern"
    images: dict[str, str] = Field(
        {"image": "{case}/{case}.nii.gz"},
        description="modality -> pattern below the root; {case} and {subject} stand for any text without a slash, "
        "* for text that does not matter",
    )
    label: str | None = Field(None, description="pattern of the label map; none: cases without labels")
    subject: str | None = Field(
        None, description="regular expression found in the case id whose match (or first group) is the subject"
    )


class ManifestLayout(Section):
    """A CSV or JSON table: image (or image:MODALITY), label, subject, site, split; paths relative to the table."""

    name: Literal["manifest"] = "manifest"
    file: str = Field("manifest.csv", description="the table, below the root")


class PhantomLayout(Section):
    """A synthetic cardiac LGE data set, made below the root when it is not there yet."""

    name: Literal["phantom"] = "phantom"
    cases: Count = Field(20, description="number of synthetic subjects")
    seed: int = Field(0, description="seed of the data set")


PHANTOM_FILES = PatternLayout(images={"LGE": "{case}/{case}_LGE.nii.gz"}, label="{case}/{case}_label.nii.gz")

Layout = Annotated[
    MsdLayout | NnunetLayout | PatternLayout | ManifestLayout | PhantomLayout, Field(discriminator="name")
]


class DataConfig(Section):
    """Where the cases are and what their labels mean."""

    root: Path = Field(Path("data/phantom"), description="folder of the data set")
    layout: Layout = Field(PhantomLayout(), description="how the files are arranged")
    images: tuple[str, ...] | Auto = Field("auto", description="modalities to use, in the order of channels")
    components: dict[str, int] = Field(
        {}, description="name -> index of a component of a 4D file (a channel or a time point), usable in `images`"
    )
    labels: dict[str, int | list[int]] | Auto = Field(
        "auto",
        description="label name -> value or values (merged) in the files; auto: from dataset.json, or one a value",
    )
    unlabelled: Literal["error", "skip"] = Field(
        "error", description="cases without a label map, where others have one: an error, or left out"
    )
    ignore: tuple[int, ...] = Field((), description="values in the label files that are neither trained nor scored")
    regions: dict[str, list[str]] = Field(
        {}, description="region name -> labels whose union is scored too, e.g. whole tumour"
    )
    mirror_pairs: tuple[tuple[str, str], ...] = Field(
        (), description="labels that swap when left and right are flipped"
    )
    spacing_known: bool = Field(
        True, description="false: the files' spacing is nominal; no figure in mm or ml is given"
    )


class SplitConfig(Section):
    """Which subjects train, select and test. Always by subject."""

    test: Fraction = Field(0.2, description="fraction of subjects used once, at the end")
    validation: Fraction = Field(0.15, description="fraction of the remaining subjects that selects the weights")
    folds: Annotated[int, Field(ge=2)] = Field(
        5, description="number of cross-validation folds, where folds are asked for"
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        None, description="test on this fold (from 0) instead of on the hold-out; none: hold-out"
    )
    by: Literal["subject", "site"] = Field("subject", description="unit that never stands on two sides")
    stratify: bool = Field(True, description="balance the parts by which labels the cases hold, and by site")
    from_manifest: bool = Field(False, description="take the parts from the manifest's split column")
    file: Path | None = Field(None, description="take the parts from this split.json of another run")
    seed: int = Field(0, description="seed of the split, apart from the seed of training")


class PreprocessConfig(Section):
    """From the scanner's grid to the network's."""

    orientation: Literal["auto", "ras", "slices_last"] = Field(
        "auto",
        description="ras: axes to the right, front and head; slices_last: the axis across thick slices comes last, "
        "whatever way the stack points (oblique short-axis stacks)",
    )
    spacing_mm: Spacing | Literal["auto", "native"] = Field(
        "auto", description="target grid, 0 leaves that axis as it is; native: leaves all"
    )
    crop: Literal["auto", "none", "nonzero", "body"] = Field("auto", description="what is cut away around the patient")
    intensity: Literal["auto", "zscore", "zscore_nonzero", "percentile", "none"] = Field(
        "auto",
        description="zscore over the volume, over its non-zero voxels, percentiles to [0, 1], or untouched",
    )
    clip_percentiles: tuple[float, float] = Field((0.5, 99.5), description="intensities outside are clipped first")
    interpolation: Literal["auto", "linear", "cubic"] = Field(
        "auto", description="of images; labels are never interpolated in value"
    )
    separate_z: bool | Auto = Field(
        "auto", description="resample thick slices in plane only, and between slices by nearest"
    )


# ---------------------------------------------------------------- augmentation

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


class AugmentConfig(Section):
    """Random changes of training patches. `name` fills in the numbers that are not given."""

    name: Literal["none", "light", "full"] = Field("light", description="the preset")
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
    bias_coefficient: Annotated[float, Field(ge=0)] = Field(
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
    low_resolution_probability: Probability = Field(0.0, description="down- and upsampling of one patch")
    low_resolution_factor: Annotated[float, Field(ge=1)] = Field(2.0, description="largest loss of resolution")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        preset = AUGMENT_PRESETS.get(str(given.get("name", "light")), {})
        return {**preset, **given}


class PatchConfig(Section):
    """What one training sample is."""

    dims: Literal[2, 3] | Auto = Field("auto", description="2: slices along `plane`; 3: volumes")
    plane: Literal["auto", "sagittal", "coronal", "axial", "slices"] = Field(
        "auto", description="of 2D slices; slices: those of a thick stack, whatever way it points"
    )
    size: tuple[int, ...] | Auto = Field("auto", description="voxels; 2 or 3 numbers")
    batch_size: Count | Auto = Field("auto", description="patches in a step on one device")
    foreground: Fraction = Field(0.5, description="fraction of patches that are centred near a labelled voxel")
    jitter: Fraction = Field(0.5, description="largest shift of such a centre, in half patches")
    balance_labels: bool = Field(True, description="draw the label first, so that rare labels are seen as often")


# ---------------------------------------------------------------- network and loss

Strides = tuple[tuple[int, ...], ...]


class UNetConfig(Section):
    """U-Net: an encoder of ours, skips, a decoder."""

    name: Literal["unet"] = "unet"
    encoder: Literal["plain", "residual", "dense"] = Field("plain", description="kind of the encoder")
    channels: tuple[Count, ...] | Auto = Field("auto", description="feature maps of each level, finest first")
    strides: Strides | Auto = Field("auto", description="step of each level, an entry an axis; the first is usually 1")
    blocks: Count = Field(2, description="convolutions (plain), residual blocks or dense layers a level")
    norm: Literal["instance", "batch", "group"] = Field("instance", description="normalisation")
    upsampling: Literal["transposed", "interpolate"] = Field("transposed", description="of the decoder")
    dropout: Fraction = Field(0.0, description="of feature maps, in each block")
    deep_supervision: bool = Field(True, description="losses at coarser levels too")
    checkpointing: bool = Field(False, description="recompute activations: less memory, a third more time")


class DynUNetConfig(Section):
    """MONAI's DynUNet, nnU-Net's network."""

    name: Literal["dynunet"] = "dynunet"
    channels: tuple[Count, ...] | Auto = Field("auto", description="feature maps of each level, finest first")
    strides: Strides | Auto = Field("auto", description="step of each level, an entry an axis")


class SegResNetConfig(Section):
    """MONAI's SegResNet."""

    name: Literal["segresnet"] = "segresnet"
    init_filters: Count = Field(16, description="feature maps of the finest level")


class SwinUNETRConfig(Section):
    """MONAI's SwinUNETR; patch sizes must be multiples of 32."""

    name: Literal["swinunetr"] = "swinunetr"
    feature_size: Annotated[int, Field(ge=12, multiple_of=12)] = Field(
        24, description="feature maps of the finest level"
    )


Network = Annotated[UNetConfig | DynUNetConfig | SegResNetConfig | SwinUNETRConfig, Field(discriminator="name")]


class DiceLossConfig(Section):
    """Soft Dice, over the labels without background."""

    name: Literal["dice"] = "dice"
    batch: bool = Field(True, description="sums run over the batch: a patch without a label does no harm")


class DiceCELossConfig(Section):
    """Soft Dice plus cross-entropy."""

    name: Literal["dice_ce"] = "dice_ce"
    batch: bool = Field(True, description="sums run over the batch")
    ce_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the cross-entropy")


class DiceFocalLossConfig(Section):
    """Soft Dice plus focal loss."""

    name: Literal["dice_focal"] = "dice_focal"
    batch: bool = Field(True, description="sums run over the batch")
    gamma: Annotated[float, Field(ge=0)] = Field(2.0, description="focus on hard voxels")


class TverskyLossConfig(Section):
    """Tversky: false positives and false negatives weighed apart."""

    name: Literal["tversky"] = "tversky"
    alpha: Fraction = Field(0.3, description="weight of false positives")
    beta: Fraction = Field(0.7, description="weight of false negatives")
    batch: bool = Field(True, description="sums run over the batch")


class GeneralisedDiceLossConfig(Section):
    """Dice with labels weighted by the inverse square of their volume."""

    name: Literal["generalised_dice"] = "generalised_dice"
    batch: bool = Field(True, description="sums run over the batch")


class TopKCELossConfig(Section):
    """Cross-entropy of the hardest voxels."""

    name: Literal["topk_ce"] = "topk_ce"
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="share of the voxels that count")


Loss = Annotated[
    DiceLossConfig
    | DiceCELossConfig
    | DiceFocalLossConfig
    | TverskyLossConfig
    | GeneralisedDiceLossConfig
    | TopKCELossConfig,
    Field(discriminator="name"),
]


# ---------------------------------------------------------------- training, inference, evaluation


class TrainConfig(Section):
    """How long, how fast, on what."""

    epochs: Count = Field(100, description="passes of `steps_per_epoch` steps; not used with budget_minutes")
    budget_minutes: Positive | None = Field(None, description="fit the schedule to this time, validation included")
    steps_per_epoch: Count | Auto = Field("auto", description="auto: every training case is drawn about twice")
    optimiser: Literal["adamw", "sgd"] = Field("adamw", description="sgd is with Nesterov momentum 0.99")
    learning_rate: Positive | Auto = Field("auto", description="peak; auto: 1e-3 for adamw, 1e-2 for sgd")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="decay of the weights")
    schedule: Literal["cosine", "polynomial", "constant"] = Field("cosine", description="from the peak to zero")
    warmup: Fraction = Field(0.03, description="share of the run in which the rate rises")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="decay of the averaged weights; 0: none")
    clip: Annotated[float, Field(ge=0)] = Field(12.0, description="largest norm of the gradient; 0: none")
    accumulate: Count = Field(1, description="batches before one step of the optimiser")
    class_weights: tuple[Positive, ...] | None = Field(
        None, description="of background and labels, in the cross-entropy"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: measured on this machine")
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field("auto", description="auto: measured")
    compile: bool = Field(False, description="torch.compile the network")
    devices: Count | Auto = Field("auto", description="GPUs or processes on this node; torchrun decides by itself")
    workers: Annotated[int, Field(ge=0)] | Auto = Field("auto", description="processes that prepare patches")
    validations: Count = Field(10, description="how often in the run whole volumes are validated")
    validation_cases: Count | None = Field(None, description="at most this many of them; none: all")
    patience: Count | None = Field(None, description="stop after so many validations without a better one; none: never")
    checkpoint_minutes: Positive = Field(5.0, description="a killed run loses at most this much")


class InferenceConfig(Section):
    """From a volume to a label map."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="of neighbouring windows")
    windows: Count | Auto = Field("auto", description="windows in one batch")
    mirror: bool = Field(False, description="average over mirrored copies (slower, a little better)")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: as in training")
    largest_component: tuple[str, ...] | Auto = Field(
        "auto", description="labels of which only the largest piece is kept; auto: where validation says so"
    )


class EvaluateConfig(Section):
    """What is measured, and how misses count."""

    surface_dice_tolerance_mm: Positive = Field(1.0, description="surface Dice counts distances up to here as right")
    bootstrap: Count = Field(2000, description="resamplings for the 95 % intervals")
    missed: Literal["diagonal", "skip"] = Field(
        "diagonal", description="distance of a missed or invented structure: the image's diagonal, or left out of means"
    )


class ExperimentConfig(Section):
    """One experiment, whole."""

    name: str = Field("experiment", description="shown in the run's folder and tables")
    seed: int = Field(0, description="of weights, patches and augmentation")
    runs: Path = Field(Path("runs"), description="folder in which runs are made")
    cache: Path | None = Field(None, description="folder of preprocessed volumes; none: `cache` inside the runs folder")
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    augment: AugmentConfig = AugmentConfig()
    patches: PatchConfig = PatchConfig()
    network: Network = UNetConfig()
    loss: Loss = DiceCELossConfig()
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

"""Where the cases are, which of them train, and how they come onto the network's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from segmed.config.base import Auto, Fraction, Section, Spacing
from segmed.config.label_codes import SegmentCode

Targets = Literal["auto", "labels", "regions"] | tuple[str, ...]
Subject = Annotated[
    str | None,
    Field(
        description="regular expression found in the case id whose match (or first group) is the subject, as ^[^_]+; "
        ".+ where every case is somebody else; none: as the layout says, else cases count as subjects"
    ),
]


class MsdLayout(Section):
    """Medical Segmentation Decathlon: `dataset.json`, `imagesTr/`, `labelsTr/`."""

    name: Literal["msd"] = "msd"
    subject: Subject = None


class NnunetLayout(Section):
    """nnU-Net raw: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, `dataset.json`."""

    name: Literal["nnunet"] = "nnunet"
    subject: Subject = None


class PatternLayout(Section):
    """Files named by patterns, for one folder a case, for pairs of folders, and for pairs of 2D images."""

    name: Literal["pattern"] = "pattern"
    images: dict[str, str] = Field(
        {"image": "{case}/{case}.nii.gz"},
        description="modality -> pattern below the root; {case} and {subject} stand for any text without a slash, "
        "{split} for the part that the case belongs to, * for text that does not matter",
    )
    label: str | None = Field(None, description="pattern of the label map; none: cases without labels")
    field_of_view: str | None = Field(
        None,
        description="pattern of a mask: where it is 0 nothing is trained or scored, and predictions are background",
    )
    subject: Subject = None


class ManifestLayout(Section):
    """A CSV or JSON table: image (or image:MODALITY), label, subject, site, split; paths relative to the table."""

    name: Literal["manifest"] = "manifest"
    file: str = Field("manifest.csv", description="the table, below the root")
    subject: Subject = None


class BidsLayout(Section):
    """Brain Imaging Data Structure: `sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz`, label maps below `derivatives/`."""

    name: Literal["bids"] = "bids"
    images: dict[str, str] = Field(
        {},
        description="modality -> end of its files' names, with entities where a session has several, as "
        "{T1: acq-mprage_T1w}, below derivatives/ with the folder, as {T1: prep/desc-brain_T1w}; none: all in anat/",
    )
    label: str | None = Field(
        "auto",
        description="end of the label maps' names below derivatives/, as dseg, manual/dseg (the folder derivatives/"
        "manual) or label-lesion_mask; auto: dseg, else mask, of the one folder that has them; none: without labels",
    )
    sessions: tuple[str, ...] = Field((), description="sessions to use, as [1, 2] of ses-1 and ses-2; none: all")
    subject: Subject = None


class PhantomLayout(Section):
    """A synthetic cardiac LGE data set, made below the root when it is not there yet."""

    name: Literal["phantom"] = "phantom"
    cases: Annotated[int, Field(ge=1, le=100_000)] = Field(20, description="number of synthetic subjects")
    seed: int = Field(0, description="seed of the data set")
    isotropic: bool = Field(False, description="3D LGE of 1.3 mm instead of thick slices displaced by breathing")
    hard: bool = Field(
        False, description="scar as bright as blood in thinned walls, more dark cores, more hearts without"
    )


PHANTOM_FILES = PatternLayout(
    images={"LGE": "{case}/{case}_LGE.nii.gz"}, label="{case}/{case}_label.nii.gz", subject=".+"
)

Layout = Annotated[
    MsdLayout | NnunetLayout | PatternLayout | ManifestLayout | BidsLayout | PhantomLayout, Field(discriminator="name")
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
    unlabelled: Literal["error", "skip"] | tuple[str, ...] = Field(
        "error",
        description="cases without a label map, where others have one: an error, or left out; or ids, or patterns such "
        "as `site2_*`, of cases that train through the adversary, whose label maps are not read if there are any",
    )
    codes: dict[str, str] = Field(
        {},
        description="label name -> what it shows in SNOMED CT or another scheme, as SCT 5366008 Hippocampus, "
        "for DICOM-SEG; behind it ; category, ; region and ; modifier with a code each; scar, rv and others are known",
    )
    ignore: tuple[int, ...] = Field((), description="values in the label files that are neither trained nor scored")
    background: tuple[int, ...] = Field((), description="values in the label files, beside 0, that are background")
    regions: dict[str, list[str]] = Field(
        {}, description="region name -> labels whose union is scored too, e.g. whole tumour"
    )
    targets: Targets = Field(
        "auto",
        description="what a network learns: labels, one a voxel (softmax); regions: each of data.regions by itself "
        "(sigmoid), larger ones first, and the labels that they don't tell; or names of regions and labels in the "
        "order of painting, outer ones first; auto: regions of a dataset.json with regions_class_order, else labels",
    )
    mirror_pairs: tuple[tuple[str, str], ...] = Field(
        (), description="labels that swap when left and right are flipped"
    )
    colours: Literal["grey", "channels"] = Field(
        "grey", description="of pictures: mixed into one grey image, or three images named red, green and blue"
    )
    nan: Literal["error", "zero"] = Field(
        "error", description="voxels of images that are not a number: an error, or 0 (outside the brain, as SPM writes)"
    )
    spacing_known: bool = Field(
        True,
        description="false: the files' spacing is nominal, as it always is of pictures; no figure in mm or ml is given",
    )

    @field_validator("codes")
    @classmethod
    def _codes_are_codes(cls, codes: dict[str, str]) -> dict[str, str]:
        for text in codes.values():
            SegmentCode.of(text)
        return codes


class SplitConfig(Section):
    """Which subjects train, select and test. Always by subject."""

    test: Fraction = Field(0.2, description="fraction of subjects used once, at the end")
    validation: Fraction = Field(0.15, description="fraction of the remaining subjects that selects the weights")
    folds: Annotated[int, Field(ge=2, le=1000)] = Field(
        5, description="number of cross-validation folds, where folds are asked for"
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        None, description="test on this fold (from 0) instead of on the hold-out; none: hold-out"
    )
    by: Literal["subject", "site"] = Field("subject", description="unit that never stands on two sides")
    stratify: bool = Field(True, description="balance the parts by which labels the cases hold, and by site")
    from_manifest: bool = Field(
        False, description="take the parts from the manifest's split column, or from {split} in the layout's patterns"
    )
    file: Path | None = Field(None, description="take the parts from this split.json of another run")
    withhold: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the training subjects whose label maps are held back: they count as unlabelled"
    )
    seed: int = Field(0, description="seed of the split, apart from the seed of training")

    @model_validator(mode="after")
    def _fold_is_there(self) -> SplitConfig:
        if self.fold is not None and self.fold >= self.folds and self.file is None and not self.from_manifest:
            raise ValueError(
                f"fold {self.fold} does not exist: {self.folds} folds are counted from 0 to {self.folds - 1}"
            )
        return self


class VolumeLeakConfig(Section):
    """What is looked for before training, and what happens when it is found."""

    check: bool = Field(
        True, description="look for volumes on two sides of the split that show the same: equal, resampled or flipped"
    )
    allow_leakage: bool = Field(
        False, description="train on a leaking split all the same; every table of the run then says so"
    )
    near_correlation: Annotated[float, Field(gt=0, le=1)] = Field(
        0.85, description="correlation of the detail, on one grid, from which two volumes show the same"
    )


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
    intensity: Literal["auto", "zscore", "zscore_nonzero", "percentile", "median_minmax", "none"] = Field(
        "auto",
        description="zscore over the volume, over its non-zero voxels, percentiles to [0, 1], or untouched; "
        "median_minmax: what is brighter than a cap takes the median of its slice, then each slice goes to [0, 1]",
    )
    clip_percentiles: tuple[float, float] = Field(
        (0.5, 99.5), description="intensities outside are clipped first; the upper one is the cap of median_minmax"
    )
    slices_across: Literal[0, 1, 2] = Field(
        2, description="axis across the slices of median_minmax; the planner takes that of a 2D network's plane"
    )
    interpolation: Literal["auto", "linear", "cubic"] = Field(
        "auto", description="of images; labels are never interpolated in value"
    )
    separate_z: bool | Auto = Field(
        "auto", description="resample thick slices in plane only, and between slices by nearest"
    )

"""What classification looks at: where the images of each class are, which of them train, and how they are prepared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from segmed.config.base import Auto, Count, Fraction, Section, Width
from segmed.config.image_filters import Filter

Part = Literal["train", "validation", "test"]
TWINS = "twins"  # instead of a regular expression: groups that the audit finds


class ClassFolders(Section):
    """One folder a class, perhaps below folders of published parts."""

    parts: dict[str, Part] | Auto = Field(
        "auto",
        description="folder of the first level -> part; auto: Training, train, val, Testing, test and the like, where "
        "there are such folders for training and for testing; {}: the first level is the classes",
    )


class FoldersLayout(ClassFolders):
    """One folder a class with 2D images at any depth, perhaps below folders of published parts."""

    name: Literal["folders"] = "folders"


class ClassVolumesLayout(ClassFolders):
    """One folder a class with volumes (NIfTI, NRRD, MHA, DICOM folders), perhaps below folders of parts."""

    name: Literal["volumes"] = "volumes"


class ClassManifestLayout(Section):
    """A CSV table with one row an image or volume; paths relative to the table. Columns have any names."""

    name: Literal["manifest"] = "manifest"
    file: str = Field("manifest.csv", description="the table, below the root")
    image: str = Field("image", description="column of the path")
    label: str = Field("label", description="column of the class")
    subject: str = Field("subject", description="column of who was scanned; it may be absent")
    slice: str = Field("slice", description="column of the number of the slice in its volume; it may be absent")
    split: str = Field("split", description="column of the part: train, validation or test; it may be absent")


class ContrastPhantomLayout(Section):
    """Synthetic brain MRI before and after contrast agent, made below the root when it is not there yet."""

    name: Literal["phantom"] = "phantom"
    subjects: Annotated[int, Field(ge=3)] = Field(60, description="each is scanned before and after the agent")
    slices: Count = Field(4, description="of each scan")
    size: Annotated[int, Field(ge=32, le=1024)] = Field(160, description="height and width in pixels")
    seed: int = Field(0, description="seed of the data set")


ClassLayout = Annotated[
    FoldersLayout | ClassManifestLayout | ClassVolumesLayout | ContrastPhantomLayout, Field(discriminator="name")
]


class ClassDataConfig(Section):
    """Where the images of each class are, and who was scanned."""

    root: Path = Field(Path("data/contrast_phantom"), description="folder of the data set")
    layout: ClassLayout = Field(ContrastPhantomLayout(), description="how the files are arranged")
    classes: dict[str, str | tuple[str, ...]] | Auto = Field(
        "auto",
        description="class -> folders or labels that it merges; images of others are left out and counted; auto: every "
        "folder or label is a class, in alphabetical order",
    )
    subject: str | None = Field(
        None,
        description="regular expression found in an image's id (its path below the root) whose match (or first group) "
        "is the subject; twins: equal and nearly equal images, found by the audit, count as one subject; none: the "
        "manifest's column, else every image is a subject of its own",
    )

    @field_validator("subject")
    @classmethod
    def _is_a_pattern(cls, subject: str | None) -> str | None:
        try:
            re.compile(subject or "")
        except re.error as error:
            raise ValueError(f"not a regular expression ({error}): check its brackets") from None
        return subject

    @field_validator("classes", mode="before")
    @classmethod
    def _named_as_their_folders(cls, classes: object) -> object:
        """A list of names stands for classes that are called as their folders or labels."""
        return {str(name): str(name) for name in classes} if isinstance(classes, list | tuple) else classes

    @field_validator("classes")
    @classmethod
    def _each_label_once(cls, classes: dict[str, str | tuple[str, ...]] | Auto) -> object:
        if isinstance(classes, str):
            return classes
        owner: dict[str, str] = {}
        for name, members in classes.items():
            for label in (members,) if isinstance(members, str) else members:
                if label in owner:
                    raise ValueError(f"'{label}' stands in '{owner[label]}' and in '{name}': leave it in one of them")
                owner[label] = name
        return classes

    @property
    def merges(self) -> dict[str, tuple[str, ...]] | None:
        """Class -> labels it merges, each a tuple; None where the classes are as in the files."""
        if isinstance(self.classes, str):
            return None
        return {name: (given,) if isinstance(given, str) else given for name, given in self.classes.items()}


class ClassSplitConfig(Section):
    """Which images train, select and test; every class is shared out evenly."""

    by: Literal["auto", "subject", "twins", "image", "given"] = Field(
        "auto",
        description="what never stands on two sides: subjects; groups of twins (equal or nearly equal images); single "
        "images (leaks wherever a subject has several); given: the published parts; auto: subjects and twins together",
    )
    test: Fraction = Field(0.2, description="share that is used once, at the end")
    validation: Fraction = Field(0.15, description="share of the rest that selects weights and thresholds")
    folds: Annotated[int, Field(ge=2)] = Field(5, description="of cross-validation, where a fold is asked for")
    fold: Annotated[int, Field(ge=0)] | None = Field(
        None, description="test on this fold (from 0) instead of on the hold-out; none: hold-out"
    )
    file: Path | None = Field(None, description="take the parts from this split.json of another run")
    seed: int = Field(0, description="seed of the split, apart from the seed of training")

    @model_validator(mode="after")
    def _one_way(self) -> ClassSplitConfig:
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist: {self.folds} folds are counted from 0")
        if self.fold is not None and self.by == "given":
            raise ValueError("fold and by: given exclude each other: leave one out")
        return self


class LeakConfig(Section):
    """What is looked for before training, and what happens when it is found."""

    check: bool = Field(True, description="look for equal and nearly equal images on two sides of the split")
    allow_leakage: bool = Field(
        False, description="train on a leaking split all the same; every table of the run then says so"
    )
    remove_twins: bool = Field(
        False,
        description="leave images out of training and validation that have a twin, or share a subject, in test: for "
        "published parts that leak",
    )
    near_correlation: Annotated[float, Field(gt=0, le=1)] = Field(
        0.987, description="correlation of aligned detail from which two images count as nearly equal"
    )


class ImageConfig(Section):
    """From a file to what the network sees: grey or colour, filtered, of one size, with comparable intensities."""

    dims: Literal[2, 3] = Field(2, description="2: images; 3: volumes")
    size: tuple[Width, ...] = Field((128, 128), description="height and width; or X, Y and Z of volumes")
    channels: Literal[1, 3] = Field(
        1, description="1: grey; 3: red, green and blue, for networks trained on photographs (grey is tripled)"
    )
    filters: tuple[Filter, ...] = Field((), description="contrast and noise filters, in their order, before resizing")
    fit: Literal["stretch", "pad", "crop"] = Field(
        "pad", description="where the aspect differs: stretched, the whole image on black, or the middle of the image"
    )
    resampling: Literal["area", "bilinear"] = Field(
        "area", description="area: averages what falls into a pixel; bilinear: as most tutorials do"
    )
    intensity: Literal["zscore", "unit", "percentile"] = Field(
        "zscore",
        description="each image, before it is padded, to mean 0 and standard deviation 1; unit: 0 black, 1 the "
        "brightest a file of this type can hold (volumes: their range); percentile: those below to [0, 1]",
    )
    clip_percentiles: tuple[float, float] = Field((0.5, 99.5), description="of intensity percentile")

    @model_validator(mode="after")
    def _size_fits(self) -> ImageConfig:
        if len(self.size) != self.dims:
            raise ValueError(f"size {self.size} for {self.dims} dimensions: give as many numbers")
        if self.dims == 3 and self.channels == 3:
            raise ValueError("channels 3 is for images: volumes have one")
        low, high = self.clip_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"clip_percentiles {self.clip_percentiles}: the lower first, both from 0 to 100")
        return self

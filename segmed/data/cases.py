"""A folder of volumes -> the cases of a data set, complete, with names of images and labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import numpy as np

from segmed.config import BidsLayout, DataConfig, Layout, ManifestLayout, MsdLayout, NnunetLayout, PatternLayout
from segmed.data.bids import read_bids
from segmed.data.case import Case, LayoutCases, with_subjects
from segmed.data.dataset_json import read_msd, read_nnunet
from segmed.data.download import how_to_get
from segmed.data.guess import guess_layout
from segmed.data.manifest import read_manifest
from segmed.data.patterns import read_patterns
from segmed.errors import DatasetError, VolumeError, did_you_mean
from segmed.files import printable, what_is_odd
from segmed.labels import LabelSet
from segmed.volumes import Source, is_dicom_folder, is_picture, is_volume_file, read_label_volume

__all__ = ["Case", "Dataset", "DatasetError", "find_volumes", "guess_layout", "read_dataset"]

MOST_LABEL_VALUES = 64  # a file with more different values is an image


@dataclass(frozen=True)
class Dataset:
    """Cases that belong together.

    Attributes:
        name: of the data set, for tables.
        root: its folder.
        cases: sorted by id.
        modalities: names of the images, in the order of channels; every case has them all, unless `incomplete`.
        labels: what the label maps mean; empty where no case has one.
        unlabelled: ids of the cases that the config lists as unlabelled; their label maps, if any, are left out.
        subjects_known: whether the subjects are named anywhere; otherwise every case counts as a subject.
        incomplete: whether cases may lack some of the images, whose channels are then zero.
    """

    name: str
    root: Path
    cases: tuple[Case, ...]
    modalities: tuple[str, ...]
    labels: LabelSet
    unlabelled: tuple[str, ...] = ()
    subjects_known: bool = True
    incomplete: bool = False

    @property
    def are_pictures(self) -> bool:
        """Whether all images are pictures, which have no spacing in mm."""
        return all(is_picture(source.path) for case in self.cases for source in case.images.values())


def read_dataset(data: DataConfig, *, complete: bool = True, incomplete_images: bool = False) -> Dataset:
    """The cases of a config.

    Args:
        data: any layout but `phantom`.
        complete: whether incomplete cases (a missing image, a missing label map where other cases have one, a listed
            file that does not exist) and duplicate ids are errors; an audit accepts them and reports them.
        incomplete_images: cases may lack some of their images all the same, for networks that learn without; unless
            `complete`, one image may be missing everywhere.

    Raises:
        DatasetError: nothing there; files that don't fit the layout; incomplete cases; unknown names.
        VolumeError: labels that contradict each other.
    """
    listed = data.unlabelled if isinstance(data.unlabelled, tuple) else ()
    layout_cases = _read_layout(
        data.root, data.layout, test=bool(listed), some_images=incomplete_images and not complete
    )
    if (expression := getattr(data.layout, "subject", None)) is not None:
        layout_cases = with_subjects(layout_cases, expression)
    named = tuple(case for case in layout_cases.test_images if _fits(case, listed))
    modalities, cases = _choose_images(replace(layout_cases, cases=layout_cases.cases + named), data)
    _check_names(cases, data.root)
    twice = [case.id for first, case in pairwise(cases) if first.id == case.id]
    if twice and complete:
        raise DatasetError(f"{data.root} has case '{twice[0]}' twice: give the cases different names")
    if data.unlabelled == "skip" and any(case.label for case in cases):
        cases = [case for case in cases if case.label]
    unlabelled: tuple[str, ...] = ()
    if listed:
        cases, unlabelled = _set_apart(cases, listed, data.root)
    if complete:
        _check_complete(cases, modalities, data.root, unlabelled, some=incomplete_images)
    labels = _labels(layout_cases, data, cases, readable_only=not complete)
    for name in (name for pair in data.mirror_pairs for name in pair):
        labels.index(name)
    for name in data.codes:
        labels.members(name)
    known = layout_cases.subjects_known
    return Dataset(
        layout_cases.name, data.root, tuple(cases), modalities, labels, unlabelled, known, incomplete=incomplete_images
    )


def _check_names(cases: Sequence[Case], root: Path) -> None:
    """See that ids are plain: they name files, so one with a path in it would be written somewhere else."""
    for case in cases:
        if (odd := what_is_odd(case.id)) is not None:
            raise DatasetError(f"{root}: case id '{printable(case.id)}' {odd}: give the case a plain name")


def _set_apart(cases: Sequence[Case], listed: Sequence[str], root: Path) -> tuple[list[Case], tuple[str, ...]]:
    """All cases, without the label maps of those listed as unlabelled; and the ids of the unlabelled cases."""
    idle = [pattern for pattern in listed if not any(_fits(case, [pattern]) for case in cases)]
    if idle:
        raise DatasetError(
            f"data.unlabelled: '{idle[0]}' fits no case of {root}, whose ids are like '{cases[0].id}': list ids, or "
            "patterns with *"
        )
    chosen = tuple(case.id for case in cases if _fits(case, listed))
    return [replace(case, label=None) if case.id in chosen else case for case in cases], chosen


def _fits(case: Case, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(case.id, pattern) for pattern in patterns)


def _read_layout(root: Path, layout: Layout, *, test: bool, some_images: bool) -> LayoutCases:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder: {how_to_get(root)}")
    if not any(root.iterdir()):
        raise DatasetError(f"{root} is empty: put the data set there or set data.root to where it is")
    match layout:
        case MsdLayout():
            return read_msd(root, test=test)
        case NnunetLayout():
            return read_nnunet(root, test=test)
        case PatternLayout():
            return read_patterns(root, layout, some_images=some_images)
        case ManifestLayout():
            return read_manifest(root, layout)
        case BidsLayout():
            return read_bids(root, layout)
    raise DatasetError(f"layout '{layout.name}' describes a synthetic data set: make it first")


def _choose_images(layout_cases: LayoutCases, data: DataConfig) -> tuple[tuple[str, ...], list[Case]]:
    """Modalities in the order of channels, and the cases with these images only, sorted by id."""
    cases = sorted(layout_cases.cases, key=lambda case: case.id)
    available = layout_cases.modalities
    if data.components:
        cases = [replace(case, images=_components(case, data.components)) for case in cases]
        available = tuple(data.components)
    if data.colours == "channels":
        names = {image: colour_names(image, several=len(available) > 1) for image in available}
        cases = [replace(case, images=_colours(case, names)) for case in cases]
        available = tuple(name for image in available for name in names[image])
    chosen = available if data.images == "auto" else data.images
    if not chosen or len(set(chosen)) != len(chosen):
        raise DatasetError("data.images is empty or has a name twice: name each image once")
    for name in chosen:
        if name not in available:
            raise DatasetError(f"data.images: unknown image '{name}'{did_you_mean(name, available)}")
    return tuple(chosen), [
        replace(case, images={n: replace(case.images[n], nan=data.nan) for n in chosen if n in case.images})
        for case in cases
    ]


def _components(case: Case, components: Mapping[str, int]) -> dict[str, Source]:
    """Components of the case's one file, by name."""
    paths = {source.path for source in case.images.values()}
    if len(paths) > 1:
        raise DatasetError(f"data.components needs one 4D file a case, but case '{case.id}' has {len(paths)}: drop it")
    return {name: Source(path, index) for path in paths for name, index in components.items()}


def colour_names(image: str, *, several: bool) -> tuple[str, ...]:
    """Names of the three images that a colour picture is split into."""
    return tuple(f"{image}_{colour}" if several else colour for colour in ("red", "green", "blue"))


def _colours(case: Case, names: Mapping[str, Sequence[str]]) -> dict[str, Source]:
    """One image for each colour of a picture."""
    images: dict[str, Source] = {}
    for image, source in case.images.items():
        if not is_picture(source.path):
            raise DatasetError(f"{source.path} is no picture, so it has no colours: set data.colours to grey")
        images |= {name: replace(source, component=n, colours=True) for n, name in enumerate(names[image])}
    return images


def _check_complete(
    cases: Sequence[Case], modalities: Sequence[str], root: Path, listed: Sequence[str], *, some: bool
) -> None:
    """See that no image and no label map is missing; where `some` images suffice, that each case has one."""
    for case in cases:
        missing = [name for name in modalities if name not in case.images]
        if len(missing) == len(modalities) and case.label:
            raise DatasetError(f"label map {case.label.path} has no image: add it, or take the label map away")
        if missing and not (some and len(missing) < len(modalities)):
            learn = ", or set augment.modality_dropout, as 0.2" if len(modalities) > 1 else ""
            raise DatasetError(
                f"case '{case.id}' has no image '{missing[0]}': add it, leave the case out, or choose "
                f"data.images{learn}"
            )
    lost = [source.path for case in cases for source in case.sources if not source.path.exists()]
    if lost:
        raise DatasetError(f"{len(lost)} files of {root} are listed but not there, e.g. {lost[0]}: copy them again")
    unlabelled = [case for case in cases if case.label is None and case.id not in listed]
    if unlabelled and len(unlabelled) < len(cases):
        first = next(iter(unlabelled[0].images.values())).path
        raise DatasetError(
            f"{len(unlabelled)} of {len(cases)} cases have no label map, e.g. {first}: "
            "add it, make the pattern of images narrower, or set data.unlabelled to skip or to a list of them"
        )
    unmasked = [case for case in cases if case.field_of_view is None]
    if unmasked and len(unmasked) < len(cases):
        raise DatasetError(
            f"{len(unmasked)} of {len(cases)} cases have no field of view, e.g. '{unmasked[0].id}': add its mask, or "
            "leave the case out"
        )


# ---------------------------------------------------------------- labels


def _labels(layout_cases: LayoutCases, data: DataConfig, cases: Sequence[Case], *, readable_only: bool) -> LabelSet:
    if data.labels != "auto":
        return LabelSet.from_config(data.labels, data.ignore, data.regions, data.background, data.targets)
    named = layout_cases.labels
    if named is None:
        values = _values_in_files(cases, readable_only=readable_only)
        named = {f"label_{value}": [value] for value in values if value not in (*data.ignore, *data.background)}
    if not named:
        return LabelSet((), ())
    told = layout_cases.targets if data.targets == "auto" and not data.regions else ()
    return LabelSet.from_config(
        {name: list(values) for name, values in named.items()},
        data.ignore or layout_cases.ignore,
        data.regions or {name: list(members) for name, members in layout_cases.regions.items()},
        data.background,
        told or data.targets,
    )


def _values_in_files(cases: Sequence[Case], *, readable_only: bool) -> list[int]:
    """Every value but 0 in the label maps. All of them are read, so only for data sets without names of labels."""
    values: set[int] = set()
    for case in cases:
        if case.label is None:
            continue
        try:
            present = np.unique(read_label_volume(case.label).as_tensor().numpy())
        except VolumeError:
            if readable_only:
                continue
            raise
        values |= {int(value) for value in present}
        if len(values) > MOST_LABEL_VALUES:
            raise DatasetError(f"{case.label.path} has too many different values for a label map: name data.labels")
    return sorted(values - {0})


# ---------------------------------------------------------------- any volumes


def find_volumes(path: Path) -> list[Path]:
    """The volume at a path, or all volumes below a folder: files, and folders of DICOM slices.

    Raises:
        DatasetError: nothing there.
    """
    if not path.exists():
        raise DatasetError(f"{path} does not exist: check the path")
    if path.is_file():
        return [path]
    volumes: list[Path] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real in seen:  # a link back up
            continue
        seen.add(real)
        volumes += [Path(folder, name) for name in files if is_volume_file(Path(folder, name))]
        if is_dicom_folder(Path(folder)):
            volumes.append(Path(folder))
    if not volumes:
        raise DatasetError(f"{path} holds no volumes: give NIfTI, NRRD, MHA or image files, or DICOM folders")
    return sorted(volumes)


def cases_of(dataset: Dataset, ids: Sequence[str]) -> list[Case]:
    """Cases by id, in the order of ids.

    Raises:
        DatasetError: one is not there any more.
    """
    known = {case.id: case for case in dataset.cases}
    missing = [name for name in ids if name not in known]
    if missing:
        raise DatasetError(f"case {missing[0]} of the split is not in {dataset.root} any more ({len(missing)} missing)")
    return [known[name] for name in ids]

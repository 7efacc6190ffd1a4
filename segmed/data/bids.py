"""Brain Imaging Data Structure -> cases: a session of a subject is a case, label maps come from `derivatives/`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.config import BidsLayout
from segmed.data.bids_name import BidsName
from segmed.data.case import Case, LayoutCases
from segmed.data.manifest import csv_rows
from segmed.errors import DatasetError, did_you_mean
from segmed.volumes import Source, is_volume_file, strip_suffix

DESCRIPTION = "dataset_description.json"
NOT_RAW = ("derivatives", "sourcedata", "code")  # folders beside the subjects
LABEL_SUFFIXES = ("dseg", "mask")  # looked for in this order
NO_IMAGES = {*LABEL_SUFFIXES, "probseg", "defacemask"}
OWN = "segmed"  # writes derivatives too, which nobody wants to learn from by accident
Session = tuple[str, str]  # of whom, and which; "" where a subject has no sessions


@dataclass(frozen=True)
class BidsFile:
    """A volume of a subject.

    Attributes:
        path: where it is.
        name: its parts.
        session: whose it is, by its folders.
        datatype: its folder, as `anat`.
    """

    path: Path
    name: BidsName
    session: Session
    datatype: str


def is_bids(root: Path) -> bool:
    """Whether a folder says that it is a BIDS data set, or has subjects as one has."""
    if "BIDSVersion" in described(root):
        return True
    return any(file.name.entities for file in _files(root, first_subject_only=True))


def described(root: Path) -> Mapping[str, Any]:
    """What the folder's dataset_description.json says; empty without a readable one."""
    try:
        content = json.loads((root / DESCRIPTION).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_bids(root: Path, layout: BidsLayout) -> LayoutCases:
    """Sessions as cases, `sub-01_ses-1`, or runs of a session where its images have several.

    Columns of participants.tsv become `meta`, and the names of labels come from the `dseg.tsv` beside or above them.

    Raises:
        DatasetError: no subjects, nothing of a modality, two files for one image, a file in another subject's folder,
            label maps in several folders.
    """
    raw = _sessions(_checked(root, root), layout)
    if not raw:
        raise DatasetError(_nothing_there(root, layout))
    ends = _modalities(raw, layout)
    images = {name: _of_modality(root, raw, end, name, layout) for name, end in ends.items()}
    labels = _label_files(root, layout)
    about = _participants(root)
    cases = []
    for session in sorted({file.session for files in (*images.values(), labels) for file in files}):
        own = {name: [file for file in files if file.session == session] for name, files in images.items()}
        own_labels = [file for file in labels if file.session == session]
        for run in _runs(own):
            there = {name: _one(files, run, ends[name], f"data.layout.images.{name}") for name, files in own.items()}
            label = _one(own_labels, run, layout.label or "", "data.layout.label")
            given = {name: Source(file.path) for name, file in there.items() if file is not None}
            subject, meta = f"sub-{session[0]}", about.get(f"sub-{session[0]}", {})
            cases.append(Case(_case_id(session, run), subject, given, Source(label.path) if label else None, meta))
    name = described(root).get("Name")
    title = name if isinstance(name, str) and name.strip() else root.resolve().name
    return LayoutCases(title, tuple(cases), tuple(images), _label_names(labels, root), subjects_known=True)


def _case_id(session: Session, run: str | None) -> str:
    parts = {"sub": session[0], "ses": session[1], "run": run}
    return "_".join(f"{key}-{value}" for key, value in parts.items() if value)


# ---------------------------------------------------------------- files


def _files(root: Path, *, first_subject_only: bool = False) -> Iterator[BidsFile]:
    """Volumes of all subjects below a raw or a derivative data set, sorted."""
    for subject in _folders(root, "sub-"):
        sessions = _folders(subject, "ses-")
        for folder in [subject, *sessions]:
            session = (subject.name[4:], folder.name[4:] if folder is not subject else "")
            for datatype in (path for path in _folders(folder, "") if path not in sessions):
                for path in sorted(datatype.iterdir()):
                    if (
                        is_volume_file(path) and not path.is_dir()
                    ):  # a link into a store that was not fetched is said later
                        yield BidsFile(path, BidsName.of(path), session, datatype.name)
        if first_subject_only:
            return


def _folders(folder: Path, prefix: str) -> list[Path]:
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in entries if path.is_dir() and path.name.startswith(prefix) and path.name[:1] != "."]


def _checked(folder: Path, root: Path) -> list[BidsFile]:
    """The files, of which none names another subject or session than its folders do."""
    files = list(_files(folder))
    for file in files:
        for key, value in zip(("sub", "ses"), file.session, strict=True):
            named = file.name.entities.get(key, "")
            if named != value and (key == "sub" or named):
                said = f"names {key}-{named}" if named else f"does not begin with {key}-{value}"
                where = f"lies in {key}-{value}" if value else "lies in the folder of no session"
                raise DatasetError(
                    f"{file.path.relative_to(root)} of {root} {said} but {where}: move it or rename it as BIDS asks"
                )
    return files


def _sessions(files: Iterable[BidsFile], layout: BidsLayout) -> list[BidsFile]:
    """The files of the sessions that a config wants."""
    wanted = {name.removeprefix("ses-") for name in layout.sessions}
    return [file for file in files if not wanted or file.session[1] in wanted]


def _nothing_there(root: Path, layout: BidsLayout) -> str:
    subjects = _folders(root, "sub-")
    if not subjects:
        return f"{root} has no folders sub-..., which a BIDS data set has: use another data.layout"
    if layout.sessions:
        there = sorted({folder.name[4:] for subject in subjects for folder in _folders(subject, "ses-")})
        return f"{root} has no images of data.layout.sessions{did_you_mean(layout.sessions[0], there)}"
    return f"{root} has subjects but no images as {subjects[0].name}/anat/{subjects[0].name}_T1w.nii.gz: add them"


# ---------------------------------------------------------------- modalities


def _modalities(raw: Sequence[BidsFile], layout: BidsLayout) -> dict[str, str]:
    """Name -> end of its files' names; without any given, every suffix in anat/."""
    if layout.images:
        return dict(layout.images)
    suffixes = sorted({file.name.suffix for file in raw if file.datatype == "anat"} - NO_IMAGES)
    if not suffixes:
        there = sorted({f"{file.datatype}/{file.name.suffix}" for file in raw})
        raise DatasetError(f"no subject has images in anat/, there are {', '.join(there)}: name data.layout.images")
    return {suffix: suffix for suffix in suffixes}


def _of_modality(root: Path, raw: Sequence[BidsFile], end: str, name: str, layout: BidsLayout) -> list[BidsFile]:
    """Files of all sessions that have an end, in the raw data or in a folder of derivatives."""
    folder, _, ending = end.rpartition("/")
    files = _sessions(_checked(_derivative(root, folder, "images"), root), layout) if folder else raw
    files = [file for file in files if file.name.fits(BidsName.of(ending))]
    if not files:
        endings = sorted({file.name.ending for file in raw})
        where = f"derivatives/{folder}" if folder else "the subjects' folders"
        raise DatasetError(
            f"data.layout.images.{name}: no file in {where} ends in '{ending}'{did_you_mean(end, endings)}"
        )
    return files


def _runs(images: Mapping[str, Sequence[BidsFile]]) -> list[str | None]:
    """Numbers of the runs of a session, where an image was taken several times; else one without a number."""
    several = {file.name.run for files in images.values() for file in files if len({f.name.run for f in files}) > 1}
    return sorted(several, key=lambda run: run or "") if several else [None]


def _one(files: Sequence[BidsFile], run: str | None, end: str, key: str) -> BidsFile | None:
    """The file of a run; of several the one whose name says no more than what was asked for.

    Raises:
        DatasetError: several are left.
    """
    own = [file for file in files if run is None or file.name.run == run]
    own = own or [file for file in files if file.name.run is None]
    ending = BidsName.of(end.rpartition("/")[2]).ending
    own = [file for file in own if file.name.ending in (ending, file.name.suffix)] or own if len(own) > 1 else own
    if len(own) > 1:
        first, second = own[:2]
        raise DatasetError(
            f"{first.path} and {second.path.name} both fit {key}: leave one out, or name it by the end of its name, "
            f"as {first.name.ending}"
        )
    return own[0] if own else None


# ---------------------------------------------------------------- label maps


def _label_files(root: Path, layout: BidsLayout) -> list[BidsFile]:
    if layout.label is None:
        return []
    if layout.label == "auto":
        return _guessed_labels(root, layout)
    folder, _, ending = layout.label.rpartition("/")
    folders = [_derivative(root, folder, "label")] if folder else _derivatives(root)
    files = _by_folder(folders, root, layout, ending)
    if not files:
        where = f"derivatives/{folder}" if folder else "derivatives/"
        there = sorted({file.name.ending for each in folders for file in _files(each)})
        raise DatasetError(
            f"data.layout.label: no file in {root / where} ends in '{ending}'{did_you_mean(ending, there)}"
        )
    return _of_one_folder(files, ending)


def _guessed_labels(root: Path, layout: BidsLayout) -> list[BidsFile]:
    """Label maps of the one folder that has some and was not written by segmed."""
    folders = [folder for folder in _derivatives(root) if not _is_own(folder)]
    for ending in LABEL_SUFFIXES:
        if files := _by_folder(folders, root, layout, ending):
            return _of_one_folder(files, ending)
    return []


def _by_folder(folders: Sequence[Path], root: Path, layout: BidsLayout, ending: str) -> dict[str, list[BidsFile]]:
    """Name of a folder below derivatives/ -> its files that have an end; none without any."""
    end = BidsName.of(ending)
    files = {
        "." if folder == root / "derivatives" else folder.name: [
            file for file in _sessions(_checked(folder, root), layout) if file.name.fits(end)
        ]
        for folder in folders
    }
    return {name: own for name, own in files.items() if own}


def _of_one_folder(files: Mapping[str, list[BidsFile]], ending: str) -> list[BidsFile]:
    if len(files) > 1:
        first, second = list(files)[:2]
        raise DatasetError(
            f"derivatives/{first} and derivatives/{second} both hold label maps: choose by data.layout.label, as "
            f"'{first}/{ending}'"
        )
    return next(iter(files.values()))


def _derivatives(root: Path) -> list[Path]:
    """The folders of pipelines; derivatives/ itself where it holds the subjects."""
    folders = _folders(root / "derivatives", "")
    pipelines = [folder for folder in folders if not folder.name.startswith("sub-")]
    return pipelines if len(pipelines) == len(folders) else [root / "derivatives", *pipelines]


def _derivative(root: Path, name: str, key: str) -> Path:
    """The folder of a pipeline.

    Raises:
        DatasetError: it is not there.
    """
    folder = root / "derivatives" / name
    if not folder.is_dir() or ".." in Path(name).parts:
        known = did_you_mean(name, [path.name for path in _derivatives(root)])
        raise DatasetError(f"data.layout.{key}: {root / 'derivatives'} has no folder '{name}'{known}")
    return folder


def _is_own(folder: Path) -> bool:
    """Whether segmed wrote a derivative data set."""
    tools = described(folder).get("GeneratedBy")
    return isinstance(tools, list) and any(isinstance(tool, dict) and tool.get("Name") == OWN for tool in tools)


def _label_names(labels: Sequence[BidsFile], root: Path) -> dict[str, list[int]] | None:
    """Name -> value, from the look-up tables (index, name) of the label maps; None without any."""
    tables = {table: None for file in labels for table in _tables(file, root)}
    names: dict[int, str] = {}
    for table in tables:
        for number, row in enumerate(csv_rows(table), 1):
            try:
                index, name = int(row["index"]), str(row["name"])
            except (KeyError, ValueError):
                raise DatasetError(f"{table}, row {number} has no whole 'index' and 'name': repair it") from None
            if names.setdefault(index, name) != name:
                raise DatasetError(
                    f"{table} calls label {index} '{name}', another table '{names[index]}': name data.labels"
                )
    named: dict[str, list[int]] = {}
    for index, name in sorted(names.items()):
        if index:
            named.setdefault(name, []).append(index)
    return named or None


def _tables(file: BidsFile, root: Path) -> list[Path]:
    """The nearest table that applies to a label map: beside it, or above it for all files of that kind."""
    for folder in file.path.parents:
        own = folder / f"{strip_suffix(file.path)}.tsv"
        shared = sorted(folder.glob(f"*{file.name.suffix}.tsv"))
        fitting = [own] if own.is_file() else [path for path in shared if file.name.fits(BidsName.of(path.stem))]
        if fitting:
            return fitting[-1:]
        if folder == root:
            break
    return []


# ---------------------------------------------------------------- participants


def _participants(root: Path) -> dict[str, dict[str, str]]:
    """Subject -> columns of participants.tsv that are known."""
    table = root / "participants.tsv"
    if not table.is_file():
        return {}
    rows = csv_rows(table)
    if rows and "participant_id" not in rows[0]:
        raise DatasetError(f"{table} has no column participant_id: BIDS asks for it as the first one")
    known = {row["participant_id"]: row for row in rows}
    return {
        name: {key: value for key, value in row.items() if key != "participant_id" and value not in ("", "n/a")}
        for name, row in known.items()
    }

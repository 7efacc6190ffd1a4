"""A path -> the cases to predict: a file, a DICOM folder, a folder of volumes, a data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segmed.config import PHANTOM_FILES, BidsLayout, DataConfig, MsdLayout, NnunetLayout, PatternLayout, PhantomLayout
from segmed.data.bids import NOT_RAW, is_bids
from segmed.data.case import Case, composed
from segmed.data.cases import find_volumes, read_dataset
from segmed.data.dataset_json import CHANNEL
from segmed.data.naming import ROLE, SAYS_LABEL, plain_name
from segmed.errors import DatasetError, VolumeError
from segmed.volumes import Source, is_dicom_folder, is_volume_file, read_header, strip_suffix
from segmed.volumes.dicom import series_in

LOSSLESS = {
    ".nhdr": ".nrrd",
    **dict.fromkeys((".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif"), ".png"),
    **dict.fromkeys((".mgz", ".mgh", ".img", ".hdr"), ".nii.gz"),
}
BESIDES = ("label", "field_of_view")  # what a case to predict may lack
UNNAMED = "of unknown kind"  # a file that does not say which of several images it is
LABEL_FOLDERS = {"labelsTr", "labelsTs"}
BIDS_LEVELS = 4  # subject, session, kind of image, file


@dataclass(frozen=True)
class Input:
    """A case to predict.

    Attributes:
        case: its images by modality; one that is incomplete is reported when it is read.
        output: path of its label map below the output folder.
    """

    case: Case
    output: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, each once."""
        return tuple(dict.fromkeys(source.path for source in self.case.images.values()))


def find_inputs(path: Path, data: DataConfig, *, output: Path | None = None) -> tuple[Input, ...]:
    """The cases of a file or a folder, with the modalities that a run was trained on.

    A folder is read in the run's own layout where it fits, so that label maps are not taken for images. Otherwise all
    its volumes are taken: files named `_0000`, `_0001` are the modalities of one case; a file with as many components
    as there are modalities is a case; with one modality each file is a case, from which `data.components` may choose.
    An output has the name of its image, or of its case where that has several images; folders are kept where two
    names are equal. Label maps in a folder (`a_seg` beside `a`, `labelsTr/a`) are no inputs: see `label_maps`.

    Args:
        path: file, DICOM folder, folder of volumes at any depth, or data set.
        data: of the run, resolved; its root is not used.
        output: folder of label maps, left out if it lies in `path`.

    Raises:
        DatasetError: nothing there, or two inputs that would have one output.
    """
    return _with_outputs(find_cases(path, data, output=output), _readable(data), _root(path))


def find_cases(path: Path, data: DataConfig, *, output: Path | None = None) -> list[Case]:
    """The cases of `find_inputs`, without the names of their label maps.

    Raises:
        DatasetError: nothing there.
    """
    if not path.exists():
        raise DatasetError(f"input {path} does not exist: check the path")
    data = _readable(data)
    cases = _from_layout(path, data) or _from_files(_files(path, data, output), data, root=_root(path))
    if not cases:
        raise DatasetError(f"input {path} holds no volumes but label maps: name the folder of the images")
    return cases


def nested_input(case: Case, data: DataConfig, root: Path) -> Input:
    """A case whose label map keeps the folders below `root` that its first image lies in."""
    parent = Path(os.path.abspath(next(iter(case.images.values())).path)).parent
    return Input(case, parent.relative_to(os.path.abspath(root)) / _output_name(case, _readable(data)))


def _root(path: Path) -> Path:
    return path if path.is_dir() and not is_dicom_folder(path) else path.parent


def _readable(data: DataConfig) -> DataConfig:
    """The config with names of images; a phantom is read as its files."""
    changes: dict[str, object] = {"images": ("image",)} if data.images == "auto" else {}
    if isinstance(data.layout, PhantomLayout):
        changes["layout"] = PHANTOM_FILES
    return data.model_copy(update=changes)


# ---------------------------------------------------------------- the run's own layout


def _from_layout(path: Path, data: DataConfig) -> list[Case]:
    """Cases that lie in `path`, or that the file `path` is a part of; none where the layout does not fit.

    With patterns and BIDS, `path` may also be a folder or a file further down.
    """
    roots = [path]
    layouts = [data.layout]
    if isinstance(data.layout, PatternLayout):
        depth = max(pattern.count("/") for pattern in data.layout.images.values())
        roots += list(path.absolute().parents)[: depth + path.is_file()]
        layouts += [data.layout.model_copy(update=dict.fromkeys(left_out)) for left_out in (("label",), BESIDES)]
    if isinstance(data.layout, BidsLayout):
        roots += list(path.absolute().parents)[:BIDS_LEVELS]
        layouts.append(data.layout.model_copy(update={"label": None}))
    for root in roots:
        for layout in layouts:
            try:
                there = data.model_copy(update={"root": root, "layout": layout})
                dataset = read_dataset(there, complete=False, incomplete_images=True)
            except (DatasetError, VolumeError, OSError):
                continue
            cases = [case for case in dataset.cases if _is_there(case) and _touches(case, path)]
            labels = _labels_among(cases, root) if path.is_dir() else set()
            cases = [case for case in cases if not labels.issuperset(source.path for source in case.images.values())]
            if cases:
                return cases + _test_images(path, data)
    return []


def _labels_among(cases: Sequence[Case], root: Path) -> set[Path]:
    """Label maps that a pattern of images matches as well."""
    return set(label_maps([source.path for case in cases for source in case.images.values()], root))


def _is_there(case: Case) -> bool:
    """Whether an image exists; those of a partly copied data set may only be listed."""
    return any(source.path.exists() for source in case.images.values())


def _touches(case: Case, path: Path) -> bool:
    whole = Path(os.path.abspath(path))
    images = [Path(os.path.abspath(source.path)) for source in case.images.values()]
    return whole in images or all(image.is_relative_to(whole) for image in images)


def _test_images(root: Path, data: DataConfig) -> list[Case]:
    """Images without label maps, which MSD and nnU-Net keep in a folder of their own."""
    folder = root / "imagesTs"
    if not isinstance(data.layout, MsdLayout | NnunetLayout) or not folder.is_dir():
        return []
    try:
        return _from_files(find_volumes(folder), data, root=root)
    except DatasetError:
        return []


# ---------------------------------------------------------------- any volumes


def _files(path: Path, data: DataConfig, output: Path | None) -> list[Path]:
    """The volumes of a folder; for a file, also the other modalities of its case."""
    if path.is_file():
        case = _channel(path, data)
        return (
            [path]
            if case is None
            else [other for other in sorted(path.parent.iterdir()) if _channel(other, data) == case]
        )
    if is_dicom_folder(path):
        return [path]
    volumes = [each for each in find_volumes(path) if not _is_output(each, path, output)]
    if is_bids(path):
        volumes = [each for each in volumes if each.relative_to(path).parts[0] not in NOT_RAW]
    labels = set(label_maps(volumes, path))
    return [each for each in volumes if each not in labels]


def _is_output(path: Path, root: Path, output: Path | None) -> bool:
    """Whether a file lies in the folder of the label maps; links and .. are followed."""
    if output is None or output.resolve() == root.resolve():
        return False
    return path.resolve().is_relative_to(output.resolve())


def label_maps(files: Sequence[Path], root: Path) -> list[Path]:
    """The files of a folder that are label maps by their names.

    These are the files in `labelsTr` and `labelsTs`, `CASE_seg` (`_gt`, `_mask`, ...) where a file with another name of
    that case lies beside it, and `seg` where other files do.

    Args:
        files: volumes.
        root: folder that they were found in.
    """
    together: dict[Path, list[str]] = {}
    for path in files:
        together.setdefault(path.parent, []).append(composed(strip_suffix(path)))
    return [path for path in files if _says_label(path, root, together[path.parent])]


def _says_label(path: Path, root: Path, beside: Sequence[str]) -> bool:
    if LABEL_FOLDERS & set(path.relative_to(root).parts[:-1]):
        return True
    name = composed(strip_suffix(path))
    if not SAYS_LABEL.search(name):
        return False
    plain = plain_name(name)
    others = [other for other in beside if not SAYS_LABEL.search(other)]
    if ROLE.fullmatch(plain):
        return bool(others)
    return any(other == plain or plain_name(other) == plain or other.startswith(f"{plain}_") for other in others)


def _channel(path: Path, data: DataConfig) -> str | None:
    """The case that a file named `CASE_0000` belongs to, where files are named so."""
    if len(data.images) == 1 and not isinstance(data.layout, NnunetLayout):
        return None
    match = CHANNEL.fullmatch(strip_suffix(path))
    return match["case"] if match and is_volume_file(path) else None


def _from_files(files: Sequence[Path], data: DataConfig, *, root: Path) -> list[Case]:
    """One case a file, or a group of files that end in `_0000`, `_0001` and so on."""
    cases = []
    grouped: dict[str, dict[str, Source]] = {}
    for path in files:
        folder, case = path.parent.relative_to(root), _channel(path, data)
        if case is None:
            name = (folder / strip_suffix(path)).as_posix()
            cases += _cases_of_series(path, name, data) or [Case(name, name, _images_of(path, data))]
            continue
        number = strip_suffix(path)[-4:]
        known = int(number) < len(data.images)
        group = grouped.setdefault((folder / case).as_posix(), {})
        group[data.images[int(number)] if known else f"_{number}"] = Source(path, nan=data.nan)
    return cases + [Case(name, name, images) for name, images in grouped.items()]


def _cases_of_series(path: Path, name: str, data: DataConfig) -> list[Case]:
    """One case for each series of a folder in which the slices of several lie; none of another path."""
    if not path.is_dir():
        return []
    try:
        series = series_in(path)
    except VolumeError:
        return []  # reported when it is read
    titles = Counter(one.title for one in series)
    cases = []
    for number, one in enumerate(series if len(series) > 1 else (), 1):
        case_id = f"{name}_{one.title}" if titles[one.title] == 1 else f"{name}_{one.title}_{number}"
        images = {key: replace(source, series=one.uid) for key, source in _images_of(path, data).items()}
        cases.append(Case(case_id, case_id, images))
    return cases


def _images_of(path: Path, data: DataConfig) -> dict[str, Source]:
    """The modalities in one file: its components, by name or in their order, or its colours."""
    if data.colours == "channels":
        return {name: Source(path, index, colours=True, nan=data.nan) for index, name in enumerate(data.images)}
    if data.components:
        return {
            name: Source(path, data.components[name], nan=data.nan) for name in data.images if name in data.components
        }
    if len(data.images) > 1 and _components(path) == len(data.images):
        return {name: Source(path, index, nan=data.nan) for index, name in enumerate(data.images)}
    return {data.images[0] if len(data.images) == 1 else UNNAMED: Source(path, nan=data.nan)}


def _components(path: Path) -> int:
    try:
        return read_header(path).components
    except VolumeError:
        return 1  # reported when it is read


# ---------------------------------------------------------------- names of label maps


def _with_outputs(cases: Sequence[Case], data: DataConfig, root: Path) -> tuple[Input, ...]:
    """The cases with the paths of their outputs; folders are kept where two names are equal.

    Raises:
        DatasetError: two inputs in one folder that differ by suffix alone would have one output.
    """
    names = [_output_name(case, data) for case in cases]
    counts = Counter(names)
    outputs = []
    for case, name in zip(cases, names, strict=True):
        parent = Path(os.path.abspath(next(iter(case.images.values())).path)).parent
        top = Path(os.path.abspath(root))
        nested = counts[name] > 1 and parent.is_relative_to(top)
        outputs.append(parent.relative_to(top) / name if nested else Path(name))
    first: dict[Path, Case] = {}
    for case, output in zip(cases, outputs, strict=True):
        if (other := first.setdefault(output, case)) is not case:
            one, two = (next(iter(c.images.values())).path for c in (other, case))
            raise DatasetError(f"{one} and {two} would both be written as {output}: rename one, or predict them apart")
    return tuple(Input(case, output) for case, output in zip(cases, outputs, strict=True))


def _output_name(case: Case, data: DataConfig) -> str:
    path = next(iter(case.images.values())).path
    suffix = path.name[len(strip_suffix(path)) :].lower()
    if path.is_dir():
        several = next(iter(case.images.values())).series is not None
        return f"{Path(case.id).name if several else path.name}.nii.gz"
    suffix = LOSSLESS.get(suffix, suffix) or ".nii.gz"
    own_name = len(data.images) == 1 and _channel(path, data) is None
    return (strip_suffix(path) if own_name else Path(case.id).name) + suffix

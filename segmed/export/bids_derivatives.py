"""Label maps of BIDS images -> BIDS derivatives: `sub-01/anat/sub-01_desc-segmed_dseg.nii.gz` with their tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from monai.data import MetaTensor

import segmed
from segmed.data.bids import DESCRIPTION, OWN, described
from segmed.data.bids_name import BidsName
from segmed.data.inputs import Input
from segmed.errors import SegmenterError
from segmed.files import atomic_write_text, write_json
from segmed.labels import LabelSet
from segmed.segment.predict import write_as_input
from segmed.volumes import strip_suffix

VERSION = "1.10.0"  # of BIDS
TABLE = "dseg.tsv"
NOT_BIDS = ("prediction.json", "prediction.jsonl", "classes.csv", "probabilities/", "uncertainty/")


def with_bids_names(inputs: Sequence[Input]) -> tuple[Input, ...]:
    """The inputs, whose outputs have the folders and the entities of their images.

    Raises:
        SegmenterError: an image is not named as BIDS asks, or two would have one label map.
    """
    first: dict[Path, Path] = {}
    named = []
    for item in inputs:
        output, image = _place(item), item.paths[0]
        if (other := first.setdefault(output, image)) is not image:
            raise SegmenterError(f"{other} and {image} would both be written as {output}: predict one of them")
        named.append(replace(item, output=output))
    return tuple(named)


def _place(item: Input) -> Path:
    """Path of a label map below the derivatives; entities that the images of a case don't share are left out."""
    names = [BidsName.of(path) for path in item.paths]
    path, entities = item.paths[0], dict(names[0].entities)
    folders = path.absolute().parts[:-1]
    begin = f"sub-{entities.get('sub', '')}"
    if begin not in folders or not all(entities.values()) or not entities.get("sub"):
        raise SegmenterError(
            f"{path} is not named as BIDS asks, as sub-01/anat/sub-01_T1w.nii.gz: leave out --format, or rename it"
        )
    shared = {key: value for key, value in entities.items() if all(name.entities.get(key) == value for name in names)}
    shared.pop("desc", None)
    stem = BidsName({**shared, "desc": OWN}, "dseg").stem
    below = folders[len(folders) - 1 - folders[::-1].index(begin) :]
    return Path(*below, f"{stem}.nii.gz")


class BidsWriter:
    """Writes label maps, each with a JSON file that names its sources, into a derivative data set.

    Args:
        output: folder of the derivatives, such as `derivatives/segmed`; its description and its table of labels are
            written at once.
        labels: of the label maps.
        inputs: of `with_bids_names`.

    Raises:
        SegmenterError: the folder is a data set that something else wrote.
    """

    def __init__(self, output: Path, labels: LabelSet, inputs: Sequence[Input]) -> None:
        self.roots = sorted({_root_of(item) for item in inputs})
        self.output = output
        before = described(output)
        tools = before.get("GeneratedBy")
        names = [tool.get("Name") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        if (output / DESCRIPTION).exists() and OWN not in names:
            raise SegmenterError(
                f"{output} is a BIDS data set that segmed did not write: choose another output, as derivatives/segmed"
            )
        output.mkdir(parents=True, exist_ok=True)
        links = {name: _relative(root, output) for name, root in zip(self._names(), self.roots, strict=True)}
        description = {
            "Name": "Segmentations by segmed",
            "BIDSVersion": VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": OWN, "Version": segmed.__version__}],
            "DatasetLinks": links,
            "SourceDatasets": [{"URL": link} for link in links.values()],
        }
        write_json(output / DESCRIPTION, description)
        rows = [f"{values[0]}\t{name}\n" for name, values in zip(labels.names, labels.values, strict=True)]
        atomic_write_text(output / TABLE, "".join(["index\tname\n", *rows]))
        atomic_write_text(output / ".bidsignore", "".join(f"{name}\n" for name in NOT_BIDS))

    def __call__(self, path: Path, values: MetaTensor, item: Input) -> None:
        """Write one label map and what it was made of."""
        write_as_input(path, values, item)
        links = dict(zip(self.roots, self._names(), strict=True))
        root = _root_of(item)
        sources = [f"bids:{links[root]}:{file.absolute().relative_to(root).as_posix()}" for file in item.paths]
        write_json(path.with_name(f"{strip_suffix(path)}.json"), {"Manual": False, "Sources": sources})

    def _names(self) -> list[str]:
        return ["raw"] if len(self.roots) == 1 else [f"raw{number}" for number in range(1, len(self.roots) + 1)]


def _root_of(item: Input) -> Path:
    """Folder of the subjects that an image belongs to."""
    path = item.paths[0].absolute()
    return path.parents[len(item.output.parts) - 1]


def _relative(root: Path, output: Path) -> str:
    return Path(os.path.relpath(root, output.absolute())).as_posix()

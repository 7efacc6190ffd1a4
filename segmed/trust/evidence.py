"""calibration.json of a run: what its predictions of cases that it never saw showed, and how good they were."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from segmed.config.base import Section
from segmed.errors import RunError
from segmed.files import write_json

FILE = "calibration.json"
VERSION = 1  # raised whenever the same signs mean another thing

Kind = TypeVar("Kind", bound=Section)


class StructureEvidence(Section):
    """A label or region of a calibration case: its signs, its true volume, and the Dice that was reached."""

    signs: dict[str, float]
    volume: float
    dice: float


class CaseEvidence(Section):
    """A calibration case, without its name.

    Attributes:
        subject: number that cases of one subject share.
        member: which of the predictors segmented it.
        scan: signs of its image.
        structures: of each label and region.
    """

    subject: int
    member: int
    scan: dict[str, float]
    structures: dict[str, StructureEvidence]


class Evidence(Section):
    """All that calibrates the predictions of a run.

    Attributes:
        kind: segmentation.
        version: of this file.
        predictor: `members`: each case was segmented by the one fold that did not learn from it; `whole`: by all
            networks together.
        weights: digests of the networks, in the order of the members.
        settings: of inference, and of the pieces that are cleaned.
        drawn_from: where the cases come from, in words.
        images: names of the channels.
        volume_unit: ml, or voxels where the spacing is not known.
        failure_dice: a Dice below it is called a failure.
        cases: without names.
    """

    kind: Literal["segmentation"] = "segmentation"
    version: Literal[1] = 1
    predictor: Literal["members", "whole"]
    weights: tuple[str, ...]
    settings: dict[str, Any]
    drawn_from: str
    images: tuple[str, ...]
    volume_unit: Literal["ml", "voxels"]
    failure_dice: float
    cases: Annotated[tuple[CaseEvidence, ...], Field(min_length=1)]

    @property
    def subjects(self) -> int:
        """How many different ones there are."""
        return len({case.subject for case in self.cases})

    @property
    def digest(self) -> str:
        """Sixteen letters that tell evidence apart."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of labels, then of regions."""
        return tuple(self.cases[0].structures)


def save_evidence(evidence: Section, folder: Path) -> Path:
    """Write calibration.json into the folder of a run.

    Raises:
        DiskError: no space, or no permission.
    """
    write_json(folder / FILE, evidence.model_dump(mode="json"))
    return folder / FILE


def read_evidence(folder: Path) -> Evidence | None:
    """The evidence that a run keeps; None where it was not calibrated.

    Raises:
        RunError: the file is damaged, or of another version.
    """
    data = read_calibration(folder)
    if data is None:
        return None
    return checked(Evidence, data, folder)


def read_calibration(folder: Path) -> Mapping[str, Any] | None:
    """What calibration.json of a folder holds, of whichever kind; None where there is none.

    Raises:
        RunError: the file is damaged, or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {_again(folder)}") from error
    if version != VERSION:
        raise RunError(f"{path} is of version {version}, this segmed reads {VERSION}: {_again(folder)}")
    return data


def checked(schema: type[Kind], data: Mapping[str, Any], folder: Path) -> Kind:
    """The content of calibration.json as one of its kinds.

    Raises:
        RunError: it is damaged.
    """
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise RunError(f"{folder / FILE} is damaged at {where or 'its top'}: {_again(folder)}") from error


def _again(folder: Path) -> str:
    return f"calibrate anew with segmed calibrate --run {folder}, or remove it to predict without intervals"

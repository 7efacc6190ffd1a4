"""Runs -> one model file: weights, configs, plans, calibration, figures, card, and a checksum of each."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segmed.builders.ensembles import check_alike, members_of
from segmed.builders.model_file import BLOCK, CARD, FORMAT, INDEX, SUFFIX, digest_of
from segmed.config import SegmentationConfig, known
from segmed.config.classification import ClassificationConfig
from segmed.errors import ConfigError, DiskError, RunError
from segmed.export.card import Words, model_card
from segmed.export.handed_over import Config, hand_over, read_any
from segmed.files import atomic_path, atomic_write_text
from segmed.runs import runs_of

LONG_AGO = (1980, 1, 1, 0, 0, 0)  # of every file, so that equal models are equal files
DENSE = (".safetensors", ".onnx", ".bin")  # numbers, which do not shrink
Addition = Callable[[Path], list[str]]  # writes something into a run's new folder; lines of the card on it


def write_model(
    runs: Sequence[Path], output: Path, words: Words, *, with_cases: bool = False, add: Addition | None = None
) -> Path:
    """Write a model file; it is whole or not there.

    Args:
        runs: folders of runs or of cross-validations of one kind; several predict as one.
        output: the file, `NAME.segmed`.
        words: of the author, for the card.
        with_cases: keep the ids of the cases.
        add: what else is put into the folder of each run.

    Raises:
        RunError: no run, one without weights, runs of two kinds.
        ConfigError: another ending, runs that do not fit together.
        DiskError: no space.
    """
    check_name(output)
    with handed_over(runs, with_cases=with_cases) as (folder, copies):
        lines = list(dict.fromkeys(line for copy in copies for line in (add(copy) if add is not None else ())))
        card = model_card(output.stem, copies, words, engines=lines)
        atomic_write_text(folder / CARD, card)
        pack(folder, _about(folder, copies, output.stem, with_cases=with_cases), output)
    return output


def check_name(output: Path) -> None:
    """Refuse a file whose name does not say that it is a model.

    Raises:
        ConfigError: it ends otherwise.
    """
    if output.suffix != SUFFIX:
        raise ConfigError(f"--output {output} does not end in {SUFFIX}: name the file NAME{SUFFIX}")


def pack(folder: Path, about: Mapping[str, Any], output: Path) -> None:
    """Put all files of a folder into a model file.

    Args:
        folder: of the card and the runs.
        about: what `model.json` says beside the files, or an earlier one, whose files are listed anew.
        output: the file.

    Raises:
        DiskError: no space.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files
    }
    index = {**{key: value for key, value in about.items() if key != "digest"}, "files": listed}
    with atomic_path(output) as temporary:
        _zip(folder, {**index, "digest": digest_of(index)}, temporary)


@contextmanager
def handed_over(runs: Sequence[Path], *, with_cases: bool = False) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """A temporary folder with a copy of each run that holds nothing private.

    Yields:
        The folder, and those of the runs in it.

    Raises:
        RunError, ConfigError, DiskError: as in `write_model`.
    """
    _check(runs)
    try:
        with tempfile.TemporaryDirectory(prefix="segmed-export-") as name:
            folder = Path(name)
            copies = tuple(folder / "runs" / str(number) for number in range(1, len(runs) + 1))
            copies[0].parent.mkdir()
            for run, copy in zip(runs, copies, strict=True):
                hand_over(run, copy, with_cases=with_cases)
            yield folder, copies
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(error.errno, f"the model can't be put together ({error.strerror or error})") from error


def _check(runs: Sequence[Path]) -> None:
    """Runs that predict as one are of one kind and know the same.

    Raises:
        RunError, ConfigError: they don't.
    """
    configs = [read_any(runs_of(run)[0].path) for run in runs]
    if len({isinstance(config, SegmentationConfig) for config in configs}) > 1:
        raise RunError("some of these runs segment and some classify: export them into two files")
    if isinstance(configs[0], SegmentationConfig):
        check_alike([member for run in runs for member in members_of(run)])
        return
    sees = [
        (known(config.data.classes), config.image) for config in configs if isinstance(config, ClassificationConfig)
    ]
    for run, own in zip(runs, sees, strict=True):
        if own != sees[0]:
            raise ConfigError(f"runs {runs[0]} and {run} have different classes or images; an ensemble needs the same")


def _about(folder: Path, runs: Sequence[Path], name: str, *, with_cases: bool) -> dict[str, Any]:
    """What `model.json` says beside its files."""
    config = read_any(runs_of(runs[0])[0].path)
    return {
        "format": FORMAT,
        "segmed": version("segmed-mri"),
        "name": name,
        "exported": date.today().isoformat(),
        **_task(config),
        "cases": with_cases,
        "runs": [run.relative_to(folder).as_posix() for run in runs],
    }


def _task(config: Config) -> dict[str, Any]:
    if isinstance(config, SegmentationConfig):
        labels = list(known(config.data.labels))
        return {"task": "segmentation", "images": list(known(config.data.images)), "labels": labels}
    return {"task": "classification", "classes": list(known(config.data.classes))}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _zip(folder: Path, index: dict[str, Any], target: Path) -> None:
    """The files in the order of the index, which comes first, so that it is read at once over a network."""
    with zipfile.ZipFile(target, "w") as archive:
        text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
        archive.writestr(_member(INDEX), text.encode(), compresslevel=6)
        for name in index["files"]:
            member = _member(name)
            member.file_size = os.path.getsize(folder / name)
            with (folder / name).open("rb") as source, archive.open(member, "w") as sink:
                while block := source.read(BLOCK):
                    sink.write(block)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, LONG_AGO)
    member.compress_type = zipfile.ZIP_STORED if name.endswith(DENSE) else zipfile.ZIP_DEFLATED
    member.external_attr = 0o100644 << 16
    return member

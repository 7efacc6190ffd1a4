"""A model file, checked byte by byte and unpacked into run folders for as long as it is used.

A model file is a zip: `model.json` lists every other file with its size and checksum, `MODEL_CARD.md` says what the
model is, and each folder in `runs/` is shaped like that of a run. Nothing in it is executed: no pickle, no code.
"""

from __future__ import annotations

import hashlib
import json
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from segmed.builders.hub_files import local_model, on_hub, shown
from segmed.errors import DiskError, RunError

SUFFIX = ".segmed"
FORMAT = 1  # of what is written; a file of a higher one is of a newer version
INDEX, CARD = "model.json", "MODEL_CARD.md"
MOST_FILES = 10_000
INDEX_BYTES = 16 << 20
FREE_BYTES, FREE_RATIO = 1 << 20, 50  # a file of more than a megabyte that shrinks to less than a fiftieth is a bomb
BLOCK = 1 << 22
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Opened:
    """Folders of runs, some of them unpacked from model files.

    Attributes:
        folders: of the runs, in the order in which they were named.
        files: folder of a model's run -> its model file.
    """

    folders: tuple[Path, ...]
    files: Mapping[Path, Path]

    def origin(self, folder: Path) -> Path:
        """Where a run, or one inside a folder of runs, comes from: itself, or the model file."""
        return next((file for own, file in self.files.items() if folder.is_relative_to(own)), folder)

    def origin_name(self, folder: Path) -> str:
        """The same as text: a whole path, or `hf://OWNER/NAME/FILE`."""
        origin = self.origin(folder)
        return shown(origin) if on_hub(origin) else str(origin.absolute())

    @property
    def sources(self) -> tuple[Path, ...]:
        """The model files, each once."""
        return tuple(dict.fromkeys(self.files.values()))


@contextmanager
def opened(runs: Sequence[Path], models: Sequence[Path] = ()) -> Iterator[Opened]:
    """Folders of runs and those inside of model files, as long as the block lasts.

    Args:
        runs: folders.
        models: model files; each is checked as a whole and unpacked into a temporary folder.

    Raises:
        RunError: a file that was cut, changed, is none, or was made by a newer version.
        DiskError: no space to unpack it.
    """
    with ExitStack() as stack:
        folders, files = list(runs), dict[Path, Path]()
        for model in models:
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segmed-model-")))
            for run in unpack_model(model, temporary):
                folders.append(run)
                files[run] = model
        yield Opened(tuple(folders), files)


def unpack_model(model: Path, target: Path) -> tuple[Path, ...]:
    """Check a model file and unpack it into an empty folder.

    Returns:
        The folders of its runs.

    Raises:
        RunError, DiskError: as in `opened`.
    """
    with _archive(model) as archive:
        index = _index(archive, model)
        for name, facts in index["files"].items():
            _unpack(archive, name, facts, target, model)
    return tuple(target / run for run in index["runs"])


def read_index(model: Path) -> dict[str, Any]:
    """`model.json` of a model file, whose other files are listed there with sizes and checksums, and are not read.

    Raises:
        RunError: as in `opened`.
    """
    with _archive(model) as archive:
        return _index(archive, model)


def read_card(model: Path) -> str:
    """The model card of a model file, in Markdown.

    Raises:
        RunError: as in `opened`, or the card was changed.
    """
    with tempfile.TemporaryDirectory(prefix="segmed-model-") as folder, _archive(model) as archive:
        facts = _index(archive, model)["files"].get(CARD)
        if facts is None:
            raise RunError(f"{model} holds no {CARD}: export the run again")
        return _unpack(archive, CARD, facts, Path(folder), model).read_text(encoding="utf-8")


def digest_of(index: Mapping[str, Any]) -> str:
    """Checksum of `model.json` over everything in it but itself."""
    content = {key: value for key, value in index.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


# ---------------------------------------------------------------- the zip


@contextmanager
def _archive(model: Path) -> Iterator[zipfile.ZipFile]:
    model = local_model(model)
    if not model.is_file():
        what = "is a folder: give it as --run" if model.is_dir() else "is not there: check the path"
        raise RunError(f"model file {model} {what}")
    try:
        with zipfile.ZipFile(model) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise RunError(f"{model} is no whole model file ({error}): it was cut or changed, get it again") from error


def _index(archive: zipfile.ZipFile, model: Path) -> dict[str, Any]:
    """`model.json`, once every name and size of the archive is what it says."""
    members = archive.infolist()
    if INDEX not in archive.namelist():
        raise RunError(f"{model} is no model file: it holds no {INDEX}; make one with segmed export")
    if len(members) > MOST_FILES:
        raise RunError(f"{model} holds {len(members)} files, more than any model: not opened")
    for member in members:
        _check_member(member, model)
    if archive.getinfo(INDEX).file_size > INDEX_BYTES:
        raise RunError(f"{model}: {INDEX} is larger than any model's: not opened")
    index = _checked_index(archive.read(INDEX), model)
    sizes = {member.filename: member.file_size for member in members if member.filename != INDEX}
    if len(sizes) != len(members) - 1 or sizes != {name: facts["bytes"] for name, facts in index["files"].items()}:
        raise RunError(f"{model} was changed: its files are not those that {INDEX} lists; get it again")
    if sum(member.compress_size for member in members) > Path(str(archive.filename)).stat().st_size:
        raise RunError(f"{model} holds files that overlap: not opened")
    return index


def _check_member(member: zipfile.ZipInfo, model: Path) -> None:
    """Refuse what no model file holds: ways out of the folder, links, bombs, locked files."""
    name, path = member.filename, PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or str(path) != name:
        raise RunError(f"{model}: '{name}' would lie outside of the model's folder: not opened")
    if kind not in (0, stat.S_IFREG) or member.flag_bits & 1 or member.compress_type not in KINDS:
        raise RunError(f"{model}: '{name}' is no plain file, which no model needs: not opened")
    if member.file_size > FREE_BYTES and member.file_size > FREE_RATIO * member.compress_size:
        raise RunError(f"{model}: '{name}' would unpack to {member.file_size} bytes: not opened")


def _checked_index(content: bytes, model: Path) -> dict[str, Any]:
    """The index, of a version that is known and as it was written."""
    try:
        index = json.loads(content)
        version = index["format"]
        if type(version) is int and version > FORMAT:
            newer = f"segmed {index.get('segmed')}, model format {version}; here {FORMAT} is the latest"
            raise RunError(f"{model} was made by a newer version ({newer}): pip install -U segmed-mri")
        for facts in index["files"].values():
            int(facts["bytes"]), str(facts["sha256"])
        well = index["digest"] == digest_of(index) and isinstance(index["runs"], list)
        well = well and all(any(name.startswith(f"{run}/") for name in index["files"]) for run in index["runs"])
    except RunError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{model} is damaged: {INDEX} can't be read; get it again") from error
    if not well:
        raise RunError(f"{model} was changed: {INDEX} is not what was written; get it again")
    return dict(index)


def _unpack(archive: zipfile.ZipFile, name: str, facts: Mapping[str, Any], target: Path, model: Path) -> Path:
    """One file, as many bytes as are listed and not one more."""
    path = target / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, path.open("xb") as sink:
            checksum = _copied(source, sink, int(facts["bytes"]))
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(
            error.errno, f"{model} can't be unpacked to {target} ({error.strerror}): free some space"
        ) from (error)
    if checksum != facts["sha256"]:
        raise RunError(f"{model} was changed: '{name}' is not what was exported (checksum); get it again")
    return path


def _copied(source: IO[bytes], sink: IO[bytes], size: int) -> str:
    """Copy at most so many bytes; their SHA-256."""
    checksum, left = hashlib.sha256(), size
    while left > 0 and (block := source.read(min(BLOCK, left))):
        checksum.update(block)
        sink.write(block)
        left -= len(block)
    return checksum.hexdigest()

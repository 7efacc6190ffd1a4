"""Model files on the Hugging Face hub: fetched where one is named `hf://OWNER/NAME/FILE`, put there by export."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from segmed.errors import RunError

SCHEME = "hf:"
REPOSITORY = re.compile(r"\b[\w.-]+\b/\b[\w.-]+\b", re.ASCII)  # no part begins or ends with a point or a dash


def on_hub(path: Path) -> bool:
    """Whether a path is `hf://OWNER/NAME/FILE`."""
    return path.parts[:1] == (SCHEME,)


def is_model(path: Path) -> bool:
    """Whether a path names a model file, of this machine or of the hub, and no folder."""
    return path.is_file() or on_hub(path)


def local_model(model: Path) -> Path:
    """The model file on this machine; one on the hub is fetched into the hub's own cache, once for each version.

    Args:
        model: a path, or `hf://OWNER/NAME/FILE`; `hf://OWNER/NAME@REVISION/FILE` is of a branch, a tag or a commit.

    Raises:
        RunError: no such file on the hub, no network, or huggingface-hub is not installed.
    """
    if not on_hub(model):
        return model
    _, owner, named, *inside = model.parts if len(model.parts) > 3 else (SCHEME, "", "")
    name, _, revision = named.partition("@")
    if not inside or ".." in (owner, name, revision, *inside):
        raise RunError(f"{shown(model)} names no file on the hub: write hf://OWNER/NAME/FILE")
    hub = _hub()
    with _one_line(f"{shown(model)} can't be fetched"):
        return Path(hub.hf_hub_download(f"{owner}/{name}", "/".join(inside), revision=revision or None))


def put_on_hub(file: Path, repository: str) -> str:
    """Put a file into a repository of models, which is made where it is new, for its owner's eyes alone.

    Args:
        file: of this machine.
        repository: OWNER/NAME.

    Returns:
        How the file is named from now on, `hf://OWNER/NAME/FILE`.

    Raises:
        RunError: no permission, no network, or huggingface-hub is not installed.
    """
    check_hub(repository)
    interface = _hub().HfApi()
    with _one_line(f"{file} can't be put into {repository}"):
        interface.create_repo(repository, private=True, exist_ok=True)
        interface.upload_file(path_or_fileobj=file, path_in_repo=file.name, repo_id=repository)
    return f"hf://{repository}/{file.name}"


def check_hub(repository: str) -> None:
    """See that a file could be put there, before one is made.

    Raises:
        RunError: no name of a repository, or huggingface-hub is not installed.
    """
    if not REPOSITORY.fullmatch(repository):
        raise RunError(f"--hub {repository} is no repository: write OWNER/NAME")
    _hub()


def shown(model: Path) -> str:
    """The name of a model file as it was written: paths have lost a stroke of `hf://`."""
    return str(model).replace(f"{SCHEME}/", f"{SCHEME}//", 1) if on_hub(model) else str(model)


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise RunError('files on the hub need huggingface-hub: pip install "segmed-mri[hub]"') from error
    return huggingface_hub


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """What goes wrong between here and the hub, in a line: its errors are many, and of several libraries."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"{what} ({reason}): check the name and the network; private files need hf auth login"
        ) from error

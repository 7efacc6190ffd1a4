"""Published weights of classification networks: fetched, checked, read, and put in."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segmed.data.transfer import Report, fetch, forget, held
from segmed.errors import DownloadError, NetworkError
from segmed.files import disk_errors
from segmed.networks.classifiers import ClassificationModel
from segmed.networks.published_names import own_names
from segmed.networks.weight_transfer import Grey, Transfer, adopt

log = logging.getLogger(__name__)

NESTED = ("state_dict", "model", "model_state_dict")  # where checkpoints of others keep their weights


@dataclass(frozen=True)
class Published:
    """A file of weights on a server.

    Attributes:
        url: http or https address.
        sha256: its checksum, or the first letters of it.
    """

    url: str
    sha256: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]


def _published(url: str) -> Published:
    """As torch.hub names files: the name ends with the first letters of its checksum."""
    return Published(url, url.rsplit("-", 1)[-1].removesuffix(".pth"))


_TORCHVISION = "https://download.pytorch.org/models"
_EFFICIENTNET = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0"
# All trained on ImageNet's 1000 classes of photographs.
HUB: Mapping[str, Published] = {
    "resnet18": _published(f"{_TORCHVISION}/resnet18-f37072fd.pth"),
    "resnet34": _published(f"{_TORCHVISION}/resnet34-b627a593.pth"),
    "resnet50": _published(f"{_TORCHVISION}/resnet50-0676ba61.pth"),
    "densenet121": _published(f"{_TORCHVISION}/densenet121-a639ec97.pth"),
    "efficientnet_b0": _published(f"{_EFFICIENTNET}/efficientnet-b0-355c32eb.pth"),
    "efficientnet_b1": _published(f"{_EFFICIENTNET}/efficientnet-b1-f1951068.pth"),
    "efficientnet_b2": _published(f"{_EFFICIENTNET}/efficientnet-b2-8bb594d6.pth"),
    "efficientnet_b3": _published(f"{_EFFICIENTNET}/efficientnet-b3-5fb5a3c3.pth"),
    "efficientnet_b4": _published(f"{_EFFICIENTNET}/efficientnet-b4-6ed6700e.pth"),
    "vit": _published(f"{_TORCHVISION}/vit_b_16-c867db91.pth"),
    "inception": _published(f"{_TORCHVISION}/inception_v3_google-0cc3c7bd.pth"),
    "alexnet": _published(f"{_TORCHVISION}/alexnet-owt-7be5be79.pth"),
    "vgg16": _published(f"{_TORCHVISION}/vgg16-397923af.pth"),
}


def load_pretrained(
    network: ClassificationModel,
    name: str,
    source: Path | Literal["hub", "hub_or_random"],
    *,
    folder: Path,
    grey: Grey = "sum",
) -> Transfer:
    """Start a network with published weights; in 3D, 2D kernels are inflated.

    What was taken and what was left is logged by name.

    Args:
        network: is changed.
        name: of its architecture.
        source: a file, or `hub` (and `hub_or_random`, which is for the caller to tell apart) for the published one.
        folder: where fetched files are kept for the next time.
        grey: what becomes of a first convolution over three colours, see `adopt`.

    Raises:
        NetworkError: the weights can't be had or read, or none fits.
    """
    if isinstance(source, str):
        if name not in HUB:
            raise NetworkError(f"no weights of '{name}' are published: give a file, or one of {', '.join(HUB)}")
        source = fetch_weights(HUB[name], folder)
    weights = own_names(name, read_published(source), network)
    try:
        transfer = adopt(weights, network, grey=grey)
    except NetworkError as error:
        raise NetworkError(f"weights {source} for {name}: {error}") from error
    log.info("%s starts with %s: %s", name, source, transfer)
    return transfer


def fetch_weights(
    published: Published,
    folder: Path,
    *,
    attempts: int = 5,
    wait_s: float = 1.0,
    report: Report = lambda stage, done, total: None,
) -> Path:
    """The file in `folder`, downloaded where it is missing; an interrupted download is continued.

    Args:
        published: the file and its checksum.
        folder: where it is kept.
        attempts: connections in a row that may fail without a byte gained.
        wait_s: pause after the first of them; it doubles up to half a minute.
        report: called with what is done, and the bytes done and in all.

    Raises:
        NetworkError: no network, not on the server, or a wrong checksum.
        DiskError: no space, or no permission.
    """
    target = folder / published.file
    if target.is_file():
        _check(target, published, remedy="remove it, and it is fetched again")
        return target
    part = target.with_name(target.name + ".part")
    try:
        with disk_errors(target):
            folder.mkdir(parents=True, exist_ok=True)
            with held(part) as stream:
                fetch(published.url, part, stream, attempts=attempts, wait_s=wait_s, report=report)
                try:
                    _check(part, published, remedy="it was removed, run again")
                except NetworkError:
                    forget(part)
                    raise
                os.replace(part, target)
                forget(part)
    except DownloadError as error:
        reason = str(error).rpartition(": ")[0]  # its advice is that of the tool that fetches data sets
        raise NetworkError(f"{reason}: run again, or fetch it yourself and give the file as `pretrained`") from error
    return target


def _check(path: Path, published: Published, *, remedy: str) -> None:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(published.sha256):
        raise NetworkError(f"{path}: checksum {digest[:8]} instead of the published {published.sha256[:8]}: {remedy}")


def read_published(path: Path) -> dict[str, Tensor]:
    """Weights by name from a file of safetensors or of torch. Code in the file is never run.

    Raises:
        NetworkError: the file is missing, damaged, or holds more than tensors, numbers and text.
    """
    if not path.is_file():
        raise NetworkError(f"weights {path} are not there: correct the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # torch's words about pickles of others: the error says it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NetworkError(
            f"weights {path} hold more than tensors, numbers and text, or are damaged: they were not opened"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError) as error:
        raise NetworkError(f"weights {path} are damaged or no file of weights: copy them again") from error
    while isinstance(content, dict) and (inner := next((key for key in NESTED if key in content), None)):
        content = content[inner]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise NetworkError(f"weights {path} hold no tensors by name: give a state dict")
    return tensors

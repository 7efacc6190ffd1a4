"""Weights and checkpoints on disk: written whole or not at all, read without running code, checked to fit."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from segmed.errors import RunError
from segmed.files import atomic_path, sweep
from segmed.training.ranks import Ranks

FORMAT = 1
METADATA = "segmed"  # key of the text beside the weights


# ---------------------------------------------------------------- networks


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each tensor once even where a network registers it under several names."""
    seen: dict[tuple[int, int, torch.Size], str] = {}
    unique = {}
    for name, tensor in network.state_dict().items():
        place = (tensor.data_ptr(), tensor.storage_offset(), tensor.shape)
        if tensor.numel() and seen.setdefault(place, name) != name:
            continue
        unique[name] = tensor
    return unique


def fingerprint(network: nn.Module) -> str:
    """Sixteen letters that are equal for two networks exactly if their weights have the same names and shapes."""
    text = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(weights_of(network).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_finite(state: Any) -> bool:
    """Whether no tensor of a tree (weights, averages, moments of an optimiser) holds NaN or infinity."""
    floats = [tensor.detach() for tensor in _tensors(state) if tensor.is_floating_point() and tensor.numel()]
    if not floats:
        return True
    norms = [norm.to(floats[0].device) for norm in torch._foreach_norm(floats)]
    return bool(torch.stack(norms).isfinite().all())


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _tensors(value)


def check_same_network(own: Mapping[str, Tensor], other: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse weights of another network.

    Raises:
        RunError: naming the first name or shape that differs.
    """
    for name in [*own, *sorted(name for name in other if name not in own)]:
        here, there = own.get(name), other.get(name)
        if here is None or there is None or here.shape != there.shape:
            shapes = ["missing" if t is None else str(tuple(t.shape)) for t in (there, here)]
            differing = sum(n not in own or n not in other or own[n].shape != other[n].shape for n in {*own, *other})
            raise RunError(
                f"{where} holds another network: {name} is {shapes[0]} there and {shapes[1]} here"
                f" ({differing} of {len({*own, *other})} weights differ); use the config of the run that wrote it"
            )


def save_weights(path: Path, network: nn.Module, metadata: Mapping[str, object]) -> None:
    """Write weights and buffers as safetensors, with metadata as text beside them.

    Raises:
        DiskError: no space, or no permission.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights_of(network).items()}
    text = {key: str(value) for key, value in {**metadata, "fingerprint": fingerprint(network)}.items()}
    one = {METADATA: json.dumps(text, sort_keys=True)}  # safetensors shuffles several: equal weights, equal bytes
    content = to_safetensors(tensors, metadata=one)
    _write(path, lambda file: file.write(content))


def check_weights(path: Path, network: nn.Module) -> None:
    """See that a file holds the weights of a network before that takes memory.

    Args:
        path: of safetensors.
        network: on the device `meta`, built from a config that may be a stranger's.

    Raises:
        RunError: the file is missing, damaged, or of another network.
    """
    read_metadata(path)
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no dict)
    stored = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    own = network.state_dict()
    absent = {name: tensor for name, tensor in own.items() if name not in stored}  # a tensor of two names stands once
    if sum(tensor.numel() for tensor in absent.values()) <= sum(tensor.numel() for tensor in stored.values()):
        own = {name: tensor for name, tensor in own.items() if name not in absent}
    check_same_network(own, stored, where=str(path))


@torch.no_grad()
def load_weights(path: Path, network: nn.Module) -> dict[str, str]:
    """Read weights into a network of the same names and shapes; return the metadata.

    Raises:
        RunError: the file is missing, damaged, or of another network.
    """
    metadata = read_metadata(path)
    stored, own = load_file(path), weights_of(network)
    check_same_network(own, stored, where=str(path))
    for name, tensor in own.items():
        tensor.copy_(stored[name])
    return metadata


def read_weights(path: Path) -> dict[str, Tensor]:
    """All weights of a file by name, of whatever network.

    Raises:
        RunError: the file is missing or damaged.
    """
    read_metadata(path)
    return load_file(path)


def read_metadata(path: Path) -> dict[str, str]:
    """The text beside the weights; no weights are read.

    Raises:
        RunError: the file is missing or damaged.
    """
    if not Path(path).is_file():
        raise RunError(f"weights {path} are not there: train first, or name another run")
    try:
        with safe_open(path, framework="pt") as file:
            text = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            return {str(key): str(value) for key, value in dict(text).items()}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise RunError(f"weights {path} are damaged or no safetensors ({error}): copy them again") from error


# ---------------------------------------------------------------- the rest of the state


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a tree of tensors, numbers and text; the file that was there stays until the new one is complete.

    Raises:
        DiskError: no space, or no permission.
    """

    def write(file: BinaryIO) -> None:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # torch hides the full disk behind its own error
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    _write(path, write)


def load_state(path: Path, *, lazy: bool = False) -> dict[str, Any]:
    """Read what `save_state` wrote. Code in the file is never run.

    Args:
        path: the file.
        lazy: leave tensors on disk until they are used.

    Raises:
        RunError: the file is missing, damaged, or holds more than tensors, numbers and text.
    """
    if not path.is_file():
        raise RunError(f"checkpoint {path} is not there: nothing to go on from, start the run anew")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's words about pickles of others: the error says it
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=lazy)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"checkpoint {path} holds more than tensors, numbers and text, or is damaged: it was not opened"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError) as error:
        raise RunError(f"checkpoint {path} is damaged or was not written by segmed: it was not read") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(f"checkpoint {path} was not written by this version of segmed: start the run anew")
    return state


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


class Checkpoints:
    """The files of a run that training writes and goes on from.

    Args:
        folder: of the run.
        ranks: the processes that train; the leading one writes.
        metadata: text kept beside the weights, e.g. the network's name and the labels.
    """

    def __init__(self, folder: Path, *, ranks: Ranks, metadata: Mapping[str, object] | None = None) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "checkpoint.pt"
        self.ranks = ranks
        self.metadata = dict(metadata or {})
        if ranks.leads:
            self._remove_torn_files()

    def _remove_torn_files(self) -> None:
        """Temporary files that a killed process left."""
        for folder in (self.folder, self.folder / "weights"):
            for path in folder.glob(".*.*") if folder.is_dir() else ():
                if re.fullmatch(r"\.\d+\.(checkpoint\.pt|\w+\.safetensors)", path.name):  # of earlier versions
                    path.unlink(missing_ok=True)
            sweep(folder)

    def weights(self, which: str) -> Path:
        """Path of the `best` or `last` weights."""
        return self.folder / "weights" / f"{which}.safetensors"

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint; random states of all processes go into it."""
        random = self.ranks.gather(random_state())
        content = {"format": FORMAT, "random": random, **state}
        self.ranks.lead(lambda: save_state(self.path, content))

    def load(self) -> dict[str, Any]:
        """Read the checkpoint."""
        return load_state(self.path)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within the block a checkpoint is taken over; what is missing, unknown or null in it is named.

        Raises:
            RunError: it is of another version or damaged.
        """
        try:
            yield
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            words = " ".join(str(error).split())[:200]
            raise RunError(
                f"checkpoint {self.path} does not fit this version of segmed, or is damaged ({words}): go on with the "
                "version that wrote it, or start the run anew"
            ) from error

    def last_step(self) -> int:
        """Step of the checkpoint; 0 where there is none yet."""
        if not self.path.is_file():
            return 0
        with self.reading():
            return int(load_state(self.path, lazy=True)["fit"]["step"])

    def save_weights(self, which: str, network: nn.Module, **metadata: object) -> None:
        """Write the `best` or `last` weights."""
        self.ranks.lead(lambda: save_weights(self.weights(which), network, {**self.metadata, **metadata}))


def random_state() -> dict[str, Tensor]:
    """State of torch's generators (dropout draws from them)."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: Mapping[str, Tensor]) -> None:
    """Put torch's generators back to `random_state`."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])

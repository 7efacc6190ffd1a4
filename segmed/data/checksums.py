"""Arrays on disk with their size and two checksums, one of samples and one of every byte, so that damage is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from isal import isal_zlib

SAMPLES, SAMPLE_BYTES = 8, 4096  # what a data worker checks of an array that the run has checked as a whole
BLOCK = 1 << 22


def write_array(path: Path, array: np.ndarray) -> dict[str, int]:
    """Write a .npy file and return its size and its checksums, of samples and of the whole file."""
    array = np.ascontiguousarray(array)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "checksum": _sampled_checksum(path), "whole": whole_checksum(path)}


def digest(content: Any) -> str:
    """A hash of 40 characters of anything that JSON can hold."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=20).hexdigest()


def whole_checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            value = isal_zlib.crc32(block, value)
    return value


def is_intact(folder: Path) -> bool:
    """Whether every byte of an entry is as it was written; False for entries of versions without this checksum."""
    try:
        entry = json.loads((folder / "entry.json").read_bytes())
        stated = entry.pop("digest")
        arrays = entry["arrays"].items()
        return stated == digest(entry) and all(
            whole_checksum(folder / f"{name}.npy") == check["whole"] for name, check in arrays
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _sampled_checksum(path: Path) -> int:
    """CRC-32 of eight samples from start to end: reading 32 kB reveals truncated, emptied and overwritten files."""
    value = 0
    with open(path, "rb", buffering=0) as file:
        last = max(0, os.fstat(file.fileno()).st_size - SAMPLE_BYTES)
        for sample in range(SAMPLES):
            file.seek(last * sample // (SAMPLES - 1))
            value = zlib.crc32(file.read(SAMPLE_BYTES), value)
    return value


def map_array(path: Path, check: dict[str, int]) -> np.ndarray:
    """Map a .npy file read only, after a look at samples of it."""
    if path.stat().st_size != check["bytes"] or _sampled_checksum(path) != check["checksum"]:
        raise ValueError(f"{path} is damaged")
    return map_intact(path, check)


def map_intact(path: Path, check: dict[str, int]) -> np.ndarray:
    """Map a .npy file read only. Torch's mapping needs no open file, so thousands of cases can stay mapped."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    whole = torch.from_file(str(path), shared=False, size=check["bytes"], dtype=torch.uint8).numpy()
    array = whole[offset:].view(dtype).reshape(shape)
    array.flags.writeable = False
    return array

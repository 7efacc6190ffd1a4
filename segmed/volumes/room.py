"""The size of a volume by its header, compared with free memory: too large a volume is refused before it is read."""

from __future__ import annotations

from pathlib import Path

from segmed.errors import NoRoomError
from segmed.machine import GIB, free_ram_bytes

RESULT_BYTES = 4  # of a voxel as it is given back: float32


def check_room(path: Path, voxels: int, bytes_each: int) -> None:
    """Refuse a volume or a picture that does not fit into free memory, as stored and as float32 beside it.

    Args:
        path: of the file, for the error.
        voxels: their number, all components counted.
        bytes_each: of a voxel as it is stored.

    Raises:
        NoRoomError: it does not.
    """
    needed, free = voxels * (bytes_each + RESULT_BYTES), free_ram_bytes()
    if needed > free:
        raise NoRoomError(
            f"{path} needs {needed / GIB:.1f} GiB of memory by its header, {free / GIB:.1f} GiB are free: crop it, or "
            "use a larger machine"
        )

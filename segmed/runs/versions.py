"""What a run was computed with: versions, machine, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Versions of what computes, the machine, and the commit, for the run's record."""
    packages = ("segmed-mri", "torch", "monai", "torchio", "lightning-fabric", "numpy", "scipy", "nibabel", "SimpleITK")
    versions = {}
    for package in packages:
        try:
            versions[package.removesuffix("-mri")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": sys.argv,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of a source checkout, marked where it has changes; none for an installed package."""
    folder = Path(__file__).resolve().parent
    try:
        description = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder, capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return description.stdout.strip() or None

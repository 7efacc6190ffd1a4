"""The configs that come with segmed, by name: `hippocampus` is configs/seg/hippocampus.yaml."""

from __future__ import annotations

from pathlib import Path

from segmed.errors import ConfigError, nearest

PACKAGE = Path(__file__).resolve().parents[1]
MODELINE = "# yaml-language-server:"  # tells an editor which schema the file has


def shipped_configs() -> dict[str, Path]:
    """Name -> file, in the order of folders and names; inside an installed package, beside that of a checkout."""
    installed = PACKAGE / "configs"
    folder = installed if installed.is_dir() else PACKAGE.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*/*.yaml"))}


def find_config(given: Path | str) -> Path:
    """A file where there is one, else the shipped config of this name.

    Raises:
        ConfigError: a bare word that is neither.
    """
    path = Path(given)
    if path.is_file() or path.suffix or len(path.parts) != 1:
        return path
    shipped = shipped_configs()
    if path.name not in shipped:
        near = nearest(path.name, shipped, cutoff=0.5)
        hint = f"did you mean '{near}'" if near else "`segmed configs` lists those that are shipped"
        raise ConfigError(f"cannot read config {path}: no such file, and no shipped config has this name, {hint}")
    return shipped[path.name]


def first_comment(path: Path) -> str:
    """The description of a config: its first comment line that is not for an editor."""
    with path.open(encoding="utf-8") as file:
        lines = (line.strip() for line in file)
        return next((line[1:].strip() for line in lines if line[:1] == "#" and not line.startswith(MODELINE)), "")

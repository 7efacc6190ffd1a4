"""Templates and a folder's files -> a page that holds all it shows and loads nothing."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from segmed.errors import RunError
from segmed.files import atomic_write_text

PAGE_DPI = 96


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("segmed.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Write a page.

    Args:
        path: of the page.
        template: name of a file in `templates`.
        content: what it shows; names and texts are escaped there.

    Raises:
        DiskError: the folder can't be written.
    """
    atomic_write_text(path, render_page(template, **content))
    return path


def render_page(template: str, **content: Any) -> str:
    """A page as text, of what `write_page` takes."""
    return _templates().get_template(template).render(**content)


def origin_line(about: Mapping[str, Any]) -> str:
    """Of what a page tells: files, version and time.

    Args:
        about: `image`, `labels` and `run` as paths, `versions`, `started`; what is missing is left out.
    """
    files = [f"{what} {Path(str(about[what])).name}" for what in ("image", "labels", "run") if about.get(what)]
    version = (about.get("versions") or {}).get("segmed")
    written = [f"segmed {version}"] if version else []
    written += [str(about["started"])[:16].replace("T", " ")] if "started" in about else []
    return " · ".join([*files, *written])


@dataclass(frozen=True)
class Picture:
    """A picture that lies within the page.

    Attributes:
        png: its bytes.
        caption: below it, and in its place for those who do not see it.
    """

    png: bytes
    caption: str

    @property
    def source(self) -> str:
        """The picture as an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"

    @property
    def width(self) -> int:
        """Of the picture on a screen, where its letters are as large as they were drawn: 96 pixels an inch."""
        with Image.open(io.BytesIO(self.png)) as image:
            dots_an_inch = image.info.get("dpi", (PAGE_DPI,))[0]
            return round(image.width * PAGE_DPI / dots_an_inch)


def pictures_in(folder: Path, captions: Mapping[str, str]) -> list[Picture]:
    """The PNG files of a folder that have a caption, by the stems of their names, in this order."""
    paths = {folder / f"{stem}.png": caption for stem, caption in captions.items()}
    return [Picture(path.read_bytes(), caption) for path, caption in paths.items() if path.is_file()]


# ---------------------------------------------------------------- a run's folder


def run_files(folder: Path, *, what: str = "cases") -> dict[str, Any]:
    """What a page says of a run: its parts, start and device, config, plan and versions, as far as its files say them.

    Args:
        folder: of the run.
        what: that is counted in its parts.

    Raises:
        RunError: a file is damaged.
    """
    environment = read_json(folder / "environment.json") or {}
    split = read_json(folder / "split.json") or {}
    plan = read_json(folder / "plan.json") or {}
    config = read_text(folder / "config.yaml")
    versions = environment.pop("versions", {})
    known = [(name, value) for name, value in environment.items() if not isinstance(value, (dict, list))]
    return {
        "facts": [fact for fact in (_data_fact(config), _split_fact(split, what), _run_fact(environment)) if fact],
        "config": config,
        "plan": list((plan.get("reasons") or {}).items()),
        "network": plan.get("network"),
        "environment": [*known, *versions.items()],
    }


def _data_fact(config: str | None) -> tuple[str, str] | None:
    """The folder and the layout of the data."""
    try:
        data = (yaml.safe_load(config or "") or {}).get("data") or {}
        layout = (data.get("layout") or {}).get("name")
    except (yaml.YAMLError, AttributeError):
        return None
    known = [str(data["root"])] if "root" in data else []
    return ("data", ", ".join([*known, *([f"layout {layout}"] if layout else [])])) if known else None


def _split_fact(split: Mapping[str, Any], what: str) -> tuple[str, str] | None:
    """How many train, select and test."""
    parts = {"train": "training", "validation": "validation", "test": "test"}
    counts = [f"{len(split[part])} {text}" for part, text in parts.items() if part in split]
    return ("split", f"{what}: {', '.join(counts)}") if counts else None


def _run_fact(environment: Mapping[str, Any]) -> tuple[str, str] | None:
    """When and where it ran."""
    facts = [f"started {str(environment['started'])[:16].replace('T', ' ')}"] if "started" in environment else []
    facts += [str(environment["device"])] if "device" in environment else []
    return ("run", ", ".join(facts)) if facts else None


def read_text(path: Path) -> str | None:
    """A file's text; None where there is no file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def read_json(path: Path) -> dict[str, Any] | None:
    """A file's table; None where there is no file.

    Raises:
        RunError: it is damaged.
    """
    text = read_text(path)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): evaluate again") from error
    if not isinstance(data, dict):
        raise RunError(f"{path} holds no table of figures: evaluate again")
    return data

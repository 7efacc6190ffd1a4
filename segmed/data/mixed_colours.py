"""Grey pictures beside coloured ones: their channels mean different things."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monai.data import MetaTensor

from segmed.data.case import Case
from segmed.data.findings import Finding


def is_coloured(case: Case, images: Mapping[str, MetaTensor]) -> bool | None:
    """Whether the colours of any picture of a case differ; None where no picture is split into its three."""
    pictures: dict[Path, list[MetaTensor]] = {}
    for name, volume in images.items():
        if case.images[name].colours:
            pictures.setdefault(case.images[name].path, []).append(volume)
    split = [channels for channels in pictures.values() if len(channels) > 1]
    return any(not bool((c == channels[0]).all()) for channels in split for c in channels) if split else None


def mixed_colours(coloured: Mapping[str, bool | None]) -> list[Finding]:
    """Grey pictures beside coloured ones, whose channels then mean different things.

    Args:
        coloured: case -> whether its colours differ; None: not read apart.
    """
    grey = [case for case, has_colours in coloured.items() if has_colours is False]
    others = sum(has_colours is True for has_colours in coloured.values())
    what = f"is grey beside {others} coloured cases"
    fix = "take it out, or set data.colours to grey"
    return [Finding("error", case, what, fix, "colours") for case in grey] if others else []

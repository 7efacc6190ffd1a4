"""The settings with which a set's campaign began: every later call has the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.campaign.contenders import OPTIONS, OURS
from benchmarks.processes import PeerError
from segmed.files import write_json
from segmed.runs import Run, read_config

SETTINGS = "settings.json"  # in the folder of a set
WAY_OUT = "give another --output, or the same settings"


def check_settings(place: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that holds a campaign with other settings; where it has no note, what its turns say counts.

    Args:
        place: folder of a set.
        settings: the data folder, folds, minutes, threads and seed.

    Raises:
        PeerError: they differ, each with both values.
    """
    if has_note(place):
        found = [json.loads((place / SETTINGS).read_text(encoding="utf-8"))]
    else:
        found = list(_of_turns(place, settings["folds"]))
    other = {
        key: f"{key} {there[key]} there, {now} now"
        for key, now in settings.items()
        for there in found
        if there.get(key, now) != now
    }
    if other:
        raise PeerError(f"{place} holds a campaign with other settings ({'; '.join(other.values())}): {WAY_OUT}")


def has_note(place: Path) -> bool:
    """Whether a set's folder says with which settings its campaign began."""
    return (place / SETTINGS).is_file()


def keep_settings(place: Path, settings: Mapping[str, Any]) -> None:
    """Write down with which settings a set's campaign begins; the first note stays."""
    if not has_note(place):
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / SETTINGS, settings)


def _of_turns(place: Path, folds: int) -> Iterator[dict[str, Any]]:
    """What each turn and each run of segmed in a set's folder began with, as far as they say."""
    for folder in place.glob("fold_*"):
        number = int(folder.name.removeprefix("fold_"))
        if number >= folds:
            yield {"folds": f"{number + 1} or more"}
    for file in sorted(place.glob(f"fold_*/*/{OPTIONS}")):
        options = json.loads(file.read_text(encoding="utf-8"))
        yield {key: options[key] for key in ("minutes", "threads", "seed") if key in options}
    for who in OURS:
        for file in sorted(place.glob(f"fold_*/{who}/run/config.yaml")):
            config = read_config(Run(file.parent))
            yield {
                "data": str(config.data.root.resolve()), "folds": config.split.folds,
                "minutes": config.train.budget_minutes, "seed": config.seed,
            }  # fmt: skip

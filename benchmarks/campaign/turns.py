"""Every contender's turn on every fold of a set, each kept when it is over."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.campaign.contenders import OURS, SETS, Turn, done, run_recipe, run_segmed
from benchmarks.campaign.fold_files import DATASET, PARTS_FILE, check_parts, collect, prepared_fold, write_fold
from benchmarks.campaign.kept_settings import check_settings, has_note, keep_settings
from benchmarks.processes import ROOT
from segmed.config import SegmentationConfig
from segmed.config.reading import load_yaml, validate
from segmed.data.cases import cases_of
from segmed.files import write_json
from segmed.segment.prepare import Prepared
from segmed.volumes import read_label_volume, write_volume


class Campaign(Protocol):
    """What the command line says that a turn needs."""

    @property
    def output(self) -> Path: ...
    @property
    def contenders(self) -> Sequence[str]: ...
    @property
    def folds(self) -> int: ...
    @property
    def first_folds(self) -> int | None: ...
    @property
    def minutes(self) -> float | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def nnunet_python(self) -> Path | None: ...


def take_turns(name: str, root: Path, campaign: Campaign, *, threads: int) -> None:
    """Train and predict what is not done yet of one set.

    Args:
        name: of the set.
        root: its folder.
        campaign: what the user asked for.
        threads: of every contender.

    Raises:
        PeerError: the folder holds a campaign with other settings; or a contender failed: what is over is kept.
    """
    check_begun(name, root, campaign, threads=threads)
    data, config = SETS[name], _config_of(name, root)
    place = campaign.output.absolute() / name
    for fold in range(campaign.first_folds or campaign.folds):
        waiting = [who for who in campaign.contenders if done(place / f"fold_{fold}" / who) is None]
        if not waiting:
            continue
        ready = prepared_fold(config, folds=campaign.folds, fold=fold)
        keep_settings(place, _settings(name, root, campaign, threads))
        files = write_fold(place / f"fold_{fold}", ready)
        _write_references(place / "references", ready)
        for who in waiting:
            turn = Turn(
                place / f"fold_{fold}" / who, files, data, campaign.minutes or data.minutes, threads, campaign.seed
            )
            facts = _take(who, turn, root, ready, campaign, fold)
            write_json(turn.folder / "done.json", facts)
            print(f"  fold {fold}, {who}: {facts['minutes']:.1f} min, {facts['steps']} steps", flush=True)


def check_begun(name: str, root: Path, campaign: Campaign, *, threads: int) -> None:
    """See that what lies in a set's folder was made with the same settings; arguments as of `take_turns`.

    A folder of an earlier version has no note of them: its folds are drawn again and compared, and it gets one.

    Raises:
        PeerError: it was made with others.
    """
    place, settings = campaign.output.absolute() / name, _settings(name, root, campaign, threads)
    check_settings(place, settings)
    files = [] if has_note(place) else sorted(place.glob(f"fold_*/{DATASET}/{PARTS_FILE}"))
    for file in files:
        fold = int(file.parents[1].name.removeprefix("fold_"))
        check_parts(file.parent, prepared_fold(_config_of(name, root), folds=campaign.folds, fold=fold))
    if files:
        keep_settings(place, settings)


def _settings(name: str, root: Path, campaign: Campaign, threads: int) -> dict[str, Any]:
    minutes = campaign.minutes or SETS[name].minutes
    return {
        "data": str(root.resolve()), "folds": campaign.folds, "minutes": minutes, "threads": threads,
        "seed": campaign.seed,
    }  # fmt: skip


def _config_of(name: str, root: Path) -> SegmentationConfig:
    where = SETS[name].config
    config = validate(SegmentationConfig, load_yaml(ROOT / where), where=where)
    return config.model_copy(update={"data": config.data.model_copy(update={"root": root.absolute()})})


def _take(who: str, turn: Turn, root: Path, ready: Prepared, campaign: Campaign, fold: int) -> dict[str, Any]:
    target = turn.folder.parents[1] / "predictions" / who
    if who in OURS:
        facts = run_segmed(turn, root.absolute(), folds=campaign.folds, fold=fold)
        target.mkdir(parents=True, exist_ok=True)
        for case in ready.split.test:
            file = turn.folder / "run" / "predictions" / f"{case}.nii.gz"
            write_volume(target / file.name, read_label_volume(file))
        return facts
    modules = {"nnunet": "nnunet_recipe", "dynunet": "dynunet_recipe"}
    python = campaign.nnunet_python if who == "nnunet" else Path(sys.executable)
    facts = run_recipe(turn, f"benchmarks.campaign.{modules[who]}", (python or Path(sys.executable)).absolute())
    collect(turn.folder / "raw_predictions", target, cases_of(ready.dataset, ready.split.test), ready.dataset.labels)
    return facts


def _write_references(folder: Path, ready: Prepared) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    labels = ready.dataset.labels
    named = {name: list(values) for name, values in zip(labels.names, labels.values, strict=True)}
    unions = {region: [v for label in members for v in named[label]] for region, members in labels.regions.items()}
    write_json(folder.parent / "labels.json", {**named, **unions})
    for case in cases_of(ready.dataset, ready.split.test):
        if case.label is not None and not (folder / f"{case.id}.nii.gz").is_file():
            write_volume(folder / f"{case.id}.nii.gz", read_label_volume(case.label))

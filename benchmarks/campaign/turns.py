"""Every contender's turn on every fold of a set, each kept when it is over."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.campaign.contenders import OURS, SETS, Turn, done, run_recipe, run_segmed
from benchmarks.campaign.fold_files import collect, prepared_fold, write_fold
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
        PeerError: a contender failed; what is over is kept.
    """
    data = SETS[name]
    place = campaign.output.absolute() / name
    config = validate(SegmentationConfig, load_yaml(ROOT / data.config), where=data.config)
    config = config.model_copy(update={"data": config.data.model_copy(update={"root": root.absolute()})})
    for fold in range(campaign.first_folds or campaign.folds):
        waiting = [who for who in campaign.contenders if done(place / f"fold_{fold}" / who) is None]
        if not waiting:
            continue
        ready = prepared_fold(config, folds=campaign.folds, fold=fold)
        files = write_fold(place / f"fold_{fold}", ready)
        _write_references(place / "references", ready)
        for who in waiting:
            turn = Turn(
                place / f"fold_{fold}" / who, files, data, campaign.minutes or data.minutes, threads, campaign.seed
            )
            facts = _take(who, turn, root, ready, campaign, fold)
            write_json(turn.folder / "done.json", facts)
            print(f"  fold {fold}, {who}: {facts['minutes']:.1f} min, {facts['steps']} steps", flush=True)


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

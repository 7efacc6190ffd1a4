"""A cross-validation as jobs: one a fold, and one that sums up when all are done."""

from __future__ import annotations

from pathlib import Path

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.jobs.job import Job, Needs, Plan
from segmed.runs import Folds


def last_file(folds: Folds, *, classifies: bool) -> Path:
    """What a cross-validation writes last: with it, it is done."""
    return folds.test / "figures.json" if classifies else folds.ensemble


def plan_of_folds(config: SegmentationConfig | ClassificationConfig, folds: Folds, needs: Needs) -> Plan:
    """The jobs of a cross-validation.

    Args:
        config: what the folds have in common.
        folds: their folder; its folds.yaml is what the jobs read.
        needs: of one fold.
    """
    command = "train-cls" if isinstance(config, ClassificationConfig) else "train"
    folds = Folds(folds.path.absolute())
    parts = [folds.path / f"fold_{fold}" for fold in range(config.split.folds)]
    jobs = [
        Job(
            f"fold_{fold}",
            ("segmed", command, "--config", str(folds.config), "--fold", str(fold), "--run-dir", str(path), "--go-on"),
            folder=path,
            proof=path / "report.html",
            needs=needs,
        )
        for fold, path in enumerate(parts)
    ]
    together = Job(
        "together",
        ("segmed", command, "--resume", str(folds.path)),
        folder=folds.path,
        proof=last_file(folds, classifies=command == "train-cls"),
        needs=needs,
        after=tuple(job.name for job in jobs),
    )
    title = f"{config.title}, {config.split.folds} folds"
    return Plan(title, folds.path, (*jobs, together), ("segmed", command, "--resume", str(folds.path)))

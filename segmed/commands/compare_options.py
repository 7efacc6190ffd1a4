"""What `segmed compare` is told: its options."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import tyro
from pydantic import Field, PositiveInt

from segmed.commands.short_help import Groups
from segmed.config import Section
from segmed.config.compare import Convention
from segmed.config.jobs import EngineName, JobsConfig


class Arguments(Section):
    """Compare methods on the same test cases, each with the runs (seeds) that it has.

    With --config, its rows are compared: finished runs, and classical methods and fine stages of cascades in a given
    region, which are run where that is not done yet. Everything lands in its output folder: tables and figures, and in
    rows/ the label maps.

    With --methods, a value is a run's folder, one of a cross-validation, a folder or cases.csv of segmed evaluate, or
    a folder of label maps of anybody (with --references). Runs of a method are averaged a case; then methods are
    compared pairwise with the reference: paired differences with intervals, Wilcoxon's test, Holm's correction. Prints
    the tables and writes comparison.md, comparison.csv, comparison.json and comparison.png.

    Where the runs are those of segmed train-cls, classifiers are compared, by image and by subject: accuracy, AUC,
    log loss and ECE with intervals over subjects; McNemar, DeLong or the paired bootstrap, Holm's correction.

    With --config and --on, what the commands of its rows train is trained first, each run, seed and fold a job.

    Exit code 0: compared; 1: a job failed; 2: something can't be compared, one line says what.
    """

    often_used: ClassVar[Groups] = {
        "what is compared": ("config", "data_root", "skip_missing", "methods", "reference", "common_cases"),
        "folders of label maps": ("references", "labels", "run"),
        "what comes out": ("output",),
        "training the rows": ("on", "plan_only"),
    }
    config: Path | None = Field(None, description="YAML of rows to run and compare; without it, --methods")
    data_root: Path | None = Field(None, description="with --config: folder of the data set instead of data.root")
    skip_missing: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="with --config: leave out rows whose run is not there or not finished, instead of refusing"
    )
    convention: Convention = Field(
        "standard",
        description="with --config: Dice of each case's volume, or as released with a paper (pieces under 100 pixels "
        "removed, both dilated, mean over slices, foreground and background), which writes files of its own name",
    )
    methods: tuple[str, ...] = Field(
        (), description="NAME=FOLDER[,FOLDER] of each method; patterns may stand in quotes, as 'patch=runs/patch_*'"
    )
    reference: str | None = Field(None, description="name of the method to compare with; none: the first")
    output: Path | None = Field(
        None,
        description="folder for tables and figure; files of an earlier comparison are replaced; none: that of --config",
    )
    common_cases: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="compare the cases that all were tested on, instead of refusing methods with others"
    )
    references: Path | None = Field(None, description="of folders of label maps: references, or a data set")
    labels: tuple[str, ...] = Field(
        (), description="of folders of label maps: NAME=VALUE[,VALUE] of every label; none: those of --run"
    )
    run: Path | None = Field(
        None,
        description="of folders of label maps: run whose labels and evaluate section count; none: the first compared",
    )
    bootstrap: PositiveInt | None = Field(
        None, description="resamplings for the 95 % intervals; none: 2000, or as --config says"
    )
    title: str | None = Field(None, description="of tables and figure; none: the names of the methods")
    workers: PositiveInt | None = Field(None, description="cases scored at once; none: one a processor, at most 8")
    on: EngineName = Field(
        "here", description="with --config: runs that are not there are trained by the commands of their rows, as jobs"
    )
    plan_only: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="with --config: print the jobs of its trainings, and stop"
    )
    submit: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="with --on slurm: call sbatch; else its scripts are only written"
    )
    jobs: JobsConfig = Field(JobsConfig(), description="what each job takes, and what an engine is told")

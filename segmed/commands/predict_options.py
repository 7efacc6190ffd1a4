"""What `segmed predict` is told: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from pydantic import Field, NonNegativeInt, PositiveInt

from segmed.commands.model_option import Models
from segmed.commands.short_help import Groups
from segmed.config import Section
from segmed.config.jobs import EngineName, JobsConfig

Flag = tyro.conf.FlagCreatePairsOff[bool]


class Arguments(Section):
    """Segment a file or a folder with a trained run, or with several as an ensemble.

    Label maps have the grid, the header, the name and the format of their inputs (DICOM: .nii.gz) and the label
    values of the data set the run was trained on. prediction.json says how they were made, report.html shows them
    slice by slice, classes.csv holds the class of each case where the run was trained to tell it, and trust.csv, where
    the run is calibrated (segmed calibrate), the interval of each volume, the Dice to expect, and a flag: good, look at
    it, do not use, with its reason. The same call goes on where it was stopped. Exit code 0: all done; 1: some cases
    failed, the others are done; 2: nothing could be done.
    """

    often_used: ClassVar[Groups] = {
        "what is predicted": ("run", "model", "input", "output", "format", "overwrite"),
        "how": ("mirror", "overlap", "largest_component", "device", "precision"),
        "beside the label maps": ("probabilities", "uncertainty"),
        "many cases": ("watch", "on", "shards", "submit", "plan_only"),
    }
    run: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = Field(
        (),
        description="folder of a run or of a cross-validation; given again for each of several: of them, and of folds, "
        "the probabilities' mean is the answer",
    )
    model: Models = ()
    input: Path = Field(
        description="a volume, a DICOM folder, a folder of volumes, or a data set in the run's layout; -: paths, one a "
        "line, on standard input"
    )
    watch: Flag = Field(False, description="go on with what comes into the folder of --input, until Ctrl-C or SIGTERM")
    output: Path = Field(description="folder of the label maps")
    overwrite: Flag = Field(False, description="replace label maps that are there")
    mirror: Flag = Field(False, description="average over mirrored copies, for runs that were trained with flips")
    overlap: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="of neighbouring windows; left out: as the run says"
    )
    largest_component: tuple[str, ...] | None = Field(
        None,
        description="labels, regions, or 'all labels' (together) of which only the largest piece is kept; without "
        "names: of none; left out: as the run says",
    )
    format: Literal["volume", "dicom-seg", "bids"] = Field(
        "volume",
        description="of the label maps: as the inputs; DICOM-SEG objects that refer to the DICOM slices; BIDS "
        "derivatives with dataset_description.json and dseg.tsv, of inputs named as BIDS asks",
    )
    probabilities: Flag = Field(False, description="write the probabilities of all classes too")
    uncertainty: Flag = Field(False, description="write the entropy of the probabilities (nats) too")
    level: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="of the intervals of a calibrated run (segmed calibrate); left out: 0.9"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    precision: Literal["fp32", "bf16"] | None = Field(None, description="left out: as in training")
    engine: Literal["torch", "onnxruntime", "openvino", "auto"] = Field(
        "torch", description="that computes networks of a model file which holds them for it; auto: the fastest"
    )
    on: EngineName = Field("here", description="here, case after case in this process; or dealt out to jobs")
    shards: PositiveInt | None = Field(None, description="jobs; none: as many as run at once (ray, slurm: 16)")
    submit: Flag = Field(False, description="with --on slurm: call sbatch; else its scripts are only written")
    plan_only: Flag = Field(False, description="with --on: show the jobs and stop")
    jobs: JobsConfig = Field(JobsConfig(), description="what each job takes, and what an engine is told")
    shard: NonNegativeInt | None = Field(None, description="do the cases of one shard, as a job does")
    merge: Flag = Field(False, description="write one record of all shards, as the last job does")

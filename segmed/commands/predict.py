"""Label maps of new volumes, by trained runs: segmed predict --run RUN --input FOLDER --output FOLDER"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro
from pydantic import Field, NonNegativeInt, PositiveInt

from segmed.commands.command_line import parse
from segmed.commands.model_option import Models
from segmed.commands.short_help import Groups
from segmed.config import Section, SegmentationConfig, known
from segmed.config.jobs import EngineName, JobsConfig
from segmed.errors import ConfigError
from segmed.files import bounds

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from segmed.builders.engine_networks import EngineChoice
    from segmed.builders.ensembles import Member
    from segmed.builders.model_file import Opened
    from segmed.builders.observed import CaseJudge
    from segmed.data.inputs import Input
    from segmed.segment.predict import Writer
    from segmed.segment.record import CaseReport, Record
    from segmed.segmenters.engines import Engine
    from segmed.segmenters.segmenter import Segmenter

Flag = tyro.conf.FlagCreatePairsOff[bool]
STANDARD_INPUT = "-"


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
        (), description="folder of a run or of a cross-validation; of several, and of folds, the probabilities' mean"
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
        description="labels of which only the largest piece is kept; without names: of none; left out: as the run says",
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


def main() -> int:
    """Exit code 1 where a case failed."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _stop)
    if not arguments.run and not arguments.model:
        raise ConfigError("no run is named: give --run RUN, a folder that segmed train made, or --model FILE")

    from segmed.builders.model_file import opened

    with opened(arguments.run, arguments.model) as runs:
        return _predicted(arguments, runs)


def _predicted(arguments: Arguments, runs: Opened) -> int:
    from segmed.builders.ensembles import members_of
    from segmed.commands.predict_answers import say_label_maps
    from segmed.data.content import case_files
    from segmed.data.inputs import find_inputs
    from segmed.runs import own_files

    started = time.perf_counter()
    if arguments.merge:
        return _merge(arguments, runs)
    members = [member for run in runs.folders for member in members_of(run)]
    _check_ensemble(arguments, members)
    inputs: Sequence[Input] = ()
    if not _arriving(arguments):
        inputs = find_inputs(arguments.input, members[0].config.data, output=arguments.output)
        say_label_maps(arguments.input)
    read = [*case_files(item.case for item in inputs), *(file for run in arguments.run for file in own_files(run))]
    if arguments.on != "here":
        from segmed.commands.predict_shards import predict_in_shards

        return predict_in_shards(
            arguments, inputs, read=read, output=arguments.output, on=arguments.on, jobs=arguments.jobs
        )
    with bounds(arguments.output, inputs=[*read, *runs.sources]):
        return _predict(arguments, runs, members, inputs, started)


def _predict(arguments: Arguments, runs: Opened, members: list[Member], inputs: Sequence[Input], started: float) -> int:
    from segmed.commands.predict_answers import Answers
    from segmed.commands.predict_arriving import Service
    from segmed.data.familiar import familiar_with
    from segmed.jobs.shards import Shards
    from segmed.segment.outputs import Extras, check_outputs
    from segmed.segment.predict import predict_cases
    from segmed.segment.record import Record

    configs = [member.config for member in members]
    familiar = familiar_with(runs.folders[0], spacing_known=configs[0].data.spacing_known)
    choice = _engine(arguments, runs)
    segmenter, trust = _segmenter(arguments, runs, members, choice.engine)
    about = _about(arguments, runs, members, segmenter)
    if arguments.engine != "torch":  # what was asked for decides whether a case is done again, not what was measured
        about = {**about, "settings": {**about["settings"], "engine": arguments.engine}}
        about |= {"engine": choice.engine, "engine_reason": choice.reason}
        print(f"engine: {choice.engine} ({choice.reason})")
    inputs, write = _in_format(arguments, inputs, configs[0], segmenter)
    shards, path = Shards(arguments.output.absolute()), None
    vanished: list[CaseReport] = []
    if arguments.shard is not None:
        path = shards.record(arguments.shard)
        inputs, vanished = shards.inputs_of(arguments.shard, inputs)
    record = Record(arguments.output, about, overwrite=arguments.overwrite, path=path)
    extras = Extras(probabilities=arguments.probabilities, uncertainty=arguments.uncertainty)
    check_outputs(inputs, arguments.output, replace=arguments.overwrite, kept=record.own, extras=extras)
    answers = Answers(record, len(inputs) + len(vanished))
    predict = partial(
        predict_cases,
        segmenter,
        output=arguments.output,
        modalities=configs[0].data.images,
        extras=extras,
        done=record.done,
        spacing_known=configs[0].data.spacing_known,
        unlike=None if familiar is None else familiar.unlike,
        classes=_classes(configs),
        write=_noted(write, record),
        takes_incomplete=all(config.takes_incomplete for config in configs),
        trust=trust,
        tell=answers.tell,
        waiting=answers.waiting,
    )
    for report in vanished:
        answers.tell(report)
    reports: Iterator[CaseReport] = predict(inputs)
    if _arriving(arguments):
        as_seg = arguments.format == "dicom-seg"
        service = Service(predict, answers, arguments.output, arguments.overwrite, extras, as_dicom_seg=as_seg)
        reports = service.reports(arguments.input if arguments.watch else None, configs[0].data)
    answers.follow(reports)
    if arguments.shard is not None:
        shards.end(arguments.shard, answers.all)
        answers.print_failures()
        return 0  # the merge tells of them
    return answers.end(arguments.output, _classes(configs), trusted=trust is not None, started=started)


def _arriving(arguments: Arguments) -> bool:
    """Whether the inputs come one after the other; what needs them all at once is refused."""
    if not arguments.watch and str(arguments.input) != STANDARD_INPUT:
        return False
    named = "--watch" if arguments.watch else f"--input {STANDARD_INPUT}"
    if arguments.on != "here" or arguments.shard is not None or arguments.plan_only:
        raise ConfigError(f"{named} predicts in this process: leave out --on, --shard and --plan-only")
    if arguments.format == "bids":
        raise ConfigError(f"{named} does not know all cases, as --format bids has to: choose another format")
    if arguments.watch and not arguments.input.is_dir():
        raise ConfigError(f"--watch takes a folder, and {arguments.input} is none: make it, or leave out --watch")
    if arguments.watch and arguments.input.resolve() == arguments.output.resolve():
        raise ConfigError(f"label maps in {arguments.input} would be inputs, as it is watched: take another --output")
    return True


def _in_format(
    arguments: Arguments, inputs: Sequence[Input], config: SegmentationConfig, segmenter: Segmenter
) -> tuple[Sequence[Input], Writer]:
    """The inputs with the names of their outputs in the wanted format, and what writes them."""
    if arguments.format == "dicom-seg":
        from segmed.export.dicom_seg import DicomSegWriter, with_seg_names

        writer = DicomSegWriter(segmenter.labels, config.data.codes)
        if writer.unknown:
            print(
                f"warning: no code is known for {', '.join(writer.unknown)}: a code of segmed's own stands for it; "
                "give data.codes in the run's config",
                file=sys.stderr,
            )
        return with_seg_names(inputs), writer
    if arguments.format == "bids":
        from segmed.export.bids_derivatives import BidsWriter, with_bids_names

        named = with_bids_names(inputs)
        return named, BidsWriter(arguments.output, segmenter.labels, named)
    from segmed.segment.predict import write_as_input

    return inputs, write_as_input


def _noted(write: Writer, record: Record) -> Writer:
    """Notes each label map before it is written: a later call knows it as its own, even after a kill."""

    def note_and_write(path: Path, values: MetaTensor, item: Input) -> None:
        record.begin(path, item.case.id)
        write(path, values, item)

    return note_and_write


def _merge(arguments: Arguments, runs: Opened) -> int:
    """Join the records of the shards, and the classes of their cases."""
    from segmed.builders.ensembles import members_of
    from segmed.commands.predict_answers import write_classes
    from segmed.commands.predict_shards import merge_shards

    reports = merge_shards(arguments.output)
    configs = [member.config for run in runs.folders for member in members_of(run)]
    write_classes(arguments.output, _classes(configs), [each for each in reports if each.status != "failed"])
    return 0


def _check_ensemble(arguments: Arguments, members: list[Member]) -> None:
    """Runs of an ensemble take the same images and know the same labels."""
    from segmed.builders.ensembles import check_alike

    check_alike(members)
    for run, config in ((member.run, member.config) for member in members):
        if arguments.mirror and not config.augment.flip_probability:
            print(f"warning: {run} was trained without flips: mirrored copies may make it worse", file=sys.stderr)


def _engine(arguments: Arguments, runs: Opened) -> EngineChoice:
    """What computes the networks."""
    from segmed.builders.engine_networks import choose_engine
    from segmed.builders.trained import load_network

    if arguments.engine != "torch" and arguments.device.startswith("cuda"):
        raise ConfigError(f"--engine {arguments.engine} computes on the processor: leave out --device")
    return choose_engine(runs.folders, arguments.engine, load_network)


def _segmenter(
    arguments: Arguments, runs: Opened, members: list[Member], engine: Engine
) -> tuple[Segmenter, CaseJudge | None]:
    """The runs as one segmenter, whose pieces are cleaned once, on the mean; and what judges its cases, if it can."""
    import torch

    from segmed.builders.observed import load_judged

    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device {arguments.device}: there is no GPU that torch can use; take --device cpu")
    for member in members:
        if member.config.composed and _changes(arguments):
            raise ConfigError(
                f"{member.run} is made of several networks, each with settings of its own: leave out --mirror, "
                "--overlap and --precision"
            )
    changes = _changes(arguments)
    if arguments.largest_component is not None:
        changes["largest_component"] = arguments.largest_component
    judged = load_judged(
        runs.folders, members, device=arguments.device, changes=changes, level=arguments.level, engine=engine
    )
    if judged.why_not:
        print(judged.why_not, file=sys.stderr)
    return judged.segmenter, judged.judge


def _classes(configs: list[SegmentationConfig]) -> tuple[str, ...]:
    """The classes of cases that all runs have a head for; none where one has none, or one for others."""
    heads = [config.classification for config in configs]
    names = {() if head is None else known(head.classes) for head in heads}
    return names.pop() if len(names) == 1 else ()


def _changes(arguments: Arguments) -> dict[str, object]:
    """Settings of inference that the command line gives in place of the runs' own."""
    given = {"mirror": arguments.mirror or None, "overlap": arguments.overlap, "precision": arguments.precision}
    return {name: value for name, value in given.items() if value is not None}


def _about(arguments: Arguments, sources: Opened, members: list[Member], segmenter: Segmenter) -> dict[str, Any]:
    """Runs, settings, labels and versions, for the record."""
    from segmed.builders.ensembles import common_cleaning
    from segmed.runs import environment

    first, changes, pieces = members[0].config, _changes(arguments), common_cleaning(members)
    cleaned = {"largest_component": None, "smallest_ml": None}  # these are of all together
    runs = [
        {
            "run": str(sources.origin(member.run).absolute()),
            "name": member.config.name,
            "weights": "best",
            "sha256": member.digest,
            "inference": {**member.config.inference.model_dump(mode="json"), **changes, **cleaned},
        }
        for member in members
    ]
    given = arguments.largest_component
    settings = {
        "largest_component": list(pieces.largest_component if given is None else given),
        "smallest_ml": pieces.smallest_ml,
        "probabilities": arguments.probabilities,
        "uncertainty": "entropy in nats" if arguments.uncertainty else False,
    }
    return {
        "runs": runs,
        "settings": settings,
        "images": list(first.data.images),
        "classes": ["background", *segmenter.labels.names],
        "values": [0, *(values[0] for values in segmenter.labels.values)],
        "spacing_known": first.data.spacing_known,
        "device": arguments.device,
        **environment(),
    }


def _stop(*_: object) -> None:
    raise KeyboardInterrupt("what is done is kept, the same call goes on")

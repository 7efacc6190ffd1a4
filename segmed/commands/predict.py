"""Label maps of new volumes, by trained runs: segmed predict --run RUN --input FOLDER --output FOLDER"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segmed.commands.command_line import parse
from segmed.commands.predict_model import about_of, check_ensemble, classes_of, engine_of, load_segmenter
from segmed.commands.predict_options import Arguments
from segmed.config import SegmentationConfig
from segmed.errors import ConfigError
from segmed.files import bounds

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from segmed.builders.ensembles import Member
    from segmed.builders.model_file import Opened
    from segmed.data.inputs import Input
    from segmed.segment.predict import Writer
    from segmed.segment.record import CaseReport, Record
    from segmed.segmenters.segmenter import Segmenter

STANDARD_INPUT = "-"


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
    from segmed.segment.outputs import sole_writer

    started = time.perf_counter()
    if arguments.merge:
        return _merge(arguments, runs)
    members = [member for run in runs.folders for member in members_of(run)]
    check_ensemble(arguments, members)
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
    record = _record(arguments)
    with bounds(arguments.output, inputs=[*read, *runs.sources]), sole_writer(arguments.output, record):
        return _predict(arguments, runs, members, inputs, started)


def _predict(arguments: Arguments, runs: Opened, members: list[Member], inputs: Sequence[Input], started: float) -> int:
    from segmed.commands.predict_answers import Answers
    from segmed.commands.predict_arriving import Service
    from segmed.config import PatternLayout
    from segmed.data.familiar import familiar_with
    from segmed.jobs.shards import Shards
    from segmed.segment.outputs import Extras, check_outputs
    from segmed.segment.predict import predict_cases
    from segmed.segment.record import Record

    configs = [member.config for member in members]
    layout = configs[0].data.layout
    masked = isinstance(layout, PatternLayout) and layout.field_of_view is not None
    familiar = familiar_with(runs.folders[0], spacing_known=configs[0].data.spacing_known, masked=masked)
    choice = engine_of(arguments, runs)
    segmenter, trust = load_segmenter(arguments, runs, members, choice.engine)
    about = about_of(arguments, runs, members, segmenter)
    if arguments.engine != "torch":  # what was asked for decides whether a case is done again, not what was measured
        about = {**about, "settings": {**about["settings"], "engine": arguments.engine}}
        about |= {"engine": choice.engine, "engine_reason": choice.reason}
        print(f"engine: {choice.engine} ({choice.reason})")
    inputs, write = _in_format(arguments, inputs, configs[0], segmenter)
    shards = Shards(arguments.output.absolute())
    vanished: list[CaseReport] = []
    if arguments.shard is not None:
        inputs, vanished = shards.inputs_of(arguments.shard, inputs)
    record = Record(arguments.output, about, overwrite=arguments.overwrite, path=_record(arguments))
    extras = Extras(probabilities=arguments.probabilities, uncertainty=arguments.uncertainty)
    all_known = arguments.shard is None and not _arriving(arguments)
    check_outputs(
        inputs, arguments.output, replace=arguments.overwrite, earlier=record.own,
        others=record.others if all_known else (), extras=extras,
    )  # fmt: skip
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
        classes=classes_of(configs),
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
    return answers.end(arguments.output, classes_of(configs), trusted=trust is not None, started=started)


def _record(arguments: Arguments) -> Path:
    """The record that this call writes: of all cases, or of its shard."""
    from segmed.jobs.shards import Shards
    from segmed.segment.record import Record

    if arguments.shard is not None:
        return Shards(arguments.output.absolute()).record(arguments.shard)
    return arguments.output / Record.NAME


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
    write_classes(arguments.output, classes_of(configs), [each for each in reports if each.status != "failed"])
    return 0


def _stop(*_: object) -> None:
    raise KeyboardInterrupt("what is done is kept, the same call goes on")

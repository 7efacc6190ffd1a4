"""Label maps of new volumes, by trained runs: segmed predict --run RUN --input FOLDER --output FOLDER"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import Field

from segmed.commands.command_line import parse
from segmed.commands.model_option import Models
from segmed.config import Section, SegmentationConfig, known
from segmed.errors import ConfigError
from segmed.files import bounds, printable

if TYPE_CHECKING:
    from segmed.builders.engine_networks import EngineChoice
    from segmed.builders.ensembles import Member
    from segmed.builders.model_file import Opened
    from segmed.data.inputs import Input
    from segmed.segment.record import CaseReport
    from segmed.segmenters.engines import Engine
    from segmed.segmenters.segmenter import Segmenter

Flag = tyro.conf.FlagCreatePairsOff[bool]


class Arguments(Section):
    """Segment a file or a folder with a trained run, or with several as an ensemble.

    Label maps have the grid, the header, the name and the format of their inputs (DICOM: .nii.gz) and the label
    values of the data set the run was trained on; prediction.json says how they were made, and classes.csv the class
    of each case where the run was trained to tell it. The same call goes on where it was stopped. Exit code 0: all
    done; 1: some cases failed, the others are done; 2: nothing could be done.
    """

    run: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = Field(
        (), description="folder of a run or of a cross-validation; of several, and of folds, the probabilities' mean"
    )
    model: Models = ()
    input: Path = Field(description="a volume, a DICOM folder, a folder of volumes, or a data set in the run's layout")
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
    probabilities: Flag = Field(False, description="write the probabilities of all classes too")
    uncertainty: Flag = Field(False, description="write the entropy of the probabilities (nats) too")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    precision: Literal["fp32", "bf16"] | None = Field(None, description="left out: as in training")
    engine: Literal["torch", "onnxruntime", "openvino", "auto"] = Field(
        "torch", description="that computes networks of a model file which holds them for it; auto: the fastest"
    )


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
    from segmed.data.content import case_files
    from segmed.data.inputs import find_inputs
    from segmed.runs import own_files

    started = time.perf_counter()
    members = [member for run in runs.folders for member in members_of(run)]
    _check_ensemble(arguments, members)
    inputs = find_inputs(arguments.input, members[0].config.data, output=arguments.output)
    _say_label_maps(arguments.input)
    read = [*case_files(item.case for item in inputs), *(file for run in arguments.run for file in own_files(run))]
    with bounds(arguments.output, inputs=[*read, *runs.sources]):
        return _predict(arguments, runs, members, inputs, started)


def _predict(arguments: Arguments, runs: Opened, members: list[Member], inputs: Sequence[Input], started: float) -> int:
    from segmed.data.familiar import familiar_with
    from segmed.segment.predict import Extras, check_outputs, predict_cases
    from segmed.segment.record import Record

    configs = [member.config for member in members]
    familiar = familiar_with(runs.folders[0], spacing_known=configs[0].data.spacing_known)
    choice = _engine(arguments, runs)
    segmenter = _segmenter(arguments, members, choice.engine)
    about = _about(arguments, runs, members, segmenter)
    if arguments.engine != "torch":  # what was asked for decides whether a case is done again, not what was measured
        about = {**about, "settings": {**about["settings"], "engine": arguments.engine}}
        about |= {"engine": choice.engine, "engine_reason": choice.reason}
        print(f"engine: {choice.engine} ({choice.reason})")
    record = Record(arguments.output, about, overwrite=arguments.overwrite)
    extras = Extras(probabilities=arguments.probabilities, uncertainty=arguments.uncertainty)
    check_outputs(inputs, arguments.output, replace=arguments.overwrite, kept=record.done, extras=extras)
    reports = predict_cases(
        segmenter,
        inputs,
        arguments.output,
        modalities=configs[0].data.images,
        extras=extras,
        done=record.done,
        spacing_known=configs[0].data.spacing_known,
        unlike=None if familiar is None else familiar.unlike,
        classes=_classes(configs),
    )
    done: list[CaseReport] = []
    failed: list[CaseReport] = []
    for number, report in enumerate(reports, 1):
        record.add(report)
        outcome = {"done": f"{report.seconds:.1f} s", "kept": "done before"}.get(
            report.status, f"failed: {report.error}"
        )
        print(printable(f"[{number}/{len(inputs)}] {report.case}: {outcome}"), flush=True)
        if report.warning is not None:
            print(f"warning: {report.case} is {report.warning}", file=sys.stderr)
        (failed if report.status == "failed" else done).append(report)
    _write_classes(arguments.output, _classes(configs), done)
    print(
        f"{len(inputs) - len(failed)} of {len(inputs)} label maps in {arguments.output}, "
        f"{time.perf_counter() - started:.0f} s; how they were made: {record.path}"
    )
    _print_failures(failed)
    return 1 if failed else 0


def _print_failures(failed: Sequence[CaseReport]) -> None:
    if failed:
        print(f"{len(failed)} failed:", file=sys.stderr)
    for report in failed:
        print(printable(f"  {report.case}: {report.error}"), file=sys.stderr)


def _say_label_maps(path: Path) -> None:
    """Name the files of the input that are label maps by their names, and are left out."""
    from segmed.data.cases import find_volumes
    from segmed.data.inputs import label_maps
    from segmed.volumes import is_dicom_folder

    if not path.is_dir() or is_dicom_folder(path):
        return
    left_out = label_maps(find_volumes(path), path)
    if left_out:
        names = ", ".join(file.name for file in left_out[:3]) + (" ..." if len(left_out) > 3 else "")
        print(f"{len(left_out)} label maps are no inputs and are left out: {names}", file=sys.stderr)


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


def _segmenter(arguments: Arguments, members: list[Member], engine: Engine) -> Segmenter:
    """The runs as one segmenter; pieces are cleaned once, on the mean."""
    import torch

    from segmed.builders.trained import load_together

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
    return load_together(members, device=arguments.device, changes=changes, engine=engine)


def _classes(configs: list[SegmentationConfig]) -> tuple[str, ...]:
    """The classes of cases that all runs have a head for; none where one has none, or one for others."""
    heads = [config.classification for config in configs]
    names = {() if head is None else known(head.classes) for head in heads}
    return names.pop() if len(names) == 1 else ()


def _write_classes(output: Path, classes: tuple[str, ...], reports: list[CaseReport]) -> None:
    """classes.csv: the class of each case and its probabilities."""
    if not classes or not reports:
        return
    import numpy as np

    from segmed.evaluate.answers import save_predictions
    from segmed.reports.classification.second_head import TABLE

    probabilities = np.array([[report.classes[name] for name in classes] for report in reports])
    logits = np.log(probabilities.clip(np.finfo(float).tiny))
    save_predictions(output / TABLE, classes, [report.case for report in reports], logits)
    print(f"classes of {len(reports)} cases in {output / TABLE}")


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

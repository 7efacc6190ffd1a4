"""Score label maps: segmed evaluate --predictions FOLDER --references FOLDER --labels ... --output FOLDER"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import tyro
from pydantic import Field, PositiveFloat, PositiveInt

from segmed.commands.command_line import parse
from segmed.commands.evaluate_notes import model_notes, notes_of_files, run_notes, where_tested
from segmed.commands.model_option import OneModel
from segmed.commands.short_help import Groups
from segmed.config import EvaluateConfig, Section, SegmentationConfig
from segmed.config.reading import load_written
from segmed.errors import ConfigError, VolumeError
from segmed.evaluate.structures import parse_structures
from segmed.files import bounds, make_folder, printable

if TYPE_CHECKING:
    from segmed.data.pairs import Pairing
    from segmed.data.references import Reference
    from segmed.evaluate.case_volumes import CaseVolumes
    from segmed.evaluate.scoring import Scores, Scoring
    from segmed.reports.segmentation.page import Look
    from segmed.reports.viewer.layers import Layers
    from segmed.volumes import Source


class Arguments(Section):
    """Score label maps, of segmed or of anybody, against references.

    Writes cases.csv, summary.json, summary.md, figures and report.html, and prints the table. A case whose files
    can't be compared is named and left out; a reference without a prediction counts as a miss of every label, but for
    those that --run learned from. With --run the figures are of cases that it never saw; those that trained or
    selected it have a table of their own.

    Exit code 0: all cases are scored; 1: some can't be; 2: a folder or an option can't be used.
    """

    often_used: ClassVar[Groups] = {
        "files": ("predictions", "references", "output", "images"),
        "labels": ("run", "model", "labels", "ignore"),
        "what is scored": ("test_only", "allow_missing", "resample", "spacing_unknown", "subject"),
    }
    predictions: Path = Field(description="folder of label maps, at any depth, called as their image or reference is")
    references: Path = Field(description="folder of label maps, at any depth, or of a data set (MSD, nnU-Net, ...)")
    output: Path = Field(description="folder for tables and figures; files of an earlier evaluation are replaced")
    labels: tuple[str, ...] = Field(
        (),
        description="NAME=VALUE[,VALUE] of every label, as myocardium=200,1220,2221 scar=2221, or plain values; one "
        "that holds another's values is a region; none: those of --run or of the data set's dataset.json",
    )
    ignore: tuple[int, ...] = Field((), description="values in the references where nothing is scored")
    run: Path | None = Field(
        None, description="folder of a run or of a cross-validation: takes labels, regions and the evaluate section"
    )
    model: OneModel = None
    test_only: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="with --run: only the cases of its test part"
    )
    images: Path | None = Field(None, description="folder of the images, shown behind the contours of the montage")
    reference_pattern: str | None = Field(
        None, description="of the references, as {case}/{case}_gt.nii.gz, where a folder holds more than these"
    )
    subject: str | None = Field(
        None, description="regular expression found in case names whose match is the subject, as patient[0-9]+"
    )
    resample: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="bring predictions on another grid onto that of the reference, by the nearest voxel"
    )
    allow_missing: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="leave references without a prediction out, instead of counting them as misses"
    )
    spacing_unknown: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False, description="the files' spacing is nominal: no figure in mm or ml is given"
    )
    tolerance_mm: PositiveFloat | None = Field(None, description="of surface Dice; none: that of --run, else 1 mm")
    missed: Literal["diagonal", "skip"] | None = Field(
        None, description="distance of a missed structure: the image's diagonal, or left out; none: as --run"
    )
    title: str | None = Field(None, description="of tables and figures; none: the name of the predictions' folder")
    workers: PositiveInt | None = Field(None, description="cases at once; none: one a processor, at most 8")


def main() -> int:
    """Exit code 1 where a case can't be scored."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if arguments.model is None:
        return _scored(arguments)
    if arguments.run is not None:
        raise ConfigError("--run and --model exclude each other: give one")

    from segmed.builders.model_file import opened

    with opened((), [arguments.model]) as runs:
        return _scored(arguments.model_copy(update={"run": runs.folders[0]}))


def _scored(arguments: Arguments) -> int:
    if arguments.test_only and arguments.run is None:
        raise ConfigError("--test-only needs --run: the split is that of a run")
    for folder, what in ((arguments.predictions, "predictions"), (arguments.references, "references")):
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder: give the folder of the {what}")
    given = parse_structures(arguments.labels, arguments.ignore) if arguments.labels else None
    experiment = _experiment(arguments.run)

    from segmed.data.references import find_references
    from segmed.evaluate.scoring import Scoring, known_structures, pair_folder

    references, named = find_references(
        arguments.references,
        data=experiment.data if experiment else None,
        pattern=arguments.reference_pattern,
        subject=arguments.subject,
    )
    parts = _parts(references, arguments.run) if arguments.run is not None else {}
    if arguments.test_only and arguments.run is not None:
        references = tuple(reference for reference in references if parts.get(reference.id) == "test")
        if not references:
            source = arguments.model or arguments.run
            raise ConfigError(f"{source} has no test case among the references: {where_tested(arguments.run)}")
    pairing = pair_folder(arguments.predictions, references, besides=arguments.output)
    if parts:  # nobody predicts the cases that the run learned from, so they are not missed
        unasked = {case for case in pairing.missing if parts.get(case) in ("train", "validation")}
        references = tuple(reference for reference in references if reference.id not in unasked)
        pairing = replace(pairing, missing=tuple(case for case in pairing.missing if case not in unasked))
    if arguments.allow_missing:
        references = tuple(reference for reference in references if reference.id in pairing.predictions)
    scoring = Scoring(
        given or known_structures(experiment.data if experiment else None, named, arguments.ignore),
        _settings(arguments, experiment),
        spacing_known=not arguments.spacing_unknown and (experiment is None or experiment.data.spacing_known),
        resample=arguments.resample,
    )
    sides = {reference.id: parts.get(reference.id, "not in the split") for reference in references}
    with bounds(arguments.output, inputs=_read_files(arguments, references, pairing)):
        return _evaluate(arguments, references, pairing, scoring, sides if parts else None)


# ---------------------------------------------------------------- options -> what to do


def _read_files(arguments: Arguments, references: Sequence[Reference], pairing: Pairing) -> list[Path]:
    """The files of label maps, images and the run that are read."""
    from segmed.data.content import files_of, volume_files
    from segmed.runs import own_files

    labels = [*pairing.predictions.values(), *(reference.label.path for reference in references)]
    read = [file for path in labels for file in files_of(path)]
    read += volume_files(arguments.images) if arguments.images is not None else []
    read += [arguments.model] if arguments.model is not None else []
    return [*read, arguments.references / "dataset.json", *(own_files(arguments.run) if arguments.run else ())]


def _experiment(run: Path | None) -> SegmentationConfig | None:
    if run is None:
        return None
    from segmed.runs import runs_of

    config = runs_of(run)[0].config
    if not config.is_file():
        raise ConfigError(f"{config.parent} is no run: it holds no config.yaml")
    return load_written(SegmentationConfig, config)


def _settings(arguments: Arguments, experiment: SegmentationConfig | None) -> EvaluateConfig:
    given = {"surface_dice_tolerance_mm": arguments.tolerance_mm, "missed": arguments.missed}
    settings = experiment.evaluate if experiment else EvaluateConfig()
    return settings.model_copy(update={name: value for name, value in given.items() if value is not None})


def _parts(references: Sequence[Reference], run: Path) -> dict[str, str]:
    """Reference -> the part of the run's split that it is in; references that the run never saw are left out."""
    from segmed.data.learned import learned_split
    from segmed.data.naming import plain_name
    from segmed.evaluate.results import first_few

    split, parts = learned_split(run), {}
    part_of = {case: part for part in ("train", "validation", "test") for case in getattr(split, part)}
    for reference in references:
        names = {reference.id, *reference.names[0], *reference.names[1]}
        own_parts = {part_of[name] for name in names | {plain_name(name) for name in names} if name in part_of}
        if own_parts:
            parts[reference.id] = min(own_parts, key=("train", "validation", "test").index)
    missing = len(split.test) - sum(part == "test" for part in parts.values())
    if missing and parts:
        raise ConfigError(
            f"{missing} of the {len(split.test)} test cases of {run} have no reference: "
            f"give the references of {first_few(split.test)}"
        )
    return parts


# ---------------------------------------------------------------- doing it


def _evaluate(
    arguments: Arguments,
    references: Sequence[Reference],
    pairing: Pairing,
    scoring: Scoring,
    parts: Mapping[str, str] | None,
) -> int:
    from segmed.evaluate.case_rows import LEARNED
    from segmed.reports.segmentation.files import table_text, write_evaluation
    from segmed.reports.segmentation.page import write_report

    make_folder(arguments.output)
    load = _volume_loader(arguments, references, pairing, scoring)
    scores = _scores(references, pairing, scoring, workers=arguments.workers)
    learned = [case for case in pairing.predictions if (parts or {}).get(case) in LEARNED]
    notes = notes_of_files(pairing, scores, allow_missing=arguments.allow_missing)
    notes += [*model_notes(arguments.model), *run_notes(arguments.run, learned)]
    for note in notes:
        print(printable(note), file=sys.stderr)
    if not scores.rows:
        raise ConfigError(f"none of {len(references)} cases could be scored: see the lines above")
    summary = write_evaluation(
        scores.rows,
        arguments.output,
        title=arguments.title or arguments.predictions.resolve().name,
        config=scoring.config,
        subjects={reference.id: reference.subject for reference in references},
        load=load,
        notes=notes,
        subjects_known=all(reference.subject_known for reference in references),
        parts=parts,
    )
    write_report(arguments.output, _look(arguments, references, pairing, scoring))
    print(table_text(summary))
    print(f"written: {arguments.output} (cases.csv, summary.json, summary.md, figures, report.html)")
    return 1 if scores.failed else 0


def _scores(references: Sequence[Reference], pairing: Pairing, scoring: Scoring, *, workers: int | None) -> Scores:
    """Score all cases, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    from segmed.evaluate.scoring import default_workers, score_cases

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("scoring", total=len(references))
        return score_cases(
            references, pairing.predictions, scoring,
            workers=workers or default_workers(), done=lambda case: progress.advance(task),
        )  # fmt: skip


def _volume_loader(
    arguments: Arguments, references: Sequence[Reference], pairing: Pairing, scoring: Scoring
) -> Callable[[str], CaseVolumes]:
    """Id of a case -> its volumes for a figure."""
    from segmed.evaluate.scoring import load_volumes

    by_id = {reference.id: reference for reference in references}
    images = _images(arguments.images, references)

    def load(case: str) -> CaseVolumes:
        reference, prediction = by_id[case], pairing.predictions.get(case)
        try:
            return load_volumes(reference, prediction, scoring, image=images.get(case) or reference.image)
        except VolumeError:  # an image that can't be read costs the background of one picture
            return load_volumes(reference, prediction, scoring)

    return load


def _look(arguments: Arguments, references: Sequence[Reference], pairing: Pairing, scoring: Scoring) -> Look:
    """Where the volumes of the cases are, for the viewer of the page."""
    from segmed.reports.segmentation.page import Look
    from segmed.reports.segmentation.scored_layers import scored_layers

    by_id, images = {reference.id: reference for reference in references}, _images(arguments.images, references)

    def layers(case: str) -> Layers:
        image = images.get(case) or by_id[case].image
        prediction = pairing.predictions.get(case)
        return scored_layers(by_id[case], prediction, scoring, image=image, folder=arguments.predictions)

    return Look(scoring.structures.labels.names, layers)


def _images(folder: Path | None, references: Sequence[Reference]) -> dict[str, Source]:
    """Case -> its image, of the folder that is given."""
    if folder is None:
        return {}
    from segmed.data.cases import find_volumes
    from segmed.data.pairs import pair_images
    from segmed.volumes import Source

    images = pair_images(find_volumes(folder), references, folder=folder).predictions
    return {case: Source(path) for case, path in images.items()}

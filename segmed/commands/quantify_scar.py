"""Scar in numbers: segmed quantify-scar --image FILE --labels FILE --wall 1,4 --scar 4 --output FOLDER"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from pydantic import Field

from segmed.commands.case_after_case import measure_cases
from segmed.commands.command_line import parse
from segmed.commands.model_option import OneModel
from segmed.commands.short_help import Groups
from segmed.config import Section
from segmed.errors import ConfigError, VolumeError
from segmed.files import bounds, make_folder

if TYPE_CHECKING:
    import numpy as np

    from segmed.builders.observed import Judged
    from segmed.builders.scar_trust import ScarTrust
    from segmed.cardiac.heart_labels import HeartValues
    from segmed.data.case import Case
    from segmed.reports.scar.files import ScarCase
    from segmed.volumes import Source

    # image (X, Y, Z), values (X, Y, Z), affine (4, 4), and how far they can be trusted
    Voxels = tuple[np.ndarray, np.ndarray, np.ndarray, ScarTrust | None]

Flag = tyro.conf.FlagCreatePairsOff[bool]
Point = tuple[float, float, float]


class Arguments(Section):
    """Mass, share, core and grey zone, transmurality and AHA segments of the scar in an LV, from its label map.

    Writes scar.json, segments.csv, summary.csv, montage.png, two bullseyes and report.html, one page to read and to
    print. What can't be known (a septum without RV, a remote region) is left out, and said. Of folders, images and
    label maps are paired by name, each case gets a folder of its own, and summary.csv holds all of them.

    Exit code 0: done; 1: some of several cases can't be measured, the others are; 2: nothing can, and scar.json says
    why.
    """

    often_used: ClassVar[Groups] = {
        "files": ("image", "labels", "run", "model", "output"),
        "values of the label map": ("wall", "scar", "pool", "rv"),
        "how it is measured": ("grey_zone", "count_obstruction", "segments", "level"),
    }
    image: Path = Field(description="LGE volume, DICOM folder, or a folder of volumes")
    labels: Path | None = Field(None, description="label map, or a folder of them; none: --run segments the image")
    run: Path | None = Field(
        None, description="run folder: segments the image, or says what the values of --labels mean"
    )
    model: OneModel = None
    output: Path = Field(description="folder of the report; files of an earlier one are replaced")
    wall: str | None = Field(
        None, description="values of all LV myocardium, scar included, as 200,1220,2221; with --run also names"
    )
    scar: str | None = Field(None, description="values of scar, as 2221")
    pool: str | None = Field(None, description="values of the LV's blood pool; none: what the wall encloses")
    rv: str | None = Field(None, description="values of the right ventricle, which tells where the septum lies")
    grey_zone: Literal["half_maximum", "roes", "yan", "none"] = Field(
        "roes",
        description="roes: core from 50 and grey zone from 35 % of the scar's maximum; half_maximum: from 50 % and "
        "from remote mean + 2 SD; yan: from remote mean + 3 and + 2 SD",
    )
    grey_zone_sd: float = Field(2.0, ge=0, description="SD above remote muscle of half_maximum; 2 or 3")
    remote: tuple[float, float] | None = Field(
        None, description="mean and SD of remote muscle; none: of the darkest sector of the wall outside the scar"
    )
    count_obstruction: Flag = Field(False, description="count microvascular obstruction as scar")
    segments: Literal[17, 16] = Field(17, description="of the AHA; 16: without the cap of the apex")
    anterior_mm: Point | None = Field(None, description="anterior insertion of the RV, RAS mm, where no RV is labelled")
    inferior_mm: Point | None = Field(None, description="inferior insertion of the RV, RAS mm")
    apex_mm: Point | None = Field(None, description="a point nearer to the apex than to the base, RAS mm")
    long_axis: Literal["auto", "slices", "found"] = Field(
        "auto", description="slices: across the stored slices; found: from the LV's shape; auto: slices, if thick"
    )
    level: Literal["basal", "mid", "apical"] | None = Field(None, description="of a single slice")
    unoriented: Flag = Field(False, description="the files' headers don't say where left, front and above are")
    outside_percent: float = Field(10.0, ge=0, le=100, description="most of the scar that may lie outside the wall")
    interval_level: float | None = Field(
        None, gt=0, lt=1, description="of the intervals where --run segments and is calibrated; none: 0.9"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="of --run: auto, cpu, cuda or cuda:N")


@dataclass(frozen=True)
class Job:
    """A case to measure: its image, and its label map where there is one."""

    name: str
    case: Case
    labels: Source | None = None


def main() -> int:
    """Exit code 1 where some of several cases can't be measured."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    make_folder(arguments.output)

    from segmed.data.content import volume_files
    from segmed.reports.scar.files import clear_reports
    from segmed.runs import environment, own_files

    about = {"image": arguments.image, "labels": arguments.labels, "run": _learned(arguments), **environment()}
    given = [path for path in (arguments.image, arguments.labels) if path is not None]
    read = [file for path in given for file in volume_files(path, besides=arguments.output)]
    read += [arguments.model] if arguments.model is not None else []
    with bounds(arguments.output, inputs=[*read, *(own_files(arguments.run) if arguments.run else ())]):
        clear_reports(arguments.output)
        return _quantified(arguments, about)


def _quantified(arguments: Arguments, about: dict[str, Any]) -> int:
    from segmed.reports.scar import files
    from segmed.volumes import strip_suffix

    try:
        _check(arguments)
        meaning, jobs, read = _prepared(arguments)
        about["label_values"] = asdict(meaning)
        return measure_cases(
            jobs,
            lambda job: _case(arguments, job, meaning, read(job), about),
            reports=files,
            output=arguments.output,
            about=about,
            many=_many(arguments.image),
        )
    except (ValueError, OSError) as error:
        files.write_error(strip_suffix(arguments.image), " ".join(str(error).split()), arguments.output, about)
        raise


# ---------------------------------------------------------------- options -> cases


def _learned(arguments: Arguments) -> Path | None:
    """The run or the model file that knows what the values of label maps mean."""
    return arguments.run or arguments.model


def _check(arguments: Arguments) -> None:
    if arguments.run is not None and arguments.model is not None:
        raise ConfigError("--run and --model exclude each other: give one")
    if arguments.labels is None and _learned(arguments) is None:
        raise ConfigError("no label map: give --labels FILE, or --run RUN, which segments the image")
    if arguments.labels is not None and _learned(arguments) is None and not (arguments.wall and arguments.scar):
        raise ConfigError(
            "what the values of --labels mean is not known: give --wall and --scar, as --wall 1,4 --scar 4"
        )
    if not arguments.image.exists():
        raise ConfigError(f"image {arguments.image} does not exist: check the path")
    points = {"anterior_mm": arguments.anterior_mm, "inferior_mm": arguments.inferior_mm, "apex_mm": arguments.apex_mm}
    given = [name for name, point in points.items() if point is not None]
    if given and _many(arguments.image):
        raise ConfigError(f"--{given[0].replace('_', '-')} is a point of one case: measure that case by itself")
    if arguments.inferior_mm is not None and arguments.anterior_mm is None:
        raise ConfigError("--inferior-mm without --anterior-mm: give both insertions of the RV")


def _many(path: Path) -> bool:
    from segmed.volumes import is_dicom_folder

    return path.is_dir() and not is_dicom_folder(path)


def _prepared(arguments: Arguments) -> tuple[HeartValues, list[Job], Callable[[Job], Voxels]]:
    """What label values mean, the cases, and how the voxels of one are had."""
    from segmed.cardiac.heart_labels import heart_values

    given = arguments.wall, arguments.scar, arguments.pool, arguments.rv
    if _learned(arguments) is None:
        return heart_values(*given), _labelled(arguments), _read

    from segmed.builders.ensembles import members_of
    from segmed.builders.model_file import opened
    from segmed.builders.observed import load_judged
    from segmed.builders.segmenters import label_set
    from segmed.builders.trained import load_run_config
    from segmed.data.inputs import find_inputs

    with opened([arguments.run] if arguments.run else (), [arguments.model] if arguments.model else ()) as runs:
        config = load_run_config(runs.folders[0])
        meaning = heart_values(*given, labels=label_set(config))
        if arguments.labels is not None:
            return meaning, _labelled(arguments), _read
        if not config.data.spacing_known:
            raise ConfigError(f"{_learned(arguments)} learnt from files of unknown spacing: nothing can be said in ml")
        inputs = find_inputs(arguments.image, config.data, output=arguments.output)
        members = [member for folder in runs.folders for member in members_of(folder)]
        judged = load_judged(runs.folders, members, device=arguments.device, level=arguments.interval_level)
    if judged.why_not:
        print(judged.why_not, file=sys.stderr)
    read = _segmenting(judged, tuple(config.data.images), meaning, arguments)
    return meaning, [Job(item.case.id, item.case) for item in inputs], read


def _labelled(arguments: Arguments) -> list[Job]:
    """The images and label maps that belong together."""
    from segmed.data.case import Case
    from segmed.data.cases import find_volumes
    from segmed.data.pairs import pair_images
    from segmed.data.references import find_references
    from segmed.volumes import Source, strip_suffix

    image, labels = arguments.image, arguments.labels
    if labels is None:
        return []
    if not _many(image):
        if _many(labels):
            raise ConfigError(f"--image is one volume and --labels {labels} a folder: give the label map of the image")
        name = strip_suffix(image.absolute())
        return [Job(name, Case(name, name, {"image": Source(image)}), Source(labels))]
    if not labels.is_dir():
        raise ConfigError(f"--image is a folder and --labels {labels} is none: give the folder of the label maps")
    references, _ = find_references(labels)
    maps = {reference.label.path.resolve() for reference in references}
    folder = arguments.output.resolve()
    volumes = [path for path in find_volumes(image) if path.resolve() not in maps]
    volumes = [path for path in volumes if not path.resolve().is_relative_to(folder)]
    pairing = pair_images(volumes, references, folder=image)
    if pairing.unused:
        names = ", ".join(path.name for path in pairing.unused[:3])
        print(f"{len(pairing.unused)} images have no label map and are left out: {names}", file=sys.stderr)
    jobs = []
    for one in references:
        path = pairing.predictions.get(one.id)
        jobs.append(Job(one.id, Case(one.id, one.subject, {"image": Source(path)} if path else {}), one.label))
    return jobs


# ---------------------------------------------------------------- cases -> voxels


def _read(job: Job) -> Voxels:
    from segmed.cardiac.labelled_image import read_labelled

    if "image" not in job.case.images or job.labels is None:
        raise VolumeError(f"no image belongs to the label map {job.labels and job.labels.path}: name both alike")
    return *read_labelled(job.case.images["image"], job.labels), None


def _segmenting(
    judged: Judged, modalities: Sequence[str], meaning: HeartValues, arguments: Arguments
) -> Callable[[Job], Voxels]:
    """Reads the image of a case and segments it; the label map is kept beside the report."""
    segmenter, output = judged.segmenter, arguments.output

    def read(job: Job) -> Voxels:
        import torch
        from monai.data import MetaTensor

        from segmed.builders.scar_trust import segmented_scar
        from segmed.cardiac.labelled_image import check_spacing
        from segmed.data.cases import Dataset
        from segmed.data.preprocess import read_case
        from segmed.volumes import write_volume

        for source in job.case.images.values():
            check_spacing(source.path)
        volume, _ = read_case(job.case, Dataset("input", Path(), (job.case,), tuple(modalities), segmenter.labels))
        indices, trust = segmented_scar(judged, volume, meaning)
        values = segmenter.labels.decode(indices)
        kept = MetaTensor(torch.from_numpy(values.astype("int32"))[None], affine=volume.affine)
        write_volume((output / job.name if _many(arguments.image) else output) / "labels.nii.gz", kept)
        return volume.numpy()[0], values, volume.affine.numpy(), trust

    return read


# ---------------------------------------------------------------- voxels -> numbers


def _case(arguments: Arguments, job: Job, meaning: HeartValues, voxels: Voxels, about: Mapping[str, Any]) -> ScarCase:
    from segmed.cardiac.grey_zone import grey_zone
    from segmed.cardiac.heart import HeartPosition
    from segmed.cardiac.heart_labels import doubts, heart_of
    from segmed.cardiac.scar import ScarOptions, scar_report
    from segmed.reports.scar.figures import montage_tiles
    from segmed.reports.scar.files import ScarCase
    from segmed.reports.scar.volumes import scar_layers

    image, values, affine, trust = voxels
    heart, scar = heart_of(values, affine, meaning)
    grey, remote, why = grey_zone(
        image, heart, scar, definition=arguments.grey_zone, sd=arguments.grey_zone_sd, remote=arguments.remote
    )
    options = ScarOptions(
        count_obstruction=arguments.count_obstruction,
        outside_percent=arguments.outside_percent,
        grey=grey,
        model=arguments.segments,
    )
    position = HeartPosition(
        arguments.long_axis, arguments.apex_mm, arguments.anterior_mm, arguments.inferior_mm, arguments.level,
        oriented=not arguments.unoriented,
    )  # fmt: skip
    report = scar_report(heart, scar, image=image, position=position, options=options)
    if why is not None:
        report = replace(report, unknown={**report.unknown, "core": why})
    counted = trust is not None and not (arguments.count_obstruction and report.obstruction_ml > 0)
    kept = trust if counted else None
    told = () if kept is None else (kept.words(options.density_g_per_ml),)
    report = replace(report, notes=(*told, *report.notes, *doubts(report, image)))
    more = {
        "image": next(iter(job.case.images.values())).path,
        "labels": job.labels.path if job.labels else "labels.nii.gz",
        "remote": remote,
        "position": asdict(position),
    }
    tiles = montage_tiles(image, heart, report, position=position)
    layers = scar_layers(image, heart, report, oriented=not arguments.unoriented)
    return ScarCase(job.name, report, tiles, {**about, **more}, layers, kept)

"""Function of the heart in numbers: segmed quantify-cine --image FILE --run RUN --output FOLDER"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, PositiveInt

from segmed.commands.case_after_case import measure_cases
from segmed.commands.command_line import parse
from segmed.commands.model_option import OneModel
from segmed.commands.short_help import Groups
from segmed.config import Section
from segmed.errors import ConfigError
from segmed.files import bounds, make_folder

if TYPE_CHECKING:
    import numpy as np

    from segmed.builders.cine_trust import CineTrust
    from segmed.builders.observed import Judged
    from segmed.cardiac.cine_labels import CineValues
    from segmed.data.cine_cases import CineFiles
    from segmed.reports.cine.files import CineCase
    from segmed.volumes.phases import Phases

    # -> values (T, X, Y, Z) of the label maps of all phases, and how far they can be trusted
    Label = Callable[[CineFiles, Phases], tuple[np.ndarray, CineTrust | None]]


class Arguments(Section):
    """EDV, ESV, ejection fraction, stroke volume and LV mass from a short-axis cine, all phases segmented by a run.

    Writes cine.json, curve.csv, summary.csv, curve.png, montage.png, report.html and, where a run segments,
    labels.nii.gz with a label map a phase. End-diastole and end-systole are the phases of the largest and of the
    smallest LV volume. What can't be known (mass without a wall, times the file doesn't say) is left out, and said.
    Of a folder of 4D files each case gets a folder of its own, and summary.csv holds all of them.

    Exit code 0: done; 1: some of several cases can't be measured, the others are; 2: nothing can, and cine.json says
    why.
    """

    often_used: ClassVar[Groups] = {
        "files": ("image", "labels", "run", "model", "output"),
        "values of the label maps": ("pool", "wall", "rv"),
        "how it is measured": ("end_diastole", "end_systole", "phase_ms", "level"),
    }
    image: Path = Field(description="4D file, DICOM cine (its folder, or one with a folder a slice), or folder of 4D")
    labels: Path | None = Field(None, description="4D label maps of all phases, or a folder of them; none: --run")
    run: Path | None = Field(
        None, description="run folder: segments all phases, or says what the values of --labels mean"
    )
    model: OneModel = None
    output: Path = Field(description="folder of the report; files of an earlier one are replaced")
    pool: str | None = Field(
        None, description="values of the LV's blood pool, as 3; with --run also names; none: what the wall encloses"
    )
    wall: str | None = Field(None, description="values of the LV's myocardium, as 2; none: no mass is given")
    rv: str | None = Field(None, description="values of the right ventricle, as 1")
    end_diastole: PositiveInt | None = Field(None, description="phase, from 1; none: the largest LV volume")
    end_systole: PositiveInt | None = Field(None, description="phase, from 1; none: the smallest LV volume")
    phase_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="between two phases; none: as the file says (pixdim[4], trigger times)"
    )
    level: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="of the intervals, where the run is calibrated; none: 0.9"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="of --run: auto, cpu, cuda or cuda:N")


@dataclass(frozen=True)
class _Work:
    """What all cases share.

    Attributes:
        meaning: of the label values.
        label: gives the label maps of a case.
        spacing_known: whether ml mean anything.
        why_none: why there are no intervals, where there are none.
        unlike: says what an image has that no training image had, or nothing.
    """

    meaning: CineValues
    label: Label
    spacing_known: bool
    why_none: str
    unlike: Callable[[Any], str | None] | None = None


def main() -> int:
    """Exit code 1 where some of several cases can't be measured."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    make_folder(arguments.output)

    from segmed.data.content import volume_files
    from segmed.reports.cine.files import clear_reports
    from segmed.runs import environment, own_files

    about = {"image": arguments.image, "labels": arguments.labels, "run": _learned(arguments), **environment()}
    given = [path for path in (arguments.image, arguments.labels) if path is not None]
    read = [file for path in given for file in volume_files(path, besides=arguments.output)]
    read += [arguments.model] if arguments.model is not None else []
    with bounds(arguments.output, inputs=[*read, *(own_files(arguments.run) if arguments.run else ())]):
        clear_reports(arguments.output)
        return _quantified(arguments, about)


def _learned(arguments: Arguments) -> Path | None:
    """The run or the model file that knows what the values of label maps mean."""
    return arguments.run or arguments.model


def _quantified(arguments: Arguments, about: dict[str, Any]) -> int:
    from segmed.data.cine_cases import find_cines, is_one_cine
    from segmed.reports.cine import files
    from segmed.volumes import strip_suffix

    try:
        if arguments.run is not None and arguments.model is not None:
            raise ConfigError("--run and --model exclude each other: give one")
        if arguments.labels is None and _learned(arguments) is None:
            raise ConfigError("no label maps: give --labels FILE, or --run RUN, which segments all phases")
        cines = find_cines(arguments.image, arguments.labels, output=arguments.output)
        many = not is_one_cine(arguments.image)
        work = _prepared(arguments, many=many)
        about["label_values"] = {tissue: getattr(work.meaning, tissue) for tissue in ("pool", "wall", "rv")}
        return measure_cases(
            cines,
            lambda cine: _case(arguments, cine, work, about),
            reports=files,
            output=arguments.output,
            about=about,
            many=many,
        )
    except (ValueError, OSError) as error:
        files.write_error(strip_suffix(arguments.image), " ".join(str(error).split()), arguments.output, about)
        raise


def _prepared(arguments: Arguments, *, many: bool) -> _Work:
    """What label values mean, how label maps are had, and what is known of their volumes."""
    from segmed.cardiac.cine_labels import cine_values
    from segmed.cardiac.volume_interval import NO_INTERVAL

    values = arguments.pool, arguments.wall, arguments.rv
    if _learned(arguments) is None:
        return _Work(cine_values(*values), _read, True, NO_INTERVAL)

    from segmed.builders.ensembles import members_of
    from segmed.builders.model_file import opened
    from segmed.builders.observed import load_judged
    from segmed.builders.segmenters import label_set
    from segmed.builders.trained import load_run_config
    from segmed.data.familiar import familiar_with

    with opened([arguments.run] if arguments.run else (), [arguments.model] if arguments.model else ()) as runs:
        config = load_run_config(runs.folders[0])
        meaning = cine_values(*values, labels=label_set(config))
        known = config.data.spacing_known
        if arguments.labels is not None:
            return _Work(meaning, _read, known, "no interval: the label maps were given")
        if len(config.data.images) != 1:
            names = ", ".join(config.data.images)
            raise ConfigError(
                f"{_learned(arguments)} takes {len(config.data.images)} images a case ({names}), a cine is one"
            )
        familiar = familiar_with(runs.folders[0], spacing_known=known)
        members = [member for folder in runs.folders for member in members_of(folder)]
        judged = load_judged(runs.folders, members, device=arguments.device, level=arguments.level)
    why = NO_INTERVAL if judged.judge is None else "no interval: no label of the run has all values of a tissue"
    why = why if known else "no interval: the run does not know the spacing of its files"
    label = _segmenting(judged, arguments.output, many=many)
    return _Work(meaning, label, known, judged.why_not or why, None if familiar is None else familiar.unlike)


# ---------------------------------------------------------------- cines -> label maps


def _read(cine: CineFiles, phases: Phases) -> tuple[np.ndarray, None]:
    """The label maps that are there."""
    from segmed.volumes.phases import read_phase_labels

    if cine.labels is None:
        raise ConfigError(f"{cine.image} has no label maps: give --labels FILE, or --run RUN")
    return read_phase_labels(cine.labels, phases), None


def _segmenting(judged: Judged, output: Path, *, many: bool) -> Label:
    """Segments phase after phase; the label maps are kept beside the report."""

    def segment(cine: CineFiles, phases: Phases) -> tuple[np.ndarray, CineTrust | None]:
        import numpy as np
        import torch
        from monai.data import MetaTensor
        from rich.console import Console
        from rich.progress import track

        from segmed.builders.cine_trust import segmented_phases
        from segmed.volumes import write_volume

        affine = phases.volume.affine
        each = [MetaTensor(phase[None], affine=affine) for phase in phases.volume.as_tensor()]
        shown = track(each, f"segmenting {cine.name}", console=Console(stderr=True), transient=True)
        indices, trust = segmented_phases(judged, shown)
        values = np.stack([judged.segmenter.labels.decode(phase) for phase in indices]).astype(np.int32)
        like = cine.image if cine.image.is_file() else None
        kept = MetaTensor(torch.from_numpy(values), affine=affine)
        path = (output / cine.name if many else output) / "labels.nii.gz"
        write_volume(path, kept, like=like, step_ms=phases.step_ms)
        return values, trust

    return segment


# ---------------------------------------------------------------- label maps -> numbers


def _case(arguments: Arguments, cine: CineFiles, work: _Work, about: Mapping[str, Any]) -> CineCase:
    from dataclasses import replace

    from segmed.cardiac.function import LEVEL, CineOptions, cine_report
    from segmed.cardiac.volume_interval import no_interval
    from segmed.reports.cine.figures import ends_montage
    from segmed.reports.cine.files import CineCase
    from segmed.volumes.phases import read_phases

    phases = read_phases(cine.image, step_ms=arguments.phase_ms)
    values, trust = work.label(cine, phases)
    options = CineOptions(
        spacing_known=work.spacing_known,
        diastole=None if arguments.end_diastole is None else arguments.end_diastole - 1,
        systole=None if arguments.end_systole is None else arguments.end_systole - 1,
        level=LEVEL if arguments.level is None else arguments.level,
        interval=no_interval if trust is None else trust.interval,
        why_none=work.why_none,
    )
    affine = phases.volume.affine.numpy()
    report = cine_report(values, affine, work.meaning, times_ms=phases.times_ms, options=options)
    if phases.remark:
        report = replace(report, unknown={**report.unknown, "heart rate": phases.remark})
    strange = work.unlike(phases.volume[report.diastole][None]) if work.unlike is not None else None
    if strange is not None:
        report = replace(report, notes=(*report.notes, f"the image is {strange}"))
    montage = ends_montage(phases.volume.numpy(), values, affine, work.meaning, (report.diastole, report.systole))
    more = {"image": cine.image, "labels": cine.labels or "labels.nii.gz"}
    ends = {"end-diastole": report.diastole, "end-systole": report.systole}
    flags = {} if trust is None else {when: trust.verdict(phase) for when, phase in ends.items()}
    return CineCase(
        cine.name, report, montage, {**about, **more}, {when: (each.flag, each.reason) for when, each in flags.items()}
    )

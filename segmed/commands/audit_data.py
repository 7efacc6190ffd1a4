"""Open every file of a data set and say what must be mended: segmed audit FOLDER --output FOLDER"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field, PositiveInt

from segmed.commands.command_line import parse
from segmed.config import Auto, DataConfig, Layout, ManifestLayout, PatternLayout, PhantomLayout, Section
from segmed.config.classification import ClassificationConfig
from segmed.config.images import ClassDataConfig
from segmed.config.reading import classifies, load_as, load_config
from segmed.errors import ConfigError
from segmed.files import bounds, make_folder
from segmed.machine import cores

if TYPE_CHECKING:
    from rich.console import Console

    from segmed.data.audit import Audit, Repair
    from segmed.data.cases import Dataset


class Arguments(Section):
    """Open every file of a data set: what it is like, what must be mended, and what would leak into a figure.

    Volumes with label maps, and images or volumes with classes (class folders, Training and Testing, a table). The
    layout is guessed from the folder, or taken from --config, --images or --manifest. Writes audit.json and
    report.html, and of images with classes leaks.png. Exit code 0: nothing to mend; 1: something must be mended; 2:
    the folder or an option can't be used.
    """

    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = Field(
        None, description="the data set; none: data.root of --config"
    )
    output: Path | None = Field(
        None, description="folder for audit.json, the figure, and what a second audit need not do again"
    )
    write_config: Path | None = Field(
        None,
        description="guess layout, labels and subjects of FOLDER, and write them as a commented YAML to begin with",
    )
    config: Path | None = Field(None, description="YAML of an experiment, whose data section says what the files are")
    images: tuple[str, ...] = Field(
        (), description="NAME=PATTERN of every image below the folder, e.g. 'LGE={case}/{case}_LGE.nii.gz'"
    )
    label: str | None = Field(None, description="with --images: pattern of the label maps")
    manifest: str | None = Field(None, description="CSV or JSON table below the folder")
    labels: tuple[str, ...] = Field((), description="NAME=VALUE of every label, e.g. scar=2221 myocardium=200,1220")
    ignore: tuple[int, ...] = Field((), description="label values that are neither trained nor scored")
    split: Path | None = Field(
        None, description="split.json of a run: what its parts have in common; none: the published parts, if any"
    )
    workers: PositiveInt | Auto = Field("auto", description="processes; auto: one a core, at most 8")
    fix_geometry: tyro.conf.FlagCreatePairsOff[bool] = Field(
        False,
        description="first rewrite the headers of label maps whose shape, but not whose place, is that of their image; "
        "what was changed, with the old affines, is written to geometry_repairs.json",
    )


def main() -> int:
    """Exit code 1 where something must be mended."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if arguments.write_config is not None:
        return _write_config(arguments.write_config, arguments.folder)
    if arguments.output is None:
        raise ConfigError("no folder for audit.json is named: give --output FOLDER")
    data = _data_config(arguments)
    return _audit_classes(data, arguments) if isinstance(data, ClassDataConfig) else _audit_volumes(data, arguments)


def _write_config(path: Path, folder: Path | None) -> int:
    """Write a YAML to begin with; what is there stays."""
    from segmed.data.leaks.starter import starter_config
    from segmed.files import atomic_write_text

    if folder is None:
        raise ConfigError("--write-config looks at a folder: name it")
    if path.exists():
        raise ConfigError(f"{path} is there already: choose another name, or take it away")
    atomic_write_text(path, starter_config(folder))
    print(f"written: {path}; read it, then segmed audit --config {path} --output FOLDER")
    return 0


def _output(arguments: Arguments) -> Path:
    return arguments.output or Path()


def _workers(arguments: Arguments) -> int:
    return min(8, cores()) if arguments.workers == "auto" else arguments.workers


def _audit_classes(data: ClassDataConfig, arguments: Arguments) -> int:
    from rich.console import Console

    from segmed.data.images.image_dataset import read_classes
    from segmed.data.images.image_splits import ClassSplit
    from segmed.data.leaks.image_audit import audit_classes
    from segmed.data.split_file import PARTS
    from segmed.reports.audit.leak_figures import leak_figure
    from segmed.reports.audit.leak_text import class_audit_text
    from segmed.reports.audit.page import write_class_audit_page
    from segmed.reports.drawing.slices import save_figure

    if arguments.fix_geometry:
        raise ConfigError("--fix-geometry is for label maps: leave it out for images with classes")
    console = Console(soft_wrap=True, highlight=False)
    dataset = read_classes(data)
    split = None if arguments.split is None else ClassSplit.load(arguments.split)
    parts = None if split is None else {part: getattr(split, part) for part in PARTS}
    cache = _output(arguments) / "cache"
    tables = [path for path in (arguments.config, arguments.split) if path is not None]
    make_folder(_output(arguments))
    with bounds(_output(arguments), inputs=[*(item.path for item in dataset.items), *tables]):
        audit = audit_classes(dataset, parts=parts, cache=cache, workers=_workers(arguments), progress=True)
        audit.save_json(_output(arguments) / "audit.json")
        save_figure(leak_figure(audit, dataset, parts=parts), _output(arguments) / "leaks.png")
        page = write_class_audit_page(audit, _output(arguments), root=data.root)
    console.print(class_audit_text(audit))
    console.print(f"all of it: {_output(arguments) / 'audit.json'}, leaks.png and {page}", markup=False)
    return 1 if audit.errors else 0


def _audit_volumes(data: DataConfig, arguments: Arguments) -> int:
    from dataclasses import replace

    from rich.console import Console

    from segmed.data.cases import read_dataset

    console = Console(soft_wrap=True, highlight=False)
    learns_without = arguments.config is not None and load_config(arguments.config).takes_incomplete
    dataset = replace(read_dataset(data, complete=False), incomplete=learns_without)
    make_folder(_output(arguments))
    with bounds(_output(arguments), inputs=_read_files(arguments, dataset)):
        return _audited(data, arguments, dataset, console)


def _read_files(arguments: Arguments, dataset: Dataset) -> list[Path]:
    """What is audited; of label maps that are to be mended only the images."""
    from dataclasses import replace

    from segmed.data.content import case_files

    cases = [replace(case, label=None) for case in dataset.cases] if arguments.fix_geometry else dataset.cases
    tables = [path for path in (arguments.config, arguments.split, dataset.root / "dataset.json") if path is not None]
    return [*case_files(cases), *tables, *([dataset.root / arguments.manifest] if arguments.manifest else ())]


def _audited(data: DataConfig, arguments: Arguments, dataset: Dataset, console: Console) -> int:
    from segmed.data.audit import audit_dataset, fix_geometry
    from segmed.data.integrity import check_files
    from segmed.reports.audit.page import write_audit_page
    from segmed.reports.audit.text import audit_text

    if arguments.fix_geometry:
        log = _output(arguments) / "geometry_repairs.json"
        for repair in fix_geometry(dataset, log=log):
            console.print(_line(repair), markup=False)
    memory, workers = _output(arguments) / "cache", _workers(arguments)
    audit = audit_dataset(dataset, workers=workers, progress=True, other_findings=check_files(dataset), memory=memory)
    audit = _with_leaks(audit, dataset, arguments.split, memory, workers)
    audit.save_json(_output(arguments) / "audit.json")
    console.print(audit_text(audit, name=dataset.name, pictures=dataset.are_pictures))
    if not dataset.are_pictures and not data.spacing_known:
        console.print("data.spacing_known is false: spacings are nominal, and so is every figure in mm or ml")
    page = write_audit_page(
        audit, _output(arguments), name=dataset.name, root=dataset.root, pictures=dataset.are_pictures
    )
    console.print(f"all of it: {_output(arguments) / 'audit.json'} and {page}", markup=False)
    return 1 if audit.errors else 0


def _with_leaks(audit: Audit, dataset: Dataset, split: Path | None, memory: Path, workers: int) -> Audit:
    """With findings about volumes that show the same, unknown subjects, and what a split has on several sides."""
    from dataclasses import replace

    from segmed.data.leaks.volume_twins import check_volumes, volume_twins
    from segmed.data.splits import Split
    from segmed.data.subjects import subject_findings

    parts = None if split is None else Split.load(split)
    twins = volume_twins(dataset, audit, memory=memory, workers=workers)
    findings = [*check_volumes(dataset, twins, parts), *subject_findings(dataset)]
    return replace(
        audit, findings=tuple(sorted((*audit.findings, *findings), key=lambda finding: finding.severity != "error"))
    )


def _data_config(arguments: Arguments) -> DataConfig | ClassDataConfig:
    """The data section of the config, or one made of the options."""
    if not arguments.config and arguments.folder is None:
        raise ConfigError("name the folder of a data set, or give --config")
    if (classes := _class_data(arguments)) is not None:
        return classes
    data = load_config(arguments.config).data if arguments.config else DataConfig()
    changes: dict[str, object] = {}
    if arguments.folder is not None:
        changes["root"] = arguments.folder
    if arguments.labels:
        changes["labels"] = _labels(arguments.labels)
    if arguments.ignore:
        changes["ignore"] = arguments.ignore
    layout = _layout(arguments, data)
    return data.model_copy(update={**changes, "layout": layout})


def _class_data(arguments: Arguments) -> ClassDataConfig | None:
    """Where the images with classes are; None where label maps are meant."""
    root = {} if arguments.folder is None else {"root": arguments.folder}
    if arguments.config:
        if not classifies(arguments.config):
            return None
        return load_as(ClassificationConfig, arguments.config).data.model_copy(update=root)
    if arguments.images or arguments.label or arguments.labels or arguments.folder is None:
        return None
    from segmed.data.leaks.guess_classes import guess_class_layout

    layout = guess_class_layout(arguments.folder, table=arguments.manifest)
    return None if layout is None else ClassDataConfig(root=arguments.folder, layout=layout)


def _layout(arguments: Arguments, data: DataConfig) -> Layout:
    if arguments.images:
        return PatternLayout(images=dict(_pair(text, "images") for text in arguments.images), label=arguments.label)
    if arguments.label:
        raise ConfigError("--label needs --images: give the pattern of the images too")
    if arguments.manifest:
        return ManifestLayout(file=arguments.manifest)
    if arguments.config and not isinstance(data.layout, PhantomLayout):
        return data.layout
    from segmed.data.cases import guess_layout

    return guess_layout(arguments.folder or data.root)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"--{option} '{text}' is not NAME=VALUE: write e.g. name={text}")
    return name, value


def _labels(texts: tuple[str, ...]) -> dict[str, list[int]]:
    labels = {}
    for name, values in (_pair(text, "labels") for text in texts):
        try:
            labels[name] = [int(value) for value in values.split(",")]
        except ValueError:
            raise ConfigError(f"--labels '{name}={values}': values are whole numbers, e.g. {name}=200,1220") from None
    return labels


def _line(repair: Repair) -> str:
    return f"rewrote {repair.file} ({'header' if repair.change == 'header' else 'order of axes'}): {repair.difference}"

"""Methods on the same test cases: segmed compare --config FILE, or --methods supervised=RUN,RUN patch=RUN"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import tyro
from pydantic import Field, PositiveInt

from segmed.commands.command_line import parse
from segmed.commands.compared_paths import named_paths
from segmed.commands.short_help import Groups
from segmed.config import EvaluateConfig, Section, SegmentationConfig
from segmed.config.compare import CompareConfig, Convention
from segmed.config.jobs import EngineName, JobsConfig
from segmed.config.reading import load_yaml, validate
from segmed.errors import ConfigError
from segmed.evaluate.structures import parse_structures
from segmed.files import bounds, make_folder
from segmed.runs import is_run, own_files

if TYPE_CHECKING:
    from segmed.compare.baselines import Baselines
    from segmed.evaluate.results import Method, Result

PUBLISHED = {"zabihollahy2020": "dice_zabihollahy2020"}  # convention -> the only metric in its files
FILES = (
    "comparison.md, comparison.csv, comparison.json, comparison.png, agreement.csv where volumes are known, report.html"
)


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


def main() -> int:
    """Print the tables."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if arguments.config is not None and (arguments.on != "here" or arguments.plan_only):
        return train_and_compare(arguments, arguments.config)
    if arguments.on != "here" or arguments.plan_only or arguments.submit:
        raise ConfigError("--on, --submit and --plan-only are of rows that have commands: give --config, and --on")
    if arguments.config is not None:
        compare_rows(arguments, arguments.config)
    else:
        compare_results(arguments)
    return 0


def compare_results(arguments: Arguments) -> None:
    """Compare what is there: runs, evaluations, label maps."""
    if arguments.output is None:
        raise ConfigError("--output is missing: name the folder for tables and figure")
    if arguments.skip_missing or arguments.data_root or arguments.convention != "standard":
        raise ConfigError("--skip-missing, --data-root and --convention go with --config: add it")
    paths = named_paths(arguments.methods)
    reference = arguments.reference or next(iter(paths))
    if reference not in paths:
        raise ConfigError(f"--reference {reference} is no method: choose one of {', '.join(paths)}")

    compare_paths(arguments, paths, reference, arguments.output)


def compare_paths(arguments: Arguments, paths: Mapping[str, Sequence[Path]], reference: str, output: Path) -> None:
    """Compare the figures of runs and evaluations, by method."""
    from segmed.evaluate.classifier_runs import is_classifier

    with bounds(output, inputs=_read_files(arguments, paths)):
        make_folder(output)
        if any(is_classifier(path) for own in paths.values() for path in own):
            compare_classifier_runs(arguments, paths, reference, output)
        else:
            compare_segmentations(arguments, paths, reference, output)


def _read_files(arguments: Arguments, paths: Mapping[str, Sequence[Path]]) -> list[Path]:
    """The files of runs, evaluations and folders of label maps that are compared."""
    from segmed.data.content import volume_files

    files: list[Path] = []
    for path in [*(path for own in paths.values() for path in own), *([arguments.run] if arguments.run else ())]:
        if is_run(path) or not path.is_dir():
            files += own_files(path) if path.is_dir() else [path]
        else:
            files += [path / "cases.csv", path / "summary.json"]
            files += [] if (path / "cases.csv").is_file() else volume_files(path)
    return files + (volume_files(arguments.references) if arguments.references else [])


def compare_segmentations(
    arguments: Arguments, paths: Mapping[str, Sequence[Path]], reference: str, output: Path
) -> None:
    """Compare runs of segmentation, evaluations, label maps."""
    from segmed.evaluate.comparison import compare_methods
    from segmed.evaluate.results import Method, has_table, read_result
    from segmed.reports.comparison.text import write_comparison

    every = [path for own in paths.values() for path in own]
    of_path = {path: read_result(path) for path in every if is_run(path) or has_table(path)}
    others = [path for path in every if path not in of_path]
    if others:
        of_path |= _scored(others, arguments, [path for path in of_path if is_run(path)])
    methods = [Method(name, tuple(of_path[path] for path in own)) for name, own in paths.items()]
    comparison = compare_methods(
        methods, reference=reference, resamples=arguments.bootstrap or 2000, common_cases=arguments.common_cases
    )
    _say(write_comparison(comparison, output, title=_title(arguments, paths, reference)), comparison.notes)
    print(f"written: {output} ({FILES})")


def compare_classifier_runs(
    arguments: Arguments, paths: Mapping[str, Sequence[Path]], reference: str, output: Path
) -> None:
    """Compare classification runs."""
    if arguments.references or arguments.labels or arguments.run:
        raise ConfigError("--references, --labels and --run are of label maps: leave them out for classifiers")

    from segmed.evaluate.classifier_comparison import compare_classifiers
    from segmed.evaluate.classifier_runs import read_classifiers
    from segmed.reports.classifier_comparison.text import write_classifier_comparison

    comparison = compare_classifiers(
        read_classifiers(paths),
        reference=reference,
        resamples=arguments.bootstrap or 2000,
        common_images=arguments.common_cases,
    )
    text = write_classifier_comparison(comparison, output, title=_title(arguments, paths, reference))
    _say(text, (*comparison.run_notes, *comparison.notes))
    print(f"written: {output} ({FILES})")


def _title(arguments: Arguments, paths: Mapping[str, Sequence[Path]], reference: str) -> str:
    return arguments.title or f"{', '.join(name for name in paths if name != reference)} against {reference}"


def _say(text: str, notes: Sequence[str]) -> None:
    print(text)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


# ---------------------------------------------------------------- rows of a config


def read_comparison(arguments: Arguments, path: Path) -> CompareConfig:
    """The comparison of a YAML, as the command line changes it."""
    if arguments.methods:
        raise ConfigError("--config and --methods exclude each other: add the runs to the config as rows")
    config = validate(CompareConfig, load_yaml(path), where=str(path))
    given = {"output": arguments.output, "reference": arguments.reference, "name": arguments.title}
    config = config.model_copy(update={name: value for name, value in given.items() if value is not None})
    if arguments.data_root is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": arguments.data_root})})
    if arguments.bootstrap is not None:
        drawn = config.evaluate.model_copy(update={"bootstrap": arguments.bootstrap})
        config = config.model_copy(update={"evaluate": drawn})
    if config.reference not in config.rows:
        raise ConfigError(f"--reference {config.reference} is no row: choose one of {', '.join(config.rows)}")
    if config.by_own_tests and arguments.convention != "standard":
        raise ConfigError("--convention scores label maps in a region: give data.regions in the config")
    return config


def train_and_compare(arguments: Arguments, path: Path) -> int:
    """Train the runs of a config's rows as jobs and compare them, or show the jobs; exit code 1 where one failed."""
    from segmed.commands.as_jobs import check_submit
    from segmed.commands.compare_jobs import plan_of_comparison
    from segmed.jobs.carriers import run_plan, with_given_needs
    from segmed.jobs.job_table import plan_text

    check_submit(arguments.on, submit=arguments.submit)
    suffix = "" if arguments.convention == "standard" else f"_{arguments.convention}"
    options = ["--convention", arguments.convention] if suffix else []
    plan = plan_of_comparison(
        read_comparison(arguments, path),
        options=[*options, *(["--skip-missing"] if arguments.skip_missing else [])],
        page=f"report{suffix}.html",
        skip_missing=arguments.skip_missing,
        look=arguments.plan_only,
        again=_again(arguments),
    )
    if arguments.plan_only:
        print(plan_text(with_given_needs(plan, arguments.jobs)))
        return 0
    code = run_plan(plan, arguments.on, arguments.jobs, submit=arguments.submit)
    if plan.jobs[-1].done:
        print(f"look: {plan.jobs[-1].proof}")
    return code


def _again(arguments: Arguments) -> tuple[str, ...]:
    """The command line of a comparison without its engine."""
    words = ["segmed", "compare"]
    for name in ("config", "data_root", "output", "reference", "title", "bootstrap", "convention"):
        if (value := getattr(arguments, name)) != Arguments.model_fields[name].default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return (*words, "--skip-missing") if arguments.skip_missing else tuple(words)


def compare_rows(arguments: Arguments, path: Path) -> None:
    """Compare the rows of a config; methods among them are run."""
    config = read_comparison(arguments, path)
    if config.by_own_tests:
        compare_own_tests(arguments, config)
        return

    from segmed.compare.baselines import constant_rows
    from segmed.compare.prepare import prepare_comparison
    from segmed.compare.rows import run_rows
    from segmed.data.content import case_files

    make_folder(config.output)
    comparison = prepare_comparison(config, skip_missing=arguments.skip_missing)
    print("".join(f"LEFT OUT: {line}\n" for line in comparison.missing.values()), end="", file=sys.stderr)
    folds = f" in {len(comparison.splits)} folds" if len(comparison.splits) > 1 else ""
    print(f"{len(config.rows) - len(comparison.missing)} rows on {len(comparison.tested)} test cases{folds}")
    left_out = [f"left out: {line}" for line in comparison.missing.values()]
    used = [run.path for runs in (*comparison.runs.values(), comparison.regions.values()) for run in runs]
    read = [path, *case_files(comparison.dataset.cases), *(file for run in used for file in own_files(run))]
    with bounds(config.output, inputs=read):
        write_rows(run_rows(comparison), constant_rows(comparison), config, arguments.convention, left_out)


def compare_own_tests(arguments: Arguments, config: CompareConfig) -> None:
    """Compare the figures of the rows' own tests: a config without a region in which to score anew."""
    from segmed.compare.prepare import paths_of_rows, refuse_missing

    paths, missing = paths_of_rows(config)
    refuse_missing(config, missing, skip_missing=arguments.skip_missing)
    print("".join(f"LEFT OUT: {line}\n" for line in missing.values()), end="", file=sys.stderr)
    own = arguments.model_copy(update={"title": config.name, "bootstrap": config.evaluate.bootstrap})
    there = {name: runs for name, runs in paths.items() if name not in missing}
    compare_paths(own, there, config.reference, config.output)


def write_rows(
    own: Sequence[Method], constants: Baselines, config: CompareConfig, convention: Convention, left_out: Sequence[str]
) -> None:
    """Write and print the tables of a config's rows and of constant predictions."""
    from segmed.compare.tested_families import families_of
    from segmed.evaluate.comparison import compare_methods
    from segmed.metrics.mask_metrics import metrics_shown
    from segmed.reports.comparison.document import write_comparison_page
    from segmed.reports.comparison.overview import overview_document, write_agreement, write_overview
    from segmed.reports.comparison.text import comparison_document, write_comparison

    metrics, methods = metrics_shown("main", "rows"), [*own, *constants.methods]
    title, suffix = config.name, ""
    if convention != "standard":
        metrics, title, suffix = (PUBLISHED[convention],), f"{config.name}, convention {convention}", f"_{convention}"
        methods = [*own, *constants.methods[:1]]  # the others have no label map
    elif any(row["true_ml"] == row["true_ml"] for row in methods[0].results[0].rows):  # no NaN: a phantom
        metrics += metrics_shown("phantoms")
    families, dropped = families_of(config, {method.name for method in methods})
    comparison = compare_methods(
        methods, reference=config.reference, resamples=config.evaluate.bootstrap, metrics=metrics, families=families,
        shares={config.target: constants.shares},
    )  # fmt: skip
    comparison = replace(comparison, notes=(*left_out, *dropped, *comparison.notes))
    write_comparison(comparison, config.output, title=title, suffix=suffix)
    _say(write_overview(comparison, config.output, title=title, suffix=suffix), comparison.notes)
    if not suffix:
        volume = f"{config.target} volume"
        write_agreement(
            methods, config.target, config.output / "bland_altman.png", title=f"{volume}: label map − reference"
        )
        if "true_avd_ml" in metrics:
            path = config.output / "bland_altman_truth.png"
            write_agreement(methods, config.target, path, title=f"{volume}: label map − truth", truth="true_ml")
    documents = [make(comparison, title=title, written=str) for make in (overview_document, comparison_document)]
    page = write_comparison_page(documents, config.output, suffix=suffix)
    print(f"written: {config.output} (overview{suffix} and comparison{suffix}: .md, .csv; figures: .png; {page.name})")


# ---------------------------------------------------------------- folders of label maps


def _scored(folders: Sequence[Path], arguments: Arguments, runs: Sequence[Path]) -> dict[Path, Result]:
    """Figures of folders that hold label maps only."""
    if arguments.references is None:
        raise ConfigError(
            f"{folders[0]} is neither a run nor an evaluation: if it holds label maps, give --references FOLDER"
        )
    given = parse_structures(arguments.labels) if arguments.labels else None
    experiment = _experiment(arguments.run, runs)

    from segmed.data.pairs import find_references
    from segmed.evaluate.scoring import Scoring, default_workers, known_structures, score_folder

    data = experiment.data if experiment else None
    references, named = find_references(arguments.references, data=data)
    scoring = Scoring(
        given or known_structures(data, named),
        experiment.evaluate if experiment else EvaluateConfig(),
        spacing_known=data is None or data.spacing_known,
    )
    workers = arguments.workers or default_workers()
    return {folder: score_folder(folder, references, scoring, workers=workers) for folder in folders}


def _experiment(run: Path | None, runs: Sequence[Path]) -> SegmentationConfig | None:
    from segmed.evaluate.results import run_config

    if run is not None and not is_run(run):
        raise ConfigError(f"{run} is no run: it holds no config.yaml")
    chosen = run or next(iter(runs), None)
    return run_config(chosen) if chosen is not None else None

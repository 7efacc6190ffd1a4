"""The rows of a comparison's config: trained as jobs where that is asked for, run, and compared."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segmed.commands.compare_options import Arguments
from segmed.commands.compare_results import compare_paths, say
from segmed.config.compare import CompareConfig, Convention
from segmed.config.reading import load_yaml, validate
from segmed.errors import ConfigError
from segmed.files import bounds, make_folder
from segmed.runs import own_files

if TYPE_CHECKING:
    from segmed.compare.baselines import Baselines
    from segmed.evaluate.results import Method

PUBLISHED = {"zabihollahy2020": "dice_zabihollahy2020"}  # convention -> the only metric in its files


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
    say(write_overview(comparison, config.output, title=title, suffix=suffix), comparison.notes)
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

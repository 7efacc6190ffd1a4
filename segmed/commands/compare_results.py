"""Figures that are there, compared: of runs, of evaluations, and of anybody's label maps, which are scored first."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segmed.commands.compare_options import Arguments
from segmed.commands.compared_paths import named_paths
from segmed.config import EvaluateConfig, SegmentationConfig
from segmed.errors import ConfigError
from segmed.evaluate.structures import parse_structures
from segmed.files import bounds, make_folder
from segmed.runs import is_run, own_files

if TYPE_CHECKING:
    from segmed.evaluate.results import Result

FILES = (
    "comparison.md, comparison.csv, comparison.json, comparison.png, agreement.csv where volumes are known, report.html"
)


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
    say(write_comparison(comparison, output, title=_title(arguments, paths, reference)), comparison.notes)
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
    say(text, (*comparison.run_notes, *comparison.notes))
    print(f"written: {output} ({FILES})")


def _title(arguments: Arguments, paths: Mapping[str, Sequence[Path]], reference: str) -> str:
    return arguments.title or f"{', '.join(name for name in paths if name != reference)} against {reference}"


def say(text: str, notes: Sequence[str]) -> None:
    """Print tables, and what has to be said of them on stderr."""
    print(text)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


# ---------------------------------------------------------------- folders of label maps


def _scored(folders: Sequence[Path], arguments: Arguments, runs: Sequence[Path]) -> dict[Path, Result]:
    """Figures of folders that hold label maps only."""
    if arguments.references is None:
        raise ConfigError(
            f"{folders[0]} is neither a run nor an evaluation: if it holds label maps, give --references FOLDER"
        )
    given = parse_structures(arguments.labels) if arguments.labels else None
    experiment = _experiment(arguments.run, runs)

    from segmed.data.references import find_references
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

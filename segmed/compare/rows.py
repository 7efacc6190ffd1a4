"""The rows of a comparison -> results of each; what is done already, by the same settings, is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from segmed.compare.classical_row import ClassicalRow
from segmed.compare.cleaning_choice import cleaning_of_run
from segmed.compare.finished_cases import Records, folder_of, rows_of, settings_of
from segmed.compare.method_inputs import label_indices, read_with_reference
from segmed.compare.prepare import PreparedComparison
from segmed.compare.reference_region import ReferenceRegionRow
from segmed.compare.row_figures import CaseScorer
from segmed.compare.tested_runs import TestedRun
from segmed.evaluate.case_rows import Row
from segmed.evaluate.results import Method, Result
from segmed.volumes import spacing_mm


def run_rows(comparison: PreparedComparison, *, say: Callable[[str], None] = print) -> list[Method]:
    """Run what is not done, score all of it.

    Args:
        comparison: of `prepare_comparison`.
        say: takes a line of progress.

    Returns:
        A method a row, in the order of the config, for `compare_methods`.

    Raises:
        SegmenterError: a method can't be built or trained. One that fails on a test case has a miss there.
    """
    methods = []
    for name in (name for name in comparison.config.rows if name not in comparison.missing):
        began = time.perf_counter()
        methods.append(Method(name, _results(comparison, name)))
        say(f"{name}: {len(comparison.tested)} cases, {time.perf_counter() - began:.1f} s")
    return methods


def _results(comparison: PreparedComparison, name: str) -> tuple[Result, ...]:
    """Of a row, one a seed."""
    row, runs = comparison.config.rows[name], comparison.runs.get(name)
    if runs is None:
        return (ClassicalRow(comparison, name, row).run(),)
    if row.given:
        return tuple(ReferenceRegionRow(comparison, name, row, run, seed).run() for seed, run in enumerate(runs))
    return tuple(_scored_run(comparison, name, run, seed) for seed, run in enumerate(runs))


def _scored_run(comparison: PreparedComparison, name: str, run: TestedRun, seed: int) -> Result:
    """The label maps of a run's own test, scored as those of the other rows are."""
    scorer = CaseScorer(comparison.config, comparison.dataset.labels)
    records = Records(
        folder_of(comparison, name) / f"run_{seed}", settings_of(comparison) | {"run": str(run.path.resolve())}
    )
    rows: list[Row] = []
    for case in (comparison.cases[id] for id in comparison.tested):
        path = run.label_maps[case.id]
        record = records.read(case, path)
        if record is None:
            image, reference = read_with_reference(case, comparison)
            prediction = label_indices(path, comparison.dataset.labels, like=image)
            figures = scorer.rows(
                prediction, reference.as_tensor()[0].numpy(), case=case, spacing_mm=spacing_mm(image.affine)
            )
            record = records.write(case, {"rows": figures}, path)
        rows += rows_of(record)
    subjects = {id: comparison.cases[id].subject for id in comparison.tested}
    return replace(
        run.result,
        rows=rows,
        subjects=subjects,
        missed=comparison.config.evaluate.missed,
        cleaning=cleaning_of_run(run),
    )

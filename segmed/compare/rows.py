"""The rows of a contest -> results of each; what is done already, by the same settings, is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from segmed.compare.classical_row import ClassicalRow
from segmed.compare.finished_cases import Records, folder_of, rows_of, settings_of
from segmed.compare.method_inputs import label_indices, read_with_reference
from segmed.compare.prepare import Contest
from segmed.compare.reference_region import GivenRow
from segmed.compare.row_figures import Judge
from segmed.compare.tested_runs import TestedRun
from segmed.evaluate.case_rows import Row
from segmed.evaluate.results import Method, Result
from segmed.volumes import spacing_mm


def run_contest(contest: Contest, *, say: Callable[[str], None] = print) -> list[Method]:
    """Run what is not done, score all of it.

    Args:
        contest: of `open_contest`.
        say: takes a line of progress.

    Returns:
        A method a row, in the order of the config, for `compare_methods`.

    Raises:
        SegmenterError: a method can't be built or trained. One that fails on a test case has a miss there.
    """
    methods = []
    for name in (name for name in contest.config.rows if name not in contest.missing):
        began = time.perf_counter()
        methods.append(Method(name, _results(contest, name)))
        say(f"{name}: {len(contest.tested)} cases, {time.perf_counter() - began:.1f} s")
    return methods


def _results(contest: Contest, name: str) -> tuple[Result, ...]:
    """Of a row, one a seed."""
    row, runs = contest.config.rows[name], contest.runs.get(name)
    if runs is None:
        return (ClassicalRow(contest, name, row).run(),)
    if row.given:
        return tuple(GivenRow(contest, name, row, run, seed).run() for seed, run in enumerate(runs))
    return tuple(_scored_run(contest, name, run, seed) for seed, run in enumerate(runs))


def _scored_run(contest: Contest, name: str, run: TestedRun, seed: int) -> Result:
    """The label maps of a run's own test, scored as those of the other rows are."""
    judge = Judge(contest.config, contest.dataset.labels)
    records = Records(folder_of(contest, name) / f"run_{seed}", settings_of(contest) | {"run": str(run.path.resolve())})
    rows: list[Row] = []
    for case in (contest.cases[id] for id in contest.tested):
        path = run.label_maps[case.id]
        record = records.read(case, path)
        if record is None:
            image, reference = read_with_reference(case, contest)
            found = label_indices(path, contest.dataset.labels, like=image)
            figures = judge.rows(
                found, reference.as_tensor()[0].numpy(), case=case, spacing_mm=spacing_mm(image.affine)
            )
            record = records.write(case, {"rows": figures}, path)
        rows += rows_of(record)
    subjects = {id: contest.cases[id].subject for id in contest.tested}
    return replace(run.result, rows=rows, subjects=subjects, missed=contest.config.evaluate.missed)

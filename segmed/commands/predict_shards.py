"""A prediction whose cases are dealt out to jobs: the plan, one shard of it, and the merge of their records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segmed.config import Section
from segmed.config.jobs import EngineName, JobsConfig
from segmed.errors import ConfigError
from segmed.files import bounds

if TYPE_CHECKING:
    from segmed.data.inputs import Input
    from segmed.segment.record import CaseReport

OF_ENGINES = ("on", "shards", "shard", "merge", "submit", "jobs", "plan_only")
ELSEWHERE = 16  # shards where this machine does not say how many run at once


def predict_in_shards(
    arguments: Section, inputs: Sequence[Input], *, read: Sequence[Path], output: Path, on: EngineName, jobs: JobsConfig
) -> int:
    """Carry out a prediction as jobs, or show them; exit code 1 where a shard or a case failed.

    Args:
        arguments: of segmed predict, from which the command line of a shard is written.
        inputs: all cases.
        read: files that must not be written.
        output: folder of the label maps.
        on: name of an engine.
        jobs: what the command line says of the jobs.
    """
    from segmed.commands.as_jobs import gpus_of_one
    from segmed.jobs.carriers import run_plan, with_given_needs
    from segmed.jobs.job import Needs
    from segmed.jobs.job_table import plan_text
    from segmed.jobs.shards import Shards, plan_of_shards

    shards = Shards(output.absolute())
    given = {name: getattr(arguments, name) for name in OF_ENGINES}
    count = given["shards"] or _usual_count(on, jobs)
    words = command_of(arguments)
    if given["plan_only"]:
        plan = plan_of_shards(shards, min(count, len(inputs)), words, words, Needs(gpus=gpus_of_one()))
        print(f"{len(inputs)} cases in {min(count, len(inputs))} shards")
        print(plan_text(with_given_needs(plan, jobs)))
        return 0
    with bounds(output, inputs=read):
        count = shards.divide(inputs, count, again=bool(getattr(arguments, "overwrite", False)))
        for number in range(count):
            if _failed_before(shards.whole(number)):
                shards.whole(number).unlink()  # a case that failed is tried again
    plan = plan_of_shards(shards, count, words, (*words, "--shards", str(count)), Needs(gpus=gpus_of_one()))
    code = run_plan(plan, on, jobs, submit=bool(given["submit"]))
    return code or (1 if on != "slurm" and _print_outcome(output) else 0)


def _failed_before(whole: Path) -> bool:
    from segmed.evaluate.results import json_facts

    return bool(json_facts(whole).get("failed"))


def _usual_count(on: EngineName, jobs: JobsConfig) -> int:
    from segmed.jobs.pool import here

    if jobs.at_once is not None:
        return jobs.at_once
    room = here()
    return (room.gpus or room.cores or 1) if on == "local" else ELSEWHERE


def _print_outcome(output: Path) -> bool:
    """Print how many cases are done, and those that failed; whether there are any."""
    from segmed.evaluate.results import json_facts

    cases = json_facts(output / "prediction.json").get("cases") or []
    failed = [case for case in cases if case.get("status") == "failed"]
    print(f"{len(cases) - len(failed)} of {len(cases)} label maps in {output}")
    for case in failed:
        print(f"  {case.get('case')}: {case.get('error')}", file=sys.stderr)
    return bool(failed)


def command_of(arguments: Section) -> tuple[str, ...]:
    """The command line of a prediction without its engine, with absolute paths: it runs on any machine."""
    words = ["segmed", "predict"]
    for name, field in type(arguments).model_fields.items():
        value = getattr(arguments, name)
        if name in OF_ENGINES or value == field.get_default():
            continue
        option = f"--{name.replace('_', '-')}"
        if name == "run":
            words += [word for run in value for word in (option, str(run.absolute()))]
        elif value is True:
            words.append(option)
        elif isinstance(value, tuple):
            words += [option, *map(str, value)]
        else:
            words += [option, str(value.absolute() if isinstance(value, Path) else value)]
    return tuple(words)


def merge_shards(output: Path) -> list[CaseReport]:
    """Write prediction.json of all shards.

    Raises:
        ConfigError: there are none.
    """
    from segmed.files import write_json
    from segmed.jobs.shards import Shards, merge

    shards = Shards(output.absolute())
    if not shards.dealt.is_file():
        raise ConfigError(f"{output} has no shards to merge: --merge is what segmed predict --on calls at its end")
    reports = merge(shards)
    missing = [each["case"] for each in shards.cases() if each["case"] not in {report.case for report in reports}]
    if missing:
        raise ConfigError(f"{len(missing)} cases are in no shard's record, first {missing[0]}: give the shards first")
    write_json(shards.folder / "merged.json", {"cases": len(reports)})
    return reports

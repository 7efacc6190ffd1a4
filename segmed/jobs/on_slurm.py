"""The engine `slurm`: job arrays with dependencies, as scripts that a person can read and submit by hand."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.config.jobs import JobsConfig
from segmed.errors import JobError
from segmed.files import atomic_path, printable, write_json
from segmed.jobs.job import Job, Needs, Plan
from segmed.jobs.job_records import JobRecords, flat
from segmed.machine import GIB

CORES, MEMORY_GIB = 4, 16  # of a job that says nothing
GRACE_S = 180  # before the time limit: a training ends its step, saves, and is queued again
SPARE = 1.25  # memory asked for, over what the planner estimates: the limit of SLURM kills
INTERRUPTED = 130  # exit code of a command of ours that SIGTERM stopped
SUBMIT = "submit.sh"


@dataclass(frozen=True)
class Array:
    """Jobs of the same needs that wait for the same jobs: one script, one job array.

    Attributes:
        number: of the script, from 1.
        jobs: task 0, task 1 and so on.
    """

    number: int
    jobs: tuple[Job, ...]

    @property
    def script(self) -> str:
        """Name of its file."""
        first = flat(self.jobs[0].name).rstrip("0123456789_")
        return f"{self.number:02d}_{first or 'jobs'}.sh"

    @property
    def variable(self) -> str:
        """Of the shell: holds the number that sbatch gave it."""
        return f"array_{self.number:02d}"


def write_or_submit(plan: Plan, given: JobsConfig, *, submit: bool) -> None:
    """Write the scripts of what is left of a plan, and submit them where that is asked for.

    Raises:
        JobError: there is no sbatch, it refuses, or the jobs of an earlier submission are not over.
    """
    if submit and shutil.which("sbatch") is None:
        raise JobError("there is no sbatch on this machine: leave out --submit, and submit the scripts where there is")
    if submit:
        _refuse_twice(plan)
    folder = given.scripts or plan.folder / "jobs" / "slurm"
    arrays = write_scripts(plan, folder, given)
    if not arrays:
        print(f"nothing is left to do: {plan.folder}")
        return
    tasks = sum(len(array.jobs) for array in arrays)
    print(f"{len(arrays)} scripts of {tasks} jobs: {folder}")
    if not submit:
        print(f"submit: bash {folder / SUBMIT}")
        return
    with JobRecords(plan).holding():
        result = subprocess.run(["bash", str(folder / SUBMIT)], capture_output=True, text=True, check=False)
        ids = [line.rpartition(": ")[2].split(";")[0] for line in result.stdout.splitlines()]
        write_json(_submitted(plan), {"jobs": ids})
    if result.returncode:
        words = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise JobError(f"sbatch refused the jobs of {folder}: {printable(words)}")
    print(result.stdout, end="")
    print(f"watch: squeue --me, and segmed runs {plan.folder}; what failed goes on with the same command")


def _submitted(plan: Plan) -> Path:
    return JobRecords(plan).folder / "submitted.json"


def _refuse_twice(plan: Plan) -> None:
    """Refuse to submit a plan whose jobs wait or run.

    Raises:
        JobError: naming them.
    """
    try:
        before = list(map(str, json.loads(_submitted(plan).read_text(encoding="utf-8"))["jobs"]))
    except (OSError, ValueError, KeyError, TypeError):
        return
    if not before or shutil.which("squeue") is None:
        return
    words = ["squeue", "--noheader", "--format=%A", f"--jobs={','.join(before)}"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)  # fails where all are long over
    if queued := sorted(set(result.stdout.split())) if result.returncode == 0 else []:
        raise JobError(
            f"jobs of {plan.folder} that were submitted before wait or run, {', '.join(queued)}: wait for them, or "
            f"scancel {' '.join(queued)} first"
        )


def write_scripts(plan: Plan, folder: Path, given: JobsConfig) -> tuple[Array, ...]:
    """Write a script for each array, and one that submits them in their order; scripts of an earlier plan go.

    Args:
        plan: of which what is not done is written.
        folder: of the scripts.
        given: what SLURM is told.
    """
    arrays = arrays_of(plan.left())
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9]_*.sh"):
        old.unlink()
    records = JobRecords(plan)
    for name in ("logs", "states"):
        (records.folder / name).mkdir(parents=True, exist_ok=True)
    for array in arrays:
        _write_executable(folder / array.script, array_script(plan, array, given))
    _write_executable(folder / SUBMIT, submit_script(plan, arrays))
    return arrays


def _write_executable(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o755)


def arrays_of(jobs: Sequence[Job]) -> tuple[Array, ...]:
    """Jobs that need the same and wait for the same, together; each array after those that it waits for."""
    names = {job.name for job in jobs}
    groups: dict[tuple[Needs, tuple[str, ...]], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.needs, tuple(name for name in job.after if name in names)), []).append(job)
    return tuple(Array(number, tuple(group)) for number, group in enumerate(groups.values(), 1))


def array_script(plan: Plan, array: Array, given: JobsConfig) -> str:
    """The script of a job array."""
    records = JobRecords(plan)
    needs = array.jobs[0].needs
    gib = MEMORY_GIB if needs.memory_bytes is None else max(1, round(SPARE * needs.memory_bytes / GIB + 0.5))
    most = f"%{given.at_once}" if given.at_once is not None else ""
    settings = {
        "job-name": printable(plan.title).replace(" ", "_").replace(",", ""),
        "array": f"0-{len(array.jobs) - 1}{most}",
        "cpus-per-task": needs.cores or CORES,
        "mem": f"{gib}G",
        "time": given.time_limit,
        "partition": given.partition,
        "gres": f"gpu:{needs.gpus}" if needs.gpus else None,
        "signal": f"B:TERM@{GRACE_S}",
        "requeue": "",
        "open-mode": "append",
        "output": records.folder / "logs" / f"{array.script.removesuffix('.sh')}.%a.slurm",
    }
    lines = ["#!/bin/bash", f"# {printable(plan.title)}: {len(array.jobs)} jobs, a task each."]
    lines += [
        f"#SBATCH --{key}" + (f"={value}" if value != "" else "")
        for key, value in settings.items()
        if value is not None
    ]
    lines += [f"#SBATCH {option}" for option in given.options]
    lines += ["", "names=(", *(f"  {shlex.quote(flat(job.name))}" for job in array.jobs), ")"]
    lines += ["commands=(", *(f"  {shlex.quote(job.line)}" for job in array.jobs), ")"]
    return "\n".join(lines) + BODY.format(
        python=shlex.quote(sys.executable), records=shlex.quote(str(records.folder)), interrupted=INTERRUPTED
    )


BODY = """
segmed() {{ exec {python} -m segmed.commands.program "$@"; }}

name=${{names[$SLURM_ARRAY_TASK_ID]}}
state() {{ printf '{{"state": "%s", "code": %s, "host": "%s", "began": %s, "seconds": %s, "number": %s}}\\n' \\
  "$1" "$2" "$(hostname)" "$began" "$(( $(date +%s) - began ))" "$(( ${{SLURM_RESTART_COUNT:-0}} + 1 ))" \\
  > {records}/states/"$name".json; }}

trap 'stopped=yes; [ -n "$child" ] && kill -TERM $child' TERM  # the time is nearly over: the job saves and ends
began=$(date +%s)
state running null
(eval "${{commands[$SLURM_ARRAY_TASK_ID]}}") < /dev/null >> {records}/logs/"$name".log 2>&1 &
child=$!
while :; do wait $child; code=$?; kill -0 $child 2>/dev/null || break; done  # a signal ends the wait, not the job
[ -n "$stopped" ] && {{ wait $child; again=$?; [ $again -eq 127 ] || code=$again; }}

if [ -n "$stopped" ] && [ $code -eq {interrupted} ]; then  # it saved: go on in a job of its own time
  state waiting $code
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}" && exit 0
fi
[ $code -eq 0 ] && state done $code || state failed $code
exit $code
"""


def submit_script(plan: Plan, arrays: Sequence[Array]) -> str:
    """The script that submits the arrays in their order, each waiting for the tasks that it needs."""
    place = {job.name: (array, task) for array in arrays for task, job in enumerate(array.jobs)}
    lines = ["#!/bin/bash", f"# Submits the jobs of {printable(plan.title)}; what is done is not among them.", "set -e"]
    lines += ['cd "$(dirname "$0")"']
    for array in arrays:
        waits = _dependency(array, place)
        option = f' --dependency="afterok:{waits}" --kill-on-invalid-dep=yes' if waits else ""
        lines.append(f"{array.variable}=$(sbatch --parsable{option} {shlex.quote(array.script)})")
        lines.append(f'echo "{array.script}: ${array.variable}"')
    return "\n".join([*lines, ""])


def _dependency(array: Array, place: Mapping[str, tuple[Array, int]]) -> str:
    """What an array waits for: whole arrays where it waits for all their tasks, else task by task."""
    names = [name for name in array.jobs[0].after if name in place]
    wanted: dict[int, list[int]] = {}
    of_number = {place[name][0].number: place[name][0] for name in names}
    for name in names:
        before, task = place[name]
        wanted.setdefault(before.number, []).append(task)
    words = []
    for number, tasks in wanted.items():
        before = of_number[number]
        whole = len(tasks) == len(before.jobs)
        words += [f"${before.variable}"] if whole else [f"${{{before.variable}}}_{task}" for task in tasks]
    return ":".join(words)

"""The trials of a search, carried by an engine: each is a run that is never tested; the winner is, once, at the end."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.errors import ConfigError, JobError
from segmed.files import write_json
from segmed.jobs.carry import TICK_S, Engine, Stopped, carry_out, failures, noted_signals
from segmed.jobs.job import Job, Needs, Plan
from segmed.jobs.job_records import JobRecords
from segmed.jobs.study import Search, import_optuna
from segmed.runs import is_held
from segmed.runs.run_state import ENDED

STOPPED = (130, -signal.SIGTERM)  # exit codes of a training that has saved after SIGTERM or Ctrl-C, or had not begun


@dataclass
class _Running:
    asked: Any  # Optuna's trial
    told: int  # validations that Optuna knows
    pruned: bool = False


def plan_of_trials(search: Search, trials: int, needs: Needs) -> Plan:
    """The trials as jobs, none of which waits for another.

    Args:
        search: its folder.
        trials: how many.
        needs: of one.
    """
    return Plan(f"search {search.path.name}", search.path, tuple(_job(search, n, needs) for n in range(trials)))


def _job(search: Search, number: int, needs: Needs) -> Job:
    folder, run = search.trial(number), search.run(number).path
    words = ["segmed", search.command, "--config", str(folder / "experiment.yaml"), "--run-dir", str(run)]
    words += [] if search.folds is None else ["--folds", str(search.folds)]
    proof = folder / ENDED
    return Job(f"trial_{number:04d}", (*words, "--go-on", "--untested"), folder=run, proof=proof, needs=needs)


def carry_out_trials(search: Search, trials: int, needs: Needs, engine: Engine) -> None:
    """Do trials until there are as many as asked for; those that a stop left are gone on with.

    Raises:
        JobError: another process carries out the same search, or one needs more than there is.
        Stopped: SIGTERM or Ctrl-C; all trials have saved what they have.
    """
    plan = engine.sized(plan_of_trials(search, trials, needs))
    with JobRecords(plan).holding(), noted_signals() as requested:
        course = _Course(search, plan, engine)
        while course.step():
            time.sleep(TICK_S)
            if requested:
                engine.stop()
                course.settle(stopping=True)
                raise Stopped("all trials have saved; go on with the same command")


class _Course:
    """Where the trials of a search stand, and what comes next."""

    def __init__(self, search: Search, plan: Plan, engine: Engine) -> None:
        self.search, self.plan, self.engine, self.records = search, plan, engine, JobRecords(plan)
        self.at_once = engine.most_at_once(plan)
        self.optuna = import_optuna()
        self.study = search.study()
        before = self.study.get_trials(deepcopy=False)
        self.count = len(before)
        self.left = [trial for trial in before if trial.state == self.optuna.trial.TrialState.RUNNING]
        self.running: dict[str, _Running] = {}

    def step(self) -> bool:
        """Take in what ended, prune what falls behind, begin what there is room for; whether anything is left."""
        self.settle()
        for name, running in self.running.items():
            if self.search.folds is None and self._falls_behind(running) and not running.pruned:
                running.pruned = True
                self.engine.stop_one(name)
        needs = self.plan.jobs[0].needs
        while len(self.running) < self.at_once and self.engine.has_room(needs) and self._begin_next():
            pass
        return bool(self.running or self.left or self.count < len(self.plan.jobs))

    def _begin_next(self) -> bool:
        """Begin one trial: first those that were left; False where there is none to begin now."""
        free = [trial for trial in self.left if not is_held(self.search.run(trial.number).path)]
        if free:
            self.left.remove(free[0])
            asked = self.optuna.trial.Trial(self.study, free[0]._trial_id)
            told = len(free[0].intermediate_values)
        elif self.count < len(self.plan.jobs):
            asked, told = self.search.study(self.count).ask(), 0
            self.count += 1
        else:
            return False
        job = self.plan.jobs[asked.number]
        try:
            self.search.describe(asked)
        except ConfigError as error:
            self._fail(job, asked, str(error))
            return True
        self.running[job.name] = _Running(asked, told)
        self.records.begin(job)
        self.engine.start(job, self.records)
        return True

    def _falls_behind(self, running: _Running) -> bool:
        """Whether a new validation is below the median of earlier trials; each is told once, in its order."""
        behind = False
        for score in self.search.scores(running.asked.number)[running.told :]:
            running.asked.report(score, running.told)
            running.told += 1
            behind = behind or running.asked.should_prune()
        return behind

    def settle(self, *, stopping: bool = False) -> None:
        """Take in what ended; a trial that was stopped from outside, or by us, stays one that runs."""
        for name, code in self.engine.ended():
            job, running = self.plan.by_name[name], self.running.pop(name)
            if self.search.folds is None or code == 0:
                self._falls_behind(running)
            scores = self.search.scores(running.asked.number)
            if code == 0 and scores:
                self._end(job, running.asked, "done", max(scores))
            elif running.pruned:
                self._end(job, running.asked, "pruned", max(scores))
            elif code == 0:
                self._fail(job, running.asked, "nothing was validated: give the split a validation part")
            elif code in STOPPED or stopping:
                self.left.append(self.study.get_trials()[running.asked.number])
            else:
                self._fail(job, running.asked, self.records.last_line(job) or f"exit code {code}")
            self.records.end(job, code)

    def _end(self, job: Job, asked: Any, state: str, score: float) -> None:
        if state == "done":
            self.study.tell(asked, score)
        else:
            self.study.tell(asked, state=self.optuna.trial.TrialState.PRUNED)
        write_json(job.proof, {"state": state, "score": score})
        print(f"trial {asked.number}: {state}, score {score:.4f}", flush=True)

    def _fail(self, job: Job, asked: Any, reason: str) -> None:
        asked.set_user_attr("error", reason)
        self.study.tell(asked, state=self.optuna.trial.TrialState.FAIL)
        write_json(job.proof, {"state": "failed", "error": reason})
        print(f"trial {asked.number}: failed: {reason}", flush=True)


def winner_after_test(search: Search, needs: Needs, engine: Engine) -> Path:
    """Choose the winner by validation and test it, once; its run.

    Raises:
        JobError: no trial is done, or the test failed.
    """
    winner = search.choose()
    run = search.run(winner).path
    command = ("segmed", search.command, "--resume", str(run))
    job = Job("test_of_the_winner", command, folder=run, proof=search.proof(winner), needs=needs)
    plan = Plan(f"search {search.path.name}", search.path, (job,), command)
    if not search.tested(winner) and (lines := failures(plan, carry_out(plan, engine))):
        raise JobError(lines[0])
    return run

"""A search: the space, trials without a test, pruning, what a stop leaves, and the winner's test, once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tiny_classes import config_of as tiny_classes
from tiny_classes import write_classes
from tiny_data import make_balls, tiny

from segmed.classify import run as classify_run
from segmed.commands import search as command
from segmed.compose import run as compose_run
from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import load_as
from segmed.config.search_space import load_space
from segmed.data.splits import Split
from segmed.errors import ConfigError, JobError
from segmed.jobs import trials
from segmed.jobs.carry import Stopped
from segmed.jobs.child import PROGRAM
from segmed.jobs.job import Needs
from segmed.jobs.pool import LocalPool
from segmed.jobs.study import Search, scores_of
from segmed.jobs.trials import carry_out_trials, winner_after_test
from segmed.reports.search.search_page import ShownTrial, write_search_page
from segmed.segment.prepare import with_absolute_paths

RATE = {"train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
LOSS = {"loss.name": ["dice", "dice_ce"]}
ROOM = Needs(2, 8 * 2**30, 0)


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    return make_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(trials, "TICK_S", 0.001)


@pytest.fixture
def space(tmp_path) -> Path:
    return written(tmp_path, {**RATE, **LOSS})


def written(folder: Path, space: dict) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(space))
    return path


def begun(balls: Path, folder: Path, space: Path, **sections) -> Search:
    search = Search(folder / "search")
    search.begin(with_absolute_paths(tiny(balls, folder, **sections)), space)
    return search


class InThisProcess(LocalPool):
    """Carries out a job within `start`, and notes its name."""

    def __init__(self):
        super().__init__(ROOM, at_once=1)
        self.begun, self.over = [], []

    def start(self, job, records):
        self.begun.append(job.name)
        command, *options = job.command[1:]
        kind = classify_run if command == "train-cls" else compose_run
        given = dict(zip(options[::2], options[1::2], strict=False))
        if "--resume" in given:
            kind.resume(Path(given["--resume"]))
        else:
            schema = ClassificationConfig if command == "train-cls" else SegmentationConfig
            config, folder = load_as(schema, given["--config"]), Path(given["--run-dir"])
            kind.train_untested(config, folder, go_on=True, every_fold="--folds" in given)
        self.over.append((job.name, 0))

    def ended(self):
        over, self.over = self.over, []
        return over


class Scripted(LocalPool):
    """Trials that write given scores; one that has fewer than three runs until it is stopped."""

    def __init__(self, scores, *, dies_at=None):
        super().__init__(ROOM, at_once=1)
        self.scores, self.dies_at = scores, dies_at
        self.now, self.stopped, self.begun = None, [], []

    def has_room(self, needs):
        return self.now is None

    def stop(self):
        self.now = (self.now[0], -9)  # it did not save in time

    def start(self, job, records):
        number = int(job.name.removeprefix("trial_"))
        self.begun.append(number)
        if number == self.dies_at:
            raise SystemExit("killed")
        job.folder.mkdir(parents=True, exist_ok=True)
        rows = [f"{step},{score}" for step, score in enumerate(self.scores[number])]
        (job.folder / "history.csv").write_text("\n".join(["step,score", *rows]))
        code = None if 0 < len(rows) < 3 else 0 if rows else 2
        self.now = (job.name, code)

    def stop_one(self, name):
        self.stopped.append(name)
        self.now = (name, 130)

    def ended(self):
        if self.now is None or self.now[1] is None:
            return []
        ended, self.now = [self.now], None
        return ended


GOOD = [0.5, 0.6, 0.7]


def test_no_trial_is_tested_and_the_winner_is_once(balls, space, tmp_path, monkeypatch):
    search, pool = begun(balls, tmp_path, space, train={"epochs": 1}), InThisProcess()
    with monkeypatch.context() as patched:
        patched.setattr(compose_run, "run_test", lambda *_, **__: pytest.fail("the test part was read"))
        carry_out_trials(search, 2, Needs(1), pool)
    runs = [search.run(number) for number in range(2)]
    assert [row.state for row in search.rows()] == ["done", "done"]
    assert not any(run.test.exists() or run.predictions.exists() or run.finished for run in runs)
    assert len({run.split.read_bytes() for run in runs}) == 1
    assert len({run.config.read_bytes() for run in runs}) == 2
    scores = [row.score for row in search.rows()]
    assert winner_after_test(search, Needs(1), pool) == runs[scores.index(max(scores))].path
    assert winner_after_test(search, Needs(1), pool) == runs[scores.index(max(scores))].path
    assert pool.begun == ["trial_0000", "trial_0001", "test_of_the_winner"]
    assert [run.finished for run in runs].count(True) == 1
    cases = (runs[search.winner].test / "cases.csv").read_text()
    assert all(case in cases for case in Split.load(runs[0].split).test)
    monkeypatch.setattr(sys, "argv", ["segmed", *words(search, space, trials=3)])
    with pytest.raises(JobError, match="its test seen: for more trials name another --output"):
        command.main()


def test_a_trial_of_folds_is_scored_by_the_mean_of_their_validation_and_tested_as_a_whole(balls, space, tmp_path):
    config = with_absolute_paths(tiny(balls, tmp_path, train={"epochs": 1}, split={"folds": 2}))
    search, pool = Search(tmp_path / "search"), InThisProcess()
    search.begin(config, space, folds=2)
    carry_out_trials(search, 2, Needs(1), pool)
    for row in search.rows():
        parts = [search.run(row.number).path / f"fold_{fold}" for fold in range(2)]
        assert row.score == pytest.approx(sum(max(scores_of(part)) for part in parts) / 2)
        assert not any((part / "test").exists() or (part / "predictions").exists() for part in parts)
    winner = winner_after_test(search, Needs(1), pool)
    assert (winner / "ensemble.json").is_file()
    assert [search.tested(number) for number in range(2)].count(True) == 1
    assert winner_after_test(search, Needs(1), pool) == winner
    assert pool.begun == ["trial_0000", "trial_0001", "test_of_the_winner"]
    with pytest.raises(JobError, match="holds the search of another number of folds: name another --output"):
        search.begin(config, space)


def test_classifiers_are_searched_over_and_the_winner_is_tested_once(tmp_path):
    data = write_classes(tmp_path / "images")
    config = classify_run.with_absolute_paths(tiny_classes(tmp_path, data, train={"epochs": 2, "validations": 1}))
    search, pool = Search(tmp_path / "search"), InThisProcess()
    search.begin(config, written(tmp_path, RATE))
    carry_out_trials(search, 2, Needs(1), pool)
    assert [row.state for row in search.rows()] == ["done", "done"]
    assert not any(search.run(number).test.exists() for number in range(2))
    run = winner_after_test(search, Needs(1), pool)
    assert (run / "test" / "figures.json").is_file()
    command._write_page(search, run)
    assert "balanced accuracy of its test, made once" in search.page.read_text()


def test_what_a_search_can_not_do_is_one_line(balls, space, tmp_path, monkeypatch):
    search = begun(balls, tmp_path, space)
    monkeypatch.setattr(sys, "argv", ["segmed", *words(search, space, trials=2), "--on", "slurm"])
    with pytest.raises(ConfigError, match=r"--on slurm can't carry a search: .* or give --on ray"):
        command.main()
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["segmed", *words(search, space, trials=2), "--on", "ray"])
    with pytest.raises(JobError, match=r'pip install "segmed-mri\[ray\]"'):
        command.main()
    with pytest.raises(ConfigError, match="a search is over one network, and a cascade or an ensemble has several"):
        begun(balls, tmp_path / "other", space, ensemble={"views": ["axial", "coronal"]})


def words(search: Search, space: Path, *, trials: int) -> list[str]:
    config, output = str(search.experiment), str(search.path)
    return ["search", "--config", config, "--space", str(space), "--trials", str(trials), "--output", output]


def test_a_trial_that_falls_behind_the_median_is_stopped(balls, space, tmp_path):
    search = begun(balls, tmp_path, space)
    pool = Scripted([GOOD, GOOD, GOOD, GOOD, [0.1, 0.2], [0.5, 0.6, 0.8]])
    carry_out_trials(search, 6, Needs(1), pool)
    assert pool.stopped == ["trial_0004"]
    assert [row.state for row in search.rows()] == ["done"] * 4 + ["pruned", "done"]
    assert search.rows()[4].score == 0.2
    assert search.choose() == 5


def test_a_search_that_was_killed_goes_on_with_the_same_trials(balls, space, tmp_path):
    search = begun(balls, tmp_path, space)
    with pytest.raises(SystemExit):
        carry_out_trials(search, 5, Needs(1), Scripted([GOOD] * 5, dies_at=3))
    drawn = [(search.trial(number) / "experiment.yaml").read_bytes() for number in range(4)]
    assert [row.state for row in search.rows()] == ["done", "done", "done", "running"]
    again = begun(balls, tmp_path, space)
    pool = Scripted([GOOD] * 5)
    carry_out_trials(again, 5, Needs(1), pool)
    assert pool.begun == [3, 4]
    assert [row.state for row in again.rows()] == ["done"] * 5
    assert [(again.trial(number) / "experiment.yaml").read_bytes() for number in range(4)] == drawn
    assert len({row.values["train.learning_rate"] for row in again.rows()}) == 5


def test_a_trial_that_a_stop_killed_is_gone_on_with(balls, space, tmp_path, monkeypatch):
    search = begun(balls, tmp_path, space)
    monkeypatch.setattr(trials.time, "sleep", lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="go on with the same command"):
        carry_out_trials(search, 2, Needs(1), Scripted([GOOD[:1], GOOD]))
    assert [row.state for row in search.rows()] == ["running"]
    monkeypatch.undo()
    pool = Scripted([GOOD, GOOD])
    carry_out_trials(search, 2, Needs(1), pool)
    assert pool.begun == [0, 1]


def test_a_failed_trial_stops_no_other_and_alone_has_no_winner(balls, space, tmp_path):
    search = begun(balls, tmp_path, space)
    carry_out_trials(search, 1, Needs(1), Scripted([[]]))
    with pytest.raises(JobError, match=r"no trial of .* is done: exit code 2"):
        search.choose()
    carry_out_trials(search, 2, Needs(1), Scripted([[], GOOD]))
    assert [row.state for row in search.rows()] == ["failed", "done"]
    assert search.choose() == 1


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"train.learnin_rate": {"low": 0.1, "high": 0.2}}, "learning_rate"),
        ({"train.learning_rate": {"low": 0.1, "high": 0.1}}, "the range is empty: low 0.1 is not below high 0.1"),
        ({"train.learning_rate": {"low": 0.0, "high": 0.1, "log": True}}, "begins above 0"),
        ({"train.learning_rate": {"low": -1.0, "high": 0.1}}, "train.learning_rate"),
        ({"loss.name": ["dice"]}, "'loss.name' has 1 values: give two or more"),
        ({"loss.name": ["dice", "dicce"]}, "dicce"),
        ({"split.seed": [1, 2]}, "'split.seed' says what is measured"),
        ({}, "names no field to search over"),
    ],
)
def test_a_space_that_the_experiment_can_not_have_is_one_line(balls, tmp_path, given, problem):
    with pytest.raises(ConfigError, match=problem) as error:
        begun(balls, tmp_path, written(tmp_path, given))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "search").exists()


def test_a_space_is_read_with_whole_numbers_and_names_first(tmp_path):
    space = load_space(written(tmp_path, {"train.batch_size": {"low": 1, "high": 4}, **RATE, **LOSS}))
    assert next(iter(space)) == "loss.name"
    assert [space["train.batch_size"].whole, space["train.learning_rate"].whole] == [True, False]


def test_the_folder_of_another_search_is_refused(balls, space, tmp_path):
    begun(balls, tmp_path, space)
    with pytest.raises(JobError, match="holds the search of another experiment: name another --output"):
        begun(balls, tmp_path, space, train={"epochs": 3})
    with pytest.raises(JobError, match="holds the search of another space: name another --output"):
        begun(balls, tmp_path, written(tmp_path, LOSS))
    (tmp_path / "other" / "search").mkdir(parents=True)
    (tmp_path / "other" / "search" / "letter.txt").write_text("mine")
    with pytest.raises(JobError, match="exists and is no search"):
        begun(balls, tmp_path / "other", space)


def test_the_extra_is_named_where_optuna_is_missing(balls, space, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(JobError, match=r'pip install "segmed-mri\[search\]"'):
        begun(balls, tmp_path, space)


def test_the_page_has_both_pictures_and_the_reason_of_a_failure(tmp_path):
    shown = [
        ShownTrial(n, "done", 0.1 * n, 3, 2.0, {"loss.name": kind, "train.learning_rate": 10.0**-n})
        for n, kind in enumerate(("dice", "dice_ce", "dice"), 1)
    ]
    shown.append(ShownTrial(4, "failed", None, 0, 1.0, {"loss.name": "dice"}, "<no memory>"))
    page = write_search_page(
        tmp_path / "search.html",
        title="tiny",
        trials=shown,
        importance={"loss.name": 0.25, "train.learning_rate": 0.75},
        logarithmic=frozenset({"train.learning_rate"}),
        tested=(3, tmp_path),
    ).read_text()
    assert page.count("data:image/png") == 2
    assert "3 (winner)" in page
    assert "trial 4: &lt;no memory&gt;" in page


@pytest.mark.slow
@pytest.mark.long
def test_a_search_of_eight_trials_is_killed_and_goes_on(balls, space, tmp_path):
    search = begun(balls, tmp_path, space)
    line = [*PROGRAM, *words(search, space, trials=8), "--at-once", "2"]
    first = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    until = time.monotonic() + 1500
    while not (search.trial(2) / "run" / "config.yaml").is_file() and time.monotonic() < until:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert any(row.state == "running" for row in search.rows())
    subprocess.run(line, check=True, env=os.environ, timeout=3000)
    assert len(search.rows()) == 8
    assert {row.state for row in search.rows()} <= {"done", "pruned"}
    assert [search.run(number).test.is_dir() for number in range(8)].count(True) == 1
    assert search.run(search.winner).finished
    assert search.page.is_file()

"""A cascade whose networks are jobs: what waits for what, and the same weights as in one process."""

from pathlib import Path

import pytest
from tiny_data import make_balls, tiny

from segmed.compose import run as compose_run
from segmed.compose.network_jobs import plan_of_networks
from segmed.errors import RunError
from segmed.jobs.job import Needs, width
from segmed.runs import Run, read_config

STAGES = {
    "coarse": {"labels": {"ball": ["shell", "core"]}, "views": ["axial"]},
    "fine": {"labels": {"core": ["core"]}, "views": ["axial"]},
    "region": ["ball"],
    "rest": "shell",
    "margin_mm": 1.0,
    "folds": 2,
}
FLAT = {"patches": {"dims": 2, "size": [8, 8], "foreground": 1.0}, "train": {"epochs": 12, "learning_rate": 0.01}}


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    return make_balls(tmp_path_factory.mktemp("balls"))


def weights(run: Run) -> dict[str, bytes]:
    return {str(path.relative_to(run.path)): path.read_bytes() for path in run.path.rglob("best.safetensors")}


def test_networks_trained_one_by_one_are_those_of_one_process(balls, tmp_path):
    config = tiny(balls, tmp_path, cascade=STAGES, **FLAT)
    compose_run.run(config, tmp_path / "whole")
    run = compose_run.start(config, tmp_path / "parts")
    plan = plan_of_networks(run, read_config(run), Needs(1))
    names = [job.name for job in plan.jobs]
    parts = ["coarse/axial", "coarse/without_fold_0/axial", "coarse/without_fold_1/axial"]
    assert names == [*parts, "fine/regions", "fine/axial", "test"]
    assert [plan.by_name[name].after for name in ("fine/regions", "fine/axial")] == [tuple(parts), ("fine/regions",)]
    assert width(plan.jobs) == 3
    for name in (*reversed(parts), "fine/regions", "fine/axial"):  # networks of a stage in any order
        assert not plan.by_name[name].done
        compose_run.train_part(run.path, name)
        assert plan.by_name[name].done
    assert [job.name for job in plan.left()] == ["test"]
    compose_run.resume(run.path)
    assert run.finished
    assert len(weights(run)) == 4
    assert weights(run) == weights(Run(tmp_path / "whole"))
    assert (run.test / "cases.csv").read_bytes() == (tmp_path / "whole" / "test" / "cases.csv").read_bytes()
    with pytest.raises(RunError, match=r"has no part 'fine/coronal': segmed train --resume .* --plan-only lists them"):
        compose_run.train_part(run.path, "fine/coronal")


def test_networks_that_begin_with_the_first_ones_weights_wait_for_it(balls, tmp_path):
    later = {"views": ["axial", "coronal"], "later": {"epochs": 1}}
    config = tiny(balls, tmp_path, ensemble=later, **FLAT)
    plan = plan_of_networks(Run(tmp_path / "run"), config, Needs())
    assert [(job.name, job.after) for job in plan.jobs] == [
        ("axial", ()), ("coronal", ("axial",)), ("test", ("axial", "coronal")),
    ]  # fmt: skip

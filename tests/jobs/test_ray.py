"""Jobs on a Ray cluster of two nodes, one of which is killed in the middle: the result is that of one machine."""

import json
import threading
import time
from pathlib import Path

import pytest
import yaml
from shell_jobs import shell_job, shell_plan
from tiny_data import make_balls, tiny
from untrained_run import noise, untrained_run

from segmed.compose import run as compose_run
from segmed.config.jobs import JobsConfig
from segmed.data.inputs import find_inputs
from segmed.errors import JobError
from segmed.jobs.carry import carry_out
from segmed.jobs.fold_jobs import plan_of_folds
from segmed.jobs.job import Needs
from segmed.jobs.job_records import JobRecords
from segmed.jobs.on_ray import RayEngine
from segmed.jobs.pool import LocalPool
from segmed.jobs.shards import Shards, plan_of_shards
from segmed.machine import GIB

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.long]
GRACE_S = 1500


@pytest.fixture(scope="module")
def cluster():
    """A head without cores."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def nodes(cluster):
    """Two nodes of one core each, so that jobs have as many threads as on one machine; removed at the end."""
    added = [started(cluster) for _ in range(2)]
    cluster.wait_for_nodes()
    yield added
    for node in added:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)


def started(cluster):
    """A node; on a busy machine its first start may take longer than Ray waits."""
    for _ in range(3):
        try:
            return cluster.add_node(num_cpus=1)
        except Exception as error:  # Ray raises no other
            last = error
    raise last


def kill_when(cluster, node, happened) -> threading.Thread:
    """Kill a node as soon as something has happened."""

    def wait() -> None:
        until = time.monotonic() + GRACE_S
        while not happened() and time.monotonic() < until:
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_folds_on_two_nodes_of_which_one_dies_are_those_of_one_machine(cluster, nodes, tmp_path):
    balls = make_balls(tmp_path / "balls")
    config = tiny(balls, tmp_path / "runs", split={"folds": 3}, train={"epochs": 100, "checkpoint_minutes": 0.02})
    one = compose_run.begin_folds(config, tmp_path / "one")
    two = compose_run.begin_folds(config, tmp_path / "two")
    assert yaml.safe_load(one.config.read_text()) == yaml.safe_load(two.config.read_text())
    local = plan_of_folds(config, one, Needs(1))
    assert set(carry_out(local, LocalPool(Needs(1, 8 * GIB))).values()) == {"done"}
    plan = plan_of_folds(config, two, Needs(1))
    killer = kill_when(cluster, nodes[0], lambda: len(list(two.path.glob("fold_*/history.csv"))) == 2)
    assert set(carry_out(plan, RayEngine()).values()) == {"done"}
    killer.join()
    for name in ("weights/best.safetensors", "weights/last.safetensors", "test/cases.csv", "split.json"):
        for fold in range(3):
            assert (two.path / f"fold_{fold}" / name).read_bytes() == (one.path / f"fold_{fold}" / name).read_bytes()
    for name in ("test/cases.csv", "test/summary.json"):
        assert (two.path / name).read_bytes() == (one.path / name).read_bytes()


def test_shards_on_two_nodes_of_which_one_dies_are_those_of_one_machine(cluster, nodes, tmp_path):
    run, folder = untrained_run(tmp_path / "run"), noise(tmp_path / "in", 12, side=20)
    inputs = find_inputs(folder, compose_run.read_config(compose_run.open_run(run)).data)

    def predicted(output: Path, engine, before) -> dict[str, bytes]:
        words = ("segmed", "predict", "--run", str(run), "--input", str(folder), "--output", str(output))
        shards = Shards(output)
        plan = plan_of_shards(shards, shards.divide(inputs, 3, again=False), words, words, Needs(1))
        thread = before(shards)
        assert set(carry_out(plan, engine).values()) == {"done"}
        if thread is not None:
            thread.join()
        assert len(json.loads((output / "prediction.json").read_text())["cases"]) == 12
        return {path.name: path.read_bytes() for path in output.glob("*.nii.gz")}

    one = predicted(tmp_path / "one", LocalPool(Needs(1, 8 * GIB)), lambda shards: None)
    begun = lambda shards: lambda: all(shards.record(number).exists() for number in (0, 1))  # noqa: E731
    two = predicted(tmp_path / "two", RayEngine(), lambda shards: kill_when(cluster, nodes[0], begun(shards)))
    assert two == one
    assert len(two) == 12


def test_what_no_node_has_is_refused_and_failures_are_named(cluster, nodes, tmp_path):
    plan = shell_plan(tmp_path, shell_job(tmp_path, "a", needs=Needs(64)))
    with pytest.raises(JobError, match="job a needs 64 cores; the largest of 3 nodes of the Ray cluster has 1 core"):
        carry_out(plan, RayEngine())
    bad = shell_plan(tmp_path, shell_job(tmp_path, "bad", "echo 'error: no such volume'; exit 2"))
    assert carry_out(bad, RayEngine()) == {"bad": "failed"}
    assert JobRecords(bad).last_line(bad.jobs[0]) == "error: no such volume"


def test_a_cluster_that_is_not_there_is_one_line():
    import ray

    ray.shutdown()
    with pytest.raises(JobError, match=r"the Ray cluster 127\.0\.0\.1:1 can't be reached"):
        RayEngine(JobsConfig(address="127.0.0.1:1").address)

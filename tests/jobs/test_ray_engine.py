"""The engine `ray` over a stand-in for Ray: what is refused, how much has room, what is cancelled."""

import sys
from types import SimpleNamespace

import pytest
from shell_jobs import shell_job, shell_plan

from segmed.errors import JobError
from segmed.jobs.job import Needs
from segmed.jobs.job_records import JobRecords
from segmed.jobs.on_ray import RayEngine
from segmed.machine import GIB


def node(cores, gib=8, gpus=0, *, alive=True):
    return {"Alive": alive, "Resources": {"CPU": float(cores), "memory": float(gib * GIB), "GPU": float(gpus)}}


@pytest.fixture
def ray(monkeypatch):
    """A cluster of a head and two nodes of 4 cores, on which tasks wait until they are cancelled."""
    stub = SimpleNamespace(
        is_initialized=lambda: True,
        nodes=lambda: [node(0), node(4), node(4, 2), node(64, alive=False)],
        cancelled=[],
        exceptions=SimpleNamespace(RayError=RuntimeError),
    )
    stub.remote = lambda function: SimpleNamespace(
        options=lambda name, **wanted: SimpleNamespace(remote=lambda *given: name)
    )
    stub.cancel = stub.cancelled.append
    stub.wait = lambda refs, **_: ([ref for ref in refs if ref in stub.cancelled], [])

    def get(ref):
        raise RuntimeError(ref)

    stub.get = get
    monkeypatch.setitem(sys.modules, "ray", stub)
    return stub


def test_a_cluster_that_can_not_be_reached_is_one_line(ray, monkeypatch):
    def init(**_):
        raise ConnectionError("Could not find any running Ray instance.\nPlease check.")

    ray.is_initialized, ray.init = lambda: False, init
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(JobError, match=r"the Ray cluster 10\.0\.0\.1:6379 can't be reached \(Could not") as error:
        RayEngine("10.0.0.1:6379")
    assert "\n" not in str(error.value)


def test_a_job_that_needs_more_than_the_largest_node_that_lives_is_refused(ray, tmp_path):
    plan = shell_plan(tmp_path, shell_job(tmp_path, "a", needs=Needs(8)))
    with pytest.raises(JobError, match="job a needs 8 cores; the largest of 3 nodes of the Ray cluster has 4 cores"):
        RayEngine().sized(plan)


@pytest.mark.parametrize(
    ("needs", "at_once", "room"),
    [
        (Needs(1), None, 8),
        (Needs(3), None, 2),
        (Needs(1, 2 * GIB), None, 5),
        (Needs(1), 3, 3),
        (Needs(1, None, 1), None, 1),
    ],
)
def test_as_many_have_room_as_cores_memory_and_gpus_of_each_node_allow(ray, tmp_path, needs, at_once, room):
    plan = shell_plan(tmp_path, shell_job(tmp_path, "a", needs=needs))
    assert RayEngine(at_once=at_once).most_at_once(plan) == room


def test_one_job_is_cancelled_and_the_others_go_on(ray, tmp_path):
    plan = shell_plan(tmp_path, *(shell_job(tmp_path, name) for name in "ab"))
    engine = RayEngine()
    for job in plan.jobs:
        engine.start(job, JobRecords(plan))
    engine.stop_one("b")
    assert ray.cancelled == ["b"]
    assert engine.ended() == [("b", -9)]
    assert engine.ended() == []

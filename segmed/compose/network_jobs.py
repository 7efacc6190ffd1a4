"""A run of several networks as jobs: one a network, the regions between the stages, and the test of all together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segmed.builders.segmenters import stages_of
from segmed.compose.train import FIND_REGIONS, REGIONS, TRAINED
from segmed.config import SegmentationConfig, StageConfig, known
from segmed.jobs.job import Job, Needs, Plan
from segmed.runs import Run


def plan_of_networks(run: Run, config: SegmentationConfig, needs: Needs) -> Plan:
    """The jobs of a run that was started.

    Args:
        run: of which the networks are parts.
        config: of the whole, with its views decided.
        needs: of one network.
    """
    run = Run(run.path.absolute())
    again = ("segmed", "train", "--resume", str(run.path))
    parts = [_job(run, name, after, needs) for name, after in parts_of(config)]
    test = Job("test", again, run.path, run.page, needs, tuple(job.name for job in parts))
    return Plan(config.title, run.path, (*parts, test), again)


def _job(run: Run, name: str, after: Sequence[str], needs: Needs) -> Job:
    command = ("segmed", "train", "--resume", str(run.path), "--part", name)
    folder = run.path / name
    if name == FIND_REGIONS:
        return Job(name, command, folder, run.path / "fine" / "data" / REGIONS, needs, tuple(after))
    return Job(name, command, folder, folder / TRAINED, needs, tuple(after))


def parts_of(config: SegmentationConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name of each network, which is its place in the run, and what it waits for; in the order of training."""
    cascade = config.cascade
    if cascade is None:
        for _, stage in stages_of(config):
            yield from _networks("", stage)
        return
    coarse = list(_networks("coarse/", cascade.coarse))
    if cascade.learn_from == "out_of_fold":
        for fold in range(cascade.folds):
            coarse += _networks(f"coarse/without_fold_{fold}/", cascade.coarse)
    yield from coarse
    yield FIND_REGIONS, tuple(name for name, _ in coarse)
    yield from _networks("fine/", cascade.fine, FIND_REGIONS)


def _networks(folder: str, stage: StageConfig, *before: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The networks of a stage; those after the first begin with its weights where `later` says so."""
    first, *others = known(stage.views)
    yield folder + first, before
    for view in others:
        yield folder + view, (folder + first,) if stage.later is not None else before

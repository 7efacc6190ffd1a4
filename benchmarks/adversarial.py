"""Rows of adversarial training: a step against each discriminator beside the supervised one, with its memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.processes import Worker
from benchmarks.report import MIB
from benchmarks.steps import StepSize
from benchmarks.timing import Outcome, Setting, Target, Timing, alternate, ratio
from benchmarks.training import QUICK, chosen
from segmed.config import AdversaryConfig, PixelDiscriminatorConfig, SegmentationConfig, known
from segmed.data.fingerprint import CaseFacts
from segmed.machine import GIB, Machine
from segmed.segment.plan import resolve

SUPERVISED, DEFAULT = "supervised", "patch"
DISCRIMINATORS = (DEFAULT, "pixel", "image", "segan")
VOLUMES = StepSize((16, 32, 64, 128, 256), patch=64, batch=2)  # as planned on a CPU
SLICES = StepSize((16, 32, 64, 128, 256), patch=192, batch=8, dims=2)
SHARE_PERCENT = 35.0  # of a step that the default discriminator of volumes may take
PLANNER = Machine("cpu", "CPU", 1024 * GIB, 1)  # where what is measured would be planned; memory decides nothing


def adversarial_3d_row(setting: Setting) -> Outcome:
    """On volumes, where the default discriminator has a bound."""
    outcome = _row("adversarial_3d", setting, QUICK if setting.quick else VOLUMES)
    share = Target(
        "share of the patch discriminator", share_percent(outcome.timings, DEFAULT), "below", SHARE_PERCENT, "%"
    )
    return replace(outcome, targets=(share, *outcome.targets))


def adversarial_2d_row(setting: Setting) -> Outcome:
    """On slices."""
    return _row("adversarial_2d", setting, replace(QUICK, dims=2) if setting.quick else SLICES)


def share_percent(timings: Mapping[str, Timing], discriminator: str) -> float:
    """What of a step is there for the discriminator alone: all but what the supervised step of the round took."""
    return 100 * (1 - ratio(timings[SUPERVISED], timings[discriminator]))


def planned(discriminator: str, size: StepSize) -> AdversaryConfig:
    """The adversary of a run whose config gives the discriminator's name and leaves it the rest."""
    config = SegmentationConfig.model_validate(
        {
            "data": {
                "root": "none",
                "layout": {"name": "msd"},
                "images": ["MR"],
                "labels": {"myocardium": 1, "blood_pool": 2, "scar": 3},
            },
            "patches": {"dims": size.dims, "size": size.shape[2:]},
            "train": {"batch_size": size.batch},
            "network": {"name": "unet", "encoder": {"channels": size.channels, "strides": size.strides}},
            "adversary": {"discriminator": {"name": discriminator}},
        }
    )
    edges = (size.patch, size.patch, size.patch)
    number = dict.fromkeys(("min", "p0_5", "p50", "p99_5", "max", "mean", "sd", "zero_fraction"), 0.0)
    facts = CaseFacts("case", edges, (1.0, 1.0, 1.0), "RAS", {"MR": number}, {}, {}, edges)
    adversary = resolve(config, [facts], channels=1, machine=PLANNER).config.adversary
    if adversary is None:
        raise ValueError("the plan has lost the adversary")
    return adversary


def _row(name: str, setting: Setting, size: StepSize) -> Outcome:
    """Each contender in a process of its own, all on the same batch and the same first weights of the network."""
    if setting.generator is not None:
        size = replace(size, channels=setting.generator)
    choice = chosen(size)
    options = {
        "channels": size.channels,
        "patch": size.shape[2:],
        "batch": size.batch,
        "threads": setting.threads,
        "precision": choice.precision,
        "memory_format": choice.memory_format,
    }
    kinds = (DEFAULT,) if setting.quick else DISCRIMINATORS  # each takes seconds to start
    opponents = {kind: planned(kind, size) for kind in kinds}
    with ExitStack() as stack:
        workers = {SUPERVISED: stack.enter_context(Worker("benchmarks.steps", {**options, "task": "segmed"}))}
        for kind, adversary in opponents.items():
            theirs = {"task": "adversarial", "adversary": adversary.model_dump(mode="json")}
            workers[kind] = stack.enter_context(Worker("benchmarks.steps", {**options, **theirs}))
        timings = alternate(workers, rounds=setting.rounds)
        runs = max(workers[kind].found or 0 for kind in opponents)
    return Outcome(
        name,
        f"adversarial training step, {size}",
        SUPERVISED,
        timings,
        (Target("forward passes of the generator", runs, "at most", 1, "a step"),),
        (
            *(_words(kind, adversary, timings) for kind, adversary in opponents.items()),
            f"all in {choice.precision}, {choice.memory_format} ({choice.reason})",
        ),
    )


def _words(kind: str, adversary: AdversaryConfig, timings: Mapping[str, Timing]) -> str:
    """What a discriminator is, and what it costs."""
    more = ((timings[kind].memory_bytes or 0) - (timings[SUPERVISED].memory_bytes or 0)) / MIB
    discriminator = adversary.discriminator
    if isinstance(discriminator, PixelDiscriminatorConfig):
        channels = discriminator.channels
    else:
        channels = known(discriminator.encoder.channels)
    maps = f"{', '.join(map(str, channels))} maps"
    return f"{kind}: {maps}, {share_percent(timings, kind):.0f} % of the step, {more:+.0f} MiB"

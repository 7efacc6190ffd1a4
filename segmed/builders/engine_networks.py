"""Run folder -> its network, computed by the engine that was asked for or that is measured to be the fastest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from segmed.config import SegmentationConfig, known
from segmed.errors import RunError
from segmed.runs import Run, read_config
from segmed.segmenters.engines import BESIDE, TITLES, Engine, EngineNetwork, installed, start_engine
from segmed.segmenters.sliding import window_batch

ENGINES: tuple[Engine, ...] = ("onnxruntime", "openvino")
AskedEngine = Engine | Literal["auto"]
TURNS = 3  # timed batches of each engine, after one that sets it up; the fastest counts
GAIN = 0.97  # another engine than torch must take less than this share of its time


@dataclass(frozen=True)
class EngineChoice:
    """What computes the networks, and why.

    Attributes:
        engine: of all networks.
        seconds: of a batch of windows by each engine that was measured; empty where it was given.
    """

    engine: Engine
    seconds: dict[Engine, float] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """For the record."""
        if not self.seconds:
            return "given"
        return "measured: " + ", ".join(f"{name} {each:.3g} s" for name, each in self.seconds.items()) + " a batch"


def network_runs(folder: Path) -> tuple[Run, ...]:
    """The runs of single networks in a folder, its own or those of folds, stages and views."""
    return tuple(Run(path.parent.parent) for path in sorted(folder.rglob("weights/best.safetensors")))


def engine_file(run: Run, engine: Engine) -> Path:
    """The network of a run for an engine other than torch."""
    return run.weights().with_suffix(BESIDE[engine])


def engine_network(run: Run, plain: nn.Module, config: SegmentationConfig, *, engine: Engine) -> EngineNetwork:
    """The network of a run, computed by another engine than torch.

    Args:
        run: of a single network.
        plain: the network of torch; its weights are not used.
        config: of the run.
        engine: not torch.

    Raises:
        RunError: the run holds no network for it, or one that also tells classes.
        SegmenterError: the engine is not installed or can't compute the network.
    """
    file = engine_file(run, engine)
    if not file.is_file():
        form = "onnx" if engine == "onnxruntime" else "openvino"
        raise RunError(f"{run.path} holds no network for {TITLES[engine]}: segmed export --format {form} makes one")
    if config.classification is not None:
        raise RunError(
            f"{run.path} tells classes by a second head, which {TITLES[engine]} does not: take --engine torch"
        )
    precision = config.inference.precision if config.inference.precision != "auto" else config.train.precision
    return EngineNetwork(start_engine(engine, file, precision=known(precision)), plain)


def choose_engine(
    folders: Sequence[Path], asked: AskedEngine, load: Callable[[Run, SegmentationConfig], nn.Module]
) -> EngineChoice:
    """The engine that was asked for; of `auto` the one that computes a batch of the first network fastest.

    Args:
        folders: of runs.
        asked: an engine or `auto`.
        load: a run of a single network and its config -> network of torch.

    Raises:
        RunError, SegmenterError: as in `engine_network`.
    """
    if asked != "auto":
        return EngineChoice(asked)
    run = network_runs(folders[0])[0]
    config = read_config(run)
    others = [each for each in ENGINES if installed(each) and engine_file(run, each).is_file()]
    if not others or config.classification is not None:
        return EngineChoice("torch")
    plain = load(run, config).eval()
    networks: dict[Engine, nn.Module] = {"torch": plain}
    networks |= {each: engine_network(run, plain, config, engine=each) for each in others}
    fastest = _measured(networks, config)
    best = min(fastest, key=lambda engine: fastest[engine])
    return EngineChoice(best if fastest[best] < GAIN * fastest["torch"] else "torch", fastest)


def _measured(networks: dict[Engine, nn.Module], config: SegmentationConfig) -> dict[Engine, float]:
    """Seconds that each engine takes for a batch of windows."""
    precision = config.inference.precision if config.inference.precision != "auto" else config.train.precision
    if precision == "auto":
        raise RunError("the precision of the run is not decided: train it first")
    window = known(config.patches.size)
    images = torch.zeros((window_batch(window, precision=precision), len(known(config.data.images)), *window))
    seconds: dict[Engine, list[float]] = {engine: [] for engine in networks}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for turn in range(1 + TURNS):  # in turns, so that a machine busy for a while is busy for all of them
            for engine, network in networks.items():
                start = time.perf_counter()
                network(images)
                if turn:
                    seconds[engine].append(time.perf_counter() - start)
    return {engine: min(taken) for engine, taken in seconds.items()}

"""Row of the cascade: six 2D U-Nets, three planes in each of two stages that vote, on a whole volume."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from benchmarks.processes import ROOT
from benchmarks.synthetic import NAMED, heart, scan
from benchmarks.timing import Outcome, Setting, Target, alternate, timed
from segmed.builders.architectures import build_network
from segmed.builders.segmenters import build_cascade, label_set, load_stage, network_segmenter, stages_of
from segmed.compose.prepare import member_config, useful_views
from segmed.config import SegmentationConfig, View, known
from segmed.config.reading import load_config
from segmed.data.fingerprint import CaseFacts
from segmed.machine import GIB, Machine
from segmed.segment.plan import resolve
from segmed.segmenters.cascade import Cascade
from segmed.segmenters.region import Known
from segmed.segmenters.segmenter import Segmenter, on_grid_of
from segmed.training.precision import Choice

CONFIG = ROOT / "configs" / "seg" / "lge_cmpunet_published.yaml"
OURS, NARROW = "as published: 32 filters, 16 for scar in two planes", "16 filters in all six"
SLIM = (16, 32, 64, 128, 256)
SPACING_MM = (0.625, 0.625, 1.3)  # published
SHAPE = (256, 256, 80)
LIMIT_S = 60.0
CHOICE = Choice("bf16", "channels_last")  # what its training takes on processors that know bf16
PLANNER = Machine("cpu", "CPU", 1024 * GIB, 1)  # memory decides nothing


@dataclass
class Led(Segmenter):
    """A network that does all of its work and is then told the answer: random weights find no heart.

    Attributes:
        network: whose time counts.
        answer: label map on the grid of the volume, that what follows goes on with.
        seconds: of every call of the network.
    """

    network: Segmenter
    answer: Known
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = self.network.labels

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        """Those of the answer."""
        start = time.perf_counter()
        self.network.probabilities(volume)
        self.seconds.append(time.perf_counter() - start)
        return self.answer.probabilities(volume)


def cascade_row(setting: Setting) -> Outcome:
    """From the volume to the label map of wall, pool, RV and scar; each network with weights of a fixed seed."""
    shape = (32, 32, 16) if setting.quick else SHAPE
    affine = torch.diag(torch.tensor([*SPACING_MM, 1.0], dtype=torch.float64))
    volume = MetaTensor(torch.from_numpy(scan(heart(shape, 0), 0)[None].astype(np.float32)), affine=affine)
    changes: dict[str, dict[str, Any]] = {
        OURS: {},
        NARROW: {"network.encoder.channels": SLIM, "cascade.fine.networks": {}},
    }
    if setting.quick:
        tiny = {**changes[NARROW], "network.encoder.channels": (4, 8), "patches.size": (16, 16)}
        changes = dict.fromkeys(changes, tiny)
    cascades = {name: _cascade(volume, changed) for name, changed in changes.items()}
    contenders = {name: timed(partial(made, volume)) for name, (made, _) in cascades.items()}
    timings = alternate(contenders, rounds=setting.rounds, warm_ups=0)
    targets = [Target(name, timing.median, "below", LIMIT_S, "s") for name, timing in timings.items()]
    notes = [f"{name}: {_parts(leds, timings[name].mean, setting.rounds)}" for name, (_, leds) in cascades.items()]
    window = f"a {load_config(CONFIG).inference.window} at once as in {CONFIG.name}"
    how = f"{CHOICE.precision}, {CHOICE.memory_format}, {window}"
    work = f"cascade of six 2D U-Nets on {' × '.join(map(str, shape))}, {how}"
    return Outcome("cascade", work, OURS, timings, tuple(targets), tuple(notes))


def _cascade(volume: MetaTensor, changed: dict[str, Any]) -> tuple[Cascade, dict[str, Led]]:
    """The cascade of the config, some values changed, planned for a volume of `heart`; its networks by stage, plane."""
    config = load_config(CONFIG, {"data.images": ("LGE",), **changed})
    shape = (int(volume.shape[1]), int(volume.shape[2]), int(volume.shape[3]))
    facts = {"coarse": _facts(np.ones(shape, bool)), "fine": _facts(heart(shape, 0) == NAMED["myocardium"])}
    views, _ = useful_views([facts["coarse"]], "axial")
    leds: dict[str, Led] = {}

    def load(folder: Path) -> Led:
        stage = dict(stages_of(config))[folder.parent.name]
        view: View = next(view for view in views if view == folder.name)
        member = member_config(config, stage, view, data=config.data, split=folder / "split.json")
        seen = facts[folder.parent.name]
        made = _led(resolve(member, [seen], channels=1, machine=PLANNER).config, volume, seed=len(leds))
        leds[" ".join(folder.parts)] = made
        return made

    stages = [
        load_stage(Path(name), stage.model_copy(update={"views": views}), load) for name, stage in stages_of(config)
    ]
    return build_cascade(config, *stages), leds


def _facts(seen: np.ndarray) -> CaseFacts:
    """What the planner knows of volumes of which a stage sees a part, the rest being zero."""
    numbers = dict.fromkeys(("min", "p0_5", "p50", "p99_5", "max", "mean", "sd"), 1.0)
    numbers["zero_fraction"] = 1 - float(seen.mean())
    body = tuple(int(np.ptp(places)) + 1 for places in np.nonzero(seen))
    return CaseFacts("heart", seen.shape, SPACING_MM, "RAS", {"LGE": numbers}, {}, {}, body)  # type: ignore[arg-type]


def _led(config: SegmentationConfig, volume: MetaTensor, *, seed: int) -> Led:
    """A network of random weights, told a heart whose surfaces are a little different with each seed."""
    labels = label_set(config)
    torch.manual_seed(seed)
    network = build_network(config.network, in_channels=1, out_channels=labels.classes, dims=known(config.patches.dims))
    CHOICE.place(network, torch.device("cpu")).eval()
    inference = config.inference.model_copy(update={"precision": CHOICE.precision})
    segmenter = network_segmenter(network, config, device="cpu", inference=inference)
    made = heart(tuple(volume.shape[1:]), seed)  # type: ignore[arg-type]
    wall, first = made == NAMED["myocardium"], np.arange(made.shape[0])[:, None, None]
    places = {
        "lv_wall": wall,
        "blood_pool": made == NAMED["blood_pool"],
        "rv": made == NAMED["rv"],
        "scar": wall & (first > 0.65 * len(first)),
    }
    indices = np.zeros(made.shape, np.uint8)
    for name in labels.names:
        indices[places[name]] = labels.index(name)
    return Led(segmenter, Known(on_grid_of(volume, torch.from_numpy(indices)[None]), labels))


def _parts(leds: dict[str, Led], whole_s: float, rounds: int) -> str:
    """Where the time of a volume goes, in words."""
    shares = {name: sum(led.seconds) / rounds for name, led in leds.items()}
    rest = whole_s - sum(shares.values())
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in [*shares.items(), ("tidying and votes", rest)])

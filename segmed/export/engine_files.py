"""Runs that are handed over -> their networks for other engines, each compared with torch before it is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segmed.builders.engine_networks import engine_file, network_runs
from segmed.builders.segmenters import label_set
from segmed.builders.trained import load_network
from segmed.config import SegmentationConfig, known
from segmed.errors import RunError
from segmed.export.convert import ENGINE_OF, Format, convert, noise, parity
from segmed.export.handed_over import read_any
from segmed.files import write_json
from segmed.runs import Run
from segmed.segmenters.engines import TITLES, start_engine
from segmed.targets import targets_of

RECORD = "engines.json"  # beside the weights: how far each is from torch


def add_engines(folder: Path, forms: Sequence[Format]) -> list[str]:
    """Put every network of a run into its folder in other forms too.

    Args:
        folder: as `hand_over` makes it.
        forms: `onnx`, `openvino`.

    Returns:
        Lines for the card: how far they are from torch.

    Raises:
        RunError: a run that classifies.
        SegmenterError: an engine that is not installed, lacks an operator, or differs from torch.
    """
    lines = []
    for run in network_runs(folder):
        config = read_any(run.path)
        if not isinstance(config, SegmentationConfig):
            raise RunError("--format onnx and openvino are of networks that segment: this run classifies, leave it out")
        figures = {form: _converted(run, config, form) for form in forms}
        write_json(run.weights().with_name(RECORD), figures)
        for form, each in figures.items():
            name = run.path.relative_to(folder.parent)
            lines.append(
                f"- {TITLES[ENGINE_OF[form]]} ({name}), compared with torch in fp32: logits "
                f"differ by at most {each['largest_difference_of_logits']:.2g} of a range of "
                f"{each['range_of_logits']:.3g}, least Dice of a label {each['least_dice_of_labels']:.5f}."
            )
    return lines


def _converted(run: Run, config: SegmentationConfig, form: Format) -> dict[str, Any]:
    """Convert the network of one run; how far it is from torch on an image of another size than it was traced with."""
    network = load_network(run, config).eval()
    channels, window = len(known(config.data.images)), known(config.patches.size)
    stem = run.weights().with_suffix("")
    convert(network, stem, form, image=noise(channels, window))
    divisor = getattr(network, "divisor", (1,) * len(window))
    larger = tuple(step * math.ceil(size / step + 1) for size, step in zip(window, divisor, strict=True))
    compute = start_engine(ENGINE_OF[form], engine_file(run, ENGINE_OF[form]), precision="fp32")
    decide = targets_of(label_set(config)).decided
    with torch.no_grad():
        return parity(network, compute, noise(channels, larger, batch=2, seed=1), decide)

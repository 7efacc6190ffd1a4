"""Row of continuous max-flow: four labels of a noisy heart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.synthetic import BRIGHTNESS, heart
from benchmarks.timing import Outcome, Setting, Target, alternate, timed
from segmed.segmenters.flow import Flow, Tree
from segmed.segmenters.maxflow import CHECK_EVERY, potts_max_flow

OURS, WHOLE = "segmed, in slabs", "the same iterations, volumes in one piece"
SMOOTHNESS, NOISE = 0.5, 150.0
SPACING_MM = (1.0, 1.0, 1.0)


def maxflow_row(setting: Setting) -> Outcome:
    """To a proven 0.1 % of the least energy, beside the same arithmetic without slabs."""
    edge = 16 if setting.quick else 128
    label = heart((edge,) * 3, 0)
    image = BRIGHTNESS[label] + np.random.default_rng(0).normal(0, NOISE, label.shape)
    costs = torch.from_numpy(((image - BRIGHTNESS[:, None, None, None]) ** 2 / (2 * NOISE**2)).astype(np.float32))
    shares, result = potts_max_flow(costs, SMOOTHNESS, spacing_mm=SPACING_MM)  # warms up, too
    contenders = {
        OURS: timed(lambda: potts_max_flow(costs, SMOOTHNESS, spacing_mm=SPACING_MM)),
        WHOLE: timed(lambda: _in_one_piece(costs, result.iterations)),
    }
    timings = alternate(contenders, rounds=setting.rounds, warm_ups=0)
    right = float((shares.argmax(0).numpy() == label).mean())
    note = f"{result.iterations} iterations, gap {result.gap:.1e}; {right:.1%} of the voxels right"
    target = Target("until the gap is below 0.1 %", timings[OURS].median, "below", 60, "s")
    return Outcome("maxflow", f"Potts max-flow of {edge}³, four labels", OURS, timings, (target,), (note,))


def _in_one_piece(costs: Tensor, iterations: int) -> Tensor:
    """As many iterations and looks at the gap."""
    tree, weights, size = Tree((-1,) * len(costs), leaves=len(costs)), [SMOOTHNESS] * len(costs), costs[0].numel()
    flow = Flow(costs, weights, tree, spacing=SPACING_MM, step=1.0, penalty=None, slab_voxels=size)
    for number in range(1, iterations + 1):
        measured = number % CHECK_EVERY == 0
        flow.iterate(measured=measured)
        if measured:
            flow.gap()
    return flow.labelling()

"""Continuous max-flow: the labelling of least cost and least surface, for two labels, many, or a tree of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segmed.errors import SegmenterError
from segmed.segmenters.flow import Flow, Tree

CHECK_EVERY = 10  # iterations between two tests of convergence, each of which takes as long as two or three
TOLERANCE = 1e-3


@dataclass(frozen=True)
class MaxFlowResult:
    """How a max-flow ended.

    Attributes:
        iterations: done.
        residual: mean change of a label's share in a voxel during the last iteration.
        gap: how far the labelling's energy can be above the least possible, as a share of it; the energies are
            counted from the sum of every voxel's cheapest cost, which no labelling goes below.
        converged: whether the gap fell to the tolerance within the iterations allowed.
    """

    iterations: int
    residual: float
    gap: float
    converged: bool


def potts_max_flow(
    costs: Tensor,
    smoothness: float | Tensor,
    *,
    spacing_mm: Sequence[float],
    iterations: int = 300,
    tolerance: float = TOLERANCE,
    step: float = 1.0,
    penalty: float | None = None,
) -> tuple[Tensor, MaxFlowResult]:
    """Convex relaxation of the Potts model, solved through its dual, a maximum flow.

    Least of the sum over labels i and voxels of costs_i u_i + smoothness_i |grad u_i|, with u_i >= 0 summing to one;
    the gradient is that of forward differences in mm, nothing flowing out of the volume. A surface counts for both
    labels that it parts, so that two labels here are `binary_max_flow` at twice the smoothness.

    Where every label costs infinity, a voxel is outside: neither its labels nor surfaces at it count.

    Args:
        costs: (L, *spatial), one to three axes, float32 or float64, on any device, such as negative log likelihoods;
            infinity forbids a label.
        smoothness: costs times mm, zero or more: a number, (L,) of the labels, or what broadcasts to the costs.
        spacing_mm: of the spatial axes.
        iterations: at most.
        tolerance: of the gap (see `MaxFlowResult`) at which to stop.
        step: of the flows, as a share of the largest for which convergence is proven.
        penalty: of the augmented Lagrangian, in units of 1 / costs; None: from the costs and the smoothness.

    Returns:
        (L, *spatial) shares in [0, 1] summing to one, 0 outside, and how it ended.

    Raises:
        SegmenterError: costs without a meaning, smoothness below zero or of another shape, spacing not positive.

    Source: Yuan, Bae, Tai, Boykov 2010, ECCV, A continuous max-flow approach to Potts model, algorithm 1.
    """
    _check_costs(costs, least=1)
    tree = Tree((-1,) * len(costs), leaves=len(costs))
    options = _Options(tuple(spacing_mm), iterations, tolerance, step, penalty)
    shares, result = _solve(costs, _weights(smoothness, costs), tree, options)
    return shares, result


def binary_max_flow(
    costs: Tensor,
    smoothness: float | Tensor,
    *,
    spacing_mm: Sequence[float],
    iterations: int = 300,
    tolerance: float = TOLERANCE,
    step: float = 1.0,
    penalty: float | None = None,
) -> tuple[Tensor, MaxFlowResult]:
    """Two labels: a threshold of the result at any level is a best labelling (Chan, Esedoglu, Nikolova 2006).

    Least of the sum over voxels of costs_0 (1 - u) + costs_1 u + smoothness |grad u|, with u in [0, 1]; a surface
    counts once.

    Args:
        costs: (2, *spatial), otherwise as in `potts_max_flow`.
        smoothness: costs times mm: a number, or what broadcasts to (1, *spatial).
        spacing_mm: see `potts_max_flow`, as for the other arguments.

    Returns:
        (2, *spatial) shares 1 - u and u, 0 outside, and how it ended.

    Raises:
        SegmenterError: as `potts_max_flow`; also other than two labels.

    Source: Yuan, Bae, Tai 2010, CVPR, A study on continuous max-flow and min-cut approaches, algorithm 1.
    """
    _check_costs(costs, least=2)
    if len(costs) != 2:
        raise SegmenterError(f"a binary max-flow takes the costs of 2 labels, not of {len(costs)}: use potts_max_flow")
    tree = Tree((-1,), leaves=1)
    options = _Options(tuple(spacing_mm), iterations, tolerance, step, penalty)
    return _solve(costs, _weights(smoothness, costs[1:]), tree, options)


def hierarchical_max_flow(
    costs: Mapping[str, Tensor],
    tree: Mapping[str, Any],
    smoothness: float | Mapping[str, float | Tensor],
    *,
    spacing_mm: Sequence[float],
    iterations: int = 300,
    tolerance: float = TOLERANCE,
    step: float = 1.0,
    penalty: float | None = None,
) -> tuple[dict[str, Tensor], MaxFlowResult]:
    """Labels in a tree, where a surface counts for every node that it bounds: scar inside the myocardium in the heart.

    Least of the sum over leaves of costs u and over all nodes of smoothness |grad u|, where the leaves' u sum to one
    and a node's u is the sum of its children's.

    Args:
        costs: (*spatial) of every leaf; see `potts_max_flow` for these and the other arguments.
        tree: nested, a leaf being None or empty: {"background": None, "heart": {"blood": None, "wall": {...}}}.
        smoothness: costs times mm of every node, by name, each a number or (*spatial); or one number for all.
        spacing_mm: of the spatial axes.

    Returns:
        (*spatial) shares of every node by name, leaves and others, and how it ended.

    Raises:
        SegmenterError: as `potts_max_flow`; also names that differ between tree, costs and smoothness.

    Source: Baxter, Rajchl, Yuan, Peters 2014, arXiv 1404.0336; Rajchl et al. 2014, IEEE TMI 33:159.
    """
    names, layout = read_tree(tree)
    leaves = names[: layout.leaves]
    if set(leaves) != set(costs):
        raise SegmenterError(
            f"the tree's leaves are {', '.join(leaves)}, costs are of {', '.join(costs)}: give the same"
        )
    shapes = {tuple(costs[name].shape) for name in leaves}
    if len(shapes) > 1:
        raise SegmenterError(f"costs of the leaves have the shapes {sorted(shapes)}: give all the same")
    stacked = torch.stack([costs[name] for name in leaves])
    _check_costs(stacked, least=1)
    if not isinstance(smoothness, Mapping):
        smoothness = dict.fromkeys(names, smoothness)
    if set(smoothness) != set(names):
        raise SegmenterError(f"smoothness is of {', '.join(smoothness)}, the tree's nodes are {', '.join(names)}")
    weights = [weight for name in names for weight in _weights(smoothness[name], stacked[:1])]
    options = _Options(tuple(spacing_mm), iterations, tolerance, step, penalty)
    shares, result = _solve(stacked, weights, layout, options)
    return dict(zip(names, shares, strict=True)), result


def read_tree(tree: Mapping[str, Any]) -> tuple[list[str], Tree]:
    """Names of a nested mapping's nodes, leaves first, then the others with children before parents; and the tree.

    Raises:
        SegmenterError: no leaf, or a name given twice.
    """
    walked = list(_walk(tree, None))
    names = [name for name, _, leaf in walked if leaf] + [name for name, _, leaf in walked if not leaf]
    if not names:
        raise SegmenterError("a tree of labels is empty: name at least one leaf")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SegmenterError(f"the tree of labels has '{twice}' twice: give every node a name of its own")
    parent = {name: above for name, above, _ in walked}
    places = tuple(-1 if above is None else names.index(above) for above in (parent[name] for name in names))
    return names, Tree(places, leaves=sum(leaf for _, _, leaf in walked))


def _walk(tree: Mapping[str, Any], above: str | None) -> Iterator[tuple[str, str | None, bool]]:
    """Name, parent, and whether it is a leaf, of every node, children before parents."""
    for name, below in tree.items():
        if below:
            yield from _walk(below, name)
        yield name, above, not below


@dataclass(frozen=True)
class _Options:
    spacing_mm: tuple[float, ...]
    iterations: int
    tolerance: float
    step: float
    penalty: float | None


def _solve(costs: Tensor, weights: list[float | Tensor], tree: Tree, options: _Options) -> tuple[Tensor, MaxFlowResult]:
    """Iterate until the gap is small; shares of the tree's nodes, or of both labels of a binary problem."""
    spatial = tuple(costs.shape[1:])
    if len(options.spacing_mm) != len(spatial) or not all(0 < h < float("inf") for h in options.spacing_mm):
        raise SegmenterError(f"spacing {options.spacing_mm} mm of {len(spatial)} axes: give a positive number for each")
    if options.iterations < 1 or options.step <= 0 or (options.penalty is not None and options.penalty <= 0):
        raise SegmenterError("a max-flow needs iterations, step and penalty above zero")
    flow = Flow(costs, weights, tree, spacing=options.spacing_mm, step=options.step, penalty=options.penalty)
    residual, gap, done = float("inf"), float("inf"), 0
    while done < options.iterations and gap > options.tolerance:
        done += 1
        last = done == options.iterations
        measured = done % CHECK_EVERY == 0 or last
        change = flow.iterate(measured=measured)
        if measured:
            residual, gap = change, flow.gap()
    return flow.labelling(), MaxFlowResult(done, residual, gap, gap <= options.tolerance)


def _check_costs(costs: Tensor, *, least: int) -> None:
    if not 2 <= costs.ndim <= 4 or costs.dtype not in (torch.float32, torch.float64):
        raise SegmenterError(
            f"costs are {costs.dtype} of shape {tuple(costs.shape)}: give floats (L, *spatial), 1 to 3 axes"
        )
    if len(costs) < least or costs.numel() == 0:
        raise SegmenterError(f"costs of shape {tuple(costs.shape)} are empty: give labels and voxels")
    if bool((costs.isnan() | costs.isneginf()).any()):
        raise SegmenterError("costs hold NaN or minus infinity: give finite costs, or infinity to forbid a label")
    if bool(costs.isposinf().all()):
        raise SegmenterError("every label costs infinity everywhere: allow at least one in one voxel")


def _weights(smoothness: float | Tensor, costs: Tensor) -> list[float | Tensor]:
    """For each label a number or the flat weights of its voxels."""
    if not isinstance(smoothness, Tensor):
        if not 0 <= smoothness < float("inf"):
            raise SegmenterError(f"smoothness {smoothness} is no weight: give a finite number, zero or more")
        return [float(smoothness)] * len(costs)
    if smoothness.shape == (len(costs),) or smoothness.ndim == 0:
        return [_weights(float(weight), costs[:1])[0] for weight in smoothness.expand(len(costs))]
    try:
        spread = smoothness.to(costs).expand(costs.shape)
    except RuntimeError as error:
        shapes = f"{tuple(smoothness.shape)}, the costs {tuple(costs.shape)}"
        raise SegmenterError(f"smoothness has the shape {shapes}: give a number, (L,) or what broadcasts") from error
    if not bool((spread.isfinite() & (spread >= 0)).all()):
        raise SegmenterError("smoothness has voxels that are not finite or below zero: give zero or more")
    return [weight.flatten() for weight in spread]

"""The flows of a tree of labels and their labelling, a slab of the volume at a time so that it stays in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SLAB_VOXELS = 1 << 19  # on the CPU; 128³ took 1.1 to 1.4 times as long in 1 << 17, 0.95 to 1.5 times in one piece
PENALTY = (
    0.3  # over the root of cost times smoothness: the gap falls below 1e-3 in the fewest iterations from 0.2 to 0.4
)
TINY = 1e-30  # keeps 1 / |q| finite


@dataclass(frozen=True)
class Tree:
    """Labels below a source.

    Attributes:
        parents: index of every node's parent, -1 being the source; the leaves come first, then the other nodes,
            each after its children.
        leaves: how many of the nodes have a cost.
    """

    parents: tuple[int, ...]
    leaves: int

    def children(self, node: int) -> list[int]:
        """Nodes right below one; below the source for -1."""
        return [child for child, parent in enumerate(self.parents) if parent == node]

    @property
    def branches(self) -> range:
        """Nodes that are no leaves, children first."""
        return range(self.leaves, len(self.parents))

    def below(self, node: int) -> list[int]:
        """Leaves of a node."""
        if node < self.leaves:
            return [node]
        return [leaf for child in self.children(node) for leaf in self.below(child)]


class Flow:
    """State of the augmented Lagrangian of Yuan et al. 2010 and Baxter et al. 2014.

    A flow p runs from the source through the tree; a leaf lets through at most its cost, and a node's spatial flow q,
    |q| <= smoothness, carries between voxels what is left. The multiplier of conservation, p - p_parent + div q = 0,
    is the labelling u. With v = u / penalty, one sweep over q, p of the leaves, p of the branches, p of the source and
    u comes down to

        q <- project(q - step grad(2 v - v_before)),   s = p + div q - v,   v <- p_parent - s

    where s is min(cost + div q - v, p_parent) in a leaf: neither p of a leaf nor div q is ever stored.
    Seven volumes per node are: cost, v, 2 v - v_before, and q of three axes; and the smoothness, if it has voxels.

    Args:
        costs: (L, *spatial) of the leaves; with one leaf and two costs, the first is that of being outside it.
        weights: smoothness of each node, a number or flat.
        tree: of labels.
        spacing: of the axes.
        step: share of the largest step of q for which the sweep is known to converge.
        penalty: in units of 1 / costs; None: chosen.
        slab_voxels: about how many are worked on at a time; None: `SLAB_VOXELS` on the CPU, all elsewhere.
    """

    def __init__(
        self,
        costs: Tensor,
        weights: Sequence[float | Tensor],
        tree: Tree,
        *,
        spacing: Sequence[float],
        step: float,
        penalty: float | None,
        slab_voxels: int | None = None,
    ) -> None:
        self.tree = tree
        self.shape = tuple(costs.shape[1:])
        unit = min(spacing)  # lengths are counted in the smallest spacing, which leaves the energy as it is
        self._per_length = [unit / h for h in spacing]
        self._weights = [weight / unit for weight in weights]
        self._strides = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        flat = costs.flatten(1)
        cheapest = flat.amin(0)
        inside = cheapest.isfinite()
        self._voxels = int(inside.sum())
        self._edges = None if self._voxels == inside.numel() else self._edges_within(inside.view(self.shape))
        flat = torch.where(inside, flat - cheapest, 0.0)
        self._ceiling: Tensor | None = flat[0] if len(flat) > tree.leaves else None
        self._costs = flat[-tree.leaves :]
        self._inside = inside
        self._forbids = bool(flat.isinf().any())
        steepness = 4 * sum(per**2 for per in self._per_length)  # bound of |grad|²
        self._penalty = self._chosen_penalty(flat) if penalty is None else penalty
        self._step = step / steepness
        nodes, voxels = len(tree.parents), flat.shape[1]
        self._v = flat.new_zeros(nodes, voxels)
        for leaf, cost in enumerate(self._costs):
            self._v[leaf] = ((cost == 0) if self._ceiling is None else (cost < self._ceiling)) / self._penalty
        for branch in tree.branches:
            for child in tree.children(branch):
                self._v[branch] += self._v[child]
        self._ahead = self._v.clone()
        self._q = flat.new_zeros(nodes, len(self.shape), voxels)
        self._p = flat.new_zeros(1 + len(tree.branches), voxels)
        if slab_voxels is None:
            slab_voxels = SLAB_VOXELS if costs.device.type == "cpu" else voxels
        self._slab = min(self.shape[0], max(1, slab_voxels // self._strides[0]))
        size = self._slab * self._strides[0]
        self._s = flat.new_empty(nodes, size)
        self._scratch = flat.new_empty(size)

    def _edges_within(self, inside: Tensor) -> Tensor:
        """(axes, voxels) of 0 and 1: whether a voxel and its next are both inside."""
        edges = torch.zeros((inside.ndim, *inside.shape), dtype=torch.bool, device=inside.device)
        for axis, size in enumerate(inside.shape):
            both = inside.narrow(axis, 0, size - 1) & inside.narrow(axis, 1, size - 1)
            edges[axis].narrow(axis, 0, size - 1).copy_(both)
        return edges.flatten(1)

    def _chosen_penalty(self, costs: Tensor) -> float:
        """Between what lets the labelling and what lets the spatial flows settle in the fewest iterations."""
        finite = torch.where(costs.isfinite(), costs, 0.0)
        cost = float(finite.sum(dtype=torch.float64)) / max(1, len(costs) - 1) / max(1, self._voxels)
        means = [float(weight.mean()) if isinstance(weight, Tensor) else weight for weight in self._weights]
        smoothness = sum(means) / len(means)
        if cost == 0:
            return 1.0 if smoothness == 0 else PENALTY / smoothness
        return PENALTY / math.sqrt(cost * max(smoothness, 0.1 * cost))

    def _slabs(self) -> Iterator[tuple[int, int]]:
        """First and one past the last voxel of each slab."""
        plane = self._strides[0]
        for first in range(0, self.shape[0], self._slab):
            yield first * plane, min(first + self._slab, self.shape[0]) * plane

    def _through(self, node: int) -> Tensor:
        """Flow that comes out of a node other than a leaf; -1: of the source."""
        return self._p[0 if node < 0 else 1 + node - self.tree.leaves]

    def iterate(self, *, measured: bool = False) -> float:
        """Update all flows and the labelling once.

        Returns:
            Mean change of the leaves' shares where `measured`, otherwise NaN.
        """
        change = torch.zeros((), dtype=torch.float64, device=self._v.device)
        for begin, end in self._slabs():
            self._update_spatial(begin, end)
            self._update_flows(begin, end)
            for node, parent in enumerate(self.tree.parents):
                s, v, ahead = self._s[node, : end - begin], self._v[node, begin:end], self._ahead[node, begin:end]
                torch.sub(self._through(parent)[begin:end], s, out=s)  # the new v
                torch.sub(s, v, out=ahead)
                if measured and node < self.tree.leaves:
                    change += (ahead.abs() * self._inside[begin:end]).sum(dtype=torch.float64)
                ahead.add_(s)
                v.copy_(s)
        return float(change) * self._penalty / (self.tree.leaves * self._voxels) if measured else math.nan

    def _update_spatial(self, begin: int, end: int) -> None:
        """A step of q of all nodes along the gradient of the labelling, then back to |q| <= smoothness."""
        voxels = self._v.shape[1]
        for q, ahead, weight in zip(self._q, self._ahead, self._weights, strict=True):
            for axis, (stride, per) in enumerate(zip(self._strides, self._per_length, strict=True)):
                stop = min(end, voxels - stride)
                here, size = q[axis, begin:stop], self._step * per
                here.add_(ahead[begin:stop], alpha=size).sub_(ahead[begin + stride : stop + stride], alpha=size)
                self._close(q[axis], axis, begin, end)
            part, norm = q[:, begin:end], self._scratch[: end - begin].fill_(TINY)
            for component in part:
                norm.addcmul_(component, component)
            limit = weight[begin:end] if isinstance(weight, Tensor) else weight
            part.mul_(norm.rsqrt_().mul_(limit).clamp_(max=1.0))

    def _close(self, flow: Tensor, axis: int, begin: int, end: int) -> None:
        """Set to 0 the flow from the last voxel of a row along an axis and out of the region; (voxels,) in place."""
        if self._edges is not None:
            flow[begin:end].mul_(self._edges[axis, begin:end])
        elif axis > 0:
            plane = self._strides[0]
            flow.view(self.shape)[begin // plane : end // plane].select(axis, -1).zero_()

    def _add_divergence(self, result: Tensor, node: int, begin: int, end: int) -> Tensor:
        """Add div q of a node to a slab; the last q of every row being 0, rows need not be told apart."""
        for axis, (stride, per) in enumerate(zip(self._strides, self._per_length, strict=True)):
            q, start = self._q[node, axis], max(begin, stride)
            result.add_(q[begin:end], alpha=per)
            result[start - begin :].sub_(q[start - stride : end - stride], alpha=per)
        return result

    def _update_flows(self, begin: int, end: int) -> None:
        """p of leaves, branches and source, the best for the others as they are; leaves s = p + div q - v."""
        tree, size = self.tree, end - begin
        for node, parent in enumerate(tree.parents):
            s = torch.neg(self._v[node, begin:end], out=self._s[node, :size])
            self._add_divergence(s, node, begin, end)
            if node < tree.leaves:
                torch.minimum(s.add_(self._costs[node, begin:end]), self._through(parent)[begin:end], out=s)
        for branch in tree.branches:
            s, p = self._s[branch, :size], self._through(branch)[begin:end]
            children = tree.children(branch)
            torch.sub(self._through(tree.parents[branch])[begin:end], s, out=p)
            for child in children:
                p.add_(self._s[child, :size])
            s.add_(p.div_(len(children) + 1))
        p, children = self._through(-1)[begin:end], tree.children(-1)
        p.fill_(1 / self._penalty)
        for child in children:
            p.add_(self._s[child, :size])
        p.div_(len(children))
        if self._ceiling is not None:
            torch.minimum(p, self._ceiling[begin:end], out=p)

    def gap(self) -> float:
        """Energy of the labelling above that of the flow, which no labelling goes below, as a share of the former."""
        primal = dual = 0.0
        for begin, end in self._slabs():
            dual += self._dual(begin, end)
            primal += self._primal(begin, end)
        return max(0.0, (primal - dual) / primal) if primal > 0 else 0.0

    def _dual(self, begin: int, end: int) -> float:
        """Most that the source can send through a slab."""
        sums = {-1: torch.zeros_like(self._v[0, begin:end])}
        for node in reversed(range(len(self.tree.parents))):
            sums[node] = self._add_divergence(sums[self.tree.parents[node]].clone(), node, begin, end)
        most = sums[0] + self._costs[0, begin:end]
        for leaf in range(1, self.tree.leaves):
            torch.minimum(most, sums[leaf].add_(self._costs[leaf, begin:end]), out=most)
        if self._ceiling is not None:
            torch.minimum(most, self._ceiling[begin:end], out=most)
        return float(most.sum(dtype=torch.float64))

    def _primal(self, begin: int, end: int) -> float:
        """Energy of a slab's voxels."""
        beyond = min(end + self._strides[0], self._v.shape[1])
        shares = self._shares(begin, beyond)
        costs = self._costs[:, begin:end]
        if self._forbids:
            costs = torch.where(costs.isinf(), 0.0, costs)
        total = float((costs * shares[:, : end - begin]).sum(dtype=torch.float64))
        if self._ceiling is not None:
            free = self._ceiling[begin:end]
            free = torch.where(free.isinf(), 0.0, free)
            total += float((free * (1 - shares[0, : end - begin])).sum(dtype=torch.float64))
        for node, weight in enumerate(self._weights):
            share = shares[self.tree.below(node)].sum(0)
            limit = weight[begin:end] if isinstance(weight, Tensor) else weight
            total += float((self._steepness(share, begin, end) * limit).sum(dtype=torch.float64))
        return total

    def _steepness(self, share: Tensor, begin: int, end: int) -> Tensor:
        """|grad| of a slab that is followed by another plane, except at the end."""
        square = torch.zeros_like(share[: end - begin])
        for axis, (stride, per) in enumerate(zip(self._strides, self._per_length, strict=True)):
            difference = torch.zeros_like(square)
            stop = min(end - begin, len(share) - stride)
            difference[:stop] = (share[stride : stop + stride] - share[:stop]) * per
            if self._edges is not None:
                difference.mul_(self._edges[axis, begin:end])
            elif axis > 0:
                difference.view(-1, *self.shape[1:]).select(axis, -1).zero_()
            square.addcmul_(difference, difference)
        return square.sqrt_()

    def _shares(self, begin: int, end: int) -> Tensor:
        """(leaves, voxels) of the labelling made to obey its bounds: no share below zero or forbidden, one in all."""
        shares = (self._v[: self.tree.leaves, begin:end] * self._penalty).clamp_(0, 1)
        if self._forbids:
            shares.masked_fill_(self._costs[:, begin:end].isinf(), 0.0)
        if self._ceiling is not None:
            return shares.masked_fill_(self._ceiling[begin:end].isinf(), 1.0) if self._forbids else shares
        total = shares.sum(0)
        lost = total <= 0
        if bool(lost.any()):  # all that is left after many steps apart is forbidden: the cheapest it is
            best = self._costs[:, begin:end].argmin(0, keepdim=True)
            shares.add_(torch.zeros_like(shares).scatter_(0, best, 1.0).mul_(lost))
            total = shares.sum(0)
        return shares.div_(total)

    def labelling(self) -> Tensor:
        """(nodes, *spatial) shares, 0 outside; (2, *spatial) of a binary problem."""
        shares = self._shares(0, self._v.shape[1])
        if self._ceiling is not None:
            shares = torch.cat((1 - shares, shares))
        elif len(self.tree.branches):
            shares = torch.stack([shares[self.tree.below(node)].sum(0) for node in range(len(self.tree.parents))])
        if self._edges is not None:
            shares.mul_(self._inside)
        return shares.view(-1, *self.shape)

"""What a network's channels stand for: labels, one a voxel, or regions that may hold each other, each by itself.

The one place that knows how many channels there are, what they should be for a label map, what is made of their
logits, and how probabilities become a label map. Whatever the channels are, probabilities are those of background and
of each label and sum to one, so that all segmenters nest: the probability of a region is the sum over its labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from segmed.errors import VolumeError
from segmed.labels import IGNORE, LabelSet

Bring = Callable[[Tensor], Tensor]


def as_it_is(probability: Tensor) -> Tensor:
    """The same map, on the grid that it has."""
    return probability


class Targets(ABC):
    """The channels of a network.

    Attributes:
        names: of the channels.
        classes: background and labels, of which probabilities are given.
        notes: what a label map can't say, a line each.
    """

    names: tuple[str, ...]
    classes: int
    notes: Sequence[str] = ()

    @property
    def channels(self) -> int:
        """Number of the network's channels."""
        return len(self.names)

    @abstractmethod
    def maps(self, labels: Tensor) -> Tensor:
        """What the channels should be.

        Args:
            labels: (B, *spatial), label indices, with `IGNORE`.

        Returns:
            0 and 1 in float32, (B, channels, *spatial); all 0 where nobody annotated.
        """

    @abstractmethod
    def activated(self, logits: Tensor) -> Tensor:
        """Logits (B, channels, *spatial) -> the probability of each channel, of the same shape."""

    @abstractmethod
    def decided(self, logits: Tensor) -> Tensor:
        """Logits (B, channels, *spatial) -> label maps (B, *spatial), int64."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (channels, *spatial) -> probabilities (classes, *spatial), background first, summing to one."""

    @abstractmethod
    def logits(self, probabilities: Tensor) -> Tensor:
        """Finite logits (channels, *spatial) whose probabilities (classes, *spatial) are as good as these."""

    @abstractmethod
    def decide(self, probabilities: Tensor, bring: Bring = as_it_is) -> Tensor:
        """The label map of probabilities.

        Args:
            probabilities: (classes, *spatial).
            bring: brings one map (*spatial) onto another grid, before anything is decided there.

        Returns:
            Label indices, uint8, on the grid of what `bring` gives.
        """

    @abstractmethod
    def swapped(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Pairs of label indices that a flip exchanges -> pairs of channels that it exchanges.

        Raises:
            VolumeError: a channel would become none of the others.
        """


def targets_of(labels: LabelSet) -> Targets:
    """What a network of these labels learns: each of `labels.targets`, or else the labels.

    Raises:
        VolumeError: the targets can't be told back into labels.
    """
    return RegionTargets(labels) if labels.targets else LabelTargets(labels.names)


class LabelTargets(Targets):
    """Background and labels, of which a voxel has one: softmax, and the most probable."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.names = ("background", *labels)
        self.classes = len(self.names)

    def maps(self, labels: Tensor) -> Tensor:
        numbers = torch.arange(self.channels, device=labels.device).view(1, -1, *[1] * (labels.dim() - 1))
        return (labels[:, None] == numbers).float()

    def activated(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)

    def decided(self, logits: Tensor) -> Tensor:
        return self.activated(logits).argmax(dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=0)

    def logits(self, probabilities: Tensor) -> Tensor:
        return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()

    def decide(self, probabilities: Tensor, bring: Bring = as_it_is) -> Tensor:
        """The most probable, the first of equal ones.

        `argmax(0)` gives the same and takes seven times as long on a CPU (0.64 against 0.09 s for 4 x 256 x 256 x 80).
        """
        best = bring(probabilities[0]).clone()
        winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
        for index in range(1, len(probabilities)):
            rival = bring(probabilities[index])
            winner.masked_fill_(rival > best, index)
            torch.maximum(best, rival, out=best)
        return winner

    def swapped(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        return list(pairs)


class RegionTargets(Targets):
    """Regions of labels that lie inside each other or apart: a sigmoid each, painted in their order, outer ones first.

    A region is at least as probable as what lies inside it, and what is left of it belongs to its own label, that of
    no inner region: so labels get probabilities that sum to one, and a label map is the same as when each region is
    painted where its probability is above 0.5 (as nnU-Net's `regions_class_order`). Where regions that exclude each
    other have more than 1 together, they share it.

    Args:
        labels: whose `targets` name the regions, or single labels, in the order of painting.

    Attributes:
        members: label indices of each region.
        own: of each region, the labels that no inner region has; the first of them is what it is painted as.
        inner: of each region, the next smaller ones inside it; those of the whole image last.

    Raises:
        VolumeError: there is one alone, two are the same or overlap in part, or an inner one comes before the one
            that holds it.

    Source: Isensee et al. 2021, arXiv 2011.00848 (regions of BraTS as targets).
    """

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self.names = labels.targets
        self.classes = labels.classes
        if len(self.names) < 2:
            raise VolumeError(
                f"data.targets names '{''.join(self.names)}' alone: name two or more, or make it a label of data.labels"
            )
        self.members = [labels.members(name) for name in self.names]
        for number, name in enumerate(self.names):
            for other, earlier in enumerate(self.names[:number]):
                _check_pair(earlier, set(self.members[other]), name, set(self.members[number]))
        outer = [self._outer(number) for number in range(self.channels)]
        everywhere = self.channels
        self.inner = [
            [number for number in range(self.channels) if outer[number] == holder] for holder in range(everywhere + 1)
        ]
        self.own = [
            [index for index in self.members[n] if all(index not in self.members[i] for i in self.inner[n])]
            for n in range(self.channels)
        ]
        self.notes = self._notes()

    def _outer(self, number: int) -> int:
        """The smallest region around a region; the number of channels where there is none."""
        around = [n for n in range(number) if set(self.members[number]) < set(self.members[n])]
        return min(around, key=lambda n: len(self.members[n]), default=self.channels)

    def _notes(self) -> list[str]:
        names = self.labels.names
        lines = []
        for own in self.own:
            if len(own) > 1:
                together = ", ".join(names[index - 1] for index in own)
                lines.append(f"labels {together} are in the same targets: all are written as {names[own[0] - 1]}")
        held = {index for members in self.members for index in members}
        without = [name for index, name in enumerate(names, 1) if index not in held]
        if without:
            lines.append(f"labels {', '.join(without)} are in no target: they are learned as background")
        return lines

    def maps(self, labels: Tensor) -> Tensor:
        table = torch.zeros((self.channels, IGNORE + 1), device=labels.device)
        for row, members in zip(table, self.members, strict=True):
            row[list(members)] = 1.0
        return table[:, labels.long()].movedim(0, 1)

    def activated(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def decided(self, logits: Tensor) -> Tensor:
        return torch.stack([self.decide(self.probabilities(one)) for one in logits]).long()

    def probabilities(self, logits: Tensor) -> Tensor:
        regions = list(logits.sigmoid())
        for number in reversed(range(self.channels)):
            if self.inner[number]:
                regions[number] = torch.maximum(regions[number], self._inside(regions, number))
        everything = self._inside(regions, self.channels)
        share = [1 / everything.clamp(min=1)] * self.channels
        result = torch.zeros((self.classes, *logits.shape[1:]), device=logits.device)
        for number, own in enumerate(self.own):
            inside = self._inside(regions, number) if self.inner[number] else torch.zeros_like(everything)
            if own:
                result[own[0]] = share[number] * (regions[number] - inside)
                grown = share[number]
            else:  # its parts share all of it
                grown = share[number] * regions[number] / inside.clamp(min=torch.finfo(inside.dtype).tiny)
            for part in self.inner[number]:
                share[part] = grown
        result[0] = (1 - result.sum(0)).clamp(min=0)
        return result

    def _inside(self, regions: Sequence[Tensor], number: int) -> Tensor:
        """The sum over the next smaller regions."""
        return torch.stack([regions[part] for part in self.inner[number]]).sum(0)

    def logits(self, probabilities: Tensor) -> Tensor:
        regions = torch.stack([self._of(probabilities, number) for number in range(self.channels)])
        return torch.logit(regions, eps=torch.finfo(torch.float32).eps)

    def decide(self, probabilities: Tensor, bring: Bring = as_it_is) -> Tensor:
        winner: Tensor | None = None
        for number, own in enumerate(self.own):
            region = bring(self._of(probabilities, number))
            winner = torch.zeros(region.shape, dtype=torch.uint8, device=region.device) if winner is None else winner
            painted = region > 0.5
            if own:
                winner[painted] = own[0]
                continue
            best = torch.full_like(region, -1.0)
            for part in self.inner[number]:
                rival = bring(self._of(probabilities, part))
                winner[painted & (rival > best)] = self._painted_as(part)
                torch.maximum(best, rival, out=best)
        if winner is None:
            raise VolumeError("no region to decide on: name at least one target")
        return winner

    def _of(self, probabilities: Tensor, number: int) -> Tensor:
        return probabilities[list(self.members[number])].sum(0)

    def _painted_as(self, number: int) -> int:
        own = self.own[number]
        return own[0] if own else self._painted_as(self.inner[number][0])

    def swapped(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        other = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
        sets = [frozenset(members) for members in self.members]
        exchanged = []
        for number, members in enumerate(sets):
            mirrored = frozenset(other.get(index, index) for index in members)
            if mirrored not in sets:
                raise VolumeError(
                    f"target '{self.names[number]}' flipped by data.mirror_pairs is no target: add that of the other "
                    "side, or take the pair away"
                )
            if number < sets.index(mirrored):
                exchanged.append((number, sets.index(mirrored)))
        return exchanged


def _check_pair(first: str, outer: set[int], second: str, inner: set[int]) -> None:
    """Refuse a region after another that it can't be painted over.

    Raises:
        VolumeError: both are the same, overlap in part, or the second holds the first.
    """
    if outer == inner:
        raise VolumeError(f"targets '{first}' and '{second}' hold the same labels: leave one of them out")
    if outer < inner:
        raise VolumeError(
            f"target '{first}' comes before '{second}', which holds it and would be painted over it: "
            f"name '{second}' first, outer targets before inner ones"
        )
    if outer & inner and not inner < outer:
        raise VolumeError(
            f"targets '{first}' and '{second}' overlap and neither holds the other: labels can't be told from them; "
            "name regions that lie inside each other or apart"
        )

"""Image -> logits of several networks that learn beside each other from the same patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.models import SegmentationModel


class DeepEnsemble(SegmentationModel):
    """Several networks of one kind as one: each has its own random weights and its own loss, their mean logits answer.

    Args:
        networks: two or more, of the same image channels, classes, strides and heads.

    Attributes:
        networks: as given.

    Raises:
        NetworkError: fewer than two, or networks that differ.

    Source: Lakshminarayanan et al. 2017, arXiv 1612.01474, without its adversarial examples; of logits in place of
    probabilities, so that it is one network for every export.
    """

    def __init__(self, networks: Sequence[SegmentationModel]) -> None:
        kinds = {(one.in_channels, one.out_channels, one.divisor, one.supervised_levels) for one in networks}
        if len(networks) < 2 or len(kinds) > 1:
            raise NetworkError(f"{len(networks)} networks of {len(kinds)} kinds: give two or more of one kind")
        first = networks[0]
        super().__init__(first.in_channels, first.out_channels, first.divisor, smallest_map=first.smallest_map)
        self.supervised_levels, self.members = first.supervised_levels, len(networks)
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) -> mean of the members' logits (B, out_channels, *spatial)."""
        return torch.stack([network(image) for network in self.networks]).mean(0)

    def all_logits(self, image: Tensor) -> list[Tensor]:
        """image: (B, in_channels, *spatial) -> logits of each supervised level of the first member, then the next's."""
        return [logits for network in self.networks for logits in network.all_logits(image)]  # type: ignore[operator]

"""A small CNN that decides on a voxel from the patch around it, computed for all voxels of an image at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.blocks import CONVOLUTIONS, DROPOUTS, activation, initialise
from segmed.networks.models import SegmentationModel

KERNEL = 3


class PatchwiseNet(SegmentationModel):
    """The class of a voxel from the patch around it, as if the patch slid over the image.

    On one patch each level would be two convolutions without padding, the second with step 2; then one convolution
    that is as large as what is left, and a decision. Here every step is a dilation in its place, so that one pass gives
    what the CNN would give on the patch around every voxel; beyond the border of the image patches are zero.

    Args:
        in_channels: of the image.
        out_channels: classes, background included.
        dims: 2 or 3.
        patch: voxels along an axis of what a decision sees.
        channels: feature maps of each level.
        hidden: features before the decision.
        dropout: of these features.

    Raises:
        NetworkError: fewer than two classes, another number of dimensions, or a patch that the levels do not fit.

    Source: Zabihollahy et al. 2019, Med Phys 46:1740, classifies the voxels of a given myocardium by the patches around
    them; sizes here are ours.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dims: int,
        patch: int = 21,
        channels: Sequence[int] = (32, 48),
        hidden: int = 96,
        dropout: float = 0.0,
    ) -> None:
        if dims not in CONVOLUTIONS:
            raise NetworkError(f"a network has 2 or 3 dimensions, not {dims}")
        super().__init__(in_channels, out_channels, (1,) * dims)
        self.patch, self.channels = patch, tuple(channels)
        last = _last_kernel(patch, len(self.channels))
        layers: list[nn.Module] = []
        width, dilation = in_channels, 1
        for outputs in self.channels:
            for inputs in (width, outputs):
                layers += [CONVOLUTIONS[dims](inputs, outputs, KERNEL, dilation=dilation), activation()]
            width, dilation = outputs, 2 * dilation
        layers += [CONVOLUTIONS[dims](width, hidden, last, dilation=dilation), activation()]
        if dropout:
            layers.append(DROPOUTS[dims](dropout))
        self.body = nn.Sequential(*layers)
        self.head = CONVOLUTIONS[dims](hidden, out_channels, 1)
        initialise(self)

    def all_logits(self, image: Tensor) -> list[Tensor]:
        """image: (B, in_channels, *spatial) -> [logits (B, out_channels, *spatial)]."""
        self.check_image(image)
        padded = F.pad(image, (self.patch // 2,) * 2 * self.dims)
        return [self.head(self.body(padded))]


def _last_kernel(patch: int, levels: int) -> int:
    """Voxels along an axis that the levels leave of a patch.

    Raises:
        NetworkError: none, or not a whole number of them.
    """
    if not levels:
        raise NetworkError("a patch CNN of no level: give the channels of one or more")
    step = 2**levels
    smallest = 1 + 2 * (KERNEL - 1) * (step - 1)  # both convolutions of a level see as far, the next one twice as far
    left, rest = divmod(patch - smallest, step)
    if left < 0 or rest:
        fitting = ", ".join(str(smallest + step * n) for n in range(1, 4))
        raise NetworkError(f"patch of {patch} voxels does not fit {levels} levels: give such as {fitting}")
    return left + 1

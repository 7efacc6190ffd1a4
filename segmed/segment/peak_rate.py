"""Network, optimiser and first weights of a segmentation -> the peak learning rate that suits such runs."""

from __future__ import annotations

from segmed.config import SegmentationConfig, UNetConfig
from segmed.training.optimisation import PEAK_RATE

U_NET_RATE = 4e-3  # peak for a U-Net with random weights: docs/results/segmentation.md
QUICK_ENCODERS = ("plain", "residual", "dense", "mednext")
QUICK_OPTIMISERS = ("adamw", "adam")


def usual_peak(config: SegmentationConfig) -> tuple[float, str]:
    """The rate that `auto` means, and around which `find` looks; and why."""
    network, optimiser = config.network, config.train.optimiser
    usual = PEAK_RATE[optimiser]
    quick = isinstance(network, UNetConfig) and network.encoder.name in QUICK_ENCODERS
    if not quick or optimiser not in QUICK_OPTIMISERS:
        return usual, f"usual peak for {optimiser}"
    if config.init_run is not None:
        return usual, f"usual peak for {optimiser}: a higher one would undo the weights that the run begins with"
    return U_NET_RATE, "the best peak of 1e-3 to 8e-3 in short runs of U-Nets on real data"

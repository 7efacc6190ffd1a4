"""Strided convolutions."""

from __future__ import annotations

from segmed.networks.blocks import ConvBlock
from segmed.networks.encoders.base_encoder import PyramidEncoder, RepeatedLevel


class PlainLevel(RepeatedLevel):
    """`blocks` convolutions with normalisation and LeakyReLU, the first of them strided."""

    block = ConvBlock


class PlainEncoder(PyramidEncoder):
    """Strided convolutions, as nnU-Net: Isensee et al. 2021, Nat Methods 18:203."""

    level = PlainLevel

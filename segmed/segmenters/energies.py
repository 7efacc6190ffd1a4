"""Max-flow as methods: scar against the rest of a region, and the tissues of a tree all at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.errors import SegmenterError
from segmed.geometry import as_affine, spacing_mm
from segmed.labels import LabelSet
from segmed.segmenters.intensities import BACKGROUND, SMOOTHNESS, Histograms, Mixture, TissueCosts
from segmed.segmenters.maxflow import TOLERANCE, MaxFlowResult, binary_max_flow, hierarchical_max_flow, read_tree
from segmed.segmenters.region import Scene, TissueMethod
from segmed.segmenters.segmenter import Segmenter, on_grid_of

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PottsFlow(TissueMethod):
    """Scar against the rest of the region by continuous max-flow; surface towards the outside costs nothing.

    It gives the relaxed labelling itself, nearly everywhere 0 or 1. What gain and offset do to the intensities drops
    out in the model.

    Attributes:
        model: what intensities cost in the two tissues.
        smoothness: costs (nats per voxel) times mm, of a surface.
        iterations: at most; one that stops before it has converged is logged as a warning.
        tolerance: of the gap; see `MaxFlowResult`.

    Source: Yuan, Bae, Tai 2010, CVPR; with two labels the Potts model of Yuan, Bae, Tai, Boykov 2010, ECCV.
    """

    model: TissueCosts = field(default_factory=Mixture)
    smoothness: float = SMOOTHNESS
    iterations: int = 300
    tolerance: float = TOLERANCE

    def probability(self, scene: Scene) -> np.ndarray:
        box = box_of(scene.region, margin=0)
        region = scene.region[box]
        costs = torch.full((2, *region.shape), float("inf"))
        costs[:, torch.from_numpy(region)] = torch.from_numpy(self.model.costs(scene))
        shares, ended = binary_max_flow(
            costs,
            self.smoothness,
            spacing_mm=scene.spacing_mm,
            iterations=self.iterations,
            tolerance=self.tolerance,
        )
        _warn_unless_converged(ended)
        result = np.zeros(scene.image.shape, np.float32)
        result[box] = shares[1].numpy()
        return result


class HierarchicalFlow(Segmenter):
    """All tissues of a tree at once, from histograms of cases, by hierarchical max-flow; it sees the first channel.

    Blood and scar are alike in late enhancement: what tells them apart is the tree, whose nodes each have a
    smoothness, and a region in which a node must lie.

    Args:
        histograms: of the leaves, fitted with scenes of the same kind of region; a leaf that has none costs nothing
            where it may lie, and has to be confined.
        tree: nested mapping of names; a leaf is None. `hierarchical_max_flow` shows one.
        labels: those of the result, each a leaf; leaves that are none of them become background.
        smoothness: costs (nats per voxel) times mm of every node by name, or one number; a surface
            counts for both leaves that it parts.
        region: whose labels hold nodes in place; None: nothing does, and intensities are compared with the whole
            volume's.
        confined: node -> labels of the region (or `background`) outside which it must not lie. What any of these
            labels cover is the region with which intensities are compared.
        iterations: at most; one that stops before it has converged is logged as a warning.

    Raises:
        VolumeError: a region's label that is not there.
        SegmenterError: names that do not fit together.

    Source: Rajchl et al. 2014, IEEE TMI 33:159 (scar inside myocardium in a tree); Baxter et al. 2014, arXiv 1404.0336.
    """

    def __init__(
        self,
        histograms: Histograms,
        tree: Mapping[str, Any],
        *,
        labels: LabelSet,
        smoothness: float | Mapping[str, float] = SMOOTHNESS / 2,
        region: Segmenter | None = None,
        confined: Mapping[str, Sequence[str]] | None = None,
        iterations: int = 300,
    ) -> None:
        self.labels = labels
        self.region = region
        self._histograms = histograms
        self._tree = tree
        self._smoothness = smoothness
        self._iterations = iterations
        self._names, layout = read_tree(tree)
        self._leaves = self._names[: layout.leaves]
        below = {name: [self._leaves[leaf] for leaf in layout.below(i)] for i, name in enumerate(self._names)}
        for name in labels.names:
            if name not in self._leaves:
                raise SegmenterError(f"label '{name}' is no leaf of the tree: leaves are {', '.join(self._leaves)}")
        confined = confined or {}
        if (region is None) != (not confined):
            raise SegmenterError("a region and what is confined to its labels go together: give both or neither")
        for name in confined:
            if name not in below:
                raise SegmenterError(f"'{name}' is confined and no node of the tree: they are {', '.join(self._names)}")
        if confined and all(set(allowed) <= {BACKGROUND} for allowed in confined.values()):
            raise SegmenterError("nothing is confined to a label of the region: name one that holds tissue")
        self._confined = [
            (below[name], [_index(region, label) for label in allowed])
            for name, allowed in confined.items()
            if region is not None
        ]
        held = {leaf for leaves, _ in self._confined for leaf in leaves}
        for name in self._leaves:
            if name not in histograms.names and name not in held:
                raise SegmenterError(
                    f"leaf '{name}' has no histogram and no region: fit one with its name, or confine it"
                )

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        """As of every segmenter; background where the region allows no leaf.

        Raises:
            SegmenterError: a region of one intensity.
        """
        image = volume.as_tensor()[0].float().numpy(force=True)
        allowed, compared = self._places(volume, image.shape)
        result = torch.zeros((self.labels.classes, *image.shape))
        if compared.any():
            open_to_several = np.sum(list(allowed.values()), axis=0) > 1
            box = box_of(open_to_several | compared, margin=1)
            scene = Scene(image, compared, spacing_mm(as_affine(volume.affine)))
            for name, share in self._shares(scene, allowed, box).items():
                if name in self.labels.names:
                    result[self.labels.index(name)][box] = share
            outside = np.ones(image.shape, bool)
            outside[box] = False
            for index, name in enumerate(self.labels.names, start=1):
                result[index][torch.from_numpy(outside & allowed[name] & ~open_to_several)] = 1.0
        result[0] = (1 - result.sum(dim=0)).clamp(min=0)
        return on_grid_of(volume, result)

    def _places(self, volume: MetaTensor, shape: tuple[int, ...]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Where each leaf may lie, and the region with which intensities are compared; (X, Y, Z) bool."""
        allowed = {name: np.ones(shape, bool) for name in self._leaves}
        if self.region is None:
            return allowed, np.ones(shape, bool)
        hard = self.region.probabilities(volume).as_tensor().argmax(dim=0).numpy(force=True)
        compared = np.zeros(shape, bool)
        for leaves, indices in self._confined:
            where = np.isin(hard, indices)
            compared |= np.isin(hard, [index for index in indices if index > 0])
            for name in leaves:
                allowed[name] &= where
        return allowed, compared

    def _shares(
        self, scene: Scene, allowed: Mapping[str, np.ndarray], box: tuple[slice, ...]
    ) -> dict[str, torch.Tensor]:
        """Of every node within the box."""
        inner = Scene(scene.image[box], scene.region[box], scene.spacing_mm)
        modelled = [name for name in self._leaves if name in self._histograms.names]
        table = dict(zip(modelled, self._histograms.costs(inner, modelled), strict=True))
        none = np.zeros(inner.image.shape, np.float32)
        costs = {
            name: torch.from_numpy(np.where(allowed[name][box], table.get(name, none), np.float32(np.inf)))
            for name in self._leaves
        }
        if all(bool(cost.isinf().all()) for cost in costs.values()):
            return {}
        shares, ended = hierarchical_max_flow(
            costs, self._tree, self._smoothness, spacing_mm=scene.spacing_mm, iterations=self._iterations
        )
        _warn_unless_converged(ended)
        return shares


def _warn_unless_converged(ended: MaxFlowResult) -> None:
    if not ended.converged:
        LOG.warning(
            "max-flow stopped after %d iterations, its energy up to %.2g %% above the least: give it more iterations",
            ended.iterations,
            100 * ended.gap,
        )


def box_of(mask: np.ndarray, *, margin: int) -> tuple[slice, ...]:
    """The smallest box around a mask that holds something, larger by a margin in voxels where there is room."""
    box = []
    for axis, size in enumerate(mask.shape):
        held = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(0, int(held[0]) - margin), min(size, int(held[-1]) + 1 + margin)))
    return tuple(box)


def _index(region: Segmenter, label: str) -> int:
    return 0 if label == BACKGROUND else region.labels.index(label)

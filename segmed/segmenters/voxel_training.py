"""Voxels of training cases -> a classifier of voxels and the curve that makes probabilities of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.special import expit, logit
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from segmed.errors import SegmenterError
from segmed.segmenters.region import Scene
from segmed.segmenters.voxel_features import FeatureSettings, features

FOLDS = 3  # of the calibration
FEWEST = 10  # voxels of each class
ROWS = 20_000  # voxels classified at once: kernels and neighbours take some 60 MB
BOUNDS = {
    "voxels": (2 * FEWEST, 1_000_000),
    "neighbours": (1, 10_000),
    "trees": (1, 10_000),
    "leaf": (1, 10_000),
    "landmarks": (1, 10_000),
    "seed": (0, 2**32 - 1),
}

Kind = Literal["svm", "knn", "random_forest", "mlp"]
Aim = Literal["probability", "dice"]


@dataclass(frozen=True)
class ClassifierSettings:
    """What is trained, on what.

    Attributes:
        kind: `svm`: linear in Nystroem features (Williams and Seeger 2001) of a Gaussian kernel, exp(-d^2 / F) of F
            scaled features, ten times as fast as the exact kernel at the same Dice; `knn`: share of the nearest;
            `random_forest`: Breiman 2001; `mlp`: stopped early.
        features: of a voxel.
        aim: `probability`: calibrated, scar where it is the more probable; `dice`: its odds times a factor, so that 0.5
            falls where the Dice of the training cases, each judged by the others, is largest. Where tissues overlap
            that is below the calibrated 0.5 (Lipton et al. 2014, arXiv 1402.1892).
        voxels: at most, the same number per case and class; where a case has fewer, so has the sample.
        neighbours: of `knn`.
        trees, leaf: number of the forest's trees, smallest number of voxels in a leaf.
        landmarks: of `svm`.
        hidden: units of each of the layers of `mlp`.
        seed: of the sample and of the training.

    Raises:
        SegmenterError: an unknown kind or aim, or a number out of its bounds.
    """

    kind: Kind = "random_forest"
    features: FeatureSettings = field(default_factory=FeatureSettings)
    aim: Aim = "probability"
    voxels: int = 10_000
    neighbours: int = 51
    trees: int = 100
    leaf: int = 10
    landmarks: int = 200
    hidden: tuple[int, ...] = (32,)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("kind", get_args(Kind)), ("aim", get_args(Aim))):
            if getattr(self, name) not in choices:
                raise SegmenterError(
                    f"a voxel classifier of {name} '{getattr(self, name)}' is not known: choose {', '.join(choices)}"
                )
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise SegmenterError(
                    f"a voxel classifier with {name} = {getattr(self, name)}: give a number from {low} to {high}"
                )
        if not 1 <= len(self.hidden) <= 4 or not all(1 <= units <= 4096 for units in self.hidden):
            raise SegmenterError(f"an MLP with layers of {self.hidden} units: give 1 to 4 layers of 1 to 4096")


class Calibration(NamedTuple):
    """Log-odds of scar = slope * score of the classifier + shift."""

    slope: float
    shift: float


class Drawn(NamedTuple):
    """Training voxels: features (n, F), and for each whether scar, its case, and how many voxels it stands for."""

    features: np.ndarray
    scar: np.ndarray
    case: np.ndarray
    weight: np.ndarray


def draw(scenes: Sequence[Scene], targets: Sequence[np.ndarray], settings: ClassifierSettings) -> Drawn:
    """A sample of the regions' voxels, the same number per case and class where there are as many.

    Raises:
        SegmenterError: targets that do not fit the scenes, none or too few voxels of a class, a scene without meaning.
    """
    if len(scenes) != len(targets) or not len(scenes):
        raise SegmenterError(
            f"{len(scenes)} training cases with {len(targets)} targets: give at least one, and as many"
        )
    share = max(1, settings.voxels // (2 * len(scenes)))
    parts = []
    for number in range(len(scenes)):
        scene, target = scenes[number], np.asarray(targets[number])
        if target.shape != scene.region.shape or target.dtype != bool:
            raise SegmenterError(
                f"the target of training case {number + 1} of {len(scenes)} is {target.dtype} of shape {target.shape}: "
                f"give a mask (bool) of its image's shape {scene.region.shape}"
            )
        if not scene.region.any():
            continue
        try:
            rows = features(scene, settings.features)
        except SegmenterError as error:
            raise SegmenterError(f"training case {number + 1} of {len(scenes)}: {error}") from error
        generator = np.random.default_rng((settings.seed, number))
        for scar in (False, True):
            there = np.flatnonzero(target[scene.region] == scar)
            taken = np.sort(generator.choice(there, min(share, there.size), replace=False))
            weight = there.size / max(taken.size, 1)
            n = taken.size
            parts.append(Drawn(rows[taken], np.full(n, scar), np.full(n, number), np.full(n, weight)))
    drawn = Drawn(*map(np.concatenate, zip(*parts, strict=True))) if parts else None
    if drawn is None or not drawn.scar.any():
        raise SegmenterError(
            f"no voxel of scar in the regions of {len(scenes)} training cases: check label and regions"
        )
    check_counts(drawn.scar)
    return drawn


def check_counts(scar: np.ndarray) -> None:
    """Refuse a sample (n,) of too few voxels of scar, or of the rest.

    Raises:
        SegmenterError: says how many there are.
    """
    count = int(np.count_nonzero(scar))
    if min(count, scar.size - count) < FEWEST:
        raise SegmenterError(
            f"training on {count} voxels of scar and {scar.size - count} of the rest: give cases with at least "
            f"{FEWEST} of each"
        )


def _classifier(settings: ClassifierSettings, rows: int, columns: int) -> list[Any]:
    if settings.kind == "svm":
        landmarks = min(settings.landmarks, rows)
        kernel = Nystroem(gamma=1 / columns, n_components=landmarks, random_state=settings.seed)
        return [kernel, LinearSVC(dual=False, tol=1e-2, random_state=settings.seed)]
    if settings.kind == "knn":
        return [KNeighborsClassifier(min(settings.neighbours, rows), algorithm="brute")]
    if settings.kind == "random_forest":
        return [RandomForestClassifier(settings.trees, min_samples_leaf=settings.leaf, random_state=settings.seed)]
    return [
        MLPClassifier(settings.hidden, alpha=1e-3, early_stopping=True, max_iter=300, random_state=settings.seed),
    ]


def trained(settings: ClassifierSettings, rows: np.ndarray, scar: np.ndarray) -> Pipeline:
    """Features (n, F), NaN filled by the median and scaled, and whether each is scar, (n,) bool -> a classifier."""
    steps = _classifier(settings, *rows.shape)
    model = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), *steps)
    return model.fit(rows, scar)


def scores_of(model: Pipeline, rows: np.ndarray) -> np.ndarray:
    """Distance to the SVM's plane, log-odds of the other kinds, (N,) float64."""
    scores = []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        if hasattr(model, "decision_function"):
            scores.append(model.decision_function(part))
        else:
            scores.append(logit(np.clip(model.predict_proba(part)[:, 1].astype(np.float64), 1e-3, 1 - 1e-3)))
    return np.concatenate(scores)


def calibrated(drawn: Drawn, settings: ClassifierSettings) -> Calibration:
    """Scores of voxels judged without their case, weighted to the share of scar in the regions -> a logistic curve.

    Source: Platt 1999.
    """
    scores = np.zeros(len(drawn.scar))
    for held in _folds(drawn, settings.seed):
        scores[held] = scores_of(trained(settings, drawn.features[~held], drawn.scar[~held]), drawn.features[held])
    weight = drawn.weight / drawn.weight.mean()
    curve = LogisticRegression().fit(scores[:, None], drawn.scar, sample_weight=weight)
    slope, shift = max(float(curve.coef_[0, 0]), 0.0), float(curve.intercept_[0])
    if settings.aim == "dice":
        shift -= float(logit(_best_threshold(expit(slope * scores + shift), drawn)))
    return Calibration(slope, shift)


def _folds(drawn: Drawn, seed: int) -> list[np.ndarray]:
    """Masks of the voxels held out: whole cases, or where that leaves a class without training, single voxels."""
    number = np.unique(drawn.case, return_inverse=True)[1] % FOLDS
    by_case = [number == fold for fold in range(FOLDS) if (number == fold).any()]
    if all(min(np.bincount(drawn.scar[~held], minlength=2)) >= FEWEST // 2 for held in by_case):
        return by_case
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(drawn.features, drawn.scar)
    return [np.isin(np.arange(len(drawn.scar)), held) for _, held in splits]


def _best_threshold(probability: np.ndarray, drawn: Drawn) -> float:
    """Of the largest mean Dice over the cases with scar, each voxel standing for as many as it was drawn from."""
    thresholds = np.linspace(0.02, 0.98, 49)
    total = np.zeros(len(thresholds))
    for case in np.unique(drawn.case[drawn.scar]):
        own = drawn.case == case
        scar, weight = drawn.scar[own], drawn.weight[own]
        called = probability[own] >= thresholds[:, None]
        total += 2 * called @ (weight * scar) / (called @ weight + weight @ scar)
    return float(thresholds[total.argmax()])

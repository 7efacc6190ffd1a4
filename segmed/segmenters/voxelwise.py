"""Scar voxel by voxel: SVM, nearest neighbours, random forest and MLP on features, trained on cases."""

from __future__ import annotations

import json
import logging
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from pydantic import TypeAdapter, ValidationError
from scipy.special import expit

from segmed.errors import SegmenterError
from segmed.files import atomic_path
from segmed.segmenters.region import Scene, TissueMethod
from segmed.segmenters.voxel_features import features
from segmed.segmenters.voxel_training import (
    Calibration,
    ClassifierSettings,
    calibrated,
    check_counts,
    draw,
    scores_of,
    trained,
)

LOG = logging.getLogger(__name__)
FORMAT = 1
WITNESSES = 200  # voxels whose probabilities show after loading whether the same classifier came back


class VoxelClassifier(TissueMethod):
    """A trained classifier of voxels. `fit` makes one of cases, `load` of a file.

    It is what it was trained on: sample and settings train it, here and after loading, in a second or so. The same for
    image * a + b, a > 0, as its features are. Volumes of millions of voxels all in the region take as many copies as
    there are features; a wall takes next to nothing.

    Args:
        settings: of the classifier.
        sample: (n, F) float32, features of training voxels, NaN where a volume did not show one.
        scar: (n,) bool, which of them are scar.
        calibration: of its scores.

    Raises:
        SegmenterError: other features than those of the settings, or too few voxels of a class.
    """

    def __init__(
        self, settings: ClassifierSettings, sample: np.ndarray, scar: np.ndarray, calibration: Calibration
    ) -> None:
        names = settings.features.names
        if sample.ndim != 2 or sample.shape[1] != len(names) or scar.shape != sample.shape[:1]:
            raise SegmenterError(
                f"training voxels of shape {sample.shape} with targets of shape {scar.shape} do not fit the "
                f"{len(names)} features {', '.join(names)}: train again with these settings"
            )
        check_counts(scar)
        self.settings = settings
        self.calibration = calibration
        self._sample = sample
        self._scar = scar
        self._model = trained(settings, sample, scar)

    @classmethod
    def fit(
        cls, scenes: Sequence[Scene], targets: Sequence[np.ndarray], settings: ClassifierSettings | None = None
    ) -> VoxelClassifier:
        """Train on cases.

        Its scores become probabilities by a logistic curve (Platt 1999) on voxels judged without their own case,
        weighted to the share of scar in all of the regions' voxels, which the balanced sample does not have.

        Args:
            scenes: a case each, taken one after the other: a sequence that reads a case when asked will do.
            targets: (X, Y, Z) bool, scar; what lies outside the region does not count.
            settings: of the classifier; None: the defaults.

        Raises:
            SegmenterError: targets that do not fit the scenes, too few voxels of a class, a scene without meaning.
        """
        settings = settings or ClassifierSettings()
        drawn = draw(scenes, targets, settings)
        return cls(settings, drawn.features, drawn.scar, calibrated(drawn, settings))

    def probability(self, scene: Scene) -> np.ndarray:
        result = np.zeros(scene.image.shape, np.float32)
        result[scene.region] = self._probabilities(features(scene, self.settings.features))
        return result

    def _probabilities(self, rows: np.ndarray) -> np.ndarray:
        return expit(self.calibration.slope * scores_of(self._model, rows) + self.calibration.shift)

    def save(self, path: Path | str) -> None:
        """Write the sample and the settings, from which `load` trains the same classifier again.

        No code is in the file, and none is run by loading it. It holds features of voxels of the training cases:
        share it as you would share figures of them.

        Args:
            path: of a .npz file.

        Raises:
            DiskError: the disk is full or the folder can't be written.
        """
        about = {
            "format": FORMAT,
            "sklearn": sklearn.__version__,
            "names": self.settings.features.names,
            "settings": asdict(self.settings),
        }
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                about=np.array(json.dumps(about)),
                sample=self._sample,
                scar=self._scar,
                calibration=np.array(self.calibration, np.float64),
                witnesses=self._probabilities(self._sample[:WITNESSES]),
            )

    @classmethod
    def load(cls, path: Path | str) -> VoxelClassifier:
        """Train again what `save` wrote: the same bits with the same scikit-learn on the same kind of machine.

        Another scikit-learn, or other probabilities than those saved, are logged as a warning.

        Raises:
            SegmenterError: no such file, or not one of a voxel classifier of this version.
        """
        about, arrays = _read(Path(path))
        try:
            settings = TypeAdapter(ClassifierSettings).validate_json(json.dumps(about["settings"]), strict=True)
            same = json.loads(json.dumps(asdict(settings))) == about["settings"]
        except (KeyError, ValidationError):
            same = False
        if not same or about.get("format") != FORMAT or about.get("names") != list(settings.features.names):
            raise SegmenterError(
                f"{path} has settings or features of another version of segmed: train and save it again"
            )
        classifier = cls(settings, arrays["sample"], arrays["scar"], Calibration(*map(float, arrays["calibration"])))
        again = classifier._probabilities(arrays["sample"][:WITNESSES])
        difference = float(np.abs(again - arrays["witnesses"]).max())
        if about.get("sklearn") != sklearn.__version__ or difference > 1e-6:
            LOG.warning(
                "%s was saved with scikit-learn %s and is trained again with %s: probabilities differ by up to %.2g",
                path,
                str(about.get("sklearn"))[:20],
                sklearn.__version__,
                difference,
            )
        return classifier


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a file says of itself, and its arrays.

    Raises:
        SegmenterError: it is missing, or no such file.
    """
    if not path.is_file():
        raise SegmenterError(f"no voxel classifier at {path}: check the path")
    kinds = {"sample": ("float32", 2), "scar": ("bool", 1), "calibration": ("float64", 1), "witnesses": ("float64", 1)}
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > 2**30:
            raise ValueError(f"{size} bytes")
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = {name: file[name] for name in kinds}
        whole = all((arrays[name].dtype.name, arrays[name].ndim) == kind for name, kind in kinds.items())
        numbers = np.concatenate([arrays["calibration"], arrays["witnesses"]])
        infinite = not np.isfinite(numbers).all() or bool(np.isinf(arrays["sample"]).any())
        if not whole or infinite or len(arrays["calibration"]) != 2 or not isinstance(about, dict):
            raise ValueError("other arrays")
        if len(arrays["witnesses"]) != len(arrays["sample"][:WITNESSES]) or not len(arrays["witnesses"]):
            raise ValueError("other witnesses")
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise SegmenterError(f"{path} is no voxel classifier, or damaged: train and save it again") from error
    return about, arrays

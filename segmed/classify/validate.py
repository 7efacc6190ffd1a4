"""The prepared images of a run, classified part by part; the figures of validation while a network trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from segmed.classify.prepare import known_cache
from segmed.config.classification import ClassificationConfig
from segmed.data.cache_entries import keep_below
from segmed.data.content import check_content
from segmed.data.images.batches import ordered_batches
from segmed.data.images.image_cache import ImageArrays, ImageCache
from segmed.data.images.image_dataset import ClassDataset, read_classes
from segmed.data.images.image_splits import ClassSplit
from segmed.evaluate.answers import Answers
from segmed.machine import this_machine
from segmed.metrics.class_figures import VALIDATED, figures
from segmed.training.fit_state import ValidationResult


@dataclass(frozen=True)
class Images:
    """All images of a run, prepared, and their parts.

    Attributes:
        dataset: what they are.
        split: which of them train, select and test.
        arrays: themselves.
        batch_size: images that are classified at once.
    """

    dataset: ClassDataset
    split: ClassSplit
    arrays: ImageArrays
    batch_size: int

    @classmethod
    def of(cls, config: ClassificationConfig, split: ClassSplit, *, content: Path) -> Images:
        """The images of a run's resolved config; those that are not in the cache are prepared first.

        Args:
            config, split: of the run.
            content: where the run keeps what its images hold.

        Raises:
            DatasetError: an image that trains or selects is not what it was when the run began.
        """
        dataset, cache = read_classes(config.data), ImageCache(known_cache(config))
        if config.cache_limit_gb is not None:
            cache.hold(dataset.items, config.image)
            keep_below(cache.folder, config.cache_limit_gb)
        arrays = cache.get(dataset.items, config.image, workers=this_machine().cores, progress=True)
        learned = {*split.train, *split.validation}
        checksums = zip(arrays.ids, arrays.checksums, strict=True)
        check_content(content, {name: str(checksum) for name, checksum in checksums if name in learned})
        return cls(dataset, split, arrays, config.train.batch_size)

    def image(self, name: str) -> np.ndarray:
        """One image (C, *spatial) float32, by id."""
        return self.arrays.images[self.arrays.rows([name])[0]].astype(np.float32)

    @torch.no_grad()
    def answers(self, network: nn.Module, part: str) -> Answers:
        """What a network says of a part, in full precision and evaluation mode.

        Args:
            network: image (B, C, *spatial) -> logits (B, K).
            part: `train`, `validation` or `test`.
        """
        items = self.dataset.of(getattr(self.split, part))
        device, training = next(network.parameters()).device, network.training
        network.eval()
        batches = ordered_batches(self.arrays, items, batch_size=self.batch_size)
        logits = [network(batch["image"].to(device)).double().cpu().numpy() for batch in batches]
        network.train(training)
        return Answers(
            classes=self.dataset.classes,
            ids=tuple(item.id for item in items),
            subjects=tuple(item.subject for item in items),
            truth=np.array([item.label for item in items]),
            logits=np.concatenate(logits),
        )


@dataclass(frozen=True)
class Validator:
    """Scores a network by one figure of the validation part; `fit` calls it.

    Attributes:
        images: with a validation part.
        select: name of the figure.
        loss: of logits (B, K) and classes (B,), that training uses.
    """

    images: Images
    select: str
    loss: nn.Module

    def __call__(self, network: nn.Module) -> ValidationResult:
        """Classify every validation image and measure."""
        answers = self.images.answers(network, "validation")
        overall = figures(answers.truth, answers.probabilities, answers.classes).overall
        score = -overall[self.select] if self.select == "log_loss" else overall[self.select]
        device = next(network.parameters()).device
        logits, truth = (torch.from_numpy(array).to(device) for array in (answers.logits, answers.truth))
        metrics = {"validation/loss": float(self.loss(logits.float(), truth))}
        return ValidationResult(score, {**metrics, **{f"validation/{name}": overall[name] for name in VALIDATED}})

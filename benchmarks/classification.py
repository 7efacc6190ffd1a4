"""Row of classification: three models that train and classify, beside a plain PyTorch loop on the same files."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.synthetic import heart, scan
from benchmarks.timing import Outcome, Setting, Target, Timing, alternate, ratio
from segmed.builders.architectures import build_classifier
from segmed.builders.losses import build_class_loss
from segmed.classify.plan import planned_network
from segmed.config.classification import ClassificationConfig, ClassTrainConfig
from segmed.config.classifier import ClassifierNetwork, DenseNetConfig, EncoderClassifierConfig, ResNetConfig
from segmed.config.encoder import ClassifierEncoderConfig
from segmed.config.images import ImageConfig
from segmed.data.images.batches import ImageSamples, ordered_batches, training_batches
from segmed.data.images.image_cache import ImageArrays, ImageCache
from segmed.data.images.image_dataset import Item
from segmed.networks.classifiers import ClassificationModel
from segmed.training.classification_step import ClassificationStep
from segmed.training.precision import Choice, choose_precision
from segmed.training.ranks import Ranks

OURS, FILES, MEMORY = "segmed", "plain loop on the files", "plain loop in memory"
ENCODER, RESNET, DENSENET = "residual encoder", "ResNet-18", "DenseNet-121"
MODELS: dict[str, ClassifierNetwork] = {
    ENCODER: EncoderClassifierConfig(),
    RESNET: ResNetConfig(),
    DENSENET: DenseNetConfig(),
}
QUICK_MODELS: dict[str, ClassifierNetwork] = {
    ENCODER: EncoderClassifierConfig(
        encoder=ClassifierEncoderConfig(channels=(4, 8), strides=((1, 1), (2, 2)), blocks=1)
    ),
    RESNET: ResNetConfig(width=4),
}
CLASSES = ("upper", "lower")
LARGEST_SHARE = 10.0  # of a step that the data may take
SLICES, LIMIT_MINUTES = 1000, 5.0  # of a run
PRECISION_SECONDS = 10.0  # of the choice of each model's precision
PROGRESS = 0.5  # of the run


@dataclass(frozen=True)
class Size:
    """Of the images and batches."""

    stored: int = 256
    edge: int = 128
    images: int = 64
    batch: int = 32

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, C, H, W)."""
        return (self.batch, 1, self.edge, self.edge)


@dataclass
class Loop:
    """A contender: it takes a batch and works on it.

    Attributes:
        batches: without end.
        work: what is done with one.
        shares: of each turn, how much of its time the batch took.
        processor_s: of each turn, seconds of all its threads, without those in which something else ran.
    """

    batches: Iterator[Any]
    work: Callable[[Any], object]
    shares: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        """Seconds of one turn."""
        start, processor = time.perf_counter(), time.process_time()
        batch = next(self.batches)
        fetched = time.perf_counter()
        self.work(batch)
        whole = time.perf_counter() - start
        self.processor_s.append(time.process_time() - processor)
        self.shares.append((fetched - start) / whole)
        return whole


def classification_row(setting: Setting) -> Outcome:
    """A training step and a batch of inference of each model, the data included, in one process each time."""
    size = Size(stored=40, edge=32, images=8, batch=4) if setting.quick else Size()
    items = write_images(setting.scratch / "images", size)
    arrays = ImageCache(setting.scratch / "cache").get(items, ImageConfig(size=(size.edge,) * 2), workers=1)
    timings: dict[str, Timing] = {}
    shares: list[Target] = []
    notes: list[str] = []
    spent: dict[str, tuple[float, float]] = {}  # of our encoder: seconds, and those of the processor
    for model, config in (QUICK_MODELS if setting.quick else MODELS).items():
        network = built(config, size)
        choice = Choice() if setting.quick else chosen(network, size)
        training = training_loops(network, choice, arrays, items, size)
        tasks = {"training": training, "inference": inference_loops(network, arrays, items, size)}
        for task, loops in tasks.items():
            found = alternate(loops, rounds=setting.rounds)
            timings |= {f"{model}, {task}: {who}": timing for who, timing in found.items()}
            notes.append(f"{model}, {task}: {speeds(found, size)}")
            if model == ENCODER:
                processor_s = statistics.median(loops[OURS].processor_s[-setting.rounds :])
                spent[task] = (found[OURS].median, processor_s)
        share = 100 * statistics.median(training[OURS].shares[-setting.rounds :])
        shares.append(Target(f"{model}: data of a training step", share, "below", LARGEST_SHARE, "%"))
        notes.append(f"{model}: segmed trains in {choice.precision}, {choice.memory_format} ({choice.reason})")
    target, note = whole_run(spent, threads=setting.threads)
    plain = "segmed augments (preset light), clips and averages weights; the plain loop does not, and is in fp32"
    work = f"classification, {size.edge} × {size.edge} from PNG of {size.stored} × {size.stored}, batch {size.batch}"
    ours = f"{ENCODER}, training: {OURS}"
    return Outcome("classification", work, ours, timings, (*shares, target), (*notes, plain, note))


def speeds(timings: Mapping[str, Timing], size: Size) -> str:
    """Images per second of each contender, and how many times the time of ours it takes, in words."""
    return ", ".join(
        f"{who} {size.batch / timing.median:.3g} images/s ({ratio(timing, timings[OURS]):.2f} ×)"
        for who, timing in timings.items()
    )


def whole_run(spent: Mapping[str, tuple[float, float]], *, threads: int) -> tuple[Target, str]:
    """Minutes of a run with the default config, scaled from measured steps; and what was counted.

    Args:
        spent: seconds, and seconds of the processor, of a `training` step and of a batch of `inference`.
        threads: that these were measured with.
    """
    config = ClassificationConfig()
    train, split = config.train, config.split
    tested = round(SLICES * split.test)
    validated = round((SLICES - tested) * split.validation)
    steps = train.epochs * math.ceil((SLICES - tested - validated) / train.batch_size)
    batches = train.validations * math.ceil(validated / train.batch_size) + math.ceil(tested / train.batch_size)
    minutes, busy = (
        (steps * training + batches * inference) / 60
        for training, inference in zip(spent["training"], spent["inference"], strict=True)
    )
    what = f"run on {SLICES} slices, {ENCODER}, {train.epochs} epochs, scaled from the steps above"
    note = (
        f"the run: {steps} steps and {batches} batches of validations and test, without its tables and figures; the "
        f"processor works {busy / threads:.3g} min of it on each of the threads, {threads} in all"
    )
    return Target(what, minutes, "below", LIMIT_MINUTES, "min"), note


# ---------------------------------------------------------------- files


def write_images(folder: Path, size: Size) -> list[Item]:
    """Slices of a heart's scan as grey PNG, of the upper or the lower half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    volume = scan(heart((size.stored, size.stored, size.images), 0), 0).astype(np.float32)
    pixels = (255 * volume / volume.max()).astype(np.uint8)
    items = []
    for number in range(size.images):
        path = folder / f"{number:03}.png"
        Image.fromarray(np.ascontiguousarray(pixels[..., number])).save(path)
        items.append(Item(path.name, path, int(number >= size.images // 2), path.stem))
    return items


class PictureFiles(Dataset[tuple[Tensor, int]]):
    """What most tutorials do: decode, resize, scale, whenever an image is asked for."""

    def __init__(self, items: Iterable[Item], edge: int) -> None:
        self.items, self.edge = tuple(items), edge

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image (1, H, W) from -1 to 1, and its class."""
        with Image.open(self.items[index].path) as file:
            pixels = np.asarray(file.convert("L").resize((self.edge, self.edge)), np.float32)
        return torch.from_numpy(pixels / 127.5 - 1)[None], self.items[index].label


def plain_batches(items: Iterable[Item], size: Size, *, memory: bool) -> Iterator[list[Tensor]]:
    """Shuffled batches without end, by a DataLoader in this process."""
    dataset: Dataset[Any] = PictureFiles(items, size.edge)
    if memory:
        images, labels = zip(*(dataset[index] for index in range(size.images)), strict=True)
        dataset = TensorDataset(torch.stack(images), torch.tensor(labels))
    loader = DataLoader(dataset, batch_size=size.batch, shuffle=True, num_workers=0)
    while True:
        yield from loader


# ---------------------------------------------------------------- loops


def built(config: ClassifierNetwork, size: Size) -> ClassificationModel:
    """A model as planned on a CPU, with weights of a fixed seed."""
    shape = size.shape[2:]
    planned, _ = planned_network(config, size=shape, device="cpu")
    torch.manual_seed(0)
    return build_classifier(planned, in_channels=1, classes=len(CLASSES), size=shape)


def chosen(network: ClassificationModel, size: Size) -> Choice:
    """Precision and memory format as a run measures them."""
    return choose_precision(
        network,
        build_class_loss(ClassificationConfig().loss, counts=dict.fromkeys(CLASSES, 1)),
        size.shape,
        ranks=Ranks(),
        limit_seconds=PRECISION_SECONDS,
        forward=lambda model, images: model(images),
        target=torch.arange(size.batch) % len(CLASSES),
    )


def training_loops(
    network: ClassificationModel, choice: Choice, arrays: ImageArrays, items: list[Item], size: Size
) -> dict[str, Loop]:
    """Ours as a run trains by default, and the plain loops with AdamW, all from the same weights."""
    config = ClassificationConfig()
    step = ClassificationStep(
        copy.deepcopy(network),
        build_class_loss(config.loss, counts=dict.fromkeys(CLASSES, 1)),
        ClassTrainConfig(learning_rate=1e-3),
        fabric=Fabric(accelerator="cpu", devices=1),
        choice=choice,
    )
    samples = ImageSamples(arrays, items, augment=config.augment, seed=0)
    loops = {
        OURS: Loop(iter(training_batches(samples, batch_size=size.batch)), lambda batch: step.step(batch, PROGRESS))
    }
    for name in (FILES, MEMORY):
        loops[name] = Loop(plain_batches(items, size, memory=name == MEMORY), plain_step(copy.deepcopy(network)))
    return loops


def plain_step(network: nn.Module) -> Callable[[list[Tensor]], None]:
    """Forward, backward, AdamW; in fp32."""
    network.train()
    loss = nn.CrossEntropyLoss()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)

    def step(batch: list[Tensor]) -> None:
        images, labels = batch
        optimiser.zero_grad(set_to_none=True)
        loss(network(images), labels).backward()
        optimiser.step()

    return step


def inference_loops(
    network: ClassificationModel, arrays: ImageArrays, items: list[Item], size: Size
) -> dict[str, Loop]:
    """Ours as a run tests, and the plain loops; in fp32."""
    network = network.eval()

    @torch.inference_mode()
    def classified(images: Tensor) -> np.ndarray:
        return network(images).double().numpy()

    def ours() -> Iterator[dict[str, Any]]:
        while True:
            yield from ordered_batches(arrays, items, batch_size=size.batch)

    loops = {OURS: Loop(ours(), lambda batch: classified(batch["image"]))}
    for name in (FILES, MEMORY):
        loops[name] = Loop(plain_batches(items, size, memory=name == MEMORY), lambda batch: classified(batch[0]))
    return loops

"""Every config in configs/seg is valid, can be planned, builds, and learns from two steps."""

from pathlib import Path

import pytest
import torch
import yaml
from lightning_fabric import Fabric

from segmed.build import build_discriminator, build_loss, build_network
from segmed.cli import load_config
from segmed.config import known
from segmed.data.fingerprint import CaseFacts
from segmed.machine import GIB, Machine
from segmed.plan import resolve
from segmed.training.adversarial import AdversarialStep
from segmed.training.precision import Choice
from segmed.training.steps import SupervisedStep

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs" / "seg").glob("*.yaml"))
ADVERSARIAL = [path for path in CONFIGS if path.stem.endswith("_gan")]
THIN = ((24, 32, 24), (1.0, 1.0, 1.0))
THICK = ((48, 48, 6), (1.5, 1.5, 10.0))
GRIDS = {"phantom": THICK, "phantom_3d": THIN, "acdc": THICK, "acdc_3d": THICK, "myops_lge": THICK}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_plans_builds_and_learns(path):
    config = load_config(path)
    images = (
        config.data.images if config.data.images != "auto" else tuple(getattr(config.data.layout, "images", ["MR"]))
    )
    shape, spacing = GRIDS.get(path.stem.removesuffix("_gan"), THIN)
    intensity = dict.fromkeys(("min", "p0_5", "p50", "p99_5", "max", "mean", "sd"), 1.0) | {"zero_fraction": 0.0}
    facts = [CaseFacts("a", shape, spacing, "RAS", dict.fromkeys(images, intensity), {}, {}, shape)]
    config = resolve(config, facts, channels=len(images), machine=Machine("cpu", "CPU", 20 * GIB, 2)).config
    classes, dims = len(known(config.data.labels)) + 1, known(config.patches.dims)
    torch.manual_seed(0)
    network = build_network(config.network, in_channels=len(images), out_channels=classes, dims=dims)
    loss = build_loss(config.loss, network, class_weights=config.train.class_weights)
    train = config.train.model_copy(update={"warmup": 0.0})
    place = {"fabric": Fabric(accelerator="cpu"), "choice": Choice("fp32", "contiguous")}
    adversary = config.adversary
    if adversary is None:
        step = SupervisedStep(network, loss, train, **place)
    else:
        discriminator = build_discriminator(
            adversary.discriminator, image_channels=len(images), classes=classes, dims=dims
        )
        step = AdversarialStep(network, loss, discriminator, train=train, adversary=adversary, **place)
    size = known(config.patches.size)
    batch = {
        "image": torch.randn(2, len(images), *size),
        "label": torch.randint(0, classes, (2, *size), dtype=torch.uint8),
    }
    progress = 0.0 if adversary is None else adversary.warmup
    figures = [step.step(batch, progress) for _ in range(2)]
    assert all(torch.isfinite(value) for row in figures for value in row.values())
    name = "loss" if adversary is None else "loss/segmentation"
    assert figures[1][name] < figures[0][name]
    assert ("loss/discriminator" in figures[0]) == (adversary is not None)


def test_the_tasks_that_are_compared_have_an_adversarial_config():
    assert {path.stem for path in ADVERSARIAL} == {"phantom_gan", "hippocampus_gan", "myops_lge_gan", "acdc_gan"}


@pytest.mark.parametrize("path", ADVERSARIAL, ids=lambda path: path.stem)
def test_an_adversarial_config_differs_from_its_supervised_twin_by_one_section(path):
    given = yaml.safe_load(path.read_text())
    twin = path.with_name(path.name.replace("_gan", ""))
    assert given.pop("adversary")
    assert given == yaml.safe_load(twin.read_text())
    assert load_config(path).model_copy(update={"adversary": None}) == load_config(twin)


def test_adversarial_configs_agree_on_their_section():
    first, *others = [load_config(path).adversary for path in ADVERSARIAL]
    assert all(other == first for other in others)


@pytest.mark.parametrize("path", ADVERSARIAL, ids=lambda path: path.stem)
def test_an_adversarial_config_gives_a_reason_a_line(path):
    lines = path.read_text().splitlines()
    section = lines[lines.index("adversary:") + 1 :]
    assert section
    assert all("  # " in line for line in section)


def test_every_config_says_why_beside_its_values():
    for path in CONFIGS:
        text = path.read_text()
        assert text.startswith("# "), f"{path.name} opens without saying what it is"
        assert "python tools/train_seg.py" in text, f"{path.name} does not show its command"

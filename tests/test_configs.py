"""Every config in configs/seg is valid, can be planned, builds, and learns from two steps."""

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from segmed.build import build_loss, build_network
from segmed.cli import load_config
from segmed.config import known
from segmed.data.fingerprint import CaseFacts
from segmed.machine import GIB, Machine
from segmed.plan import resolve
from segmed.training.precision import Choice
from segmed.training.steps import SupervisedStep

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs" / "seg").glob("*.yaml"))
THIN = ((24, 32, 24), (1.0, 1.0, 1.0))
THICK = ((48, 48, 6), (1.5, 1.5, 10.0))
GRIDS = {"phantom": THICK, "phantom_3d": THIN, "acdc": THICK, "acdc_3d": THICK, "myops_lge": THICK}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_plans_builds_and_learns(path):
    config = load_config(path)
    images = (
        config.data.images if config.data.images != "auto" else tuple(getattr(config.data.layout, "images", ["MR"]))
    )
    shape, spacing = GRIDS.get(path.stem, THIN)
    intensity = dict.fromkeys(("min", "p0_5", "p50", "p99_5", "max", "mean", "sd"), 1.0) | {"zero_fraction": 0.0}
    facts = [CaseFacts("a", shape, spacing, "RAS", dict.fromkeys(images, intensity), {}, {}, shape)]
    config = resolve(config, facts, channels=len(images), machine=Machine("cpu", "CPU", 20 * GIB, 2)).config
    classes, dims = len(known(config.data.labels)) + 1, known(config.patches.dims)
    torch.manual_seed(0)
    network = build_network(config.network, in_channels=len(images), out_channels=classes, dims=dims)
    step = SupervisedStep(
        network,
        build_loss(config.loss, network, class_weights=config.train.class_weights),
        config.train.model_copy(update={"warmup": 0.0}),
        fabric=Fabric(accelerator="cpu"),
        choice=Choice("fp32", "contiguous"),
    )
    size = known(config.patches.size)
    batch = {
        "image": torch.randn(2, len(images), *size),
        "label": torch.randint(0, classes, (2, *size), dtype=torch.uint8),
    }
    losses = [step.step(batch, 0.0)["loss"] for _ in range(2)]
    assert torch.isfinite(torch.stack(losses)).all()
    assert losses[1] < losses[0]


def test_every_config_says_why_beside_its_values():
    for path in CONFIGS:
        text = path.read_text()
        assert text.startswith("# "), f"{path.name} opens without saying what it is"
        assert "python tools/train_seg.py" in text, f"{path.name} does not show its command"

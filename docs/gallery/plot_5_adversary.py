"""
Disguises and discriminators
============================

A discriminator learns to tell label maps of a network from references. A network's maps are soft, references are 0 and
1: without a disguise it need not look at any shape.
"""

import torch
from matplotlib.figure import Figure
from small_run import FAST, small_run
from torch.nn.functional import interpolate

import segmed
from segmed.builders.architectures import build_discriminator
from segmed.config import (
    DiscriminatorEncoderConfig,
    ImageDiscriminatorConfig,
    InferenceConfig,
    PatchDiscriminatorConfig,
    PixelDiscriminatorConfig,
)
from segmed.losses.adversarial import non_saturating_discriminator_loss
from segmed.targets import targets_of
from segmed.training.disguise import DISGUISES, disguise, reference_maps

RUN = small_run()
STEPS = 2 if FAST else 40
config = segmed.read_run_config(RUN)
labels = segmed.read_dataset(config).labels
network = segmed.load_run(RUN, inference=InferenceConfig(largest_component=())).network.eval()
patches = segmed.training_patches(RUN, foreground=1.0, seed=3)


def batch(first: int, count: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, reference maps, and what the network makes of the images."""
    samples = [patches[first + number] for number in range(count)]
    image = torch.stack([sample["image"] for sample in samples])
    real, _ = reference_maps(torch.stack([sample["label"] for sample in samples]), targets_of(labels))
    with torch.no_grad():
        return image, real, network(image).softmax(1)


# %%
# Disguises
# ---------
# What the discriminator gets to see of the myocardium: in the upper row of a reference, in the lower row of the
# network's map for the same image. `soften` gives the reference the map's softness, `straight_through` shows the map's
# likeliest class (its gradient is that of the probabilities), `noise` covers both and fades in the course of a run.
image, real, soft = batch(4, 1)
torch.manual_seed(0)
figure = Figure(figsize=(9, 5.0), layout="constrained")
grid = figure.subplots(2, len(DISGUISES) + 1)
for axes in grid.ravel():
    axes.set_xticks([])
    axes.set_yticks([])
grid[0, 0].imshow(image[0, 0].T, cmap="gray", origin="lower")
grid[0, 0].set_title("image", fontsize=9)
grid[1, 0].set_axis_off()
for column, name in zip(grid[:, 1:].T, DISGUISES, strict=True):
    worn = disguise(name)
    for axes, shown in zip(column, (worn.real(real, soft, 0.0), worn.fake(soft, 0.0)), strict=True):
        axes.imshow(shown[0, 1].T, cmap="magma", origin="lower", vmin=0, vmax=1)
    column[0].set_title(name, fontsize=9)
grid[0, 1].set_ylabel("reference", fontsize=9)
grid[1, 1].set_ylabel("result", fontsize=9)

# %%
# Discriminators
# --------------
# Each learns for a few dozen steps to tell references from the network's maps, disguised as `straight_through`. Where
# it takes the map for a result it is dark: `pixel` judges each pixel by itself, `patch` overlapping regions, `image`
# all of it by one decision. SegAN's critic, the fourth kind, compares features; there is no decision to be drawn.
encoder = DiscriminatorEncoderConfig(channels=(8, 16, 32), strides=((1, 1), (2, 2), (2, 2)))
kinds = {
    "pixel": PixelDiscriminatorConfig(),
    "patch": PatchDiscriminatorConfig(encoder=encoder),
    "image": ImageDiscriminatorConfig(encoder=encoder),
}
worn = disguise("straight_through")
judged = {}
for name, kind in kinds.items():
    torch.manual_seed(0)
    discriminator = build_discriminator(kind, image_channels=1, classes=real.shape[1], dims=2)
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
    for step in range(STEPS):
        seen, reference, result = batch(100 + 4 * step)
        decisions = [
            discriminator(seen, maps).decision for maps in (worn.real(reference, result, 0.0), worn.fake(result, 0.0))
        ]
        optimiser.zero_grad()
        non_saturating_discriminator_loss(*decisions).backward()
        optimiser.step()
    discriminator.eval()
    with torch.no_grad():
        for of, maps in (("reference", worn.real(real, soft, 0.0)), ("result", worn.fake(soft, 0.0))):
            decision = discriminator(image, maps).decision.sigmoid()
            decision = decision.reshape(*decision.shape, *[1] * (4 - decision.dim()))
            judged[name, of] = interpolate(decision, image.shape[2:])[0, 0]

figure = Figure(figsize=(9, 5.0), layout="constrained")
grid = figure.subplots(2, len(kinds) + 1)
for axes in grid.ravel():
    axes.set_xticks([])
    axes.set_yticks([])
for line, (of, maps) in zip(grid, (("reference", real), ("result", worn.fake(soft, 0.0))), strict=True):
    line[0].imshow(image[0, 0].T, cmap="gray", origin="lower")
    line[0].contour(maps[0].argmax(0).T > 0, [0.5], colors="#56B4E9", linewidths=1.2)
    line[0].set_ylabel(of, fontsize=9)
    for axes, name in zip(line[1:], kinds, strict=True):
        drawn = axes.imshow(judged[name, of].T, cmap="magma", origin="lower", vmin=0, vmax=1)
        axes.set_title(f"{name}: mean {judged[name, of].mean():.2f}", fontsize=9)
figure.colorbar(drawn, ax=grid[:, -1], label="taken for a reference", shrink=0.6)

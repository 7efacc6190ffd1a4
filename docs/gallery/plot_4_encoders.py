"""
Feature maps of each encoder
============================

A U-Net's encoder trades resolution for feature maps, level by level. Each of the five kinds is trained for a few dozen
steps on the same patches; shown are the maps that vary most. The first level knows edges and brightness, the last
lights up for places in the heart.
"""

import torch
from small_run import FAST, small_run

import segmed
from segmed.reports import feature_figure

RUN = small_run()
STEPS, BATCH = (2, 2) if FAST else (40, 4)
patches = segmed.training_patches(RUN, foreground=1.0, seed=2)
classes = 1 + len(segmed.read_dataset(segmed.read_run_config(RUN)).labels.names)


def trained(encoder: str) -> torch.nn.Module:
    """A U-Net with that encoder after a few steps, always from the same seed."""
    torch.manual_seed(0)
    shape = {"name": encoder, "channels": [8, 16, 32, 64], "strides": [1, 2, 2, 2]}
    network = segmed.build_network(
        {"name": "unet", "encoder": shape, "deep_supervision": False}, in_channels=1, classes=classes, dims=2
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(STEPS):
        batch = [patches[BATCH * step + number] for number in range(BATCH)]
        image = torch.stack([sample["image"] for sample in batch])
        label = torch.stack([sample["label"] for sample in batch]).long()
        loss = torch.nn.functional.cross_entropy(network(image), label, ignore_index=255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"{encoder}: cross-entropy {loss.item():.2f} after {STEPS} steps")
    return network.eval()


shown = patches[4]["image"]

# %%
# Plain: two convolutions a level, as in the first U-Nets.
figure = feature_figure(trained("plain"), shown, title="plain")

# %%
# Residual: what a level adds to its input.
figure = feature_figure(trained("residual"), shown, title="residual")

# %%
# Dense: every layer sees all earlier ones of its level.
figure = feature_figure(trained("dense"), shown, title="dense")

# %%
# ConvNeXt: large kernels, one channel at a time.
figure = feature_figure(trained("convnext"), shown, title="convnext")

# %%
# MedNeXt: the same idea with residual down- and upsampling, made for medical images.
figure = feature_figure(trained("mednext"), shown, title="mednext")

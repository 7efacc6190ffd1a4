"""
Classical methods on the same slice
===================================

Every method that networks are compared with, on one slice of a synthetic heart with scar. Each is given the wall of the
left ventricle and tells scar from the rest of it. Those that learn do so from three other hearts.
"""

import typing

import numpy as np
from matplotlib.figure import Figure
from small_run import FOLDER

import segmed
from segmed.builders.classical import REST, TISSUE, build_method
from segmed.config.methods import ClassicalMethod, VoxelClassifierConfig
from segmed.geometry import spacing_mm
from segmed.segmenters.region import Scene

HEARTS = FOLDER / "hearts"
segmed.make_phantom(HEARTS, cases=10, seed=0)
TRAINING, SHOWN = ("phantom_001", "phantom_005", "phantom_008"), "phantom_009"


def scene_of(case: str) -> tuple[Scene, np.ndarray]:
    """The wall of a heart with what else is known of it, and its scar."""
    image = segmed.read_volume(HEARTS / case / f"{case}_LGE.nii.gz")
    label = segmed.read_volume(HEARTS / case / f"{case}_label.nii.gz").numpy()[0]
    wall, scar = np.isin(label, (1, 4)), label == 4
    masks = {"pool": label == 2, "rv": label == 3, TISSUE: scar, REST: wall & ~scar}
    return Scene(image.numpy()[0], wall, spacing_mm(image.affine), masks), scar


def configs():
    """A config a method; of the voxel classifiers, one a kind."""
    union = typing.get_args(typing.get_args(ClassicalMethod)[0])
    for kind in union:
        if kind is VoxelClassifierConfig:
            for name in typing.get_args(kind.model_fields["name"].annotation):
                yield kind(name=name, pool="pool", rv="rv")
        else:
            yield kind()


# %%
# Threshold methods see intensities alone; contours and energies want a short border as well; the voxel classifiers see
# the neighbourhood and where in the wall a voxel lies. The figure above each panel is the Dice of the whole heart.
scene, scar = scene_of(SHOWN)
training = [scene_of(case)[0] for case in TRAINING]
methods = {config.name: build_method(config, training if config.needs_training else None) for config in configs()}
results = {name: method.probability(scene) >= 0.5 for name, method in methods.items()}

number = int(scar.sum(axis=(0, 1)).argmax())
xs, ys = np.nonzero(scene.region[:, :, number])
box = slice(xs.min() - 4, xs.max() + 5), slice(ys.min() - 4, ys.max() + 5)
figure = Figure(figsize=(10, 8), layout="constrained")
panels = figure.subplots(3, 6).ravel()
for axes in panels:
    axes.set_axis_off()
for axes, (name, result) in zip(panels, {"reference": scar, **results}.items(), strict=False):
    axes.imshow(scene.image[:, :, number][box].T, cmap="gray", origin="lower")
    axes.contour(scar[:, :, number][box].T, [0.5], colors="#56B4E9", linewidths=1.4)
    if name != "reference":
        axes.contour(result[:, :, number][box].T, [0.5], colors="#E69F00", linewidths=1.4)
        dice = 2 * np.count_nonzero(result & scar) / (np.count_nonzero(result) + np.count_nonzero(scar))
        name = f"{name.replace('_', ' ')}\n{dice:.2f}"
    axes.set_title(name, fontsize=8)
figure.suptitle("scar: reference blue, method orange", fontsize=9)
assert len(panels) > len(results), "a method is left out"

"""
Augmentation, one effect at a time
==================================

What each augmentation and each artefact of MRI does to a training patch, stronger than in any preset. Patch number *n*
is a function of the seed and *n* alone, so the same patches are shown before and after.
"""

from small_run import small_run

import segmed
from segmed.config import AugmentConfig
from segmed.reports import patch_figure

RUN = small_run()
LABELS = segmed.read_dataset(segmed.read_run_config(RUN)).labels
SAMPLES = (1, 4)


def before_and_after(effects: dict[str, dict[str, float]]):
    """A column an effect: a patch as it is cut, and with this effect alone; two patches below each other."""
    rows = {}
    for sample in SAMPLES:
        rows[f"patch {sample}\nbefore"] = [patches()[sample]] * len(effects)
        rows[f"patch {sample}\nafter"] = [patches(**numbers)[sample] for numbers in effects.values()]
    return patch_figure(rows, LABELS, columns=list(effects))


def patches(**numbers: float):
    """Training patches of the run with these effects and no others."""
    return segmed.training_patches(RUN, AugmentConfig(name="none", **numbers), foreground=1.0, seed=1)


# %%
# Shapes
# ------
# Rotation, zoom, shear, shift and elastic displacement take the labels along, all in one resampling. A flip is off
# unless you ask for it: the heart has a side.
shapes = {
    "rotation": {"affine_probability": 1, "rotation_deg": 60},
    "zoom": {"affine_probability": 1, "scale": 0.5},
    "shear": {"affine_probability": 1, "shear": 0.4},
    "shift": {"affine_probability": 1, "translation_mm": 25},
    "elastic": {"elastic_probability": 1, "elastic_mm": 14},
    "flip": {"flip_probability": 1},
}
figure = before_and_after(shapes)

# %%
# Intensities
# -----------
# An uneven coil gives a bias field; another inversion time gives another contrast (gamma, histogram); a short scan has
# more noise. Labels stay where they are.
intensities = {
    "bias field": {"bias_probability": 1, "bias_coefficient": 0.6},
    "gamma": {"gamma_probability": 1, "gamma_log": 0.9},
    "histogram": {"histogram_probability": 1, "histogram_points": 4},
    "noise": {"noise_probability": 1, "noise_sd": 0.8},
    "blur": {"blur_probability": 1, "blur_sd_voxels": 2.5},
    "low resolution": {"low_resolution_probability": 1, "low_resolution_factor": 5},
}
figure = before_and_after(intensities)

# %%
# Artefacts of the acquisition
# ----------------------------
# What repeats itself comes back as ghosts along the phase-encoding axis; a patient moves; a spark in the scanner's room
# puts a spike into k-space, which is a pattern of stripes in the image.
artefacts = {
    "ghosting": {"ghosting_probability": 1, "ghosting_intensity": 1.5},
    "motion": {"motion_probability": 1, "motion_deg": 6, "motion_mm": 6},
    "spikes": {"spike_probability": 1, "spike_intensity": 0.8},
}
figure = before_and_after(artefacts)

# %%
# No effect is left out:
switches = {name for name in AugmentConfig.model_fields if name.endswith("_probability")}
shown = {name for effect in (shapes | intensities | artefacts).values() for name in effect}
assert switches <= shown, switches - shown

"""
Augmentation, preset by preset
==============================

The same patches under each preset, a column a patch. Most patches of a mild preset are plain copies: probabilities are
per effect. `auto` is no preset of its own: the plan takes `light`, or `full` where the run is long enough for its
cases, and `wide` in place of `full` where the spacing is not known.
"""

from small_run import small_run

import segmed
from segmed.config import AUGMENT_PRESETS, AugmentConfig
from segmed.reports import patch_figure

RUN = small_run()
LABELS = segmed.read_dataset(segmed.read_run_config(RUN)).labels

rows = {}
for name in AUGMENT_PRESETS:
    patches = segmed.training_patches(RUN, AugmentConfig(name=name), foreground=1.0, seed=1)
    rows[name] = [patches[number] for number in range(8)]
figure = patch_figure(rows, LABELS)

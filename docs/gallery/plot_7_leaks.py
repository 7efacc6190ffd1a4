"""
Leaks that the audit finds
==========================

A published split with copies of its training images among its test images. Synthetic heads; the copies are put there on
purpose, some of them flipped, made brighter or cut at their borders.
"""

import shutil

import numpy as np
from PIL import Image, ImageOps
from small_run import FOLDER

from segmed.config.images import ClassDataConfig
from segmed.data.images.contrast_phantom import make_contrast_phantom
from segmed.data.images.image_dataset import read_classes
from segmed.data.leaks.guess_classes import guess_class_layout
from segmed.data.leaks.image_audit import audit_classes
from segmed.reports.audit.leak_figures import leak_figure

HEADS, PUBLISHED = FOLDER / "heads", FOLDER / "published"
make_contrast_phantom(HEADS, subjects=24, slices=2, size=96, seed=0)
shutil.rmtree(PUBLISHED, ignore_errors=True)
CLASSES = ("non_contrast", "post_contrast")
for label in CLASSES:
    for number, path in enumerate(sorted((HEADS / label).glob("*.png"))):
        part = PUBLISHED / ("Training" if number < 32 else "Testing") / label
        part.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, part / path.name)

# %%
# Five training images go into the test part as well.
CHANGES = {
    "copy": lambda image: image,
    "flipped": ImageOps.mirror,
    "brighter": lambda image: Image.fromarray(np.clip(np.asarray(image) * 1.2, 0, 255).astype(np.uint8)),
    "smaller": lambda image: image.resize((72, 72)).resize((96, 96)),
    "turned": lambda image: image.rotate(90),
}
for label in CLASSES:
    for path, (name, change) in zip(
        sorted((PUBLISHED / "Training" / label).glob("*.png")), CHANGES.items(), strict=False
    ):
        change(Image.open(path)).save(PUBLISHED / "Testing" / label / f"{name}.png")

# %%
# The audit compares all images with all, in every orientation.
data = ClassDataConfig(root=PUBLISHED, layout=guess_class_layout(PUBLISHED))
dataset = read_classes(data)
audit = audit_classes(dataset)
for finding in audit.findings:
    print(f"{finding.severity}: {finding.what}")
found = {name for twin in audit.twins for name in CHANGES if any(name in str(one) for one in (twin.a, twin.b))}
assert found == set(CHANGES), found

# %%
# The pairs that it found, how alike images without a twin are, and what tells the classes apart without any anatomy.
figure = leak_figure(audit, dataset)

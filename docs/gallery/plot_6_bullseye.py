"""
A scar report: slices and bullseyes
===================================

Mass, share and transmurality of a scar in the segments of the AHA, from a label map. `segmed quantify-scar` writes the
same with a page to print.
"""

from small_run import FOLDER

import segmed
from segmed.cardiac.heart_labels import heart_of, heart_values
from segmed.cardiac.labelled_image import read_labelled
from segmed.cardiac.scar import scar_report
from segmed.reports.scar.figures import extent_bullseye, montage_tiles, scar_montage, transmurality_bullseye
from segmed.volumes import Source

HEARTS = FOLDER / "hearts"
segmed.make_phantom(HEARTS, cases=10, seed=0)
case = HEARTS / "phantom_009"
image, values, affine = read_labelled(
    Source(case / "phantom_009_LGE.nii.gz"), Source(case / "phantom_009_label.nii.gz")
)
heart, scar = heart_of(values, affine, heart_values("1,4", "4", "2", "3"))
report = scar_report(heart, scar, image=image)
print(f"LV {report.wall_g:.0f} g, scar {report.scar_ml:.1f} ml = {report.scar_percent:.0f} % of the LV")
print(f"apex told by {report.apex_from}, septum by {report.septum_from}; not known: {report.unknown or 'nothing'}")

# %%
# The slices that were measured, from base to apex.
figure = scar_montage(montage_tiles(image, heart, report))

# %%
# How much of each segment's wall is scar.
figure = extent_bullseye(report)

# %%
# How far the scar reaches from the cavity outwards, in the classes that readers use.
figure = transmurality_bullseye(report)

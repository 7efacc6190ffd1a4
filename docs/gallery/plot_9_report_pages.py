"""
The pages that are written
==========================

Every run, audit, scar report and comparison ends with one page, `report.html`, that needs no network and no server.
These are pictures of such pages, taken by a headless browser when this site was built.
"""

import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from small_run import FOLDER, small_run

from segmed.commands.program import main_of

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, PROGRAMS)), None)
RUN = small_run()


def command(*words: object) -> None:
    """Run a command of segmed, as `segmed WORDS` does."""
    sys.argv = ["segmed", *map(str, words)]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        main_of(sys.argv[1])()


def screenshots(page: Path, height: int) -> list[Path]:
    """The upper part of a page as a browser shows it; none where there is no browser."""
    if BROWSER is None:
        print("no Chromium on this machine: no picture")
        return []
    picture = FOLDER / f"{page.parent.name}.png"
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        shot = [f"--window-size=1100,{height}", f"--screenshot={picture}", page.as_uri()]
        subprocess.run([BROWSER, *options, *shot], check=True, capture_output=True, timeout=120)
    return [picture]


# %%
# A training: what was learnt, how it went, the test, and how to go on.
pictures = screenshots(RUN / "report.html", 1300)

# %%
# An audit: what the data set is like, and what must be mended before it trains.
command("audit", FOLDER / "hearts", "--output", FOLDER / "audit")
pictures = screenshots(FOLDER / "audit" / "report.html", 900)

# %%
# A scar report, one page to print.
heart = FOLDER / "hearts" / "phantom_001"
values = ("--wall", "1,4", "--scar", "4", "--pool", "2", "--rv", "3")
files = ("--image", heart / "phantom_001_LGE.nii.gz", "--labels", heart / "phantom_001_label.nii.gz")
command("quantify-scar", *files, *values, "--output", FOLDER / "scar_report")
pictures = screenshots(FOLDER / "scar_report" / "report.html", 1300)

# %%
# A comparison of methods on the same test cases.
CONFIG = f"""
name: Two thresholds
output: {FOLDER / "comparison"}
data:
  root: {FOLDER / "hearts"}
  layout: {{name: phantom, cases: 10, seed: 0}}
  labels: {{myocardium: 1, blood_pool: 2, rv: 3, scar: 4}}
  regions: {{lv_wall: [myocardium, scar]}}
split: {{test: 0.6}}
each_fold: false
reference: Otsu
target: scar
rest: myocardium
region: lv_wall
rows:
  Otsu: {{method: {{name: otsu}}}}
  FWHM: {{method: {{name: fwhm}}}}
  5 SD: {{method: {{name: strm, n: 5}}}}
"""
(FOLDER / "thresholds.yaml").write_text(CONFIG)
command("compare", "--config", FOLDER / "thresholds.yaml")
pictures = screenshots(FOLDER / "comparison" / "report.html", 1300)

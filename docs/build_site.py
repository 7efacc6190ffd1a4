"""Build the site without a network: python docs/build_site.py, then open build/site/html/index.html"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS), str(ROOT / "tests" / "fixtures")]  # the fixtures hold the browser

from sphinx_site.inner_links import broken_links  # noqa: E402
from sphinx_site.staging import stage  # noqa: E402


def main() -> None:
    """Gather the pages, run Sphinx with warnings as errors, check every inner link."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site", help="folder of sources and pages")
    parser.add_argument(
        "--fast", action="store_true", help="short trainings in the gallery, notebooks without their pictures"
    )
    parser.add_argument("--pages", action="store_true", help="as --fast, and the gallery's scripts are not run either")
    given = parser.parse_args()
    began = time.monotonic()
    output = given.output.resolve()
    environment = os.environ | {
        "SEGMED_FAST_GALLERY": str(int(given.fast)),
        "SEGMED_RUN_GALLERY": str(int(not given.pages)),
    }
    environment["PYTHONPATH"] = os.pathsep.join(sys.path[:3])
    work = output / "work"  # of the gallery: data and a run, made anew
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    environment["TMPDIR"] = str(work)
    stage(DOCS, output / "source", fast=given.fast or given.pages)
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-c", str(DOCS / "sphinx_site")]
    subprocess.run(
        [*sphinx, "-d", str(output / "doctrees"), str(output / "source"), str(output / "html")],
        check=True,
        env=environment,
        cwd=output,
    )
    broken = broken_links(output / "html")
    if broken:
        sys.exit("\n".join(broken))
    print(f"{output / 'html' / 'index.html'}: every inner link leads somewhere; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

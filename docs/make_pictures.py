"""Make the pictures of README and docs/ from a run on the phantom: python docs/make_pictures.py --run runs/pictures"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

import segmed

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))

from browser import Browser, fetch, free_port  # noqa: E402

IMAGES = ROOT / "docs" / "images"
MONTAGE_WIDTH, SCREEN = 1000, (1400, 900)  # pixels
COLOURS = 96  # of a PNG: 200 KB hold a montage of twelve slices
SHOWN = "train%2Floss%7Cvalidation%2F(loss%7Cdice)"  # train/loss|validation/(loss|dice)
DRAWING_SECONDS = 3.0  # of TensorBoard, once its cards are there


def main() -> None:
    """Train the phantom, seed 0, where the run is not there yet; then draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/pictures"), help="run on the phantom; made if absent")
    run = parser.parse_args().run
    if not (run / "test" / "montage.png").is_file():
        segmed.train("phantom", run, overrides={"seed": 0})
    IMAGES.mkdir(exist_ok=True)
    save_small(Image.open(run / "test" / "montage.png"), IMAGES / "montage.png", width=MONTAGE_WIDTH)
    with TemporaryDirectory() as folder:
        logs = Path(folder) / "runs"
        shutil.copytree(run / "tensorboard", logs / "phantom")
        save_small(tensorboard_screen(logs, Path(folder)), IMAGES / "tensorboard.png", width=SCREEN[0])


def save_small(picture: Image.Image, path: Path, *, width: int) -> None:
    """Write a PNG of that width at most, with few colours."""
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    reduced = picture.convert("RGB").quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


def tensorboard_screen(logs: Path, folder: Path) -> Image.Image:
    """What a browser shows of the curves of a folder of runs.

    Args:
        logs: folder of runs.
        folder: for the browser's profile and picture.
    """
    address = f"http://127.0.0.1:{(port := free_port())}"
    program = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", str(port)]
    server = subprocess.Popen([*program, "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tab = Browser(folder / "profile")
    try:
        while not fetch(f"{address}/data/plugin/scalars/tags"):  # until it has read the events
            time.sleep(0.5)
        tab.open(f"{address}/?smoothing=0&tagFilter={SHOWN}#timeseries", width=SCREEN[0], height=SCREEN[1])
        tab.wait_for("document.querySelectorAll('scalar-card').length >= 4")
        tab.value("[...document.querySelectorAll('button')].find(b => b.textContent.includes('Settings')).click()")
        tab.wait_for("document.querySelectorAll('scalar-card line-chart svg path').length >= 4")
        time.sleep(DRAWING_SECONDS)
        tab.picture(folder / "tensorboard.png")
        with Image.open(folder / "tensorboard.png") as picture:
            return picture.convert("RGB")
    finally:
        tab.close()
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()

"""Time and memory over the number of cases, from the first audit to a prediction: python -m benchmarks.growth"""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter
from pydantic import Field, PositiveInt

from benchmarks.processes import ROOT
from segmed.commands.command_line import parse, run_tool
from segmed.config import Section
from segmed.errors import ConfigError
from segmed.files import atomic_write_text, csv_text, make_folder

SIDE = 16  # voxels of a volume, an axis
BALL = 5  # voxels of the radius of what is labelled
CONFIG = """\
name: growth
data:
  root: {root}
  layout: {{name: pattern, images: {{MR: "images/{{case}}.nii.gz"}}, label: "labels/{{case}}.nii.gz"}}
  labels: {{ball: 1}}
cache: {cache}
runs: {root}/runs
split: {{test: 0.02, validation: 0.02}}
preprocess: {{crop: none, intensity: zscore}}
augment: {{name: none}}
patches: {{dims: 3, size: [16, 16, 16]}}
network: {{name: unet, encoder: {{channels: [4, 8]}}}}
train: {{epochs: 1, steps_per_epoch: 1, batch_size: 2, validations: 1, precision: fp32}}
"""
STEPS = ("first audit", "plan", "first run", "second start", "prediction")
COLOURS = ("#b2182b", "#ef8a62", "#7f7f7f", "#67a9cf", "#2166ac")  # of the steps
FIRST_STEP = re.compile(r"^step \d+, ")  # the line of the log that says that training goes


class Arguments(Section):
    """Make folders of tiny volumes, and time what segmed does with them; each step is a process of its own.

    First audit: a plan where nothing is known of the files. Plan: the same again, from what is kept. First run: fills
    the cache, trains one step and validates. Second start: of another run, until its first step. Prediction: of all.
    Seconds depend on what else the machine does; beside them stand those of the processor.
    """

    cases: tuple[PositiveInt, ...] = Field((100, 1_000), description="of each folder")
    output: Path = Field(description="folder of growth.csv and growth.png; rows that are there already stay")


@dataclass(frozen=True)
class Row:
    """One step of one folder.

    Attributes:
        cases: in the folder.
        step: one of STEPS.
        seconds: by the clock.
        processor_seconds: of all its processes.
        peak_mib: of memory, of the largest process; no less than this process had when it began the step.
        load: of the last minute, at its end.
    """

    cases: int
    step: str
    seconds: float
    processor_seconds: float
    peak_mib: int
    load: float


def main() -> None:
    """Print each row as soon as it is measured, and write the table and the figure after each."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    make_folder(arguments.output)
    rows = {(row.cases, row.step): row for row in read_rows(arguments.output / "growth.csv")}
    for count in arguments.cases:
        with tempfile.TemporaryDirectory(prefix="segmed-growth-") as folder:
            make_volumes(Path(folder), count)
            for row in measure(Path(folder), count):
                rows[row.cases, row.step] = row
                print(row, flush=True)
                done = sorted(rows.values(), key=lambda each: (each.cases, STEPS.index(each.step)))
                write_rows(arguments.output / "growth.csv", done)
                draw(done, arguments.output / "growth.png")


def make_volumes(folder: Path, count: int) -> None:
    """So many volumes of noise with a ball in each, and its label maps, below `images` and `labels`."""
    from segmed.volumes import nifti

    for name in ("images", "labels", "cache"):
        (folder / name).mkdir()
    grid = np.indices((SIDE,) * 3) - SIDE / 2
    for number in range(count):
        generator = np.random.default_rng(number)
        away = np.linalg.norm(grid - generator.uniform(-2, 2, 3)[:, None, None, None], axis=0)
        label = (away < BALL).astype(np.uint8)
        image = (100 * label + generator.normal(200, 30, label.shape)).astype(np.int16)
        nifti.write(folder / "images" / f"case_{number:06d}.nii.gz", image[None], np.eye(4))
        nifti.write(folder / "labels" / f"case_{number:06d}.nii.gz", label[None], np.eye(4))
    (folder / "growth.yaml").write_text(CONFIG.format(root=folder, cache=folder / "cache"), encoding="utf-8")


def measure(folder: Path, count: int) -> Iterator[Row]:
    """The rows of one folder of `make_volumes`, each as soon as it is measured."""
    train = ("train", "--config", str(folder / "growth.yaml"))
    first, second = ("--untested", "--run-dir", str(folder / "first")), ("--untested", "--run-dir", str(folder / "run"))
    predict = ("predict", "--run", str(folder / "first"), "--input", str(folder / "images"))
    steps: dict[str, tuple[Sequence[str], re.Pattern[str] | None]] = {
        "first audit": ((*train, "--plan-only"), None),
        "plan": ((*train, "--plan-only"), None),
        "first run": ((*train, *first), None),
        "second start": ((*train, *second), FIRST_STEP),
        "prediction": ((*predict, "--output", str(folder / "out")), None),
    }
    for step in STEPS:
        yield Row(count, step, *timed(*steps[step]))


def timed(words: Sequence[str], until: re.Pattern[str] | None) -> tuple[float, float, int, float]:
    """Seconds, processor seconds, peak MiB and load of a command, or of its begin, up to a line of what it prints.

    Raises:
        ConfigError: it fails, or ends without that line.
    """
    began, seen, said = time.perf_counter(), None, ""
    process = subprocess.Popen(
        [sys.executable, "-m", "segmed.commands.program", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout or ():
        said = line.strip() or said
        if until is not None and seen is None and until.match(line):
            seen = time.perf_counter() - began
            process.terminate()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if (until is None and process.returncode) or (until is not None and seen is None):
        raise ConfigError(f"segmed {' '.join(words)} failed: {said}")
    seconds = time.perf_counter() - began if seen is None else seen
    spent = usage.ru_utime + usage.ru_stime
    peak = usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    return round(seconds, 1), round(spent, 1), round(peak), round(os.getloadavg()[0], 1)


def read_rows(path: Path) -> list[Row]:
    """The rows of a table of `write_rows`; none where there is none."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                int(row["cases"]),
                row["step"],
                float(row["seconds"]),
                float(row["processor_seconds"]),
                int(row["peak_mib"]),
                float(row["load"]),
            )
            for row in csv.DictReader(file)
        ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the table."""
    atomic_write_text(path, csv_text([field.name for field in fields(Row)], [asdict(row) for row in rows]))


def draw(rows: Sequence[Row], path: Path) -> None:
    """Processor seconds and peak memory over the number of cases, both axes logarithmic, a line a step."""
    from segmed.reports.drawing.panels import plain
    from segmed.reports.drawing.slices import save_figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    shown = (("processor_seconds", "processor s", 1), ("peak_mib", "peak MiB", 100))
    for axes, (field, text, floor) in zip(panels, shown, strict=True):
        for step, colour in zip(STEPS, COLOURS, strict=True):
            own = [row for row in rows if row.step == step]
            axes.plot(
                [row.cases for row in own], [getattr(row, field) for row in own], "o-",
                color=colour, linewidth=1, markersize=3, label=step,
            )  # fmt: skip
        top = max(getattr(row, field) for row in rows)
        axes.set(xscale="log", yscale="log", ylim=(floor, 10 ** math.ceil(math.log10(top))))
        axes.set_xlabel("cases", fontsize=8)
        axes.set_ylabel(text, fontsize=8)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(LogFormatter(labelOnlyBase=True))
            axis.set_minor_formatter(NullFormatter())
        plain(axes)
    panels[0].legend(fontsize=7, frameon=False)
    save_figure(figure, path, dpi=110)


if __name__ == "__main__":
    run_tool(main)

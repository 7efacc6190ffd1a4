"""Public data sets -> a folder on disk that is complete or absent: resumed, checked, safely unpacked."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from segmed.data.archive import unpack
from segmed.data.transfer import Report, fetch, forget, held
from segmed.errors import DownloadError, did_you_mean

BASE_URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Task:
    """One task of the Medical Segmentation Decathlon.

    Attributes:
        folder: name of the folder and, with `.tar`, of the archive.
        content: what is in it.
        size_gb: about the size of the archive.
        md5: of the archive.
    """

    folder: str
    content: str
    size_gb: float
    md5: str

    @property
    def name(self) -> str:
        """The name on the command line: `hippocampus`, `brain_tumour`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.folder.split("_", 1)[1]).lower()


# Source of the archive names and sums: monai.apps.DecathlonDataset. Licence of the data: CC BY-SA 4.0.
TASKS = (
    Task("Task01_BrainTumour", "brain MRI (FLAIR, T1w, T1gd, T2w), glioma", 7.1, "240a19d752f0d9e9101544901065d872"),
    Task("Task02_Heart", "cardiac MRI, left atrium", 0.4, "06ee59366e1e5124267b774dbd654057"),
    Task("Task03_Liver", "CT, liver and tumour", 27.0, "a90ec6c4aa7f6a3d087205e23d4e6397"),
    Task("Task04_Hippocampus", "brain MRI, hippocampus in two parts", 0.03, "9d24dba78a72977dbd1d2e110310f31b"),
    Task("Task05_Prostate", "MRI (T2, ADC), prostate in two zones", 0.2, "35138f08b1efaef89d7424d2bcc928db"),
    Task("Task06_Lung", "CT, lung tumour", 8.5, "8afd997733c7fc0432f71255ba4e52dc"),
    Task("Task07_Pancreas", "CT, pancreas and tumour", 11.5, "4f7080cfca169fa8066d17ce6eb061e4"),
    Task("Task08_HepaticVessel", "CT, hepatic vessels and tumour", 8.7, "641d79e80ec66453921d997fbf12a29c"),
    Task("Task09_Spleen", "CT, spleen", 1.5, "410d4a301da4e5b2f6f86ec3ddba524e"),
    Task("Task10_Colon", "CT, colon tumour", 5.4, "bad7a188931dc2f6acf72b08eb6202d0"),
)


def find_task(name: str) -> Task:
    """The task that `name` means: `hippocampus`, `Task04` or `Task04_Hippocampus`, in any case.

    Raises:
        DownloadError: no such task; names the nearest.
    """
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())
    for task in TASKS:
        folder = task.folder.lower()
        if wanted in (folder.replace("_", ""), folder.split("_")[0], folder.split("_")[1]):
            return task
    hint = did_you_mean(name.lower(), [task.name for task in TASKS])
    raise DownloadError(f"no public data set is called '{name}'{hint}")


def is_there(task: Task, output: Path) -> bool:
    """Whether the complete data set is in `output`."""
    return (output / task.folder / "dataset.json").is_file()


def how_to_get(folder: Path) -> str:
    """What to do about the folder of a data set that is not there: the command that downloads it, where one does."""
    task = next((task for task in TASKS if task.folder == folder.name), None)
    if task is None:
        return "set data.root to the folder of the data set"
    output = shlex.quote(str(folder.parent))
    return f"`segmed download {task.name} --output {output}` fetches it, or set data.root to where it is"


def download_task(
    task: Task,
    output: Path,
    *,
    base_url: str = BASE_URL,
    progress: bool = False,
    attempts: int = 5,
    wait_s: float = 1.0,
) -> Path:
    """Download, check and unpack one task; an interrupted download is continued.

    Args:
        task: the data set.
        output: folder in which the folder of the task appears, once it is complete.
        base_url: address of the folder that holds the archives.
        progress: show progress bars on stderr.
        attempts: failed connections in a row, without a byte received, before it gives up.
        wait_s: pause after the first failure; it doubles, up to half a minute.

    Returns:
        The folder of the data set. Nothing is downloaded where it exists already.

    Raises:
        DownloadError: no network, not on the server, a wrong checksum, no space, an unsafe archive.
    """
    target = output / task.folder
    if is_there(task, output):
        return target
    if os.path.lexists(target):
        raise DownloadError(f"{target} exists but holds no dataset.json: move it away, then run again")
    part = output / f"{task.folder}.tar.part"
    with _named_disk_errors(output), _bars(progress) as report:
        output.mkdir(parents=True, exist_ok=True)
        with held(part) as stream:
            url = f"{base_url.rstrip('/')}/{task.folder}.tar"
            fetch(url, part, stream, attempts=attempts, wait_s=wait_s, report=report)
            _check(part, task.md5, report)
            unpack(part, target, expected="dataset.json", report=report)
            forget(part)
    return target


def _check(part: Path, md5: str, report: Report) -> None:
    digest, done, size = hashlib.md5(usedforsecurity=False), 0, part.stat().st_size
    with part.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report("checking", done, size)
    if digest.hexdigest() != md5:
        forget(part)
        name = part.name.removesuffix(".part")
        difference = f"checksum {digest.hexdigest()} instead of the published {md5}"
        raise DownloadError(f"{name}: {difference}: it was removed, run again or try another --base-url")


@contextmanager
def _named_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            line = f"no space left in {folder}: free some space or choose another --output; what has come is kept"
            raise DownloadError(line) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise DownloadError(f"cannot write into {folder} ({error.strerror}): choose another --output") from error
        raise


@contextmanager
def _bars(progress: bool) -> Iterator[Report]:
    """One bar for each thing that is done."""
    columns = (
        TextColumn("{task.description:>11}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bars:
        rows: dict[str, int] = {}

        def report(stage: str, done: int, total: int | None) -> None:
            if stage not in rows:
                rows[stage] = bars.add_task(stage, total=total)
            bars.update(rows[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield report

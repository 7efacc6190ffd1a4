"""Classify new images or volumes: segmed classify --run RUN --input FILE_OR_FOLDER --output FILE.csv"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from segmed.commands.command_line import parse
from segmed.commands.model_option import Models
from segmed.config import Section
from segmed.errors import ConfigError
from segmed.files import bounds, check_target, make_folder, printable

if TYPE_CHECKING:
    from segmed.builders.model_file import Opened
    from segmed.trust.prediction_sets import PredictionSets


class Arguments(Section):
    """Classify new images with one run of segmed train-cls, or with the mean of several.

    Probabilities are calibrated where validation fitted a temperature. Where the runs were calibrated by images that
    they never saw (segmed calibrate), a column holds the set of classes that the true one is in at the level, and the
    answer is left open where that is not one class alone. An image that can't be read has its reason in
    the table; exit code 1 then, 0 else.
    """

    run: tuple[Path, ...] = Field(
        (), description="folders of runs; several are averaged, as the folds of one experiment"
    )
    model: Models = ()
    input: Path = Field(description="an image, a volume, or a folder of them")
    output: Path = Field(description="CSV file")
    level: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="of the sets of classes of calibrated runs; left out: 0.9"
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1; auto: a GPU where there is one")


def main() -> int:
    """Exit code 1 where an image can't be read."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if not arguments.run and not arguments.model:
        raise ConfigError("no run is named: give --run RUN, a folder that segmed train-cls made, or --model FILE")
    from segmed.builders.model_file import opened

    with opened(arguments.run, arguments.model) as runs:
        return _classified(arguments, runs)


def _classified(arguments: Arguments, runs: Opened) -> int:
    from segmed.classify.predict import classify, find_images, write_answers
    from segmed.runs import open_run, own_files, read_class_config, runs_of

    sets = _sets(arguments, runs)
    folders = [run.path for folder in runs.folders for run in runs_of(folder)]
    images = find_images(arguments.input, read_class_config(open_run(folders[0])).image)
    read = [*images.values(), *runs.sources, *(file for run in arguments.run for file in own_files(run))]
    with bounds(arguments.output.parent, inputs=read):
        make_folder(arguments.output.parent)  # before the work, not after it
        check_target(arguments.output)
        _check_table(arguments.output)
        answers = classify(folders, images, device=arguments.device, progress=True)
        write_answers(answers, arguments.output, sets)
    lost = [answer for answer in answers.answers if answer.probabilities is None]
    for answer in lost[:5]:
        print(printable(f"not classified: {answer.id}: {answer.error}"))
    print(f"{len(answers.answers) - len(lost)} of {len(answers.answers)} images classified: {arguments.output}")
    return 1 if lost else 0


def _check_table(path: Path) -> None:
    """Refuse to replace a file that is no table of this command."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        if not file.readline().startswith("id,predicted,"):
            raise ConfigError(f"{path} is there, and no table of segmed classify: name another --output")


def _sets(arguments: Arguments, runs: Opened) -> PredictionSets | None:
    """What gives sets of classes, where the runs are calibrated."""
    from segmed.classify.calibrate import read_class_evidence
    from segmed.trust.prediction_sets import PredictionSets

    evidence = read_class_evidence(runs.folders)
    if evidence is None and arguments.level is not None:
        raise ConfigError(
            f"--level {arguments.level:g}: {runs.origin(runs.folders[0])} is not calibrated: "
            "segmed calibrate --run RUN does that"
        )
    return None if evidence is None else PredictionSets(evidence, arguments.level or 0.9)

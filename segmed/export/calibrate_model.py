"""A model that was handed over and somebody's own labelled cases -> a new model file that knows how far it is right."""

from __future__ import annotations

from pathlib import Path

from segmed.builders.model_file import CARD, opened, read_index
from segmed.classify import calibrate as of_classes
from segmed.config import SegmentationConfig
from segmed.errors import ConfigError
from segmed.export.card import CALIBRATED, NOT_CALIBRATED
from segmed.export.handed_over import CALIBRATION, read_any
from segmed.export.write_model import check_name, pack
from segmed.files import atomic_write_text
from segmed.runs import runs_of
from segmed.segment import calibrate as of_labels

WITHHELD = "the model withholds which cases it has learnt from: that none of these is among them can't be checked"


def calibrate_model(model: Path, data: Path, output: Path, *, device: str, failure_dice: float) -> list[str]:
    """Calibrate a model by labelled cases, and write it with its calibration into a new file.

    Args:
        model: the file; it stays as it is.
        data: folder of cases in the layout that the model was trained with.
        output: the new file.
        device: that computes.
        failure_dice: a Dice below it is called a failure.

    Returns:
        What it says of itself, a line each.

    Raises:
        RunError: a model that was cut, changed, or made by a newer version.
        ConfigError: a model of several runs, another ending, a file that is there.
        MetricError: too few subjects.
        DatasetError: no case that it did not learn from.
    """
    check_name(output)
    if output.exists():
        raise ConfigError(f"{output} is there already: name another file; the model given is never changed")
    index = read_index(model)
    if len(index["runs"]) > 1:
        raise ConfigError(
            f"{model} holds {len(index['runs'])} runs, and each is calibrated by itself: export one alone"
        )
    with opened((), [model]) as runs:
        run = runs.folders[0]
        folder = run.parents[len(Path(index["runs"][0]).parts) - 1]
        if isinstance(read_any(runs_of(run)[0].path), SegmentationConfig):
            lines = of_labels.calibrate(run, data, device=device, failure_dice=failure_dice, progress=True)
        else:
            lines = of_classes.calibrate(run, data, device=device)
        card = (folder / CARD).read_text(encoding="utf-8")
        atomic_write_text(folder / CARD, card.replace(NOT_CALIBRATED, CALIBRATED))
        pack(folder, index, output)
        lines = [line.replace(str(run / CALIBRATION), str(output)) for line in lines]
    return lines if index["cases"] else [WITHHELD, *lines]

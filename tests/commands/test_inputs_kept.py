"""No command replaces what it reads, or writes through a link that a stranger put into a run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_classes import config_of, write_classes
from tiny_data import make_balls, tiny

from segmed.classify import run as classification
from segmed.commands import audit_data, classify, compare, evaluate, predict, quantify_scar
from segmed.commands.command_line import run_tool
from segmed.compose import run as experiment
from segmed.errors import DiskError

Attack = tuple[Callable[[], int | None], list, list[Path]]  # command, its options, its inputs


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    make_balls(folder / "data")
    config = tiny(folder / "data", folder, inference={"largest_component": []})
    experiment.run(config, folder / "run")
    write_classes(folder / "images", subjects=4)
    classification.run(config_of(folder, folder / "images", evaluate={"maps": 0, "gallery": 0}), folder / "classifier")
    return folder


# ---------------------------------------------------------------- every command


def _name_as(source: Path, target: Path) -> Path:
    """An input under the name that a tool will write."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    return target


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.indices((16, 16)).sum(0) % 3).astype(np.uint8)).save(path)
    return path


def _onto_prediction(trained: Path, tmp: Path) -> Attack:
    image = _name_as(trained / "data" / "ball_00.nii.gz", tmp / "in" / "ball_00.nii.gz")
    return (
        predict.main,
        ["--run", trained / "run", "--input", tmp / "in", "--output", tmp / "in", "--overwrite"],
        [image],
    )


def _onto_probabilities(trained: Path, tmp: Path) -> Attack:
    name = "ball_00_probabilities.nii.gz"
    image = _name_as(trained / "data" / "ball_00.nii.gz", tmp / "probabilities" / name)
    other = _name_as(trained / "data" / "ball_01.nii.gz", tmp / "ball_00.nii.gz")
    (tmp / "all").mkdir()
    for path in (image, other):
        (tmp / "all" / path.name).symlink_to(path)
    options = ["--input", tmp / "all", "--output", tmp, "--overwrite", "--probabilities"]
    return predict.main, ["--run", trained / "run", *options], [image, other]


def _onto_weights(trained: Path, tmp: Path) -> Attack:
    options = ["--input", trained / "data", "--output", trained / "run" / "predictions", "--overwrite"]
    return predict.main, ["--run", trained / "run", *options], sorted((trained / "run" / "predictions").iterdir())


def _onto_figures(trained: Path, tmp: Path) -> Attack:
    maps = [_picture(tmp / "maps" / f"{name}.png") for name in ("box_plots", "montage")]
    references = [_name_as(path, tmp / "references" / path.name) for path in maps]
    options = ["--references", tmp / "references", "--output", tmp / "references", "--labels", "1", "2"]
    return evaluate.main, ["--predictions", tmp / "maps", *options, "--spacing-unknown"], references


def _onto_test(trained: Path, tmp: Path) -> Attack:
    run = trained / "run"
    options = ["--references", trained / "data", "--run", run, "--output", run / "test", "--test-only"]
    return evaluate.main, ["--predictions", run / "predictions", *options], sorted((run / "test").iterdir())


def _onto_table(trained: Path, tmp: Path) -> Attack:
    table = _name_as(trained / "run" / "test" / "cases.csv", tmp / "comparison.csv")
    other = _name_as(table, tmp / "other" / "cases.csv")
    return compare.main, ["--methods", f"a={table}", f"b={other.parent}", "--output", tmp], [table]


def _onto_audited(trained: Path, tmp: Path) -> Attack:
    _name_as(trained / "data" / "ball_00.nii.gz", tmp / "ball_00.nii.gz")
    table = tmp / "audit.json"
    table.write_text(json.dumps([{"image": "ball_00.nii.gz"}]))
    return audit_data.main, [tmp, "--manifest", "audit.json", "--output", tmp], [table]


def _onto_labels(trained: Path, tmp: Path) -> Attack:
    image = _name_as(trained / "data" / "ball_00.nii.gz", tmp / "labels.nii.gz")
    options = ["--run", trained / "run", "--wall", "shell,core", "--scar", "core", "--output", tmp]
    return quantify_scar.main, ["--image", image, *options], [image]


def _onto_montage(trained: Path, tmp: Path) -> Attack:
    image = _picture(tmp / "montage.png")
    options = ["--labels", image, "--wall", "1,2", "--scar", "2", "--output", tmp]
    return quantify_scar.main, ["--image", image, *options], [image]


def _onto_classified(trained: Path, tmp: Path) -> Attack:
    image = _name_as(next((trained / "images").rglob("*.png")), tmp / "in" / "a.png")
    return classify.main, ["--run", trained / "classifier", "--input", image, "--output", image], [image]


def _onto_answers(trained: Path, tmp: Path) -> Attack:
    run = trained / "classifier"
    options = ["--input", trained / "images", "--output", run / "test" / "predictions.csv"]
    return classify.main, ["--run", run, *options], sorted((run / "test").iterdir())


ATTACKS = [
    _onto_prediction, _onto_probabilities, _onto_weights, _onto_figures, _onto_test, _onto_table, _onto_audited,
    _onto_labels, _onto_montage, _onto_classified, _onto_answers,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__.strip("_"))
def test_no_command_replaces_an_input(attack, trained, tmp_path, monkeypatch, capsys):
    main, options, inputs = attack(trained, tmp_path)
    before = {path: path.read_bytes() for path in inputs}
    assert before
    monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        run_tool(main)
    assert {path: path.read_bytes() for path in inputs} == before
    complaint = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2
    assert "input" in complaint


@pytest.mark.parametrize("planted", ["log.txt", "predictions", "weights", "tensorboard"])
def test_a_link_in_a_strangers_run_is_not_written_through(trained, tmp_path, planted):
    run, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    experiment.start(tiny(trained / "data", tmp_path), run)
    target = outside / "precious.txt" if "." in planted else outside
    (outside / "precious.txt").write_text("precious")
    (run / planted).unlink(missing_ok=True)  # the log begins with the plan
    (run / planted).symlink_to(target)
    with pytest.raises(DiskError, match=f"{planted} is a link"):
        experiment.resume(run)
    assert [path.name for path in outside.iterdir()] == ["precious.txt"]
    assert (outside / "precious.txt").read_text() == "precious"

"""Tools write no input, nothing outside the folders they were given, and nothing through a link."""

import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny_data import make_balls, tiny

from segmed import experiment
from segmed.cli import run_tool
from segmed.config import DataConfig
from segmed.data.cases import DatasetError, read_dataset
from segmed.data.repair import RepairError, fix_geometry
from segmed.files import DiskError, atomic_path, atomic_write_text, bounds, disk_errors, remove
from segmed.plain import as_cell, from_cell, printable

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    make_balls(folder / "data")
    config = tiny(folder / "data", folder, inference={"largest_component": []})
    experiment.run(config, folder / "run")
    return folder


# ---------------------------------------------------------------- the one function that all writers use


def test_an_input_is_neither_replaced_nor_removed_nor_opened_under_any_of_its_names(tmp_path):
    source = tmp_path / "scan.nii.gz"
    source.write_bytes(b"scan")
    (tmp_path / "link.nii.gz").symlink_to(source)
    os.link(source, tmp_path / "hard.nii.gz")
    with bounds(inputs=[source]):
        for name in ("scan.nii.gz", "link.nii.gz", "hard.nii.gz", "x/../scan.nii.gz"):
            (tmp_path / "x").mkdir(exist_ok=True)
            with pytest.raises(DiskError, match=r"scan\.nii\.gz.*never replaced: choose another output"):
                atomic_write_text(tmp_path / name, "other")
            with pytest.raises(DiskError), disk_errors(tmp_path / name):
                pass
        with pytest.raises(DiskError):
            remove(source)
        atomic_write_text(tmp_path / "other.nii.gz", "fine")
    assert source.read_bytes() == b"scan"
    remove(source)
    assert not source.exists()


def test_slices_of_a_dicom_folder_are_inputs(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"slice")
    with bounds(inputs=[tmp_path / "series"]), pytest.raises(DiskError):
        atomic_write_text(tmp_path / "series" / "1.dcm", "other")


def test_links_below_the_named_folder_are_not_followed_and_those_above_are(tmp_path):
    outside, real = tmp_path / "outside", tmp_path / "real"
    outside.mkdir()
    real.mkdir()
    (tmp_path / "run").symlink_to(real)
    (real / "test").symlink_to(outside)
    (real / "log.txt").symlink_to(outside / "log.txt")
    (outside / "old.txt").write_text("old")
    (real / "old.txt").symlink_to(outside / "old.txt")
    with bounds(tmp_path / "run"):
        atomic_write_text(tmp_path / "run" / "plan.json", "{}")
        with pytest.raises(DiskError, match=r"run/test is a link"):
            atomic_write_text(tmp_path / "run" / "test" / "deep" / "cases.csv", "x")
        with pytest.raises(DiskError, match=r"log\.txt is a link"), disk_errors(tmp_path / "run" / "log.txt"):
            pass
        atomic_write_text(tmp_path / "run" / "old.txt", "new")  # the link itself is replaced
        with pytest.raises(DiskError, match="leads out of"):
            atomic_write_text(tmp_path / "run" / "a" / ".." / ".." / "outside" / "x", "x")
    assert [path.read_text() for path in outside.iterdir()] == ["old"]


def test_a_temporary_file_of_a_killed_process_goes_with_the_next_write_and_that_of_a_living_one_stays(tmp_path):
    child = os.fork()
    if child == 0:
        with atomic_path(tmp_path / "table.csv") as temporary:
            temporary.write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    (torn,) = tmp_path.iterdir()
    living = tmp_path / torn.name.replace(str(child), str(os.getppid()))
    living.write_text("half")
    atomic_write_text(tmp_path / "other.csv", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "other.csv"])


def test_names_of_255_bytes_can_be_written(tmp_path):
    name = "ü" * 120 + "x" * 8 + ".nii.gz"
    assert len(os.fsencode(name)) == 255
    atomic_write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


# ---------------------------------------------------------------- every tool


def _name_as(source: Path, target: Path) -> Path:
    """An input under the name that a tool will write."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    return target


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.indices((16, 16)).sum(0) % 3).astype(np.uint8)).save(path)
    return path


def _onto_prediction(trained: Path, tmp: Path) -> tuple[list, list[Path]]:
    image = _name_as(trained / "data" / "ball_00.nii.gz", tmp / "in" / "ball_00.nii.gz")
    return ["predict.py", "--run", trained / "run", "--input", tmp / "in", "--output", tmp / "in", "--overwrite"], [
        image
    ]


def _onto_probabilities(trained: Path, tmp: Path) -> tuple[list, list[Path]]:
    name = "ball_00_probabilities.nii.gz"
    image = _name_as(trained / "data" / "ball_00.nii.gz", tmp / "probabilities" / name)
    other = _name_as(trained / "data" / "ball_01.nii.gz", tmp / "ball_00.nii.gz")
    (tmp / "all").mkdir()
    for path in (image, other):
        (tmp / "all" / path.name).symlink_to(path)
    options = ["--input", tmp / "all", "--output", tmp, "--overwrite", "--probabilities"]
    return ["predict.py", "--run", trained / "run", *options], [image, other]


def _onto_weights(trained: Path, tmp: Path) -> tuple[list, list[Path]]:
    options = ["--input", trained / "data", "--output", trained / "run" / "predictions", "--overwrite"]
    return ["predict.py", "--run", trained / "run", *options], sorted((trained / "run" / "predictions").iterdir())


def _onto_figures(trained: Path, tmp: Path) -> tuple[list, list[Path]]:
    maps = [_picture(tmp / "maps" / f"{name}.png") for name in ("box_plots", "montage")]
    for path in maps:
        _name_as(path, tmp / "references" / path.name)
    options = ["--references", tmp / "references", "--output", tmp / "maps", "--labels", "1", "2", "--spacing-unknown"]
    return ["evaluate.py", "--predictions", tmp / "maps", *options], maps


def _onto_test(trained: Path, tmp: Path) -> tuple[list, list[Path]]:
    run = trained / "run"
    options = ["--references", trained / "data", "--run", run, "--output", run / "test", "--test-only"]
    return ["evaluate.py", "--predictions", run / "predictions", *options], sorted((run / "test").iterdir())


def _onto_table(trained: Path, tmp: Path) -> tuple[list, list[Path]]:
    table = _name_as(trained / "run" / "test" / "cases.csv", tmp / "comparison.csv")
    other = _name_as(table, tmp / "other" / "cases.csv")
    return ["compare.py", "--methods", f"a={table}", f"b={other.parent}", "--output", tmp], [table]


def _onto_audited(trained: Path, tmp: Path) -> tuple[list, list[Path]]:
    table = tmp / "audit.json"
    table.write_text(json.dumps([{"image": str(trained / "data" / "ball_00.nii.gz")}]))
    return ["audit_data.py", tmp, "--manifest", "audit.json", "--output", tmp], [table]


def _onto_labels(trained: Path, tmp: Path) -> tuple[list, list[Path]]:
    image = _name_as(trained / "data" / "ball_00.nii.gz", tmp / "labels.nii.gz")
    options = ["--run", trained / "run", "--wall", "shell,core", "--scar", "core", "--output", tmp]
    return ["quantify_scar.py", "--image", image, *options], [image]


def _onto_montage(trained: Path, tmp: Path) -> tuple[list, list[Path]]:
    image = _picture(tmp / "montage.png")
    options = ["--labels", image, "--wall", "1,2", "--scar", "2", "--output", tmp]
    return ["quantify_scar.py", "--image", image, *options], [image]


def _main_of(script: str):
    spec = spec_from_file_location(f"bounded_{script.removesuffix('.py')}", TOOLS / script)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


ATTACKS = [
    _onto_prediction, _onto_probabilities, _onto_weights, _onto_figures, _onto_test, _onto_table, _onto_audited,
    _onto_labels, _onto_montage,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__.strip("_"))
def test_no_tool_replaces_an_input(attack, trained, tmp_path, monkeypatch, capsys):
    (script, *options), inputs = attack(trained, tmp_path)
    before = {path: path.read_bytes() for path in inputs}
    assert before
    monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        run_tool(_main_of(script))
    assert {path: path.read_bytes() for path in inputs} == before
    complaint = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2
    assert "input" in complaint


# ---------------------------------------------------------------- strangers' data and runs


def test_a_case_id_that_leads_out_of_the_folder_is_refused(trained, tmp_path):
    for name in ("../../evil", "a\x1b[2J"):
        table = [{"case": name, "image": str(trained / "data" / "ball_00.nii.gz")}]
        (tmp_path / "dataset.json").write_text(
            json.dumps({"dataset": {name: {"images": [table[0]["image"]], "label": "x.nii.gz"}}})
        )
        with pytest.raises(DatasetError, match="give the case a plain name") as error:
            read_dataset(DataConfig(root=tmp_path, layout={"name": "nnunet"}, labels={"a": 1}), complete=False)
        assert "\x1b" not in str(error.value)


def test_fix_geometry_rewrites_nothing_outside_the_audited_folder(tmp_path):
    inside, outside = tmp_path / "set", tmp_path / "else"
    for folder in (inside, outside):
        folder.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), inside / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.diag([2, 2, 2, 1])), outside / "a.nii.gz")
    before = (outside / "a.nii.gz").read_bytes()
    (inside / "link.nii.gz").symlink_to(outside / "a.nii.gz")
    for label in ("../else/a.nii.gz", str(outside / "a.nii.gz"), "link.nii.gz"):
        (inside / "manifest.csv").write_text(f"image,label\na.nii.gz,{label}\n")
        dataset = read_dataset(DataConfig(root=inside, layout={"name": "manifest"}), complete=False)
        with pytest.raises(RepairError, match="lies outside"):
            fix_geometry(dataset, log=tmp_path / "log.json")
    assert (outside / "a.nii.gz").read_bytes() == before


@pytest.mark.parametrize("planted", ["log.txt", "predictions", "weights", "tensorboard"])
def test_a_link_in_a_strangers_run_is_not_written_through(trained, tmp_path, planted):
    run, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    experiment.start(tiny(trained / "data", tmp_path), run)
    target = outside / "precious.txt" if "." in planted else outside
    (outside / "precious.txt").write_text("precious")
    (run / planted).symlink_to(target)
    with pytest.raises(DiskError, match=f"{planted} is a link"):
        experiment.resume(run)
    assert [path.name for path in outside.iterdir()] == ["precious.txt"]
    assert (outside / "precious.txt").read_text() == "precious"


# ---------------------------------------------------------------- names that would do something


def test_printed_names_move_no_cursor_and_cells_compute_nothing():
    assert printable("a\x1b[2Jb\nc\udcff") == "a\\x1b[2Jb\\nc\\udcff"
    for text in ("=1+1", "+x", "@x", "-x", "'=x", "''@x", "case", "-3.5", "'quoted'"):
        assert from_cell(as_cell(text)) == text
        assert not as_cell(text).startswith(("=", "+", "@"))
    assert as_cell("-3.5") == "-3.5"

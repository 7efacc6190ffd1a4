"""The notebooks run from the first cell to the last, show their figures, and define nothing."""

import ast
import base64
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbclient import NotebookClient

import segmed

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SMALL = {
    "first_run": {"CASES": 5, "MINUTES": 0.05, "CHANNELS": (4, 8, 16)},
    "live_wire": {"SIGMA_MM": 0.5},
    "looking_inside": {"CASES": 4, "MINUTES": 0.05, "PATCH": (48, 48, 48), "CHANNELS": (4, 8)},
}
DRAWS = {"first_run": 6, "live_wire": 4, "looking_inside": 6}  # figures, at least
MAY_IMPORT = {"IPython.display", "datetime", "json", "pathlib", "segmed", "segmed.config", "segmed.reports", "warnings"}
PIECES = {"segmed.labels", *(f"segmed.segmenters.{name}" for name in ("livewire", "region", "thresholds"))}
SECONDS = 300  # a cell; far more than one takes


def notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(book: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def tree(cell: nbformat.NotebookNode) -> ast.Module:
    return ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%")))


def draws(cell: nbformat.NotebookNode) -> bool:
    """Whether the cell ends with a figure of segmed, or a picture that segmed has written."""
    last = tree(cell).body[-1]
    if not (isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)):
        return False
    name = getattr(last.value.func, "id", "")
    return name.endswith("_figure") or name in {"montage", "training_curves", "Image"}


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_is_stored_without_outputs(name):
    cells = code_cells(notebook(name))
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert not any(set(cell.metadata) - {"tags"} for cell in cells)


@pytest.mark.parametrize("name", SMALL)
def test_only_calls_the_public_interface_of_segmed(name):
    nodes = [node for cell in code_cells(notebook(name)) for node in ast.walk(tree(cell))]
    assert not [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))]
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert modules <= MAY_IMPORT | (PIECES if name == "live_wire" else set())
    used = {n.attr for n in nodes if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "segmed"}
    drawn = {a.name for n in nodes if isinstance(n, ast.ImportFrom) and n.module == "segmed.reports" for a in n.names}
    assert used <= set(segmed.PUBLIC)
    assert drawn <= set(segmed.reports.FIGURES)


@pytest.mark.parametrize("name", SMALL)
def test_its_first_code_is_the_parameters(name):
    first = code_cells(notebook(name))[0]
    assert first.metadata.get("tags") == ["parameters"]
    assigned = {target.id for node in tree(first).body if isinstance(node, ast.Assign) for target in node.targets}
    assert set(SMALL[name]) | {"FOLDER"} <= assigned


@pytest.mark.parametrize("name", SMALL)
def test_explains_before_it_shows(name):
    kinds = [cell.cell_type for cell in notebook(name).cells]
    assert kinds[0] == "markdown"
    assert kinds.count("markdown") >= 8


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_runs_and_shows_its_figures(name, tmp_path, monkeypatch):
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    work = tmp_path / "work"
    work.mkdir()
    book = notebook(name)
    for cell in code_cells(book):
        cell.source = cell.source.replace('["retina"]', '["png"]')  # a quarter of the pixels
    parameters = code_cells(book)[0]
    parameters.source += "".join(f"\n{key} = {value!r}" for key, value in SMALL[name].items())
    NotebookClient(
        book, timeout=SECONDS, resources={"metadata": {"path": str(work)}}
    ).execute()  # raises what a cell raises
    assert [path.name for path in work.iterdir()] == ["runs"]
    drawing = [cell for cell in code_cells(book) if draws(cell)]
    assert len(drawing) >= DRAWS[name]
    for number, cell in enumerate(drawing):
        (picture,) = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        (tmp_path / f"{number}.png").write_bytes(base64.b64decode(picture))
        pixels = imread(tmp_path / f"{number}.png")
        assert min(pixels.shape[:2]) > 150, cell.source
        assert len(np.unique(pixels[::5, ::5, 0])) > 20, cell.source  # not an empty page
    warned = [output.text for cell in code_cells(book) for output in cell.outputs if output.get("name") == "stderr"]
    assert not [text for text in warned if "Traceback" in text]

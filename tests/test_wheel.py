"""The wheel, installed where the source is not, trains and predicts from any folder by the command `segmed`."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from segmed import __version__
from segmed.config.shipped import shipped_configs

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("segmed", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
IMAGE = "data/phantom/phantom_000/phantom_000_LGE.nii.gz"
TINY = [
    *(
        "--data.layout.cases",
        "3",
        "--split.test",
        "0.34",
        "--network.encoder.channels",
        "4",
        "8",
        "--patches.size",
        "32",
        "32",
    ),
    *("--train.budget-minutes", "None", "--train.epochs", "1", "--train.steps-per-epoch", "2", "--train.workers", "0"),
    *("--train.validations", "1", "--train.devices", "1", "--train.precision", "fp32", "--evaluate.bootstrap", "20"),
    *("--train.memory-format", "contiguous"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", *options, str(source)], check=True)
    shutil.rmtree(source)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run a program of an environment that has the wheel and what it needs, but no way to this checkout."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(environment)]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    scheme = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    borrowed = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (packages / "borrowed.pth").write_text("\n".join(borrowed))  # the .pth files of these folders are not read
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def run(program: str, *arguments: object, cwd: Path) -> str:
        command = [str(programs / program), *map(str, arguments)]
        result = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def test_the_wheel_has_the_name_that_is_free_and_holds_configs_and_schemas(wheel):
    assert wheel.name == f"segmed_mri-{__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"segmed/configs/{path.parent.name}/{path.name}" for path in shipped_configs().values()} <= names
    assert "segmed/configs/schema/segmentation.json" in names
    assert not [name for name in names if name.split("/")[0] not in {"segmed", f"segmed_mri-{__version__}.dist-info"}]


def test_what_is_installed_is_the_wheel_with_its_configs(installed, tmp_path):
    script = "import segmed, importlib.metadata as m; print(segmed.__file__, m.version('segmed-mri'))"
    file, version = installed("python", "-c", script, cwd=tmp_path).split()
    assert not Path(file).is_relative_to(ROOT)
    assert version == __version__
    listed = {line.split()[0] for line in installed("segmed", "configs", cwd=tmp_path).splitlines() if line[0] == " "}
    assert listed == shipped_configs().keys()


def test_it_trains_and_predicts_from_another_folder(installed, tmp_path):
    out = installed("segmed", "train", "--config", "phantom", *TINY, "--run-dir", "run", cwd=tmp_path)
    assert "scar" in out
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "data" / "phantom").is_dir()  # data.root is relative to the current folder
    installed("segmed", "predict", "--run", "run", "--input", IMAGE, "--output", "found", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "found").glob("*.nii.gz")] == [Path(IMAGE).name]
    assert {path.name for path in tmp_path.iterdir()} == {"run", "runs", "data", "found"}

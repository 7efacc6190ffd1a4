"""README and docs/: links lead somewhere, pictures are small, commands exist with the options that are named."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import segmed
from segmed.commands.program import COMMANDS, main_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
TOOLS = {"train_seg": "train", "train_cls": "train-cls", "audit_data": "audit", "download_data": "download",
         "make_phantom": "phantom", "quantify_scar": "quantify-scar", "quantify_cine": "quantify-cine"}  # fmt: skip
READERS_OWN = {"C.yaml", "my.yaml"}  # of a page's commands: the first run's config stands for them
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


# ---------------------------------------------------------------- commands


def commands_of(page: Path) -> Iterator[list[str]]:
    """Command lines of segmed in a page, as `segmed NAME OPTIONS`, variables of the shell filled in."""
    text = page.read_text(encoding="utf-8")
    for language, block in fenced(text):
        if language:
            continue
        variables: dict[str, str] = {}
        for line in block.splitlines():
            if loop := re.match(r"\s*for (\w+) in (\"[^\"]+\"|[^\s;]+)", line):
                variables[loop[1]] = loop[2].strip('"')
            elif given := re.match(r'(\w+)="(.*)"$', line):
                variables[given[1]] = given[2]
            for name, value in variables.items():
                line = line.replace(f"${{{name}}}", value).replace(f"${name}", value)
            yield from command_in(line)
    for code in re.findall(r"`([^`\n]+)`", unfenced(text)):
        yield from command_in(code)


def command_in(line: str) -> Iterator[list[str]]:
    tool = re.search(r"(?:^|&& )\s*(?:python|torchrun [^\n]*?) ?tools/(\w+)\.py(?= |$)(.*)", line)
    own = re.match(r"\s*segmed ([a-z][a-z-]*)(.*)", line)
    if tool is None and own is None:
        return
    name, options = (TOOLS.get(tool[1], tool[1]), tool[2]) if tool else (own[1], own[2])
    own_config = "contrast_phantom" if name == "train-cls" else "phantom"
    words = shlex.split(options.replace("--config ...", ""), comments=True)
    yield [name, *(own_config if word in READERS_OWN else word for word in words)]


LINES = sorted({tuple(line) for page in DOCUMENTS for line in commands_of(page)})


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_commands_exist(page):
    for name, *_ in commands_of(page):
        assert name in COMMANDS, f"{name_of(page)}: segmed {name}"


def chooses(line: tuple[str, ...]) -> tuple[str, ...]:
    """The command and what decides which options it has: its config, and sections that are chosen by name."""
    pairs = zip(line, (*line[1:], ""), strict=True)
    chosen = [
        word for option, value in pairs if re.fullmatch(r"--config|--.*\.name", option) for word in (option, value)
    ]
    optional = [
        f"--{section}." for section in ("adversary", "cascade", "ensemble") if f"--{section}." in " ".join(line)
    ]
    return (line[0], *chosen, *optional)


GROUPS: dict[tuple[str, ...], set[str]] = {}
for _line in LINES:
    GROUPS.setdefault(chooses(_line), set()).update(word.split("=")[0] for word in _line if word.startswith("--"))


@pytest.mark.parametrize("chosen", GROUPS, ids=" ".join)
def test_named_options_exist(chosen, monkeypatch, capsys):
    command, *given = (word for word in chosen if not word.endswith("."))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["segmed", command, *given, "--help-all"])
    with pytest.raises(SystemExit) as stopped:
        main_of(command)()
    assert not stopped.value.code
    listed = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    missing = GROUPS[chosen] - listed - {"--help", "--help-all"}
    assert not missing, f"segmed {command} has no {', '.join(sorted(missing))}"


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


def test_the_dockerfile_passes_the_checks_of_docker():
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker on this machine")
    checked = subprocess.run([docker, "build", "--check", "."], cwd=ROOT, capture_output=True, text=True, check=False)
    said = checked.stdout + checked.stderr
    if any(sign in said for sign in ("Cannot connect", "unknown flag", "buildx", "permission denied")):
        pytest.skip(f"docker can't check here: {said.strip().splitlines()[-1]}")
    assert checked.returncode == 0, said

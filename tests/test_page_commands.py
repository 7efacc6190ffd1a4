"""What README and docs/ tell a reader to type: every line is read whole, and run by a test or marked with a reason."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from segmed.commands.program import COMMANDS, main_of
from segmed.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOOLS = {"train_seg": "train", "train_cls": "train-cls", "audit_data": "audit", "download_data": "download",
         "make_phantom": "phantom", "quantify_scar": "quantify-scar", "quantify_cine": "quantify-cine"}  # fmt: skip
READERS_OWN = {"C.yaml", "my.yaml"}  # of a page's commands: the first run's config stands for them
TABLE = yaml.safe_load((ROOT / "tests" / "fixtures" / "page_commands.yaml").read_text(encoding="utf-8"))
EVERYWHERE = {"--config", "--run", "--run-dir", "--output"}  # of tests that call the function that a command calls
PROGRAMS = r"pip|python|ENV/bin/pip|tensorboard|torchrun|docker|make|pytest|ulimit|export|eval"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unfenced(text: str) -> str:
    return re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.M | re.S)


# ---------------------------------------------------------------- lines of pages


def typed(page: Path) -> Iterator[str]:
    """Lines of code without a language, variables of the shell filled in, and code within sentences."""
    text = page.read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S):
        variables: dict[str, list[str]] = {}
        for line in block.splitlines() if not language else ():
            if loop := re.match(r"\s*for (\w+) in (.+); do$", line):
                variables[loop[1]] = shlex.split(loop[2])
            elif given := re.match(r'(\w+)="(.*)"$', line):
                variables[given[1]] = [given[2]]
            for filled in with_values(line, variables):
                yield from filled.split(" && ")
    for code in re.findall(r"`([^`\n]+)`", unfenced(text)):
        if " " in code.replace("segmed ", "", 1):  # a bare `segmed predict` is a mention
            yield from code.split(" && ")


def with_values(line: str, variables: dict[str, list[str]]) -> list[str]:
    """A line once for each value of each variable in it; of seeds the first is enough."""
    lines = [line]
    for name, values in variables.items():
        taken = values[:1] if name == "seed" else values
        lines = list(
            dict.fromkeys(re.sub(rf"\$({name}\b|{{{name}}})", value, each) for each in lines for value in taken)
        )
    return lines


def own_command(line: str) -> tuple[str, ...] | None:
    """A line of segmed or of one of its tools as the command and its words."""
    tool = re.match(r"\s*(?:python|torchrun .*?) ?tools/(\w+)\.py(?= |$)(.*)", line)
    own = re.match(r"\s*segmed ([a-z][a-z-]*)(.*)", line)
    if tool is None and own is None:
        return None
    name, options = (TOOLS.get(tool[1], tool[1]), tool[2]) if tool else (own[1], own[2])
    own_config = "contrast_phantom" if name == "train-cls" else "phantom"
    words = shlex.split(options.replace("--config ...", ""), comments=True)
    return (name, *(own_config if word in READERS_OWN else word for word in words))


LINES = [(name_of(page), line) for page in DOCUMENTS for line in typed(page)]
COMMAND_LINES = sorted({command for _, line in LINES if (command := own_command(line))})


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_commands_exist(page):
    names = re.findall(r"`segmed ([a-z][a-z-]*)", unfenced(page.read_text(encoding="utf-8")))
    names += [command[0] for line in typed(page) if (command := own_command(line))]
    for name in names:
        assert name in COMMANDS, f"{name_of(page)}: segmed {name}"


# ---------------------------------------------------------------- each is read whole


class Read(Exception):
    """The command line was understood; what it asks for is not done."""


@pytest.mark.parametrize("line", COMMAND_LINES, ids=" ".join)
def test_options_and_their_values_are_understood(line, monkeypatch):
    main = main_of(line[0])
    module = sys.modules[main.__module__]
    reader = next(name for name in ("read_training", "parse_as", "parse") if hasattr(module, name))
    read = getattr(module, reader)

    def stop(*given, **named):
        read(*given, **named)
        raise Read

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, reader, stop)
    monkeypatch.setattr(sys, "argv", ["segmed", *line])
    with pytest.raises((Read, ConfigError)) as ended:
        main()
    if ended.type is ConfigError:  # an option within a sentence stands without those that the command needs
        assert re.search("is required|needs a value", str(ended.value)), ended.value


# ---------------------------------------------------------------- each is run, or not for a reason


def signature(command: tuple[str, ...]) -> str:
    """The command and its own options; fields of the experiment are left out."""
    options = {word.split("=")[0] for word in command if re.match(r"--[a-z]", word)}
    if command[0] in ("train", "train-cls"):
        options = {option for option in options if "." not in option or option.startswith(("--jobs.", "--leaks."))}
    return " ".join([command[0], *sorted(options)])


SIGNATURES = {
    signature(command) for page, line in LINES if page not in TABLE["pages"] and (command := own_command(line))
}
OTHERS = {
    line.strip()
    for page, line in LINES
    if page not in TABLE["pages"] and own_command(line) is None and re.match(rf"\s*(?:{PROGRAMS}) \S", line)
}


@cache
def text_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@cache
def functions_of(file: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(text_of(file))) if isinstance(node, ast.FunctionDef)}


def assert_there(test: str) -> None:
    file, _, function = test.partition("::")
    assert function in functions_of(file), test


def test_every_command_line_has_a_test_or_a_reason_and_no_other_has():
    assert TABLE["tests"].keys() | TABLE["reasons"].keys() == SIGNATURES
    assert not TABLE["tests"].keys() & TABLE["reasons"].keys()


@pytest.mark.parametrize("command", TABLE["tests"])
def test_the_test_is_there_and_its_file_names_the_options(command):
    tests = TABLE["tests"][command].split()
    for test in tests:
        assert_there(test)
    text = "".join(text_of(test.partition("::")[0]) for test in tests)
    for option in set(command.split()[1:]) - EVERYWHERE:
        word = re.split(r"[.]|^--", option)[-1]
        assert re.search(word.replace("-", "[-_]"), text), f"{tests} do not know {option}"


def test_lines_of_other_programs_have_a_test_or_a_reason():
    for line in sorted(OTHERS):
        assert [begin for begin in TABLE["others"] if line.startswith(begin)], line
    for begin, said in TABLE["others"].items():
        assert any(line.startswith(begin) for line in OTHERS), f"no page has: {begin}"
        if "::" in said:
            assert_there(said)


def test_every_extra_that_a_page_names_is_there():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for line in OTHERS:
        for named in re.findall(r"(?:segmed-mri|-e \"?\.)\[([\w,]+)\]", line):
            assert set(named.split(",")) <= known.keys(), line


def test_pages_that_are_left_out_are_pages():
    assert {name_of(page) for page in DOCUMENTS} >= TABLE["pages"].keys()


def test_the_line_that_asks_for_a_gpu_prints_the_version(capsys):
    (line,) = (line for line in OTHERS if line.startswith("python -c "))
    exec(shlex.split(line)[2], {})
    assert re.match(r"\d+\.\d+\S* (True|False)$", capsys.readouterr().out)

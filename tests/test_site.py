"""The site: it builds without a network and without a warning, its links lead somewhere, its reference is complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import segmed
from segmed.commands.program import COMMANDS
from segmed.config.schema import KINDS, json_schema

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from sphinx_site.command_pages import printed_help  # noqa: E402
from sphinx_site.config_fields import config_page  # noqa: E402
from sphinx_site.inner_links import broken_links  # noqa: E402
from sphinx_site.public_page import groups  # noqa: E402

SECONDS = 900


@pytest.mark.slow
def test_builds_with_warnings_as_errors_and_whole_links(tmp_path):
    command = [sys.executable, "docs/build_site.py", "--pages", "--output", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HTTPS_PROXY": "http://127.0.0.1:9", "MPLBACKEND": "agg"}
    built = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-6000:]
    html = tmp_path / "html"
    examples = {path.stem for path in (ROOT / "docs" / "gallery").glob("plot_*.py")}
    assert examples
    for example in examples:
        assert (html / "gallery" / f"{example}.html").is_file(), example
    assert not (ROOT / "docs" / "gallery" / "images").exists()  # nothing is written beside the pages


def test_a_broken_link_a_missing_heading_and_a_strangers_script_are_named(tmp_path):
    (tmp_path / "other.html").write_text('<h1 id="there">x</h1>')
    page = (
        '<a href="other.html#there">1</a><a href="other.html#gone">2</a><img src="none.png"><a href="https://x.y">3</a>'
    )
    (tmp_path / "page.html").write_text(page + '<script src="https://cdn.example/x.js"></script>')
    assert broken_links(tmp_path) == [
        "page.html loads https://cdn.example/x.js",
        "page.html: none.png is not there",
        "page.html: other.html#gone has no such heading",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_section_stands_in_the_reference(kind):
    schema = json_schema(kind)
    page = config_page(kind, schema)
    for name, section in [(None, schema), *schema["$defs"].items()]:
        start = page.index(f"({kind}-{name.lower()})=") if name else 0
        table = page[start : page.find("\n(", start + 1)]
        for field in section.get("properties", {}):
            assert f"| `{field}` |" in table, f"{name}.{field}"


def test_a_field_has_its_bounds_its_default_and_its_meaning():
    page = config_page("segmentation", json_schema("segmentation"))
    (row,) = re.findall(r"^\| `momentum` .*$", page[page.index("(segmentation-trainconfig)=") :], flags=re.M)[:1]
    assert row == "| `momentum` | number ≥ 0 and < 1 | `0.99` | of sgd; 0.99 is nnU-Net's (Isensee et al. 2021) |"


def test_every_command_prints_its_help_and_every_public_name_is_in_a_group():
    assert "--config" in printed_help("train", "--help", ROOT)
    assert "usage: segmed phantom" in printed_help("phantom", "--help", ROOT)
    assert set(COMMANDS) >= {"train", "predict"}
    assert sorted(name for names in groups().values() for name in names) == sorted(segmed.PUBLIC)

"""Pages: every template escapes, extends the one base, and lies in the wheel; a comparison has its page."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import segmed.reports
from segmed.evaluate.comparison import compare_methods
from segmed.evaluate.results import Method, Result
from segmed.metrics.mask_metrics import METRICS
from segmed.reports.comparison.text import write_comparison
from segmed.reports.rendering import write_page

FOLDER = Path(segmed.reports.__file__).parent / "templates"
PARTS = ("base.html", "parts.html", "viewer.html")
PAGES = sorted(path.name for path in FOLDER.glob("*.html") if path.name not in PARTS)
HOSTILE = "<script>alert(1)</script> | a_b"


def results(name, dice):
    rows = [
        {"case": f"c{i}", "label": HOSTILE, "kind": "label", **dict.fromkeys(METRICS), "dice": value, "missed": 0.0}
        for i, value in enumerate(dice)
    ]
    return Method(name, (Result(rows, name, remarks=("a <remark>",)),))


@pytest.fixture
def page(tmp_path):
    methods = [results(HOSTILE, [0.5, 0.6, 0.7]), results("b", [0.6, 0.7, 0.8])]
    write_comparison(compare_methods(methods, reference=HOSTILE, resamples=20), tmp_path, title="<b>two</b>")
    return (tmp_path / "report.html").read_text()


def test_the_page_of_a_comparison_shows_tables_notes_and_figure_and_loads_nothing(page):
    assert "<h2>Dice, higher is better</h2>" in page
    assert "<li>a &lt;remark&gt;</li>" in page
    sources = re.findall(r"<[^>]*(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", page)
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")


def test_names_stand_on_the_page_as_they_are_and_run_nothing(page):
    assert "<script" not in page
    assert "<b>two" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | a_b (reference)" in page  # no sign of Markdown before | and _


def test_what_a_template_needs_and_does_not_get_is_an_error(tmp_path):
    with pytest.raises(Exception, match="undefined"):
        write_page(tmp_path / "x.html", "evaluation.html", title="x")
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("name", PAGES)
def test_every_page_extends_the_base_and_switches_no_escaping_off(name):
    text = (FOLDER / name).read_text()
    assert text.startswith('{% extends "base.html" %}')
    assert "|safe" not in text
    assert "autoescape" not in text


def test_the_base_fits_a_phone_paper_and_the_dark():
    base = (FOLDER / "base.html").read_text()
    for needed in (
        'name="viewport"',
        "@media print",
        "prefers-color-scheme: dark",
        "max-width: 100%",
        "overflow-x: auto",
    ):
        assert needed in base


def test_templates_are_in_the_wheel():
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["segmed"]
    assert PAGES
    for path in FOLDER.iterdir():
        assert any(fnmatch(f"reports/templates/{path.name}", pattern) for pattern in patterns)

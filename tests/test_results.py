"""The results pages: every figure stands in a CSV file, and every mean is that of its cases."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import write_results  # noqa: E402
from write_results import DATA, PAGES, read, table, written  # noqa: E402

SOURCES = {row["file"]: row for row in read(DATA / "sources.csv")}
PER_IMAGE = [name for name, row in SOURCES.items() if row["kind"] == "per image"]
PER_CASE = [name for name, row in SOURCES.items() if row["kind"] == "per case"]
TABLES = "".join(page.read_text(encoding="utf-8") for page in PAGES)
FIGURE = re.compile(r"(?<![\d.,=])(\d\.\d{3}|\d{2,}\.\d{2})(?![\d.]| s\b| minutes)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_are_those_of_the_files(page):
    text = page.read_text(encoding="utf-8")
    assert written(text) == text, f"{page.name}: run python docs/write_results.py"
    outside = write_results.TABLE.sub("", text)
    assert not re.search(r"^\|.*\d\.\d", outside, flags=re.M), f"{page.name} has a table that no file gives"


def test_every_file_is_shown_and_says_where_its_figures_come_from():
    assert {path.name for path in DATA.glob("*.csv")} == {"sources.csv", "in_text.csv", *SOURCES}
    for name, row in SOURCES.items():
        assert f"<!-- table {name} -->" in TABLES, name
        assert row["kind"] in write_results.KINDS
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["date"])
        assert ("were not kept" in table(name)) == (row["kind"] == "as printed")


@pytest.mark.parametrize("name", PER_CASE)
def test_the_means_are_those_of_the_cases(name):
    rows = read(DATA / name)
    lines = [line.strip("| ").split(" | ") for line in table(name).splitlines()[2:] if line[:1] == "|"]
    shown = {line[0]: line for line in lines}
    head = table(name).splitlines()[0].strip("| ").split(" | ")
    methods = {row["method"] for row in rows}
    assert methods == set(shown)
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        assert len({row["case"] for row in own}) == len(own) == int(shown[method][1])
        dice = np.array([float(row["Dice"]) for row in own])
        mean, sd = map(float, shown[method][head.index("Dice")].split(" ± "))
        assert (mean, sd) == pytest.approx((dice.mean(), dice.std(ddof=1)), abs=5.1e-4)


@pytest.mark.parametrize("name", PER_IMAGE)
def test_the_figures_of_classifiers_are_those_of_the_images(name):
    rows = read(DATA / name)
    shown = {line.split(" | ")[0].lstrip("| "): line.strip("| ").split(" | ") for line in table(name).splitlines()[2:]}
    for method in {row["method"] for row in rows}:
        own = [row for row in rows if row["method"] == method]
        assert len({row["case"] for row in own}) == len(own) == int(shown[method][1])
        assert len({row["subject"] for row in own}) == int(shown[method][2])
        truth, answer = ([row[column] for row in own] for column in ("truth", "answer"))
        accuracy, low, high = map(float, re.findall(r"[\d.]+", shown[method][3]))
        assert low < accuracy < high
        assert accuracy == pytest.approx(accuracy_score(truth, answer), abs=5.1e-4)
        assert float(shown[method][4]) == pytest.approx(balanced_accuracy_score(truth, answer), abs=5.1e-4)
        if own[0]["probability"]:
            positive = np.array(truth) == max(truth)
            area = roc_auc_score(positive, [float(row["probability"]) for row in own])
            assert float(shown[method][5]) == pytest.approx(area, abs=5.1e-4)


def figures_of_files() -> set[str]:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DATA.glob("*.csv"))
    return set(re.findall(r"\d+\.\d+", text))


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs" / "results").glob("*.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_that_are_kept_for_the_text_of_a_page_stand_on_it(page):
    text = page.read_text(encoding="utf-8")
    kept = [row for row in read(DATA / "in_text.csv") if row["page"] == page.name]
    assert not [row for row in kept if row["figure"] not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_in_the_text_stand_in_a_file(page):
    text = write_results.TABLE.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    missing = set(FIGURE.findall(text)) - figures_of_files()
    assert not missing, f"{page.name}: {sorted(missing)} in no file of docs/results/data"

"""The table of metrics: a row of it is all that a new metric takes."""

import csv
import json

import numpy as np
import pytest

from segmed.config import EvaluateConfig
from segmed.evaluate.case_rows import evaluate_case
from segmed.evaluate.comparison import compare_methods
from segmed.evaluate.results import Method, Result, read_cases
from segmed.labels import LabelSet
from segmed.metrics.mask_metrics import METRICS, OF_ROWS, metric_named, metrics_shown
from segmed.metrics.metric import Metric
from segmed.reports.comparison.text import write_comparison
from segmed.reports.segmentation.files import table_text, write_evaluation
from segmed.reports.segmentation.page import write_report
from segmed.segment.validate import _summary

LABELS = LabelSet(("scar",), ((1,),))


@pytest.fixture
def extra(monkeypatch):
    """A metric that only this test knows: the prediction's voxels."""
    row = Metric(
        "voxels", "Voxels found", lambda pair: float(pair.predicted), digits=1, better="higher",
        shown=frozenset({"training", "main", "cases"}),
    )  # fmt: skip
    monkeypatch.setitem(METRICS, row.name, row)
    return row


def cubes(sides):
    """Rows of cases whose prediction is a cube of each side, beside a reference of 4³."""
    rows = []
    for number, side in enumerate(sides):
        prediction, reference = np.zeros((2, 8, 8, 8), np.uint8)
        prediction[:side, :side, :side] = 1
        reference[:4, :4, :4] = 1
        rows += evaluate_case(
            prediction, reference, LABELS, case=f"case_{number}", spacing_mm=(1, 1, 1),
            config=EvaluateConfig(bootstrap=20),
        )  # fmt: skip
    return rows


def test_a_metric_added_to_the_table_is_in_every_file_table_page_and_comparison(extra, tmp_path):
    rows = cubes([2, 3, 4])
    summary = write_evaluation(rows, tmp_path, title="cubes", config=EvaluateConfig(bootstrap=20))
    with (tmp_path / "cases.csv").open(newline="") as file:
        assert [line["voxels"] for line in csv.DictReader(file)] == ["8", "27", "64"]
    assert json.loads((tmp_path / "summary.json").read_text())["labels"]["scar"]["voxels"]["mean"] == 33
    assert "| Voxels found | 33.0 ± 28.5" in (tmp_path / "summary.md").read_text()
    assert "Voxels found" in table_text(summary)
    assert write_report(tmp_path).read_text().count("Voxels found") == 2  # results, and every case
    assert _summary(rows, ["scar"])[1]["voxels/scar"] == 33

    read = read_cases(tmp_path / "cases.csv")[0]
    methods = [Method("a", (Result(read, "a"),)), Method("b", (Result(cubes([3, 4, 4]), "b"),))]
    text = write_comparison(compare_methods(methods, reference="a", resamples=20), tmp_path, title="two")
    assert "## Voxels found, higher is better" in text
    assert '"voxels"' in (tmp_path / "comparison.json").read_text()


def test_a_page_of_an_older_evaluation_leaves_new_metrics_out(tmp_path, monkeypatch):
    write_evaluation(cubes([2, 3]), tmp_path, title="cubes", config=EvaluateConfig(bootstrap=20))
    monkeypatch.setitem(METRICS, "new", Metric("new", "New", lambda pair: 1.0, shown=frozenset({"cases"})))
    assert "New" not in write_report(tmp_path).read_text()


def test_what_is_shown_first_stands_first():
    assert metrics_shown("main") == ("dice", "hd95_mm", "hd_mm", "avd_ml")
    assert metrics_shown("without spacing") == ("dice", "iou", "sensitivity", "precision")
    assert metrics_shown("training") == ("dice", "hd95_mm", "avd_ml")
    assert metrics_shown("main", "rows")[4:] == ("share_error_pp", "share_difference_pp", "healthy_flagged_percent")


@pytest.mark.parametrize("name", [*METRICS, *OF_ROWS])
def test_units_stand_in_titles_and_what_is_in_mm_and_ml_needs_a_spacing(name):
    metric = metric_named(name)
    assert metric.name == name
    if metric.unit in ("mm", "ml"):
        assert metric.short_title.endswith(f"({metric.unit})")
        assert name.endswith(f"_{metric.unit}")
        assert metric.needs_spacing or name in OF_ROWS

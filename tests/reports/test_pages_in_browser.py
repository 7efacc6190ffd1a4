"""Every page in a real browser: nothing sticks out of a phone's screen or of paper, and figures can be read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browser  # noqa: F401  browser is a fixture
from heart_phantom import Sector, make
from matplotlib.figure import Figure

from segmed.cardiac.scar import scar_report
from segmed.config import EvaluateConfig
from segmed.config.classification import ClassEvaluateConfig
from segmed.data.audit import Audit
from segmed.data.findings import Finding
from segmed.evaluate.answers import Answers
from segmed.evaluate.case_rows import evaluate_case
from segmed.evaluate.case_volumes import CaseVolumes
from segmed.evaluate.classifier_comparison import compare_classifiers
from segmed.evaluate.classifier_runs import ClassifierMethod, run_of
from segmed.evaluate.comparison import compare_methods
from segmed.evaluate.results import Method, Result
from segmed.labels import LabelSet
from segmed.reports.audit.page import write_audit_page
from segmed.reports.classification.files import draw_classification, write_classification
from segmed.reports.classification.page import write_classification_page
from segmed.reports.classifier_comparison.text import write_classifier_comparison
from segmed.reports.comparison.text import write_comparison
from segmed.reports.drawing.slices import save_figure
from segmed.reports.scar.figures import montage_tiles
from segmed.reports.scar.files import ScarCase, write_case
from segmed.reports.segmentation.files import write_evaluation
from segmed.reports.segmentation.page import write_report

pytestmark = pytest.mark.slow
LONG = "a_name_of_a_case_without_a_single_space_that_is_longer_than_any_phone_is_wide_0001"
LABELS = LabelSet.from_config({f"label_{number}_with_a_name": number for number in range(1, 7)})
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def rows_of(seed: int) -> list[dict]:
    generator = np.random.default_rng(seed)
    reference = np.repeat(np.arange(8, dtype=np.uint8) % 7, 4)[:, None, None] * np.ones((1, 12, 6), np.uint8)
    prediction = np.where(generator.random(reference.shape) < 0.2, 0, reference)
    names = (LONG, "b")
    return [
        row
        for name in names
        for row in evaluate_case(prediction, reference, LABELS, case=name, spacing_mm=(1, 1, 3), config=EVALUATE)
    ]


EVALUATE = EvaluateConfig(bootstrap=20)


def segmentation(folder: Path) -> None:
    volumes = CaseVolumes(None, np.ones((20, 20, 8), np.uint8), np.ones((20, 20, 8), np.uint8), (1.0, 1.0, 3.0))
    write_evaluation(rows_of(0), folder, title=LONG, config=EVALUATE, load=lambda _: volumes)
    (folder / "config.yaml").write_text(f"data:\n  root: /{LONG}/{LONG}\n  layout: {{name: pattern}}\n")
    (folder / "history.csv").write_text("step,loss,validation/loss,dice/a\n10,2,,\n20,1,1.5,0.5\n30,0.5,1.2,0.6\n")
    write_report(folder)


def comparison(folder: Path) -> None:
    methods = [Method(name, (Result(rows_of(seed), name),)) for seed, name in enumerate((LONG, "b"))]
    write_comparison(compare_methods(methods, reference=LONG, resamples=20), folder, title="two")


def answers(seed: int) -> Answers:
    truth = np.arange(24) % 2
    logits = 2 * np.eye(2)[truth] + np.random.default_rng(seed).normal(0, 1.5, (24, 2))
    names = tuple(f"{LONG}_{number}" for number in range(24))
    return Answers(("no", LONG), names, names, truth, logits)


def classification(folder: Path) -> None:
    given = {"config": ClassEvaluateConfig(bootstrap=40, gallery=4), "load": lambda _: np.zeros((1, 16, 12))}
    summary = write_classification(answers(0), answers(1), folder, title=LONG, notes=[], **given)
    draw_classification(answers(0), summary, **given)
    write_classification_page(folder)


def classifiers(folder: Path) -> None:
    methods = [ClassifierMethod(name, (run_of(answers(seed), name),)) for seed, name in enumerate((LONG, "b"))]
    write_classifier_comparison(compare_classifiers(methods, reference=LONG, resamples=20), folder, title=LONG)


def scar(folder: Path) -> None:
    phantom = make((1.5, 1.5, 8.0), sectors=(Sector((215, 265), (0.3, 0.55), (0.0, 0.75)),))
    report = scar_report(phantom.heart, phantom.scar)
    tiles = montage_tiles(np.random.default_rng(0).random(phantom.scar.shape), phantom.heart, report)
    assert all(tiles.ends)
    folder.mkdir(exist_ok=True)
    write_case(ScarCase(LONG, report, tiles, {"image": f"/{LONG}.nii.gz"}), folder)


def audit(folder: Path) -> None:
    findings = tuple(Finding("error", LONG, f"{LONG} is wrong", f"mend {LONG}", "geometry") for _ in range(7))
    folder.mkdir(exist_ok=True)
    figure = Figure(figsize=(9, 3))
    figure.subplots()
    save_figure(figure, folder / "leaks.png")
    write_audit_page(Audit((), findings, ("LGE",), ("scar",)), folder, name=LONG, root=Path("/") / LONG)


PAGES: dict[str, Callable[[Path], None]] = {
    page.__name__: page for page in (segmentation, comparison, classification, classifiers, scar, audit)
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_a_desk_and_paper_and_says_its_numbers_first(browser: Browser, tmp_path, name):  # noqa: F811
    PAGES[name](tmp_path)
    page = (tmp_path / "report.html").as_uri()
    for width in (400, 1400):
        browser.open(page, width=width)
        assert browser.value(OVERFLOW) <= 0, f"{width} pixels"
        assert browser.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    browser.open(page, width=400)
    assert browser.value("document.querySelector('.key').getBoundingClientRect().top") < 500
    assert browser.value("[...document.querySelectorAll('figure img')].every(i => i.clientWidth > 250)")
    cut = "[...document.querySelectorAll('figure .wide')].every(one => getComputedStyle(one).overflowX == 'auto')"
    assert browser.value(cut), "a figure that is wider than the screen moves in its frame"
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.open(page, width=700)  # A4 within its margins
    wide = "[...document.querySelectorAll('img')].map(i => i.getBoundingClientRect().right)"
    assert max(browser.value(wide), default=0) <= 700, "no figure is cropped on paper"
    browser.call("Emulation.setEmulatedMedia", media="")

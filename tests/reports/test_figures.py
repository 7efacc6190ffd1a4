"""Figures show what they say, where it is; the page holds all of it and loads nothing."""

import base64
import itertools
import json
import re
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex, to_rgba
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from segmed.config import EvaluateConfig
from segmed.errors import RunError
from segmed.evaluate.case_rows import evaluate_case
from segmed.evaluate.case_volumes import CaseVolumes
from segmed.labels import IGNORE, LabelSet
from segmed.reports.drawing.curves import training_curves
from segmed.reports.drawing.distributions import MISS_COLOUR, bland_altman, box_plots, limit_interval
from segmed.reports.drawing.label_colours import PALETTE
from segmed.reports.drawing.slices import contour_figure, montage, save_figure
from segmed.reports.segmentation.files import write_evaluation
from segmed.reports.segmentation.page import write_report
from segmed.runs import read_history

PNG = b"\x89PNG\r\n\x1a\n"
ONE, TWO = PALETTE[:2]  # colours of labels without names
LABELS = LabelSet.from_config({"one": 1, "two": 2})


def block(start=(10, 8, 2), size=(6, 5, 4), shape=(40, 32, 10), value=1):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))] = value
    return labels


def noise(shape=(40, 32, 10)):
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def contours(axes, colour):
    """Corners of the boxes around the contours of one colour: left, right, bottom, top."""
    boxes = []
    for drawn in axes.collections:
        if isinstance(drawn, QuadContourSet) and to_hex(drawn.get_edgecolor()[0]).upper() == colour:
            points = np.concatenate([path.vertices for path in drawn.get_paths()])
            boxes.append((*points[:, 0].round(3)[[points[:, 0].argmin(), points[:, 0].argmax()]],
                          *points[:, 1].round(3)[[points[:, 1].argmin(), points[:, 1].argmax()]]))  # fmt: skip
    return boxes


def area(axes, label=1):
    """Corners of the area of a label of the prediction: left, right, bottom, top."""
    colours = [to_rgba(PALETTE[label - 1])[:3], axes.images[-1].get_array()]
    rows, columns = np.nonzero(np.isclose(colours[1][..., :3], colours[0]).all(-1) & (colours[1][..., 3] > 0))
    return columns.min() - 0.5, columns.max() + 0.5, rows.min() - 0.5, rows.max() + 0.5


def panels(figure):
    return [axes for axes in figure.axes if axes.images]


def rows(*shifts, missed=()):
    labels = [block((10 + shift, 8, 2)) + block((22 - shift, 8, 2), value=2) for shift in shifts]
    reference = block() + block((22, 8, 2), value=2)
    for number in missed:
        labels[number][labels[number] == 2] = 0
    config = EvaluateConfig(bootstrap=20)
    return [
        row
        for number, map_ in enumerate(labels)
        for row in evaluate_case(map_, reference, LABELS, case=f"c{number}", spacing_mm=(1, 1, 3), config=config)
    ]


# ---------------------------------------------------------------- contours


def test_the_outline_of_the_reference_and_the_area_of_the_prediction_lie_where_they_are():
    figure = contour_figure(noise(), block(), block((12, 8, 2)), (1.0, 1.0, 1.0), "title")
    axial, coronal, sagittal = panels(figure)
    assert contours(axial, ONE) == [(9.5, 15.5, 7.5, 12.5)]
    assert area(axial) == (11.5, 17.5, 7.5, 12.5)
    assert contours(coronal, ONE) == [(9.5, 15.5, 1.5, 5.5)]
    assert contours(sagittal, ONE) == [(7.5, 12.5, 1.5, 5.5)]
    assert figure.get_suptitle() == "title"


def test_every_label_has_its_contour_and_a_structure_at_the_border_a_closed_one():
    labels = block((0, 0, 0), (4, 4, 4)) + block(value=2)
    (axial, *_) = panels(contour_figure(None, labels, None, (1.0, 1.0, 1.0)))
    assert contours(axial, ONE) == [(-0.5, 3.5, -0.5, 3.5)]
    assert contours(axial, TWO) == [(9.5, 15.5, 7.5, 12.5)]
    assert len(axial.images) == 1


def test_thick_slices_are_drawn_as_thick_as_they_are():
    axial, coronal, sagittal = panels(contour_figure(noise(), block(), block(), (0.75, 0.8, 12.0)))
    assert axial.get_aspect() == pytest.approx(0.8 / 0.75)
    assert coronal.get_aspect() == pytest.approx(12 / 0.75)
    assert sagittal.get_aspect() == pytest.approx(12 / 0.8)


def test_the_patients_right_is_on_the_left_and_up_is_up():
    axial, coronal, _ = panels(contour_figure(noise(), block(), block(), (1.0, 1.0, 1.0)))
    for axes in (axial, coronal):
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        assert left > right  # x grows to the patient's right
        assert bottom < top
    assert {text.get_text() for text in axial.texts} == {"R", "L", "A", "P"}
    assert {text.get_text() for text in coronal.texts} == {"R", "L", "S", "I"}


def test_the_slice_is_that_with_the_largest_cut_and_the_view_is_cut_to_it():
    reference = block((10, 8, 2), (3, 3, 6))
    reference[8:16, 6:12, 5] = 1
    axial, *_ = panels(contour_figure(noise(), reference, None, (1.0, 1.0, 1.0)))
    assert axial.get_title() == "axial, slice 6 of 10"
    left, right = sorted(axial.get_xlim())
    assert 0 < left < 8
    assert 16 < right < 39


def test_an_empty_reference_shows_where_the_prediction_is_and_no_labels_show_the_middle():
    empty = np.zeros((40, 32, 10), np.uint8)
    axial, *_ = panels(contour_figure(noise(), empty, block((3, 3, 7), (4, 4, 2)), (1.0, 1.0, 1.0)))
    assert axial.get_title() == "axial, slice 8 of 10"
    axial, *_ = panels(contour_figure(noise(), empty, empty, (1.0, 1.0, 1.0)))
    assert axial.get_title() == "axial, slice 6 of 10"
    assert sorted(axial.get_xlim()) == [-0.5, 39.5]


def test_what_is_ignored_has_no_contour():
    reference = block()
    reference[20:30, 8:12, 2:6] = IGNORE
    axial, *_ = panels(contour_figure(noise(), reference, None, (1.0, 1.0, 1.0)))
    assert contours(axial, ONE) == [(9.5, 15.5, 7.5, 12.5)]


def test_a_2d_image_is_one_panel_with_rows_that_run_downwards():
    image, labels = noise((40, 32, 1)), block((10, 8, 0), (6, 5, 1), (40, 32, 1))
    (axes,) = panels(contour_figure(image, labels, labels, (1.0, 1.0, 1.0)))
    bottom, top = axes.get_ylim()
    left, right = axes.get_xlim()
    assert bottom > top
    assert left < right
    assert not axes.texts  # no letters for directions that nobody knows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None, None), "nothing to draw"),
        ((np.zeros((4, 4)), None, None), r"volumes \(X, Y, Z\)"),
        ((np.zeros((4, 4, 4)), np.zeros((4, 4, 5)), None), "of one shape"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        contour_figure(*arguments, (1.0, 1.0, 1.0))


def test_montage_has_a_row_a_case_with_slices_across_the_thickest_axis():
    thick = CaseVolumes(noise(), block(), block((11, 8, 2)), (1.0, 1.0, 8.0))
    sideways = CaseVolumes(
        noise().transpose(0, 2, 1), block().transpose(0, 2, 1), block().transpose(0, 2, 1), (1.0, 8.0, 1.0)
    )
    figure = montage([("worst", thick), ("median", sideways)], title="both", columns=6)
    shown = panels(figure)
    assert [axes.get_xlabel() for axes in shown] == ["slice 3", "4", "5", "6"] * 2  # all slices that hold something
    assert all(contours(axes, ONE) == [(9.5, 15.5, 7.5, 12.5)] for axes in shown)
    assert [part.get_suptitle() for part in figure.subfigs] == ["worst", "median"]


def test_many_slices_are_sampled_evenly_without_the_ends():
    labels = block((5, 5, 0), (6, 6, 60), (20, 20, 60))
    shown = panels(montage([("only", CaseVolumes(None, labels, None, (1.0, 1.0, 1.0)))], columns=4))
    assert [int(axes.get_xlabel().split()[-1]) for axes in shown] == [8, 23, 38, 53]


@pytest.mark.parametrize("count", [1, 3])
def test_long_names_leave_room_for_the_slices(tmp_path, count):
    names = [f"{n}" + "a long name of a label " * 7 for n in range(count)]
    labels = np.concatenate([block(value=value, shape=(40, 32, 4)) for value in range(1, count + 1)], axis=2)
    volumes = CaseVolumes(None, labels, labels, (1.0, 1.0, 1.0))
    figure = montage([("only", volumes)], names=names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(figure, tmp_path / "a.png")
    (legend,) = figure.legends
    assert all(text.get_text().endswith("…") for text in legend.get_texts()[:count])
    assert 0 <= legend.get_window_extent().x0 < legend.get_window_extent().x1 <= figure.bbox.width


def test_a_montage_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs a case"):
        montage([])


def test_figures_leave_no_state_behind_and_are_written_whole(tmp_path):
    before = pyplot.get_fignums()
    figure = contour_figure(noise(), block(), block(), (1.0, 1.0, 1.0))
    save_figure(figure, tmp_path / "figure.png", dpi=50)
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    assert pyplot.get_fignums() == before
    with pytest.raises(ValueError, match="format"):
        save_figure(figure, tmp_path / "figure.nonsense")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


# ---------------------------------------------------------------- distributions


def points(axes, colour=None):
    drawn = [c for c in axes.collections if colour is None or to_hex(c.get_facecolor()[0]).upper() == colour]
    return np.concatenate([c.get_offsets() for c in drawn if len(c.get_offsets())] or [np.zeros((0, 2))])


def test_box_plots_show_every_case_of_every_label():
    figure = box_plots(rows(0, 1, 2), title="three")
    dice, hd95, hd, avd = figure.axes
    assert [axes.get_ylabel() for axes in (dice, hd95, hd, avd)] == ["Dice", "HD95 (mm)", "HD (mm)", "AVD (ml)"]
    assert sorted(points(dice)[:, 1]) == pytest.approx(sorted(row["dice"] for row in rows(0, 1, 2)))
    assert [label.get_text() for label in dice.get_xticklabels()] == ["one", "two"]


def test_the_distance_of_a_miss_stands_at_the_top_and_does_not_flatten_the_rest():
    data = rows(0, 1, 2, missed=[1])
    figure = box_plots(data)
    _, hd95, *_ = figure.axes
    others = [row["hd95_mm"] for row in data if not row["missed"]]
    assert hd95.get_ylim()[1] < 2 * max(others) < 40
    ((_, height),) = points(hd95, MISS_COLOUR)
    assert max(others) < height <= hd95.get_ylim()[1]
    assert "missed" in figure.legends[0].get_texts()[0].get_text()


def test_bland_altman_draws_bias_and_limits_of_agreement_with_their_confidence():
    data = rows(*range(6))
    for number, row in enumerate(data):
        row |= {"prediction_ml": 10.0 + number, "reference_ml": 9.0, "volume_difference_ml": 1.0 + number}
    one = bland_altman(data).axes[0]
    own = np.array([row["volume_difference_ml"] for row in data if row["label"] == one.get_title()])
    bias, sd = own.mean(), own.std(ddof=1)
    lines = sorted(line.get_ydata()[0] for line in one.lines)
    assert lines == pytest.approx(sorted([0, bias, bias + 1.96 * sd, bias - 1.96 * sd]))
    assert len(one.patches) == 2
    assert len(points(one)) == 6


def test_bland_altman_of_five_pairs_draws_no_limits():
    data = rows(*range(5))
    for number, row in enumerate(data):
        row |= {"prediction_ml": 10.0 + number, "reference_ml": 9.0, "volume_difference_ml": 1.0 + number}
    one = bland_altman(data).axes[0]
    assert [line.get_ydata()[0] for line in one.lines] == [0]
    assert "6 are needed" in one.texts[0].get_text()


def test_bland_altman_counts_subjects_and_not_points():
    data = rows(*range(9))
    for number, row in enumerate(data):
        row |= {"prediction_ml": 10.0 + number, "reference_ml": 9.0, "volume_difference_ml": 1.0 + number}
    cases = list(dict.fromkeys(row["case"] for row in data))
    five = bland_altman(data, subjects={case: f"s{number % 5}" for number, case in enumerate(cases)}).axes[0]
    assert [line.get_ydata()[0] for line in five.lines] == [0]
    assert five.texts[0].get_text() == "no limits from 5 subjects: 6 are needed"
    twice = bland_altman([row for row in data if row["case"] in cases[:5]] * 2).axes[0]  # two seeds of five cases
    assert "from 5 subjects" in twice.texts[0].get_text()
    assert len(bland_altman(data).axes[0].patches) == 2


def test_the_confidence_of_a_limit_of_agreement_covers_it():
    """Of 2000 samples of 8 normal differences: 95 %, up to two standard errors."""
    samples = np.random.default_rng(0).normal(0, 1, (2000, 8))
    bias, sd = samples.mean(1), samples.std(1, ddof=1)
    near, far = limit_interval(8)
    assert np.mean((bias + near * sd <= 1.96) & (bias + far * sd >= 1.96)) == pytest.approx(0.95, abs=0.01)


def test_unknown_figures_are_left_out_of_the_plots():
    data = rows(0, 1)
    for row in data:
        row |= {"hd_mm": None, "hd95_mm": None, "avd_ml": None}
    assert [axes.get_ylabel() for axes in box_plots(data).axes] == ["Dice"]


# ---------------------------------------------------------------- curves


def test_curves_show_losses_and_validation_of_a_torn_history(tmp_path):
    text = "step,loss,dice/one,learning_rate\n10,1.5,,0.1\n20,1.0,0.5,0.1\n30,0.8,,0.1\n40,0.7,0.75,\n5"
    (tmp_path / "history.csv").write_text(text)
    history = read_history(tmp_path / "history.csv")
    assert history["dice/one"] == [(20, 0.5), (40, 0.75)]
    loss, dice = training_curves(history).axes
    assert loss.lines[0].get_xydata().tolist() == [[10, 1.5], [20, 1.0], [30, 0.8], [40, 0.7]]
    assert dice.get_ylabel() == "validation Dice"


def test_curves_of_adversarial_training_show_the_discriminator_too():
    points = [(10.0, 0.6), (20.0, 0.7)]
    history = dict.fromkeys(("loss", "discriminator/real", "discriminator/accuracy", "gradient_norm"), points)
    loss, discriminator = training_curves(history).axes
    assert loss.get_ylabel() == "loss"
    assert [text.get_text() for text in discriminator.get_legend().get_texts()] == ["real", "accuracy"]


def test_no_history_no_curves(tmp_path):
    assert training_curves(read_history(tmp_path / "none.csv")) is None


# ---------------------------------------------------------------- the page


@pytest.fixture
def run(tmp_path):
    """A run's folder with hostile names in it."""
    data = rows(0, 1, 2, missed=[2])
    for row in data:
        row["label"] = "<script>alert(1)</script>" if row["label"] == "one" else row["label"]
        row["case"] = f"<img src=x onerror=alert(2)>{row['case']}"
    config = EvaluateConfig(bootstrap=20)
    write_evaluation(data, tmp_path / "test", title="<b>run</b>", config=config, notes=["<i>left out</i>"])
    (tmp_path / "config.yaml").write_text("name: '</pre><script>alert(3)</script>'\n")
    (tmp_path / "history.csv").write_text("step,loss\n1,2.0\n2,1.0\n")
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "b"], "validation": ["c"], "test": ["d"]}))
    plan = {"reasons": {"patches.size": "<u>fits</u>"}, "memory_bytes": 1, "network": "UNet"}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "environment.json").write_text(json.dumps({"device": "CPU", "versions": {"torch": "2.13"}}))
    return tmp_path


def test_the_page_loads_nothing_and_escapes_every_name(run):
    page = re.sub(r' data-row="[^"]*"', "", write_report(run).read_text())  # a name in quotes, escaped
    sources = [text for text in re.findall(r"<[^>]*(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", page) if text[0] != "#"]
    assert sources
    assert [source[:60] for source in sources if not source.startswith("data:image/png;base64,")] == []
    assert not re.search(r"https?:", re.sub(r"base64,[^\"]+", "", page))
    for tag in ("<script>alert", "<b>", "<i>", "<u>", "onerror=alert(2)>c"):
        assert tag not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_holds_table_pictures_curves_and_cases(run):
    page = write_report(run).read_text()
    pictures = [base64.b64decode(text) for text in re.findall(r"base64,([^\"]+)", page)]
    assert len(pictures) == 3  # box plots, Bland-Altman, curves
    assert all(picture.startswith(PNG) for picture in pictures)
    assert (run / "test" / "box_plots.png").read_bytes() in pictures
    summary = json.loads((run / "test" / "summary.json").read_text())
    assert f"{summary['labels']['two']['dice']['mean']:.3f}" in page
    assert "cases: 2 training, 1 validation, 1 test" in page
    mean = summary["mean"]["dice"]["mean"]
    assert page.index(f"<strong>{mean:.3f}") < page.index("<table"), "the headline stands above the tables"
    assert page.count('<tr class="missed"') == 1
    for text in ("missed or invented", "patches.size", "torch", "UNet"):
        assert text in page


def test_the_page_is_well_formed(run):
    page = write_report(run).read_text()
    body = re.sub(r"<!doctype html>|<meta[^>]*>|<style>.*?</style>", "", page, flags=re.DOTALL)
    body = re.sub(r"<img([^>]*)>", r"<img\1/>", body).replace("<br>", "<br/>")
    ElementTree.fromstring(body)


def test_the_page_of_an_evaluation_lies_in_its_folder(run):
    assert write_report(run / "test") == run / "test" / "report.html"


def test_a_run_without_a_test_still_has_a_page(run):
    for path in (run / "test").iterdir():
        path.unlink()
    page = write_report(run).read_text()
    assert "<h2>Results" not in page
    assert "<h2>Training" in page


@pytest.mark.parametrize("content", [None, "{broken", "[1, 2]"])
def test_a_folder_without_anything_to_report_is_refused_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(RunError) as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)


def test_contours_of_a_real_thick_stack(real_data):
    from segmed.volumes import read_label_volume, read_volume, spacing_mm, to_canonical

    folder = real_data("myops_lge") / "Case3001"
    image = to_canonical(read_volume(folder / "Case3001_LGE.nii.gz"))
    labels = to_canonical(read_label_volume(folder / "Case3001_gd.nii.gz")).numpy()[0]
    indices = np.searchsorted([0, 200, 500, 600, 1220, 2221], labels)
    figure = contour_figure(image.numpy()[0], indices, np.roll(indices, 4, axis=0), spacing_mm(image.affine))
    assert isinstance(figure, Figure)
    assert all(contours(axes, ONE) and area(axes) for axes in panels(figure))


def test_titles_of_narrow_panels_do_not_touch():
    """Three thick slices, seen from the side: panels a third as wide as they are high."""
    labels = np.zeros((3, 480, 480), np.uint8)
    labels[:, 200:300, 200:300] = 1
    figure = contour_figure(labels.astype(float), labels, labels, (14.0, 0.73, 0.73), names=("wall",))
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes[:3]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert boxes[0].x0 > 0
    assert {axes.get_title().count("\n") for axes in figure.axes[:2]} == {1}

"""Methods on the same cases: figures by hand, what can't be compared, what is said, tables and figure."""

import csv
import io
import json
import math
import re

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from scipy.stats import wilcoxon

from segmed.errors import RunError
from segmed.evaluate.comparison import compare_methods
from segmed.evaluate.families import Family, correct
from segmed.evaluate.results import Method, Result
from segmed.labels import MEAN
from segmed.metrics.mask_metrics import METRICS
from segmed.metrics.statistics import bootstrap_ci, holm
from segmed.reports.comparison.document import markdown, p_text
from segmed.reports.comparison.figures import comparison_figure
from segmed.reports.comparison.text import comparison_csv, comparison_document, write_comparison

BASE = [0.5, 0.6, 0.7, 0.8, 0.65, 0.55]
GAINS = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
BETTER = [value + gain for value, gain in zip(BASE, GAINS, strict=True)]
FEW = 200  # resamplings


def result(dice, *, source="run", hd95=None, misses=(), regions=(), **known):
    """One seed: label -> Dice of each case."""
    rows = [
        {
            "case": f"case_{case}",
            "label": label,
            "kind": "region" if label in regions else "label",
            **dict.fromkeys(METRICS),
            "dice": value,
            "hd95_mm": None if hd95 is None else hd95[case],
            "missed": float((case, label) in misses),
        }
        for label, values in dice.items()
        for case, value in enumerate(values)
    ]
    return Result(rows, source, **known)


def compare(*methods, reference="a", **options):
    return compare_methods(methods, reference=reference, **{"resamples": FEW, **options})


def simple(name, values, **known):
    """A method of one seed and one label."""
    return Method(name, (result({"scar": values}, source=f"run of {name}", **known),))


# ---------------------------------------------------------------- figures


def test_two_methods_by_hand():
    compared = compare(simple("a", BASE), simple("b", BETTER))
    figure = compared.figures["b", "scar", "dice"]
    assert figure.mean == pytest.approx(np.mean(BETTER))
    assert figure.sd == pytest.approx(np.std(BETTER, ddof=1))
    assert (figure.n, figure.seeds, figure.seed_sd) == (6, 1, None)
    assert figure.difference == pytest.approx(0.035)
    assert figure.difference_ci95 == pytest.approx(bootstrap_ci(GAINS, resamples=FEW))
    assert (figure.p, figure.p_holm) == (2 / 64, 2 / 64)  # six of one sign


def test_the_reference_is_compared_with_nothing():
    figure = compare(simple("a", BASE), simple("b", BETTER)).figures["a", "scar", "dice"]
    assert (figure.difference, figure.difference_ci95, figure.p, figure.p_holm) == (None, None, None, None)


def test_seeds_are_averaged_before_anything_is_tested():
    seeds = [np.array(BETTER) + shift for shift in (-0.02, 0.0, 0.05)]
    methods = simple("a", BASE), Method("b", tuple(result({"scar": list(seed)}) for seed in seeds))
    figure = compare(*methods).figures["b", "scar", "dice"]
    means = np.mean(seeds, axis=0)
    assert figure.n == 6  # cases, not cases × seeds
    assert figure.mean == pytest.approx(means.mean())
    assert figure.sd == pytest.approx(means.std(ddof=1))
    assert figure.p == pytest.approx(wilcoxon(means, BASE).pvalue)
    assert figure.seeds == 3
    assert figure.seed_sd == pytest.approx(np.std([-0.02, 0.0, 0.05], ddof=1))


def test_ten_copies_of_a_seed_change_neither_p_nor_interval():
    once = compare(simple("a", BASE), simple("b", BETTER)).figures["b", "scar", "dice"]
    copies = Method("b", tuple(result({"scar": BETTER}) for _ in range(10)))
    often = compare(simple("a", BASE), copies).figures["b", "scar", "dice"]
    assert often.p == once.p
    assert often.ci95 == pytest.approx(once.ci95)
    assert often.seed_sd == pytest.approx(0, abs=1e-12)


def test_one_family_holds_all_methods_and_labels_of_a_metric():
    generator = np.random.default_rng(0)
    methods = [
        Method(name, (result({label: list(generator.random(12)) for label in ("wall", "scar")}),)) for name in "abc"
    ]
    compared = compare(*methods)
    assert [family.methods for family in compared.families] == [("b", "c")]
    assert {figure.tests for figure in compared.figures.values()} == {
        6,
        None,
    }  # two methods × labels and mean
    drawn = [compared.figures[name, label, "dice"] for name in "bc" for label in ("wall", "scar", MEAN)]
    assert [figure.p_holm for figure in drawn] == pytest.approx(holm([figure.p for figure in drawn]))
    assert any(figure.p_holm > figure.p for figure in drawn)


def test_the_mean_of_labels_leaves_regions_out():
    values = {"wall": [0.8, 0.6], "scar": [0.4, 0.2], "lv": [1.0, 1.0]}
    compared = compare(*(Method(name, (result(values, regions=("lv",)),)) for name in "ab"))
    assert compared.labels == ("wall", "scar", "lv", MEAN)
    assert compared.kinds == {"wall": "label", "scar": "label", "lv": "region", MEAN: "mean"}
    assert compared.values["a", "dice"][:, 3] == pytest.approx([0.6, 0.4])


def test_the_difference_of_the_means_is_over_the_labels_that_both_have():
    whole, part = result({"wall": [0.8] * 6, "scar": [0.4] * 6}), result({"wall": [0.7] * 6, "scar": [None] * 6})
    compared = compare(Method("a", (whole,)), Method("b", (part,)))
    assert compared.figures["a", MEAN, "dice"].mean == pytest.approx(0.6)
    assert compared.figures["b", MEAN, "dice"].mean == pytest.approx(0.7)
    assert compared.figures["b", MEAN, "dice"].difference == pytest.approx(-0.1)
    assert [note for note in compared.notes if note.startswith("b has no Dice of scar: ")]
    one = result({"wall": [0.7] * 6, "scar": [None, *[0.4] * 5]})
    compared = compare(Method("a", (whole,)), Method("b", (one,)))
    assert compared.figures["b", MEAN, "dice"].difference == pytest.approx((-0.1 + 5 * -0.05) / 6)
    assert not [note for note in compared.notes if "has no Dice" in note]


def test_one_label_has_no_mean_of_labels():
    assert compare(simple("a", BASE), simple("b", BETTER)).labels == ("scar",)


def test_misses_are_counted_over_seeds_and_labels():
    values = {"wall": BASE, "scar": BASE}
    seeds = (
        result(values, misses=[(0, "scar"), (1, "scar")]),
        result(values, misses=[(0, "scar")]),
    )
    compared = compare(Method("a", (result(values),)), Method("b", seeds))
    found = [compared.figures["b", label, "dice"] for label in ("wall", "scar", MEAN)]
    assert [(figure.missed, figure.chances) for figure in found] == [(0, 12), (3, 12), (3, 24)]
    assert compared.misses["b"][:2, 1].tolist() == [2, 1]


def test_scans_of_one_subject_are_one_pair_and_drawn_together():
    subjects = {f"case_{case}": f"subject_{case // 2}" for case in range(12)}
    twice = [np.repeat(values, 2) for values in (BASE, BETTER)]
    methods = simple("a", list(twice[0]), subjects=subjects), simple("b", list(twice[1]), subjects=subjects)
    figure = compare(*methods).figures["b", "scar", "dice"]
    assert (figure.n, figure.p) == (12, 2 / 64)
    assert figure.difference_ci95 == pytest.approx(bootstrap_ci(GAINS, resamples=FEW))
    assert compare(*methods, subjects={}).figures["b", "scar", "dice"].p < 2 / 64


def test_a_pair_with_a_distance_that_was_left_out_is_no_pair():
    near, far = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, math.nan]
    dice = {"scar": [0.5] * 7}
    compared = compare(*(Method(n, (result(dice, hd95=h, missed="skip"),)) for n, h in (("a", near), ("b", far))))
    figure = compared.figures["b", "scar", "hd95_mm"]
    assert (figure.n, figure.difference, figure.p) == (6, pytest.approx(3.5), 2 / 64)
    assert "(n = 6)" in markdown(comparison_document(compared, title="x"))


def test_figures_that_agree_to_the_digits_of_a_table_are_equal():
    exact = [value + 1 / 3e7 for value in BASE]
    figure = compare(simple("a", BASE), simple("b", exact)).figures["b", "scar", "dice"]
    assert (figure.difference, figure.p) == (0, 1)


def test_a_metric_that_nobody_knows_is_left_out():
    assert compare(simple("a", BASE), simple("b", BETTER)).metrics == ("dice",)


def test_a_metric_that_not_all_know_is_left_out_and_said():
    compared = compare(simple("a", BASE, hd95=BASE), simple("b", BETTER))
    assert compared.metrics == ("dice",)
    assert compared.notes[0] == "HD95 (mm) is left out: not known for b"


def test_costs_are_means_over_the_seeds_and_unknown_where_one_is():
    seeds = [result({"s": BASE}, training_minutes=m, inference_seconds=s) for m, s in ((10, 1.0), (20, None))]
    method = Method("a", tuple(seeds))
    assert (method.training_minutes, method.inference_seconds) == (15, None)


# ---------------------------------------------------------------- what can't be compared


@pytest.mark.parametrize(
    ("methods", "reference", "message"),
    [
        ([simple("a", BASE)], "a", "one method alone"),
        ([simple("a", BASE), simple("a", BETTER)], "a", "method 'a' is given twice"),
        ([simple("a", BASE), simple("b", BETTER)], "c", "no method is called 'c': the reference is one of a, b"),
        ([simple("a", BASE), Method("b", ())], "a", "method 'b' has no results"),
        (
            [simple("a", BASE), simple("b", BETTER[:4])], "a",
            "method 'b': run of b was not tested on 2 of 6 cases, case_4, case_5, as run of a was: .*--common-cases",
        ),
        (
            [simple("a", BASE), Method("b", (result({"wall": BASE}, source="x"),))], "a",
            "method 'b': x and run of a have different labels, scar, wall in one alone",
        ),
        (
            [simple("a", BASE), Method("b", (Result([], "x"),))], "a", "not tested on 6 of 6",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_compared_is_one_line(methods, reference, message):
    with pytest.raises(RunError, match=message) as error:
        compare(*methods, reference=reference)
    assert "\n" not in str(error.value)


def test_distances_of_misses_must_mean_the_same():
    rows = result({"scar": BASE}).rows
    methods = [Method(name, (Result(rows, name, missed=p),)) for name, p in (("a", "skip"), ("b", "diagonal"))]
    with pytest.raises(RunError, match="'skip' in a and 'diagonal' in b"):
        compare(*methods)


def test_a_case_without_a_label_that_others_have_is_named():
    whole = result({"wall": BASE, "scar": BASE})
    torn = Result(whole.rows[:-1], "torn")
    with pytest.raises(RunError, match="torn has no figures for 'scar' of case case_5"):
        compare(Method("a", (whole,)), Method("b", (torn,)))


def test_common_cases_are_compared_when_asked_for_and_the_rest_is_named():
    compared = compare(simple("a", BASE), simple("b", BETTER[:4]), common_cases=True)
    assert compared.cases == ("case_0", "case_1", "case_2", "case_3")
    assert compared.figures["b", "scar", "dice"].difference == pytest.approx(0.025)
    assert compared.notes[0].startswith("only 4 of 6 cases")
    assert "case_4, case_5" in compared.notes[0]


def test_nothing_in_common_is_refused_even_when_asked_for():
    other = Result([{**row, "case": f"other_{row['case']}"} for row in result({"scar": BASE}).rows], "other")
    with pytest.raises(RunError, match="no test case in common"):
        compare(simple("a", BASE), Method("b", (other,)), common_cases=True)


# ---------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("own", "other", "note"),
    [
        ({"budget": "5 steps"}, {"budget": "9 steps"}, r"different training budgets \(a: 5 steps; b: 9 steps\)"),
        ({"device": "CPU"}, {"device": "GPU"}, "different devices .*: times do not compare"),
        (
            {"training": (frozenset("pqr"),)}, {"training": (frozenset("p"),)},
            "not trained on the same cases: a 3, b 1",
        ),
        ({"remarks": ("strange",)}, {}, "strange"),
    ],
)  # fmt: skip
def test_what_would_mislead_a_reader_is_said(own, other, note):
    compared = compare(simple("a", BASE * 3, **own), simple("b", BETTER * 3, **other))
    assert len(compared.notes) == 1
    assert re.fullmatch(note, compared.notes[0])
    assert not compare(simple("a", BASE * 3, **own), simple("b", BETTER * 3, **{**own, "remarks": ()})).notes[1:]


def test_different_numbers_of_runs_and_a_seed_that_stands_twice_are_said():
    twice = Method("b", tuple(result({"scar": BASE * 3}, seed=7) for _ in range(2)))
    notes = compare(simple("a", BASE * 3), twice).notes
    assert notes[0] == "different numbers of runs: a 1, b 2"
    assert notes[1].startswith("runs of b share a seed")


def test_a_test_that_could_find_nothing_is_said():
    few = compare(simple("a", BASE[:5]), simple("b", BETTER[:5]))
    assert few.notes == ("5 subjects are too few for a paired test: none is done below 6",)
    assert few.figures["b", "scar", "dice"].p is None
    assert "p (Holm)" not in markdown(comparison_document(few, title="x"))
    assert "–: 5 subjects: no p can be below 0.05." in markdown(comparison_document(few, title="x"))
    several = compare(simple("a", BASE), simple("b", BETTER), simple("c", BETTER))
    figure = several.figures["b", "scar", "dice"]
    assert (figure.p, figure.p_holm) == (2 / 64, None)
    assert figure.no_p == "6 subjects and 2 tests: no corrected p can be below 0.062"
    assert "1 test a metric" not in (text := markdown(comparison_document(several, title="x")))
    assert f"Family all methods: 2 against a, 2 tests a metric; –: {figure.no_p}." in text
    assert list(csv.DictReader(io.StringIO(comparison_csv(several))))[1]["no_p"] == figure.no_p


def test_holm_stays_within_a_family_and_a_method_in_none_has_no_p():
    generator = np.random.default_rng(1)
    methods = [simple(name, list(generator.random(8))) for name in "abcde"]
    families = (Family("first", ("b", "c"), "a"), Family("second", ("d",), "c"))
    compared = compare(*methods, families=families)
    b, c, d, e = (compared.figures[name, "scar", "dice"] for name in "bcde")
    assert (b.tests, d.tests, e.tests) == (2, 1, None)
    assert [b.p_holm, c.p_holm] == pytest.approx(holm([b.p, c.p]))
    assert (d.against, d.p_holm) == ("c", pytest.approx(d.p))
    assert d.difference == pytest.approx(compared.values["d", "dice"].mean() - compared.values["c", "dice"].mean())
    assert (e.p, e.family, e.against) == (None, None, "a")
    assert e.difference is not None
    assert "method − the one of its family" in markdown(comparison_document(compared, title="x"))
    with pytest.raises(RunError, match="'b' stands in two families"):
        compare(*methods, families=(*families, Family("third", ("b",), "a")))


def test_forty_eight_tests_on_six_hearts_have_no_corrected_p_and_a_family_of_one_has():
    assert [one.p_holm for one in correct([2 / 64] * 48, [6] * 48)] == [None] * 48
    (alone,) = correct([2 / 64], [6])
    assert (alone.p, alone.p_holm, alone.no_p) == (2 / 64, 2 / 64, None)
    assert correct([2 / 2**11] * 48, [11] * 48)[0].p_holm == pytest.approx(48 * 2 / 2**11)


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def compared():
    generator = np.random.default_rng(4)
    known = {"training_minutes": 20.0, "inference_seconds": 0.25, "budget": "20 minutes", "missed": "diagonal"}

    def seeds(shift):
        for seed in range(2):
            dice = {n: list(np.clip(generator.normal(0.6 + shift, 0.1, 12), 0, 1)) for n in ("wall", "scar")}
            hd95 = list(generator.random(12))
            yield result(dice, hd95=hd95, misses=[(3, "scar")], source=f"run {seed}", seed=seed, **known)

    return compare(*(Method(name, tuple(seeds(shift))) for name, shift in (("plain", 0), ("a|b", 0.2), ("c", 0.01))),
                   reference="plain")  # fmt: skip


def test_the_csv_holds_every_figure_in_full_precision(compared):
    lines = list(csv.DictReader(io.StringIO(comparison_csv(compared))))
    assert len(lines) == 3 * 3 * 2  # methods × (labels and mean) × metrics
    for line in lines:
        figure = compared.figures[line["method"], line["label"], line["metric"]]
        assert float(line["mean"]) == figure.mean
        assert float(line["ci95_high"]) == figure.ci95[1]
        assert float(line["training_minutes"]) == 20
        assert line["p_holm"] == ("" if figure.p_holm is None else repr(figure.p_holm))
        assert line["family"] == ("" if figure.family is None else "all methods")
        assert line["tests"] == ("" if figure.tests is None else "6")
        assert line["ci95_method"] == "Student's t"


def test_the_markdown_has_a_padded_table_for_each_metric(compared):
    text = markdown(comparison_document(compared, title="three methods"))
    assert text.startswith("# three methods\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Dice, higher is better", "## HD95 (mm), lower is better",
    ]  # fmt: skip
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [2 + 3, 2 + 9, 2 + 9]
    assert all(len({len(line) for line in table}) == 1 for table in tables)
    assert "a\\|b" in text
    assert "plain (reference)" in text
    assert "2 against plain, 6 tests a metric." in text
    assert "image's diagonal" in text
    assert "2 of 24" in text
    assert "20 minutes" in text


def test_a_column_that_is_empty_for_all_is_left_out():
    text = markdown(comparison_document(compare(simple("a", BASE), simple("b", BETTER)), title="x"))
    assert "SD of runs" not in text
    assert "training (min)" not in text
    assert "+0.035" in text
    assert "No distances and volumes" in text


@pytest.mark.parametrize(("p", "text"), [(None, "–"), (0.0, "< 0.001"), (0.0312, "0.031"), (1.0, "1.000")])
def test_a_p_is_never_written_as_zero(p, text):
    assert p_text(p) == text


def test_all_files_are_written_and_the_json_repeats_the_figures(compared, tmp_path):
    text = write_comparison(compared, tmp_path / "out", title="three methods")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.md", "comparison.csv", "comparison.json", "comparison.png", "report.html",
    }  # fmt: skip
    assert (tmp_path / "out" / "comparison.md").read_text() == text
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert data["families"] == [{"name": "all methods", "methods": ["a|b", "c"], "against": "plain"}]
    assert len(data["figures"]) == 18
    assert len(data["values"]) == 3 * 12 * 3
    first = data["values"][0]
    assert first["dice"] == compared.values["plain", "dice"][0, 0]
    assert [run["seed"] for run in data["methods"][0]["runs"]] == [0, 1]


# ---------------------------------------------------------------- figure


def points(axes):
    return [np.asarray(shown.get_offsets()) for shown in axes.collections if isinstance(shown, PathCollection)]


def test_every_case_of_every_method_is_a_point_and_its_gain_one_below(compared):
    figure = comparison_figure(compared)
    axes = figure.axes
    assert [panel.get_title() for panel in axes[:3]] == ["wall", "scar", MEAN]
    assert sum(map(len, points(axes[0]))) == 3 * 12
    assert [text.get_text() for text in axes[3].get_xticklabels()] == ["plain", "a|b", "c"]
    values = compared.values["a|b", "dice"][:, 0] - compared.values["plain", "dice"][:, 0]
    assert points(axes[3])[0][:, 1] == pytest.approx(values)
    assert points(axes[3])[1][0, 1] == pytest.approx(compared.figures["a|b", "wall", "dice"].difference)


def test_a_line_joins_the_points_of_a_case(compared):
    axes = comparison_figure(compared).axes[0]
    joined = np.array([line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 3])
    stacked = np.stack([compared.values[name, "dice"][:, 0] for name in ("plain", "a|b", "c")], axis=1)
    assert joined[: len(stacked)] == pytest.approx(stacked)


def test_the_reference_stands_first_wherever_it_was_given():
    axes = comparison_figure(compare(simple("b", BETTER), simple("a", BASE))).axes
    assert [text.get_text() for text in axes[1].get_xticklabels()] == ["a", "b"]
    assert axes[1].texts[0].get_text() == "p = 0.031"


def test_many_labels_and_methods_stay_within_the_width_of_a_page():
    dice = {f"label {number}": BASE for number in range(6)}
    figure = comparison_figure(compare(*(Method(name, (result(dice),)) for name in "abcdefghij")))
    assert figure.get_figwidth() < 12
    assert len([axes for axes in figure.axes if axes.axison]) == 2 * 7

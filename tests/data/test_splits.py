"""Splits: no subject on two sides, every subject tested once over the folds, the same parts from the same seed."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmed.config import SplitConfig
from segmed.data.cases import Case
from segmed.data.splits import Split, make_split
from segmed.errors import DatasetError
from segmed.volumes import Source


def make_cases(subjects: int, *, per_subject=1, sites=(), split=()) -> list[Case]:
    cases = []
    for subject in range(subjects):
        meta = {"site": sites[subject % len(sites)]} if sites else {}
        if split:
            meta["split"] = split[subject % len(split)]
        for scan in range(per_subject):
            name = f"p{subject:03d}_{scan}"
            cases.append(Case(name, f"p{subject:03d}", {"T1": Source(Path(f"{name}.nii.gz"))}, None, meta))
    return cases


def parts(split: Split) -> list[set[str]]:
    return [set(split.train), set(split.validation), set(split.test)]


configs = st.builds(
    SplitConfig,
    test=st.floats(0.01, 0.5),
    validation=st.floats(0.01, 0.5),
    seed=st.integers(0, 5),
    stratify=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(config=configs, subjects=st.integers(4, 40), per_subject=st.integers(1, 3), kinds=st.integers(1, 4))
def test_parts_share_no_subject_and_hold_every_case(config, subjects, per_subject, kinds):
    cases = make_cases(subjects, per_subject=per_subject)
    strata = {case.id: f"{index % kinds}" for index, case in enumerate(cases)}
    split = make_split(cases, config, strata=strata)
    assert sorted([*split.train, *split.validation, *split.test]) == [case.id for case in cases]
    by_part = [{name.split("_")[0] for name in part} for part in parts(split)]
    assert sum(len(part) for part in by_part) == subjects
    assert all(by_part)
    assert len(by_part[2]) == max(1, round(config.test * subjects))


@settings(max_examples=40, deadline=None)
@given(subjects=st.integers(8, 40), folds=st.integers(2, 6), per_subject=st.integers(1, 3), seed=st.integers(0, 3))
def test_over_all_folds_every_subject_is_tested_once(subjects, folds, per_subject, seed):
    cases = make_cases(subjects, per_subject=per_subject)
    splits = [make_split(cases, SplitConfig(folds=folds, fold=fold, seed=seed)) for fold in range(folds)]
    tested = [name for split in splits for name in split.test]
    assert sorted(tested) == [case.id for case in cases]
    sizes = [len(split.test) // per_subject for split in splits]
    assert max(sizes) - min(sizes) <= 1
    assert all((split.fold, split.folds) == (fold, folds) for fold, split in enumerate(splits))


def test_the_hippocampus_split_has_26_test_cases():
    split = make_split(make_cases(130), SplitConfig(test=0.2, validation=0.1))
    assert [len(part) for part in parts(split)] == [94, 10, 26]


def test_the_same_seed_gives_the_same_parts_whatever_the_order_of_the_cases():
    cases = make_cases(30)
    assert make_split(cases, SplitConfig(seed=3)) == make_split(cases[::-1], SplitConfig(seed=3))
    assert make_split(cases, SplitConfig(seed=3)).test != make_split(cases, SplitConfig(seed=4)).test


def test_every_part_holds_its_share_of_each_stratum():
    cases = make_cases(40)
    strata = {case.id: "scar" if index % 4 == 0 else "none" for index, case in enumerate(cases)}
    for seed in range(5):
        split = make_split(cases, SplitConfig(test=0.2, validation=0.25, seed=seed), strata=strata)
        counts = [Counter(strata[name] for name in part) for part in parts(split)]
        assert [count["scar"] for count in counts] == [6, 2, 2]
        folds = [make_split(cases, SplitConfig(fold=fold, seed=seed), strata=strata) for fold in range(5)]
        assert [sum(strata[name] == "scar" for name in split.test) for split in folds] == [2] * 5


def test_without_stratify_strata_change_nothing():
    cases = make_cases(40)
    strata = {case.id: str(index % 2) for index, case in enumerate(cases)}
    config = SplitConfig(stratify=False)
    assert make_split(cases, config, strata=strata) == make_split(cases, config)


def test_sites_are_balanced_over_the_parts():
    cases = make_cases(40, sites=("Bern", "Oslo", "Oslo", "Oslo"))
    site = {case.id: case.meta["site"] for case in cases}
    split = make_split(cases, SplitConfig(test=0.2))
    assert Counter(site[name] for name in split.test) == {"Bern": 2, "Oslo": 6}


def test_by_site_no_site_stands_on_two_sides():
    cases = make_cases(60, per_subject=2, sites=("A", "B", "C", "D", "E", "F"))
    site = {case.id: case.meta["site"] for case in cases}
    for seed in range(5):
        split = make_split(cases, SplitConfig(by="site", test=0.3, validation=0.2, seed=seed))
        sites = [{site[name] for name in part} for part in parts(split)]
        assert sum(len(part) for part in sites) == 6
        assert all(sites)
        assert split.by == "site"
    folds = [make_split(cases, SplitConfig(by="site", folds=3, fold=fold)) for fold in range(3)]
    assert [len({site[name] for name in split.test}) for split in folds] == [2, 2, 2]


def test_sites_of_different_size_come_near_the_fraction_of_subjects():
    sites = ["large"] * 20 + ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    cases = make_cases(32, sites=sites)
    folds = [make_split(cases, SplitConfig(by="site", folds=2, fold=fold, validation=0)) for fold in range(2)]
    assert sorted(len(split.test) for split in folds) == [12, 20]


def test_a_fraction_of_zero_leaves_its_part_empty():
    split = make_split(make_cases(2), SplitConfig(test=0.5, validation=0))
    assert [len(part) for part in parts(split)] == [1, 0, 1]
    assert make_split(make_cases(9), SplitConfig(test=0)).test == ()


def test_a_split_survives_its_file(tmp_path):
    for config in (SplitConfig(), SplitConfig(fold=2), SplitConfig(seed=9, validation=0)):
        split = make_split(make_cases(12), config)
        split.save(tmp_path / "split.json")
        assert Split.load(tmp_path / "split.json") == split
        again = SplitConfig(file=tmp_path / "split.json", fold=config.fold)
        assert make_split(make_cases(12), again) == split


def test_parts_of_a_manifest_are_taken_as_they_are():
    cases = make_cases(12, split=("Training", "val", "test", "train"))
    split = make_split(cases, SplitConfig(from_manifest=True))
    assert split.test == ("p002_0", "p006_0", "p010_0")
    assert split.validation == ("p001_0", "p005_0", "p009_0")
    assert len(split.train) == 6


def test_a_manifest_without_validation_gets_one_from_its_training_cases():
    cases = make_cases(20, split=("train", "train", "train", "test"))
    split = make_split(cases, SplitConfig(from_manifest=True, validation=0.2))
    assert [len(part) for part in parts(split)] == [12, 3, 5]
    assert split.test == tuple(case.id for case in cases if case.meta["split"] == "test")


@pytest.mark.parametrize(
    ("cases", "config", "said"),
    [
        (make_cases(3), SplitConfig(fold=0), r"3 subjects can't make 5 folds: set split\.folds to 3 or less"),
        (
            make_cases(2),
            SplitConfig(),
            r"2 subjects can't fill 3 parts \(training.*or set split.validation to 0$",
        ),
        (
            make_cases(1),
            SplitConfig(),
            "1 subject can't fill 3 parts .*validation to 0 and split.test to 0$",
        ),
        (
            make_cases(2),
            SplitConfig(folds=2, fold=0),
            "2 subjects can't fill 3 parts .*, or set split.validation to 0$",
        ),
        (make_cases(1), SplitConfig(validation=0), "1 subject can't fill 2 parts .*, or set split.test to 0$"),
        ([], SplitConfig(), "0 subjects can't fill 3 parts"),
        (make_cases(9), SplitConfig(test=1.0, validation=0), "can't fill"),
        (make_cases(9), SplitConfig(by="site"), "case 'p000_0' has no site: add a column 'site'"),
        (make_cases(8, sites=("A", "B")), SplitConfig(by="site", folds=5, fold=0), "2 sites can't make 5 folds"),
        (make_cases(9), SplitConfig(from_manifest=True), "case 'p000_0' has no split in the manifest"),
        (make_cases(9, split=("train", "tset")), SplitConfig(from_manifest=True), "has split 'tset' in the manifest"),
        (make_cases(9, split=("train",)), SplitConfig(from_manifest=True), "has no test case"),
        (make_cases(9, split=("test",)), SplitConfig(from_manifest=True), "has no train case"),
        (make_cases(9, split=("train",)), SplitConfig(from_manifest=True, fold=1), "exclude each other"),
    ],
)
def test_splits_that_can_not_be_made_give_one_line(cases, config, said):
    with pytest.raises(DatasetError, match=said) as caught:
        make_split(cases, config)
    assert "\n" not in str(caught.value)


def test_a_subject_on_two_sides_of_a_manifest_is_an_error():
    cases = make_cases(4, per_subject=2, split=("train", "test"))
    cases[1] = Case(cases[1].id, cases[1].subject, cases[1].images, None, {"split": "test"})
    with pytest.raises(DatasetError, match=r"subject 'p000' stands in train \(p000_0\) and in test \(p000_1\)"):
        make_split(cases, SplitConfig(from_manifest=True, validation=0))


def test_a_subject_scanned_at_two_sites_can_not_be_split_by_site():
    cases = [
        Case(f"{subject}_{site}", subject, {}, None, {"site": site}) for subject in "abc" for site in ("X", "Y", "Z")
    ]
    with pytest.raises(DatasetError, match="subject 'a' stands in"):
        make_split(cases, SplitConfig(by="site"))


GOOD = {"train": ["p000_0", "p001_0"], "validation": ["p002_0"], "test": ["p003_0"]}


@pytest.mark.parametrize(
    ("change", "fold", "said"),
    [
        ({"test": ["x"]}, None, r"names 1 unknown cases, e\.g\. 'x': it is of another data set"),
        ({"test": []}, None, r"leaves out 1 cases, e\.g\. 'p003_0'"),
        ({"test": ["p003_0", "p000_0"]}, None, "has case 'p000_0' twice"),
        ({"train": [], "validation": ["p000_0", "p001_0", "p002_0"]}, None, "has no training case"),
        ({"train": "p000_0"}, None, "is not a split"),
        ({"train": [1]}, None, "is not a split"),
        ({"seed": "x"}, None, "makes no sense"),
        ({"by": "scanner"}, None, "makes no sense"),
        ({}, 2, "is of fold None, not 2"),
    ],
)
def test_a_split_file_that_does_not_fit_gives_one_line(tmp_path, change, fold, said):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(DatasetError, match=said) as caught:
        make_split(make_cases(4), SplitConfig(file=path, fold=fold))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"train": []}', "[" * 100000])
def test_a_file_that_is_no_split_gives_one_line(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DatasetError, match=r"split\.json is not a split"):
        Split.load(tmp_path / "split.json")
    with pytest.raises(DatasetError, match=r"gone\.json does not exist"):
        Split.load(tmp_path / "gone.json")


# ---------------------------------------------------------------- cases that train without labels


@settings(max_examples=40, deadline=None)
@given(
    withhold=st.floats(0.1, 0.8),
    subjects=st.integers(12, 40),
    per_subject=st.integers(1, 3),
    fold=st.none() | st.integers(0, 4),
    seed=st.integers(0, 3),
)
def test_withheld_subjects_come_from_the_training_part_alone(withhold, subjects, per_subject, fold, seed):
    cases = make_cases(subjects, per_subject=per_subject)
    whole = make_split(cases, SplitConfig(seed=seed, fold=fold))
    split = make_split(cases, SplitConfig(seed=seed, fold=fold, withhold=withhold))
    assert (split.test, split.validation) == (whole.test, whole.validation)
    assert sorted(split.train + split.unlabelled) == list(whole.train)
    kept, held = ({name.split("_")[0] for name in part} for part in (split.train, split.unlabelled))
    assert not kept & held
    assert len(held) == max(1, round(withhold * len(kept | held)))
    assert make_split(cases[::-1], SplitConfig(seed=seed, fold=fold, withhold=withhold)) == split


def test_withheld_subjects_hold_their_share_of_each_stratum():
    cases = make_cases(40)
    strata = {case.id: "scar" if index % 4 == 0 else "none" for index, case in enumerate(cases)}
    split = make_split(cases, SplitConfig(test=0.2, validation=0.25, withhold=0.5), strata=strata)
    assert Counter(strata[name] for name in split.unlabelled) == {"scar": 3, "none": 9}


def test_withheld_sites_stay_whole():
    cases = make_cases(60, sites=("A", "B", "C", "D", "E", "F"))
    site = {case.id: case.meta["site"] for case in cases}
    split = make_split(cases, SplitConfig(by="site", test=0.3, validation=0.2, withhold=0.5))
    assert not {site[name] for name in split.train} & {site[name] for name in split.unlabelled}
    assert split.unlabelled


def test_labels_can_be_withheld_from_parts_that_are_written_down(tmp_path):
    cases = make_cases(12, split=("train", "train", "test"))
    plain = make_split(cases, SplitConfig(from_manifest=True))
    split = make_split(cases, SplitConfig(from_manifest=True, withhold=0.5))
    assert (split.test, split.validation) == (plain.test, plain.validation)
    assert len(split.unlabelled) == round(0.5 * len(plain.train))
    plain.save(tmp_path / "split.json")
    assert make_split(cases, SplitConfig(file=tmp_path / "split.json", withhold=0.5)) == split


def test_a_split_with_unlabelled_cases_survives_its_file(tmp_path):
    cases = make_cases(12)
    config = SplitConfig(withhold=0.5)
    split = make_split(cases, config, unlabelled=["p003_0"])
    assert "p003_0" in split.unlabelled
    assert len(split.unlabelled) > 1
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    again = config.model_copy(update={"file": tmp_path / "split.json"})
    for listed in ([], ["p003_0"]):
        assert make_split(cases, again, unlabelled=listed) == split


def test_labels_are_withheld_beside_the_listed_cases_of_a_file(tmp_path):
    cases = make_cases(12)
    make_split(cases, SplitConfig(), unlabelled=["p003_0"]).save(tmp_path / "split.json")
    config = SplitConfig(file=tmp_path / "split.json", withhold=0.5)
    split = make_split(cases, config, unlabelled=["p003_0"])
    assert split == make_split(cases, SplitConfig(withhold=0.5), unlabelled=["p003_0"])
    assert len(split.unlabelled) > 1


def test_a_split_file_from_before_there_were_unlabelled_cases_loads(tmp_path):
    (tmp_path / "split.json").write_text(json.dumps(GOOD))
    assert Split.load(tmp_path / "split.json").unlabelled == ()
    assert make_split(make_cases(4), SplitConfig(file=tmp_path / "split.json")).test == ("p003_0",)


def test_listed_cases_are_in_no_part_and_the_others_are_split_without_them():
    cases = make_cases(20)
    listed = [case.id for case in cases[5:10]]
    split = make_split(cases, SplitConfig(), unlabelled=listed)
    assert split.unlabelled == tuple(listed)
    others = make_split([case for case in cases if case.id not in listed], SplitConfig())
    assert parts(split) == parts(others)


@pytest.mark.parametrize("fold", range(5))
def test_folds_work_with_listed_and_withheld_cases(fold):
    cases = make_cases(20)
    split = make_split(cases, SplitConfig(fold=fold, withhold=0.5), unlabelled=["p000_0", "p007_0"])
    assert {"p000_0", "p007_0"} < set(split.unlabelled)
    assert sorted([*split.train, *split.validation, *split.test, *split.unlabelled]) == [case.id for case in cases]


SCANNED_TWICE = make_cases(12, per_subject=2)


@pytest.mark.parametrize(
    ("cases", "config", "listed", "said"),
    [
        (make_cases(12), SplitConfig(withhold=0.99), [], r"split\.withhold 0\.99 leaves none of \d training subjects"),
        (
            make_cases(12, split=("train", "test")),
            SplitConfig(from_manifest=True),
            ["p001_0"],
            r"case 'p001_0' is unlabelled and in the test part of the manifest: take it out of data\.unlabelled",
        ),
        (
            make_cases(12, split=("train", "Val", "test")),
            SplitConfig(from_manifest=True),
            ["p001_0"],
            "case 'p001_0' is unlabelled and in the validation part of the manifest",
        ),
        (
            SCANNED_TWICE,
            SplitConfig(),
            [f"{make_split(SCANNED_TWICE, SplitConfig()).test[0]}"],
            r"subject 'p\d+' stands in \w+ \(p\d+_\d\) and in \w+ \(p\d+_\d\): take it out of data\.unlabelled",
        ),
    ],
    ids=["all withheld", "listed test case", "listed validation case", "subject in test"],
)
def test_unlabelled_cases_that_can_not_be_give_one_line(cases, config, listed, said):
    with pytest.raises(DatasetError, match=said) as caught:
        make_split(cases, config, unlabelled=listed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "listed", "said"),
    [
        ({}, ["p003_0"], r"case 'p003_0' is unlabelled and in the test part of .*split\.json: take it out of data"),
        ({}, ["p002_0"], "case 'p002_0' is unlabelled and in the validation part of"),
        ({"unlabelled": ["p003_0"]}, [], "case 'p003_0' is unlabelled and in the test part of"),
        ({"unlabelled": ["x"]}, [], r"names 1 unknown cases, e\.g\. 'x': it is of another data set"),
        ({"unlabelled": "p000_0"}, [], "is not a split"),
    ],
)
def test_unlabelled_cases_that_do_not_fit_a_split_file_give_one_line(tmp_path, change, listed, said):
    (tmp_path / "split.json").write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(DatasetError, match=said) as caught:
        make_split(make_cases(4), SplitConfig(file=tmp_path / "split.json"), unlabelled=listed)
    assert "\n" not in str(caught.value)

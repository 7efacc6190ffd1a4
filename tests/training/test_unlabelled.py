"""Cases without labels: their patches, and runs in which they train beside labelled ones, or are left out."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_data import ADVERSARY, CASES, Lines, make_balls, names, tiny, trained, training_of

from segmed.compose import run as compose_run
from segmed.config import AugmentConfig, PatchConfig
from segmed.data.audit import audit_dataset
from segmed.data.augment import Augmentation
from segmed.data.cache import CachedVolume
from segmed.data.cases import read_dataset
from segmed.data.splits import Split
from segmed.data.training_patches import PatchDataset, patch_loader
from segmed.data.unlabelled import UnlabelledPatches, with_unlabelled
from segmed.errors import DatasetError
from segmed.labels import LabelSet
from segmed.segment import train as session
from segmed.training.fit_state import FitState
from segmed.training.tracking import Tracker

LABELS = LabelSet.from_config({"shell": 1, "core": 2})
PLAYING = {**ADVERSARY, "warmup": 0, "unlabelled": {"start": 0}}
AUDIT = Path(__file__).resolve().parents[2] / "tools" / "audit_data.py"


# ---------------------------------------------------------------- patches


def volume(number: int, *, label: bool) -> CachedVolume:
    """A case in memory: noise, with a cube of label 1 where it has a label map."""
    image = np.random.default_rng(number).standard_normal((1, 14, 15, 16)).astype(np.float32)
    marks = np.zeros(image.shape[1:], np.uint8)
    marks[2:5, 2:5, 2:5] = 1
    foreground = tuple(np.argwhere(marks == index).astype(np.int32) for index in (1, 2)) if label else ()
    return CachedVolume(
        f"case{number}", image, marks if label else None, np.eye(4), (1.0, 1.0, 1.0), foreground
    )  # fmt: skip


def patches(kind, *, label: bool, seed=0, preset="none", count=4, size=(8, 8, 8), plane_axis=None, foreground=0.5):
    dims = len(size)
    return kind(
        [volume(number, label=label) for number in range(count)],
        patches=PatchConfig(dims=dims, size=size, foreground=foreground),
        plane_axis=plane_axis,
        augmentation=Augmentation(AugmentConfig(name=preset), dims=dims, labels=LABELS),
        seed=seed,
    )


def same(first, second) -> bool:
    return torch.equal(first["image"], second["image"]) and (first["case"], first["index"]) == (
        second["case"],
        second["index"],
    )


@pytest.mark.parametrize(("size", "plane_axis"), [((8, 8, 8), None), ((8, 8), 1)])
def test_an_unlabelled_sample_is_an_image_and_its_case(size, plane_axis):
    sample = patches(UnlabelledPatches, label=False, size=size, plane_axis=plane_axis)[3]
    assert sample.keys() == {"image", "case", "index"}
    assert (sample["image"].shape, sample["image"].dtype) == ((1, *size), torch.float32)
    assert sample["index"] == 3


def test_an_unlabelled_sample_is_a_function_of_seed_and_number_alone():
    first, second = (patches(UnlabelledPatches, label=False, preset="full", seed=7) for _ in range(2))
    samples = [first[number] for number in range(8)]
    assert all(same(second[number], samples[number]) for number in reversed(range(8)))
    other = patches(UnlabelledPatches, label=False, preset="full", seed=8)
    assert not any(torch.equal(other[number]["image"], samples[number]["image"]) for number in range(8))


def test_unlabelled_cases_are_drawn_equally_often():
    data = patches(UnlabelledPatches, label=False)
    rounds = [[data[4 * turn + place]["case"] for place in range(4)] for turn in range(6)]
    assert all(sorted(turn) == names_of(4) for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1


def names_of(count: int) -> list[str]:
    return [f"case{number}" for number in range(count)]


def test_the_draws_of_both_streams_of_one_seed_are_apart():
    """The same cases with the same seed: in neither stream does a patch of the other recur at its number."""
    unlabelled = patches(UnlabelledPatches, label=False, foreground=0)
    labelled = patches(PatchDataset, label=True, foreground=0)
    assert not any(torch.equal(unlabelled[number]["image"], labelled[number]["image"]) for number in range(24))
    assert [unlabelled[n]["case"] for n in range(24)] != [labelled[n]["case"] for n in range(24)]


def test_batches_of_unlabelled_patches_go_on_at_any_step():
    data = patches(UnlabelledPatches, label=False)

    def batches(start):
        return list(patch_loader(data, batch_size=2, start_step=start, total_steps=6, workers=0))

    later = batches(4)
    assert len(later) == 2
    for first, second in zip(batches(0)[4:], later, strict=True):
        assert torch.equal(first["image"], second["image"])
        assert first["case"] == second["case"]


def test_volumes_with_label_maps_are_refused_as_unlabelled():
    with pytest.raises(DatasetError, match="case case0 is listed as unlabelled and comes with a label map") as error:
        patches(UnlabelledPatches, label=True)
    assert "\n" not in str(error.value)
    with pytest.raises(DatasetError, match="no label map for case0, case1"):
        patches(PatchDataset, label=False, count=2)


def test_no_unlabelled_volume_is_one_line():
    with pytest.raises(DatasetError, match="no training cases"):
        patches(UnlabelledPatches, label=False, count=0)


def test_a_joined_batch_names_the_cases_of_both():
    labelled = {"image": torch.zeros(2, 1, 4, 4), "label": torch.zeros(2, 4, 4), "case": ["a", "b"]}
    joined = with_unlabelled(labelled, {"image": torch.ones(3, 1, 4, 4), "case": ["x", "y", "x"]})
    assert joined["case"] == ["a", "b", "x", "y", "x"]
    assert joined["unlabelled"].shape == (3, 1, 4, 4)
    assert torch.equal(joined["image"], labelled["image"])
    assert "unlabelled" not in labelled


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    """Six cases; the fourth has no label map, and that of the fifth is no volume."""
    folder = make_balls(tmp_path_factory.mktemp("balls"), without_label=["ball_03"])
    (folder / "ball_04_label.nii.gz").write_bytes(b"no volume")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Six cases with labels."""
    return make_balls(tmp_path_factory.mktemp("whole"))


LISTED = {"unlabelled": ["ball_03", "*_04"]}


def batches_of(run, monkeypatch) -> list[dict]:
    """What a run would train on."""
    kept = []

    def keep(method, batches, budget, **options):
        kept.extend(batches(0))
        return FitState()

    monkeypatch.setattr(session, "fit", keep)
    training_of(run).fit(Tracker(), resume=False)
    return kept


def test_a_run_with_listed_cases_trains_on_their_images(balls, tmp_path, monkeypatch):
    config = tiny(
        balls, tmp_path, data=LISTED, split={"test": 0.25}, adversary=PLAYING, inference={"largest_component": []}
    )
    run = compose_run.start(config, tmp_path / "run")
    split = Split.load(run.split)
    assert split.unlabelled == ("ball_03", "ball_04")
    assert sorted([*split.train, *split.validation, *split.test, *split.unlabelled]) == names()
    batches = batches_of(run, monkeypatch)
    assert len(batches) == 4
    for batch in batches:
        assert batch["unlabelled"].shape == batch["image"].shape == (2, 1, 8, 8, 8)
        assert set(batch["case"][:2]) <= set(split.train)
        assert set(batch["case"][2:]) == set(split.unlabelled)
        assert len(batch["label"]) == 2


def test_listed_cases_do_not_change_the_labelled_patches(whole, tmp_path, monkeypatch):
    given = {"inference": {"largest_component": []}, "split": {"withhold": 0.5}, "adversary": PLAYING}
    with_them = compose_run.start(tiny(whole, tmp_path, **given), tmp_path / "with")
    without = compose_run.start(tiny(whole, tmp_path, **{**given, "adversary": None}), tmp_path / "without")
    both = zip(batches_of(with_them, monkeypatch), batches_of(without, monkeypatch), strict=True)
    for first, second in both:
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["label"], second["label"])
        assert "unlabelled" in first
        assert "unlabelled" not in second


def test_a_run_with_listed_cases_trains_tests_and_reports(balls, tmp_path):
    config = tiny(balls, tmp_path, data=LISTED, split={"test": 0.25}, adversary=PLAYING)
    compose_run.run(config, tmp_path / "run")
    assert "2 unlabelled cases train beside 2 labelled ones" in (tmp_path / "run" / "log.txt").read_text()
    assert "loss/own_labels" in (tmp_path / "run" / "history.csv").read_text()
    assert json.loads((tmp_path / "run" / "test" / "summary.json").read_text())["cases"] == 1
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000
    audit = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert audit["errors"] == 0
    assert len(audit["cases"]) == CASES


def test_a_supervised_run_leaves_withheld_cases_out_and_says_so(whole, tmp_path):
    lines = Lines()
    run = trained(tiny(whole, tmp_path, split={"withhold": 0.5}), tmp_path / "run", lines)
    split = Split.load(run.split)
    assert len(split.unlabelled) == 2
    assert "2 unlabelled cases teach nothing without an adversary section: they are left out" in lines.lines
    alone = make_balls(tmp_path / "alone")
    for name in split.unlabelled:
        (alone / f"{name}.nii.gz").unlink()
        (alone / f"{name}_label.nii.gz").unlink()
    replace(split, unlabelled=()).save(tmp_path / "split.json")
    fewer = trained(tiny(alone, tmp_path, split={"file": str(tmp_path / "split.json")}), tmp_path / "fewer")
    first, second = (load_file(each.weights("last")) for each in (run, fewer))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_with_the_label_maps_withheld_cases_are_cached_without_them(whole, tmp_path):
    run = trained(tiny(whole, tmp_path, split={"withhold": 0.5}, adversary=PLAYING), tmp_path / "run")
    training = training_of(run)
    assert [each.label for each in training._volumes(training.split.unlabelled)] == [None, None]
    assert all(each.label is not None for each in training._volumes(training.split.train))


def test_with_nothing_listed_a_case_without_labels_stays_an_error(balls, tmp_path):
    with pytest.raises(DatasetError, match=r"1 of 6 cases have no label map, e\.g\. .*ball_03"):
        compose_run.start(tiny(balls, tmp_path, adversary=PLAYING), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "wasserstein"}, r"2 unlabelled cases can't join with adversary\.loss wasserstein, which gives no"),
        ({"discriminator": {"name": "segan"}}, r"2 unlabelled cases can't join with adversary\.loss segan_l1"),
    ],
)
@pytest.mark.parametrize("way", ["listed", "withheld"])
def test_an_adversary_without_confidence_refuses_unlabelled_cases_before_it_trains(
    balls, whole, tmp_path, changes, said, way
):
    sections = {"data": LISTED} if way == "listed" else {"split": {"withhold": 0.5}}
    root = balls if way == "listed" else whole
    with pytest.raises(DatasetError, match=said) as error:
        compose_run.start(tiny(root, tmp_path, adversary={**PLAYING, **changes}, **sections), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_folds_train_with_withheld_labels_and_test_every_case_once(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(compose_run, "train_and_test", lambda run, *rest, **options: [])
    monkeypatch.setattr(compose_run, "sum_up", lambda *rest: None)
    monkeypatch.setattr(compose_run, "choose_together", lambda *rest, **options: None)
    monkeypatch.setattr(compose_run, "calibrate_folds", lambda *rest, **options: None)
    config = tiny(whole, tmp_path, split={"folds": 2, "withhold": 0.4}, adversary=PLAYING)
    compose_run.cross_validate(config, tmp_path / "folds")
    splits = [Split.load(tmp_path / "folds" / f"fold_{fold}" / "split.json") for fold in range(2)]
    assert sorted(splits[0].test + splits[1].test) == names()
    for split in splits:
        assert len(split.unlabelled) == 1
        assert not set(split.unlabelled) & {*split.train, *split.validation, *split.test}


# ---------------------------------------------------------------- the audit


def test_an_audit_does_not_fault_listed_cases(balls, tmp_path):
    config = tiny(balls, tmp_path)
    listed = config.data.model_copy(update={"unlabelled": ("ball_03", "ball_04")})
    audit = audit_dataset(read_dataset(listed))
    assert audit.errors == ()
    assert [fact.id for fact in audit.facts] == names()
    assert [fact.id for fact in audit.facts if not fact.label_voxels] == ["ball_03", "ball_04"]
    faults = audit_dataset(read_dataset(config.data, complete=False)).errors
    assert {finding.case for finding in faults} == {"ball_03", "ball_04"}


@pytest.mark.parametrize(("listed", "code"), [(["ball_03", "ball_04"], 0), ("error", 1)])
def test_the_audit_tool_knows_the_listed_cases_of_a_config(balls, tmp_path, monkeypatch, listed, code):
    config = tiny(balls, tmp_path, data={"unlabelled": listed})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    spec = importlib.util.spec_from_file_location("audit_data", AUDIT)
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "audit_data", tool)
    options = ["--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "out"), "--workers", "1"]
    monkeypatch.setattr("sys.argv", [str(AUDIT), *options])
    spec.loader.exec_module(tool)
    assert tool.main() == code

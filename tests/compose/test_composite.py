"""Runs of several networks: views fused, cascades whose second stage sees what the first one leaves."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from tiny_data import make_balls, names, tiny

from segmed.builders.datasets import build_dataset
from segmed.builders.ensembles import members_of
from segmed.builders.segmenters import network_segmenter
from segmed.builders.trained import load_run, load_together
from segmed.compose import run as compose_run
from segmed.compose.composition import Composition
from segmed.compose.prepare import member_config
from segmed.config import SegmentationConfig, StageConfig
from segmed.config.reading import load_config, validate
from segmed.config.shipped import find_config
from segmed.data.preprocess import read_case
from segmed.data.splits import Split
from segmed.data.vessel_phantom import make_vessel_phantom
from segmed.errors import ConfigError, DatasetError, RunError
from segmed.labels import IGNORE
from segmed.runs import Run, read_config
from segmed.segmenters.cascade import Cascade
from segmed.segmenters.combine import Mean, Tidied, Vote
from segmed.segmenters.trained_network import NetworkSegmenter
from segmed.volumes import read_volume

PLANES = ("axial", "coronal", "sagittal")
STAGES = {
    "coarse": {"labels": {"ball": ["shell", "core"]}, "views": PLANES},
    "fine": {"labels": {"core": ["core"]}, "views": ["axial", "volume"], "fuse": "mean"},
    "region": ["ball"],
    "rest": "shell",
    "margin_mm": 1.0,
    "folds": 2,
}
FLAT = {"patches": {"dims": 2, "size": [8, 8], "foreground": 1.0}, "train": {"epochs": 12, "learning_rate": 0.01}}


def import_tool(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "tools" / f"{name}.py")
    tool = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))  # where pydantic looks for names
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return make_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture(scope="module")
def cascade(balls, tmp_path_factory):
    """A trained cascade."""
    folder = tmp_path_factory.mktemp("runs") / "cascade"
    compose_run.run(tiny(balls, folder.parent, cascade=STAGES, **FLAT), folder)
    return Run(folder)


def test_one_command_trains_every_network_and_tests_the_whole_once(cascade):
    members = [f"coarse/{plane}" for plane in PLANES] + ["fine/axial", "fine/volume"]
    members += [f"coarse/without_fold_{fold}/{plane}" for fold in (0, 1) for plane in PLANES]
    for member in members:
        assert (cascade.path / member / "weights" / "best.safetensors").is_file(), member
        assert not (cascade.path / member / "test").exists()
    assert {row.split(",")[0] for row in (cascade.test / "cases.csv").read_text().splitlines()[1:]} == set(
        Split.load(cascade.split).test
    )
    assert (cascade.path / "report.html").is_file()


def test_the_page_has_the_curves_of_every_network(cascade):
    page = cascade.page.read_text()
    names = ["coarse/axial", "coarse/without_fold_1/sagittal", "fine/volume"]
    assert page.count("losses and validation over the steps.</figcaption>") == 11
    assert all(f"{name}: losses and validation" in page for name in names)


def test_the_plan_of_a_cascade_is_that_of_the_whole_and_stands_in_its_log(cascade, balls, tmp_path, capsys):
    compose_run.show_plan(tiny(balls, tmp_path, cascade=STAGES, **FLAT))
    plan = capsys.readouterr().out
    assert "coarse: axial, coronal, sagittal, 3 times: with all training cases, and without each of 2 folds" in plan
    assert "fine: axial, volume\n" in plan
    assert "training: 11 networks × 12 epochs = 132 epochs" in plan
    assert "network.encoder" not in plan
    assert "training: 11 networks × 12 epochs = 132 epochs" in cascade.log.read_text()


@pytest.mark.parametrize(
    ("coarse", "fine", "words"),
    [
        (0.3, 0.3, "11 networks × 0.3 min = 3.3 min"),
        (0.3, 0.5, "9 networks × 0.3 min + 2 networks × 0.5 min = 3.7 min"),
    ],
)
def test_the_budget_of_a_cascade_is_said_as_a_whole(balls, tmp_path, coarse, fine, words):
    stages = {
        **STAGES,
        "coarse": {**STAGES["coarse"], "train": {"budget_minutes": coarse}},
        "fine": {**STAGES["fine"], "train": {"budget_minutes": fine}},
    }
    whole = Composition(tiny(balls, tmp_path, cascade=stages, **FLAT), {}, "", ())
    assert whole.budget == words
    parts = [whole.part(number) for number in range(1, 12)]
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert parts[-1].before + parts[-1].share == pytest.approx(1)
    assert parts[9].before == pytest.approx(9 * coarse / (9 * coarse + 2 * fine))


def test_the_run_is_loaded_as_what_it_is_made_of(cascade):
    segmenter = load_run(cascade.path, device="cpu")
    assert isinstance(segmenter, Cascade)
    assert isinstance(segmenter.coarse, Vote)
    assert isinstance(segmenter.fine, Mean)
    assert segmenter.labels.names == ("shell", "core")
    assert segmenter.coarse.labels.names == ("ball",)
    assert segmenter.fine.labels.names == ("core",)


def test_no_coarse_network_of_a_fold_has_seen_the_cases_whose_regions_it_found(cascade):
    whole = Split.load(cascade.split)
    found: list[str] = []
    for fold in (0, 1):
        part = Split.load(cascade.path / "coarse" / f"without_fold_{fold}" / "split.json")
        assert part.validation == whole.validation
        assert not set(part.train) & set(part.test)
        assert set(whole.test) <= set(part.test)
        found += set(part.test) - set(whole.test)
    assert sorted(found) == sorted(whole.train)


def test_the_fine_stage_learns_from_volumes_that_are_zero_outside_the_regions(cascade, balls):
    whole = Split.load(cascade.split)
    fine = Split.load(cascade.path / "fine" / "split.json")
    assert set(fine.train) <= set(whole.train)
    assert set(fine.validation) <= set(whole.validation)
    assert not fine.test
    for case in fine.train:
        image = nib.load(cascade.path / "fine" / "data" / case / f"{case}_MR.nii.gz").get_fdata()
        original = nib.load(balls / f"{case}.nii.gz").get_fdata()
        label = nib.load(cascade.path / "fine" / "data" / case / f"{case}_label.nii.gz").get_fdata()
        inside = image != 0
        assert 0 < inside.mean() < 1
        assert np.allclose(image[inside], original[inside])
        assert not label[~inside].any()


def test_labels_of_a_stage_are_merges_and_the_others_are_background(cascade):
    coarse = read_config(Run(cascade.path / "coarse" / "axial"))
    assert coarse.data.labels == {"ball": [1, 2]}
    fine = read_config(Run(cascade.path / "fine" / "volume"))
    assert fine.data.labels == {"core": [2]}
    assert fine.data.background == (1,)
    assert (coarse.patches.dims, coarse.patches.plane, fine.patches.dims) == (2, "axial", 3)


def test_a_composed_run_predicts_on_the_native_grid(cascade, balls):
    volume = read_volume(balls / f"{names()[0]}.nii.gz")
    found = load_run(cascade.path, device="cpu").probabilities(volume)
    assert found.shape == (3, 16, 16, 16)
    assert np.allclose(found.as_tensor().sum(0), 1, atol=1e-5)


def test_the_tool_predicts_what_the_test_found(cascade, balls, tmp_path, monkeypatch):
    tool = import_tool("predict")
    case = Split.load(cascade.split).test[0]
    options = ["--run", str(cascade.path), "--input", str(balls / f"{case}.nii.gz"), "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["predict.py", *options])
    assert tool.main() == 0
    found, tested = (nib.load(folder / f"{case}.nii.gz").get_fdata() for folder in (tmp_path, cascade.predictions))
    assert np.array_equal(found, tested)
    monkeypatch.setattr("sys.argv", ["predict.py", *options, "--mirror", "--overwrite"])
    with pytest.raises(ConfigError, match="made of several networks"):
        tool.main()


def test_a_network_that_lost_its_weights_is_named(cascade, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(cascade.path, copy)
    (member,) = members_of(copy)
    assert member.digest == members_of(cascade.path)[0].digest
    weights = Run(copy / "coarse" / "coronal").weights("best")
    weights.unlink()
    with pytest.raises(RunError, match=f"weights {weights} are not there"):
        _ = member.digest


def test_a_killed_cascade_goes_on_where_it_was(cascade, tmp_path, capsys):
    """The last network and all that follows are gone; what was trained stays to the bit."""
    copy = tmp_path / "copy"
    shutil.copytree(cascade.path, copy)
    for gone in ("fine/volume", "test", "predictions", "report.html"):
        path = copy / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copy / "fine" / "volume").mkdir()
    (copy / "fine" / "volume" / "audit.json").write_text("{}")  # of a start that was killed
    kept = (copy / "fine" / "axial" / "weights" / "best.safetensors").read_bytes()
    compose_run.resume(copy)
    assert (copy / "fine" / "axial" / "weights" / "best.safetensors").read_bytes() == kept
    again = (copy / "fine" / "volume" / "weights" / "best.safetensors").read_bytes()
    assert again == (cascade.path / "fine" / "volume" / "weights" / "best.safetensors").read_bytes()
    assert json.loads((copy / "test" / "summary.json").read_text()) == json.loads(
        (cascade.test / "summary.json").read_text()
    )


def test_several_planes_of_one_stage_vote(balls, tmp_path):
    stage = {"views": ["axial", "sagittal"], "at_least": 1, "smallest_ml": 0.004, "closing_mm": 1.0}
    sections = {"patches": {"dims": 2, "size": [8, 8]}, "inference": {"largest_component": ()}}
    compose_run.run(tiny(balls, tmp_path, ensemble=stage, **sections), tmp_path / "run")
    segmenter = load_run(tmp_path / "run", device="cpu")
    assert isinstance(segmenter, Vote)
    assert segmenter.at_least == 1
    assert [type(member) for member in segmenter.segmenters] == [Tidied, Tidied]
    by_itself = load_run(tmp_path / "run" / "axial", device="cpu")  # it is validated without small pieces, too
    assert isinstance(by_itself, Tidied)
    assert isinstance(by_itself.segmenter, NetworkSegmenter)
    assert (tmp_path / "run" / "axial" / "weights" / "best.safetensors").is_file()


def test_reference_regions_need_no_folds(balls, tmp_path):
    stages = {**STAGES, "learn_from": "reference", "coarse": {**STAGES["coarse"], "views": ["axial"]}, "roi": "crop"}
    stages["fine"] = {**STAGES["fine"], "views": ["axial"]}
    compose_run.run(tiny(balls, tmp_path, cascade=stages, patches={"dims": 2, "size": [8, 8]}), tmp_path / "run")
    assert not list((tmp_path / "run" / "coarse").glob("without_fold_*"))
    config = read_config(Run(tmp_path / "run"))
    dataset = build_dataset(config)
    case = Split.load(tmp_path / "run" / "fine" / "split.json").train[0]
    label = nib.load(tmp_path / "run" / "fine" / "data" / case / f"{case}_label.nii.gz")
    original = nib.load(next(c for c in dataset.cases if c.id == case).label.path).get_fdata()
    assert max(label.shape) < 16
    assert (label.get_fdata() > 0).sum() == (original > 0).sum()


@pytest.mark.parametrize("ignore", [(7,), (9, 7)])
def test_what_is_ignored_stays_ignored_in_the_fine_stage(tmp_path, ignore):
    root = make_balls(tmp_path / "data")
    for file in root.glob("*_label.nii.gz"):
        label = np.asarray(nib.load(file).dataobj).copy()
        label[label == 2] = np.where(np.arange((label == 2).sum()) % 2, 7, 2)
        nib.save(nib.Nifti1Image(label, np.eye(4)), file)
    stages = {**STAGES, "learn_from": "reference", "coarse": {**STAGES["coarse"], "views": ["axial"]}}
    stages["fine"] = {**STAGES["fine"], "views": ["axial"]}
    flat = {"patches": {"dims": 2, "size": [8, 8]}, "data": {"ignore": ignore}}
    compose_run.run(tiny(root, tmp_path, cascade=stages, **flat), tmp_path / "run")
    fine = read_config(Run(tmp_path / "run" / "fine" / "axial"))
    dataset = build_dataset(fine)
    for case in dataset.cases:
        label = read_case(case, dataset)[1].numpy()
        original = nib.load(root / f"{case.id}_label.nii.gz").get_fdata()
        assert (label == IGNORE).sum() == (original == 7).sum() > 0


def test_colours_go_through_a_cascade(tmp_path):
    make_vessel_phantom(tmp_path / "eyes", cases=8, seed=0, size=(64, 64))
    stages = {
        "coarse": {"labels": {"vessel": ["vessel"]}, "views": ["axial"]},
        "fine": {"labels": {"vessel": ["vessel"]}, "views": ["axial"]},
        "region": ["vessel"],
        "learn_from": "reference",
    }
    drive = load_config(find_config("drive"))
    data = drive.data.model_copy(update={"root": tmp_path / "eyes"})
    small = tiny(tmp_path, tmp_path, cascade=stages, patches={"dims": 2, "size": [16, 16]})
    small = small.model_copy(update={"data": data, "split": drive.split})
    compose_run.run(small, tmp_path / "run")
    fine = read_config(Run(tmp_path / "run" / "fine" / "axial"))
    assert fine.data.images == ("red", "green", "blue")
    dataset = build_dataset(fine)
    image, label = read_case(dataset.cases[0], dataset)
    assert not torch.equal(image[0], image[1])
    assert set(label.unique().tolist()) <= {0, 1, IGNORE}


def test_thick_slices_leave_the_in_plane_axis_alone(tmp_path, capsys):
    root = make_balls(tmp_path / "thick", cases=6)
    for file in root.glob("*.nii.gz"):
        volume = nib.load(file)
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj)[..., 5:11], np.diag([1.0, 1.0, 10.0, 1.0])), file)
    made = compose_run.start(tiny(root, tmp_path, ensemble={}, patches={"dims": 2, "size": [8, 8]}), tmp_path / "run")
    assert read_config(made).ensemble.views == ("axial",)
    assert "axial (slices 10 mm apart show nothing across them: the in-plane slices alone)" in capsys.readouterr().out


def test_thin_slices_are_seen_in_all_planes(balls, tmp_path):
    made = compose_run.start(tiny(balls, tmp_path, ensemble={}, patches={"dims": 2, "size": [8, 8]}), tmp_path / "run")
    assert read_config(made).ensemble.views == PLANES


def test_any_view_may_have_a_network_of_its_own(balls, tmp_path):
    stage = StageConfig.model_validate(
        {
            "views": ["axial", "volume"],
            "network": {"name": "unet", "encoder": {"channels": [4, 4]}},
            "networks": {"volume": {"name": "segresnet", "init_filters": 8}},
        }
    )
    config = tiny(balls, tmp_path)
    given = {"data": config.data, "split": tmp_path / "split.json"}
    assert member_config(config, stage, "axial", **given).network.encoder.channels == (4, 4)
    volume = member_config(config, stage, "volume", **given)
    assert volume.network.name == "segresnet"
    assert volume.patches.dims == 3
    assert volume.patches.size == (8, 8, 8)
    assert member_config(config, stage, "axial", **given).patches.size == "auto"


def test_a_network_of_a_stage_is_validated_without_the_pieces_that_the_stage_drops(balls, tmp_path):
    config = tiny(balls, tmp_path, data={"labels": {"shell": 1, "core": 2}}, inference={"smallest_ml": {"shell": 2.0}})
    given = {"data": config.data, "split": tmp_path / "split.json"}
    plain, tidied = (
        member_config(config, StageConfig(views=("axial",), smallest_ml=ml), "axial", **given) for ml in (0.0, 0.3)
    )
    assert plain.inference.smallest_ml == {}  # those of the whole go from its result
    assert tidied.inference.smallest_ml == {"shell": 0.3, "core": 0.3}
    stage = StageConfig(views=("axial",))
    for named, own in (("auto", "auto"), (["core"], "auto"), ([], ())):
        whole = tiny(balls, tmp_path, inference={"largest_component": named})
        assert member_config(whole, stage, "axial", **given).inference.largest_component == own


@pytest.mark.parametrize(("pieces", "left"), [({"smallest_ml": {"shell": 1000.0}}, 2), ({"largest_component": []}, 1)])
def test_what_a_cascade_names_to_be_cleaned_goes_from_its_result_on_every_path(
    cascade, balls, tmp_path, monkeypatch, pieces, left
):
    """The shell is what the region is without the core: no stage has it."""
    copy = tmp_path / "cascade"
    shutil.copytree(cascade.path, copy)
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    settings["inference"] |= pieces
    (copy / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    case = Split.load(cascade.split).test[0]
    image = read_volume(balls / f"{case}.nii.gz")
    one, together = load_run(copy)(image).numpy()[0], load_together(members_of(copy))(image).numpy()[0]
    assert (one == together).all()
    assert min(set(one.ravel()) - {0}) == left
    plain = load_run(cascade.path)(image).numpy()[0]
    assert ((one == 2) == (plain == 2)).all()
    tool = import_tool("predict")
    argv = ["predict", "--run", copy, "--input", balls / f"{case}.nii.gz", "--output", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [*map(str, argv)])
    assert tool.main() == 0
    assert (np.asarray(nib.load(tmp_path / "out" / f"{case}.nii.gz").dataobj) == one).all()


def test_networks_of_a_cascade_clean_what_they_chose_whatever_settings_the_whole_is_given(cascade, balls):
    image = read_volume(balls / f"{Split.load(cascade.split).test[0]}.nii.gz")
    given = read_config(cascade).inference.model_copy(update={"largest_component": ("shell",)})
    assert set(load_run(cascade.path, inference=given)(image).numpy().ravel()) == {0, 1, 2}


@pytest.mark.parametrize(
    "load", [lambda path, **o: load_run(path, **o), lambda path, **o: load_together(members_of(path), **o)]
)
def test_settings_that_are_given_reach_every_network_of_a_cascade(cascade, monkeypatch, load):
    given = read_config(cascade).inference.model_copy(update={"overlap": 0.75})
    overlaps = []

    def note(*parts, inference, **options):
        overlaps.append(inference.overlap)
        return network_segmenter(*parts, inference=inference, **options)

    monkeypatch.setattr("segmed.builders.trained.network_segmenter", note)
    load(cascade.path, inference=given)
    assert overlaps == [0.75] * 5


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_what_no_stage_can_broaden_is_refused_before_the_first_network(balls, tmp_path, stage):
    stages = {**STAGES, stage: {**STAGES[stage], "augment": {"name": "none", "broaden": True}}}
    with pytest.raises(ConfigError, match=r"augment\.broaden true has no preset to go on from"):
        compose_run.run(tiny(balls, tmp_path, cascade=stages, **FLAT), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["init_network", "init_encoder"])
def test_a_run_that_one_of_the_networks_can_not_begin_with_is_refused_before_the_first(balls, tmp_path, cascade, key):
    flat = cascade.path / "coarse" / "axial"
    views = {"views": ["axial", "volume"], "networks": {"volume": {"name": "dynunet"}}}
    for ensemble, words in (
        ({"views": ["axial", "volume"]}, r"is in 2D, network volume in 3D: name a run in 3D, or take its encoder"),
        (views, r"network volume is dynunet, which can't begin with a U-Net: choose unet"),
    ):
        config = tiny(balls, tmp_path, ensemble=ensemble, patches={"size": "auto"}, **{key: str(flat)})
        if key == "init_encoder" and ensemble is not views:
            compose_run.show_plan(config)  # an encoder goes from 2D to 3D
            continue
        with pytest.raises(RunError, match=words):
            compose_run.run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region": []}, "cascade.region is empty"),
        ({"region": ["heart"]}, "cascade.region names 'heart', cascade.coarse.labels and regions have ball"),
        ({"fine": {}}, "cascade.fine.labels is auto"),
        ({"coarse": {"labels": {"ball": ["shell"]}, "views": ["axial", "axial"]}}, "name one or more, each once"),
        ({"fine": {"labels": {"core": ["core"]}, "views": ["axial"], "at_least": 2}}, "at_least 2 of 1 views"),
        (
            {"fine": {"labels": {"core": ["core"]}, "views": ["axial"], "networks": {"volume": {"name": "unet"}}}},
            "names the view volume",
        ),
    ],
)
def test_stages_that_do_not_fit_are_refused_in_one_line(balls, tmp_path, changes, message):
    data = tiny(balls, tmp_path).model_dump(mode="json") | {"cascade": {**STAGES, **changes}}
    with pytest.raises(ConfigError, match=message) as caught:
        validate(SegmentationConfig, data, where="x.yaml")
    assert "\n" not in str(caught.value)


def test_an_ensemble_beside_a_cascade_is_refused(balls, tmp_path):
    data = tiny(balls, tmp_path).model_dump(mode="json") | {"cascade": STAGES, "ensemble": {}}
    with pytest.raises(ConfigError, match="exclude each other"):
        validate(SegmentationConfig, data, where="x.yaml")


@pytest.mark.parametrize("changes", [{"rest": "wall"}, {"fine": {"labels": {"scar": ["scar"]}, "views": ["axial"]}}])
def test_labels_that_the_data_lack_are_refused_before_anything_is_made(balls, tmp_path, changes):
    config = tiny(balls, tmp_path, cascade={**STAGES, **changes}, patches={"dims": 2, "size": [8, 8]})
    with pytest.raises(DatasetError, match=r"that data\.labels lacks: it has shell, core"):
        compose_run.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

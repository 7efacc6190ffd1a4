"""Configs of several networks: each plans, builds and learns; the cascade of Zabihollahy et al. is as published."""

import json
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from planned_configs import COMPOSED, CONFIGS, check_learning, facts_of, planned, two_steps, with_images

from segmed.builders.architectures import build_network
from segmed.builders.segmenters import build_cascade, load_stage, stages_of
from segmed.compose import run as compose_run
from segmed.compose.prepare import member_config, useful_views
from segmed.config import SegmentationConfig, known
from segmed.config.reading import load_config
from segmed.labels import LabelSet
from segmed.runs import Run, read_config
from segmed.segmenters.combine import Tidied, Vote
from segmed.segmenters.region import Everywhere

PLANES = ("axial", "coronal", "sagittal")
SEG = COMPOSED[0].parent
WIDE, NARROW = (32, 64, 128, 256, 512), (16, 32, 64, 128, 256)
LAYOUT = {"name": "pattern", "images": {"LGE": "{case}/{case}_LGE.nii.gz"}, "label": "{case}/{case}_gd.nii.gz"}


@cache
def decided(path: Path) -> SegmentationConfig:
    """A composed config whose views are those that the planner finds useful on a fingerprint like its data."""
    config = with_images(load_config(path))
    views, _ = useful_views(facts_of(path.stem, known(config.data.images)), "axial")
    stages = {
        name: stage.model_copy(update={"views": views}) if stage.views == "auto" else stage
        for name, stage in stages_of(config)
    }
    if config.cascade is None:
        return config.model_copy(update={"ensemble": stages[""]})
    return config.model_copy(update={"cascade": config.cascade.model_copy(update=stages)})


def of_one(path: Path, name: str, view: str) -> SegmentationConfig:
    """The config of one network of a stage."""
    config = decided(path)
    return member_config(config, dict(stages_of(config))[name], view, data=config.data, split=Path("split.json"))


@cache
def member(path: Path, name: str, view: str) -> SegmentationConfig:
    """The same, planned."""
    return planned(of_one(path, name, view), facts_of(path.stem, known(decided(path).data.images)))


MEMBERS = [(path, name, view) for path in COMPOSED for name, stage in stages_of(decided(path)) for view in stage.views]


def members_of(name: str) -> dict[tuple[str, str], SegmentationConfig]:
    """(stage, view) -> the planned config of its network."""
    return {(stage, view): member(path, stage, view) for path, stage, view in MEMBERS if path.stem == name}


@pytest.mark.parametrize(
    ("path", "stage", "view"), MEMBERS, ids=["-".join(filter(None, (p.stem, s, v))) for p, s, v in MEMBERS]
)
def test_every_network_of_a_composed_config_plans_builds_and_learns(path, stage, view):
    config = member(path, stage, view)
    assert not config.composed
    assert (config.patches.dims, config.patches.plane) == (2, view)
    check_learning(two_steps(config))


@pytest.mark.parametrize("path", COMPOSED, ids=lambda path: path.stem)
def test_the_stages_of_a_composed_config_make_one_segmenter_of_its_labels(path):
    config = decided(path)

    def load(folder: Path) -> Everywhere:
        made = Everywhere()
        made.labels = LabelSet.from_config(known(of_one(path, folder.parent.name, folder.name).data.labels))
        return made

    stages = [load_stage(Path(name), stage, load) for name, stage in stages_of(config)]
    whole = build_cascade(config, *stages) if config.cascade else stages[0]
    assert whole.labels.names == ("myocardium", "blood_pool", "rv", "scar")


# ---------------------------------------------------------------- as published


def widths(name: str) -> dict[tuple[str, str], tuple[int, ...]]:
    return {key: config.network.encoder.channels for key, config in members_of(name).items()}


def test_cmpunet_has_three_planes_a_stage_and_16_filters_in_two_planes_of_scar():
    expected = {("coarse", view): WIDE for view in PLANES}
    expected |= {("fine", "axial"): WIDE, ("fine", "coronal"): NARROW, ("fine", "sagittal"): NARROW}
    assert widths("lge_cmpunet_published") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lge_cmpunet", [(stage, view) for stage in ("coarse", "fine") for view in PLANES]),
        ("lge_ccunet", [("coarse", "axial"), ("fine", "axial")]),
        ("lge_dmpunet", [("", view) for view in PLANES]),
        ("lge_dcunet", [("", "axial")]),
    ],
)
def test_the_rows_of_the_comparison_differ_by_planes_and_cascade_alone(name, expected):
    assert widths(name) == dict.fromkeys(expected, NARROW)
    whole = load_config(SEG / f"{name}.yaml")
    volume = load_config(SEG / "lge_unet3d.yaml")
    assert (whole.network.encoder, whole.augment) == (volume.network.encoder, volume.augment)
    for (stage, _), config in members_of(name).items():
        assert config.augment.name == ("light" if stage == "coarse" else "full")  # a coarse stage has little time
        assert (config.loss, config.split.by) == (volume.loss, volume.split.by)
        assert (config.train.optimiser, config.train.batch_size) == (volume.train.optimiser, 10)


ROWS = ("lge_cmpunet", "lge_ccunet", "lge_dmpunet", "lge_dcunet", "lge_unet3d", "lge_patchcnn")


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_comparison_has_the_same_minutes(name):
    """Coarse networks are trained for all training cases, and where stage two learns out of fold once more a fold."""
    whole = load_config(SEG / f"{name}.yaml")
    minutes = 0.0 if whole.composed else whole.train.budget_minutes
    for stage_name, stage in stages_of(whole):
        planes = len(PLANES) if stage.views == "auto" else len(stage.views)
        own = stage.train or whole.train
        later = stage.later or own
        out_of_fold = stage_name == "coarse" and whole.cascade.learn_from == "out_of_fold"
        trainings = 1 + whole.cascade.folds if out_of_fold else 1
        minutes += trainings * (own.budget_minutes + (planes - 1) * later.budget_minutes)
    assert minutes == pytest.approx(36, abs=1)


PUBLISHED = ("lge_cmpunet_published", "myops_dcunet")


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_are_trained_as_published(name):
    """Five levels, batch norm, dropout 0.5 at the deepest, soft Dice, Adadelta, batch 10, 100 epochs."""
    whole = with_images(load_config(SEG / f"{name}.yaml"))
    made = members_of(name) or {("", ""): planned(whole, facts_of(name, known(whole.data.images)))}
    for (stage, view), config in made.items():
        across = {"sagittal": 0, "coronal": 1}.get(view, 2) if stage != "fine" else 2
        assert config.preprocess.slices_across == across  # median_minmax scales the slices that the network sees
        # not inside walls: slice by slice one without scar would be stretched, too
        assert config.preprocess.intensity == ("zscore_nonzero" if stage == "fine" else "median_minmax")
        assert config.loss.name == "dice"
        assert (config.train.optimiser, config.train.schedule, config.train.epochs) == ("adadelta", "constant", 100)
        assert config.train.learning_rate == 1.0
        dims = config.patches.dims
        assert config.train.batch_size == 10 or dims == 3
        assert (config.network.encoder.norm, config.network.encoder.deep_dropout) == ("batch", 0.5)
        network = build_network(config.network, in_channels=1, out_channels=2, dims=dims, device="meta")
        levels = network.encoder.levels
        assert len(levels) == 5
        assert [sum(isinstance(m, _convolution(dims)) for m in level.modules()) for level in levels] == [2] * 5
        drops = [
            {m.p for m in level.modules() if isinstance(m, torch.nn.Dropout2d | torch.nn.Dropout3d)} for level in levels
        ]
        assert drops == [set(), set(), set(), {0.5}, {0.5}]
        norms = [m for m in network.modules() if "Norm" in type(m).__name__]
        assert norms
        assert all(isinstance(m, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d) for m in norms)
    assert whole.split.validation == 0.2


def test_whole_slices_are_shown_as_published_and_never_to_instance_norm():
    shown = {path.stem for path in COMPOSED if load_config(path).inference.window == "slice"}
    assert shown == {"lge_cmpunet", "lge_cmpunet_published", "lge_ccunet", "lge_dmpunet", "lge_dcunet", "lge_patchcnn"}
    for name in shown:
        for config in members_of(name).values():
            assert config.inference.window == "slice"
            assert getattr(config.network, "norm", "none") != "instance"


def _convolution(dims: int) -> type[torch.nn.Module]:
    return torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d


def test_planes_are_tidied_and_two_of_three_must_agree():
    for name, stage in stages_of(decided(SEG / "lge_cmpunet_published.yaml")):
        vote = load_stage(Path(name), stage, lambda _: Everywhere())
        assert isinstance(vote, Vote)
        assert (len(vote.segmenters), vote.at_least) == (3, 2)
        for plane in vote.segmenters:
            assert isinstance(plane, Tidied)
            assert set(plane.smallest_ml.values()) == {0.05}
            assert plane.closing_mm > 0


def test_scar_is_learned_where_the_first_stage_will_look():
    cascade = load_config(SEG / "lge_cmpunet_published.yaml").cascade
    assert (cascade.region, cascade.rest, cascade.roi) == (("lv_wall",), "myocardium", "mask")
    assert cascade.learn_from == "out_of_fold"
    for name in ("lge_cmpunet", "lge_ccunet"):  # bright scar at the cavity is in the region, whichever it is taken for
        ours = load_config(SEG / f"{name}.yaml").cascade
        assert (ours.region, ours.rest, ours.learn_from) == (("lv_wall", "blood_pool"), None, "out_of_fold")
    assert load_config(SEG / "lge_patchcnn.yaml").cascade.learn_from == "reference"
    assert {key: config.network.name for key, config in members_of("lge_patchcnn").items()} == {
        ("coarse", "axial"): "unet",
        ("fine", "axial"): "patch_cnn",
    }


# ---------------------------------------------------------------- what a run decides on its own data


def hearts(folder: Path, shape, spacing_mm, values, *, turned=()) -> Path:
    """Six cases of a square wall around a pool, some of them stored with their last axis first."""
    for number in range(6):
        name = f"case_{number}"
        label = np.zeros(shape, np.int16)
        for (low, high), value in zip(((4, 20), (8, 16)), values[:2], strict=True):
            label[low:high, low:high] = value
        label[4:8, 8:14], label[:3, :6] = values[2:]
        image = label % 7 * 100 + np.random.default_rng(number).normal(
            300, 60, shape
        )  # of noise enough that no two are twins
        affine = np.diag([*spacing_mm, 1.0])
        for kind, voxels in (("LGE", image.astype(np.float32)), ("gd", label)):
            if number in turned:
                voxels, stored = np.moveaxis(voxels, 2, 1), affine[:, [0, 2, 1, 3]][[0, 2, 1, 3]]
            else:
                stored = affine
            (folder / name).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.ascontiguousarray(voxels), stored), folder / name / f"{name}_{kind}.nii.gz")
    return folder


def begun(name: str, root: Path, **overrides) -> Run:
    given = {"data.root": str(root), "data.layout": LAYOUT, "runs": str(root.parent), **overrides}
    given["leaks.check"] = False  # all cases are one heart in other noise
    return compose_run.start(load_config(SEG / f"{name}.yaml", given), root.parent / "run")


LGE_VALUES, MYOPS_VALUES = (1, 2, 4, 3), (200, 500, 2221, 600)


def test_on_an_isotropic_grid_cmpunet_plans_three_planes_a_stage(tmp_path):
    run = begun("lge_cmpunet", hearts(tmp_path / "data", (24, 32, 24), (1.3, 1.3, 1.3), LGE_VALUES))
    cascade = read_config(run).cascade
    assert (cascade.coarse.views, cascade.fine.views) == (PLANES, PLANES)
    reasons = json.loads(run.plan.read_text())["reasons"]
    why = "spacing 1.3 × 1.3 × 1.3 mm: every plane shows shapes"
    assert reasons == {"cascade.coarse.views": why, "cascade.fine.views": why}


@pytest.mark.parametrize(("turned", "view"), [((), "axial"), ((1, 3, 5), "slices")])
def test_on_thick_slices_cmpunet_plans_these_alone_and_says_why(tmp_path, turned, view, capsys):
    root = hearts(tmp_path / "data", (40, 40, 6), (1.5, 1.5, 12.0), MYOPS_VALUES, turned=turned)
    run = begun("myops_cmpunet", root)
    cascade = read_config(run).cascade
    assert (cascade.coarse.views, cascade.fine.views) == ((view,), (view,))
    why = "slices 12 mm apart show nothing across them: the in-plane slices alone"
    assert set(json.loads(run.plan.read_text())["reasons"].values()) == {why}
    assert capsys.readouterr().out.count(f"{view} ({why})") == 2


def test_networks_of_planes_that_thick_slices_do_not_have_are_left_out(tmp_path):
    root = hearts(tmp_path / "data", (40, 40, 6), (1.5, 1.5, 12.0), LGE_VALUES)
    fine = read_config(begun("lge_cmpunet_published", root)).cascade.fine
    assert (fine.views, fine.networks) == (("axial",), {})


def test_every_config_is_either_of_one_network_or_composed():
    assert COMPOSED
    assert all(load_config(path).composed == (path in COMPOSED) for path in CONFIGS)

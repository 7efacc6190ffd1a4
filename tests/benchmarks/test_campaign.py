"""python -m benchmarks.campaign: the same files for all, plans of the peers, tables of what is over."""

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from tiny_data import make_balls, names, tiny

from benchmarks.campaign.contenders import OURS, SETS, Turn, _begin, done, run_recipe, run_segmed
from benchmarks.campaign.dynunet_recipe import _predict, kernels_and_strides
from benchmarks.campaign.fold_files import collect, prepared_fold, read_parts, write_fold
from benchmarks.campaign.kept_settings import SETTINGS
from benchmarks.campaign.tables import write_tables
from benchmarks.campaign.turns import check_begun, take_turns
from benchmarks.processes import PeerError
from segmed.compose import run as compose_run
from segmed.config import DataConfig, PhantomLayout, SegmentationConfig
from segmed.config.reading import load_config
from segmed.data.cases import cases_of
from segmed.segment.prepare import Prepared
from segmed.volumes import read_label_volume, read_volume


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    root = tmp_path_factory.mktemp("hearts") / "phantom"
    config = SegmentationConfig(
        data=DataConfig(
            root=root, layout=PhantomLayout(cases=6), labels={"myocardium": 1, "blood_pool": [2, 3], "scar": 4}
        )
    )
    return prepared_fold(config, folds=3, fold=1)


@pytest.fixture(scope="module")
def fold(ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fold(tmp_path_factory.mktemp("fold"), ready)


def test_no_contender_sees_the_label_of_a_test_case(ready: Prepared, fold: Path):
    tested = set(ready.split.test)
    assert tested
    assert {file.name.removesuffix(".nii.gz") for file in (fold / "labelsTr").iterdir()} == {
        case.id for case in ready.dataset.cases
    } - tested
    assert {file.name.removesuffix("_0000.nii.gz") for file in (fold / "imagesTs").iterdir()} == tested
    assert read_parts(fold)["test"] == list(ready.split.test)


def test_labels_are_numbered_from_one_and_come_back_with_the_values_of_the_files(
    ready: Prepared, fold: Path, tmp_path: Path
):
    case = cases_of(ready.dataset, ready.split.train)[0]
    assert case.label is not None
    places = read_label_volume(fold / "labelsTr" / f"{case.id}.nii.gz")
    truth = read_label_volume(case.label)
    assert set(np.unique(places)) <= {0, 1, 2, 3}
    collect(fold / "labelsTr", tmp_path / "out", [case], ready.dataset.labels)
    back = read_label_volume(tmp_path / "out" / f"{case.id}.nii.gz")
    merged = torch.where(truth == 3, 2, truth)  # the first value of a label stands for all of its values
    assert torch.equal(back.as_tensor(), merged.as_tensor())
    assert torch.allclose(back.affine, truth.affine)


def test_dataset_json_names_channels_and_labels(fold: Path):
    about = json.loads((fold / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "myocardium": 1, "blood_pool": 2, "scar": 3}
    assert len(about["channel_names"]) == 1
    assert about["numTraining"] == len(list((fold / "labelsTr").iterdir()))


@pytest.mark.parametrize(
    ("patch", "spacing_mm", "levels", "last_stride", "first_kernel"),
    [
        ((32, 64, 32), (1.0, 1.0, 1.0), 5, [1, 2, 1], [3, 3, 3]),
        ((128, 128, 8), (1.5, 1.5, 10.0), 6, [2, 2, 1], [3, 3, 1]),
    ],
)
def test_dynunet_halves_an_axis_while_it_is_fine_and_long_enough(patch, spacing_mm, levels, last_stride, first_kernel):
    kernels, strides = kernels_and_strides(patch, spacing_mm)
    assert (len(strides), strides[0], strides[-1], kernels[0]) == (levels, [1, 1, 1], last_stride, first_kernel)
    assert all(size % step == 0 for size, step in zip(patch, np.prod(strides, axis=0), strict=True))


def test_every_plan_of_a_set_can_be_built():
    assert all(kernels_and_strides(data.patch, data.spacing_mm) for data in SETS.values())


def test_dynunets_label_map_lies_on_the_images_own_grid(ready: Prepared, fold: Path, tmp_path: Path):
    class Threshold(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros_like(image), 100 * image], 1)  # label 1 where the image is above its mean

    about = json.loads((fold / "dataset.json").read_text())
    case = ready.split.test[0]
    options = {"spacing_mm": (2.0, 2.0, 4.0), "patch": (32, 32, 8)}
    _predict(Threshold(), fold, [case], about, options, tmp_path)
    image = read_volume(fold / "imagesTs" / f"{case}_0000.nii.gz")
    labels = read_label_volume(tmp_path / f"{case}.nii.gz")
    assert labels.shape == image.shape
    assert torch.allclose(labels.affine, image.affine, atol=1e-4)
    bright = image > image[image != 0].mean() + 0.25 * image.std()
    dark = (image < image[image != 0].mean() - 0.25 * image.std()) & (image != 0)
    assert labels[bright].float().mean() > 0.85
    assert labels[dark].float().mean() < 0.15


def test_a_failed_turn_names_the_last_line_of_its_log(fold: Path, tmp_path: Path):
    turn = Turn(tmp_path / "nnunet", fold, SETS["acdc"], 0.01, 1, 0)
    with pytest.raises(PeerError, match=r"exit code 1.*No module named.*log\.txt"):
        run_recipe(turn, "benchmarks.campaign.no_such_recipe", Path(sys.executable))
    assert done(turn.folder) is None


@pytest.mark.parametrize("who", OURS)
def test_a_contender_of_ours_is_the_sets_config_with_its_own_options(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commands: list[list[str]] = []

    def remember(command: list[str], turn: Turn) -> dict[str, float]:
        commands.append(command)
        (turn.folder / "run").mkdir()
        (turn.folder / "run" / "history.csv").write_text("step,loss\n5,0.7\n7,0.5\n")
        return {}

    monkeypatch.setattr("benchmarks.campaign.contenders._call", remember)
    turn = Turn(tmp_path / who, tmp_path, SETS["acdc"], 8.0, 1, seed=3)
    facts = run_segmed(turn, tmp_path, folds=5, fold=2)
    options = dict(zip(commands[0][2::2], commands[0][3::2], strict=True))
    network = {option[2:]: value for option, value in options.items() if option.startswith("--network.")}
    config = load_config(options["--config"], {"network.name": "unet", **network})
    assert config.network.encoder.name == {"segmed": "plain", "mednext": "mednext"}[who]
    assert (options["--fold"], options["--seed"], options["--train.budget-minutes"]) == ("2", "3", "8.0")
    assert facts["steps"] == 7


def test_a_turn_that_was_stopped_goes_on_with_its_cost_wherever_its_folder_is_and_one_without_a_run_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commands: list[list[str]] = []

    class Stopped(psutil.Popen):
        def __init__(self, command: list[str], **options: Any) -> None:
            commands.append(command)
            super().__init__([sys.executable, "-c", "pass"], **options)

        def poll(self) -> int | None:
            raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.campaign.contenders.psutil.Popen", Stopped)

    def stopped(folder: Path) -> float:
        with pytest.raises(KeyboardInterrupt):
            run_segmed(Turn(folder, tmp_path, SETS["acdc"], 8.0, 1, seed=0), tmp_path, folds=5, fold=2)
        (folder / "run").mkdir(exist_ok=True)
        (folder / "run" / "config.yaml").touch()
        return float(json.loads((folder / "spent.json").read_text())["whole_minutes"])

    there, moved = tmp_path / "segmed", tmp_path / "moved" / "segmed"
    first, second = stopped(there), stopped(there)
    assert second > first > 0
    (there / "spent.json").write_text('{"whole_minutes": 100.0, "peak_memory_mib": 1.0}')
    moved.parent.mkdir()
    there.rename(moved)
    assert stopped(moved) > 100
    (moved / "run" / "config.yaml").unlink()
    assert stopped(moved) < 100
    assert ["--resume" in command for command in commands] == [False, True, True, False]


def test_a_turns_cost_is_written_down_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[float] = []

    class Slow(psutil.Popen):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **options)

    def asleep(seconds: float) -> None:
        seen.append(json.loads((tmp_path / "segmed" / "spent.json").read_text())["peak_memory_mib"])
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.campaign.contenders.psutil.Popen", Slow)
    monkeypatch.setattr("benchmarks.campaign.contenders.time.sleep", asleep)
    with pytest.raises(KeyboardInterrupt):
        run_segmed(Turn(tmp_path / "segmed", tmp_path, SETS["acdc"], 8.0, 1, 0), tmp_path, folds=5, fold=2)
    assert seen[0] > 0


def test_the_page_has_the_mean_of_the_folds_that_are_over_and_the_largest_memory(tmp_path: Path):
    place = tmp_path / "acdc"
    for fold, (minutes, memory) in enumerate([(8.0, 512.0), (7.0, 700.0)]):
        facts = {"minutes": minutes, "whole_minutes": 9.0, "steps": 100, "peak_memory_mib": memory, "plan": "a plan"}
        (place / f"fold_{fold}" / "dynunet").mkdir(parents=True)
        (place / f"fold_{fold}" / "dynunet" / "done.json").write_text(json.dumps(facts))
    (place / "labels.json").write_text(json.dumps({"myocardium": [1]}))
    text = write_tables(tmp_path, "acdc", ["dynunet"], threads=1)
    assert "| DynUNet | 2 | 7.5 | 9.0 | 100 | 700 | a plan |" in text
    assert (place / "campaign.md").read_text() == text


def test_the_comparison_follows_the_run_of_segmed_where_the_spacing_of_the_files_is_not_known(tmp_path: Path):
    place, data = tmp_path / "acdc", make_balls(tmp_path / "data", cases=6)
    for folder in ("references", "predictions/segmed", "predictions/dynunet"):
        (place / folder).mkdir(parents=True)
        for case in names(3):
            shutil.copyfile(data / f"{case}_label.nii.gz", place / folder / f"{case}.nii.gz")
    facts = {"minutes": 1.0, "whole_minutes": 1.0, "steps": 1, "peak_memory_mib": 1.0, "plan": "a plan"}
    for who in ("segmed", "dynunet"):
        (place / "fold_0" / who).mkdir(parents=True)
        (place / "fold_0" / who / "done.json").write_text(json.dumps(facts))
    (place / "labels.json").write_text(json.dumps({"shell": [1], "core": [2]}))
    assert "HD95 (mm)" in write_tables(tmp_path, "acdc", ["segmed", "dynunet"], threads=1)
    compose_run.start(tiny(data, tmp_path / "runs", data={"spacing_known": False}), place / "fold_0" / "segmed" / "run")
    text = write_tables(tmp_path, "acdc", ["segmed", "dynunet"], threads=1)
    assert "No distances and volumes" in text
    assert "HD95" not in text


# ---------------------------------------------------------------- a folder that is used again


@dataclass(frozen=True)
class Asked:
    """What the command line of a campaign says."""

    output: Path
    contenders: tuple[str, ...] = ("dynunet",)
    folds: int = 3
    first_folds: int | None = 1
    minutes: float | None = None
    seed: int = 0
    nnunet_python: Path | None = None


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, list[str]]]:
    """The turns that a campaign on balls takes: fold, contender and the cases that it is tested on."""
    make_balls(tmp_path / "balls")
    make_balls(tmp_path / "other")
    (tmp_path / "acdc.yaml").write_text(tiny(tmp_path / "balls", tmp_path / "runs").model_dump_json())
    monkeypatch.setattr("benchmarks.campaign.turns.ROOT", tmp_path)
    monkeypatch.setitem(SETS, "acdc", replace(SETS["acdc"], config="acdc.yaml"))
    turns: list[tuple[str, str, list[str]]] = []

    def take(who: str, turn: Turn, *_: Any) -> dict[str, Any]:
        _begin(turn)
        turns.append((turn.folder.parent.name, who, read_parts(turn.fold)["test"]))
        return {"minutes": turn.minutes, "steps": 1}

    monkeypatch.setattr("benchmarks.campaign.turns._take", take)
    return turns


def campaign(tmp_path: Path, *, data: str = "balls", threads: int = 1, **asked: Any) -> None:
    take_turns("acdc", tmp_path / data, Asked(tmp_path / "campaign", **asked), threads=threads)


def files_of(tmp_path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in (tmp_path / "campaign").rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"folds": 2}, "folds 3 there, 2 now"),
        ({"minutes": 5.0}, "minutes 8 there, 5.0 now"),
        ({"seed": 1}, "seed 0 there, 1 now"),
        ({"threads": 4}, "threads 1 there, 4 now"),
        ({"data": "other"}, "data {0}/balls there, {0}/other now"),
        ({"folds": 2, "seed": 1}, "folds 3 there, 2 now; seed 0 there, 1 now"),
    ],
)
def test_a_folder_of_a_campaign_takes_no_other_settings_and_loses_nothing(taken, tmp_path: Path, other, said):
    campaign(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(PeerError) as error:
        campaign(tmp_path, contenders=("dynunet", "nnunet"), **other)
    place = tmp_path / "campaign" / "acdc"
    assert str(error.value) == (
        f"{place} holds a campaign with other settings ({said.format(tmp_path)}): give another --output, or the same "
        "settings"
    )
    assert files_of(tmp_path) == before
    assert len(taken) == 1


def test_contenders_and_folds_of_the_same_split_may_be_added(taken, tmp_path: Path):
    campaign(tmp_path)
    campaign(tmp_path, contenders=("dynunet", "nnunet"), first_folds=None, minutes=8.0)
    assert [turn[:2] for turn in taken] == [
        ("fold_0", "dynunet"), ("fold_0", "nnunet"), ("fold_1", "dynunet"), ("fold_1", "nnunet"),
        ("fold_2", "dynunet"), ("fold_2", "nnunet"),
    ]  # fmt: skip
    tests = [case for fold, who, cases in taken if who == "nnunet" for case in cases]
    assert sorted(tests) == names(6)


def test_a_folder_without_a_note_goes_on_where_its_folds_and_turns_agree_and_gets_one(taken, tmp_path: Path):
    campaign(tmp_path, first_folds=2)
    note = tmp_path / "campaign" / "acdc" / SETTINGS
    text = note.read_text()
    note.unlink()
    campaign(tmp_path, first_folds=3)
    assert [fold for fold, *_ in taken] == ["fold_0", "fold_1", "fold_2"]
    assert note.read_text() == text


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"minutes": 5.0}, "minutes 8 there, 5.0 now"),
        ({"seed": 1}, "seed 0 there, 1 now"),
        ({"threads": 4}, "threads 1 there, 4 now"),
        ({"folds": 2}, r"fold_0 holds a fold of another split \(case ball_\d+: \w+ part there, \w+ part now\)"),
        ({"folds": 1}, "folds 2 or more there, 1 now"),
    ],
)
def test_a_folder_without_a_note_is_refused_where_its_folds_or_turns_say_something_else(
    taken, tmp_path: Path, other, said
):
    campaign(tmp_path, first_folds=2)
    (tmp_path / "campaign" / "acdc" / SETTINGS).unlink()
    before = files_of(tmp_path)
    with pytest.raises(PeerError, match=said):
        campaign(tmp_path, **other)
    assert files_of(tmp_path) == before


def test_a_run_of_segmed_in_a_folder_without_a_note_tells_its_data_and_minutes(taken, tmp_path: Path):
    settings = {"split": {"folds": 3, "fold": 0}, "train": {"budget_minutes": 8.0}}
    run = tmp_path / "campaign" / "acdc" / "fold_0" / "segmed" / "run"
    run.mkdir(parents=True)
    config = tiny(tmp_path / "balls", tmp_path / "runs", **settings)
    (run / "config.yaml").write_text(config.model_dump_json())  # JSON is YAML
    with pytest.raises(PeerError, match=r"\(data \S+/balls there, \S+/other now; minutes 8\.0 there, 2\.0 now\)"):
        campaign(tmp_path, data="other", minutes=2.0)
    campaign(tmp_path)
    assert len(taken) == 1


def test_a_fold_whose_data_have_changed_is_not_gone_on_with(taken, tmp_path: Path):
    campaign(tmp_path)
    make_balls(tmp_path / "balls", cases=9)
    with pytest.raises(PeerError, match="holds a fold of another split"):
        campaign(tmp_path, contenders=("nnunet",))
    assert len(taken) == 1


def test_a_campaign_that_is_only_looked_at_writes_nothing(taken, tmp_path: Path):
    check_begun("acdc", tmp_path / "balls", Asked(tmp_path / "campaign"), threads=1)
    assert not (tmp_path / "campaign").exists()

"""Runs that begin with the encoder of another: segmentation and classification, 2D and 3D, stopped, refused."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from nested_sections import changed
from rich.console import Console
from tiny_classes import config_of, write_classes
from tiny_data import Lines, Stop, make_balls, tiny, trained, training_of

from segmed.builders.architectures import build_classifier, build_network
from segmed.builders.first_weights import start_weights
from segmed.classify import run as classify_run
from segmed.classify import train as class_session
from segmed.classify.plan import planned_network
from segmed.classify.prepare import start as start_class
from segmed.classify.train import Training
from segmed.commands.evaluate_notes import run_notes
from segmed.compose import run as compose_run
from segmed.config import EncoderConfig, SegmentationConfig, SegResNetConfig, known
from segmed.config.classifier import EncoderClassifierConfig
from segmed.config.reading import load_yaml, validate
from segmed.data.learned import learned_split
from segmed.data.splits import Split
from segmed.errors import ConfigError, DatasetError, RunError
from segmed.evaluate.answers import LEAKING
from segmed.runs import Run, read_class_config, read_config
from segmed.segment import train as session
from segmed.segment.prepare import planned, prepare, with_absolute_paths
from segmed.training.checkpoint import read_weights, save_weights
from segmed.training.encoder_transfer import shaped_like, source_encoder, take_encoder
from segmed.training.interruption import Interrupted
from segmed.training.ranks import Ranks
from segmed.training.tracking import RunTracker, Tracker
from segmed.training.transfer_record import RECORD, seen_before

FLAT = {"patches": {"dims": 2, "plane": "axial", "size": [8, 8]}, "network": {"encoder": {"blocks": 1}}}
SHAPES = {"segmentation": ((4, 8), ((1, 1), (2, 2))), "classification": ((4, 6), ((1, 1), (2, 2)))}


def segmented(folder: Path, data: Path, tracker: Tracker | None = None, **sections) -> Run:
    """A 2D segmentation run, trained for four steps."""
    return trained(tiny(data, folder.parent, **changed(FLAT, sections)), folder, tracker)


def classified(folder: Path, data: Path, tracker: Tracker | None = None, **changes) -> Run:
    """A classification run, trained for two steps and not tested."""
    train = {"epochs": 2, "validations": 1, **changes.pop("train", {})}
    run = start_class(config_of(folder.parent, data, train=train, **changes), folder)
    Training(run, Fabric(accelerator="cpu", devices=1), Ranks()).fit(tracker or Tracker(), resume=False)
    return run


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    return make_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_classes(tmp_path_factory.mktemp("images"), subjects=4)


@pytest.fixture(scope="module")
def sources(balls, images, tmp_path_factory) -> dict[str, Run]:
    """One trained run of each kind, with encoders of different widths."""
    folder = tmp_path_factory.mktemp("sources")
    shape = {"encoder": {"channels": [4, 6]}}
    return {
        "segmentation": segmented(folder / "segmentation", balls),
        "classification": classified(folder / "classification", images, network=shape),
    }


@pytest.fixture
def first_weights(monkeypatch) -> dict[str, torch.Tensor]:
    """What a network holds when the loop begins."""
    held: dict[str, torch.Tensor] = {}
    for module in (session, class_session):
        fit = module.fit

        def watched(step, *arguments, fit=fit, **options):
            held.update({name: tensor.clone() for name, tensor in step.network.state_dict().items()})
            return fit(step, *arguments, **options)

        monkeypatch.setattr(module, "fit", watched)
    return held


def with_config(source: Run, folder: Path, **sections) -> Run:
    """A copy of a run whose config says something else; a section of another name is replaced."""
    shutil.copytree(source.path, folder)
    config = load_yaml(source.config)
    for name, section in sections.items():
        config = changed(config, {name: section})
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return Run(folder)


def encoder_in(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith("encoder.")}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def started_from(kind: str, source: Run, folder: Path, data: Path, tracker: Tracker) -> Run:
    """A run of a kind that takes shape and weights of its encoder from another."""
    if kind == "segmentation":
        return segmented(folder, data, tracker, network={"encoder": {"channels": "auto"}}, init_encoder=source.path)
    auto = {"encoder": {"channels": "auto", "strides": "auto"}}
    return classified(folder, data, tracker, network=auto, init_encoder=source.path, leaks={"allow_leakage": True})


# ---------------------------------------------------------------- the move


@pytest.mark.parametrize("kind", ["segmentation", "classification"])
@pytest.mark.parametrize("origin", ["segmentation", "classification"])
def test_a_run_begins_with_the_encoder_of_another_bit_for_bit(
    sources, balls, images, tmp_path, first_weights, kind, origin
):
    source, lines = sources[origin], Lines()
    run = started_from(kind, source, tmp_path / "run", balls if kind == "segmentation" else images, lines)
    theirs = encoder_in(read_weights(source.weights()))
    assert same(encoder_in(first_weights), theirs)
    assert not same(encoder_in(read_weights(run.weights("last"))), theirs), "it goes on learning"
    record = json.loads((run.path / RECORD).read_text())
    assert record["source"] == str(source.path)
    assert set(record["taken"]) == set(theirs)
    assert record["left"] == {}
    assert set(record["unused"]) == set(read_weights(source.weights())) - set(theirs)
    shaped = read_config(run).network if kind == "segmentation" else read_class_config(run).network
    assert (shaped.encoder.channels, shaped.encoder.strides) == SHAPES[origin]
    assert run.config.read_text().count(f"# as in {source.path}, whose weights this run begins with") == 2
    count = len(theirs)
    assert any(f"begins with {count} of {count} weights from {source.path}; 0 are left" in each for each in lines.lines)


def test_what_is_given_stays_and_a_patch_left_auto_fits_the_inherited_strides(sources, balls, tmp_path):
    wide = {"encoder": {"strides": [[1, 1], [6, 6]]}}
    source = with_config(sources["segmentation"], tmp_path / "source", network=wide)
    sections = {"patches": {"dims": 2, "size": "auto"}, "init_encoder": source.path}
    network = {"encoder": {"channels": "auto", "blocks": 1}}
    plan = planned(prepare(tiny(balls, tmp_path, network=network, **sections)))
    assert plan.config.network.encoder.strides == ((1, 1), (6, 6))
    assert plan.config.patches.size == (18, 18)
    assert f"network.encoder.channels = (4, 8): as in {source.path}" in str(plan)
    shaped, reasons = shaped_like(EncoderConfig(channels=(4,)), source.path, dims=2)
    assert (shaped.channels, shaped.strides) == ((4,), ((1, 1),))
    assert set(reasons) == {"strides"}


def test_2d_kernels_become_3d_ones_whose_sum_along_the_new_axis_is_the_2d_kernel(
    sources, balls, tmp_path, first_weights
):
    source = sources["classification"]
    config = tiny(balls, tmp_path, network={"encoder": {"channels": "auto", "blocks": 1}}, init_encoder=source.path)
    run = trained(config, tmp_path / "run")
    assert known(read_config(run).network.encoder.channels) == SHAPES["classification"][0]
    record = json.loads((run.path / RECORD).read_text())
    axis = record["axis"]
    theirs = encoder_in(read_weights(source.weights()))
    assert set(record["taken"]) == set(theirs)
    for name, tensor in theirs.items():
        weight = first_weights[name]
        if tensor.ndim == 4:
            torch.testing.assert_close(weight.sum(axis + 2), tensor)
        else:
            assert torch.equal(weight, tensor)


def test_all_names_stand_in_the_log_and_only_their_number_on_the_console(sources, images, tmp_path):
    said = (tmp_path / "console.txt").open("w")
    source = sources["segmentation"]
    encoder = {"name": "plain", "channels": (4, 8, 8), "strides": ((1, 1), (2, 2), (2, 2)), "blocks": 1}
    with RunTracker(tmp_path / "run", console=Console(file=said, width=400)) as tracker:
        network = build_classifier(
            EncoderClassifierConfig(encoder=encoder),
            in_channels=3, classes=2, size=(24, 24),
        )  # fmt: skip
        moved = take_encoder(network, source.path)
        class_session.record_transfer(moved, source=source.path, folder=tmp_path / "run", tracker=tracker, note="old")
    said.close()
    log = (tmp_path / "run" / "log.txt").read_text()
    console = (tmp_path / "console.txt").read_text()
    left = [name for name in moved.left if ".levels.2." in name]
    assert left
    assert any(".levels.0." in name for name in moved.left), "the weights that read an image of other channels"
    assert all(name in log for name in (*moved.taken, *moved.left, *moved.unused))
    assert not any(name in console for name in (*moved.taken, *moved.left, *moved.unused))
    assert f"{len(moved.left)} are left as drawn" in console


# ---------------------------------------------------------------- stopped and gone on with


def test_a_run_that_goes_on_does_not_take_the_encoder_again(sources, balls, tmp_path):
    source = Run(tmp_path / "source")
    shutil.copytree(sources["segmentation"].path, source.path)
    each = {"init_encoder": source.path, "train": {"checkpoint_minutes": 1e-9}}
    whole = segmented(tmp_path / "whole", balls, **each)
    with pytest.raises(Interrupted):
        segmented(tmp_path / "part", balls, Stop(2, signal.SIGTERM), **each)
    shutil.rmtree(source.path)  # it is not asked for any more
    run = Run(tmp_path / "part")
    record = (run.path / RECORD).stat().st_mtime_ns
    training_of(run).fit(Tracker(), resume=True)
    assert (run.path / RECORD).stat().st_mtime_ns == record
    assert same(read_weights(run.weights("last")), read_weights(whole.weights("last")))


def test_a_relative_path_is_made_absolute_for_a_run_and_for_folds(sources, balls, images, tmp_path, monkeypatch):
    source = sources["segmentation"].path
    monkeypatch.chdir(source.parent)
    assert with_absolute_paths(tiny(balls, tmp_path, init_encoder=Path("segmentation"))).init_encoder == source
    given = {
        compose_run: tiny(balls, tmp_path, init_encoder="segmentation"),
        classify_run: config_of(tmp_path, images, init_encoder="segmentation"),
    }
    for module, config in given.items():
        monkeypatch.setattr(module, "_run_folds", lambda config, parent: 0)
        folder = tmp_path / module.__name__
        module.cross_validate(config, folder)
        assert load_yaml(folder / "folds.yaml")["init_encoder"] == str(source)


# ---------------------------------------------------------------- what it has seen before


def test_test_cases_that_the_source_has_learnt_from_are_named(sources, balls, tmp_path):
    learnt = Split.load(sources["segmentation"].split)
    other = Split((*learnt.test, *learnt.train[1:]), learnt.validation, learnt.train[:1])
    other.save(tmp_path / "split.json")
    sections = {"split": {"file": tmp_path / "split.json"}, "init_encoder": sources["segmentation"].path}
    note = f"learnt from 1 of these 1 test cases ({learnt.train[0]})"
    with pytest.raises(DatasetError, match=rf"{re.escape(note)}.*leaks\.allow_leakage"):
        compose_run.start(tiny(balls, tmp_path, **FLAT, **sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = compose_run.start(tiny(balls, tmp_path, **FLAT, **sections, leaks={"allow_leakage": True}), tmp_path / "run")
    [said] = [each for each in json.loads(run.plan.read_text())["notes"] if note in each]
    assert said.startswith(f"{LEAKING}, allowed: the weights come from")
    assert any(note in line for line in run_notes(run.path, ()))
    lines = Lines()
    training_of(run)._take_weights(lines)
    assert any(line.startswith("NOTE: ") and note in line for line in lines.lines)
    assert note in json.loads((run.path / RECORD).read_text())["note"]
    assert seen_before(sources["segmentation"].path, balls, learnt.test) == ()
    assert seen_before(sources["segmentation"].path, balls.parent, learnt.train) == (), "other data, other cases"


def test_cases_are_followed_through_runs_that_began_with_each_other(sources, balls, tmp_path):
    first = Split.load(sources["segmentation"].split)
    second = with_config(sources["segmentation"], tmp_path / "second", init_encoder=str(sources["segmentation"].path))
    third = with_config(second, tmp_path / "third", init_encoder=None, init_network=str(second.path))
    for run in (second, third):
        Split(first.test, (), first.train[:1]).save(run.split)
    assert set(seen_before(third.path, balls, first.train)) == set(first.train)
    assert seen_before(third.path, balls, first.validation) == first.validation
    learned = learned_split(third.path)
    assert set(learned.train) == {*first.train, *first.validation, *first.test}
    assert learned.test == ()
    shutil.rmtree(second.path)  # what is gone says nothing any more
    assert seen_before(third.path, balls, first.train) == ()


@pytest.mark.parametrize(("name", "text"), [("split.json", "{"), ("split.json", "[]"), ("config.yaml", "a: [")])
def test_a_damaged_run_that_gave_first_weights_is_one_line(sources, balls, tmp_path, name, text):
    source = with_config(sources["segmentation"], tmp_path / "source")
    run = with_config(sources["segmentation"], tmp_path / "run", init_encoder=str(source.path))
    (source.path / name).write_text(text)
    with pytest.raises(DatasetError, match="gave the first weights, and its config or split is damaged") as error:
        learned_split(run.path)
    assert "\n" not in str(error.value)


def test_a_network_of_a_cascade_has_seen_the_cases_of_the_whole(sources, balls, tmp_path):
    learnt = Split.load(sources["segmentation"].split)
    whole = with_config(sources["segmentation"], tmp_path / "whole")
    fine = with_config(
        sources["segmentation"], whole.path / "fine" / "axial", data={"root": str(whole.path / "fine" / "data")}
    )
    assert seen_before(fine.path, balls, learnt.train) == learnt.train
    assert seen_before(fine.path, whole.path / "fine" / "data", learnt.train) == ()


def test_a_classifier_refuses_an_encoder_that_has_learnt_from_its_test_images(sources, images, tmp_path):
    given = {"init_encoder": sources["classification"].path, "network": {"encoder": {"channels": [4, 6]}}}
    with pytest.raises(DatasetError, match=r"has learnt from \d+ of these \d+ test cases.*leaks\.allow_leakage"):
        start_class(config_of(tmp_path, images, split={"seed": 5}, **given), tmp_path / "run")
    start_class(config_of(tmp_path, images, **given), tmp_path / "same")  # the same split: nothing was seen
    assert not json.loads((tmp_path / "same" / "plan.json").read_text())["notes"]
    allowed = config_of(tmp_path, images, split={"seed": 5}, leaks={"allow_leakage": True}, **given)
    start_class(allowed, tmp_path / "allowed")
    notes = json.loads((tmp_path / "allowed" / "plan.json").read_text())["notes"]
    assert any(note.startswith(f"{LEAKING}, allowed: the weights come from") for note in notes)


# ---------------------------------------------------------------- what can't be


def refused(source: Path, folder: Path, **encoder) -> str:
    """Why a 2D classifier does not begin with a run's encoder, in one line."""
    config = config_of(folder, folder, init_encoder=source, network={"encoder": encoder})
    model, _ = planned_network(config.network, size=(24, 24), device="cpu")
    drawn = build_classifier(model, in_channels=1, classes=2, size=(24, 24))
    before = {name: tensor.clone() for name, tensor in drawn.state_dict().items()}
    with pytest.raises((RunError, RunError)) as caught:
        start_weights(drawn, config)
    assert same(before, drawn.state_dict())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("other", [{"channels": [3, 7]}, {"name": "residual"}, {"name": "dense"}])
def test_an_encoder_of_another_kind_or_width_is_refused_with_the_settings_that_fit(sources, tmp_path, other):
    said = refused(sources["segmentation"].path, tmp_path, **other)
    assert "give --network.encoder.name plain --network.encoder.channels 4 8 --network.encoder.blocks 1" in said
    assert other.get("name", "plain") in said.split("fits this one")[1]


def test_the_settings_that_a_message_names_do_fit(sources, images, tmp_path):
    options = source_encoder(sources["classification"].path).options.split()
    assert options == [
        "--network.encoder.name",
        "plain",
        "--network.encoder.channels",
        "4",
        "6",
        "--network.encoder.blocks",
        "1",
    ]
    model = EncoderClassifierConfig(
        encoder={"name": "plain", "channels": (4, 6), "strides": ((1, 1), (2, 2)), "blocks": 1}
    )
    network = build_classifier(model, in_channels=1, classes=2, size=(24, 24))
    assert not take_encoder(network, sources["classification"].path).left


def test_a_3d_encoder_does_not_become_a_2d_one(sources, tmp_path):
    strides = [[1, 1, 1], [2, 2, 2]]
    solid = with_config(
        sources["segmentation"], tmp_path / "solid", network={"encoder": {"strides": strides}}, patches={"dims": 3}
    )
    assert "is in 3D, this one in 2D" in refused(solid.path, tmp_path)


@pytest.mark.parametrize(
    ("key", "kind", "frozen", "message"),
    [
        ("init_network", "classification", 0, "classifies and has no decoder: name it by init_encoder"),
        ("init_network", "segmentation", 3, r"train\.frozen_levels 3: the encoder has 2 levels: give 2 or less"),
        ("init_encoder", "classification", 3, r"train\.frozen_levels 3: the encoder has 2 levels: give 2 or less"),
    ],
)
@pytest.mark.parametrize("channels", ["auto", [4, 6]])
def test_networks_of_an_ensemble_are_held_to_their_start_before_the_first(
    balls, sources, tmp_path, key, kind, frozen, message, channels
):
    config = tiny(
        balls,
        tmp_path,
        ensemble={"views": ["axial", "coronal"]},
        patches={"size": "auto"},
        network={"encoder": {"channels": channels, "strides": "auto"}},
        train={"frozen_levels": frozen},
        **{key: str(sources[kind].path)},
    )
    with pytest.raises((RunError, ConfigError), match=message):
        compose_run.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_run_no_weights_and_no_number_are_told_apart(sources, tmp_path):
    assert "is not there" in refused(tmp_path / "absent", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is no run: it holds no config.yaml" in refused(empty, tmp_path)
    untrained = tmp_path / "untrained"
    shutil.copytree(sources["classification"].path, untrained)
    shutil.rmtree(untrained / "weights")
    assert "has no weights yet" in refused(untrained, tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(sources["segmentation"].path, broken)
    network = training_of(Run(broken)).network
    with torch.no_grad():
        next(network.encoder.parameters()).fill_(float("nan"))
    save_weights(Run(broken).weights(), network, {})
    assert "hold NaN" in refused(broken, tmp_path)


def test_of_a_run_of_several_networks_one_must_be_named(sources, balls, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    config = tiny(balls, tmp_path, ensemble={"views": ["axial", "coronal"]}).model_dump(mode="json")
    (whole / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    assert "none has weights yet" in refused(whole, tmp_path)
    for view in ("axial", "coronal", "without_fold_0/axial"):
        shutil.copytree(sources["segmentation"].path, whole / view)
    said = refused(whole, tmp_path)
    assert f"name one of them: {whole / 'axial'}, {whole / 'coronal'}" in said
    assert "without_fold" not in said
    assert source_encoder(whole / "coronal").channels == (4, 8)
    (empty := tmp_path / "folds").mkdir()
    (empty / "folds.yaml").write_text("{}")
    assert f"such as {empty / 'fold_0'}" in refused(empty, tmp_path)


def test_networks_without_an_encoder_of_ours_neither_give_nor_take_one(sources, tmp_path):
    other = with_config(sources["classification"], tmp_path / "other", network={"name": "logistic"})
    assert "trained logistic, which has no encoder of ours" in refused(other.path, tmp_path)
    network = build_network(SegResNetConfig(init_filters=8), in_channels=1, out_channels=3, dims=2)
    with pytest.raises(RunError, match=r"has no encoder of ours.*choose --network\.name unet"):
        take_encoder(network, sources["segmentation"].path)


def test_nothing_is_made_before_it_is_known_that_the_encoder_fits(sources, balls, tmp_path):
    config = tiny(
        balls,
        tmp_path,
        **FLAT | {"network": {"encoder": {"channels": [3, 5], "blocks": 1}}},
        init_encoder=sources["segmentation"].path,
    )
    with pytest.raises(RunError, match=r"give --network\.encoder\.name plain --network\.encoder\.channels 4 8"):
        trained(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_option_is_a_field_of_both_experiments(tmp_path):
    assert validate(SegmentationConfig, {"init_encoder": "runs/a"}, where="test").init_encoder == Path("runs/a")
    assert config_of(tmp_path, tmp_path, init_encoder="runs/a").init_encoder == Path("runs/a")
    assert SegmentationConfig().init_encoder is None

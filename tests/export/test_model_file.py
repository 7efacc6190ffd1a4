"""One file to hand over: what is in it, what is not, that it predicts the same, and what bad files are told."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_classes import config_of, write_classes
from tiny_data import SIDE, tiny
from untrained_runs import untrained_run

import segmed
from segmed.builders.model_file import FORMAT, INDEX, digest_of, opened, read_card, read_index
from segmed.commands.program import main_of
from segmed.compose import run as compose_run
from segmed.errors import RunError
from segmed.export.card import Words
from segmed.export.private import Private
from segmed.export.write_model import write_model
from segmed.volumes import read_volume

SPLIT = "runs/1/split.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("secret_hospital") / "run")


@pytest.fixture(scope="module")
def model(run):
    return write_model([run.path], run.path.parent / "balls.segmed", Words("Balls.", "Cubes.", "CC0-1.0"))


def call(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", ["segmed", command, *map(str, arguments)])
    return main_of(command)()


def contents(model: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(model) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(model: Path, target: Path, files: dict[str, bytes]) -> Path:
    """A zip of other contents, as somebody else's tool writes it."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target


# ---------------------------------------------------------------- what is in it


def test_it_names_no_case_no_path_and_no_machine(run, model):
    everything = b"\n".join(contents(model).values()).decode(errors="replace")
    for private in ("ball_0", "secret_hospital", "balls_of_the_hospital", str(run.path.parent)):
        assert private not in everything, private
    assert "pickle" not in everything
    assert not [name for name in contents(model) if name.endswith((".pt", ".pkl", ".pth"))]


def test_with_cases_it_names_the_cases_and_still_no_path(run, tmp_path):
    model = write_model([run.path], tmp_path / "named.segmed", Words(), with_cases=True)
    split = json.loads(contents(model)[SPLIT])
    assert split == json.loads(run.split.read_text())
    assert "secret_hospital" not in b"\n".join(contents(model).values()).decode(errors="replace")
    assert read_index(model)["cases"] is True


def test_cases_of_the_first_weights_are_among_those_that_it_has_learnt_from(run, tmp_path):
    first, second = (shutil.copytree(run.path, tmp_path / name) for name in ("first", "second"))
    config = yaml.safe_load((second / "config.yaml").read_text())
    (second / "config.yaml").write_text(yaml.safe_dump({**config, "init_network": str(first)}, sort_keys=False))
    own = json.loads(run.split.read_text())
    ours, theirs = own["train"][:1], own["train"][1:]
    parts = own | {"train": ours, "validation": [], "test": [*own["validation"], *own["test"], *theirs]}
    (second / "split.json").write_text(json.dumps(parts))
    named = json.loads(contents(write_model([second], tmp_path / "a.segmed", Words(), with_cases=True))[SPLIT])
    assert set(named["train"]) == {*own["train"], *own["validation"]}
    assert (named["validation"], named["test"]) == ([], own["test"])
    hidden = contents(write_model([second], tmp_path / "b.segmed", Words()))
    assert len(json.loads(hidden[SPLIT])["train"]) == len(named["train"])
    assert "ball_0" not in b"\n".join(hidden.values()).decode(errors="replace")


def test_parts_keep_their_sizes_under_other_names(run, model):
    hidden, own = json.loads(contents(model)[SPLIT]), json.loads(run.split.read_text())
    for part in ("train", "validation", "test"):
        assert len(hidden[part]) == len(own[part])
        assert all(name.startswith("withheld-") for name in hidden[part])


def test_equal_runs_are_equal_files(run, model, tmp_path):
    again = write_model([run.path], tmp_path / "balls.segmed", Words("Balls.", "Cubes.", "CC0-1.0"))
    assert again.read_bytes() == model.read_bytes()


def test_the_card_says_data_figures_use_and_limits(model, monkeypatch, capsys):
    assert call(monkeypatch, "model-card", model) == 0
    card = capsys.readouterr().out
    assert card == read_card(model)
    for words in (
        "Balls.",
        "- Cubes.",
        "CC0-1.0",
        "shell = 1, core = 2",
        "0.500 ± 0.100",
        "no medical device",
        "- THE SPLIT LEAKS, allowed\n",
    ):
        assert words in card, words
    counts = {
        part: len(names)
        for part, names in json.loads(contents(model)[SPLIT]).items()
        if part in ("train", "validation", "test")
    }
    assert f"{counts['train']} trained it, {counts['validation']} selected it, {counts['test']} tested it" in card


def test_a_run_before_its_end_is_said_to_be_one(run, tmp_path, monkeypatch, capsys):
    early = shutil.copytree(run.path, tmp_path / "early")
    shutil.rmtree(early / "test")
    (early / "history.csv").write_text("step,minutes,score\n1,0.1,0.5\n")
    assert call(monkeypatch, "export", "--run", early, "--output", tmp_path / "early.segmed") == 0
    said = capsys.readouterr().err
    assert f"warning: {early} is exported" in said
    assert "before the end of its training" in said
    card = read_card(tmp_path / "early.segmed")
    assert "are kept for its test" in card
    assert "tested it" not in card
    assert call(monkeypatch, "export", "--run", run.path, "--output", tmp_path / "whole.segmed") == 0
    assert "before the end" not in capsys.readouterr().err


def test_the_command_writes_the_words_of_its_options(run, model, tmp_path, monkeypatch):
    words = ("--intended-use", "Balls.", "--limits", "Cubes.", "--license", "CC0-1.0")
    assert call(monkeypatch, "export", "--run", run.path, "--output", tmp_path / model.name, *words) == 0
    assert read_card(tmp_path / model.name) == read_card(model)


# ---------------------------------------------------------------- it stands where a run does


def test_the_file_segments_as_its_run(run, model, tmp_path, monkeypatch):
    image = run.path.parent / "balls_of_the_hospital" / "ball_00.nii.gz"
    for option, source in (("--run", run.path), ("--model", model)):
        assert call(monkeypatch, "predict", option, source, "--input", image, "--output", tmp_path / option) == 0
    by_run, by_model = (read_volume(tmp_path / option / "ball_00.nii.gz").numpy() for option in ("--run", "--model"))
    np.testing.assert_array_equal(by_run, by_model)
    assert (by_run > 0).any()
    records = [json.loads((tmp_path / option / "prediction.json").read_text()) for option in ("--run", "--model")]
    assert records[1]["runs"][0]["run"] == str(model)
    assert records[0]["runs"][0]["sha256"] == records[1]["runs"][0]["sha256"]


def test_a_strange_scan_is_named_by_a_model_that_withholds_its_cases(model, tmp_path, monkeypatch, capsys):
    import nibabel as nib

    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).normal(size=(SIDE,) * 3), np.diag([9, 9, 9, 1])), tmp_path / "s.nii"
    )
    assert (
        call(monkeypatch, "predict", "--model", model, "--input", tmp_path / "s.nii", "--output", tmp_path / "o") == 0
    )
    assert "unlike all" in capsys.readouterr().err


def test_from_python_a_file_is_a_run(run, model):
    volume = read_volume(run.path.parent / "balls_of_the_hospital" / "ball_01.nii.gz")
    assert (segmed.load_run(model)(volume) == segmed.load_run(run.path)(volume)).all()


def test_several_runs_are_the_mean_of_their_probabilities(run, tmp_path):
    other = untrained_run(tmp_path / "run", seed=1)
    model = write_model([run.path, other.path], tmp_path / "both.segmed", Words())
    volume = read_volume(tmp_path / "balls_of_the_hospital" / "ball_01.nii.gz")
    parts = [segmed.load_run(each.path).probabilities(volume) for each in (run, other)]
    together = segmed.load_run(model).probabilities(volume)
    np.testing.assert_allclose(together.numpy(), (parts[0] + parts[1]).numpy() / 2, atol=1e-6)


def test_evaluation_by_a_model_says_that_it_withholds_its_cases(run, model, tmp_path, monkeypatch, capsys):
    labels = tmp_path / "labels"
    labels.mkdir()
    shutil.copy(run.path.parent / "balls_of_the_hospital" / "ball_00_label.nii.gz", labels / "ball_00.nii.gz")
    code = call(
        monkeypatch,
        "evaluate",
        "--predictions",
        labels,
        "--references",
        labels,
        "--model",
        model,
        "--output",
        tmp_path / "o",
    )
    said = capsys.readouterr()
    assert code == 0
    assert "does not say which cases it has learnt from" in said.err
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["labels"]["core"]["dice"]["mean"] == 1


def test_an_ensemble_of_planes_is_one_file(tmp_path):
    parts = [
        untrained_run(tmp_path / view, seed=seed, patches={"dims": 2, "size": [8, 8], "plane": view})
        for seed, view in enumerate(("axial", "coronal"))
    ]
    data = tmp_path / "balls_of_the_hospital"
    config = tiny(data, tmp_path / "runs", ensemble={"views": ["axial", "coronal"]})
    whole = compose_run.start(config, tmp_path / "planes")
    for part in parts:
        shutil.move(part.path, whole.path / part.path.name)
    model = write_model([whole.path], tmp_path / "planes.segmed", Words())
    volume = read_volume(data / "ball_00.nii.gz")
    labels = segmed.load_run(model)(volume)
    assert (labels == segmed.load_run(whole.path)(volume)).all()
    assert "an ensemble of 2 networks" in read_card(model)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clinic")
    data = write_classes(folder / "data", subjects=6)
    return segmed.train(
        config_of(folder, data, train={"epochs": 1, "validations": 1}, evaluate={"maps": 0}), folder / "classifier"
    ), data


def test_a_classifier_answers_the_same_with_its_temperature_and_threshold(classifier, tmp_path, monkeypatch):
    run, data = classifier
    model = write_model([run], tmp_path / "classes.segmed", Words())
    for option, source in (("--run", run), ("--model", model)):
        assert (
            call(monkeypatch, "classify", option, source, "--input", data, "--output", tmp_path / f"{option}.csv") == 0
        )
    tables = [(tmp_path / f"{option}.csv").read_text() for option in ("--run", "--model")]
    assert tables[0] == tables[1]
    assert "calibrated" in tables[1]
    assert "accuracy" in read_card(model)
    assert segmed.classify_images(model, data) == segmed.classify_images(run, data)


# ---------------------------------------------------------------- bad files


def test_a_file_that_was_cut_is_one_line(model, tmp_path):
    cut = tmp_path / "cut.segmed"
    cut.write_bytes(model.read_bytes()[:-2000])
    with pytest.raises(RunError, match=r"cut\.segmed is no whole model file .* get it again"), opened((), [cut]):
        pass


def test_every_changed_file_is_noticed(model, tmp_path):
    files = contents(model)
    for name in files:
        content = bytearray(files[name])
        content[len(content) // 2] ^= 1
        changed = rewritten(model, tmp_path / "changed.segmed", {**files, name: bytes(content)})
        with pytest.raises(RunError, match=r"changed\.segmed (was changed|is damaged)"), opened((), [changed]):
            pass


def test_a_file_of_a_newer_version_names_it(model, tmp_path):
    files = contents(model)
    index = {**json.loads(files[INDEX]), "format": FORMAT + 1, "segmed": "9.1"}
    index["digest"] = digest_of(index)
    newer = rewritten(model, tmp_path / "newer.segmed", {**files, INDEX: json.dumps(index).encode()})
    with (
        pytest.raises(RunError, match=r"newer version \(segmed 9\.1, .*pip install -U segmed-mri"),
        opened((), [newer]),
    ):
        pass


def hostile(model: Path, tmp_path: Path, name: str, content: bytes, **fields: int) -> Path:
    """A model file that lists one more file, correctly."""
    import hashlib

    files = contents(model)
    index = json.loads(files[INDEX])
    index["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    index["digest"] = digest_of(index)
    target = tmp_path / "hostile.segmed"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for own, value in {**files, INDEX: json.dumps(index).encode()}.items():
            archive.writestr(own, value)
        member = zipfile.ZipInfo(name)
        member.compress_type = zipfile.ZIP_DEFLATED
        for field, value in fields.items():
            setattr(member, field, value)
        archive.writestr(member, content)
    return target


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/outside.txt", "a/../../outside.txt", "C:/outside.txt", "a\\b", "a//b"]
)
def test_a_name_that_leads_out_is_refused(model, tmp_path, name):
    with pytest.raises(RunError, match="would lie outside"), opened((), [hostile(model, tmp_path, name, b"x")]):
        pass
    assert not list(tmp_path.rglob("outside.txt"))


def test_links_and_bombs_are_refused(model, tmp_path):
    link = hostile(model, tmp_path, "link", b"/etc/passwd", external_attr=0o120777 << 16)
    with pytest.raises(RunError, match="no plain file"), opened((), [link]):
        pass
    bomb = hostile(model, tmp_path, "bomb", bytes(1 << 24))
    with pytest.raises(RunError, match="would unpack to 16777216 bytes"), opened((), [bomb]):
        pass


def test_nothing_is_left_of_a_model_that_could_not_be_written(run, tmp_path, monkeypatch):
    broken = tmp_path / "run"
    shutil.copytree(run.path, broken)
    (broken / "weights" / "best.safetensors").write_bytes(b"cut")
    with pytest.raises(RunError, match="damaged"):
        write_model([broken], tmp_path / "never.segmed", Words())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_nothing_is_replaced_unasked(run, model, monkeypatch):
    with pytest.raises(ValueError, match="is there already"):
        call(monkeypatch, "export", "--run", run.path, "--output", model)


# ---------------------------------------------------------------- private


def test_paths_keep_their_last_part_and_fractions_stay():
    private = Private(["case_7", "3"])
    assert (
        private.text("read /home/me/data/x.nii, half of 1/2 and dice/left") == "read …/x.nii, half of 1/2 and dice/left"
    )
    assert private.text("see https://example.org/a/b") == "see https://example.org/a/b"
    assert private.text("case_7 and case_71, 3 of 4") == f"{private.alias['case_7']} and case_71, 3 of 4"
    assert private({"3": ["3", 3]}) == {private.alias["3"]: [private.alias["3"], 3]}

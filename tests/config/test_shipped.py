"""Shipped configs by name, and the JSON schemas by which editors check them."""

import json
from pathlib import Path

import jsonschema
import pytest

from segmed.config.reading import load_yaml
from segmed.config.schema import KINDS, json_schema
from segmed.config.shipped import MODELINE, find_config, first_comment, shipped_configs
from segmed.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
KIND_OF = {"seg": "segmentation", "cls": "classification", "compare": "comparison"}
SHIPPED = shipped_configs()


def test_names_of_shipped_configs_are_unlike():
    files = list((ROOT / "configs").rglob("*.yaml"))
    assert sorted(SHIPPED.values()) == sorted(files)


def test_a_bare_word_is_a_shipped_config_unless_it_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("hippocampus") == ROOT / "configs" / "seg" / "hippocampus.yaml"
    (tmp_path / "acdc").mkdir()  # a folder of data, say
    assert load_yaml("acdc")["name"] == "acdc"
    (tmp_path / "hippocampus").write_text("name: mine\n")
    assert load_yaml("hippocampus") == {"name": "mine"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("hippocampsu", "no such file, and no shipped config has this name, did you mean 'hippocampus'"),
        ("qqqq", "`segmed configs` lists those that are shipped"),
        ("nowhere.yaml", "cannot read config nowhere.yaml"),
        ("nowhere/acdc", "cannot read config nowhere/acdc"),
    ],
)
def test_what_is_neither_file_nor_name_is_one_line(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_yaml(given)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_every_shipped_config_says_what_it_is():
    assert not [name for name, path in SHIPPED.items() if len(first_comment(path)) < 20]


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_file_is_that_of_the_models(kind):
    stored = json.loads((ROOT / "configs" / "schema" / f"{kind}.json").read_text(encoding="utf-8"))
    assert stored == json_schema(kind), f"segmed schema {kind} --output configs/schema/{kind}.json"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_points_to_its_schema_and_fits_it(name):
    path = SHIPPED[name]
    line = path.read_text(encoding="utf-8").splitlines()[0]
    assert line == f"{MODELINE} $schema=../schema/{KIND_OF[path.parent.name]}.json"
    schema = path.parent / line.partition("$schema=")[2]
    jsonschema.validate(load_yaml(path), json.loads(schema.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("config", "problem"),
    [({"trian": {}}, "'trian' was unexpected"), ({"train": {"epochs": 0}}, "less than the minimum"), ({}, "")],
)
def test_a_schema_finds_what_the_models_refuse(config, problem):
    found = [
        error.message for error in jsonschema.Draft202012Validator(json_schema("segmentation")).iter_errors(config)
    ]
    assert bool(found) == bool(problem)
    assert all(problem in message for message in found)


def test_a_schema_describes_the_fields():
    training = json_schema("segmentation")["$defs"]["TrainConfig"]["properties"]
    assert "fit the schedule to this time" in training["budget_minutes"]["description"]

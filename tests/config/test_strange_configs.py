"""A stranger's YAML that would fill any memory or take any time is one line."""

import time

import pytest

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import load_yaml, validate
from segmed.errors import ConfigError

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "m0: &m0 {k: 1}\n" + "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [LAUGHS, MERGES, "a: &a [*a]", "[" * 5000, "x" * 2_000_000],
    ids=["laughs", "merges", "itself", "deep", "long"],
)
def test_a_yaml_bomb_is_one_line_at_once(text, tmp_path):
    (tmp_path / "bomb.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"bomb\.yaml") as error:
        load_yaml(tmp_path / "bomb.yaml")
    assert time.process_time() - began < 4
    assert "\n" not in str(error.value)


def test_aliases_and_merges_of_a_usual_config_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("base: &base {epochs: 3, ema: 0.5}\ntrain: {<<: *base, epochs: 4}\nother: *base\n")
    assert load_yaml(tmp_path / "a.yaml")["train"] == {"epochs": 4, "ema": 0.5}


@pytest.mark.parametrize(
    "section",
    [
        {"network": {"name": "unet", "encoder": {"blocks": 10**9}}},
        {"network": {"name": "unet", "encoder": {"channels": [10**9, 10**9]}}},
        {"network": {"name": "unet", "encoder": {"channels": [8] * 1000}}},
        {"patches": {"size": [0, 64, 64]}},
        {"patches": {"size": [64]}},
        {"inference": {"overlap": 0.9999999}},
        {"split": {"folds": 10**9}},
        {"augment": {"name": "full", "bias_coefficient": 100}},
        {"augment": {"name": "full", "synthetic_bias": 100}},
    ],
    ids=["blocks", "channels", "levels", "no voxels", "a line", "overlap", "folds", "bias", "synthetic bias"],
)
def test_a_config_that_would_never_end_or_fit_is_refused(section):
    with pytest.raises(ConfigError, match=next(iter(section))):
        validate(SegmentationConfig, section, where="config")


@pytest.mark.parametrize("schema", [SegmentationConfig, ClassificationConfig])
def test_a_fold_that_does_not_exist_is_refused(schema):
    with pytest.raises(ConfigError, match="fold 2 does not exist: 2 folds are counted from 0") as error:
        validate(schema, {"split": {"folds": 2, "fold": 2}}, where="config")
    assert "\n" not in str(error.value)

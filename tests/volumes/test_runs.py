"""The folders of runs and of cross-validations: what is one, and which runs it holds."""

from __future__ import annotations

import pytest

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.errors import ConfigError, RunError
from segmed.runs import Folds, Run, is_run, new_folds, new_run, runs_of

SCHEMAS = {
    "segmentation": (SegmentationConfig, {"network": {"name": "unet"}}),
    "classification": (ClassificationConfig, {"network": {"name": "logistic"}}),
}


@pytest.fixture(params=SCHEMAS)
def folds(request, tmp_path):
    """A cross-validation of each kind, with nothing trained yet."""
    schema, given = SCHEMAS[request.param]
    config = schema.model_validate(given | {"name": "three", "runs": tmp_path / "runs", "split": {"folds": 3}})
    return new_folds(config, None)


def test_a_cross_validation_holds_a_run_for_each_fold_in_order(folds):
    assert folds.path.name.startswith("three-folds-")
    assert [run.path.relative_to(folds.path).as_posix() for run in folds.runs()] == ["fold_0", "fold_1", "fold_2"]
    assert runs_of(folds.path) == folds.runs()
    assert is_run(folds.path)
    assert not any(is_run(run.path) for run in folds.runs())


def test_a_run_alone_is_its_only_run(tmp_path):
    run = new_run(tmp_path / "one", runs=tmp_path, name="unused")
    assert not is_run(run.path)
    run.config.write_text("name: one\n")
    assert is_run(run.path)
    assert not Folds(run.path).begun
    assert runs_of(run.path) == (Run(run.path),)


def test_a_folder_with_something_in_it_takes_no_cross_validation(folds):
    config = SegmentationConfig.model_validate({"network": {"name": "unet"}})
    with pytest.raises(RunError, match="nothing is overwritten"):
        new_folds(config, folds.path)


@pytest.mark.parametrize(
    "text", ["split: [", "split: {folds: many}\n", "network: {name: logistic}\nsplit: {folds: 1}\n"]
)
def test_a_damaged_config_of_a_cross_validation_is_named(folds, text):
    folds.config.write_text(text)
    with pytest.raises(ConfigError, match=r"folds\.yaml"):
        folds.runs()

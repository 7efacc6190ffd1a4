"""Images that a case lacks: zeros all the way to the network, drawn in training, allowed where they were learned."""

import re
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from segmed.commands import audit_data
from segmed.config import AugmentConfig, DataConfig, PatternLayout, PreprocessConfig, SegmentationConfig
from segmed.data.audit import audit_dataset
from segmed.data.augment import Augmentation, without_some
from segmed.data.cache import VolumeCache
from segmed.data.cases import read_dataset
from segmed.data.familiar import Familiar
from segmed.data.inputs import find_inputs
from segmed.data.integrity import check_files
from segmed.data.preprocess import prepare, read_case
from segmed.errors import DatasetError
from segmed.labels import LabelSet

MODALITIES = ("T1", "T2", "Flair")
IMAGE = np.random.default_rng(0).normal(5, 1, (3, 12, 12, 12)).astype(np.float32)


def patch(dropout, seed):
    config = AugmentConfig(name="full", modality_dropout=dropout)
    augmentation = Augmentation(config, dims=3, labels=LabelSet((), ()))
    at = {"centre": (5.5, 5.5, 5.5), "size": (8, 8, 8), "spacing_mm": (1, 1, 1)}
    return augmentation.patch(IMAGE, None, generator=np.random.default_rng(seed), **at)[0]


def test_a_channel_is_dropped_whole_after_all_artefacts_and_the_others_stay_what_they_were():
    counts = np.zeros(3)
    for seed in range(60):
        whole, some = patch(0.0, seed), patch(0.5, seed)
        gone = np.array([not channel.any() for channel in some])
        assert not gone.all()
        assert torch.equal(some[~gone], whole[~gone])
        counts += gone
    assert (counts > 12).all()
    assert (counts < 42).all()


def test_of_a_case_that_lacks_images_the_last_one_there_is_never_dropped():
    channels = torch.zeros(3, 2, 2, 2)
    channels[1] = 1
    for seed in range(20):
        assert without_some(channels, 0.9, generator=np.random.default_rng(seed))[1].all()


@pytest.fixture
def data(tmp_path) -> DataConfig:
    """Three cases; of the second T1, of the third T2 and Flair are missing."""
    rng = np.random.default_rng(1)
    for case, lacking in (("a", ()), ("b", ("T1",)), ("c", ("T2", "Flair"))):
        label = np.zeros((10, 9, 8), np.uint8)
        label[3:6, 3:6, 3:6] = 1
        for name, voxels in {**{m: rng.normal(100, 20, label.shape) for m in MODALITIES}, "seg": label}.items():
            if name not in lacking:
                path = tmp_path / case / f"{case}_{name}.nii.gz"
                path.parent.mkdir(exist_ok=True)
                nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.eye(4)), path)
    images = {name: f"{{case}}/{{case}}_{name}.nii.gz" for name in MODALITIES}
    layout = PatternLayout(images=images, label="{case}/{case}_seg.nii.gz")
    return DataConfig(root=tmp_path, layout=layout, labels={"tumour": 1})


def test_cases_that_lack_an_image_are_an_error_that_says_how_they_may_train(data):
    with pytest.raises(DatasetError, match=re.escape("'b' has no image 'T1'") + ".*augment.modality_dropout"):
        read_dataset(data)
    (data.root / "c" / "c_T1.nii.gz").unlink()
    with pytest.raises(DatasetError, match="has no image"):  # nothing is left of it but its label map
        read_dataset(data, incomplete_images=True)


@pytest.mark.parametrize("crop", ["none", "nonzero", "body"])
@pytest.mark.parametrize("intensity", ["zscore", "zscore_nonzero", "percentile", "median_minmax", "none"])
def test_a_missing_image_is_zero_on_every_way_to_the_network(data, intensity, crop):
    dataset = read_dataset(data, incomplete_images=True)
    image, label = read_case(dataset.cases[2], dataset)
    assert image[0].any()
    assert not image[1:].any()
    config = PreprocessConfig(
        orientation="ras", spacing_mm=(1.5, 1.5, 1.5), crop=crop, intensity=intensity, interpolation="cubic",
        separate_z=False,
    )  # fmt: skip
    ready, _ = prepare(image, label, config)
    assert not ready[1:].any()
    alone, _ = prepare(image[:1], label, config)
    assert torch.equal(ready[:1].as_tensor(), alone.as_tensor())  # nor does it change what is done to the others


def test_the_audit_accepts_them_and_facts_hold_what_is_there(data):
    dataset = read_dataset(data, incomplete_images=True)
    audit = audit_dataset(dataset)
    assert not audit.errors
    (counted,) = [finding for finding in check_files(dataset) if finding.kind == "partner"]
    assert counted.severity == "warning"
    assert counted.what == "2 of 3 cases lack an image: T1 in 1, T2 in 1, Flair in 1"
    assert [tuple(fact.intensity) for fact in audit.facts] == [MODALITIES, ("T2", "Flair"), ("T1",)]
    image, _ = read_case(dataset.cases[2], dataset)
    assert Familiar(audit.facts, MODALITIES).unlike(image) is None


@pytest.mark.parametrize(("dropout", "code"), [(0.2, 0), (0.0, 1)])
def test_the_audit_of_a_config_that_learns_without_images_only_warns(data, dropout, code, tmp_path, monkeypatch):
    config = {"data": data.model_dump(mode="json"), "augment": {"modality_dropout": dropout}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    given = ["--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "audit"), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["audit", *given])
    assert audit_data.main() == code


def test_which_image_is_missing_tells_cache_entries_apart(data, tmp_path):
    dataset, cache = read_dataset(data, incomplete_images=True), VolumeCache(tmp_path / "cache")
    case = dataset.cases[2]
    other = replace(case, images={"Flair": case.images["T1"]})  # the same file, as another image
    assert cache.key(case, dataset, PreprocessConfig()) != cache.key(other, dataset, PreprocessConfig())


def test_a_folder_to_predict_may_lack_an_image_in_every_case(data):
    for path in data.root.rglob("*_T2.nii.gz"):
        path.unlink()
    inputs = find_inputs(data.root, data.model_copy(update={"images": MODALITIES}))
    assert {item.case.id: tuple(item.case.images) for item in inputs} == {
        "a": ("T1", "Flair"), "b": ("Flair",), "c": ("T1",),
    }  # fmt: skip
    with pytest.raises(DatasetError, match="fits"):
        read_dataset(data, incomplete_images=True)  # for training a pattern that fits nothing is a slip


def test_networks_that_all_drop_images_take_incomplete_cases():
    def takes(**sections):
        return SegmentationConfig.model_validate(sections).takes_incomplete

    assert not takes()
    assert takes(augment={"modality_dropout": 0.2})
    stage = {"networks": {"axial": {"name": "unet"}}}
    assert takes(augment={"modality_dropout": 0.2}, ensemble=stage)
    assert not takes(augment={"modality_dropout": 0.2}, ensemble={**stage, "augment": {"name": "none"}})

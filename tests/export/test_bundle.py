"""A MONAI bundle: MONAI alone reads it, and its label maps are those of the run."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out
from monai.bundle.properties import InferProperties
from monai.data import MetaTensor, decollate_batch
from tiny_data import make_balls, tiny
from untrained_runs import untrained_run

import segmed
from segmed.commands.program import main_of
from segmed.errors import ConfigError
from segmed.export.bundle import write_bundle
from segmed.export.bundle_workflow import check_sayable
from segmed.export.card import Words
from segmed.volumes import read_volume

RESPACED = {"spacing_mm": [1.3, 1.3, 2.0], "crop": "nonzero", "orientation": "slices_last"}
KINDS = {
    "by MONAI's transforms": {"inference": {"largest_component": ["core"]}},
    "by ours": {"preprocess": RESPACED},
    "in slices": {"patches": {"dims": 2, "size": [8, 8], "plane": "coronal"}},
    "of two members": {"network": {"members": 2}},
    "mirrored": {"inference": {"mirror": True}, "network": {"name": "segresnet", "init_filters": 8}},
    "dynunet": {
        "network": {"name": "dynunet", "channels": [4, 8, 8], "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]},
        "preprocess": {"intensity": "percentile"},
    },
}


def bundle_of(folder, **sections):
    run = untrained_run(folder / "run", **sections)
    return run, write_bundle([run.path], folder / "balls", Words(license="CC0-1.0"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return bundle_of(tmp_path_factory.mktemp("clinic"))


def labels_of(bundle, images, *, named=True):
    """Label maps by the parts of the workflow, in place of the evaluator, which needs ignite."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.read_meta(bundle / "configs" / "metadata.json")
    parser["bundle_root"], parser["dataset_dir"] = str(bundle), str(images)
    parser["output_dir"] = str(bundle.parent / "out")
    if named:
        parser["datalist"] = [{"image": str(path)} for path in sorted(images.glob("ball_0?.nii.gz"))[:2]]
    parser.get_parsed_content("initialize")
    network, inferer, after = (parser.get_parsed_content(name) for name in ("network", "inferer", "postprocessing"))
    network.eval()
    results = []
    for batch in parser.get_parsed_content("dataloader"):
        with torch.no_grad():
            batch["pred"] = inferer(batch["image"], network)
        results += [after(case)["pred"] for case in decollate_batch(batch)]
    return results


@pytest.mark.parametrize("kind", KINDS)
def test_its_label_map_is_that_of_the_run(kind, tmp_path):
    run, bundle = bundle_of(tmp_path, **KINDS[kind])
    images = tmp_path / "balls_of_the_hospital"
    segmenter = segmed.load_run(run.path)
    for number, labels in enumerate(labels_of(bundle, images)):
        volume = read_volume(images / f"ball_{number:02d}.nii.gz")
        own, written = segmenter(volume), read_volume(tmp_path / "out" / f"ball_{number:02d}_seg.nii.gz")
        assert len(own.unique()) > 1
        assert np.mean(own.numpy() == labels.numpy()) >= 0.999
        assert np.mean(own.numpy() == written.numpy()) >= 0.999
        np.testing.assert_allclose(written.affine, volume.affine)


def test_several_images_of_a_case_are_named_as_nnunet_names_them(tmp_path):
    layout = {"name": "pattern", "images": {"MR": "{case}.nii.gz", "T2": "{case}_T2.nii.gz"},
              "label": "{case}_label.nii.gz"}  # fmt: skip
    data = make_balls(tmp_path / "balls_of_the_hospital")
    for path in sorted(data.glob("ball_0?.nii.gz")):
        shutil.copy(path.with_name("ball_05.nii.gz"), data / path.name.replace(".nii", "_T2.nii"))
    run, bundle = bundle_of(tmp_path, data={"layout": layout}, leaks={"check": False})
    given = tmp_path / "given"
    given.mkdir()
    for number, name in enumerate(("ball_00.nii.gz", "ball_00_T2.nii.gz")):
        shutil.copy(data / name, given / f"first_{number:04}.nii.gz")
        shutil.copy(data / name.replace("_00", "_01"), given / f"second_{number:04}.nii.gz")
    results = labels_of(bundle, given, named=False)
    for case, labels in zip(("ball_00", "ball_01"), results, strict=True):
        volumes = [read_volume(data / f"{case}{end}.nii.gz") for end in ("", "_T2")]
        together = MetaTensor(torch.cat([each.as_tensor() for each in volumes]), affine=volumes[0].affine)
        assert np.mean(segmed.load_run(run.path)(together).numpy() == labels.numpy()) >= 0.999
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"first_0000_seg.nii.gz", "second_0000_seg.nii.gz"}


def test_the_network_fits_what_its_metadata_say(tmp_path):
    _, bundle = bundle_of(tmp_path, **KINDS["in slices"])
    configs = bundle / "configs"
    verify_net_in_out(
        net_id="network_def", meta_file=str(configs / "metadata.json"), config_file=str(configs / "inference.json"),
        device="cpu",
    )  # fmt: skip


def test_it_is_a_workflow_of_monai_with_all_that_one_needs(plain):
    bundle = plain[1]
    configs = bundle / "configs"
    flow = json.loads((configs / "inference.json").read_text())
    assert {needed["id"] for needed in InferProperties.values() if needed["required"]} <= set(flow)
    meta = json.loads((configs / "metadata.json").read_text())
    assert meta["network_data_format"]["outputs"]["pred"]["channel_def"] == {
        "0": "background",
        "1": "shell",
        "2": "core",
    }
    assert meta["copyright"] == "CC0-1.0"
    assert "segmed-mri" in meta["required_packages_version"]  # the network is ours
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(isinstance(weight, torch.Tensor) for weight in weights.values())


def test_a_network_of_monai_on_native_grids_needs_no_segmed(tmp_path):
    _, bundle = bundle_of(tmp_path, **KINDS["dynunet"])
    assert "segmed" not in (bundle / "configs" / "inference.json").read_text()
    assert "segmed-mri" not in (bundle / "configs" / "metadata.json").read_text()


def test_it_names_no_case_and_no_path(plain):
    run, bundle = plain
    for file in bundle.rglob("*.*"):
        content = file.read_bytes().decode(errors="replace")
        assert str(run.path.parent) not in content
        assert "ball_0" not in content, file


def test_monai_runs_it(plain, tmp_path):
    pytest.importorskip("ignite")
    run, bundle = plain
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(run.path.parent / "balls_of_the_hospital" / "ball_03.nii.gz", images)
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"), workflow_type="inference", logging_file=False,
        bundle_root=str(bundle), dataset_dir=str(images), output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    own = segmed.load_run(run.path)(read_volume(images / "ball_03.nii.gz"))
    assert np.mean(own.numpy() == read_volume(tmp_path / "out" / "ball_03_seg.nii.gz").numpy()) >= 0.999


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"ensemble": {"views": ["axial", "coronal"]}}, "several networks"),
        (
            {"data": {"images": ["MR"], "regions": {"ball": ["shell", "core"]}, "targets": ("ball", "core")}},
            "regions as targets",
        ),
        ({"inference": {"smallest_ml": {"core": 0.1}}}, "smallest pieces"),
    ],
)
def test_what_it_has_no_words_for_is_one_line(sections, what, tmp_path):
    with pytest.raises(ConfigError, match=f"can't hold {what}.* export the run as NAME.segmed") as caught:
        check_sayable(tiny(tmp_path, tmp_path, **{"data": {"images": ["MR"]}, **sections}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["%scar", "@1.5T", "$x"])
def test_text_that_monai_would_resolve_is_one_line(text, plain, tmp_path):
    with pytest.raises(ConfigError, match="which MONAI reads as a reference") as caught:
        write_bundle([plain[0].path], tmp_path / text, Words())
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="--license"):
        write_bundle([plain[0].path], tmp_path / "balls", Words(license=text))


def test_images_lie_in_a_folder_of_any_name(plain, tmp_path):
    parser = ConfigParser()
    parser.read_config(plain[1] / "configs" / "inference.json")
    image = tmp_path / "[1] *scans?" / "ball.nii.gz"
    image.parent.mkdir()
    image.touch()
    parser["dataset_dir"] = str(image.parent)
    assert parser.get_parsed_content("datalist") == [{"image": str(image)}]


def test_the_command_writes_it_once(plain, tmp_path, monkeypatch, capsys):
    run, _ = plain
    arguments = ["export", "--run", str(run.path), "--format", "monai", "--output", str(tmp_path / "balls")]
    monkeypatch.setattr(sys, "argv", ["segmed", *arguments])
    assert main_of("export")() == 0
    assert "a MONAI bundle" in capsys.readouterr().out
    assert (tmp_path / "balls" / "docs" / "README.md").read_text().startswith("# balls")
    for more in ([], ["--overwrite"]):
        monkeypatch.setattr(sys, "argv", ["segmed", *arguments, *more])
        with pytest.raises(ConfigError, match="is there already: name another folder for the bundle"):
            main_of("export")()

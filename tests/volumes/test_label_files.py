"""Label maps as people save them: nearly whole numbers, GIF, one-hot, regions, two files of one case."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny_data import make_balls, tiny

from segmed.config import DataConfig, MsdLayout, NnunetLayout
from segmed.data.cases import read_dataset
from segmed.errors import DatasetError, VolumeError
from segmed.segment.prepare import prepare
from segmed.volumes import Source, header_remarks, read_label_volume, read_mask


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


def nnunet(root, labels, *, cases=("a", "b")):
    for case in cases:
        save(root / f"imagesTr/{case}_0000.nii.gz", np.ones((3, 3, 3), np.int16))
        save(root / f"labelsTr/{case}.nii.gz", np.ones((3, 3, 3), np.uint8))
    described = {"channel_names": {"0": "LGE"}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described))
    return root


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("off", [1e-3, -1e-3, 1e-5, -1e-5])
def test_values_within_a_thousandth_of_whole_numbers_are_these(tmp_path, off):
    values = np.array([0, 1 + off * 0.99, 2 - off * 0.99, 0 + off * 0.99], np.float32).reshape(4, 1, 1)
    assert read_label_volume(save(tmp_path / "a.nii.gz", values)).flatten().tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("value", [1.002, 0.5, 1.9979])
def test_interpolated_values_are_refused(tmp_path, value):
    path = save(tmp_path / "a.nii.gz", np.full((2, 2, 2), value, np.float32))
    with pytest.raises(VolumeError, match=r"8 voxels are not whole numbers .*: give a label map that was not interp"):
        read_label_volume(path)


@pytest.mark.parametrize(("name", "options"), [("a.jpg", {}), ("a.tif", {"compression": "jpeg"}), ("b.png", {})])
def test_a_lossy_file_is_no_label_map_whatever_its_name(tmp_path, name, options):
    Image.new("L", (8, 8), 255).save(tmp_path / name, format="JPEG" if name == "b.png" else None, **options)
    with pytest.raises(VolumeError, match=r"is compressed with loss .*: save label maps as PNG"):
        read_label_volume(tmp_path / name)


def test_a_gif_mask_has_the_grey_values_that_were_saved(tmp_path):
    mask = np.zeros((6, 5), np.uint8)
    mask[2:4, 1:3] = 255
    mask[5] = 128
    Image.fromarray(mask).save(tmp_path / "a.gif")
    assert np.array_equal(read_label_volume(tmp_path / "a.gif")[0, :, :, 0].numpy().T, mask)


def test_a_gif_of_colours_is_no_label_map(tmp_path):
    image = Image.fromarray(np.eye(4, dtype=np.uint8), mode="P")
    image.putpalette([255, 0, 255, 0, 0, 0])  # what is drawn has the index 0
    image.save(tmp_path / "a.gif")
    with pytest.raises(VolumeError, match=r"a\.gif is a colour image: save the label map as PNG"):
        read_label_volume(tmp_path / "a.gif")
    assert np.array_equal(read_mask(tmp_path / "a.gif")[0, :, :, 0].numpy(), ~np.eye(4, dtype=bool))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "1", "LA"])
def test_a_mask_is_what_is_shown_not_black(tmp_path, mode):
    seen = np.arange(6).reshape(2, 3) > 2
    if mode == "I;16":
        image = Image.fromarray(seen.astype(np.uint16) * 700)
    else:
        image = Image.fromarray(seen.astype(np.uint8) * 255).convert(mode)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png")[0, :, :, 0].numpy().T, seen)


def test_a_volume_is_a_mask_where_it_is_not_0(tmp_path):
    values = np.arange(8).reshape(2, 2, 2) % 3
    nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([2.0, 1, 1, 1])), tmp_path / "a.nii.gz")
    mask = read_mask(tmp_path / "a.nii.gz")
    assert np.array_equal(mask[0].numpy(), values != 0)
    assert mask.affine[0, 0] == 2


def test_a_photograph_that_viewers_turn_is_named(tmp_path):
    image = Image.fromarray(np.zeros((4, 6), np.uint8))
    image.save(tmp_path / "plain.jpg")
    entry = Image.Exif()
    entry[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=entry)
    assert header_remarks(Source(tmp_path / "plain.jpg")) == ()
    (said,) = header_remarks(Source(tmp_path / "turned.jpg"))
    assert "viewers turn it" in said


def test_a_gif_of_many_pages_is_refused(tmp_path):
    first, second = Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 255)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    with pytest.raises(VolumeError, match="holds several pages"):
        read_label_volume(tmp_path / "a.gif")


@pytest.mark.parametrize(
    ("overlap", "said"),
    [(False, "these are one-hot: save their argmax"), (True, r"these overlap: .* the wholes in data\.regions")],
)
def test_several_maps_in_one_file_are_refused_with_the_way_out(tmp_path, overlap, said):
    maps = np.zeros((4, 4, 4, 2), np.uint8)
    maps[:2, ..., 0] = 1
    maps[1 if overlap else 2 :, ..., 1] = 1
    with pytest.raises(VolumeError, match=f"has 2 components: a label map has one; {said}"):
        read_label_volume(save(tmp_path / "a.nii.gz", maps))


# ---------------------------------------------------------------- what dataset.json says


def test_regions_of_nnunet_become_parts_and_wholes(tmp_path):
    root = nnunet(tmp_path, {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4})
    labels = read_dataset(DataConfig(root=root, layout=NnunetLayout())).labels
    assert dict(zip(labels.names, labels.values, strict=True)) == {"label_1": (1,), "label_2": (2,), "enhancing": (3,)}
    assert dict(labels.regions) == {"whole": ("label_1", "label_2", "enhancing"), "core": ("label_2", "enhancing")}
    assert labels.ignore == (4,)


def test_values_that_share_all_regions_are_one_part(tmp_path):
    root = nnunet(tmp_path, {"background": 0, "whole": [1, 2, 5], "core": [5]})
    labels = read_dataset(DataConfig(root=root, layout=NnunetLayout())).labels
    assert dict(zip(labels.names, labels.values, strict=True)) == {"label_1": (1, 2), "core": (5,)}
    assert dict(labels.regions) == {"whole": ("label_1", "core")}


def test_lists_that_do_not_overlap_are_merged_labels_as_before(tmp_path):
    root = nnunet(tmp_path, {"background": 0, "left": [1, 3], "right": "2"})
    labels = read_dataset(DataConfig(root=root, layout=NnunetLayout())).labels
    assert (labels.names, labels.values, dict(labels.regions)) == (("left", "right"), ((1, 3), (2,)), {})


def test_regions_of_a_config_stand_before_those_of_the_data_set(tmp_path):
    root = nnunet(tmp_path, {"background": 0, "whole": [1, 2], "core": [2]})
    data = DataConfig(root=root, layout=NnunetLayout(), regions={"all": ["core", "label_1"]})
    assert dict(read_dataset(data).labels.regions) == {"all": ("core", "label_1")}


def test_regions_are_understood_in_the_layout_of_the_decathlon_too(tmp_path):
    root = nnunet(tmp_path, {"whole": [1, 2], "core": [2]})
    described = json.loads((root / "dataset.json").read_text())
    described["training"] = [{"image": "imagesTr/a_0000.nii.gz", "label": "labelsTr/a.nii.gz"}]
    (root / "dataset.json").write_text(json.dumps(described))
    labels = read_dataset(DataConfig(root=root, layout=MsdLayout())).labels
    assert (labels.names, dict(labels.regions)) == (("label_1", "core"), {"whole": ("label_1", "core")})


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("twice", ["labelsTr/a", "imagesTr/a_0000"])
def test_two_files_of_one_case_are_named(tmp_path, twice):
    root = nnunet(tmp_path, {"background": 0, "scar": 1})
    save(root / f"{twice}.nii", np.ones((3, 3, 3), np.int16))
    name = twice.split("/")[1]
    with pytest.raises(DatasetError, match=rf"{name}\.nii and {name}\.nii\.gz are files of one case: take the wrong"):
        read_dataset(DataConfig(root=root, layout=NnunetLayout()))


def test_a_label_that_no_training_case_has_is_said_before_training(tmp_path, caplog):
    make_balls(tmp_path / "data")
    config = tiny(tmp_path / "data", tmp_path / "runs", data={"labels": {"shell": 1, "core": 2, "ghost": 3}})
    with caplog.at_level(logging.WARNING):
        ready = prepare(config)
    split = ready.split
    assert [note for note in ready.notes if note.startswith("label 'ghost' is in none of the")]
    said = [record.getMessage() for record in caplog.records]
    assert [f"label 'ghost' is in none of the {len(split.train)} training cases" in line for line in said] == [True]

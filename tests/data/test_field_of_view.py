"""A field of view: what lies outside is neither trained nor scored, and a mask that does not fit is one line."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from segmed.config import DataConfig, PatternLayout, PreprocessConfig, SplitConfig
from segmed.data.audit import audit_dataset
from segmed.data.cache import VolumeCache
from segmed.data.cases import read_dataset
from segmed.data.field_of_view import labels_inside, probabilities_inside, read_field_of_view
from segmed.data.inputs import find_inputs
from segmed.data.integrity import check_files
from segmed.data.preprocess import read_case
from segmed.data.references import find_references
from segmed.data.splits import make_split
from segmed.errors import DatasetError, GeometryError, VolumeError
from segmed.labels import IGNORE
from segmed.volumes import Source

LAYOUT = PatternLayout(
    images={"fundus": "{split}/images/{case}_{split}.tif"},
    label="{split}/1st_manual/{case}_manual1.gif",
    field_of_view="{split}/mask/{case}_{split}_mask.gif",
)
PREPARED = PreprocessConfig(
    orientation="ras", spacing_mm="native", crop="none", intensity="none", interpolation="linear", separate_z=False
)
CASES = {"01": "test", "02": "test", "21": "training", "22": "training", "23": "training"}


def write(folder, name, pixels):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def drive(tmp_path):
    """Five images 7 wide and 6 high; the two columns at the left are outside of the field of view."""
    for case, part in CASES.items():
        rng = np.random.default_rng(int(case))
        write(tmp_path, f"{part}/images/{case}_{part}.tif", rng.integers(0, 255, (6, 7, 3)).astype(np.uint8))
        write(tmp_path, f"{part}/1st_manual/{case}_manual1.gif", (rng.random((6, 7)) < 0.4).astype(np.uint8) * 255)
        write(
            tmp_path,
            f"{part}/mask/{case}_{part}_mask.gif",
            np.where(np.arange(7) < 2, 0, 255).astype(np.uint8)[None].repeat(6, 0),
        )
    return tmp_path


def data(root, **fields) -> DataConfig:
    return DataConfig(**{"root": root, "layout": LAYOUT, "labels": {"vessel": 255}, "colours": "channels", **fields})


def mask(folder, case):
    return folder / CASES[case] / "mask" / f"{case}_{CASES[case]}_mask.gif"


# ---------------------------------------------------------------- files


def test_drive_is_read_as_it_was_published(drive):
    dataset = read_dataset(data(drive))
    assert [case.id for case in dataset.cases] == list(CASES)
    assert dataset.modalities == ("red", "green", "blue")
    assert [case.field_of_view.path for case in dataset.cases] == [mask(drive, case) for case in CASES]


def test_the_published_parts_are_kept(drive):
    split = make_split(read_dataset(data(drive)).cases, SplitConfig(from_manifest=True, validation=0.3))
    assert split.test == ("01", "02")
    assert len(split.validation) == 1
    assert set(split.train) | set(split.validation) == {"21", "22", "23"}


def test_a_layout_needs_more_than_parts(drive):
    layout = LAYOUT.model_copy(update={"images": {"fundus": "{split}/images/*.tif"}})
    with pytest.raises(DatasetError, match=r"has no {case}"):
        read_dataset(data(drive, layout=layout))


def test_labels_outside_are_ignored(drive):
    dataset = read_dataset(data(drive))
    image, label = read_case(dataset.cases[0], dataset)
    vessels = np.asarray(Image.open(drive / "test/1st_manual/01_manual1.gif").convert("L")).T > 0
    assert (label.numpy()[0, :2] == IGNORE).all()
    assert np.array_equal(label.numpy()[0, 2:, :, 0], vessels[2:])
    assert image.shape == (3, 7, 6, 1)


def test_the_plan_counts_labels_inside_alone(drive):
    dataset = read_dataset(data(drive))
    audit = audit_dataset(dataset)
    assert not audit.errors
    inside = [int((read_case(case, dataset)[1].numpy() == 1).sum()) for case in dataset.cases]
    assert [fact.label_voxels["vessel"] for fact in audit.facts] == inside


def test_another_mask_is_another_entry_of_the_cache(drive, tmp_path):
    cache, dataset = VolumeCache(tmp_path / "cache"), read_dataset(data(drive))
    first = cache.get(dataset.cases[0], dataset, PREPARED)
    pixels = np.full((6, 7), 255, np.uint8)
    pixels[0] = 0
    write(drive, "test/mask/01_test_mask.gif", pixels)
    second = cache.get(dataset.cases[0], dataset, PREPARED)
    assert (first.label[:2] == IGNORE).all()
    assert (second.label[:, 0] == IGNORE).all()
    assert not (second.label[:, 1:] == IGNORE).any()


def test_results_outside_are_background(drive):
    case = read_dataset(data(drive)).cases[0]
    label_map = labels_inside(MetaTensor(torch.ones(1, 7, 6, 1, dtype=torch.uint8)), case).numpy()
    assert not label_map[0, :2].any()
    assert label_map[0, 2:].all()
    probabilities = probabilities_inside(MetaTensor(torch.full((2, 7, 6, 1), 0.5)), case).numpy()
    assert (probabilities[:, :2] == np.array([1.0, 0.0])[:, None, None, None]).all()
    assert (probabilities[:, 2:] == 0.5).all()


@pytest.mark.parametrize("place", [".", "test", "test/images", "test/images/01_test.tif"])
def test_images_to_predict_bring_their_masks(drive, place):
    inputs = find_inputs(drive / place, data(drive, images=("red", "green", "blue")))
    assert inputs
    assert all(item.case.field_of_view.path == mask(drive, item.case.id) for item in inputs)


def test_images_without_masks_are_predicted_whole(drive):
    for case in CASES:
        mask(drive, case).unlink()
    inputs = find_inputs(drive / "test", data(drive, images=("red", "green", "blue")))
    assert {item.case.id: item.case.field_of_view for item in inputs} == {"01": None, "02": None}


def test_references_bring_their_masks(drive):
    references, _ = find_references(drive, data=data(drive))
    assert [reference.field_of_view.path for reference in references] == [mask(drive, case) for case in CASES]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
@pytest.mark.parametrize("palette", [[255, 0, 0, 0, 0, 0], [255, 255, 255, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
def test_a_mask_with_a_palette_is_read_as_it_is_shown(tmp_path, suffix, palette):
    indices = (np.arange(7) < 2).astype(np.uint8)[None].repeat(6, 0)
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette(palette)
    picture.save(tmp_path / f"mask{suffix}")
    like = MetaTensor(torch.zeros(1, 7, 6, 1), affine=torch.eye(4))
    seen = read_field_of_view(Source(tmp_path / f"mask{suffix}"), like=like, case="01")
    shown = np.array(palette).reshape(2, 3).any(axis=1)
    assert np.array_equal(seen[:, :, 0], shown[indices.T])


def test_a_missing_mask_is_one_line(drive):
    mask(drive, "22").unlink()
    with pytest.raises(DatasetError, match=r"1 of 5 cases have no field of view, e.g. '22': add its mask") as error:
        read_dataset(data(drive))
    assert "\n" not in str(error.value)
    (finding,) = [f for f in check_files(read_dataset(data(drive), complete=False)) if f.severity == "error"]
    assert (finding.case, finding.what) == ("22", "has no field of view")


def test_no_mask_at_all_is_one_line(drive):
    for case in CASES:
        mask(drive, case).unlink()
    with pytest.raises(DatasetError, match=r"adapt data\.layout\.field_of_view$"):
        read_dataset(data(drive))


def test_a_mask_of_another_size_is_one_line(drive):
    write(drive, "training/mask/21_training_mask.gif", np.full((6, 8), 255, np.uint8))
    dataset = read_dataset(data(drive))
    (error,) = audit_dataset(dataset).errors
    assert (error.case, error.kind) == ("21", "grid")
    assert "shape (8, 6, 1) against (7, 6, 1)" in error.what
    with pytest.raises(GeometryError, match=r"case 21: the field of view .*: give the mask of this image"):
        read_case(dataset.cases[2], dataset)


def test_an_empty_mask_is_one_line(drive):
    write(drive, "training/mask/21_training_mask.gif", np.zeros((6, 7), np.uint8))
    dataset = read_dataset(data(drive))
    with pytest.raises(VolumeError, match="is 0 everywhere: mark what counts"):
        read_case(dataset.cases[2], dataset)


def test_a_grey_image_beside_coloured_ones_is_one_line(drive):
    grey = np.random.default_rng(0).integers(0, 255, (6, 7)).astype(np.uint8)
    write(drive, "training/images/23_training.tif", grey)
    (error,) = audit_dataset(read_dataset(data(drive))).errors
    assert (error.case, error.what) == ("23", "is grey beside 4 coloured cases")
    assert not audit_dataset(read_dataset(data(drive, colours="grey"))).errors


def test_grey_images_alone_may_have_three_channels(drive):
    for case, part in CASES.items():
        grey = np.random.default_rng(int(case)).integers(0, 255, (6, 7)).astype(np.uint8)
        write(drive, f"{part}/images/{case}_{part}.tif", grey)
    assert not audit_dataset(read_dataset(data(drive))).errors

"""Pictures: colours may be channels, and pixels are no millimetres."""

import numpy as np
import pytest
from PIL import Image

from segmed.config import DataConfig, EvaluateConfig, PatternLayout
from segmed.data.audit import audit_dataset
from segmed.data.cases import read_dataset
from segmed.data.inputs import find_inputs
from segmed.data.preprocess import read_case
from segmed.data.references import Reference
from segmed.errors import DatasetError, VolumeError
from segmed.evaluate.scoring import Scoring, known_structures, score_cases
from segmed.volumes import Source, read_header, read_volume

LAYOUT = PatternLayout(images={"MR": "{case}.tif"}, label="{case}_mask.tif")


@pytest.fixture
def folder(tmp_path):
    """Two pictures 5 wide and 4 high whose colours are three sequences, and their masks."""
    for case in range(2):
        colours = np.random.default_rng(case).integers(0, 255, (4, 5, 3)).astype(np.uint8)
        colours[..., 0] = 40  # a sequence that was not taken
        Image.fromarray(colours).save(tmp_path / f"p{case}.tif")
        Image.fromarray((colours[..., 1] > 99).astype(np.uint8) * 255).save(tmp_path / f"p{case}_mask.tif")
    return tmp_path


def test_colours_of_a_picture_are_channels_where_asked_for(folder):
    data = DataConfig(root=folder, layout=LAYOUT, colours="channels")
    dataset = read_dataset(data)
    assert dataset.modalities == ("red", "green", "blue")
    image, label = read_case(dataset.cases[0], dataset)
    pixels = np.asarray(Image.open(folder / "p0.tif"))
    assert np.array_equal(image.numpy()[..., 0], pixels.transpose(2, 1, 0))
    assert label.shape == (1, 5, 4, 1)


def test_some_colours_may_be_chosen(folder):
    data = DataConfig(root=folder, layout=LAYOUT, colours="channels", images=("blue", "green"))
    dataset = read_dataset(data)
    image, _ = read_case(dataset.cases[1], dataset)
    pixels = np.asarray(Image.open(folder / "p1.tif"))
    assert np.array_equal(image.numpy()[..., 0], pixels[..., [2, 1]].transpose(2, 1, 0))


def test_a_run_that_took_colours_takes_them_of_a_new_picture(folder, tmp_path_factory):
    new = tmp_path_factory.mktemp("new") / "x.png"
    Image.open(folder / "p0.tif").save(new)
    data = DataConfig(root=folder, layout=LAYOUT, colours="channels", images=("red", "green", "blue"))
    (only,) = find_inputs(new, data)
    assert dict(only.case.images) == {
        name: Source(new, number, colours=True) for number, name in enumerate(("red", "green", "blue"))
    }


def test_colours_of_a_volume_are_refused(tmp_path):
    from test_label_files import save

    save(tmp_path / "a.nii.gz", np.ones((3, 3, 3), np.int16))
    data = DataConfig(root=tmp_path, layout=PatternLayout(images={"MR": "{case}.nii.gz"}), colours="channels")
    with pytest.raises(DatasetError, match=r"a\.nii\.gz is no picture, so it has no colours"):
        read_dataset(data)


def test_a_colour_that_is_not_there_is_named(folder):
    assert read_header(Source(folder / "p0.tif", colours=True)).components == 3
    with pytest.raises(VolumeError, match="has no component 3"):
        read_volume(Source(folder / "p0.tif", 3, colours=True))


def test_the_audit_says_that_colours_are_mixed_and_that_a_colour_is_empty(folder):
    grey = audit_dataset(read_dataset(DataConfig(root=folder, layout=LAYOUT)))
    assert ["mixed into grey" in finding.what for finding in grey.findings] == [True, True]
    apart = audit_dataset(read_dataset(DataConfig(root=folder, layout=LAYOUT, colours="channels")))
    assert [(finding.severity, finding.kind) for finding in apart.findings] == [("warning", "constant")] * 2
    assert "'red' is 40 everywhere" in apart.findings[0].what


def test_pictures_are_known_for_what_they_are(folder):
    assert read_dataset(DataConfig(root=folder, layout=LAYOUT)).are_pictures


def test_label_maps_that_are_pictures_are_scored_without_millimetres(folder):
    references = [Reference(f"p{n}", f"p{n}", Source(folder / f"p{n}_mask.tif")) for n in range(2)]
    predictions = {reference.id: reference.label.path for reference in references}
    scoring = Scoring(known_structures(DataConfig(labels={"tumour": 255}), None), EvaluateConfig())
    rows = score_cases(references, predictions, scoring).rows
    assert [(row["dice"], row["avd_ml"], row["hd95_mm"]) for row in rows] == [(1.0, None, None)] * 2

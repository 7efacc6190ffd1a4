"""The phantom of vessels: DRIVE's files, the same for the same seed, vessels darker than what is around them."""

import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segmed.commands import make_phantom
from segmed.data.drawn_vessels import draw_eye, draw_vessels
from segmed.data.vessel_phantom import draw_fundus, make_vessel_phantom
from segmed.errors import ConfigError, DatasetError

SIZE = (120, 124)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vessels")
    make_vessel_phantom(folder, cases=3, seed=2, size=SIZE)
    return folder


def test_files_are_called_as_those_of_drive(folder):
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == {
        "phantom.json",
        *(
            f"{part}/{file}"
            for part, number in (("test", "01"), ("training", "02"), ("training", "03"))
            for file in (
                f"images/{number}_{part}.tif",
                f"1st_manual/{number}_manual1.gif",
                f"mask/{number}_{part}_mask.gif",
            )
        ),
    }


def test_files_have_the_types_of_drive(folder):
    with Image.open(folder / "test/images/01_test.tif") as image:
        assert (image.format, image.mode, image.size) == ("TIFF", "RGB", SIZE)
    for file in ("1st_manual/01_manual1.gif", "mask/01_test_mask.gif"):
        with Image.open(folder / "test" / file) as image:
            assert (image.format, image.size) == ("GIF", SIZE)
            assert set(np.unique(np.asarray(image.convert("L")))) == {0, 255}


def test_vessels_are_a_tenth_of_the_field_of_view_and_darkest_in_green():
    image, vessels, seen = draw_fundus(np.random.default_rng([0, 1]), size=(565, 584))
    assert image.shape == (584, 565, 3)
    assert 0.05 < vessels[seen].mean() < 0.2
    assert 0.6 < seen.mean() < 0.75
    assert not vessels[~seen].any()
    assert image[~seen].max() <= 3
    beside = ndimage.binary_dilation(vessels, iterations=5) & ~ndimage.binary_dilation(vessels, iterations=2) & seen
    red, green = (image[..., channel].astype(float) for channel in range(2))
    assert green[vessels].mean() < 0.88 * green[beside].mean()
    assert green[vessels].mean() / green[beside].mean() < red[vessels].mean() / red[beside].mean()


def test_an_image_depends_on_its_seed_alone():
    first, again, other = (draw_fundus(np.random.default_rng([0, n]), size=SIZE) for n in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_vessels_begin_at_the_disc_and_get_thinner():
    rng = np.random.default_rng(3)
    eye = draw_eye(rng, size=(565, 584))
    points, arteries = draw_vessels(eye, rng)
    from_disc = np.hypot(*(points[:, :2] - eye.disc).T)
    near, far = points[from_disc < 2 * eye.disc_radius, 2], points[from_disc > 8 * eye.disc_radius, 2]
    assert near.mean() > 1.5 * far.mean()
    assert points[:, 2].max() <= eye.trunk_radius
    assert points[arteries, 2].max() < points[~arteries, 2].max()


def test_a_complete_phantom_stays_and_another_is_not_mixed_in(folder):
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    make_vessel_phantom(folder, cases=3, seed=2, size=SIZE)
    assert written == {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    with pytest.raises(DatasetError, match="phantom of other settings"):
        make_vessel_phantom(folder, cases=4, seed=2, size=SIZE)


def test_one_image_is_too_few(tmp_path):
    with pytest.raises(ValueError, match="ask for two or more"):
        make_vessel_phantom(tmp_path / "one", cases=1)


def test_the_command_makes_vessels_and_refuses_what_is_of_hearts(tmp_path, monkeypatch, capsys):
    ask = ["segmed phantom", str(tmp_path / "v"), "--kind", "vessels", "--cases", "2"]
    monkeypatch.setattr(sys, "argv", [*ask, "--hard"])
    with pytest.raises(ConfigError, match="are of hearts"):
        make_phantom.main()
    monkeypatch.setattr(sys, "argv", ask)
    assert make_phantom.main() == 0
    assert "configs/seg/drive.yaml" in capsys.readouterr().out
    with Image.open(tmp_path / "v/training/images/02_training.tif") as image:
        assert image.size == (565, 584)

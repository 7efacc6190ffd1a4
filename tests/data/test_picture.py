"""Pictures: every colour mode gives the pixels that a viewer shows, and a file that lies or breaks gives one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmed.data.images.picture import facts, grey, read_picture
from segmed.errors import VolumeError

RAMP = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4) * 10
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP.T.reshape(6, 4)], axis=-1)
ORIENTED = {  # EXIF orientation -> stored pixels of an upright RAMP (table of the EXIF standard, 4.6.5)
    1: RAMP,
    2: RAMP[:, ::-1],
    3: RAMP[::-1, ::-1],
    4: RAMP[::-1],
    5: RAMP.T,
    6: np.rot90(RAMP),
    7: RAMP[::-1, ::-1].T,
    8: np.rot90(RAMP, -1),
}


def with_orientation(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_grey_pixels_come_back_as_they_are(tmp_path, suffix):
    Image.fromarray(RAMP).save(tmp_path / f"a{suffix}")
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.suffix_fits
    assert not picture.rotated
    np.testing.assert_array_equal(picture.pixels, RAMP)


def test_colour_pixels_come_back_as_they_are(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert (picture.mode, picture.format) == ("RGB", "PNG")
    np.testing.assert_array_equal(picture.pixels, COLOUR)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_kept(tmp_path, suffix):
    deep = (RAMP.astype(np.uint16) * 257 + 3).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a{suffix}")
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, deep)
    np.testing.assert_array_equal(grey(picture), (deep / 65535).astype(np.float32))
    assert facts(tmp_path / f"a{suffix}").bits == 16


def test_values_beyond_16_bits_are_refused(tmp_path):
    Image.fromarray(RAMP.astype(np.int32) * 1000).save(tmp_path / "a.tif")
    with pytest.raises(VolumeError, match=r"values from 0 to 230000: save it with 8 or 16 bits"):
        read_picture(tmp_path / "a.tif")


def test_floating_point_is_refused(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(VolumeError, match="floating-point"):
        read_picture(tmp_path / "a.tif")


def test_a_bitmap_is_black_and_white(tmp_path):
    Image.fromarray(RAMP > 100).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.mode == "1"
    np.testing.assert_array_equal(picture.pixels, (RAMP > 100) * 255)


def test_a_palette_is_looked_up(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([9, 8, 7, 200, 100, 50, 0, 0, 255])
    image.save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.mode == "P"
    np.testing.assert_array_equal(picture.pixels[0], [[9, 8, 7], [200, 100, 50]])


def test_transparent_palette_entries_are_black(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.save(tmp_path / "a.png", transparency=1)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, [[[9, 8, 7], [0, 0, 0]]])


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_lies_on_black(tmp_path, channels):
    values = np.full((2, 3, channels), 200, np.uint8)
    values[..., -1] = [[255, 0, 128], [255, 255, 255]]
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels = read_picture(tmp_path / "a.png").pixels.reshape(2, 3, -1)[..., 0]
    np.testing.assert_array_equal(pixels, [[200, 0, 100], [200, 200, 200]])


def test_cmyk_becomes_colour(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "a.jpg")
    picture = read_picture(tmp_path / "a.jpg")
    assert (picture.mode, picture.pixels.shape) == ("CMYK", (8, 8, 3))
    assert picture.pixels.max() < 5


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_pictures_are_upright(tmp_path, orientation, suffix):
    path = with_orientation(tmp_path / f"a{suffix}", ORIENTED[orientation], orientation)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, RAMP)
    assert picture.rotated == (orientation != 1)
    assert (facts(path).orientation, facts(path).size) == (orientation, RAMP.shape)


def test_a_rotated_jpeg_stands_upright(tmp_path):
    stripes = np.repeat(np.array([0, 255], np.uint8), 16)[:, None].repeat(24, axis=1)
    picture = read_picture(with_orientation(tmp_path / "a.jpg", np.rot90(stripes), 6))
    assert picture.pixels.shape == (32, 24)
    assert picture.pixels[:16].max() < picture.pixels[16:].min()


def test_broken_exif_does_not_lose_the_picture(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\xff")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, RAMP)


@pytest.mark.parametrize(("name", "fits"), [("a.jpg", False), ("a.png", True), ("a.PNG", True), ("a", False)])
def test_the_format_is_that_of_the_content(tmp_path, name, fits):
    Image.fromarray(RAMP).save(tmp_path / name, format="PNG")
    picture = read_picture(tmp_path / name)
    assert (picture.format, picture.suffix_fits) == ("PNG", fits)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".tif", ".webp"])
def test_several_frames_are_refused_and_counted(tmp_path, suffix):
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 90, 200)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    assert facts(tmp_path / f"a{suffix}").frames == 3
    with pytest.raises(VolumeError, match="holds 3 frames or pages"):
        read_picture(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".gif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_truncated_picture_is_one_line(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(VolumeError) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "message"), [("gone.png", "No such file"), ("folder.png", "is a folder")])
def test_what_is_no_file_is_one_line(tmp_path, name, message):
    (tmp_path / "folder.png").mkdir()
    for read in (read_picture, facts):
        with pytest.raises(VolumeError, match=message):
            read(tmp_path / name)


def test_text_is_no_picture(tmp_path):
    (tmp_path / "a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(VolumeError, match="not an image that can be read"):
        read_picture(tmp_path / "a.jpg")


def test_facts_of_a_truncated_file_are_known(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    known = facts(path)
    assert (known.size, known.mode, known.bits, known.frames) == ((50, 70), "RGB", 8, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_of_equal_channels_is_that_of_one(tmp_path, dtype):
    values = np.linspace(0, np.iinfo(dtype).max, 256).astype(dtype)[None]
    one = read_picture(_saved(tmp_path / "one.png", RAMP))
    single = type(one)(values, "L", "PNG", True, False)
    triple = type(one)(np.stack([values] * 3, axis=-1), "RGB", "PNG", True, False)
    np.testing.assert_array_equal(grey(single), grey(triple))
    assert (grey(single).min(), grey(single).max()) == (0, 1)


def _saved(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_green_is_brighter_than_blue(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    luma = grey(read_picture(_saved(tmp_path / "a.png", colours)))
    np.testing.assert_allclose(luma, [[0.299, 0.587, 0.114]], rtol=1e-6)


def test_the_suffixes_of_tumor_yesno_lie_six_times(real_data):
    files = [path for path in sorted(real_data("tumor_yesno").rglob("*")) if path.is_file()]
    all_facts = [facts(path) for path in files]
    assert len(all_facts) == 253
    assert sum(not each.suffix_fits for each in all_facts) == 6
    assert {each.mode for each in all_facts} == {"L", "RGB", "RGBA", "P"}
    odd = [path for path, each in zip(files, all_facts, strict=True) if each.mode in ("RGBA", "P")]
    assert all(read_picture(path).pixels.dtype == np.uint8 for path in odd)

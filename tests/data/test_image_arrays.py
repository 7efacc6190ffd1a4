"""Prepared arrays: made once, gone on with after a kill, never stale, and every broken image is named or counted."""

import pickle
import resource
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_pictures import put_folders, put_picture

from segmed.config.images import ClassDataConfig, ClassManifestLayout, FoldersLayout, ImageConfig
from segmed.data.images import image_cache as arrays
from segmed.data.images.image_cache import ImageCache
from segmed.data.images.image_dataset import read_classes
from segmed.data.images.prepare_image import prepared
from segmed.errors import DatasetError, DiskError

CONFIG = ImageConfig(size=(8, 8))


@pytest.fixture
def items(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "CHUNK_ITEMS", 3)
    put_folders(tmp_path / "data", {"a": 5, "b": 4})
    return read_classes(ClassDataConfig(root=tmp_path / "data", layout=FoldersLayout())).items


@pytest.fixture
def cache(tmp_path):
    return ImageCache(tmp_path / "cache")


def counted(monkeypatch, *, stop_after=None) -> list[str]:
    """Names of the files that are prepared from now on; a Ctrl-C after so many."""
    names: list[str] = []

    def prepare(path, config):
        if stop_after is not None and len(names) == stop_after:
            raise KeyboardInterrupt
        names.append(path.name)
        return prepared(path, config)

    monkeypatch.setattr(arrays, "prepared", prepare)
    return names


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_the_prepared_images(items, cache, workers):
    arrays = cache.get(items[::-1], CONFIG, workers=workers)
    assert arrays.ids == tuple(item.id for item in items)
    assert (arrays.images.shape, arrays.images.dtype) == ((9, 1, 8, 8), np.float16)
    expected = np.stack([prepared(item.path, CONFIG) for item in items]).astype(np.float16)
    np.testing.assert_array_equal(arrays.images, expected)
    assert not arrays.images.flags.writeable


def test_a_second_time_nothing_is_prepared(items, cache, monkeypatch):
    first = cache.get(items, CONFIG, workers=0)
    names = counted(monkeypatch)
    again = cache.get(tuple(replace(item, label=1 - item.label) for item in items), CONFIG, workers=0)
    assert names == []
    np.testing.assert_array_equal(again.images, first.images)


def test_a_killed_build_goes_on(items, cache, monkeypatch):
    counted(monkeypatch, stop_after=7)
    with pytest.raises(KeyboardInterrupt):
        cache.get(items, CONFIG, workers=0)
    names = counted(monkeypatch)
    arrays = cache.get(items, CONFIG, workers=0)
    assert names == [item.path.name for item in items[6:]]
    np.testing.assert_array_equal(arrays.images[0], prepared(items[0].path, CONFIG).astype(np.float16))


def test_a_changed_file_another_size_and_other_filters_are_other_arrays(items, cache):
    before = cache.key(items, CONFIG)
    assert cache.key(items, ImageConfig(size=(8, 9))) != before
    assert cache.key(items, ImageConfig(size=(8, 8), filters=({"name": "median"},))) != before
    assert cache.key(items[1:], CONFIG) != before
    first = cache.get(items, CONFIG, workers=0)
    put_picture(items[0].path, seed=99)
    assert cache.key(items, CONFIG) != before
    assert not np.array_equal(cache.get(items, CONFIG, workers=0).images[0], first.images[0])


@pytest.mark.parametrize("damage", ["cut", "no note", "foreign", "a bit"])
def test_a_damaged_array_is_made_again(items, cache, damage):
    arrays = cache.get(items, CONFIG, workers=0)
    expected = np.array(arrays.images)
    image = arrays.folder / "images.npy"
    if damage == "cut":
        image.write_bytes(image.read_bytes()[:-10])
    elif damage == "a bit":
        content = image.read_bytes()
        image.write_bytes(content[:-33] + bytes([content[-33] ^ 1]) + content[-32:])
    elif damage == "no note":
        (arrays.folder / "entry.json").unlink()
    else:
        (arrays.folder / "entry.json").write_text("[]")
    np.testing.assert_array_equal(cache.get(items, CONFIG, workers=0).images, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_all_broken_images_are_counted_and_five_are_named(items, cache, workers):
    for item in items[:7]:
        item.path.write_bytes(item.path.read_bytes()[:60])
    with pytest.raises(DatasetError) as caught:
        cache.get(items, CONFIG, workers=workers)
    line = str(caught.value)
    assert line.startswith("7 of 9 images can't be used: ")
    assert line.count("truncated or damaged") == 5
    assert line.endswith("and 2 more")
    assert "\n" not in line


def test_images_that_are_gone_are_one_line(items, cache):
    items[2].path.unlink()
    with pytest.raises(DatasetError, match=r"1 of 9 images are not there any more: .*im_002\.png"):
        cache.get(items, CONFIG)
    with pytest.raises(DatasetError, match="no images to prepare"):
        cache.get((), CONFIG)


def test_a_file_that_changes_meanwhile_is_noticed(items, cache, monkeypatch):
    def prepare(path, config):
        if path == items[4].path:
            put_picture(items[0].path, seed=50, shape=(20, 20))
        return prepared(path, config)

    monkeypatch.setattr(arrays, "prepared", prepare)
    with pytest.raises(DatasetError, match="changed while they were prepared"):
        cache.get(items, CONFIG, workers=0)


def test_a_full_disk_is_named(items, cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(DiskError, match="no space left for"):
            cache.get(items, CONFIG, workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(cache.get(items, CONFIG, workers=0).ids) == 9


def test_arrays_are_pickled_by_their_folder(items, cache):
    arrays = cache.get(items, CONFIG, workers=0)
    content = pickle.dumps(arrays)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content).images, arrays.images)  # noqa: S301
    np.testing.assert_array_equal(arrays.rows([arrays.ids[3], arrays.ids[0]]), [3, 0])
    with pytest.raises(DatasetError, match=r"'x' was not prepared \(1 were not\)"):
        arrays.rows(["x"])
    (arrays.folder / "entry.json").unlink()
    with pytest.raises(DatasetError, match="gone or damaged"):
        pickle.loads(content)  # noqa: S301


def test_odd_pictures_of_a_folder_are_prepared(tmp_path, cache):
    root = put_folders(tmp_path / "odd", {"a": 1, "b": 1})
    colour = np.random.default_rng(0).integers(0, 256, (9, 7, 4)).astype(np.uint8)
    Image.fromarray(colour).save(root / "a" / "rgba.png")
    Image.fromarray(colour[..., 0].astype(np.uint16) * 99).save(root / "a" / "deep.png")
    Image.fromarray(colour[..., 0]).convert("P").save(root / "b" / "palette.png")
    Image.fromarray(colour[..., 0] > 99).save(root / "b" / "png_in_truth.jpg", format="PNG")
    items = read_classes(ClassDataConfig(root=root, layout=FoldersLayout())).items
    arrays = cache.get(items, CONFIG, workers=0)
    assert np.isfinite(arrays.images).all()
    assert (arrays.images.std(axis=(1, 2, 3)) > 0.5).all()


def test_slices_of_alzheimer_are_kept_as_they_are(real_data, cache):
    config = ClassDataConfig(root=real_data("alzheimer_128"), layout=ClassManifestLayout())
    items = read_classes(config).items[::40]
    arrays = cache.get(items, ImageConfig(intensity="unit"), workers=0)
    pixels = np.stack([np.asarray(Image.open(item.path)) for item in items])
    np.testing.assert_array_equal(np.round(arrays.images[:, 0].astype(np.float32) * 255), pixels)

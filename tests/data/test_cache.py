"""Facts about the cache: what its key depends on, what it survives, and what it costs."""

import multiprocessing
import os
import pickle
import resource
import signal
import time
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from segmed.config import PreprocessConfig
from segmed.data import cache as cache_module
from segmed.data.cache import VolumeCache
from segmed.data.cases import Case, Dataset
from segmed.data.content import ContentHashes, files_of
from segmed.data.preprocess import prepare, read_case
from segmed.errors import DatasetError, DiskError, VolumeError
from segmed.labels import IGNORE, LabelSet
from segmed.volumes import Source

CONFIG = PreprocessConfig(
    orientation="ras", spacing_mm="native", crop="none", intensity="zscore", interpolation="linear", separate_z=False
)
LABELS = LabelSet(("a", "b", "c"), ((1,), (2,), (3,)), (9,))
SHAPE = (24, 22, 20)


def write_case(folder, case_id, *, seed=0, shape=SHAPE, label=True) -> Case:
    rng = np.random.default_rng(seed)
    affine = np.diag([-1.0, 1.0, 1.5, 1.0])
    folder.mkdir(exist_ok=True)
    image = folder / f"{case_id}.nii"
    nib.save(nib.Nifti1Image(rng.normal(100, 10, shape).astype(np.float32), affine), image)
    if not label:
        return Case(case_id, case_id, {"mr": Source(image)}, None, {})
    values = np.zeros(shape, np.uint8)
    values[2:12, 2:20, 2:18] = 1
    values[12:20, 5:9, 5:9] = 2
    values[0, 0, 0] = 9
    path = folder / f"{case_id}_label.nii"
    nib.save(nib.Nifti1Image(values, affine), path)
    return Case(case_id, case_id, {"mr": Source(image)}, Source(path), {})


def data_set(folder, count=1, **options) -> Dataset:
    cases = tuple(write_case(folder, f"case{index}", seed=index, **options) for index in range(count))
    return Dataset("test", folder, cases, ("mr",), LABELS)


@pytest.fixture
def data(tmp_path):
    return data_set(tmp_path / "data")


def get(data, folder, config=CONFIG):
    return VolumeCache(folder).get(data.cases[0], data, config)


def entries(folder) -> set[str]:
    return {path.name for path in (folder / "volumes").iterdir()}


# ---------------------------------------------------------------- what an entry holds


def test_an_entry_is_what_preprocessing_gives(data, tmp_path):
    image, label = prepare(*read_case(data.cases[0], data), CONFIG)
    volume = get(data, tmp_path / "cache")
    np.testing.assert_array_equal(volume.image, image.numpy())
    np.testing.assert_array_equal(volume.label, label.numpy()[0])
    np.testing.assert_array_equal(volume.affine, np.asarray(image.affine))
    assert volume.spacing_mm == (1.0, 1.0, 1.5)
    assert volume.image.dtype == np.float32
    assert volume.label.dtype == np.uint8
    assert volume.label[-1, 0, 0] == IGNORE


def test_foreground_positions_bear_their_label_and_cover_it_evenly(tmp_path):
    data = data_set(tmp_path / "data", shape=(40, 40, 40))
    path = data.cases[0].label.path
    values = np.zeros((40, 40, 40), np.uint8)
    values[:30] = 1
    values[35, 3:5, 7] = 2
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 1.0, 1.5, 1.0])), path)
    volume = get(data, tmp_path / "cache")
    many, few, none = volume.foreground
    assert many.shape == (10_000, 3)
    assert len(np.unique(many, axis=0)) == 10_000
    np.testing.assert_allclose(many.mean(0), (24.5, 19.5, 19.5), atol=0.5)
    assert {tuple(position) for position in few} == {(4, 3, 7), (4, 4, 7)}
    assert none.shape == (0, 3)
    for index, positions in enumerate(volume.foreground, start=1):
        assert (volume.label[tuple(positions.T)] == index).all()


def test_a_case_without_label_has_none(tmp_path):
    data = data_set(tmp_path / "data", label=False)
    volume = get(data, tmp_path / "cache")
    assert volume.label is None
    assert volume.foreground == ()


def test_arrays_are_read_only(data, tmp_path):
    volume = get(data, tmp_path / "cache")
    with pytest.raises(ValueError, match="read-only"):
        volume.image[0, 0, 0, 0] = 1


def test_a_volume_is_pickled_by_its_folder(data, tmp_path):
    volume = get(data, tmp_path / "cache")
    pickled = pickle.dumps(volume)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).image, volume.image)  # noqa: S301  (our own bytes)


def test_open_volumes_hold_no_file_descriptors(tmp_path):
    data = data_set(tmp_path / "data", 20, shape=(4, 4, 4))
    before = len(os.listdir("/proc/self/fd"))
    volumes = VolumeCache(tmp_path / "cache").build(data.cases, data, CONFIG, workers=1, progress=False)
    assert all(volume.image.shape == (1, 4, 4, 4) for volume in volumes)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


# ---------------------------------------------------------------- never stale, never twice


def count_reads(monkeypatch) -> list[str]:
    reads = []

    def counted(case, dataset):
        reads.append(case.id)
        return read_case(case, dataset)

    monkeypatch.setattr(cache_module, "read_case", counted)
    return reads


def test_a_case_is_decoded_once(data, tmp_path, monkeypatch):
    reads = count_reads(monkeypatch)
    for _ in range(3):
        get(data, tmp_path / "cache")
    assert reads == ["case0"]


def test_changed_content_under_the_same_name_size_and_time_is_seen(data, tmp_path):
    before = get(data, tmp_path / "cache")
    old = np.array(before.image)
    path = data.cases[0].images["mr"].path
    times = path.stat()
    write_case(path.parent, "case0", seed=7)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    after = get(data, tmp_path / "cache")
    assert not np.array_equal(after.image, old)
    np.testing.assert_array_equal(after.image, prepare(*read_case(data.cases[0], data), CONFIG)[0].numpy())


def test_changed_labels_are_seen(data, tmp_path):
    get(data, tmp_path / "cache")
    path = data.cases[0].label.path
    nib.save(nib.Nifti1Image(np.full(SHAPE, 3, np.uint8), np.diag([-1.0, 1.0, 1.5, 1.0])), path)
    assert (get(data, tmp_path / "cache").label == 3).all()


CHANGES = {
    "spacing_mm": (2.0, 2.0, 2.0),
    "crop": "body",
    "intensity": "percentile",
    "clip_percentiles": (1.0, 99.0),
    "interpolation": "cubic",
    "separate_z": True,
    "orientation": "slices_last",
    "slices_across": 0,
}


def test_every_setting_is_in_the_key(data, tmp_path):
    assert set(CHANGES) == set(PreprocessConfig.model_fields)
    cache = VolumeCache(tmp_path / "cache")
    configs = [CONFIG, *(CONFIG.model_copy(update={name: value}) for name, value in CHANGES.items())]
    assert len({cache.key(data.cases[0], data, config) for config in configs}) == len(configs)


def test_label_values_and_channel_order_are_in_the_key_and_names_are_not(data, tmp_path):
    cache = VolumeCache(tmp_path / "cache")
    case = data.cases[0]
    key = cache.key(case, data, CONFIG)
    other = replace(data, labels=LabelSet(("a", "b"), ((1, 3), (2,)), (9,)))
    assert cache.key(case, other, CONFIG) != key
    ignoring = replace(data, labels=LabelSet(("a", "b"), ((1,), (2,)), (3, 9)))
    assert cache.key(case, ignoring, CONFIG) != key
    named = replace(data, labels=LabelSet(("x", "y", "z"), LABELS.values, LABELS.ignore, {"all": ("x", "y")}))
    assert cache.key(case, named, CONFIG) == key
    two = replace(case, images={"mr": case.images["mr"], "mask": case.label})
    orders = [replace(data, modalities=order) for order in (("mr", "mask"), ("mask", "mr"))]
    assert len({cache.key(two, order, CONFIG) for order in orders}) == 2
    assert cache.key(replace(case, label=None), data, CONFIG) != key


def test_the_same_content_elsewhere_is_the_same_entry(tmp_path):
    first, second = data_set(tmp_path / "one"), data_set(tmp_path / "two")
    get(first, tmp_path / "cache")
    get(second, tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 1


def test_an_unchanged_file_is_hashed_once(data, tmp_path, monkeypatch):
    path = data.cases[0].images["mr"].path
    hashes = ContentHashes(tmp_path / "hashes")
    monkeypatch.setattr("segmed.data.content.SETTLED_NS", -1)
    first = hashes.of(path)
    monkeypatch.setattr("segmed.data.content._hash", lambda file: pytest.fail("hashed again"))
    assert hashes.of(path) == first


def test_a_file_that_was_just_written_is_not_trusted_by_its_times(data, tmp_path, monkeypatch):
    path = data.cases[0].images["mr"].path
    hashes = ContentHashes(tmp_path / "hashes")
    hashes.of(path)
    hashed = []
    monkeypatch.setattr("segmed.data.content._hash", lambda file: hashed.append(file) or "again")
    hashes.of(path)
    assert hashed == [str(path)]


def test_data_files_of_a_header_are_part_of_its_content(tmp_path):
    header, data = tmp_path / "scan.mhd", tmp_path / "scan.raw"
    header.write_text("NDims = 3\nElementDataFile = scan.raw\n")
    data.write_bytes(b"1")
    assert files_of(header) == [header, data]
    first = ContentHashes(tmp_path / "h").of(header)
    data.write_bytes(b"2")
    assert ContentHashes(tmp_path / "h").of(header) != first
    series = tmp_path / "series"
    series.mkdir()
    (series / "b.dcm").write_bytes(b"b")
    (series / "a.dcm").write_bytes(b"a")
    assert [file.name for file in files_of(series)] == ["a.dcm", "b.dcm"]


# ---------------------------------------------------------------- damage


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def blank_the_end(path):
    half = path.stat().st_size // 2
    with open(path, "r+b") as file:
        file.seek(half)
        file.write(bytes(half))


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    """Somewhere that no sample looks at."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 + 5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, blank_the_end, empty, os.remove, flip_a_bit])
@pytest.mark.parametrize("name", ["image.npy", "label.npy", "foreground.npy", "entry.json"])
def test_a_damaged_entry_is_built_again(data, tmp_path, name, damage):
    good = np.array(get(data, tmp_path / "cache").image)
    (key,) = entries(tmp_path / "cache")
    damage(tmp_path / "cache" / "volumes" / key / name)
    volume = get(data, tmp_path / "cache")
    np.testing.assert_array_equal(volume.image, good)
    assert [len(positions) for positions in volume.foreground] == [10 * 18 * 16, 8 * 4 * 4, 0]


def test_a_killed_build_leaves_nothing_behind_for_long(data, tmp_path):
    get(data, tmp_path / "cache")
    (key,) = entries(tmp_path / "cache")
    volumes = tmp_path / "cache" / "volumes"
    leftover = volumes / f".4711.{key}"
    leftover.mkdir()
    (leftover / "image.npy").write_bytes(b"half")
    os.remove(volumes / key / "entry.json")
    get(data, tmp_path / "cache")
    assert [path.name for path in volumes.iterdir()] == [key]


# ---------------------------------------------------------------- several processes


def _get_in_process(folder, data, barrier, results):
    barrier.wait()
    volumes = VolumeCache(folder).build(data.cases, data, CONFIG, workers=1, progress=False)
    results.put([float(volume.image.sum()) for volume in volumes])


def test_two_processes_build_the_same_cases_at_once(tmp_path):
    data = data_set(tmp_path / "data", 4)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_get_in_process, args=(tmp_path / "cache", data, barrier, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    sums = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert sums[0] == sums[1]
    assert len(entries(tmp_path / "cache")) == 4
    assert all(not name.startswith(".") for name in entries(tmp_path / "cache"))


def test_a_pool_gives_the_cases_in_order(tmp_path, monkeypatch):
    data = data_set(tmp_path / "data", 5)
    reads = count_reads(monkeypatch)
    volumes = VolumeCache(tmp_path / "cache").build(data.cases, data, CONFIG, workers=2, progress=True)
    assert [volume.id for volume in volumes] == [case.id for case in data.cases]
    for volume, case in zip(volumes, data.cases, strict=True):
        np.testing.assert_array_equal(volume.image, prepare(*read_case(case, data), CONFIG)[0].numpy())
    assert reads == []  # all of them in the workers


def test_a_finished_build_only_opens(tmp_path, monkeypatch):
    data = data_set(tmp_path / "data", 3)
    cache = VolumeCache(tmp_path / "cache")
    cache.build(data.cases, data, CONFIG, workers=1, progress=False)
    monkeypatch.setattr(cache_module, "read_case", lambda *_: pytest.fail("read again"))
    assert len(cache.build(data.cases, data, CONFIG, workers=2, progress=False)) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_case_that_can_t_be_prepared_is_named(tmp_path, workers):
    data = data_set(tmp_path / "data", 3)
    truncate(data.cases[1].images["mr"].path)
    with pytest.raises(ValueError, match="case1") as caught:
        VolumeCache(tmp_path / "cache").build(data.cases, data, CONFIG, workers=workers, progress=False)
    assert "\n" not in str(caught.value)


def test_a_grid_error_keeps_its_type(tmp_path):
    data = data_set(tmp_path / "data")
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)), data.cases[0].label.path)
    with pytest.raises(VolumeError, match="case0"):
        get(data, tmp_path / "cache")


def test_a_missing_file_is_named(tmp_path):
    data = data_set(tmp_path / "data")
    os.remove(data.cases[0].label.path)
    with pytest.raises(DatasetError, match=r"case case0: can't read .*case0_label\.nii"):
        get(data, tmp_path / "cache")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_too_little_memory_is_one_line(data, tmp_path, monkeypatch, error):
    def starved(case, dataset):
        raise error

    monkeypatch.setattr(cache_module, "read_case", starved)
    with pytest.raises(DatasetError, match="case case0: not enough memory"):
        get(data, tmp_path / "cache")


def test_a_killed_worker_is_one_line_that_names_its_cases(tmp_path, monkeypatch):
    data = data_set(tmp_path / "data", 6)

    def killed(case, dataset):
        if case.id == "case4":
            os.kill(os.getpid(), signal.SIGKILL)
        return read_case(case, dataset)

    monkeypatch.setattr(cache_module, "read_case", killed)
    cache = VolumeCache(tmp_path / "cache")
    with pytest.raises(DatasetError, match=r"worker process was killed while preparing .*case4") as caught:
        cache.build(data.cases, data, CONFIG, workers=2, progress=False)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(cache_module, "read_case", read_case)
    assert len(cache.build(data.cases, data, CONFIG, workers=2, progress=False)) == 6


# ---------------------------------------------------------------- disks


def test_a_full_disk_is_one_line_and_leaves_nothing(data, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the kernel stops writes as a full disk does
    try:
        with pytest.raises(DiskError, match=r"no space left .* choose another folder") as caught:
            get(data, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert entries(tmp_path / "cache") == set()
    assert get(data, tmp_path / "cache").image.shape == (1, *SHAPE)


def test_a_full_disk_in_a_worker_is_one_line(tmp_path):
    data = data_set(tmp_path / "data", 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(DiskError, match="no space left"):
            VolumeCache(tmp_path / "cache").build(data.cases, data, CONFIG, workers=2, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_cache_below_a_file_is_one_line(data, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="can't write to the cache"):
        get(data, tmp_path / "cache")


# ---------------------------------------------------------------- speed


def test_a_warm_patch_takes_less_than_a_millisecond(tmp_path):
    data = data_set(tmp_path / "data", shape=(160, 140, 130))
    volume = get(data, tmp_path / "cache")
    rng = np.random.default_rng(0)
    float(volume.image.sum())
    times = []
    for _ in range(100):
        x, y, z = (int(rng.integers(0, size - 64)) for size in volume.image.shape[1:])
        start = time.perf_counter()
        patch = np.ascontiguousarray(volume.image[:, x : x + 64, y : y + 64, z : z + 64])
        times.append(time.perf_counter() - start)
        assert patch.shape == (1, 64, 64, 64)
    assert np.median(times) < 1e-3

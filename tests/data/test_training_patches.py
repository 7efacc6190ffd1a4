"""Patches: a sample is a function of (seed, number), labels are seen as often as asked, and a lost worker is named."""

import os
import signal

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmed.config import AugmentConfig, PatchConfig
from segmed.data.augment import Augmentation
from segmed.data.cache import CachedVolume
from segmed.data.checksums import map_intact
from segmed.data.training_patches import PatchDataset, StepSampler, patch_loader
from segmed.errors import DatasetError
from segmed.labels import IGNORE, LabelSet

LABELS = LabelSet.from_config({"large": 1, "small": 2})


def cached(case="a", shape=(24, 26, 28), *, label="both", seed=0) -> CachedVolume:
    """A case in memory: a large label 1, and a label 2 of eight voxels."""
    image = np.random.default_rng(seed).standard_normal((1, *shape)).astype(np.float32)
    marks = np.zeros(shape, np.uint8)
    if label in ("both", "large"):
        marks[2:12, 2:12, 2:12] = 1
        marks[2, 2, 2] = IGNORE
    if label in ("both", "small"):
        marks[-5:-3, -5:-3, -5:-3] = 2
    foreground = tuple(np.argwhere(marks == index).astype(np.int32) for index in (1, 2))
    return CachedVolume(case, image, None if label is None else marks, np.eye(4), (1.0, 1.0, 1.0), foreground)


def dataset(volumes=None, *, size=(8, 8, 8), seed=0, preset="none", plane_axis=None, **patches) -> PatchDataset:
    dims = len(size)
    return PatchDataset(
        volumes or [cached()],
        patches=PatchConfig(dims=dims, size=size, **patches),
        plane_axis=plane_axis,
        augmentation=Augmentation(AugmentConfig(name=preset), dims=dims, labels=LABELS),
        seed=seed,
    )


def many(count=5) -> list[CachedVolume]:
    return [cached(f"case{n}", (24 + n, 26, 28), seed=n) for n in range(count)]


def same(one: dict, other: dict) -> bool:
    return (
        torch.equal(one["image"], other["image"])
        and torch.equal(one["label"], other["label"])
        and (one["case"], one["index"]) == (other["case"], other["index"])
    )


# ---------------------------------------------------------------- what a sample is


def test_a_sample_is_a_function_of_seed_and_number_alone():
    first, second = dataset(many(), preset="full", seed=7), dataset(many(), preset="full", seed=7)
    samples = [first[n] for n in range(12)]
    assert all(same(second[n], samples[n]) for n in reversed(range(12)))
    other = dataset(many(), preset="full", seed=8)
    assert not any(torch.equal(other[n]["image"], samples[n]["image"]) for n in range(12))


def test_a_plain_sample_is_a_piece_of_its_volume():
    volumes = many()
    data = dataset(volumes)
    for n in range(20):
        sample = data[n]
        volume = next(v for v in volumes if v.id == sample["case"])
        pieces = np.lib.stride_tricks.sliding_window_view(volume.image[0], (8, 8, 8))
        where = np.argwhere(pieces[..., 0, 0, 0] == sample["image"][0, 0, 0, 0].item())
        assert any(np.array_equal(pieces[tuple(w)], sample["image"][0]) for w in where)
        assert sample["image"].dtype == torch.float32
        assert sample["label"].dtype == torch.uint8
        assert sample["index"] == n


@pytest.mark.parametrize("seed", [0, -3, 2**40])
def test_any_whole_number_is_a_seed(seed):
    assert same(dataset(seed=seed)[3], dataset(seed=seed)[3])


def test_numbers_have_no_end_but_a_start():
    data = dataset()
    assert data[10**12]["index"] == 10**12
    with pytest.raises(IndexError, match="from 0"):
        data[-1]


@given(count=st.integers(1, 7), seed=st.integers(0, 10**6), rounds=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_every_round_draws_every_case_once(count, seed, rounds):
    data = dataset([cached(f"case{n}", (9, 9, 9), label="none") for n in range(count)], seed=seed)
    drawn = [data[n]["case"] for n in range(count * rounds)]
    for start in range(0, len(drawn), count):
        assert len(set(drawn[start : start + count])) == count


def test_rounds_are_shuffled_apart():
    data = dataset([cached(f"case{n}", (9, 9, 9), label="none") for n in range(6)])
    rounds = {tuple(data[start + n]["case"] for n in range(6)) for start in range(0, 60, 6)}
    assert len(rounds) > 5


# ---------------------------------------------------------------- foreground


@given(size=st.tuples(*[st.integers(1, 30)] * 3), jitter=st.floats(0, 1), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_foreground_patch_holds_its_label_wherever_it_is_shifted(size, jitter, seed):
    data = dataset([cached(label="small")], size=size, seed=seed, foreground=1, jitter=jitter)
    assert (data[0]["label"] == 2).any()


def test_without_jitter_the_label_is_in_the_middle():
    data = dataset([cached(label="large")], size=(3, 3, 3), foreground=1, jitter=0)
    assert all(data[n]["label"][1, 1, 1] == 1 for n in range(30))


def test_jitter_moves_the_label_away_from_the_middle():
    volume = cached(shape=(41, 41, 41), label="none")
    volume.label[20, 20, 20] = 1
    volume = CachedVolume(
        "a", volume.image, volume.label, volume.affine, volume.spacing_mm, (np.array([[20] * 3]),) * 2
    )
    data = dataset([volume], size=(9, 9, 9), foreground=1, jitter=0.5)
    places = np.array([np.argwhere(data[n]["label"].numpy() == 1)[0] for n in range(200)])
    assert places.min() == 2
    assert places.max() == 6
    assert np.abs(places.mean(axis=0) - 4).max() < 0.4


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_foreground_patches_is_the_one_asked_for(share):
    volume = cached(shape=(60, 60, 60), label="small")
    data = dataset([volume], size=(4, 4, 4), foreground=share)
    held = np.mean([(data[n]["label"] == 2).any().item() for n in range(600)])
    assert abs(held - share) < 0.06


@pytest.mark.parametrize(("balanced", "share"), [(True, 0.5), (False, 8 / 1007)])
def test_a_rare_label_is_seen_as_often_only_where_labels_are_balanced(balanced, share):
    data = dataset(size=(1, 1, 1), foreground=1, jitter=0, balance_labels=balanced)
    labels = np.array([data[n]["label"].item() for n in range(600)])
    assert set(labels) <= {1, 2}
    assert abs((labels == 2).mean() - share) < 0.06


def test_voxels_are_counted_in_the_label_map_where_positions_are_capped():
    volume = cached()
    few = CachedVolume(
        "a", volume.image, volume.label, volume.affine, (1.0,) * 3, (volume.foreground[0][:8], volume.foreground[1])
    )
    data = dataset([few], size=(1, 1, 1), foreground=1, jitter=0, balance_labels=False)
    assert np.mean([data[n]["label"].item() == 2 for n in range(300)]) < 0.05


def test_patches_without_foreground_reach_every_voxel_of_the_volume():
    volume = cached(shape=(6, 6, 6), label="none")
    data = dataset([volume], size=(4, 5, 6), foreground=0)
    seen = {data[n]["image"].numpy().tobytes() for n in range(150)}
    assert len(seen) == 3 * 2 * 1


def test_a_case_without_any_label_gives_background():
    data = dataset([cached(label="none")], foreground=1)
    assert all((data[n]["label"] == 0).all() for n in range(5))


# ---------------------------------------------------------------- sizes and planes


def test_a_smaller_volume_is_padded_with_its_edge_and_with_background():
    volume = cached(shape=(5, 12, 12), label="both")
    sample = dataset([volume], size=(9, 12, 12), foreground=0)[0]
    assert np.array_equal(sample["image"][0, 2:7], volume.image[0])
    assert np.array_equal(sample["label"][2:7], volume.label)
    assert torch.equal(sample["image"][0, 0], sample["image"][0, 2])
    assert not sample["label"][[0, 1, 7, 8]].any()


@pytest.mark.parametrize("plane_axis", [0, 1, 2])
@pytest.mark.parametrize("preset", ["none", "full"])
def test_a_2d_sample_is_a_slice_across_its_axis(plane_axis, preset):
    volume = cached()
    data = dataset([volume], size=(10, 12), plane_axis=plane_axis, preset=preset)
    samples = [data[n] for n in range(30)]
    assert {(s["image"].shape, s["label"].shape) for s in samples} == {((1, 10, 12), (10, 12))}
    if preset == "none":
        slices = np.moveaxis(volume.image[0], plane_axis, 0)
        values = [set(piece.ravel()) for piece in slices]
        assert all(any(set(s["image"].numpy().ravel()) <= v for v in values) for s in samples)


def test_a_foreground_slice_crosses_the_label():
    data = dataset([cached(label="small")], size=(10, 12), plane_axis=1, foreground=1, jitter=1)
    assert all((data[n]["label"] == 2).any() for n in range(30))


def test_several_modalities_stay_together():
    volume = cached()
    both = CachedVolume(
        "a",
        np.concatenate([volume.image, volume.image + 1]),
        volume.label,
        volume.affine,
        (1.0,) * 3,
        volume.foreground,
    )
    sample = dataset([both])[0]
    assert torch.allclose(sample["image"][1], sample["image"][0] + 1)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"volumes": [cached("a", label=None), cached("b")]}, "no label map for a"),
        ({"volumes": [cached(f"c{n}", label=None) for n in range(9)]}, "and 4 more"),
        ({"size": (64, 64, 64)}, r"patch \(64, 64, 64\) exceeds every case, of at most \(24, 26, 28\)"),
        ({"size": (8, 8)}, "plane_axis None"),
        ({"plane_axis": 2}, "plane_axis 2"),
    ],
)
def test_what_gives_no_patches_is_an_error_of_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        dataset(**arguments)
    assert "\n" not in str(error.value)


def test_no_cases_are_an_error():
    with pytest.raises(DatasetError, match="no training cases"):
        PatchDataset(
            [],
            patches=PatchConfig(dims=3, size=(4, 4, 4)),
            plane_axis=None,
            augmentation=dataset().augmentation,
            seed=0,
        )


@pytest.mark.parametrize(
    ("patches", "message"), [(PatchConfig(), "auto"), (PatchConfig(dims=3, size=(8, 8)), "as many sizes")]
)
def test_an_unplanned_config_is_an_error(patches, message):
    with pytest.raises(ValueError, match=message):
        PatchDataset([cached()], patches=patches, plane_axis=None, augmentation=dataset().augmentation, seed=0)


def test_augmentation_of_other_dimensions_is_an_error():
    with pytest.raises(ValueError, match="augmentation is for 2"):
        PatchDataset(
            [cached()],
            patches=PatchConfig(dims=3, size=(8, 8, 8)),
            plane_axis=None,
            augmentation=dataset(size=(8, 8), plane_axis=0).augmentation,
            seed=0,
        )


# ---------------------------------------------------------------- sampler and loader


@given(batch=st.integers(1, 4), world=st.integers(1, 4), start=st.integers(0, 50), steps=st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_ranks_share_what_one_process_would_see(batch, world, start, steps):
    alone = list(StepSampler(start, batch * world, steps=steps))
    ranks = [list(StepSampler(start, batch, rank, world, steps)) for rank in range(world)]
    together = [n for step in range(steps) for rank in ranks for n in rank[step * batch : (step + 1) * batch]]
    assert together == alone
    assert alone == list(range(start * batch * world, (start + steps) * batch * world))
    assert len(StepSampler(start, batch, 0, world, steps)) == len(ranks[0])


@pytest.mark.parametrize("wrong", [{"start_step": -1}, {"batch_size": 0}, {"rank": 2, "world": 2}, {"steps": -1}])
def test_impossible_samplers_are_errors(wrong):
    with pytest.raises(ValueError, match="no such samples"):
        StepSampler(**{"start_step": 0, "batch_size": 1, **wrong})


def batches(data, *, start_step=0, total_steps=4, workers=0, batch_size=2, **rest) -> list[dict]:
    loader = patch_loader(
        data, batch_size=batch_size, start_step=start_step, total_steps=total_steps, workers=workers, **rest
    )
    assert len(loader) == total_steps - start_step
    return list(loader)


def equal(one: list[dict], other: list[dict]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"]) and a["case"] == b["case"]
        for a, b in zip(one, other, strict=True)
    )


def test_batches_are_the_same_bit_for_bit_whatever_the_number_of_workers():
    data = dataset(many(), preset="full")
    alone = batches(data, workers=0)
    assert [batch["index"].tolist() for batch in alone] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert equal(batches(data, workers=1), alone)
    assert equal(batches(data, workers=2), alone)


def test_a_restart_goes_on_where_it_stopped():
    data = dataset(many(), preset="light")
    assert equal(batches(data, start_step=2, total_steps=5), batches(data, total_steps=5)[2:])


def test_two_processes_see_what_one_sees_with_twice_the_batch():
    data = dataset(many())
    alone = batches(data, batch_size=4, total_steps=3)
    ranks = [batches(data, batch_size=2, total_steps=3, rank=rank, world=2) for rank in range(2)]
    for whole, first, second in zip(alone, *ranks, strict=True):
        assert torch.equal(whole["image"], torch.cat([first["image"], second["image"]]))
        assert torch.equal(whole["label"], torch.cat([first["label"], second["label"]]))


def test_without_total_steps_there_is_no_end():
    loader = patch_loader(dataset(), batch_size=3, start_step=5, total_steps=None, workers=0)
    stream = iter(loader)
    numbers = [next(stream)["index"].tolist() for _ in range(4)]
    assert numbers == [[15, 16, 17], [18, 19, 20], [21, 22, 23], [24, 25, 26]]
    with pytest.raises(TypeError):
        len(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_leaves_the_global_generator_alone(workers):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    batches(dataset(), workers=workers)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_run_can_not_start_beyond_its_end():
    with pytest.raises(ValueError, match="beyond the 4 steps"):
        patch_loader(dataset(), batch_size=1, start_step=5, total_steps=4, workers=0)


class Killed(PatchDataset):
    """Its workers are killed, as by the kernel when memory runs out."""

    def __getitem__(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Faulty(PatchDataset):
    """A case whose cache entry is lost while the run goes on."""

    def __getitem__(self, index):
        raise DatasetError("case a: its entry is gone: start again")


class Threads(PatchDataset):
    """Tells how many threads a worker uses."""

    def __getitem__(self, index):
        return {"threads": torch.get_num_threads()}


def variant(kind) -> PatchDataset:
    plain = dataset()
    return kind(plain.volumes, patches=plain.patches, plane_axis=None, augmentation=plain.augmentation, seed=0)


def test_a_killed_worker_is_an_error_of_one_line():
    with pytest.raises(DatasetError, match=r"prepares patches died .*fewer train.workers") as error:
        batches(variant(Killed), workers=1, total_steps=30)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_in_a_worker_keeps_its_one_line(workers):
    with pytest.raises(DatasetError) as error:
        batches(variant(Faulty), workers=workers)
    assert str(error.value) == "case a: its entry is gone: start again"


def test_a_worker_uses_one_thread():
    assert [batch["threads"].tolist() for batch in batches(variant(Threads), workers=1, total_steps=2)] == [[1, 1]] * 2


def test_a_patch_of_a_volume_of_one_gigabyte_reads_its_own_bytes(tmp_path):
    shape, arrays = (512, 512, 1024), {}
    for name, kind in {"image": "f4", "label": "u1"}.items():
        path = tmp_path / f"{name}.npy"
        with open(path, "wb") as file:  # sparse: it takes no space on the disk
            full = (1, *shape) if name == "image" else shape
            np.lib.format.write_array_header_1_0(file, {"descr": f"<{kind}", "fortran_order": False, "shape": full})
            file.truncate(file.tell() + np.dtype(kind).itemsize * np.prod(full))
        arrays[name] = map_intact(path, {"bytes": path.stat().st_size})
    assert arrays["image"].nbytes == 2**30
    volume = CachedVolume(
        "large",
        arrays["image"],
        arrays["label"],
        np.eye(4),
        (1.0, 1.0, 1.0),
        (np.array([[300, 300, 700]], np.int32),) * 2,
    )
    before = resident_mib()
    samples = [dataset([volume], size=(32, 32, 32), foreground=0.5)[index] for index in range(8)]
    assert {sample["image"].shape for sample in samples} == {(1, 32, 32, 32)}
    assert resident_mib() - before < 100


def resident_mib() -> float:
    """Memory of this process now, mapped files included."""
    return psutil.Process().memory_info().rss / 2**20

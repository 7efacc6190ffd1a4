"""Continuous max-flow: against every labelling of small grids, against closed forms, and in what must not matter."""

import math
from dataclasses import astuple
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmed.errors import SegmenterError
from segmed.segmenters.flow import Flow, Tree
from segmed.segmenters.maxflow import binary_max_flow, hierarchical_max_flow, potts_max_flow, read_tree

EXACT = {"tolerance": 1e-4, "iterations": 3000}
SQUARE_BOUND = 1.06  # of the rounded labelling's energy on small grids: rounding the relaxation loses this at most
ROUNDING = 2e-4
NESTED = {"background": None, "heart": {"blood": None, "wall": {"myocardium": None, "scar": {}}}}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def random_costs(labels: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.rand((labels, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def variation(shares: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Sum of the lengths of forward differences over the last axes, written apart from what is tested."""
    square, dims = np.zeros(shares.shape), len(spacing_mm)
    for axis, h in zip(range(-dims, 0), spacing_mm, strict=True):
        square += (np.diff(shares, axis=axis, append=shares.take([-1], axis=axis)) / h) ** 2
    return np.sqrt(square).sum(tuple(range(-dims, 0)))


def energy(shares: np.ndarray, costs: np.ndarray, weights: list[float], spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Of the Potts model, for labellings (..., L, *spatial)."""
    spent = (costs * shares).sum(tuple(range(-1 - len(spacing_mm), 0)))
    return spent + (weights * variation(shares, spacing_mm)).sum(-1)


def one_hot(labels: np.ndarray, count: int) -> np.ndarray:
    return np.stack([labels == label for label in range(count)]).astype(float)


def labellings(count: int, shape: tuple[int, ...]) -> np.ndarray:
    """(all, L, *shape), one-hot."""
    every = np.array(list(product(range(count), repeat=math.prod(shape)))).reshape(-1, *shape)
    return np.moveaxis(one_hot(every, count), 0, 1)


def rounded(shares: torch.Tensor) -> np.ndarray:
    return one_hot(shares.argmax(0).numpy(), len(shares))


# ---------------------------------------------------------------- against all labellings


@pytest.mark.parametrize("smoothness", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("count", "shape"), [(2, (3, 3)), (3, (2, 3))])
@pytest.mark.parametrize("seed", range(2))
def test_a_small_grid_comes_close_to_the_best_of_all_labellings(count, shape, smoothness, seed):
    spacing_mm = (1.0, 1.5)
    costs = random_costs(count, shape, seed)
    weights = [smoothness] * count
    best = energy(labellings(count, shape), costs.numpy(), weights, spacing_mm).min()
    shares, result = potts_max_flow(costs, smoothness, spacing_mm=spacing_mm, **EXACT)
    assert result.converged
    assert energy(shares.numpy(), costs.numpy(), weights, spacing_mm) <= best * (1 + ROUNDING)
    assert energy(rounded(shares), costs.numpy(), weights, spacing_mm) <= best * SQUARE_BOUND


@pytest.mark.parametrize("smoothness", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(2))
def test_two_labels_on_a_grid_come_close_to_the_best_of_all_labellings(smoothness, seed):
    costs, weights, spacing_mm = random_costs(2, (3, 3), seed), [0.0, smoothness], (1.0, 1.5)
    best = energy(labellings(2, (3, 3)), costs.numpy(), weights, spacing_mm).min()
    shares, _ = binary_max_flow(costs, smoothness, spacing_mm=spacing_mm, **EXACT)
    assert energy(shares.numpy(), costs.numpy(), weights, spacing_mm) <= best * (1 + ROUNDING)
    assert energy(rounded(shares), costs.numpy(), weights, spacing_mm) <= best * SQUARE_BOUND


@given(seed=st.integers(0, 10_000), smoothness=st.floats(0.02, 1.0), count=st.integers(2, 3))
@settings(max_examples=10, deadline=None)
def test_a_chain_is_labelled_as_well_as_any_labelling_can(seed, smoothness, count):
    costs, weights = random_costs(count, (6,), seed), [smoothness] * count
    best = energy(labellings(count, (6,)), costs.numpy(), weights, (2.0,)).min()
    shares, _ = potts_max_flow(costs, smoothness, spacing_mm=(2.0,), **EXACT)
    assert energy(rounded(shares), costs.numpy(), weights, (2.0,)) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_on_a_chain_is_labelled_as_well_as_any_labelling_can(seed):
    costs = random_costs(3, (6,), seed)
    weights = {"a": 0.1, "b": 0.05, "c": 0.02, "bc": 0.2}

    def tree_energy(shares: np.ndarray) -> np.ndarray:
        nodes = np.concatenate((shares, shares[..., 1:, :].sum(-2, keepdims=True)), axis=-2)
        return energy(nodes, np.concatenate((costs.numpy(), np.zeros((1, 6)))), list(weights.values()), (1.0,))

    shares, result = hierarchical_max_flow(
        dict(zip("abc", costs, strict=True)),
        {"a": None, "bc": {"b": None, "c": None}},
        weights,
        spacing_mm=(1,),
        **EXACT,
    )
    assert result.converged
    labelling = rounded(torch.stack([shares[name] for name in "abc"]))
    assert tree_energy(labelling) == pytest.approx(tree_energy(labellings(3, (6,))).min(), rel=1e-4)


# ---------------------------------------------------------------- known answers


def noisy_square(noise: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """Costs (2, 32, 32) of a square under noise, and the square."""
    square = torch.zeros(32, 32)
    square[8:24, 8:24] = 1
    image = square + noise * torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    return torch.stack((image**2, (image - 1) ** 2)), square.bool()


@pytest.mark.parametrize("device", DEVICES)
def test_a_noisy_square_is_recovered(device):
    costs, square = noisy_square()
    shares, result = binary_max_flow(costs.to(device), 1.0, spacing_mm=(1, 1))
    assert result.converged
    wrong = shares.argmax(0).bool().cpu() != square
    assert wrong.sum() <= 12  # corners are rounded
    assert (costs.argmin(0).bool() != square).sum() > 150


def test_without_smoothness_every_voxel_takes_its_cheapest_label():
    costs = random_costs(4, (5, 6, 7), 0).float()
    shares, result = potts_max_flow(costs, 0.0, spacing_mm=(1, 1, 1))
    assert torch.equal(shares, torch.from_numpy(one_hot(costs.argmin(0).numpy(), 4)).float())
    assert result.gap == 0


def test_much_smoothness_leaves_the_label_that_is_cheapest_in_all():
    costs = random_costs(3, (6, 6), 1)
    shares, _ = potts_max_flow(costs, 50.0, spacing_mm=(1, 1), **EXACT)
    assert (shares.argmax(0) == costs.sum((1, 2)).argmin()).all()


@pytest.mark.parametrize(("share", "parted"), [(0.9, True), (1.1, False)])
def test_a_chain_is_parted_where_the_surface_costs_less_than_half_of_it(share, parted):
    half, saved, spacing_mm = 5, 0.3, 2.0
    costs = torch.zeros(2, 2 * half)
    costs[1, :half] = costs[0, half:] = saved  # the second half a little more, so that one label is the cheapest
    costs[0, -1] += 0.01
    smoothness = share * half * saved * spacing_mm
    shares, _ = binary_max_flow(costs, smoothness, spacing_mm=(spacing_mm,), **EXACT)
    expected = [0] * half + [1] * half if parted else [1] * 2 * half
    assert shares.argmax(0).tolist() == expected


def test_surfaces_count_in_millimetres():
    coarse = noisy_square()[0][:, ::2]
    fine = coarse.repeat_interleave(2, 1)
    thick, _ = binary_max_flow(coarse, 1.0, spacing_mm=(2, 1))
    thin, _ = binary_max_flow(fine, 1.0, spacing_mm=(1, 1))
    wrong, _ = binary_max_flow(coarse, 1.0, spacing_mm=(1, 1))
    differ = [(shares_of_labels.argmax(0) != thin.argmax(0)[::2]).float().mean() for shares_of_labels in (thick, wrong)]
    assert differ[0] < 0.01
    assert differ[1] > 2 * differ[0]


def test_a_label_of_more_smoothness_has_less_surface():
    costs = noisy_square(1.0)[0]
    surfaces = [
        variation(rounded(potts_max_flow(costs, weight, spacing_mm=(1, 1))[0])[1], (1, 1))
        for weight in (torch.tensor([0.2, 0.0]), torch.tensor([0.2, 0.5]))
    ]
    assert surfaces[1] < surfaces[0]


def test_smoothness_of_voxels_holds_where_they_are():
    costs = noisy_square()[0]
    weights = torch.zeros(32, 32)
    weights[:, 16:] = 1.0
    labels = binary_max_flow(costs, weights, spacing_mm=(1, 1))[0].argmax(0)
    assert torch.equal(labels[:, :15], costs.argmin(0)[:, :15])
    smooth = binary_max_flow(costs, 1.0, spacing_mm=(1, 1))[0].argmax(0)
    assert (labels[:, 18:] != smooth[:, 18:]).float().mean() < 0.02


# ---------------------------------------------------------------- what must not matter


def test_two_labels_of_potts_are_the_binary_problem_at_twice_the_smoothness():
    costs = noisy_square()[0].double()
    potts, _ = potts_max_flow(costs, 0.5, spacing_mm=(1, 1), **EXACT)
    binary, _ = binary_max_flow(costs, 1.0, spacing_mm=(1, 1), **EXACT)
    assert (potts.argmax(0) != binary.argmax(0)).sum() <= 1


def test_a_flat_tree_is_potts():
    costs = random_costs(3, (6, 7), 2)
    shares, result = hierarchical_max_flow(
        dict(zip("abc", costs, strict=True)), dict.fromkeys("abc"), 0.2, spacing_mm=(1, 2)
    )
    potts, same = potts_max_flow(costs, 0.2, spacing_mm=(1, 2))
    assert torch.equal(torch.stack([shares[name] for name in "abc"]), potts)
    assert result == same


def test_a_branch_without_smoothness_of_its_own_does_not_matter():
    costs = noisy_square()[0].double()
    costs = torch.stack((*costs, costs.mean(0) - 0.1))
    named = dict(zip("abc", costs, strict=True))
    weights = {"a": 0.3, "b": 0.3, "c": 0.3, "bc": 0.0}
    tree, result = hierarchical_max_flow(
        named, {"a": None, "bc": {"b": None, "c": None}}, weights, spacing_mm=(1, 1), **EXACT
    )
    potts, _ = potts_max_flow(costs, 0.3, spacing_mm=(1, 1), **EXACT)
    assert result.converged
    assert (torch.stack([tree[name] for name in "abc"]) - potts).abs().mean() < 5e-3


def test_a_node_is_the_sum_of_its_children_and_all_leaves_sum_to_one():
    leaves = ("background", "blood", "myocardium", "scar")
    costs = dict(zip(leaves, random_costs(4, (4, 5, 3), 3).float(), strict=True))
    shares, result = hierarchical_max_flow(costs, NESTED, 0.1, spacing_mm=(1, 1, 3))
    assert result.converged
    assert torch.allclose(shares["wall"], shares["myocardium"] + shares["scar"])
    assert torch.allclose(shares["heart"], shares["wall"] + shares["blood"])
    assert torch.allclose(shares["heart"] + shares["background"], torch.ones(4, 5, 3))


@pytest.mark.parametrize("slab_voxels", [1, 40, 100])
def test_the_size_of_the_slabs_does_not_matter(slab_voxels):
    costs = random_costs(3, (7, 5, 4), 4)
    names, tree = read_tree({"a": None, "bc": {"b": None, "c": None}})
    flows = [
        Flow(costs, [0.1] * len(names), tree, spacing=(1, 1, 2), step=1.0, penalty=None, slab_voxels=size)
        for size in (slab_voxels, 140)
    ]
    for _ in range(7):
        changes = [flow.iterate(measured=True) for flow in flows]
    assert torch.equal(flows[0].labelling(), flows[1].labelling())
    assert changes[0] == pytest.approx(changes[1], rel=1e-9)
    assert flows[0].gap() == pytest.approx(flows[1].gap(), rel=1e-9)


def test_gain_of_all_weights_and_an_offset_of_a_voxels_costs_do_not_matter():
    costs = noisy_square()[0].double()
    plain, _ = potts_max_flow(costs, 0.5, spacing_mm=(1, 1))
    other, _ = potts_max_flow(8 * costs + random_costs(1, (32, 32), 0), 4.0, spacing_mm=(1, 1))
    assert torch.allclose(plain, other, atol=1e-6)


def test_the_order_of_labels_and_axes_does_not_matter():
    costs = random_costs(3, (5, 6, 4), 5)
    plain, _ = potts_max_flow(costs, 0.1, spacing_mm=(1, 2, 3))
    turned, _ = potts_max_flow(costs.flip(0).permute(0, 3, 1, 2).contiguous(), 0.1, spacing_mm=(3, 1, 2))
    assert torch.allclose(turned.permute(0, 2, 3, 1).flip(0), plain, atol=1e-9)


def test_float32_is_enough():
    costs = noisy_square()[0]
    single, result = potts_max_flow(costs, 0.5, spacing_mm=(1, 1))
    double, twice = potts_max_flow(costs.double(), 0.5, spacing_mm=(1, 1))
    assert single.dtype == torch.float32
    assert result.iterations == twice.iterations
    assert torch.allclose(single, double.float(), atol=1e-3)
    assert result.gap == pytest.approx(twice.gap, abs=1e-5)


def test_the_costs_stay_what_they_were():
    costs = noisy_square()[0]
    before = costs.clone()
    potts_max_flow(costs, 0.5, spacing_mm=(1, 1))
    assert torch.equal(costs, before)


# ---------------------------------------------------------------- what is forbidden, and outside


def test_a_forbidden_label_is_nowhere_and_costs_no_more_than_a_large_number():
    costs = random_costs(3, (6, 6), 6)
    costs[1, :3] = math.inf
    shares, result = potts_max_flow(costs, 0.1, spacing_mm=(1, 1), **EXACT)
    assert result.converged
    assert (shares[1, :3] == 0).all()
    large, _ = potts_max_flow(costs.clamp(max=1e3), 0.1, spacing_mm=(1, 1), penalty=1.0, **EXACT)
    assert torch.equal(shares.argmax(0), large.argmax(0))


@pytest.mark.parametrize("forbidden", [0, 1])
def test_of_two_labels_either_can_be_forbidden(forbidden):
    costs = noisy_square()[0]
    costs[forbidden, :, :4] = math.inf
    shares, result = binary_max_flow(costs, 1.0, spacing_mm=(1, 1))
    assert result.converged
    assert (shares[1 - forbidden, :, :4] == 1).all()


@pytest.mark.parametrize("solve", [binary_max_flow, potts_max_flow])
def test_voxels_outside_neither_count_nor_pull(solve):
    costs = noisy_square()[0].double()
    inner, alone = solve(costs[:, 4:20, 5:18], 0.5, spacing_mm=(1, 1), penalty=0.5)
    around = torch.full_like(costs, math.inf)
    around[:, 4:20, 5:18] = costs[:, 4:20, 5:18]
    shares, result = solve(around, 0.5, spacing_mm=(1, 1), penalty=0.5)
    assert torch.allclose(shares[:, 4:20, 5:18], inner)
    assert shares.sum() == pytest.approx(16 * 13)
    assert astuple(result) == pytest.approx(astuple(alone))


# ---------------------------------------------------------------- convergence


@pytest.mark.parametrize("smoothness", [0.05, 0.5, 3.0])
def test_it_stops_when_the_gap_is_small_and_the_labelling_hardly_changes(smoothness):
    costs = noisy_square()[0]
    _, result = potts_max_flow(costs, smoothness, spacing_mm=(1, 1))
    assert result.converged
    assert result.iterations < 300
    assert 0 <= result.gap <= 1e-3
    assert result.residual < 1e-3


def test_the_gap_bounds_what_is_left_to_gain():
    costs = noisy_square()[0].double()
    costs -= costs.amin(0)
    early, result = potts_max_flow(costs, 0.5, spacing_mm=(1, 1), iterations=20)
    late, _ = potts_max_flow(costs, 0.5, spacing_mm=(1, 1), **EXACT)
    energies = [energy(shares.numpy(), costs.numpy(), [0.5, 0.5], (1, 1)) for shares in (early, late)]
    assert not result.converged
    assert result.iterations == 20
    assert energies[1] < energies[0] <= energies[1] / (1 - result.gap)


def test_more_iterations_close_the_gap():
    costs = random_costs(4, (8, 8, 8), 7)
    gaps = [
        potts_max_flow(costs, 0.1, spacing_mm=(1, 1, 1), iterations=n, tolerance=0)[1].gap for n in (10, 40, 160, 640)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-3 * gaps[0]


# ---------------------------------------------------------------- refusals


COSTS = torch.ones(2, 3, 3)


@pytest.mark.parametrize(
    ("costs", "smoothness", "options", "said"),
    [
        (torch.ones(3, 3, 3), 1.0, {}, "2 labels, not of 3"),
        (torch.ones(2, 3, 3).half(), 1.0, {}, "float16"),
        (torch.ones(2), 1.0, {}, "1 to 3 axes"),
        (torch.ones(2, 0, 3), 1.0, {}, "empty"),
        (COSTS * math.nan, 1.0, {}, "NaN"),
        (COSTS * -math.inf, 1.0, {}, "minus infinity"),
        (COSTS * math.inf, 1.0, {}, "infinity everywhere"),
        (COSTS, -1.0, {}, "smoothness -1.0"),
        (COSTS, torch.ones(4, 3), {}, r"shape \(4, 3\)"),
        (COSTS, -torch.ones(3, 3), {}, "below zero"),
        (COSTS, 1.0, {"spacing_mm": (1, 1, 1)}, "spacing"),
        (COSTS, 1.0, {"spacing_mm": (1, 0)}, "spacing"),
        (COSTS, 1.0, {"iterations": 0}, "above zero"),
        (COSTS, 1.0, {"penalty": 0.0}, "above zero"),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(costs, smoothness, options, said):
    with pytest.raises(SegmenterError, match=said) as error:
        binary_max_flow(costs, smoothness, **{"spacing_mm": (1, 1), **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "tree", "smoothness", "said"),
    [
        ("ab", {}, 1.0, "empty"),
        ("ab", {"a": None, "b": {"a": None}}, 1.0, "'a' twice"),
        ("ab", {"a": None, "c": None}, 1.0, "leaves are a, c"),
        ("ab", {"a": None, "b": None}, {"a": 1.0}, "nodes are a, b"),
    ],
)
def test_a_tree_that_does_not_fit_is_refused_in_one_line(names, tree, smoothness, said):
    with pytest.raises(SegmenterError, match=said):
        hierarchical_max_flow(dict.fromkeys(names, torch.ones(3, 3)), tree, smoothness, spacing_mm=(1, 1))


def test_a_tree_is_read_leaves_first_and_children_before_parents():
    names, tree = read_tree(NESTED)
    assert names == ["background", "blood", "myocardium", "scar", "wall", "heart"]
    assert tree == Tree((-1, 5, 4, 4, 5, -1), leaves=4)
    assert tree.below(5) == [1, 2, 3]

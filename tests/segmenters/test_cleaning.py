"""Cleaning: enclosed dark cores are filled, small pieces dropped, by volume and slice by slice."""

import numpy as np
import pytest
from late_enhancement import ENDO_MM, EPI_MM, sector, stack

from segmed.cardiac.heart import HeartLabels
from segmed.cardiac.tissue import obstruction
from segmed.errors import SegmenterError
from segmed.segmenters.cleaning import Cleaned, small_pieces
from segmed.segmenters.obstruction import dark_cores
from segmed.segmenters.region import Scene, TissueMethod
from segmed.segmenters.thresholds import StandardDeviations

CORE = sector(90, 40, inner_mm=ENDO_MM + 3, outer_mm=EPI_MM - 3)
ENDOCARDIAL = sector(90, 40, inner_mm=ENDO_MM, outer_mm=EPI_MM - 3)
SCAR = sector(90, 90)


class Given(TissueMethod):
    """What `scene.masks` calls scar."""

    def probability(self, scene: Scene) -> np.ndarray:
        return scene.masks["scar"].astype(np.float32)


def test_a_core_within_the_scar_is_filled():
    scene = stack(SCAR)
    assert np.array_equal(dark_cores(SCAR & ~CORE, scene.region, axis=2), CORE)


def test_a_core_at_the_endocardium_is_enclosed_by_scar_and_cavity_together():
    scene = stack(SCAR)
    assert not dark_cores(SCAR & ~ENDOCARDIAL, scene.region, axis=2).any()
    filled = dark_cores(SCAR & ~ENDOCARDIAL, scene.region, axis=2, cavity=scene.masks["pool"])
    assert np.array_equal(filled, ENDOCARDIAL)


def test_healthy_wall_and_a_core_open_to_it_are_left():
    scene = stack(SCAR)
    opened = SCAR & ~CORE & ~sector(120, 60, inner_mm=ENDO_MM + 4, outer_mm=EPI_MM - 4)
    assert not dark_cores(opened, scene.region, axis=2, cavity=scene.masks["pool"]).any()
    assert not dark_cores(np.zeros_like(SCAR), scene.region, axis=2, cavity=scene.masks["pool"]).any()


def test_a_core_is_enclosed_in_its_slice_even_at_the_end_of_the_stack():
    scene = stack(SCAR)
    scar = SCAR & ~CORE
    scar[:, :, 1] = False
    filled = dark_cores(scar, scene.region, axis=2)
    assert np.array_equal(filled, CORE & np.array([True, False, True]))


@pytest.mark.parametrize(("scar_voxels", "is_core"), [(1, False), (4, False), (5, True)])
def test_scar_makes_up_at_least_half_of_the_outline_of_a_core(scar_voxels, is_core):
    """A piece of 1 x 4 voxels has an outline of 10 edges; the rest of them is blood."""
    around = [(1, 2), (6, 2), (2, 1), (3, 1), (4, 1), (5, 1), (2, 3), (3, 3), (4, 3), (5, 3)]
    scar, pool = np.zeros((8, 5, 1), bool), np.zeros((8, 5, 1), bool)
    for number, (x, y) in enumerate(around):
        (scar if number < scar_voxels else pool)[x, y] = True
    wall = scar.copy()
    wall[2:6, 2] = True
    assert np.array_equal(dark_cores(scar, wall, axis=2, cavity=pool), (wall & ~scar) & is_core)


def test_methods_and_the_scar_report_share_one_rule_of_obstruction():
    scene = stack(SCAR)
    heart = HeartLabels(scene.region, np.diag([*scene.spacing_mm, 1.0]), pool=scene.masks["pool"])
    for core in (CORE, ENDOCARDIAL, sector(90, 60, inner_mm=ENDO_MM, outer_mm=ENDO_MM + 1.5)):
        by_method = dark_cores(SCAR & ~core, scene.region, axis=2, cavity=scene.masks["pool"])
        assert np.array_equal(by_method, obstruction(heart, SCAR & ~core))


def test_pieces_are_measured_in_ml():
    mask = np.zeros((12, 4, 4), bool)
    mask[0:2, 0, 0] = True  # 2 voxels of 1.25 x 2 x 8 mm = 0.04 ml
    mask[4:7, 0, 0] = True
    mask[7, 1, 1] = True  # joined to the three by a corner
    small = small_pieces(mask, (1.25, 2.0, 8.0), 0.04 + 1e-9)
    assert small.sum() == 0
    assert np.array_equal(np.argwhere(small_pieces(mask, (1.25, 2.0, 8.0), 0.041)), [[0, 0, 0], [1, 0, 0]])
    assert np.array_equal(small_pieces(mask, (1.25, 2.0, 8.0), 0.081), mask)


def test_obstruction_and_specks_of_a_method_are_mended_in_this_order():
    scene = stack(SCAR & ~CORE)
    scene.masks["scar"][32, 32 + 20, :] = True
    thin = SCAR.sum() * 8 / 1000
    full = Cleaned(Given(), smallest_ml=thin, fill_obstruction=True).probability(scene)
    assert np.array_equal(full > 0, SCAR)
    assert not Cleaned(Given(), smallest_ml=thin).probability(scene).any()


def test_scar_with_a_dark_core_comes_back_whole_from_the_intensities():
    scene = stack(SCAR, obstruction=ENDOCARDIAL)
    method = Cleaned(StandardDeviations(n=5), smallest_ml=0.1, fill_obstruction=True, cavity="pool")
    assert np.array_equal(method.probability(scene) > 0, SCAR)


def test_a_cavity_that_is_not_there_is_named():
    with pytest.raises(
        SegmenterError, match="no mask is called 'lumen': choose one of those beside the region \\(pool, scar\\)"
    ):
        Cleaned(Given(), fill_obstruction=True, cavity="lumen").probability(stack(SCAR))


def test_a_negative_volume_is_refused():
    with pytest.raises(SegmenterError, match="0 or more"):
        Cleaned(Given(), smallest_ml=-1)

"""Measures of discs whose size is known, at any angle to the grid."""

import dataclasses

import numpy as np
import pytest

from ivdjax.evaluation.measure import HEIGHT_INSET, measure_disc
from tests.evaluation.analytic import SHAPE, SPACING_MM, affine, rotation, wedge

INSET = 0.5 - HEIGHT_INSET  # of the AP diameter, from the middle to where the outer heights are taken


def heights(measures):
    return np.array([measures.height_anterior_mm, measures.height_middle_mm, measures.height_posterior_mm])


def true_heights(height_mm, ap_mm, wedge_deg):
    rise = 2 * INSET * ap_mm * np.tan(np.radians(wedge_deg / 2))
    return np.array([height_mm + rise, height_mm, height_mm - rise])


@pytest.mark.parametrize("seed", range(40))
def test_cylinders_and_wedges_turned_by_up_to_30_degrees(seed):
    rng = np.random.default_rng(seed)
    height, ap = rng.uniform(6, 13), rng.uniform(30, 40)
    transverse = ap * rng.uniform(1.2, 1.5)
    # Odd seeds are wedges, none so steep that it closes behind.
    steepest = np.degrees(2 * np.arctan((height - 3) / ap))
    opening = rng.uniform(2, min(20, steepest)) if seed % 2 else 0.0
    # Up to a degree or two off the grid a flat disc's height is a whole number of voxels: no mask can tell.
    turn = rotation(rng.choice([-1, 1], 3) * rng.uniform(4, 30, 3))
    disc = wedge(height, ap, transverse, opening, turn, affine(), rng.uniform(-1, 1, 3))
    measures = measure_disc(disc, affine())
    assert measures.volume_mm3 == pytest.approx(np.pi / 4 * ap * transverse * height, rel=0.03)
    assert heights(measures) == pytest.approx(true_heights(height, ap, opening), abs=0.5)
    assert measures.wedge_deg == pytest.approx(opening, abs=2)
    assert measures.ap_mm == pytest.approx(ap, abs=1.0)
    assert measures.transverse_mm == pytest.approx(transverse, abs=1.25)
    assert not measures.cut_off
    # Its own axes are found whatever the grid's are.
    assert np.degrees(np.arccos((measures.landmarks.axes_3x3[2] @ turn[:, 2]).clip(-1, 1))) < 2


def test_an_upright_disc_of_whole_voxels_is_exact():
    measures = measure_disc(wedge(10.0, 35, 48, 0, np.eye(3), affine()), affine())
    assert heights(measures) == pytest.approx([10, 10, 10], abs=0.05)
    assert measures.wedge_deg == pytest.approx(0, abs=0.01)
    assert (measures.center_x_mm, measures.center_y_mm, measures.center_z_mm) == pytest.approx((0, 0, 0), abs=1e-9)


def test_the_grid_does_not_matter_only_the_disc():
    turn = rotation((25, 8, -10))
    fine = affine((80, 100, 100), (1.0, 0.8, 0.8))
    coarse = measure_disc(wedge(9, 36, 50, 8, turn, affine()), affine())
    other = measure_disc(wedge(9, 36, 50, 8, turn, fine, shape=(80, 100, 100)), fine)
    assert heights(other) == pytest.approx(heights(coarse), abs=0.4)
    assert other.wedge_deg == pytest.approx(coarse.wedge_deg, abs=1.5)
    assert other.ap_mm == pytest.approx(coarse.ap_mm, abs=0.8)


def test_an_oblique_grid_turns_the_landmarks_and_leaves_the_measures():
    tilt = rotation((0, 0, 20))
    straight, oblique = affine(), affine(turn_3x3=tilt)
    disc = wedge(9, 36, 50, 8, rotation((20, 5, 0)), straight)
    a, b = measure_disc(disc, straight), measure_disc(disc, oblique)
    for field in dataclasses.fields(a):
        if field.name.endswith(("_mm", "_mm3", "_deg")) and not field.name.startswith("center"):
            assert getattr(a, field.name) == pytest.approx(getattr(b, field.name), abs=1e-6)
    assert b.landmarks.height_3x2x3 == pytest.approx(a.landmarks.height_3x2x3 @ tilt.T, abs=1e-6)


def test_a_front_edge_is_in_front_and_a_wedge_opens_to_it():
    measures = measure_disc(wedge(10, 36, 50, 12, rotation((30, 0, 0)), affine()), affine())
    marks = measures.landmarks
    front, back = marks.ap_2x3
    assert front[1] > back[1]
    assert marks.height_3x2x3[:, 0, 2].min() > marks.height_3x2x3[:, 1, 2].max() - 12  # upper ends above lower ones
    assert np.linalg.norm(marks.height_3x2x3[0, 0] - marks.height_3x2x3[0, 1]) == pytest.approx(
        measures.height_anterior_mm, abs=1e-6
    )
    assert np.linalg.norm(front - back) == pytest.approx(measures.ap_mm, abs=1e-6)
    assert measures.wedge_deg > 10


def test_a_convex_disc_is_higher_in_the_middle():
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    x, y, z = np.moveaxis((index @ affine()[:3, :3].T + affine()[:3, 3]) @ rotation((12, 6, 0)), -1, 0)
    r2 = (x / 25) ** 2 + (y / 18) ** 2
    disc = (r2 <= 1) & (np.abs(z) <= 5 - 2 * r2)
    measures = measure_disc(disc, affine())
    edge = 2 * (5 - 2 * (2 * INSET) ** 2)
    assert heights(measures) == pytest.approx([edge, 10, edge], abs=0.6)


def test_a_disc_in_the_first_slice_is_cut_off():
    disc = np.roll(wedge(9, 36, 50, 0, rotation((15, 0, 0)), affine()), -10, axis=0)
    disc[-10:] = False
    measures = measure_disc(disc, affine())
    assert measures.cut_off
    assert heights(measures) == pytest.approx([9, 9, 9], abs=0.5)
    assert measures.ap_mm == pytest.approx(36, abs=1.5)


def test_a_disc_at_the_upper_edge_is_cut_off_too():
    disc = np.roll(wedge(9, 36, 50, 0, rotation((15, 0, 0)), affine()), -28, axis=1)
    disc[:, -28:] = False
    assert measure_disc(disc, affine()).cut_off


def test_what_is_too_small_is_refused():
    with pytest.raises(ValueError, match="empty"):
        measure_disc(np.zeros(SHAPE, bool), affine())
    speck = np.zeros(SHAPE, bool)
    speck[18, 30, 30:33] = True
    with pytest.raises(ValueError, match="too small"):
        measure_disc(speck, affine())


def test_the_grid_of_the_tests_is_the_challenges():
    assert np.linalg.norm(affine()[:3, :3], axis=0) == pytest.approx(SPACING_MM)

"""Probabilities of which it is known how far they are true."""

import numpy as np
import pytest

from ivdjax.errors import DataError
from ivdjax.evaluation import calibration

SPACING_MM = (2.0, 1.25, 1.25)


def drawn(true, given=lambda p: p, n=300_000, seed=0):
    """Voxels that are disc with the chance `true(u)`, to which the network gives `given` of it."""
    rng = np.random.default_rng(seed)
    chance = true(rng.random(n))
    return calibration.bin_voxels(given(chance).astype(np.float32), rng.random(n) < chance)


def test_true_probabilities_have_no_error():
    assert drawn(lambda u: u).error < 0.004
    assert drawn(lambda u: u**3).error < 0.004


@pytest.mark.parametrize("off", [0.05, 0.2])
def test_a_probability_too_high_by_so_much_has_that_error(off):
    assert drawn(lambda u: 0.7 * u, lambda p: p + off).error == pytest.approx(off, abs=0.004)


def test_certainty_of_what_is_true_in_three_of_four_cases_is_off_by_a_quarter():
    bins = drawn(lambda u: np.full_like(u, 0.75), np.ones_like)
    assert bins.error == pytest.approx(0.25, abs=0.004)
    assert bins.voxels_b.tolist() == [0] * 14 + [300_000]


def test_the_error_is_weighted_by_voxels_and_taken_bin_by_bin():
    # 3 voxels at 0.1, one of them disc; 1 at 0.9 that is none: (3 |1/3 - 0.1| + 1 |0 - 0.9|) / 4.
    bins = calibration.bin_voxels(np.float32([0.1, 0.1, 0.1, 0.9]), np.array([True, False, False, False]))
    assert bins.error == pytest.approx((0.7 + 0.9) / 4, abs=1e-6)
    assert calibration.bin_voxels(np.empty(0, np.float32), np.empty(0, bool)).error == 0


def test_the_interval_is_over_subjects():
    good, bad = drawn(lambda u: u, n=9000), drawn(lambda u: 0.7 * u, lambda p: p + 0.2, n=9000)
    low, high = calibration.interval([good, good, bad, good], ["a", "a", "b", "c"])
    pooled = calibration.add([good, good, bad, good]).error
    assert good.error < low + 0.02 < pooled < high <= bad.error + 1e-9
    assert calibration.interval([good, bad], ["a", "a"]) is None


def case():
    """A reference of two discs; the network finds the lower one shifted, and a false piece, but not the upper one."""
    reference, mask = np.zeros((2, 12, 96, 60), np.uint8)
    reference[3:9, 20:27, 15:40] = reference[3:9, 50:57, 15:40] = 1
    mask[3:9, 52:59, 15:40] = mask[3:9, 80:87, 15:40] = 1
    return reference, mask


def test_only_what_is_near_a_disc_is_counted():
    reference, mask = case()
    counts = calibration.count(0.8 * mask.astype(np.float32), mask, mask, reference, SPACING_MM)
    near = np.zeros(mask.shape, bool)
    index = np.argwhere(np.ones(mask.shape)) * SPACING_MM
    for voxel in np.argwhere(mask | reference):
        near |= (np.linalg.norm(index - voxel * SPACING_MM, axis=1) <= 5).reshape(mask.shape)
    assert counts.bins.voxels_b.sum() == near.sum()
    assert counts.bins.voxels_b[12] == mask.sum()
    assert counts.bins.disc_b[12] == (mask & reference).sum()
    assert counts.bins.probability_b.sum() == pytest.approx(0.8 * mask.sum(), rel=1e-5)


def test_predicted_discs_are_told_with_the_reference_disc_they_are_of(tmp_path):
    reference, mask = case()
    counts = calibration.count(mask.astype(np.float32), mask, mask, reference, SPACING_MM)
    assert [disc.disc for disc in counts.discs] == [1, 2]
    assert counts.references == (None, 1)
    path = calibration.case_path(tmp_path, "01")
    calibration.write_case(path, counts)
    back = calibration.read_case(path)
    assert (back.discs, back.references) == (counts.discs, counts.references)
    np.testing.assert_array_equal(back.bins.probability_b, counts.bins.probability_b)


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"bins": {"voxels": [1], "probability": [1], "disc": [1]}, "discs": []}']
)
def test_damaged_counts_are_one_line(tmp_path, content):
    (tmp_path / "01.json").write_text(content)
    with pytest.raises(DataError, match=r"01\.json"):
        calibration.read_case(tmp_path / "01.json")

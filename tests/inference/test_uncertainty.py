import numpy as np
import pytest

from ivdjax.inference.uncertainty import consensus


def member(*chances):
    """One voxel a chance of disc."""
    return np.float32([[[[1 - chance, chance] for chance in chances]]])


def test_members_are_averaged():
    found = consensus([member(0.2, 1.0), member(0.6, 1.0), member(0.7, 0.1)])
    np.testing.assert_allclose(found.foreground_ZxHxW, [[[0.5, 0.7]]], rtol=1e-6)
    assert found.members == 3
    assert found.entropy_ZxHxW is None


def test_doubt_that_all_share_is_no_disagreement_and_sure_members_who_differ_are_nothing_else():
    found = consensus([member(0.5, 0.0, 1.0), member(0.5, 1.0, 1.0)], measured=True)
    np.testing.assert_allclose(found.entropy_ZxHxW, [[[1, 1, 0]]], atol=1e-6)
    np.testing.assert_allclose(found.disagreement_ZxHxW, [[[0, 1, 0]]], atol=1e-6)


def test_one_member_cannot_disagree():
    found = consensus(iter([member(0.11)]), measured=True)
    assert found.disagreement_ZxHxW is None
    assert found.entropy_ZxHxW.item() == pytest.approx(0.5, abs=2e-3)  # the entropy of a coin of 0.11 in bits

"""The digital spine as a radiologist and as a scanner would check it: what is where, how bright, how alike."""

import gzip

import jax
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from ivdjax.data import anatomy, dataset, dixon, phantom
from ivdjax.errors import DataError, UsageError

# Coarse in plane, to be quick; the anatomy is the same on every grid.
SHAPE, SPACING_MM = (36, 128, 128), (2.0, 2.5, 2.5)
CHANNELS = ("fat", "inn", "opp", "wat")


def drawn(scan: int, subject: int) -> phantom.Phantom:
    return jax.tree.map(np.asarray, phantom.draw(jax.random.key(scan), jax.random.key(subject), SHAPE, SPACING_MM))


def around(volume: np.ndarray, point_mm: np.ndarray, radius: int = 1) -> float:
    """Median of the in-plane neighbourhood of a point given in mm from the grid's centre."""
    z, h, w = np.rint(point_mm / SPACING_MM + (np.array(SHAPE) - 1) / 2).astype(int)
    return float(np.median(volume[z, h - radius : h + radius + 1, w - radius : w + radius + 1]))


@pytest.fixture(scope="module")
def subjects():
    """Fifty subjects, stacked."""
    return jax.jit(jax.vmap(anatomy.sample))(jax.random.split(jax.random.key(0), 50))


@pytest.fixture(scope="module")
def spines():
    return [drawn(scan=100 + s, subject=s) for s in range(4)]


def test_seven_discs_stand_apart_in_order_along_the_column(spines):
    for spine in spines:
        label = spine.label_ZxHxW
        assert label.dtype == np.uint8
        assert set(np.unique(label)) == set(range(8))
        pieces, count = ndimage.label(label > 0, structure=np.ones((3, 3, 3)))  # corners touch on a coarse grid
        assert count == 7
        heights = [np.argwhere(label == k)[:, 1].mean() for k in range(1, 8)]
        assert np.all(np.diff(heights) < -20 / SPACING_MM[1])  # upwards, a vertebra apart
        for k in range(1, 8):
            assert len(np.unique(pieces[label == k])) == 1
            centre_mm = (np.argwhere(label == k).mean(0) - (np.array(SHAPE) - 1) / 2) * SPACING_MM
            assert np.linalg.norm(centre_mm - spine.disc_8x3[k - 1]) < 5


def test_discs_lie_inside_280_mm_and_have_the_volume_of_real_ones(spines):
    for spine in spines:
        at = np.argwhere(spine.label_ZxHxW > 0)
        h_mm = (at[:, 1] - (SHAPE[1] - 1) / 2) * SPACING_MM[1]
        assert np.abs(h_mm).max() < 140
        assert 63 < len(at) * np.prod(SPACING_MM) / 1000 < 140


def test_an_eighth_disc_above_is_drawn_but_not_labelled(spines):
    for spine in spines:
        seventh, eighth = spine.disc_8x3[6:]
        assert eighth[1] < seventh[1] - 20
        assert around(spine.label_ZxHxW, eighth) == 0
        assert around(spine.water_ZxHxW, eighth, 0) > 1.2 * around(spine.water_ZxHxW, (seventh + eighth) / 2)


def test_tissues_are_ordered_in_brightness(spines):
    for spine in spines:
        water, fat = spine.water_ZxHxW, spine.fat_ZxHxW
        middles = (spine.disc_8x3[1:] + spine.disc_8x3[:-1]) / 2
        marrow_water = np.median([around(water, p) for p in middles])
        marrow_fat = np.median([around(fat, p) for p in middles])
        disc = spine.label_ZxHxW > 0
        lipid = fat > 1.0
        assert 1.2 < np.median(water[disc]) / marrow_water < 2.4
        assert np.median(water[lipid]) < 0.2 * marrow_water
        assert np.median(fat[disc]) < 0.2 * marrow_fat
        assert marrow_fat < 0.6 * np.median(fat[lipid])
        assert np.median((water + fat)[:, :, -2:]) == 0  # air behind the back


def test_l5_s1_is_a_tilted_wedge_below_a_lordosis(subjects):
    down = np.asarray(subjects.frame_Px3x3)[:, :, 1]
    tilt_deg = np.rad2deg(np.arctan2(down[..., 2], down[..., 1]))
    lowest, highest = tilt_deg[:, anatomy.LOWEST_DISC], tilt_deg[:, anatomy.LOWEST_DISC + anatomy.DISCS - 1]
    assert 28 < lowest.min() < lowest.max() < 60
    assert 40 < np.median(lowest) < 48
    assert np.all(lowest - highest > 25)
    assert np.all(np.rad2deg(subjects.wedge_P[:, anatomy.LOWEST_DISC]) > 5)


def test_column_coordinates_find_each_disc_at_its_own_centre(subjects):
    subject = jax.tree.map(lambda x: x[3], subjects)
    z, h, w = np.asarray(subject.centre_Px3)[1:-1].T
    place = anatomy.locate(subject, z, h, w)
    np.testing.assert_array_equal(place.nearest, np.arange(1, anatomy.PLANES - 1))
    for offset_mm in (place.across, place.back, place.beyond):
        np.testing.assert_allclose(offset_mm, 0, atol=1e-3)


def test_a_pose_and_its_inverse_cancel():
    pose = anatomy.sample_pose(jax.random.key(5))
    points = np.array([[10.0, -80.0, 30.0], [0.0, 0.0, 0.0]])
    there = np.asarray(pose.to_grid(points))
    assert 0.5 < np.linalg.norm(there - points, axis=1).max() < 15
    np.testing.assert_allclose(np.stack(pose.to_subject(*there.T), 1), points, atol=1e-3)


def test_two_scans_of_a_subject_are_more_alike_than_two_subjects(spines):
    again = drawn(scan=7, subject=0)

    def build(spine):  # what a pose leaves as it is: distances between discs in mm, and their volumes in ml
        apart_mm = np.linalg.norm(spine.disc_8x3[:, None] - spine.disc_8x3, axis=-1)
        volume_ml = np.bincount(spine.label_ZxHxW.ravel(), minlength=8)[1:] * np.prod(SPACING_MM) / 1000
        return np.concatenate([apart_mm.ravel(), volume_ml])

    same = np.abs(build(again) - build(spines[0])).max()
    others = [np.abs(build(other) - build(spines[0])).max() for other in spines[1:]]
    assert same < 0.5 * min(others)
    assert np.linalg.norm(again.disc_8x3 - spines[0].disc_8x3, axis=1).max() > 0.5  # yet not the same pose


def test_discs_swell_by_a_few_per_cent(subjects):
    subject = jax.tree.map(lambda x: x[0], subjects)
    change = np.asarray(anatomy.swell(jax.random.key(1), subject).height_P / subject.height_P)
    assert 0.001 < np.abs(change - 1).max() <= 0.0601


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms") / "tree"
    calls = []
    phantom.write_tree(
        out, cases=3, seed=5, shape=SHAPE, spacing_mm=SPACING_MM, progress=lambda *done: calls.append(done)
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    return out


def read(tree, case, name):
    return np.asarray(nib.load(tree / case / f"{case}_{name}.nii.gz").dataobj)


def test_the_tree_is_laid_out_as_ivdm3seg(tree):
    names = {f"{c}/{c}_{name}.nii.gz" for c in ("01", "02", "03") for name in (*CHANNELS, "Labels")}
    names.add("phantom.json")
    assert dataset.is_phantom(tree)
    assert not dataset.is_phantom(tree / "01")
    assert {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file()} == names
    affine = nib.load(tree / "01" / "01_fat.nii.gz").affine
    for name in (*CHANNELS, "Labels"):
        image = nib.load(tree / "01" / f"01_{name}.nii.gz")
        assert image.shape == SHAPE
        assert image.get_data_dtype() == (np.uint8 if name == "Labels" else np.int16)
        assert nib.aff2axcodes(image.affine) == ("R", "I", "P")
        np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), SPACING_MM, rtol=1e-5)
        np.testing.assert_array_equal(image.affine, affine)
    assert np.count_nonzero(np.abs(affine[:3, :3]) > 1e-3) == 9  # oblique
    assert set(np.unique(read(tree, "01", "Labels"))) == {0, 1}


def test_files_have_scales_of_their_own_and_keep_the_dixon_laws(tree):
    slopes = {nib.load(tree / "01" / f"01_{name}.nii.gz").dataobj.slope for name in CHANNELS}
    assert len(slopes) > 1
    in_phase, opposed = dixon.residuals(**{name: read(tree, "01", name) for name in CHANNELS})
    assert 0 < in_phase < 0.05
    assert 0 < opposed < 0.05


def test_a_case_is_addressed_by_seed_and_number_alone(tree, tmp_path):
    phantom.write_tree(tmp_path / "one", cases=1, seed=5, shape=SHAPE, spacing_mm=SPACING_MM)
    for name in ("opp", "Labels"):
        ours, theirs = (gzip.decompress((t / f"01/01_{name}.nii.gz").read_bytes()) for t in (tree, tmp_path / "one"))
        assert ours == theirs
    assert np.any(read(tree, "01", "Labels") != read(tree, "02", "Labels"))


def test_consecutive_cases_share_a_subject(tree):
    first, second, third = (read(tree, case, "wat").ravel() for case in ("01", "02", "03"))
    assert np.corrcoef(first, second)[0, 1] > np.corrcoef(second, third)[0, 1]


def test_what_exists_is_never_overwritten(tree, tmp_path):
    with pytest.raises(UsageError, match="tree: exists and is not an empty folder"):
        phantom.write_tree(tree, cases=1)
    (tmp_path / "note.txt").write_text("keep me")
    with pytest.raises(UsageError, match="not an empty folder"):
        phantom.write_tree(tmp_path, cases=1)
    with pytest.raises(UsageError, match=r"note\.txt"):
        phantom.write_tree(tmp_path / "note.txt", cases=1)


def test_nonsense_sizes_are_refused_before_anything_is_written(tmp_path):
    for wrong in ({"cases": 0}, {"shape": (0, 64, 64)}, {"spacing_mm": (2.0, -1.0, 1.0)}):
        with pytest.raises(UsageError, match="must be more than 0"):
            phantom.write_tree(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_a_case_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(phantom, "_nifti_gz", full)
    with pytest.raises(DataError, match="new: cannot be written: disk full"):
        phantom.write_tree(tmp_path / "new", cases=1, shape=SHAPE, spacing_mm=SPACING_MM)
    assert list(tmp_path.iterdir()) == []

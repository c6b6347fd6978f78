"""Reading onto canonical axes and writing back, against nibabel."""

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from ivdjax.data import nifti
from ivdjax.errors import DataError, UsageError

SHAPE = (5, 6, 7)
OBLIQUE = np.array([[1.9, 0.11, -0.2, -31.7], [0.3, -0.15, -1.21, 44.25], [0.4, -1.23, 0.17, 80.5], [0, 0, 0, 1.0]])
ORIENTATIONS = [
    "".join(pick)
    for pick in itertools.product("LRAPSI", repeat=3)
    if sorted("LRAPSI".index(c) // 2 for c in pick) == [0, 1, 2]
]


def save(path: Path, array, affine=OBLIQUE, kind=nib.Nifti1Image, **fields) -> Path:
    image = kind(np.asarray(array), affine)
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def voxels(dtype=np.int16, shape=SHAPE):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def turned(codes: str, array, affine):
    """An image on (R, I, P) axes stored with other axes instead, by nibabel alone."""
    image = nib.Nifti1Image(array, affine)
    ornt = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(codes))
    return image.as_reoriented(ornt)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize(
    "affine", [OBLIQUE, np.diag([2.0, -1.25, -1.5, 1])[:, [0, 2, 1, 3]]], ids=["oblique", "straight"]
)
def test_every_orientation_reads_the_same_and_masks_go_back_bit_for_bit(tmp_path, codes, affine):
    array = voxels()
    source = tmp_path / "in.nii"
    stored = turned(codes, array, affine)
    stored.to_filename(source)
    volume = nifti.read(source)
    assert orientations.aff2axcodes(volume.affine) == nifti.CANONICAL
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)  # NIfTI keeps 32 bits
    grid = nifti.read_grid(source)
    assert (grid.shape, grid.orientation) == (SHAPE, tuple(codes))
    np.testing.assert_array_equal(grid.affine, volume.affine)

    out = tmp_path / "mask.nii.gz"
    nifti.write_mask(volume.array % 2 == 1, source, out)
    mask, original = nib.load(out), nib.load(source)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(original.dataobj) % 2)
    np.testing.assert_array_equal(mask.affine, original.affine)


def test_a_voxel_keeps_its_place_in_the_scanner(tmp_path):
    array = np.zeros(SHAPE, np.int16)
    array[4, 1, 2] = 9
    path = save(tmp_path / "a.nii", array)
    volume = nifti.read(path)
    (index,) = np.argwhere(volume.array)
    np.testing.assert_allclose(volume.affine @ [*index, 1], OBLIQUE @ [4, 1, 2, 1], atol=1e-4)
    np.testing.assert_allclose(volume.spacing_mm, np.linalg.norm(volume.affine[:3, :3], axis=0), atol=1e-5)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_mask_keeps_every_geometric_field_of_its_source(tmp_path, kind, name):
    source = save(
        tmp_path / "source.nii.gz", voxels(), kind=kind, qform_code=1, sform_code=2, cal_max=300, xyzt_units=10
    )
    out = tmp_path / "new" / name
    nifti.write_mask(np.ones(nifti.read_grid(source).shape, bool), source, out)
    before, after = nib.load(source), nib.load(out)
    assert type(after) is kind
    assert after.get_data_dtype() == np.uint8
    kept = ["dim", "pixdim", "xyzt_units", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "dim_info"]
    kept += ["quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]
    for field in kept:
        np.testing.assert_array_equal(after.header[field], before.header[field], err_msg=field)
    assert after.header["cal_max"] == 0
    stored = gzip.decompress(out.read_bytes()) if name.endswith("gz") else out.read_bytes()
    header = kind.header_class(stored[: kind.header_class.sizeof_hdr])
    assert (header["scl_slope"], header["scl_inter"]) == (1, 0)
    assert [p.name for p in out.parent.iterdir()] == [name]


def test_qform_alone_and_big_endian_sources(tmp_path):
    quaternion = tmp_path / "q.nii"
    image = nib.Nifti1Image(voxels(), None)
    image.set_qform(OBLIQUE, code=1)
    image.set_sform(None, code=0)
    image.to_filename(quaternion)
    big = tmp_path / "big.nii"
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.Nifti1Image(voxels(">i2"), OBLIQUE, header).to_filename(big)
    assert big.read_bytes()[:4] == (348).to_bytes(4, "big")
    for source in (quaternion, big):
        volume = nifti.read(source)
        assert set(np.unique(volume.array)) == set(range(210))
        nifti.write_mask(volume.array > 100, source, tmp_path / "m.nii")
        np.testing.assert_array_equal(nib.load(tmp_path / "m.nii").affine, nib.load(source).affine)
        np.testing.assert_array_equal(nifti.read_label(tmp_path / "m.nii").array, volume.array > 100)


@pytest.mark.parametrize("codes", ["RIP", "LAS", "PSR"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_a_map_lies_where_its_source_does(tmp_path, codes, endian):
    stored = turned(codes, voxels(), OBLIQUE)
    header = nib.Nifti1Header(endianness=endian)
    nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine, header).to_filename(tmp_path / "in.nii")
    chance = voxels(np.float64) / voxels().max()
    nifti.write_map(chance, tmp_path / "in.nii", tmp_path / "map.nii.gz", "disc probability")
    written = nib.load(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "in.nii").affine)
    assert written.get_data_dtype().newbyteorder("=") == np.float32
    np.testing.assert_allclose(nifti.read(tmp_path / "map.nii.gz").array, chance, atol=5.1e-4)
    assert written.header["descrip"].item() == b"ivdjax disc probability"


def test_a_header_without_sform_and_qform_is_read_and_said(tmp_path):
    path = save(tmp_path / "a.nii", voxels(), affine=None, pixdim=[1, 2, 1.25, 1.5, 0, 0, 0, 0])
    assert nifti.read_grid(path).located is False
    assert nifti.read_grid(path).spacing_mm == (2, 1.5, 1.25)  # stored as left, anterior, superior
    np.testing.assert_array_equal(nifti.read_grid(path).disk_affine, nib.load(path).affine)
    assert nifti.read_grid(save(tmp_path / "b.nii", voxels())).located is True


def test_scaling_is_applied_and_trailing_axes_of_one_are_dropped(tmp_path):
    path = save(tmp_path / "a.nii", voxels()[..., None])
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([0.5, -3], "<f4").tobytes()
    path.write_bytes(content)
    volume = nifti.read(path)
    assert volume.array.shape == nifti.read_grid(path).shape
    assert volume.array.dtype == np.float32
    assert (volume.array.min(), volume.array.max()) == (-3, 209 * 0.5 - 3)


def test_labels_are_whole_numbers_that_fit(tmp_path):
    np.testing.assert_array_equal(
        np.unique(nifti.read_label(save(tmp_path / "a.nii", voxels(np.float32) % 3)).array), [0, 1, 2]
    )
    for bad in (voxels(np.float32) / 2, voxels(np.int16) - 1, voxels(np.int16) + 100):
        with pytest.raises(DataError, match=r"b\.nii: holds values that are not integers of 0\.\.255"):
            nifti.read_label(save(tmp_path / "b.nii", bad))


def corrupted(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def promise(content: bytes, shape) -> bytes:
    return content[:40] + np.array([3, *shape, 1, 1, 1, 1], "<i2").tobytes() + content[56:]


@pytest.fixture
def content(tmp_path) -> bytes:
    return save(tmp_path / "sound.nii", voxels()).read_bytes()


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda c: c[:-1], "truncated"),
        (lambda c: c[:400], "truncated"),
        (lambda c: c[:300], "truncated"),
        (lambda c: b"a text, not an image" * 40, "not a NIfTI file"),
        (lambda c: promise(c, (32767, 32767, 32767)), "promises 32767 x 32767 x 32767"),
        (lambda c: promise(c, (400, 400, 400)), "too much for a file"),
        (lambda c: promise(c, (5, -6, 7)), "damaged"),
        (lambda c: promise(c, (5, 0, 7)), "damaged"),
        (lambda c: c[:108] + np.float32(np.nan).tobytes() + c[112:], "a.nii"),
        (lambda c: c[:70] + b"\x80\x00" + c[72:], "not one real number"),
        (lambda c: c[:280] + bytes(16) + c[296:], "singular"),
        (lambda c: c[:344] + b"ni1\0" + c[348:], "pair"),
        (lambda c: c[:344] + b"nix\0" + c[348:], "not a usable NIfTI header"),
    ],
    ids=[
        "short",
        "shorter",
        "header",
        "text",
        "terabytes",
        "ratio",
        "negative",
        "zero",
        "offset",
        "rgb",
        "flat",
        "pair",
        "magic",
    ],
)
def test_damage_is_one_line_that_names_the_file(tmp_path, content, name, damage, says):
    path = corrupted(tmp_path / name, damage(content))
    with pytest.raises(DataError, match=says) as error:
        nifti.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_damaged_gzip_data(tmp_path, content):
    sound = gzip.compress(content)
    flipped = bytearray(sound)
    flipped[-6] ^= 1  # in the checksum, past the last voxel
    for damaged in (sound[: len(sound) // 2], sound[:-4], bytes(flipped), content, sound[:5]):
        (tmp_path / "a.nii.gz").write_bytes(damaged)
        with pytest.raises(DataError, match="gzip data"):
            nifti.read(tmp_path / "a.nii.gz")


def test_a_huge_promise_is_refused_before_memory_is_asked_for(tmp_path, content, monkeypatch):
    path = corrupted(tmp_path / "a.nii.gz", promise(content, (400, 400, 400)))
    monkeypatch.setattr(nifti, "_voxels", lambda *_: pytest.fail("voxels were read"))
    with pytest.raises(DataError, match="too much"):
        nifti.read(path)


def test_files_that_are_no_volume(tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "folder.nii").mkdir()
    cases = {
        "empty.nii.gz": "zero length",
        "absent.nii": "No such file",
        "folder.nii": "directory",
        "image.mha": "not named",
    }
    for name, says in cases.items():
        with pytest.raises(DataError, match=says):
            nifti.read_grid(tmp_path / name)
    with pytest.raises(DataError, match=r"4-D \(5 x 6 x 7 x 2\)"):
        nifti.read(save(tmp_path / "4d.nii", voxels(shape=(*SHAPE, 2))))
    with pytest.raises(DataError, match="2-D"):
        nifti.read(save(tmp_path / "2d.nii", voxels(shape=(5, 6))))
    array = voxels(np.float32)
    array[0, 0, 0], array[1, 1, 1] = np.nan, np.inf
    with pytest.raises(DataError, match="NaN or infinite voxels: 2"):
        nifti.read(save(tmp_path / "nan.nii", array))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    source = save(tmp_path / "a.nii", voxels())
    shape = nifti.read_grid(source).shape
    out = tmp_path / "out" / "m.nii"
    nifti.write_mask(np.zeros(shape), source, out)
    before = out.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match=r"m\.nii: cannot be written: No space left"):
        nifti.write_mask(np.ones(shape), source, out)
    assert [p.name for p in out.parent.iterdir()] == ["m.nii"]
    assert out.read_bytes() == before


def test_masks_that_cannot_be_written(tmp_path):
    source = save(tmp_path / "a.nii", voxels())
    shape = nifti.read_grid(source).shape
    mask = np.zeros(shape, bool)
    with pytest.raises(UsageError, match="would replace"):
        nifti.write_mask(mask, source, tmp_path / "." / "a.nii")
    with pytest.raises(UsageError, match="name it so"):
        nifti.write_mask(mask, source, tmp_path / "a.mha")
    with pytest.raises(ValueError, match="voxels for a grid"):
        nifti.write_mask(mask[1:], source, tmp_path / "b.nii")
    for values in (np.full(shape, 0.5), np.full(shape, 256), np.full(shape, -1)):
        with pytest.raises(ValueError, match=r"0\.\.255"):
            nifti.write_mask(values, source, tmp_path / "b.nii")
    assert not (tmp_path / "b.nii").exists()


def test_the_same_mask_gives_the_same_bytes(tmp_path):
    source = save(tmp_path / "a.nii", voxels())
    mask = np.ones(nifti.read_grid(source).shape, bool)
    nifti.write_mask(mask, source, tmp_path / "b.nii.gz")
    nifti.write_mask(mask, source, tmp_path / "c.nii.gz")
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


def test_corner_displacement():
    moved = np.eye(4)
    moved[:3, 3] = 3, 4, 0
    assert nifti.corner_displacement_mm(np.eye(4), moved, SHAPE) == pytest.approx(5)
    stretched = np.diag([1, 1, 1.5, 1])  # only the last corner of the third axis moves, by half of 7 - 1
    assert nifti.corner_displacement_mm(np.eye(4), stretched, SHAPE) == pytest.approx(3)


def test_place_by_header_follows_the_headers(tmp_path):
    array = np.zeros(SHAPE, np.uint8)
    array[1:3, 2:5, 3] = 1
    label = nifti.read_label(save(tmp_path / "a.nii", array))
    np.testing.assert_array_equal(nifti.place_by_header(label, label.affine, label.array.shape), label.array)
    shift = np.eye(4)
    shift[1, 3] = 2  # a grid that begins two voxels further along H sees everything two voxels earlier
    placed = nifti.place_by_header(label, label.affine @ shift, label.array.shape)
    np.testing.assert_array_equal(placed[:, :-2], label.array[:, 2:])
    assert not placed[:, -2:].any()


def test_place_by_header_finds_the_nearest_voxel_of_a_turned_label_wherever_it_lies():
    rng, met = np.random.default_rng(0), 0
    for spread in (0, 2, 4, 8, 60):
        turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.5, 3, 3) for _ in range(2)]
        offsets = (rng.normal(0, spread, 3) - turn @ [3, 3, 3] for turn in turns)
        to_mm, label_to_mm = (
            nib.affines.from_matvec(turn, offset) for turn, offset in zip(turns, offsets, strict=True)
        )
        label = nifti.Volume(
            rng.integers(1, 200, (5, 6, 7)).astype(np.uint8), label_to_mm, (1.0, 1.0, 1.0), Path("a.nii")
        )
        placed = nifti.place_by_header(label, to_mm, (9, 8, 6))
        for index in itertools.product(range(9), range(8), range(6)):
            nearest = np.floor((np.linalg.inv(label_to_mm) @ to_mm @ [*index, 1])[:3] + 0.5).astype(int)
            inside = (nearest >= 0).all() and (nearest < label.array.shape).all()
            assert placed[index] == (label.array[tuple(nearest)] if inside else 0)
            met += inside
    assert met > 100

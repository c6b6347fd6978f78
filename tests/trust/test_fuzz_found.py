"""The smallest files of each kind that the fuzzer once broke something with."""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest

from ivdjax import files, trained
from ivdjax.config import Data
from ivdjax.data import dataset, instances, nifti, nifti_header, splits
from ivdjax.errors import LETTERS, DataError
from ivdjax.evaluation import compare, record, report
from ivdjax.exchange import nnunet
from ivdjax.inference import weights
from ivdjax.training import logbook
from tests.evaluation.pages import make_run, spine

DEEP = "[" * 200_000
MIB = bytes(2**20)
# What Orbax gave up in tests before is ended wherever it is collected.
pytestmark = pytest.mark.filterwarnings("error", "ignore::pytest.PytestUnraisableExceptionWarning")


def header(order="<", **fields):
    made = nib.Nifti1Header(endianness=order)
    made.set_data_shape((4, 5, 6))
    made.set_data_dtype(np.uint8)
    made.set_sform(np.diag([2.0, 1, 1, 1]), code=1)
    made["vox_offset"] = 352
    for name, value in fields.items():
        made[name] = value
    return made.binaryblock + bytes(4)


def refused(path, content, says, read=nifti.read):
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_that_begin_beyond_any_extension(tmp_path, suffix):
    for offset in (nifti_header.MAX_OFFSET + 16, 1e30, np.inf, np.nan, -16):
        with np.errstate(invalid="ignore"):
            content = header(vox_offset=offset)
        packed = gzip.compress(content) if suffix.endswith("gz") else content
        refused(tmp_path / f"a{suffix}", packed, "begin at byte|not a usable NIfTI header|damaged")


def test_a_stream_that_goes_on_and_on_after_the_voxels(tmp_path, monkeypatch):
    sound = header() + bytes(120)
    zipped = gzip.compress(MIB)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(sound) + zipped)
    assert nifti.read(tmp_path / "a.nii.gz").array.shape == (4, 6, 5)
    read = []
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, n, own=gzip.GzipFile.read: read.append(own(self, n)) or read[-1]
    )
    refused(tmp_path / "a.nii.gz", gzip.compress(sound) + zipped * 1000, "goes on after its last voxel")
    assert sum(map(len, read)) < 4 * len(MIB)
    refused(tmp_path / "a.nii", sound + 3 * MIB, "goes on after its last voxel")


def test_a_header_that_promises_no_voxels_or_too_many(tmp_path):
    refused(tmp_path / "a.nii", header(">", dim=[-1, 4, 5, 6, 1, 1, 1, 1]), "promises no voxels")
    refused(tmp_path / "a.nii", header(dim=[3, 512, 512, 257, 1, 1, 1, 1]), f"1 to {2**26}")


def test_a_header_that_is_refused_is_one_line_and_one_that_is_mended_is_told_once(tmp_path, caplog):
    refused(tmp_path / "a.nii", header(datatype=32767, qform_code=99), "not a usable NIfTI header")
    refused(tmp_path / "a.nii", header(vox_offset=353, dim=[3, 999, 999, 999, 1, 1, 1, 1]), "promises")
    assert not caplog.messages
    (tmp_path / "b.nii").write_bytes(header(qform_code=99) + bytes(120))
    for _ in range(3):
        nifti.read(tmp_path / "b.nii")
    assert len(caplog.messages) == 1
    assert "b.nii: qform_code 99" in caplog.messages[0]


def test_voxels_farther_away_than_can_be_told(tmp_path):
    for name, far in (("a", 0.0), ("b", 3e38), ("c", 1e30)):
        (tmp_path / f"{name}.nii").write_bytes(header(srow_x=[2, 0, 0, far]) + bytes(120))
    near = nifti.read_grid(tmp_path / "a.nii")
    for name in ("b", "c"):
        assert "lies elsewhere" in dataset.difference(nifti.read_grid(tmp_path / f"{name}.nii"), near)
        label = nifti.read_label(tmp_path / f"{name}.nii")
        assert not nifti.place_by_header(label, near.affine, near.shape).any()


@pytest.mark.parametrize("scaling", [{"scl_slope": 3e38, "scl_inter": 3e38}, {"scl_slope": 1e-45, "scl_inter": -3e38}])
def test_scalings_at_the_ends_of_what_a_number_holds(tmp_path, scaling):
    (tmp_path / "a.nii").write_bytes(header(**scaling) + bytes(range(120)))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.float64(scaling["scl_slope"]) * np.arange(120) + scaling["scl_inter"]
    if np.abs(expected).max() > np.finfo(np.float32).max:
        with pytest.raises(DataError, match="NaN or infinite voxels"):
            nifti.read(tmp_path / "a.nii")
    else:
        assert np.isfinite(nifti.read(tmp_path / "a.nii").array).all()
    with pytest.raises(DataError, match=r"not integers of 0\.\.255"):
        nifti.read_label(tmp_path / "a.nii")


def test_a_mask_that_is_all_disc(tmp_path):
    with pytest.raises(ValueError, match="more than all discs of a spine"):
        instances.instances(np.ones((2, 2**12, 2**11 + 1), np.uint8), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("content", [DEEP, DEEP.replace("[", '{"a":'), '{"a": NaN}', "\udcff", '"a"', "", "\0"])
def test_json_that_is_none_of_ours(tmp_path, content):
    for name, read in (
        ("config.json", lambda path: trained.read_experiment(path.parent)),
        ("dataset.json", lambda path: nnunet.to_tree(path.parent, tmp_path / "out")),
        ("scores.json", files.read_json),
    ):
        refused(tmp_path / name, content.encode("utf-8", "surrogateescape"), name, read)


def test_a_log_is_read_as_far_as_it_is_one(tmp_path):
    row = b'{"step": 1, "time_s": 0.5}\n'
    for rest in (b"\xff\xfe", DEEP.encode(), b"[1]", b'{"step": "2", "time_s": 1}', b'{"loss": 1}'):
        (tmp_path / "log.jsonl").write_bytes(row + rest + b"\n" + row)
        assert logbook.read(tmp_path / "log.jsonl") == [{"step": 1, "time_s": 0.5}]


def test_scores_of_other_types_and_sizes(tmp_path):
    def spoilt(name, change):
        run = tmp_path / name
        make_run(run, {"01": spine(), "02": spine()})
        scores = json.loads((run / "scores.json").read_text())
        change(scores)
        (run / "scores.json").write_text(json.dumps(scores))
        return run

    sound = spoilt("sound", lambda scores: None)
    for i, change in enumerate(
        [
            lambda scores: scores["cases"][0].update(dice=10**400),
            lambda scores: scores["cases"][0].update(dice=[]),
            lambda scores: scores["interval"].update(method=None),
            lambda scores: scores.update(per_disc={"a": 1}),
        ]
    ):
        with pytest.raises(DataError, match=f"run{i}: its scores"):
            report.write_report(spoilt(f"run{i}", change), [])
        assert not (tmp_path / f"run{i}" / "report.html").exists()
    with pytest.raises(DataError, match="evaluate the runs again"):
        compare.write_comparison(
            [sound, spoilt("huge", lambda s: s["cases"][0].update(dice=1e308))], tmp_path / "c.html"
        )
    # Half a pair of UTF-16 is no letter, but the page is written.
    odd = spoilt("odd", lambda scores: scores.update(warnings=["\ud800"]))
    assert report.write_report(odd, []).stat().st_size > 0
    for text in ("", "case,disc\n", (sound / "scores.csv").read_text().replace("1.0", "nan")):
        (sound / "scores.csv").write_text(text)
        with pytest.raises(DataError, match=r"scores\.csv"):
            record.read(sound)


def test_settings_that_name_no_place(tmp_path):
    for root in ("é" * 300, "\0", "../.." * 2000):
        make_run(tmp_path / str(len(root)), {"01": spine()}, root=root)
        assert not record.read(tmp_path / str(len(root))).on_phantom
    make_run(tmp_path / "run", {"01": spine()})
    for data in ("x", 3, [], None):
        (tmp_path / "run" / "config.json").write_text(json.dumps({"data": data}))
        assert not record.read(tmp_path / "run").on_phantom


def stored(entries, data=bytes(12)):
    text = json.dumps({k: dict(zip(("dtype", "shape", "data_offsets"), v, strict=True)) for k, v in entries.items()})
    return len(text).to_bytes(8, "little") + text.encode() + data


@pytest.mark.parametrize(
    "content",
    [
        stored({"a": ["F16", [-1], [0, 12]]}),
        stored({"a": ["F16", [6], [-12, 0]]}),
        stored({"a": ["F16", [6], [0, 24]]}),
        stored({"a": ["F16", [6], [4, 16]]}),
        stored({"a": ["F16", [6], [0, 12]], "b": ["F16", [6], [0, 12]]}),  # one place for many arrays
        stored({"a": ["F16", [1], [0, 2]], "a/b": ["F16", [1], [2, 4]]}),
        stored({"/".join("a" * 3000): ["F16", [1], [0, 2]]}),
        stored({"a": ["F16", [2**40, 0], [0, 0]], "b": [[], [1], [0, 2]]}),
        stored({"a": ["F16", [1], [0, 10**400]]}),
        stored({"a": ["F16", [], []]}),
        stored({"a": ["F16", [1], [0, 2]]}, b"\x00\x7c"),  # infinite
        (2**62).to_bytes(8, "little"),
        len(DEEP).to_bytes(8, "little") + DEEP.encode(),
    ],
)
def test_weights_that_lie_about_their_arrays(tmp_path, content):
    refused(tmp_path / weights.FILE, content, "damaged", weights.read)


def test_a_network_larger_than_any_is_not_built(tmp_path):
    settings = files.read_json(weights.find("default") / "config.json")
    for name, value in (("depth", 10**40), ("classes", 10**400), ("features", [16, 10**9])):
        files.write_json(tmp_path / "config.json", {**settings, "model": {**settings["model"], name: value}})
        with pytest.raises(DataError, match=rf"config\.json: model: {name} is over"):
            trained.read_experiment(tmp_path)


@pytest.mark.parametrize("fold", ["10000000000", "9" * 5000, "999999999", "-1", "٣"])
def test_a_fold_of_a_large_number(tmp_path, fold):
    (tmp_path / "folds.csv").write_text(f"case,fold\n01,0\n02,{fold}\n", "utf-8")
    cases = [dataset.Case(name, (), None, name) for name in ("01", "02")]
    with pytest.raises(DataError, match=r"folds\.csv: (no case is in fold 1|case 02 has the fold)"):
        splits.folds(cases, Data(fold_table=tmp_path / "folds.csv"))


def test_a_message_is_one_printable_line_whatever_it_quotes():
    line = str(DataError("a\n b\t\x1b[31m\ud800\u202e é"))
    assert line == r"a b \x1b[31m\ud800\u202e é"
    long = str(DataError("first " + "x" * 10**6 + " last"))
    assert len(long) <= LETTERS + 5
    assert (long[:6], long[-5:]) == ("first ", " last")

"""Links and names in a folder from elsewhere lead nowhere; what is written replaces links and never follows them."""

import json

import nibabel as nib
import numpy as np
import pytest

from ivdjax import files
from ivdjax.config import Data
from ivdjax.data import cache, check, dataset, grouping, masks, nifti, paths
from ivdjax.errors import DataError, UsageError
from ivdjax.evaluation import evaluate, measure_masks, record, report
from ivdjax.exchange import nnunet
from tests.evaluation.pages import SHAPE, make_run, spine, write_scans
from tests.trust import fuzz_reading

AFFINE = np.diag([-2.0, 1.25, 1.25, 1.0])[:, [0, 2, 1, 3]]
HOSTILE = ("=1+1", "+1", "@SUM(A1)", "-1", "a\nb", "\x1b[31mred", "\u202egif", "\udcff")


def write(path, array=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4) if array is None else array
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


@pytest.fixture
def archive(tmp_path):
    """A tree with one file, and an archive beside it with another."""
    write(tmp_path / "tree" / "01" / "01_t2.nii.gz")
    write(tmp_path / "archive" / "02_t2.nii.gz")
    return tmp_path


@pytest.fixture(autouse=True)
def _as_it_comes(monkeypatch):
    monkeypatch.delenv(paths.LINKS, raising=False)


def test_a_file_that_is_a_link_out_of_the_tree_is_refused_until_links_are_followed(archive, monkeypatch):
    link = archive / "tree" / "02_t2.nii.gz"
    link.symlink_to(archive / "archive" / "02_t2.nii.gz")
    for read in (lambda: dataset.discover(archive / "tree", ("t2",)), lambda: check.check(archive / "tree", ("t2",))):
        with pytest.raises(DataError, match=r"02_t2\.nii\.gz: is a link out of .*IVDJAX_LINKS=follow"):
            read()
    monkeypatch.setenv(paths.LINKS, "follow")
    assert [case.name for case in dataset.discover(archive / "tree", ("t2",))] == ["01", "02"]
    monkeypatch.setenv(paths.LINKS, "maybe")
    with pytest.raises(UsageError, match="IVDJAX_LINKS=maybe"):
        dataset.discover(archive / "tree", ("t2",))


def test_links_within_a_tree_and_a_tree_that_is_a_link_are_read(archive):
    (archive / "tree" / "03_t2.nii.gz").symlink_to("01/01_t2.nii.gz")
    (archive / "shortcut").symlink_to("tree")
    for root in (archive / "tree", archive / "shortcut"):
        assert [case.name for case in dataset.discover(root, ("t2",))] == ["01", "03"]


def test_a_link_that_climbs_out_and_one_by_way_of_another_are_refused(archive):
    (archive / "tree" / "up").symlink_to("../archive/02_t2.nii.gz")
    (archive / "tree" / "02_t2.nii.gz").symlink_to("up")
    with pytest.raises(DataError, match="is a link out of"):
        dataset.discover(archive / "tree", ("t2",))


def test_a_linked_folder_is_passed_over_with_a_word_and_entered_where_links_are_followed(archive, monkeypatch, caplog):
    (archive / "tree" / "more").symlink_to(archive / "archive")
    (archive / "tree" / "loop").symlink_to(archive / "tree")
    assert [case.name for case in dataset.discover(archive / "tree", ("t2",))] == ["01"]
    dataset.discover(archive / "tree", ("t2",))
    assert len(caplog.messages) == 1
    assert "more: is a linked folder and passed over" in caplog.messages[0]
    monkeypatch.setenv(paths.LINKS, "follow")
    assert [case.name for case in dataset.discover(archive / "tree", ("t2",))] == ["01", "02"]


def test_folders_of_other_tools_are_read_by_the_same_rule(archive, tmp_path):
    raw = tmp_path / "Dataset001_Spine"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    said = {"channel_names": {"0": "t2"}, "labels": {"background": 0, "disc": 1}, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(said))
    (raw / "imagesTr" / "02_0000.nii.gz").symlink_to(archive / "archive" / "02_t2.nii.gz")
    with pytest.raises(DataError, match=r"02_0000\.nii\.gz: is a link out of"):
        nnunet.to_tree(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_are_more_than_names_are_refused(tmp_path, name):
    path = write(tmp_path / "tree" / f"{name}_t2.nii.gz")
    mask = write(tmp_path / "masks" / f"{name}.nii.gz", np.ones((6, 5, 4), np.uint8))
    for read in (
        lambda: dataset.survey(path.parent, ("t2",)),
        lambda: check.check(path.parent, ("t2",)),
        lambda: masks.find(mask.parent),
        lambda: masks.find(mask),
    ):
        with pytest.raises(DataError, match="rename it") as error:
            read()
        assert str(error.value).isprintable()
    table = tmp_path / "subjects.csv"
    table.write_text(f'case,subject\n01,"{name}"\n', "utf-8", "surrogateescape")
    case = dataset.Case("01", (), None, "01")
    with pytest.raises(DataError, match=r"subjects\.csv"):
        grouping.assign_subjects([case], "table", table)


@pytest.mark.parametrize("name", ["../secret", "..", "/etc/secret", "a/b", ""])
def test_a_case_named_by_a_runs_scores_leads_to_no_other_file(tmp_path, name):
    cases = make_run(tmp_path / "run", {"01": spine()}, root=str(tmp_path / "tree"))
    write_scans(tmp_path / "tree", [tmp_path / "run"], cases)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    scores["cases"][0]["case"] = name
    (tmp_path / "run" / "scores.json").write_text(json.dumps(scores))
    write(tmp_path / "run" / "secret.nii.gz", np.ones(SHAPE, np.uint8))
    run = record.read(tmp_path / "run")
    with pytest.raises(DataError, match="rename it"):
        record.read_prediction(run, name)
    with pytest.raises(DataError, match="has no case"):
        record.load_cases(run)


def test_what_is_written_replaces_a_link_and_leaves_alone_what_it_leads_to(tmp_path):
    precious = tmp_path / "precious"
    out, given = tmp_path / "out", tmp_path / "given"
    given.mkdir()
    fuzz_reading.sound_files(given)
    run = make_run(tmp_path / "run", {"01": spine()}) and tmp_path / "run"
    writers = {
        out / "mask.nii.gz": lambda path: nifti.write_mask(np.zeros((6, 22, 18)), given / "image.nii.gz", path),
        out / "scores.csv": lambda path: evaluate.evaluate(given / "label.nii.gz", given / "label.nii.gz", out),
        out / "scores.json": lambda path: evaluate.evaluate(given / "label.nii.gz", given / "label.nii.gz", out),
        out / "discs.csv": lambda path: measure_masks.measure_masks(given / "label.nii.gz", path),
        out / "found.json": lambda path: files.write_json(path, {}),
        run / "report.html": lambda path: report.write_report(run, []),
    }
    out.mkdir()
    for path, writer in writers.items():
        precious.write_text("precious")
        # Once to a file, once to a place where none is yet.
        for aim in (precious, tmp_path / "nothing"):
            path.unlink(missing_ok=True)
            path.symlink_to(aim)
            writer(path)
            assert not path.is_symlink()
            assert path.stat().st_size > 0
        assert precious.read_text() == "precious", path
        assert not (tmp_path / "nothing").exists(), path


def test_a_folder_to_make_is_not_made_through_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="cannot be written"), files.making(tmp_path / "link") as partial:
        (partial / "a").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_cache_does_not_write_through_links(tmp_path):
    fuzz_reading.sound_files(tmp_path)
    case = dataset.Case("01", (tmp_path / "image.nii.gz",), tmp_path / "label.nii.gz", "01")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    list(cache.build([case], Data(channels=("t2",)), tmp_path / "cache"))
    made = sorted(path for path in (tmp_path / "cache" / "01").rglob("*") if path.is_file())
    assert [path.name for path in made] == ["case.json", "image.npy", "label.npy"]
    for path in made:
        path.unlink()
        path.symlink_to(precious)
    (read,) = cache.build([case], Data(channels=("t2",)), tmp_path / "cache")
    assert np.asarray(read.label_ZxHxW).sum() == 400
    assert precious.read_text() == "precious"
    assert not any(path.is_symlink() for path in made)

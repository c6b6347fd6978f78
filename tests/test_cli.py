"""The command line as a user meets it: exit codes, one line for what is theirs to mend, files on the right grids."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest

from ivdjax import cli
from ivdjax.evaluation import discs, verbs

ROOT = Path(__file__).parents[1]
OBLIQUE = np.array([[1.98, 0.1, 0.05, -3], [0.2, -0.05, -1.24, 20], [0.1, -1.24, 0.1, 30], [0, 0, 0, 1.0]])


def ivdjax(monkeypatch, capfd, *words):
    """Exit code, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["ivdjax", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capfd.readouterr()
    return stop.value.code, out, err


@pytest.fixture
def tree(tmp_path):
    """Two cases with a box for a disc, on an oblique grid whose axes are stored in another order."""
    rng = np.random.default_rng(0)
    order = [2, 0, 1]
    affine = OBLIQUE[:, [*order, 3]]
    for name in ("01", "02"):
        label = np.zeros((6, 32, 32), np.uint8)
        label[1:5, 4:12, 8:24] = label[1:5, 18:26, 8:24] = 1
        image = 100 + 300 * label.astype(int) + rng.integers(0, 50, label.shape)
        folder = tmp_path / "tree" / name
        folder.mkdir(parents=True)
        for kind, array in (("t2", image.astype(np.int16)), ("Labels", label)):
            nib.save(nib.Nifti1Image(array.transpose(order), affine), folder / f"{name}_{kind}.nii.gz")
    return tmp_path / "tree"


def test_check_exits_0_on_a_clean_tree_and_1_on_a_broken_one(tree, tmp_path, monkeypatch, capfd):
    report = tmp_path / "report.json"
    code, out, _ = ivdjax(monkeypatch, capfd, "check", tree, "--channels", "t2", "--json", report)
    assert (code, "2 cases, 0 problems" in out) == (0, True)
    assert len(json.loads(report.read_text())["cases"]) == 2
    (tree / "02" / "02_t2.nii.gz").write_bytes(b"")
    code, out, _ = ivdjax(monkeypatch, capfd, "check", tree, "--channels", "t2")
    assert code == 1
    assert "02_t2.nii.gz" in out.replace("\n", "")


def test_what_is_the_users_to_mend_is_one_line(tmp_path, monkeypatch, capfd):
    code, _, err = ivdjax(monkeypatch, capfd, "check", tmp_path / "nowhere")
    assert code == 1
    assert err.count("\n") == 1
    assert "nowhere" in err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    code, _, err = ivdjax(monkeypatch, capfd, "phantom", tmp_path / "full")
    assert (code, err.count("\n")) == (2, 1)


def test_phantom_writes_a_tree_that_check_takes(tmp_path, monkeypatch, capfd):
    code, _, _ = ivdjax(
        monkeypatch, capfd, "phantom", tmp_path / "p", "--cases", 1, "--shape", 8, 112, 72, "--spacing-mm", 6, 2.5, 2.5
    )
    assert code == 0
    assert ivdjax(monkeypatch, capfd, "check", tmp_path / "p")[0] == 0


def test_evaluate_writes_the_scores(tree, tmp_path, monkeypatch, capfd):
    code, out, _ = ivdjax(monkeypatch, capfd, "evaluate", tree, tree, "--out", tmp_path / "scores")
    assert code == 0
    assert "discs found  4 of 4" in out
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["dice"]["mean"] == 1


@pytest.fixture
def masks(tree, tmp_path):
    """Perfect predictions of the tree, named by case."""
    (tmp_path / "masks").mkdir()
    for name in ("01", "02"):
        (tmp_path / "masks" / f"{name}.nii.gz").write_bytes((tree / name / f"{name}_Labels.nii.gz").read_bytes())
    return tmp_path / "masks"


def test_evaluate_tells_a_missing_and_an_empty_prediction_in_a_line_and_scores_the_penalty(
    tree, masks, tmp_path, monkeypatch, capfd
):
    label = nib.load(masks / "02.nii.gz")
    nothing = np.zeros(label.shape, np.uint8)
    for spoil, words in (
        (lambda: nib.save(nib.Nifti1Image(nothing, label.affine), masks / "02.nii.gz"), "02.nii.gz: empty"),
        (lambda: (masks / "02.nii.gz").unlink(), "02: no prediction for"),
    ):
        spoil()
        code, out, err = ivdjax(monkeypatch, capfd, "evaluate", masks, tree, "--out", tmp_path / "scores")
        assert (code, err.count("\n")) == (0, 1)
        assert words in err
        assert "discs found  2 of 4" in out
        rows = (tmp_path / "scores" / "scores.csv").read_text().splitlines()[3:]
        diagonal_mm = np.linalg.norm(np.multiply(label.shape, label.header.get_zooms()))
        for row in rows:
            assert row.split(",")[2:4] == ["0", "0.0"]
            assert [float(value) for value in row.split(",")[4:7]] == pytest.approx([diagonal_mm] * 3, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("--out {}/scores", 1, "02.nii.gz: lies elsewhere"),
        ("--subjects table", 2, "--subject-table"),
        ("--subject-table {}/table.csv", 2, "--subjects table"),
        ("--subjects table --subject-table {}/table.csv", 1, "table.csv"),
        ("--reference-scheme spider", 1, "none of the discs of spider"),
    ],
)
def test_evaluate_refuses_in_one_line(tree, masks, tmp_path, monkeypatch, capfd, options, code, words):
    label = nib.load(masks / "02.nii.gz")
    moved = label.affine + np.array([[0, 0, 0, 5.0]] * 3 + [[0] * 4])
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), moved), masks / "02.nii.gz")
    monkeypatch.chdir(tmp_path)
    found, out, err = ivdjax(monkeypatch, capfd, "evaluate", masks, tree, *options.format(tmp_path).split())
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert words in err
    assert not (tmp_path / "scores").exists()


def test_evaluate_says_what_its_intervals_resample(tree, tmp_path, monkeypatch, capfd):
    words = ["evaluate", tree, tree, "--out", tmp_path / "scores"]
    _, out, _ = ivdjax(monkeypatch, capfd, *words)
    assert "each of the 2 cases for a subject" in out
    _, out, _ = ivdjax(monkeypatch, capfd, *words, "--subjects", "pairs")
    assert "intervals resample the 1 subjects of the 2 cases" in out
    (tmp_path / "table.csv").write_text("case,subject\n01,a\n02,b\n")
    _, out, _ = ivdjax(monkeypatch, capfd, *words, "--subjects", "table", "--subject-table", tmp_path / "table.csv")
    assert "intervals resample the 2 subjects of the 2 cases" in out


def test_evaluate_takes_every_scheme_by_its_name(tree, tmp_path, monkeypatch, capfd):
    assert [name.upper() for name in get_args(verbs.LabelScheme)[1:]] == sorted(discs.Scheme.__members__)
    for scheme in discs.Scheme:
        for name in ("01", "02"):
            path = tree / name / f"{name}_Labels.nii.gz"
            label = nib.load(path)
            numbers = np.where(np.asarray(label.dataobj) > 0, scheme.value, 0).astype(np.uint8)
            nib.save(nib.Nifti1Image(numbers, label.affine), path)
        words = ["--reference-scheme", scheme.name.lower(), "--prediction-scheme", scheme.name.lower()]
        code, out, _ = ivdjax(monkeypatch, capfd, "evaluate", tree, tree, "--out", tmp_path / "scores", *words)
        assert code == 0
        assert "dice         1.000" in out


def experiment(*words):
    command = [sys.executable, "-m", "experiments.t2", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_measure_writes_the_table_and_tells_what_speaks_against_the_names(tree, tmp_path, monkeypatch, capfd):
    out = tmp_path / "discs.csv"
    options = (
        "--case",
        tree,
        "--channels",
        "t2",
        "--out",
        out,
        "--labels",
        tmp_path / "labels",
        "--pictures",
        tmp_path,
    )
    code, told, err = ivdjax(monkeypatch, capfd, "measure", tree, *options)
    assert code == 0
    assert "4 discs of 2 case(s)" in told
    assert all(line.startswith(("01: 2 discs where 7 are", "02: 2 discs where 7 are")) for line in err.splitlines())
    table = out.read_text().splitlines()
    assert table[0].startswith("case,level,name,volume_mm3,height_anterior_mm")
    assert [row.split(",")[:3] for row in table[1:3]] == [["01", "1", "L5/S1"], ["01", "2", "L4/L5"]]
    assert (tmp_path / "01_L4-L5.png").stat().st_size > 1000
    code, told, err = ivdjax(
        *(monkeypatch, capfd, "measure", tmp_path / "labels", "--scheme", "ivdjax"),
        *("--expected", "0", "--out", tmp_path / "again.csv"),
    )
    assert (code, err) == (0, "")
    first, again = (
        [row.split(",")[:13] for row in path.read_text().splitlines()] for path in (out, tmp_path / "again.csv")
    )
    assert first == again


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--scheme", "spider"], 1, "none of the discs of spider, values 201 to 223"),
        (["--pictures", "pictures"], 2, "--case"),
        (["--case", "nowhere"], 1, "nowhere: no such folder"),
    ],
)
def test_measure_refuses_in_one_line(tree, tmp_path, monkeypatch, capfd, options, code, words):
    done, _, err = ivdjax(monkeypatch, capfd, "measure", tree, "--out", tmp_path / "discs.csv", *options)
    assert (done, err.count("\n")) == (code, 1)
    assert words in err
    assert not (tmp_path / "discs.csv").exists()


def test_a_verb_names_its_own_options(tree, tmp_path, monkeypatch, capfd):
    code, _, err = ivdjax(monkeypatch, capfd, "measure", tree, "--case", tree, "--out", tmp_path / "discs.csv")
    assert (code, err.count("\n")) == (1, 1)
    assert "pass --channels t2" in err


def test_help_lists_every_field_with_its_doc():
    out = experiment("--help").stdout
    for field in ("--run-dir", "--model.features", "--data.root", "--train.steps", "--augment.noise", "--seed"):
        assert field in out


def test_a_misspelt_field_is_answered_with_the_right_one():
    result = experiment("--data.windw", 3, 4)
    assert result.returncode == 2
    assert "--data.window" in result.stderr + result.stdout


def test_channels_that_the_phantom_lacks_want_a_root(tmp_path):
    result = experiment("--run-dir", tmp_path / "run")
    assert result.returncode == 2
    assert result.stderr.startswith("ivdjax: --data.root: name the folder")
    assert not (tmp_path / "run").exists()


def test_train_then_predict_on_the_inputs_own_grid(tree, tmp_path, monkeypatch, capfd):
    run_dir = tmp_path / "run"
    settings = "--data.hold-out 02 --data.window 24 24 --data.slices 3 --model.features 4 8 --train.steps 2"
    result = experiment("--data.root", tree, "--run-dir", run_dir, *settings.split(), "--train.batch-size", 2)
    assert result.returncode == 0, result.stderr
    for name in ("config.json", "log.jsonl", "scores.csv", "scores.json", "report.html", "predictions/02.nii.gz"):
        assert (run_dir / name).stat().st_size > 0
    code, _, _ = ivdjax(monkeypatch, capfd, "predict", run_dir, tree, tmp_path / "masks")
    assert code == 0
    for name in ("01", "02"):
        source, mask = nib.load(tree / name / f"{name}_t2.nii.gz"), nib.load(tmp_path / "masks" / f"{name}.nii.gz")
        assert mask.shape == source.shape
        np.testing.assert_array_equal(mask.affine, source.affine)
        assert mask.get_data_dtype() == np.uint8
    first = (tmp_path / "masks" / "02.nii.gz").read_bytes()
    assert first == (run_dir / "predictions" / "02.nii.gz").read_bytes()

    words = ["--maps", "--shifts", 1, "--column", "--specks-mm3", 1e9]
    code, _, _ = ivdjax(monkeypatch, capfd, "predict", run_dir, tree, tmp_path / "sure", *words)
    assert code == 0
    assert (tmp_path / "sure/confidence.csv").read_text() == "case,disc,confidence,volume_mm3\n"
    maps = [f"{name}_{kind}.nii.gz" for name in ("01", "02") for kind in ("disagreement", "probability")]
    assert set(maps) < {path.name for path in (tmp_path / "sure/maps").iterdir()}
    assert not np.asarray(nib.load(tmp_path / "sure/02.nii.gz").dataobj).any()
    code, _, err = ivdjax(monkeypatch, capfd, "predict", run_dir, tree, tmp_path / "no", "--shifts", 9)
    assert (code, err.count("\n")) == (2, 1)
    assert not (tmp_path / "no").exists()

    code, _, err = ivdjax(monkeypatch, capfd, "predict", tmp_path, tree, tmp_path / "masks")
    assert code == 1
    assert "config.json" in err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (("--data.slices", "4"), "choose an odd number"),
        (("--train.log-every", "0"), "--train.log-every 0: may be 1 or more"),
        (("--train.checkpoint-every", "0"), "--train.checkpoint-every 0: may be 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(tree, tmp_path, setting, words):
    result = experiment("--data.root", tree, "--run-dir", tmp_path / "run", *setting)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert words in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_first_try_that_fails_leaves_the_run_folder_free(tree, tmp_path):
    result = experiment("--data.root", tree, "--run-dir", tmp_path / "run", "--data.channels", "wat")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "pass --data.channels t2" in result.stderr
    assert not (tmp_path / "run").exists()


def test_convert_goes_to_nnunet_and_back(tree, tmp_path, monkeypatch, capfd):
    raw = tmp_path / "Dataset001_Boxes"
    code, _, err = ivdjax(
        *(monkeypatch, capfd, "convert", "to-nnunet", tree, raw, "--channels", "t2", "--subjects", "single")
    )
    assert (code, err.splitlines()[0]) == (0, f"{raw}: 2 cases to learn from, 0 without labels, 2 folds")
    code, _, err = ivdjax(monkeypatch, capfd, "convert", "nnunet", raw, tmp_path / "back")
    assert (code, err) == (0, f"{tmp_path / 'back'}: 2 cases with t2\n")
    assert ivdjax(monkeypatch, capfd, "check", tmp_path / "back", "--channels", "t2")[0] == 0
    code, _, err = ivdjax(monkeypatch, capfd, "convert", "nnunet", raw, tmp_path / "back")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = ivdjax(monkeypatch, capfd, "convert", "spider", tree, tmp_path / "spider")
    assert (code, err.count("\n")) == (1, 1)
    assert "no images/*.mha" in err

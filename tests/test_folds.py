"""All folds in one run: every case is held out once, and segmented by the networks that have not seen it."""

import csv
import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from ivdjax import config, run, trained
from ivdjax.config import Augment, Data, Experiment, Fresh, Postprocess, Predict, Train
from ivdjax.data import dataset, masks
from ivdjax.errors import UsageError
from ivdjax.models import UNet
from ivdjax.training.logbook import read

NAMES = ("01", "02", "03")


@pytest.fixture(scope="module")
def experiment(tree, tmp_path_factory):
    """Two networks a fold of three."""
    return Experiment(
        name="tiny",
        model=UNet(features=(4, 8)),
        data=Data(root=tree, channels=("t2",), subjects="single", slices=3, window=(24, 24)),
        augment=Augment(swap=0, decay=0, bias=0, blur_voxels=0, blur_through=0, log_gamma=0),
        train=Train(steps=4, batch_size=4, log_every=2, validate_every=0, checkpoint_every=2),
        predict=Predict(flip=False),
        folds="all",
        seeds=2,
        run_dir=tmp_path_factory.mktemp("folds") / "run",
    )


@pytest.fixture(scope="module")
def folder(experiment):
    run.run(experiment)
    return experiment.folder


def test_every_case_is_held_out_by_its_own_networks(folder):
    splits = json.loads((folder / "splits.json").read_text())
    assert [(split["held_out"], split["seed"]) for split in splits] == [([n], s) for n in NAMES for s in (0, 1)]
    for split in splits:
        assert sorted(split["learn"] + split["held_out"]) == list(NAMES)
    with (folder / "scores.csv").open() as file:
        assert {row["case"] for row in csv.DictReader(file)} == set(NAMES)
    rows = [row for row in read(folder / "log.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        assert row["loss"] == pytest.approx(np.mean([row[f"loss_{network}"] for network in range(6)]))
    report = (folder / "report.html").read_text()
    assert "6; a case is segmented by those that have not seen it" in report
    assert "2 cases of 2 subjects" in report
    scores = json.loads((folder / "scores.json").read_text())
    assert [(level["disc"], level["discs"]) for level in scores["per_disc"]] == [(1, 3), (2, 3)]
    assert all(level["dice"]["low"] <= level["dice"]["mean"] <= level["dice"]["high"] for level in scores["per_disc"])


def test_a_case_is_segmented_by_those_that_have_not_seen_it(folder, experiment, tmp_path):
    networks = trained.load(folder)
    assert len(networks.params) == 6
    for fold, case in enumerate(dataset.discover(experiment.data.root, ("t2",))):
        networks.predict(case, tmp_path / "own.nii.gz", members=[2 * fold, 2 * fold + 1])
        networks.predict(case, tmp_path / "all.nii.gz")
        own, every, made = (
            np.asarray(nib.load(path).dataobj)
            for path in (
                tmp_path / "own.nii.gz",
                tmp_path / "all.nii.gz",
                folder / "predictions" / f"{case.name}.nii.gz",
            )
        )
        np.testing.assert_array_equal(own, made)
        assert not np.array_equal(own, every)
    with pytest.raises(UsageError, match="the run has 6 networks"):
        networks.only()


def test_the_finished_run_is_left_as_it_is(folder, experiment, capfd):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    run.run(experiment)
    assert "Finished already" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_a_killed_prediction_goes_on_with_what_is_not_counted(folder, experiment, tmp_path):
    again = dataclasses.replace(experiment, run_dir=tmp_path / "run")
    shutil.copytree(folder, again.folder)
    for lost in ("report.html", "calibration/02.json", "predictions/03.nii.gz", "confidence.csv", "calibration.json"):
        (again.folder / lost).unlink()
    kept = again.folder / "predictions/01.nii.gz", again.folder / "calibration/01.json"
    before = [path.stat().st_mtime_ns for path in kept]
    run.run(again)
    assert [path.stat().st_mtime_ns for path in kept] == before
    for path in ("confidence.csv", "calibration.json", *(f"calibration/{name}.json" for name in NAMES)):
        assert (again.folder / path).read_bytes() == (folder / path).read_bytes()
    with (folder / "confidence.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (folder / "scores.csv").open() as file:
        dice = {(row["case"], row["disc"]): float(row["dice"]) for row in csv.DictReader(file)}
    assert rows
    for row in rows:
        assert 0 <= float(row["confidence"]) <= 1
        assert float(row["dice"]) == (dice[row["case"], row["reference"]] if row["reference"] else 0)
    assert "How far it can be trusted" in (folder / "report.html").read_text()
    assert not (folder / "raw").exists()


def test_what_rules_take_out_of_masks_is_told(folder, experiment, tmp_path):
    rules = dataclasses.replace(experiment.predict, postprocess=Postprocess(specks_mm3=1e6), maps=True)
    ruled = dataclasses.replace(experiment, predict=rules, run_dir=tmp_path / "run")
    shutil.copytree(folder, ruled.folder, ignore=shutil.ignore_patterns("predictions", "calibration*", "report.html"))
    settings = config.to_dict(ruled) | {"run_dir": None}
    settings["data"]["root"] = str(experiment.data.root.resolve())
    (ruled.folder / "config.json").write_text(json.dumps(settings))
    run.run(ruled)
    for name in NAMES:
        mask, raw, before = (
            np.asarray(nib.load(home / "predictions" / f"{name}.nii.gz").dataobj)
            for home in (ruled.folder, ruled.folder / "raw", folder)
        )
        assert not mask.any()
        np.testing.assert_array_equal(raw, before)
        label = nib.load(experiment.data.root / name / f"{name}_Labels.nii.gz")
        maps = {
            kind: nib.load(ruled.folder / "predictions/maps" / f"{name}_{kind}.nii.gz")
            for kind in ("probability", "uncertainty", "disagreement")
        }
        for shown in maps.values():
            np.testing.assert_array_equal(shown.affine, label.affine)
            assert shown.get_data_dtype() == np.float32
            assert 0 <= np.min(shown.dataobj) <= np.max(shown.dataobj) <= 1
        chance = np.asarray(maps["probability"].dataobj)
        np.testing.assert_array_equal((chance > 0.5)[np.abs(chance - 0.5) > 1e-3], raw[np.abs(chance - 0.5) > 1e-3])
    scores, raw = (json.loads((home / "scores.json").read_text()) for home in (ruled.folder, ruled.folder / "raw"))
    assert raw["dice"] == json.loads((folder / "scores.json").read_text())["dice"]
    assert scores["dice"]["mean"] == 0
    page = (ruled.folder / "report.html").read_text()
    assert "What the rules took out of the masks" in page
    assert f"<td>{raw['dice']['mean']:.3f}</td>" in page
    # The folder with the maps is one of masks all the same.
    assert list(masks.find(ruled.folder / "predictions")) == list(NAMES)


def test_a_split_that_has_changed_since_is_refused(folder, experiment, tmp_path):
    """Whatever changed it, here a table of folds: the networks have seen what they would now be scored on."""
    table, run_dir = tmp_path / "folds.csv", tmp_path / "run"
    table.write_text("case,fold\n01,0\n02,0\n03,1\n")
    data = dataclasses.replace(experiment.data, fold_table=table)
    dealt = dataclasses.replace(experiment, data=data, run_dir=run_dir)
    shutil.copytree(folder, run_dir)  # a run, as far as the split is concerned
    (run_dir / "report.html").unlink()
    settings = json.loads((run_dir / "config.json").read_text())
    settings["data"]["fold_table"] = str(table)
    (run_dir / "config.json").write_text(json.dumps(settings))
    before = times(run_dir)
    for again in (lambda: run.run(dealt), lambda: run.write_report(run_dir)):
        with pytest.raises(UsageError, match=r"another split \(splits.json\); its cases or a table have changed"):
            again()
    assert times(run_dir) == before


def times(run_dir):
    """When each file was written, but for the one that says who was last at work."""
    return {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"hold_out": ("01",)}}, "--folds all and --data.hold-out"),
        ({"data": {"fresh": Fresh(per_step=1), "channels": ("wat",)}}, "--folds all: phantoms"),
        ({"data": {"folds": 4}}, "3 subject"),
        ({"seeds": 0}, "--seeds 0: may be 1"),
        ({"seed": -1}, "--seed -1: may be 0 to 4294967295"),
    ],
)
def test_what_has_no_folds_is_refused_before_anything_is_written(experiment, tmp_path, change, message):
    change = dict(change)
    data = dataclasses.replace(experiment.data, **change.pop("data", {}))
    wrong = dataclasses.replace(experiment, data=data, run_dir=tmp_path / "new", **change)
    with pytest.raises(UsageError, match=message):
        run.run(wrong)
    assert not (tmp_path / "new").exists()

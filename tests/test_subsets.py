"""One network, whatever channels are there: what is declared is used, and what cannot be done is refused."""

import dataclasses
from functools import partial

import jax
import nibabel as nib
import numpy as np
import pytest

from ivdjax import cli
from ivdjax import trained as finished
from ivdjax.config import Augment, Data, Experiment, Predict
from ivdjax.data import cache, dataset, nifti
from ivdjax.errors import DataError, UsageError
from ivdjax.inference import predict
from ivdjax.models import UNet
from ivdjax.training import loop

EXPERIMENT = Experiment(
    name="tiny",
    model=UNet(features=(4, 8)),
    data=Data(slices=3, window=(16, 16)),
    augment=Augment(channel_dropout=0.5),
    predict=Predict(flip=False),
)


@pytest.fixture(scope="module")
def trained():
    """A network whose answer depends on every weight."""
    (state,) = loop.split_members(jax.jit(partial(loop.initial_state, EXPERIMENT, [0]))())
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: np.float32(p + 0.3 * rng.normal(size=p.shape)), state.params)
    return finished.Trained(EXPERIMENT, (params,))


@pytest.fixture
def water(tmp_path):
    """A case of which only the water image was kept, on a grid stored in another order."""
    (tmp_path / "in" / "01").mkdir(parents=True)
    image = np.random.default_rng(1).integers(0, 500, (20, 5, 24)).astype(np.int16)
    affine = np.array([[0, 2.0, 0, 0], [0, 0, -1.25, 0], [-1.25, 0, 0, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "in" / "01" / "01_wat.nii.gz")
    return tmp_path / "in"


def test_absent_channels_are_zero_and_flagged(trained, water, tmp_path):
    (case,) = dataset.discover(water, ("wat",))
    trained.predict(case, tmp_path / "01.nii.gz", ("wat",))
    image_ZxHxWxC, _ = dataset.load_images(case)
    normalised = cache.normalise(image_ZxHxWxC, EXPERIMENT.data.clip_percentiles)
    stack = np.concatenate([np.zeros_like(normalised).repeat(3, -1), normalised], -1)
    present = np.array([0, 0, 0, 1], np.float32)
    chances = predict.probability(EXPERIMENT.model, trained.only(), stack, 3, EXPERIMENT.predict, present)
    mask = nifti.read_label(tmp_path / "01.nii.gz").array
    np.testing.assert_array_equal(mask, predict.mask(chances))
    assert 0 < mask.mean() < 1
    told_all = predict.probability(
        EXPERIMENT.model, trained.only(), stack, 3, EXPERIMENT.predict, np.ones(4, np.float32)
    )
    assert np.abs(told_all - chances).max() > 1e-3


@pytest.mark.parametrize(
    ("channels", "dropout", "message"),
    [
        (("t2",), 0.5, "the network knows fat, inn, opp, wat"),
        (("wat", "wat"), 0.5, "the network knows"),
        (("wat",), 0.0, "this run was trained with all of"),
    ],
)
def test_channels_that_cannot_be_done_with_are_refused(trained, channels, dropout, message):
    experiment = dataclasses.replace(EXPERIMENT, augment=Augment(channel_dropout=dropout))
    with pytest.raises(UsageError, match=message):
        finished.Trained(experiment, trained.params).accept(channels)
    assert trained.accept(("wat", "fat")) == [3, 0]


def test_cases_of_different_channels_are_not_mixed(trained, water):
    (water / "02").mkdir()
    (water / "02" / "02_inn.nii.gz").touch()
    with pytest.raises(DataError, match="case 01 has wat but case 02 inn; say which to use of all with --channels"):
        trained.channels_in(water)


def command(monkeypatch, capfd, *words):
    monkeypatch.setattr("sys.argv", ["ivdjax", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capfd.readouterr().err


def test_released_weights_predict_as_their_run_does(trained, water, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(finished, "load", lambda *_: trained)
    finished.release(tmp_path / "run", tmp_path / "small")
    monkeypatch.undo()
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "small").iterdir()}
    assert set(sizes) == {"config.json", "params.safetensors"}
    loaded = finished.load(tmp_path / "small")
    assert loaded.experiment == EXPERIMENT
    for ours, theirs in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(trained.params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)

    code, err = command(monkeypatch, capfd, "predict", "--weights", tmp_path / "small", water, tmp_path / "out")
    assert (code, "1 mask(s), from wat" in err) == (0, True)
    (case,) = dataset.discover(water, ("wat",))
    trained.predict(case, tmp_path / "whole.nii.gz", ("wat",))
    masks = [nifti.read_label(path).array for path in (tmp_path / "out" / "01.nii.gz", tmp_path / "whole.nii.gz")]
    assert (masks[0] == masks[1]).mean() > 0.99


def test_a_run_and_weights_are_not_named_together(water, tmp_path, monkeypatch, capfd):
    for words in (("--weights", "default", tmp_path, water, tmp_path), (water, tmp_path), ("--weights", "default")):
        code, err = command(monkeypatch, capfd, "predict", *words)
        assert code == 2
        assert "predict" in err


def test_damaged_weights_are_one_line(trained, tmp_path, monkeypatch, capfd, water):
    monkeypatch.setattr(finished, "load", lambda *_: trained)
    finished.release(tmp_path / "run", tmp_path / "small")
    monkeypatch.undo()
    path = tmp_path / "small" / "params.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    code, err = command(monkeypatch, capfd, "predict", "--weights", tmp_path / "small", water, tmp_path / "out")
    assert (code, err.count("\n")) == (1, 1)
    assert "params.safetensors: is damaged" in err

import json
import re
from functools import partial
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
from jax import export as jax_export

from ivdjax import trained
from ivdjax.config import Augment, Data, Experiment, Predict
from ivdjax.data import dataset
from ivdjax.errors import UsageError
from ivdjax.inference import export, predict
from ivdjax.models import UNet, UNet3D

DOCS = Path(__file__).parents[2] / "docs"


def networks(experiment, count):
    """Networks whose answers depend on every weight."""
    C = len(experiment.data.channels)
    stack_BxKxHxWxC, present_BxC = np.zeros((1, 3, 16, 16, C), np.float32), np.ones((1, C), np.float32)
    shapes = jax.eval_shape(experiment.model.init, jax.random.key(0), stack_BxKxHxWxC, present_BxC)["params"]
    rng = np.random.default_rng(0)
    return [jax.tree.map(lambda p: np.float32(0.5 * rng.normal(size=p.shape)), shapes) for _ in range(count)]


def tiny(model, channels, flip):
    data, augment = Data(slices=3, window=(16, 16), channels=channels), Augment(channel_dropout=0.5)
    return Experiment("tiny", model=model, data=data, augment=augment, predict=Predict(flip=flip))


@pytest.mark.parametrize(("model", "flip"), [(UNet(features=(4, 8)), True), (UNet3D(features=(4, 8)), False)])
def test_the_file_says_what_the_networks_say_together(model, flip, tmp_path):
    experiment = tiny(model, ("a", "b"), flip)
    params = networks(experiment, 2)
    export.write(tmp_path / "out", experiment, params)
    card = json.loads((tmp_path / "out" / export.CARD).read_text())
    assert (card["networks"], card["slices"], card["channels"]) == (2, 3, ["a", "b"])
    program = jax_export.deserialize((tmp_path / "out" / export.FILE).read_bytes())
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    stack_BxKxHxWxC = np.random.default_rng(1).normal(size=(3, 3, 64, 32, 2)).astype(np.float32)
    present_BxC = np.array([[1, 0], [1, 1], [0, 1]], np.float32)
    found_BxLxHxWxN = np.asarray(program.call(stack_BxKxHxWxC, present_BxC))
    asked = jax.jit(partial(predict.stack_probability, model, flip))
    views = [asked(member, stack_BxKxHxWxC, present_BxC) for member in params]
    np.testing.assert_allclose(found_BxLxHxWxN, np.concatenate(views).mean(0), atol=2e-6)
    assert found_BxLxHxWxN.shape == (3, card["labelled_slices"], 64, 32, 2)
    assert np.ptp(found_BxLxHxWxN[..., 1]) > 0.1  # a network that says nothing would agree with anything
    with pytest.raises(UsageError, match="not an empty folder"):
        export.write(tmp_path / "out", experiment, params)


def test_the_program_in_the_docs_finds_what_predict_finds(tmp_path, monkeypatch):
    experiment = tiny(UNet(features=(4, 8)), ("fat", "wat"), flip=True)
    found = trained.Trained(experiment, tuple(networks(experiment, 1)))
    (tmp_path / "01").mkdir()
    affine = np.array([[0, 2.0, 0, 0], [0, 0, -1.25, 0], [-1.25, 0, 0, 0], [0, 0, 0, 1]])
    for c, name in enumerate(experiment.data.channels):
        image = np.random.default_rng(c).integers(0, 500, (20, 5, 40)).astype(np.int16)
        nib.save(nib.Nifti1Image(image, affine), tmp_path / "01" / f"01_{name}.nii.gz")
    (case,) = dataset.discover(tmp_path, experiment.data.channels)
    expected_ZxHxW = found.segment(case).raw_ZxHxW
    assert 0.02 < expected_ZxHxW.mean() < 0.98
    export.write(tmp_path / "network", experiment, found.params)
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / "prediction.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(program, "prediction.md", "exec"), names)  # the page's own program
    # Normalised in other precisions, a voxel on the fence may fall to the other side.
    assert np.count_nonzero(names["mask"] != expected_ZxHxW) <= 3

"""Another run's weights: the smaller network answers as the larger one does without the other channels."""

import dataclasses

import jax
import numpy as np
import pytest

from ivdjax.config import Augment, Data, Experiment
from ivdjax.errors import UsageError
from ivdjax.models import ResidualUNet, UNet
from ivdjax.training import transfer

MODEL = UNet(features=(4, 8))
SOURCE = Experiment(
    name="source",
    model=MODEL,
    data=Data(channels=("fat", "inn", "opp", "wat"), slices=3, window=(16, 16)),
    augment=Augment(channel_dropout=0.5),
)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def params():
    """Weights in which every number counts, the flags' and the norms' too."""
    made = MODEL.init(jax.random.key(0), np.zeros((1, 3, 16, 16, 4), np.float32), np.ones((1, 4), np.float32))["params"]
    return jax.tree.map(lambda p: p + 0.3 * RNG.normal(size=p.shape).astype(np.float32), made)


def target(channels, names=(), dropout=0.0, **data):
    return dataclasses.replace(
        SOURCE,
        name="target",
        init_channels=names,
        data=dataclasses.replace(SOURCE.data, channels=channels, **data),
        augment=Augment(channel_dropout=dropout),
    )


def answer(params, images, present=None):
    flags = () if present is None else (np.array([present], np.float32),)
    return np.asarray(MODEL.apply({"params": params}, images, *flags))


IMAGES = RNG.normal(size=(1, 3, 16, 16, 4)).astype(np.float32)
WATER_ALONE = IMAGES * np.array([0, 0, 0, 1], np.float32)


def test_one_channel_of_another_name_takes_the_place_it_is_given(params):
    adopted = transfer.adopt(params, SOURCE, target(("t2",), ("wat",)))
    np.testing.assert_allclose(
        answer(adopted, IMAGES[..., 3:]), answer(params, WATER_ALONE, [0, 0, 0, 1]), rtol=1e-4, atol=1e-4
    )


def test_a_network_that_is_told_keeps_its_flags_in_the_new_order(params):
    adopted = transfer.adopt(params, SOURCE, target(("wat", "inn"), dropout=0.5))
    np.testing.assert_allclose(
        answer(adopted, WATER_ALONE[..., [3, 1]], [1, 0]),
        answer(params, WATER_ALONE, [0, 0, 0, 1]),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_source_is_left_as_it_was(params):
    before = jax.tree.map(np.copy, params)
    transfer.adopt(params, SOURCE, target(("wat",)))
    jax.tree.map(np.testing.assert_array_equal, params, before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (target(("t2",)), "--init-channels: say which of that run's channels"),
        (target(("t2",), ("wat", "fat")), "name one for each of t2"),
        (target(("wat",), slices=5), "pass --data.slices 3"),
        (dataclasses.replace(target(("wat",)), model=UNet(features=(4, 16))), "features was"),
    ],
)
def test_what_does_not_fit_is_refused(params, wrong, message):
    with pytest.raises(UsageError, match=message):
        transfer.adopt(params, SOURCE, wrong)


def test_a_network_that_cannot_part_with_channels_is_taken_as_it_is_or_not_at_all(params):
    residual = dataclasses.replace(SOURCE, model=ResidualUNet(features=(4, 8), blocks=(1, 1)))
    same = dataclasses.replace(target(SOURCE.data.channels, dropout=0.5), model=residual.model)
    assert transfer.adopt(params, residual, same) is params
    for other in (target(("wat",), dropout=0.5), target(SOURCE.data.channels)):
        with pytest.raises(UsageError, match="same channels only"):
            transfer.adopt(params, residual, dataclasses.replace(other, model=residual.model))
